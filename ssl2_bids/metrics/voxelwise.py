"""Voxel-wise agreement of a predicted lesion mask with a reference: overlap, volume, surface.

Empty masks have rules, so that a cohort with lesion-free participants can be averaged:

=====================  ====  ====  ===========  ==============  ============  =============
                       Dice  PPV   sensitivity  volume errors   HD95          surface Dice
=====================  ====  ====  ===========  ==============  ============  =============
both empty             1     1     1            undefined       0             1
only reference empty   0     0     undefined    undefined       diagonal      0
only prediction empty  0     undef 0            -1, 1, -inf     diagonal      0
=====================  ====  ====  ===========  ==============  ============  =============

Undefined is NaN here and ``n/a`` in tables; averages leave it out and count it.
The diagonal is that of the image, in mm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from ssl2_bids.voxel_grid import bounding_box, start_of

SURFACE_TOLERANCE = 1.0  # mm; the voxel edge of most research scans


@dataclass(frozen=True)
class VoxelScores:
    """Voxel-wise scores of one case; undefined values are NaN.

    Attributes
    ----------
    volume_error : (V_p - V_r) / V_r; ``absolute_volume_error`` is its absolute value.
    log_volume_ratio : ln(V_p / V_r).
    hausdorff_95 : mm.
    reference_volume, prediction_volume : mm^3.
    """

    dice: float
    ppv: float
    sensitivity: float
    volume_error: float
    absolute_volume_error: float
    log_volume_ratio: float
    hausdorff_95: float
    surface_dice: float
    reference_volume: float
    prediction_volume: float

    @property
    def one_empty(self) -> bool:
        """Whether exactly one of both masks is empty (HD95 is then the image diagonal)."""
        return (self.reference_volume == 0) != (self.prediction_volume == 0)


def dice(reference: np.ndarray, prediction: np.ndarray) -> float:
    """Dice coefficient 2|R and P| / (|R| + |P|) of two boolean arrays of one shape."""
    total = _size(reference) + _size(prediction)
    return 2 * _size(reference & prediction) / total if total else 1.0


def sensitivity(reference: np.ndarray, prediction: np.ndarray) -> float:
    """Share of the reference that was predicted: |R and P| / |R|."""
    size = _size(reference)
    if not size:
        return math.nan if prediction.any() else 1.0
    return _size(reference & prediction) / size


def ppv(reference: np.ndarray, prediction: np.ndarray) -> float:
    """Positive predictive value, the share of the prediction that is true: |R and P| / |P|."""
    return sensitivity(prediction, reference)


def volume_error(reference: np.ndarray, prediction: np.ndarray) -> float:
    """Signed relative volume error (V_p - V_r) / V_r; negative where too little was found."""
    size = _size(reference)
    return _size(prediction) / size - 1 if size else math.nan


def absolute_volume_error(reference: np.ndarray, prediction: np.ndarray) -> float:
    """Absolute relative volume error |V_p - V_r| / V_r (the AVD of the WMH challenge / 100)."""
    return abs(volume_error(reference, prediction))


def log_volume_ratio(reference: np.ndarray, prediction: np.ndarray) -> float:
    """ln(V_p / V_r): symmetric about zero; minus infinity where nothing was predicted."""
    size, predicted = _size(reference), _size(prediction)
    if not size:
        return math.nan
    return math.log(predicted / size) if predicted else -math.inf


def surface_distances(
    reference: np.ndarray, prediction: np.ndarray, spacing: Sequence[float] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each surface voxel to the other mask's surface; neither mask may be empty.

    A surface voxel belongs to the mask and has one of its six neighbours outside of it, or
    lies on the border of the image.

    Parameters
    ----------
    reference, prediction : boolean arrays of shape (I, J, K).
    spacing : voxel edge lengths in mm, shape (3,).

    Returns
    -------
    Distances in mm from the reference's surface to the prediction's, and the other way round.
    """
    surfaces = [_surface(mask) * np.asarray(spacing, float) for mask in (reference, prediction)]
    trees = [KDTree(points) for points in surfaces]
    return trees[1].query(surfaces[0])[0], trees[0].query(surfaces[1])[0]


def hausdorff_95(
    reference: np.ndarray, prediction: np.ndarray, spacing: Sequence[float] | np.ndarray
) -> float:
    """95th percentile Hausdorff distance in mm: the larger of both directed percentiles.

    Parameters
    ----------
    reference, prediction : boolean arrays of shape (I, J, K).
    spacing : voxel edge lengths in mm, shape (3,).
    """
    if not (reference.any() and prediction.any()):
        return _hausdorff_empty(reference, prediction, spacing)
    return _percentile_95(*surface_distances(reference, prediction, spacing))


def surface_dice(
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing: Sequence[float] | np.ndarray,
    *,
    tolerance: float = SURFACE_TOLERANCE,
) -> float:
    """Share of both surfaces that lies within ``tolerance`` of the other one.

    After Nikolov et al. (JMIR 2021, doi 10.2196/26151), counting surface voxels where they
    weigh surface elements by area.

    Parameters
    ----------
    reference, prediction : boolean arrays of shape (I, J, K).
    spacing : voxel edge lengths in mm, shape (3,).
    tolerance : mm.
    """
    if not (reference.any() and prediction.any()):
        return float(reference.any() == prediction.any())
    return _share_within(*surface_distances(reference, prediction, spacing), tolerance=tolerance)


def compare(
    reference: np.ndarray,
    prediction: np.ndarray,
    *,
    spacing: Sequence[float] | np.ndarray,
    extent: np.ndarray | None = None,
) -> VoxelScores:
    """All voxel-wise scores of one case.

    Parameters
    ----------
    reference, prediction : arrays of shape (I, J, K), non-zero in lesions.
    spacing : voxel edge lengths in mm, shape (3,).
    extent : non-zero where the reference was annotated; None is everywhere. Where it leaves
        something out, only voxels within it are compared and both surface scores are NaN:
        cutting a lesion makes surfaces that no rater drew.

    Raises
    ------
    ValueError : the arrays differ in shape.
    """
    if reference.shape != prediction.shape:
        raise ValueError(f'shapes differ: {reference.shape} and {prediction.shape}')
    r, p = reference.astype(bool), prediction.astype(bool)
    partial = extent is not None and not extent.all()
    if extent is not None and partial:
        r, p = r & extent.astype(bool), p & extent.astype(bool)
    hd95, within = (math.nan, math.nan) if partial else _surface_scores(r, p, spacing)
    voxel_volume = float(np.prod(spacing))
    return VoxelScores(
        dice=dice(r, p),
        ppv=ppv(r, p),
        sensitivity=sensitivity(r, p),
        volume_error=volume_error(r, p),
        absolute_volume_error=absolute_volume_error(r, p),
        log_volume_ratio=log_volume_ratio(r, p),
        hausdorff_95=hd95,
        surface_dice=within,
        reference_volume=_size(r) * voxel_volume,
        prediction_volume=_size(p) * voxel_volume,
    )


def _size(mask: np.ndarray) -> int:
    return int(np.count_nonzero(mask))


def _surface_scores(
    reference: np.ndarray, prediction: np.ndarray, spacing: Sequence[float] | np.ndarray
) -> tuple[float, float]:
    if not (reference.any() and prediction.any()):
        return (
            _hausdorff_empty(reference, prediction, spacing),
            surface_dice(reference, prediction, spacing),
        )
    distances = surface_distances(reference, prediction, spacing)
    return _percentile_95(*distances), _share_within(*distances, tolerance=SURFACE_TOLERANCE)


def _hausdorff_empty(
    reference: np.ndarray, prediction: np.ndarray, spacing: Sequence[float] | np.ndarray
) -> float:
    if reference.any() == prediction.any():
        return 0.0
    return float(np.linalg.norm(np.array(reference.shape) * np.asarray(spacing, float)))


def _percentile_95(forward: np.ndarray, backward: np.ndarray) -> float:
    return float(max(np.percentile(forward, 95), np.percentile(backward, 95)))


def _share_within(forward: np.ndarray, backward: np.ndarray, *, tolerance: float) -> float:
    # half a micrometre for rounding: a neighbour at exactly the tolerance is within it
    within = sum(_size(d <= tolerance + 5e-4) for d in (forward, backward))
    return within / (len(forward) + len(backward))


def _surface(mask: np.ndarray) -> np.ndarray:
    # cropped first: eroding a whole 7T volume takes seconds, its lesions a fraction
    box = bounding_box(mask)
    inside = np.pad(mask[box], 1)
    surface = inside & ~ndimage.binary_erosion(inside)
    return np.argwhere(surface) - 1 + start_of(box)
