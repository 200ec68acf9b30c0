"""Lesion-wise detection: instance maps in, sensitivity, precision and F1 out.

An instance map is an integer array: 0 is background, each lesion has its own number (numbers
may have gaps). Making instances from a mask, and removing those that are too small, is done in
``ssl2_bids.steps.lesions``.

Two rules of what counts as detected stand side by side, since papers use both:

- *any overlap*: a lesion is detected if one of its voxels is in a lesion of the other map;
- *MSSEG* (the tool Anima): overlap by more than ``alpha`` of the lesion, and the components that
  make up ``gamma`` of that overlap don't lie by more than ``beta`` outside all lesions.

Sensitivity takes the reference's lesions, precision the prediction's, with roles swapped. Where
a map has no lesions: both empty is 1, 1, 1; else the share of nothing is undefined (NaN) and F1
is 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import sparse

SIZE_EDGES = (3.0, 10.0, 30.0, 100.0)  # mm^3; METHOD: 22, 29, 24, 12 % of Ljubljana's lesions


@dataclass(frozen=True)
class LesionScores:
    """Lesion-wise scores of one case; undefined values are NaN.

    Attributes
    ----------
    sensitivity : detected / reference_count.
    precision : confirmed / prediction_count.
    f1 : harmonic mean of both.
    reference_count, prediction_count : lesions in each map.
    detected : reference lesions that the prediction detects.
    confirmed : predicted lesions that the reference confirms.
    """

    sensitivity: float
    precision: float
    f1: float
    reference_count: int
    prediction_count: int
    detected: int
    confirmed: int


@dataclass(frozen=True)
class SizeBin:
    """Detection of the lesions of one size: ``lower <= volume < upper``, in mm^3."""

    lower: float
    upper: float
    count: int
    detected: int

    @property
    def sensitivity(self) -> float:
        """Share detected; NaN where there is no lesion of this size."""
        return self.detected / self.count if self.count else math.nan


def any_overlap(reference: np.ndarray, prediction: np.ndarray) -> LesionScores:
    """Detection where one shared voxel suffices.

    Parameters
    ----------
    reference, prediction : instance maps, integer arrays of one shape.

    Raises
    ------
    ValueError : the arrays differ in shape.
    """
    table = overlaps(reference, prediction)
    return _scores(_touched(table), _touched(table.T.tocsr()))


def anima(
    reference: np.ndarray,
    prediction: np.ndarray,
    alpha: float = 0.10,
    beta: float = 0.70,
    gamma: float = 0.65,
) -> LesionScores:
    """Detection by the rule of the MSSEG challenge.

    Commowick et al. (Sci Rep 2018;8:13650, doi 10.1038/s41598-018-31911-7), as written in
    Anima's ``animaSegPerfAnalyzer``: more than ``alpha``, no more than ``beta``, until at
    least ``gamma``; components of equal overlap are taken by their number.

    Parameters
    ----------
    reference, prediction : instance maps, integer arrays of one shape.
    alpha : share of a lesion that must be covered by all of the other map's lesions together.
    beta : largest share of a covering component that may lie outside of all lesions.
    gamma : share of the overlap after which smaller components are no longer looked at.

    Raises
    ------
    ValueError : the arrays differ in shape.
    """
    table = overlaps(reference, prediction)
    thresholds = (alpha, beta, gamma)
    return _scores(_anima_rule(table, *thresholds), _anima_rule(table.T.tocsr(), *thresholds))


def detection_by_size(
    reference: np.ndarray,
    prediction: np.ndarray,
    *,
    voxel_volume: float,
    edges: tuple[float, ...] = SIZE_EDGES,
) -> tuple[SizeBin, ...]:
    """Reference lesions detected (any overlap) by their volume; the last bin has no upper end.

    With the arguments swapped: predicted lesions that are true, by their volume.

    Parameters
    ----------
    reference, prediction : instance maps, integer arrays of one shape.
    voxel_volume : mm^3.
    edges : lower ends of the bins in mm^3, rising; smaller lesions are left out.
    """
    table = overlaps(reference, prediction)
    volumes = _sizes(table)[1:] * voxel_volume
    touched = _touched(table)
    # rounding: 3 voxels of 0.7 x 0.7 x 2.0408 mm are 3 mm^3
    index = np.searchsorted(edges, volumes + 1e-6 * voxel_volume, side='right') - 1
    return tuple(
        SizeBin(lower, upper, int((index == n).sum()), int(touched[index == n].sum()))
        for n, (lower, upper) in enumerate(zip(edges, (*edges[1:], math.inf), strict=True))
    )


def overlaps(reference: np.ndarray, prediction: np.ndarray) -> sparse.csr_matrix:
    """Voxels shared by each pair of lesions.

    Returns
    -------
    Sparse counts of shape (reference lesions + 1, predicted lesions + 1); row and column 0
    are the background, whose own pair is left at 0.

    Raises
    ------
    ValueError : the arrays differ in shape.
    """
    if reference.shape != prediction.shape:
        raise ValueError(f'shapes differ: {reference.shape} and {prediction.shape}')
    lesion = (reference > 0) | (prediction > 0)
    rows, row_count = _consecutive(reference[lesion])
    columns, column_count = _consecutive(prediction[lesion])
    return sparse.coo_matrix(
        (np.ones(len(rows), np.int64), (rows, columns)), shape=(row_count + 1, column_count + 1)
    ).tocsr()


def _consecutive(values: np.ndarray) -> tuple[np.ndarray, int]:
    numbers = np.unique(values)
    numbers = numbers[numbers > 0]
    indices = np.searchsorted(numbers, values) + 1
    return np.where(values > 0, indices, 0), len(numbers)


def _sizes(table: sparse.csr_matrix) -> np.ndarray:
    return np.asarray(table.sum(axis=1)).ravel()


def _touched(table: sparse.csr_matrix) -> np.ndarray:
    return np.asarray(table[1:, 1:].sum(axis=1)).ravel() > 0


def _anima_rule(table: sparse.csr_matrix, alpha: float, beta: float, gamma: float) -> np.ndarray:
    sizes = _sizes(table)
    covered = np.asarray(table[:, 1:].sum(axis=1)).ravel()
    outside = np.asarray(table[0].todense()).ravel() / np.maximum(_sizes(table.T.tocsr()), 1)
    detected = np.zeros(len(sizes), bool)
    for lesion in range(1, len(sizes)):
        if covered[lesion] / sizes[lesion] <= alpha:
            continue
        row = table[lesion, 1:].tocoo()
        order = np.lexsort((row.col, -row.data))
        components, shares = row.col[order] + 1, row.data[order] / covered[lesion]
        before = np.concatenate([[0.0], np.cumsum(shares)[:-1]])
        looked_at = components[before < gamma]
        detected[lesion] = bool((outside[looked_at] <= beta).all())
    return detected[1:]


def _scores(detected: np.ndarray, confirmed: np.ndarray) -> LesionScores:
    if not len(detected) and not len(confirmed):
        return LesionScores(1.0, 1.0, 1.0, 0, 0, 0, 0)
    sensitivity = float(detected.mean()) if len(detected) else math.nan
    precision = float(confirmed.mean()) if len(confirmed) else math.nan
    both = sensitivity + precision
    return LesionScores(
        sensitivity=sensitivity,
        precision=precision,
        f1=2 * sensitivity * precision / both if both > 0 else 0.0,
        reference_count=len(detected),
        prediction_count=len(confirmed),
        detected=int(detected.sum()),
        confirmed=int(confirmed.sum()),
    )
