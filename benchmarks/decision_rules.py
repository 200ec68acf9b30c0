"""Rules by which a rung of an adaptation is taken, and what they do at the sites of a bank."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ssl2_bids.training.adaptation import decision
from ssl2_bids.training.adaptation.decision import Choice, ScorePair, choose, gain_of

BETTER, WORSE = 0.01, 0.0  # mean Dice on further people: from here on it helps, below it harms


def pair_of(entry: Sequence[Any]) -> ScorePair:
    """What the decision looks at, from a file of the bank."""
    dice, after, f1, f1_after, *more = [
        math.nan if value is None else float(value) for value in entry[1:]
    ]
    return ScorePair(entry[0], (dice, after), (f1, f1_after), *more)


Tests = Mapping[str, Sequence[ScorePair]]


def out_of_fold(tests: Tests) -> Choice:
    """The rule without the scores on the labels of the fit."""
    return choose({rung: [replace(p, fitted=math.nan) for p in t] for rung, t in tests.items()})


def any_increase(tests: Tests) -> Choice:
    """Any increase of the out-of-fold Dice is enough, for the recalibration too."""
    least = decision.LEAST_GAIN, decision.LEAST_WITHIN
    decision.LEAST_GAIN, decision.LEAST_WITHIN = {}, 0.0
    try:
        return out_of_fold(without_spans(tests))
    finally:
        decision.LEAST_GAIN, decision.LEAST_WITHIN = least


def highest(tests: Tests) -> Choice:
    """The former rule: the best of the better rungs, however little it is better."""
    better = [rung for rung in tests if any_increase({rung: tests[rung]}).decision.accepted]
    best = max(better or tests, key=lambda rung: gain_of(tests[rung]))
    return any_increase({best: tests[best]})


def always_last(tests: Tests) -> Choice:
    """The largest change, without a test."""
    last = list(tests)[-1]
    return choose({last: tests[last]}, always=True)


def any_threshold(tests: Tests) -> Choice:
    """The rule without its condition on a threshold that one participant lowers."""
    return choose(without_spans(tests))


def without_spans(tests: Tests) -> Tests:
    """Tests in which no threshold counts as lowered by one participant."""
    return {rung: [replace(p, span=math.nan) for p in t] for rung, t in tests.items()}


RULES: dict[str, Callable[[Tests], Choice]] = {
    'lowest within 1 SE': choose,
    'out of fold alone': out_of_fold,
    'any increase': any_increase,
    'highest': highest,
    'always the last': always_last,
}
SINGLE_RULES = RULES | {'any threshold': any_threshold}


def table_of(
    sites: Sequence[dict[str, Any]], rules: Mapping[str, Callable[[Tests], Choice]] = RULES
) -> str:
    """What each rule does at the sites: a line per rule and kind of sites."""
    lines = [
        f'{"sites":16} {"rule":20} {"n":>3} {"used":>5} {"harmful used":>13} '
        f'{"helpful refused":>16} {"mean gain":>10}'
    ]
    for kind in ('all', 'right labels', 'shuffled'):
        own = [
            site
            for site in sites
            if kind == 'all' or site['Labels']['shuffled'] == (kind == 'shuffled')
        ]
        if not own:
            continue
        for name, rule in rules.items():
            used = harmful = helpful = refused = 0
            gains = []
            for site in own:
                tests = {
                    rung: [pair_of(pair) for pair in entry['Pairs']]
                    for rung, entry in site['Rungs'].items()
                }
                further = {
                    rung: float(np.mean([after - before for before, after in entry['Further']]))
                    for rung, entry in site['Rungs'].items()
                }
                choice = rule(tests)
                gain = further[choice.rung] if choice.decision.accepted else 0.0
                used += choice.decision.accepted
                harmful += choice.decision.accepted and gain < WORSE
                could = max(further.values()) >= BETTER and not site['Labels']['shuffled']
                helpful += could
                refused += could and not choice.decision.accepted
                gains.append(gain)
            lines.append(
                f'{kind:16} {name:20} {len(own):3} {used:5} {share(harmful, used):>13} '
                f'{share(refused, helpful):>16} {np.mean(gains):10.4f}'
            )
    return '\n'.join(lines)


def share(part: int, whole: int) -> str:
    """``1 of 8 (12 %)``."""
    return f'{part} of {whole}' + (f' ({part / whole:.0%})' if whole else '')
