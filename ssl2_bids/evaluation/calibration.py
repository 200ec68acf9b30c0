"""Whether a lesion probability means what it says: no threshold, masks and probabilities in.

Over a whole brain any network looks calibrated, since nearly all voxels are obvious background.
So voxels are looked at within 5 mm of predicted or reference lesions (:func:`near_lesions`).
Where there are no such voxels, or no lesions, the scores are undefined (NaN).

- ECE, expected calibration error: mean distance of the probability and the frequency of lesion,
  over bins of the probability, weighted by their voxels (Naeini et al., AAAI 2015).
- Brier score: mean squared distance of probability and truth (Brier, Mon Weather Rev 1950).
- Risk-coverage: error rate among the most certain voxels (Geifman and El-Yaniv, NIPS 2017).
- nDSC: Dice with false positives scaled to one lesion load, so that patients with few and with
  many lesions can be compared, and its curve as uncertain voxels are handed to an expert
  (Raina et al., ISBI 2023, arXiv 2302.05432; Malinin et al., Shifts 2.0, arXiv 2206.15407).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

NEIGHBOURHOOD = 5.0  # mm around lesions in which calibration is judged
BINS = 10
LOAD = 0.001  # share of lesion voxels to which nDSC is normalised: that of the Shifts challenge
PLACES = 200


@dataclass(frozen=True)
class Reliability:
    """What was said and what was true, by bins of equal width of the probability.

    Attributes
    ----------
    edges : (bins + 1,), from 0 to 1; the last bin includes 1.
    count : (bins,), voxels or lesions in each bin.
    said : (bins,), sum of their probabilities.
    true : (bins,), how many of them are lesion.
    """

    edges: np.ndarray
    count: np.ndarray
    said: np.ndarray
    true: np.ndarray

    def __add__(self, other: Reliability) -> Reliability:
        """Both together: how cases are pooled."""
        if not np.array_equal(self.edges, other.edges):
            raise ValueError('the bins differ')
        return Reliability(
            self.edges,
            self.count + other.count,
            self.said + other.said,
            self.true + other.true,
        )

    @property
    def probability(self) -> np.ndarray:
        """Mean probability of each bin; NaN where it is empty."""
        return _share(self.said, self.count)

    @property
    def frequency(self) -> np.ndarray:
        """Share of lesion in each bin; NaN where it is empty."""
        return _share(self.true, self.count)

    @property
    def expected_error(self) -> float:
        """Expected calibration error, 0 to 1; NaN of nothing."""
        total = self.count.sum()
        return float(np.abs(self.said - self.true).sum() / total) if total else math.nan


@dataclass(frozen=True)
class Curve:
    """A score as a function of the share of voxels kept, the most certain first.

    Attributes
    ----------
    coverage : rising, to 1.
    value : score at each coverage.
    area : mean of the score over the coverages; NaN of nothing.
    """

    coverage: np.ndarray
    value: np.ndarray
    area: float


NO_CURVE = Curve(np.empty(0), np.empty(0), math.nan)


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


def reliability(probability: np.ndarray, truth: np.ndarray, *, bins: int = BINS) -> Reliability:
    """Sort probabilities into bins, with how often each was right.

    Parameters
    ----------
    probability : 0 to 1, any shape: of the voxels that count, or of lesions.
    truth : boolean, same shape.
    """
    values, right = _flat(probability, truth)
    index = np.minimum((values * bins).astype(int), bins - 1)
    return Reliability(
        edges=np.linspace(0, 1, bins + 1),
        count=np.bincount(index, minlength=bins),
        said=np.bincount(index, weights=values, minlength=bins),
        true=np.bincount(index, weights=right, minlength=bins),
    )


def brier(probability: np.ndarray, truth: np.ndarray) -> float:
    """Mean squared distance of probabilities and truth, 0 (best) to 1; NaN of nothing.

    Parameters
    ----------
    probability : 0 to 1, any shape.
    truth : boolean, same shape.
    """
    values, right = _flat(probability, truth)
    return float(((values - right) ** 2).mean()) if values.size else math.nan


def lesion_reliability(
    probability: np.ndarray, instances: np.ndarray, reference: np.ndarray, *, bins: int = BINS
) -> Reliability:
    """Mean probability of predicted lesions, with how often they are true.

    Parameters
    ----------
    probability : 0 to 1, shape (I, J, K).
    instances : instance map of the prediction.
    reference : boolean; a predicted lesion that shares a voxel with it is true.
    """
    numbers = np.unique(instances[instances > 0])
    if not numbers.size:
        return reliability(np.empty(0), np.empty(0, bool), bins=bins)
    means = np.asarray(ndimage.mean(probability, instances, numbers), float)
    true = np.asarray(ndimage.maximum(reference.astype(np.uint8), instances, numbers)) > 0
    return reliability(means.clip(0, 1), true, bins=bins)


def risk_coverage(confidence: np.ndarray, wrong: np.ndarray, *, places: int = PLACES) -> Curve:
    """Error rate among the most certain, by the share that is kept.

    Parameters
    ----------
    confidence : any shape; higher is more certain (``abs(probability - threshold)``). Equals
        are taken as if in random order.
    wrong : boolean, same shape: where mask and reference disagree.
    places : at how many shares the curve is given, evenly; its area is that of all voxels.
    """
    certain, errors = _flat(confidence, wrong)
    if not certain.size:
        return NO_CURVE
    _, group, sizes = np.unique(-certain, return_inverse=True, return_counts=True)
    rates = np.bincount(group, weights=errors) / sizes
    risk = np.cumsum(np.repeat(rates, sizes)) / np.arange(1, certain.size + 1)
    coverage = np.linspace(1 / places, 1, places)
    kept = np.maximum(np.round(coverage * certain.size).astype(int), 1)
    return Curve(coverage, risk[kept - 1], float(risk.mean()))


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


def dice_retention(
    reference: np.ndarray,
    prediction: np.ndarray,
    uncertainty: np.ndarray,
    *,
    load: float = LOAD,
    places: int = PLACES,
) -> Curve:
    """nDSC as the most uncertain voxels are set right, by the share that is kept.

    Parameters
    ----------
    reference, prediction : boolean, any shape: the voxels of the brain alone.
    uncertainty : same shape; equals are set right in the order of the array.
    places : at how many shares kept the curve is given, denser towards 1 (lesions are few); its
        area is that of all voxels.
    """
    right, said = reference.astype(bool).ravel(), prediction.astype(bool).ravel()
    if not right.size:
        return NO_CURVE
    order = np.argsort(np.asarray(uncertainty).ravel(), kind='stable')
    right, said = right[order], said[order]
    positive = int(right.sum())
    scale = _scale(positive, right.size - positive, load)
    false = np.concatenate([[0], np.cumsum(said & ~right)])
    missed = np.concatenate([[0], np.cumsum(right & ~said)])
    true = positive - missed
    below = 2 * true + scale * false + missed
    value = np.divide(2 * true, below, out=np.ones(len(below)), where=below > 0)
    share = np.log(np.arange(1, places + 1)) / np.log(places)
    kept = np.round(share * right.size).astype(int)
    return Curve(kept / right.size, value[kept], float((value[1:] + value[:-1]).mean() / 2))


def _scale(positive: int, negative: int, load: float) -> float:
    """Factor of false positives; without a reference lesion there is nothing to scale to."""
    if not (positive and negative):
        return 1.0
    return (1 - load) * positive / (load * negative)


def _flat(values: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if np.shape(values) != np.shape(truth):
        raise ValueError(f'shapes differ: {np.shape(values)} and {np.shape(truth)}')
    return np.asarray(values, float).ravel(), np.asarray(truth, bool).ravel().astype(float)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), math.nan), where=whole > 0)
