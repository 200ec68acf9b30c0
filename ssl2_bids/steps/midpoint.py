"""The space between the visits of one person: the middle of the rigid transforms between them.

No visit lends its grid: an image that is interpolated beside one that is not looks changed (Reuter
and Fischl 2011, doi 10.1016/j.neuroimage.2011.02.076; Reuter et al. 2012,
doi 10.1016/j.neuroimage.2012.02.084).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import linalg

from ssl2_bids.steps.registration import register_rigid
from ssl2_bids.volume import Volume
from ssl2_bids.voxel_grid import bounding_box, spacing_of

VOXEL = 1.0  # mm; smaller where a reference has smaller voxels
MARGIN = 15.0  # mm kept around the brains of all visits
ROUNDS = 20  # of the mean of poses, which is exact after one for two visits


@dataclass(frozen=True, eq=False)
class Midpoint:
    """Where the visits lie around the space between them.

    Attributes
    ----------
    poses : of each visit, (4, 4): RAS+ mm of the within-subject space to RAS+ mm of its reference.
    asymmetries : of each pair of visits, by their places, mm: how far the transforms found in the
        two directions are apart in the brain at most.
    overlaps : of each pair: Dice of the brain masks.
    """

    poses: tuple[np.ndarray, ...]
    asymmetries: dict[tuple[int, int], float]
    overlaps: dict[tuple[int, int], float]

    @property
    def asymmetry(self) -> float:
        """The largest asymmetry of a pair, mm."""
        return max(self.asymmetries.values())


def register_visits(
    images: Sequence[Volume], masks: Sequence[Volume], *, seed: int = 0, levels: int | None = None
) -> Midpoint:
    """Register every pair of visits in both directions, and find the middle.

    Parameters
    ----------
    images : one of each visit, of one contrast or of several.
    masks : brain masks on their grids.
    seed, levels : see ``registration.register_rigid``.

    Raises
    ------
    DataError : a mask is empty, or an image is constant within it.
    """
    found: dict[tuple[int, int], np.ndarray] = {}
    overlaps: dict[tuple[int, int], float] = {}
    asymmetries: dict[tuple[int, int], float] = {}
    for i, j in combinations(range(len(images)), 2):
        ways = [
            register_rigid(
                images[a],
                images[b],
                fixed_mask=masks[a],
                moving_mask=masks[b],
                seed=seed,
                levels=levels,
            )
            for a, b in ((i, j), (j, i))
        ]
        forth, back = ways[0].matrix, np.linalg.inv(ways[1].matrix)
        asymmetries[i, j] = distance_within(forth, back, masks[i])
        found[i, j] = mean_pose([forth, back])
        overlaps[i, j] = brain_overlap(masks[i], masks[j], found[i, j])
    return Midpoint(tuple(poses_around(found, len(images))), asymmetries, overlaps)


def poses_around(pairs: dict[tuple[int, int], np.ndarray], count: int) -> list[np.ndarray]:
    """Poses of visits around their middle, from the rigid transforms of all pairs.

    Parameters
    ----------
    pairs : for i < j, (4, 4): RAS+ mm of visit i to RAS+ mm of visit j.
    count : of the visits.

    Returns
    -------
    For each visit, (4, 4): RAS+ mm of the middle to RAS+ mm of the visit. The same whatever the
    order of the visits: the mean of poses is bi-invariant.
    """
    ways = {(i, i): np.eye(4) for i in range(count)}
    for (i, j), matrix in pairs.items():
        ways[i, j], ways[j, i] = matrix, np.linalg.inv(matrix)
    # from the first visit to each, directly and by way of every other
    from_first = [mean_pose([ways[k, j] @ ways[0, k] for k in range(count)]) for j in range(count)]
    middle = mean_pose(from_first)
    return [pose @ np.linalg.inv(middle) for pose in from_first]


def mean_pose(poses: Sequence[np.ndarray]) -> np.ndarray:
    """The bi-invariant mean of rigid transforms, (4, 4).

    Pennec and Arsigny 2013, doi 10.1007/978-3-642-30232-9_7: the transform around which the
    logarithms of all others sum to zero. The mean of inverses is the inverse of the mean. Angles
    between the transforms stay well below 180 degrees.
    """
    mean = np.array(poses[0], np.float64)
    for _ in range(ROUNDS):
        steps = [log_rigid(np.linalg.inv(mean) @ pose) for pose in poses]
        step = np.mean(steps, axis=0)
        mean = mean @ linalg.expm(step)
        if np.abs(step).max() < 1e-12:
            break
    return as_rigid(mean)


def log_rigid(matrix: np.ndarray) -> np.ndarray:
    """The matrix logarithm of a rigid transform, (4, 4), by the formula of Rodrigues."""
    rotation = matrix[:3, :3]
    cosine = np.clip((np.trace(rotation) - 1) / 2, -1, 1)
    skew = (rotation - rotation.T) / 2
    sine = np.linalg.norm([skew[2, 1], skew[0, 2], skew[1, 0]])
    angle = float(np.arctan2(sine, cosine))
    turn = skew * (angle / sine if sine > 1e-12 else 1.0)
    if angle < 1e-6:
        factor = 1 / 12
    else:
        factor = (1 - angle * np.sin(angle) / (2 * (1 - np.cos(angle)))) / angle**2
    inverse = np.eye(3) - turn / 2 + factor * (turn @ turn)
    result = np.zeros((4, 4))
    result[:3, :3] = turn
    result[:3, 3] = inverse @ matrix[:3, 3]
    return result


def as_rigid(matrix: np.ndarray) -> np.ndarray:
    """The matrix with its rotation made exactly orthonormal."""
    result = np.array(matrix, np.float64)
    left, _, right = np.linalg.svd(result[:3, :3])
    result[:3, :3] = left @ right
    result[3] = (0, 0, 0, 1)
    return result


def within_grid(masks: Sequence[Volume], poses: Sequence[np.ndarray]) -> Volume:
    """The grid of the space between visits: cubic voxels around the brains of all of them.

    Edges are 1 mm, or that of a cube as large as the smallest voxel of the references where this
    is smaller. The axes are those of the middle's RAS+ coordinates.

    Parameters
    ----------
    masks : brain masks on the grids of the references.
    poses : see :class:`Midpoint`.

    Returns
    -------
    A volume of zeros (uint8).
    """
    edge = min(VOXEL, *(float(np.prod(spacing_of(m.affine))) ** (1 / 3) for m in masks))
    corners = []
    for mask, pose in zip(masks, poses, strict=True):
        box = bounding_box(mask.data)
        ends = np.array(np.meshgrid(*[(part.start, part.stop - 1) for part in box]))
        voxels = np.vstack([ends.reshape(3, -1), np.ones(8)])
        corners.append((np.linalg.inv(pose) @ mask.affine @ voxels)[:3])
    points = np.hstack(corners)
    low, high = points.min(axis=1) - MARGIN, points.max(axis=1) + MARGIN
    shape = np.ceil((high - low) / edge).astype(int) + 1
    affine = np.diag([edge, edge, edge, 1.0])
    affine[:3, 3] = (low + high) / 2 - (shape - 1) / 2 * edge
    return Volume(np.zeros(tuple(shape.tolist()), np.uint8), affine)


def distance_within(one: np.ndarray, other: np.ndarray, mask: Volume) -> float:
    """How far two rigid transforms put the points of a brain apart at most, mm."""
    points = _points(mask)
    change = (one - other) @ points
    return float(np.linalg.norm(change[:3], axis=0).max(initial=0.0))


def brain_overlap(one: Volume, other: Volume, matrix: np.ndarray) -> float:
    """Dice of two brain masks, where a transform puts them.

    Parameters
    ----------
    matrix : (4, 4), RAS+ mm of the first to RAS+ mm of the second.
    """
    forth = _share_inside(_points(one), other, matrix)
    back = _share_inside(_points(other), one, np.linalg.inv(matrix))
    sizes = [float((m.data > 0).sum()) * m.voxel_volume for m in (one, other)]
    return (forth * sizes[0] + back * sizes[1]) / sum(sizes)


def _points(mask: Volume) -> np.ndarray:
    """Some thousand points of a mask, (4, N), RAS+ mm."""
    voxels = np.argwhere(mask.data > 0)
    voxels = voxels[:: max(1, len(voxels) // 20_000)]
    return mask.affine @ np.vstack([voxels.T, np.ones(len(voxels))])


def _share_inside(points: np.ndarray, mask: Volume, matrix: np.ndarray) -> float:
    voxels = np.rint((np.linalg.inv(mask.affine) @ matrix @ points)[:3]).astype(int)
    shape = np.array(mask.shape)[:, None]
    known = ((voxels >= 0) & (voxels < shape)).all(axis=0)
    inside = np.zeros(voxels.shape[1], bool)
    inside[known] = mask.data[tuple(voxels[:, known])] > 0
    return float(inside.mean()) if inside.size else 0.0


def methods(visits: int) -> str:
    """The methods sentence for a within-subject space of some visits."""
    return (
        f'The reference images of the {visits} visits were registered to one another rigidly, '
        'each pair in both directions, and all images were resampled once to the middle of these '
        'transforms, so that no visit is favoured [@reuter2012].'
    )
