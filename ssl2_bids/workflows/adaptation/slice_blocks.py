"""Parts of the slices of a single labelled participant, which are left out one by one."""

from __future__ import annotations

import numpy as np

from ssl2_bids.errors import DataError
from ssl2_bids.steps.lesions import count_lesions
from ssl2_bids.training.adaptation.adapt import slice_folds
from ssl2_bids.training.data.views import AXIAL
from ssl2_bids.workflows.adaptation import scores as scoring
from ssl2_bids.workflows.adaptation.plan import MAX_FOLDS
from ssl2_bids.workflows.adaptation.prepare import PreparedSession
from ssl2_bids.workflows.adaptation.state import Work

NEIGHBOURHOOD = 3  # a slice and its two neighbours


def block_count(work: Work, one: PreparedSession) -> int:
    """How many parts the slices of a single labelled participant are left out in; 1: too few.

    They are too few in a single slice of any direction, and where one part has all lesions: it
    would be tested with what is fitted to tissue without lesions. Parts of one lesion are no test
    of other lesions, wherever the border of two parts lies: a single lesion leaves nothing for a
    test, nor do lesions in a slice and its neighbours alone.
    """
    annotation = work.annotations[one.case.name]
    inside = (annotation.extent.data > 0) & (scoring.brain_of(one).data > 0)
    planes = [inside.any(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    annotated = np.asarray(planes[AXIAL])
    slices = int(annotated.sum())
    if work.trains:  # thin slices are fewer on the network's grid
        found = one.read()
        seen = (np.asarray(found.annotated) > 0) & (np.asarray(found.brain) > 0)
        slices = min(slices, int(seen.any(axis=(0, 1)).sum()))
    count = min(MAX_FOLDS, slices)
    if count < 2 or any(plane.sum() == 1 for plane in planes):
        return 1
    drawn = (annotation.label.data > 0) & inside
    lesion = np.asarray(drawn.sum(axis=(0, 1)))
    seen_in = np.flatnonzero(lesion)
    if len(seen_in) == 0 or np.ptp(seen_in) < NEIGHBOURHOOD or count_lesions(drawn) < 2:
        return 1
    with_lesions = [part for part in slice_folds(annotated, lesion, count) if lesion[part].any()]
    return count if len(with_lesions) > 1 else 1


def too_few_slices(one: PreparedSession, annotated: int, parts: int) -> DataError:
    """The error for a label that cannot be split."""
    return DataError(
        f'{annotated} annotated slices cannot be split into {parts} parts',
        advice=f'Annotate at least {parts} slices.',
        path=one.case.labels[0].path,
    )
