"""Which slices to label next: where models are uncertain, spread over people and over a brain.

Several models (those of the folds, trained on different people) give a mean probability p. The
expected error of a voxel is min(p, 1 - p): the error of a decision at 0.5 if p is right. It is
large where one model is uncertain and where models disagree. Summed over a slice it is the volume
that a rater is expected to correct there. Slices of one brain are redundant, so each further
slice of a participant counts half of the one before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

APART = 8.0  # mm between suggested slices of a brain: thinner gaps show the same lesions
FADING = 0.5  # what a further slice of the same participant is worth
PER_CASE = 10  # slices kept of a brain
PER_SUGGESTION = 2  # sessions that are looked at for each slice to be suggested


@dataclass(frozen=True)
class SliceGain:
    """An axial slice of a case and the error expected in it, in mm^3."""

    case: str
    participant: str
    index: int
    gain: float


@dataclass(frozen=True)
class Suggestion:
    """A slice worth labelling; ``gain`` in mm^3, faded by those of the participant before it."""

    case: str
    participant: str
    index: int
    gain: float


def sessions_asked(number: int, suggestions: int) -> int:
    """Of how many of a number of sessions models are asked, for so many suggestions."""
    return min(number, PER_SUGGESTION * suggestions)


def expected_error(probabilities: Sequence[np.ndarray]) -> np.ndarray:
    """min(p, 1 - p) of the mean of probability maps of one shape."""
    mean = np.mean([np.asarray(p, np.float32) for p in probabilities], axis=0)
    return np.minimum(mean, 1 - mean)


def slice_gains(
    case: str,
    participant: str,
    error: np.ndarray,
    *,
    voxel_size: Sequence[float],
    known: np.ndarray | None = None,
) -> list[SliceGain]:
    """The best axial slices of a brain, at least 8 mm apart, best first.

    Parameters
    ----------
    error : (D, H, W) expected error per voxel, axial slices along the last axis.
    voxel_size : mm.
    known : voxels that are annotated already, from which nothing is to be gained.
    """
    if known is not None:
        error = np.where(known, 0, error)
    gains = error.sum(axis=(0, 1)) * float(np.prod(voxel_size))
    found: list[SliceGain] = []
    for index in np.argsort(-gains, kind='stable').tolist():
        if len(found) == PER_CASE or gains[index] <= 0:
            break
        if all(abs(index - one.index) * voxel_size[2] >= APART for one in found):
            found.append(SliceGain(case, participant, index, float(gains[index])))
    return found


def suggest(gains: Iterable[SliceGain], *, most: int) -> list[Suggestion]:
    """Choose slices greedily, best first, each further one of a participant counted half.

    Parameters
    ----------
    most : how many at most.
    """
    left = list(gains)
    taken: dict[str, int] = {}
    found: list[Suggestion] = []

    def value(one: SliceGain) -> float:
        return one.gain * FADING ** taken.get(one.participant, 0)

    while left and len(found) < most:
        best = max(left, key=lambda one: (value(one), one.case, -one.index))
        found.append(Suggestion(best.case, best.participant, best.index, value(best)))
        taken[best.participant] = taken.get(best.participant, 0) + 1
        left.remove(best)
    return found
