"""Grids of scans: where they lie around a head, and what their voxels and slices average."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy import ndimage

from ssl2_bids.simulation.anatomy.anatomy import rigid
from ssl2_bids.simulation.lesions.lesions import PaintedLesions, Truth, truth_on
from ssl2_bids.simulation.scanner.protocols import Geometry
from ssl2_bids.volume import Volume, resample
from ssl2_bids.voxel_grid import shift_affine, start_of

SHIFT, ANGLE = 3.0, 3.0  # mm and degrees by which the head moves between two scans at most
OFF_CENTRE = 2.0  # mm between the middles of brain and grid
RAMP = 0.2  # of a slice; in this width its profile falls from 1 to 0
THICK = 1.5  # times the anatomy's voxel; thicker slices are averaged over their profile
MARGIN = 3  # voxels around what is sampled

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Placement:
    """How a head lies in the scanner, and the grid around it.

    Attributes
    ----------
    pose : (4, 4), RAS+ mm of the anatomy to RAS+ mm of the scanner.
    tilt : (4, 4) rotation of the grid's axes against the scanner's.
    offset : mm from the middle of the brain to that of the grid, to the right, front and top.
    """

    pose: Matrix
    tilt: Matrix
    offset: tuple[float, float, float]


def draw_placement(random: np.random.Generator) -> Placement:
    """Draw a placement: a few mm and degrees off, and a slightly oblique grid."""
    pose = rigid(random, shift=SHIFT, angle=ANGLE)
    tilt = rigid(random, shift=0, angle=ANGLE)
    x, y, z = map(float, random.uniform(-OFF_CENTRE, OFF_CENTRE, 3))
    return Placement(_numbers(pose), _numbers(tilt), (x, y, z))


def _numbers(matrix: np.ndarray) -> Matrix:
    return tuple(tuple(map(float, row)) for row in matrix)


def place(placement: Placement, geometry: Geometry, centre: np.ndarray, contrast: str) -> Volume:
    """The empty grid of a scan around a brain whose middle is ``centre`` (RAS+ mm)."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    towards = nib.orientations.axcodes2ornt(tuple(geometry.axes))
    for column, (axis, sign) in enumerate(towards):
        affine[int(axis), column] = sign * geometry.voxel[column]
    affine = np.array(placement.tilt) @ affine
    middle = (np.array(placement.pose) @ [*centre, 1])[:3] + placement.offset
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(geometry.shape) - 1) / 2)
    return Volume(np.broadcast_to(np.uint8(0), geometry.shape), affine, contrast)


def sample(
    values: np.ndarray,
    affine: np.ndarray,
    grid: Volume,
    pose: Matrix,
    *,
    box: tuple[slice, ...] | None = None,
    thin: bool = False,
    share: float = 1.0,
) -> np.ndarray:
    """Values on an anatomy's grid, moved by a pose, as the voxels of a scan's grid average them.

    Along an axis with much thicker voxels the slice profile is a box with ramps; along the others
    voxels are about as small as the anatomy's, and interpolation blurs about as much as a scan.

    Parameters
    ----------
    affine : (4, 4) of the anatomy.
    box : the part of the anatomy that counts, zero is taken for the rest; None for where the
        values are not zero.
    thin : take the values in the middle of thick slices; enough for what changes slowly.
    share : of the distance between two thick slices that a slice fills; the rest is a gap.
    """
    result = np.zeros(grid.shape, np.float32)
    found = [box] if box else ndimage.find_objects((values != 0).astype(np.uint8))
    if not found:
        return result
    part = box_on_scan(found[0], affine, grid, pose)
    if part is None:
        return result
    image = Volume(values, affine)
    back = np.linalg.inv(np.array(pose))
    shape = [p.stop - p.start for p in part]
    corner = np.eye(4)
    corner[:3, 3] = [p.start for p in part]
    axis = int(np.argmax(grid.spacing))
    ratio = float(grid.spacing[axis] / image.spacing.max())
    if thin or ratio < THICK:
        i, j, k = shape
        result[part] = resample(image, grid.affine @ corner, (i, j, k), transform=back).data
        return result
    steps = int(np.ceil(ratio))
    weights = slice_profile(steps, share)
    beyond = (len(weights) - steps) // 2
    count = shape[axis]
    shape[axis] = count * steps + 2 * beyond
    finer = np.eye(4)
    finer[axis, axis] = 1 / steps
    finer[axis, 3] = (0.5 - beyond) / steps - 0.5
    i, j, k = shape
    fine = resample(image, grid.affine @ corner @ finer, (i, j, k), transform=back).data
    target, fine = (np.moveaxis(a, axis, 0) for a in (result[part], fine))
    for step, weight in enumerate(weights):
        target += weight * fine[step::steps][:count]
    return result


def box_on_scan(
    box: tuple[slice, ...], affine: np.ndarray, grid: Volume, pose: Matrix
) -> tuple[slice, ...] | None:
    """The part of a scan's grid where a box of the anatomy comes to lie, or None."""
    corners = np.array(np.meshgrid(*((b.start, b.stop - 1) for b in box), [1.0]))
    to_grid = np.linalg.inv(grid.affine) @ np.array(pose) @ affine
    there = (to_grid @ corners.reshape(4, -1))[:3]
    low = np.maximum(np.floor(there.min(axis=1)).astype(int) - MARGIN, 0)
    high = np.minimum(np.ceil(there.max(axis=1)).astype(int) + MARGIN + 1, grid.shape)
    if (high <= low).any():
        return None
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def slice_profile(steps: int, share: float = 1.0) -> np.ndarray:
    """Weights, of sum 1, of the samples that a slice averages; ``steps`` of them span a slice.

    Half of the sensitivity is reached half a slice from its middle; the ramps reach a little into
    both neighbours. With gaps ``steps`` span the distance between two slices, of which a slice
    fills ``share``.
    """
    away = np.abs((np.arange(-steps, 2 * steps) + 0.5) / steps - 0.5)
    weights = np.clip((share / 2 + RAMP / 2 - away) / RAMP, 0, 1)
    weights = weights[weights > 0]
    return (weights / weights.sum()).astype(np.float32)


def voxel_steps(grid: Volume, spacing: np.ndarray) -> tuple[float, float, float]:
    """Voxel edges of a scan along RAS+ axes, as multiples of an anatomy's edges."""
    axes = np.abs(grid.affine[:3, :3]).argmax(axis=0)
    steps = np.ones(3)
    steps[axes] = grid.spacing
    i, j, k = map(float, steps / spacing)
    return i, j, k


def truth_in(lesions: PaintedLesions, grid: Volume, pose: Matrix) -> Truth:
    """The truth on a scan's grid; computed where lesions are."""
    back = np.linalg.inv(np.array(pose))
    relevant = lesions.severity > 0
    if lesions.ignore is not None:
        relevant |= lesions.ignore
    empty = Truth(
        np.zeros(grid.shape, bool),
        np.zeros(grid.shape, np.uint16),
        np.zeros(grid.shape, bool),
        grid.affine,
    )
    found = ndimage.find_objects(relevant.astype(np.uint8))
    box = box_on_scan(found[0], lesions.anatomy.affine, grid, pose) if found else None
    if box is None:
        return empty
    affine = shift_affine(grid.affine, start_of(box))
    i, j, k = (b.stop - b.start for b in box)
    part = truth_on(lesions, affine, (i, j, k), transform=back)
    for name in ('mask', 'instances', 'ignore'):
        getattr(empty, name)[box] = getattr(part, name)
    return empty


def displace(
    labels: np.ndarray, off_resonance: np.ndarray, *, bandwidth: float, axis: int
) -> np.ndarray:
    """Labels moved along the readout as the image is: by whole voxels, nearest neighbour.

    Parameters
    ----------
    labels : (..., I, J, K).
    off_resonance : Hz, (I, J, K).
    bandwidth : Hz per voxel; 0 moves nothing.
    axis : voxel axis of the readout.
    """
    if not bandwidth:
        return labels
    moved = np.rint(off_resonance / np.float32(bandwidth)).astype(np.int16)
    where = np.nonzero(moved)
    source = list(where)
    last = labels.shape[axis - 3] - 1
    source[axis] = np.clip(where[axis] - moved[where], 0, last)
    (i, j, k), (u, v, w) = where, source
    result = labels.copy()
    result[..., i, j, k] = labels[..., u, v, w]
    return result
