"""Voxel grids: edge lengths, whether two are one, boxes around a mask, where a part lies.

And the labels on one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import nibabel as nib
import numpy as np

from ssl2_bids.errors import DataError

Box = tuple[slice, ...]

# of a voxel; two grids closer than this at every corner are one. Programs round: cosines of four
# digits are 0.02 voxels off at the corner of 256, and a float32 origin some micrometres
GRID_TOLERANCE = 0.1
ROUNDING = 1e-3  # what scl_slope leaves of a whole number


class Grid(Protocol):
    """Whatever lies on voxels: a volume, a header."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        ...

    @property
    def affine(self) -> np.ndarray:
        """(4, 4), voxel indices to RAS+ mm."""
        ...


def grid_distance(a: Grid, b: Grid) -> float:
    """How far the corners of two grids are apart at most, in voxels; infinite if shapes differ."""
    if tuple(a.shape) != tuple(b.shape):
        return math.inf
    corners = _corners(a)
    return float(np.abs(np.linalg.inv(b.affine) @ a.affine @ corners - corners).max())


def grid_millimetres(a: Grid, b: Grid) -> float:
    """How far the corners of two grids of one shape are apart at most, in mm."""
    apart = ((a.affine - b.affine) @ _corners(a))[:3]
    return float(np.linalg.norm(apart, axis=0).max())


def _corners(grid: Grid) -> np.ndarray:
    """Voxel coordinates of the eight corners, homogeneous, (4, 8)."""
    return np.array(np.meshgrid(*[(0, n - 1) for n in grid.shape], [1.0])).reshape(4, -1)


def same_grid(a: Grid, b: Grid) -> bool:
    """Whether two grids have the same shape and, within a tenth of a voxel, the same corners."""
    return grid_distance(a, b) <= GRID_TOLERANCE


def describe_grid(volume: Grid, *, axes: bool = True) -> str:
    """Shape, voxel size, axes (on request) and origin of a grid, in words."""
    codes = f', axes {"".join(nib.aff2axcodes(volume.affine))}' if axes else ''
    edges = spacing_of(volume.affine)
    spacing = ' x '.join(f'{s:.3g}' for s in edges)
    origin = ', '.join(f'{o:.2f}' for o in volume.affine[:3, 3])
    return f'{volume.shape} voxels of {spacing} mm{codes}, origin ({origin}) mm'


def spacing_of(affine: np.ndarray) -> np.ndarray:
    """Voxel edge lengths in mm, shape (3,), of an affine (4, 4)."""
    return np.sqrt((affine[:3, :3] ** 2).sum(axis=0))


def voxel_volume_of(affine: np.ndarray) -> float:
    """Volume of one voxel in mm^3, of an affine (4, 4)."""
    return float(abs(np.linalg.det(affine[:3, :3])))


def bounding_box(mask: np.ndarray, margin: int | Sequence[int] | np.ndarray = 0) -> Box:
    """The smallest box around the voxels of a mask that are not zero.

    Parameters
    ----------
    margin : voxels that are added on each side (of each axis), within the grid.

    Raises
    ------
    ValueError : the mask is empty.
    """
    box = []
    for axis in range(mask.ndim):
        filled = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        if not filled.size:
            raise ValueError('an empty mask has no bounding box')
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return widen(tuple(box), mask.shape, margin)


def widen(box: Box, shape: Sequence[int], margin: int | Sequence[int] | np.ndarray) -> Box:
    """A box with a margin in voxels, within a grid of ``shape``."""
    margins = np.broadcast_to(margin, len(box)).tolist()
    return tuple(
        slice(max(part.start - wide, 0), min(part.stop + wide, length))
        for part, wide, length in zip(box, margins, shape, strict=True)
    )


def start_of(box: Box) -> np.ndarray:
    """The first voxel of a box, shape (3,)."""
    return np.array([part.start for part in box])


def shift_affine(affine: np.ndarray, start: Sequence[int] | np.ndarray) -> np.ndarray:
    """The affine of a grid that begins at voxel ``start`` of another."""
    result = affine.copy()
    result[:3, 3] += affine[:3, :3] @ np.asarray(start)
    return result


def whole_labels(data: np.ndarray, path: str | Path | None = None) -> np.ndarray:
    """The labels of a map of any shape as whole numbers.

    Parameters
    ----------
    path : for messages.

    Returns
    -------
    int32 (int64 if needed) of the same shape; the data themselves where they are stored as whole
    numbers.

    Raises
    ------
    DataError : values that are not whole numbers, by more than ``ROUNDING``.
    """
    if data.dtype.kind in 'biu':
        return data
    found = np.unique(data)
    if not np.isfinite(found).all() or (np.abs(found - np.rint(found)) > ROUNDING).any():
        raise DataError(
            'the label map has values that are not whole numbers',
            advice='Give a segmentation that was not interpolated, and save it as whole numbers '
            'without a scale factor (scl_slope).',
            path=path,
        )
    large = np.abs(found).max(initial=0) >= np.iinfo(np.int32).max
    return np.rint(data).astype(np.int64 if large else np.int32)
