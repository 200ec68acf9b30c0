"""Calibration of the lesion probability: no threshold, masks and probabilities in.

Over a whole brain any network looks calibrated, since nearly all voxels are obvious background.
So voxels are looked at within 5 mm of predicted or reference lesions (:func:`near_lesions`).
Where there are no such voxels, or no lesions, the scores are undefined (NaN).

- ECE, expected calibration error: mean distance of the probability and the frequency of lesion,
  over bins of the probability, weighted by their voxels (Naeini et al., AAAI 2015).
- Brier score: mean squared distance of probability and truth (Brier, Mon Weather Rev 1950).
- nDSC: Dice with false positives scaled to one lesion load, so that patients with few and with
  many lesions can be compared (Raina et al., ISBI 2023, arXiv 2302.05432; Malinin et al., Shifts
  2.0, arXiv 2206.15407).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

NEIGHBOURHOOD = 5.0  # mm around lesions in which calibration is measured
BINS = 10
LOAD = 0.001  # share of lesion voxels to which nDSC is normalised: that of the Shifts challenge


def near_lesions(
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing: Sequence[float] | np.ndarray,
    *,
    distance: float = NEIGHBOURHOOD,
    inside: np.ndarray | None = None,
) -> np.ndarray:
    """Voxels within a distance of a lesion of either mask, the lesions included.

    Parameters
    ----------
    reference, prediction : boolean arrays of shape (I, J, K).
    spacing : voxel edge lengths in mm, shape (3,).
    distance : mm, between centres of voxels.
    inside : boolean; voxels outside of it are left out (brain mask, annotated extent).
    """
    lesion = reference.astype(bool) | prediction.astype(bool)
    near = np.zeros(lesion.shape, bool)
    if lesion.any():
        # cropped first: the distances of a whole 7T volume take seconds
        wide = np.ceil(distance / np.asarray(spacing, float)).astype(int)
        found = ndimage.find_objects(lesion.astype(np.uint8))[0]
        box = tuple(
            slice(max(0, part.start - margin), part.stop + margin)
            for part, margin in zip(found, wide, strict=True)
        )
        away = ndimage.distance_transform_edt(~lesion[box], sampling=np.asarray(spacing, float))
        near[box] = away <= distance + 5e-4
    return near if inside is None else near & inside.astype(bool)


def expected_calibration_error(
    probability: np.ndarray, truth: np.ndarray, *, bins: int = BINS
) -> float:
    """Expected calibration error, 0 (best) to 1; NaN of nothing.

    Parameters
    ----------
    probability : 0 to 1, any shape: of the voxels that count.
    truth : boolean, same shape.
    bins : of equal width of the probability; the last one includes 1.
    """
    values, right = _flat(probability, truth)
    if not values.size:
        return math.nan
    index = np.minimum((values * bins).astype(int), bins - 1)
    predicted = np.bincount(index, weights=values, minlength=bins)
    true = np.bincount(index, weights=right, minlength=bins)
    return float(np.abs(predicted - true).sum() / values.size)


def brier(probability: np.ndarray, truth: np.ndarray) -> float:
    """Mean squared distance of probabilities and truth, 0 (best) to 1; NaN of nothing.

    Parameters
    ----------
    probability : 0 to 1, any shape.
    truth : boolean, same shape.
    """
    values, right = _flat(probability, truth)
    return float(((values - right) ** 2).mean()) if values.size else math.nan


def normalised_dice(reference: np.ndarray, prediction: np.ndarray, *, load: float = LOAD) -> float:
    """nDSC: ``2 TP / (2 TP + k FP + FN)`` with ``k = (1 - load) P / (load N)``.

    P and N are the reference's lesion and other voxels. Both empty is 1; one empty is 0. N is
    that of the brain here: where all voxels of an image are counted, as in the code of Shifts,
    the field of view changes the number.

    Parameters
    ----------
    reference, prediction : boolean, any shape: the voxels of the brain alone.
    load : share of lesion voxels of a brain to which the case is brought.
    """
    reference, prediction = reference.astype(bool), prediction.astype(bool)
    if not (reference.any() or prediction.any()):
        return 1.0
    positive, negative = int(reference.sum()), int((~reference).sum())
    true = int((reference & prediction).sum())
    false = int(prediction.sum()) - true
    scaled = _scale(positive, negative, load) * false
    return 2 * true / (2 * true + scaled + positive - true) if true else 0.0


def _scale(positive: int, negative: int, load: float) -> float:
    """Factor of false positives; without a reference lesion there is nothing to scale to."""
    if not (positive and negative):
        return 1.0
    return (1 - load) * positive / (load * negative)


def _flat(values: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if np.shape(values) != np.shape(truth):
        raise ValueError(f'shapes differ: {np.shape(values)} and {np.shape(truth)}')
    return np.asarray(values, float).ravel(), np.asarray(truth, bool).ravel().astype(float)
