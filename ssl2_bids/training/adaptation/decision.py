"""Whether an adapted model is taken, and how much of it: by its gain on people not seen by it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SHARES = (0.5, 1.0)  # of the way from the first weights to the trained ones, that are tested
CLEARLY = 0.01  # of the mean Dice; less is within what another seed would change
MIN_DICE = 0.15  # below it a model does not know these labels: they may be of other scans
MAX_F1_LOSS = 0.05  # of the mean lesion F1: a higher Dice must not cost whole lesions


@dataclass(frozen=True)
class Decision:
    """Taken or not, and why, in a sentence."""

    accepted: bool
    reason: str


@dataclass(frozen=True)
class ScorePair:
    """Scores of one case before and after; lesion-wise ones are NaN where annotated in part.

    Attributes
    ----------
    participant : whose case it is.
    dice, lesion_f1 : (before, after).
    """

    participant: str
    dice: tuple[float, float]
    lesion_f1: tuple[float, float] = (math.nan, math.nan)


def best_share(pairs: Mapping[float, Sequence[ScorePair]]) -> float:
    """The share of the trained weights in their average with the first ones.

    Averaged networks are often more robust on images unlike those of the training: WiSE-FT,
    Wortsman et al. 2022 (arXiv 2109.01903). The share is 1 unless a smaller share is better by
    0.01 of the mean Dice or more, or is the only share that is accepted: the final model is
    trained on more labels than the models tested here, so a larger share suits it.

    Parameters
    ----------
    pairs : by share, as for :func:`decide`; the same cases in all.
    """
    means = {
        share: mean_of_participants([(p.participant, *p.dice) for p in cases])
        for share, cases in pairs.items()
    }
    after = {share: mean[1] for share, mean in means.items() if mean is not None}
    if not after:
        return 1.0
    best = max(after, key=after.__getitem__)
    near = [
        share
        for share in after
        if after[share] > after[best] - CLEARLY and decide(pairs[share]).accepted
    ]
    return max(near, default=best)


def decide(pairs: Sequence[ScorePair], *, always: bool = False) -> Decision:
    """Decide by out-of-fold scores: participants have equal weights, with any number of sessions.

    Accepted if the mean Dice increases, to 0.15 at least, and the mean lesion F1, where it is
    known, does not decrease by more than 0.05. Any increase is enough, because the models of the
    test had fewer labels than the final model, and often none similar to those left out.

    Parameters
    ----------
    pairs : one per case, of models that saw nothing of its participant.
    always : take the adapted model whatever the scores are.
    """
    dice = mean_of_participants([(p.participant, *p.dice) for p in pairs])
    f1 = mean_of_participants([(p.participant, *p.lesion_f1) for p in pairs])
    if dice is None:
        scores = 'there are no out-of-fold scores'
        return Decision(
            always, f'{scores}; accepted because of --accept always' if always else scores
        )
    scores = f'mean out-of-fold Dice: {dice[0]:.3f} before, {dice[1]:.3f} after'
    if f1 is not None:
        scores += f'; lesion F1: {f1[0]:.3f} before, {f1[1]:.3f} after'
    fault = ''
    if dice[1] <= dice[0]:
        fault = 'the Dice did not increase'
    elif dice[1] < MIN_DICE:
        fault = f'the Dice is below {MIN_DICE:g}: check that the labels belong to these scans'
    elif f1 is not None and f1[0] - f1[1] > MAX_F1_LOSS:
        fault = f'the lesion F1 decreased by more than {MAX_F1_LOSS:g}'
    if fault and not always:
        return Decision(False, f'{fault} ({scores})')
    if fault:
        return Decision(True, f'accepted because of --accept always, although {fault} ({scores})')
    return Decision(True, scores)


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
