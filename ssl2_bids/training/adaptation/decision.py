"""Which rung of the ladder is taken, by its gain on people not seen by it.

The rungs, from the one that is easiest to trust: the start model; the start model recalibrated;
a training of its normalisations and last layers; half of the change of a training of all layers;
all of it. A trained rung is recalibrated, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ssl2_bids.settings import HALF_WAY, LAST_LAYERS, RECALIBRATED, WHOLE

# of the way from the first weights to the trained ones
SHARES = {LAST_LAYERS: 1.0, HALF_WAY: 0.5, WHOLE: 1.0}
CLEARLY = 0.01  # of the mean Dice: stands for the standard error where a single case has none
# of the mean Dice, by rung: smaller gains did not hold on other people of simulated sites that had
# no training (``benchmarks/decision_bank.py``). Sites with all rungs are in ``benchmarks/bank``;
# no least gain of a trained rung was chosen by them
LEAST_GAIN = {RECALIBRATED: 0.005}
# of the mean Dice on the labels that a recalibration was fitted to: its few numbers hardly fit to
# chance, and a test that leaves out one of two or three people refused half of what helps (ibid.)
LEAST_FITTED = 0.01
MAX_LOSS = 0.02  # of the mean Dice out of fold, where the labels of the fit gain
LEAST_WITHIN = 0.02  # of the Dice, of any rung, where the cases are of one participant (ibid.)
# of the Dice, and in mm: what a lower threshold by one participant alone needs (ibid.)
LEAST_LOWERED, LEAST_SPAN = 0.1, 60.0
RULE_OF_ONE = LEAST_WITHIN, LEAST_LOWERED, LEAST_SPAN, 'pieces of one lesion are no test'
MIN_DICE = 0.15  # below it a model does not know these labels: they may be of other scans
UNKNOWN_LABELS = f'the Dice is below {MIN_DICE:g}: check that the labels belong to these scans'
MAX_F1_LOSS = 0.05  # of the mean lesion F1: a higher Dice must not cost whole lesions


@dataclass(frozen=True)
class Decision:
    """Taken or not, and why, in a sentence."""

    accepted: bool
    reason: str


@dataclass(frozen=True)
class Choice:
    """The rung that is taken, or of which it is reported why nothing is."""

    rung: str
    decision: Decision


@dataclass(frozen=True)
class ScorePair:
    """Scores of one case before and after; lesion-wise ones are NaN where annotated in part.

    Attributes
    ----------
    participant : whose case it is.
    dice, lesion_f1 : (before, after).
    fitted : Dice after a recalibration on all labels, those of this case too; NaN for others.
    span : of the annotated part of the brain, in mm: the least of three directions; where lesions
        of one participant alone lower the threshold, else NaN.
    """

    participant: str
    dice: tuple[float, float]
    lesion_f1: tuple[float, float] = (math.nan, math.nan)
    fitted: float = math.nan
    span: float = math.nan


def choose(tests: Mapping[str, Sequence[ScorePair]], *, always: bool = False) -> Choice:
    """The lowest rung within one standard error of the best, of those that are accepted.

    The one-standard-error rule of Breiman et al. (Classification and Regression Trees, 1984):
    of models that the test cannot distinguish the simplest one. The error is that of the mean
    difference to the best rung, paired by participant. Without a single pair the recalibration
    stands for the labels, and without labels the whole change for the training.

    Parameters
    ----------
    tests : by rung, from the lowest on, without the start model; the same cases in all.
    always : take a rung whatever the scores are.
    """
    decisions = {rung: decide(pairs, rung, always=always) for rung, pairs in tests.items()}
    better = [rung for rung, pairs in tests.items() if decide(pairs, rung).accepted]
    among = better or list(tests)
    means = {rung: gain_of(tests[rung]) for rung in among}
    best = max(reversed(among), key=lambda rung: means[rung])
    if not math.isfinite(means[best]):  # without a test the few numbers, or the whole change
        untested = RECALIBRATED if RECALIBRATED in tests else among[-1]
        return Choice(untested, decisions[untested])
    taken = next(
        rung
        for rung in among
        if rung == best or means[best] - means[rung] <= standard_error(tests[best], tests[rung])
    )
    reason = decisions[taken].reason
    if taken != best and decisions[taken].accepted:
        reason += (
            f'; {taken} is the lowest rung within one standard error '
            f'({standard_error(tests[best], tests[taken]):.3f}) of the best, {best} '
            f'({means[best] - means[taken]:.3f} higher)'
        )
    return Choice(taken, Decision(decisions[taken].accepted, reason))


def gain_of(pairs: Sequence[ScorePair]) -> float:
    """Mean gain of the Dice; minus infinity without scores."""
    mean = mean_of_participants([(p.participant, *p.dice) for p in pairs])
    return -math.inf if mean is None else mean[1] - mean[0]


def best_dice(pairs: Sequence[ScorePair]) -> float:
    """The higher one of the mean Dice before and after; infinity without scores."""
    mean = mean_of_participants([(p.participant, *p.dice) for p in pairs])
    return math.inf if mean is None else max(mean)


def standard_error(first: Sequence[ScorePair], second: Sequence[ScorePair]) -> float:
    """Standard error of the mean difference of two rungs' Dice; 0.01 for a single participant."""
    differences: dict[str, list[float]] = {}
    for one, other in zip(first, second, strict=True):
        value = one.dice[1] - other.dice[1]
        if math.isfinite(value):
            differences.setdefault(one.participant, []).append(value)
    values = [sum(found) / len(found) for found in differences.values()]
    if len(values) < 2:
        return CLEARLY
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return math.sqrt(variance / len(values))


def decide(pairs: Sequence[ScorePair], rung: str = '', *, always: bool = False) -> Decision:
    """Decide by out-of-fold scores: participants have equal weights, with any number of sessions.

    Accepted if the mean Dice increases, to 0.15 at least, and the mean lesion F1, where it is
    known, does not decrease by more than 0.05. Any increase of a trained rung is enough, because
    the models of the test had fewer labels than the final model, and often none similar to those
    left out. A recalibration must gain 0.01 on the labels that it was fitted to, and lose at most
    0.02 out of fold; where the former is unknown, gain 0.005 out of fold. Within a single
    participant any rung must gain 0.02 on the slices left out, and one that lowers the threshold
    must pass :func:`may_lower`.

    Parameters
    ----------
    pairs : one per case, of models that saw nothing of its participant.
    rung : whose scores they are.
    always : take the adapted model whatever the scores are.
    """
    dice, f1, own = _means(pairs, rung)
    scores = in_words(pairs, rung)
    if dice is None:
        return Decision(always, f'{scores}; used because of --accept always' if always else scores)
    fault = ''
    if max(dice) < MIN_DICE:
        fault = UNKNOWN_LABELS
    elif own is not None:
        if own[1] - own[0] < LEAST_FITTED:
            fault = f'fitted to all labels the Dice increased by less than {LEAST_FITTED:g}'
        elif dice[0] - dice[1] > MAX_LOSS:
            fault = f'the out-of-fold Dice decreased by more than {MAX_LOSS:g}'
    elif dice[1] <= dice[0]:
        fault = 'the Dice did not increase'
    elif dice[1] - dice[0] < (least := least_gain(pairs, rung)):
        fault = f'the Dice increased by less than {least:g}'
    if not fault and not may_lower(pairs):
        fault = (
            f'labels of one participant lower the threshold only with a gain of {LEAST_LOWERED:g} '
            f'in slices over at least {LEAST_SPAN:g} mm'
        )
    if not fault and dice[1] < MIN_DICE:
        fault = UNKNOWN_LABELS
    if not fault and f1 is not None and f1[0] - f1[1] > MAX_F1_LOSS:
        fault = f'the lesion F1 decreased by more than {MAX_F1_LOSS:g}'
    if fault and not always:
        return Decision(False, f'{fault} ({scores})')
    if fault:
        return Decision(True, f'used because of --accept always, although {fault} ({scores})')
    return Decision(True, scores)


def in_words(pairs: Sequence[ScorePair], rung: str = '') -> str:
    """The mean scores before and after, as a decision states them."""
    dice, f1, own = _means(pairs, rung)
    if dice is None:
        return 'there are no out-of-fold scores'
    words = f'mean out-of-fold Dice: {dice[0]:.3f} before, {dice[1]:.3f} after'
    if f1 is not None:
        words += f'; lesion F1: {f1[0]:.3f} before, {f1[1]:.3f} after'
    if own is not None:
        words += f'; Dice with the numbers fitted to all labels: {own[1]:.3f}'
    return words


def _means(
    pairs: Sequence[ScorePair], rung: str
) -> tuple[tuple[float, float] | None, tuple[float, float] | None, tuple[float, float] | None]:
    """Before and after: Dice, lesion F1, Dice with the numbers fitted to all labels."""
    dice = mean_of_participants([(p.participant, *p.dice) for p in pairs])
    f1 = mean_of_participants([(p.participant, *p.lesion_f1) for p in pairs])
    own = None
    if rung == RECALIBRATED and len({pair.participant for pair in pairs}) > 1:
        own = mean_of_participants([(p.participant, p.dice[0], p.fitted) for p in pairs])
    return dice, f1, own


def least_gain(pairs: Sequence[ScorePair], rung: str) -> float:
    """The gain of the mean Dice below which a rung is not taken."""
    if len({pair.participant for pair in pairs}) == 1:
        return LEAST_WITHIN
    return LEAST_GAIN.get(rung, 0.0)


def may_lower(pairs: Sequence[ScorePair]) -> bool:
    """Whether a threshold may become lower, where lesions of one participant ask for it.

    A model that marks too much in one brain does so in most brains of a site. Lesions that it
    misses are few, and those of one person are alike: where the model marked too much, each lower
    threshold by one person made the masks of others worse. So the gain has to be that of a model
    that misses most lesions, in a large part of the brain. True where no threshold is lowered.
    """
    spans = [pair.span for pair in pairs if math.isfinite(pair.span)]
    return not spans or gain_of(pairs) >= LEAST_LOWERED and min(spans) >= LEAST_SPAN


def mean_of_participants(
    rows: Sequence[tuple[str, float, float]],
) -> tuple[float, float] | None:
    """Means over participants of (participant, before, after); None without a finite pair."""
    people: dict[str, list[tuple[float, float]]] = {}
    for participant, before, after in rows:
        if math.isfinite(before) and math.isfinite(after):
            people.setdefault(participant, []).append((before, after))
    if not people:
        return None
    means = [[sum(column) / len(pairs) for column in zip(*pairs, strict=True)]
             for pairs in people.values()]  # fmt: skip
    return (
        sum(before for before, _ in means) / len(means),
        sum(after for _, after in means) / len(means),
    )
