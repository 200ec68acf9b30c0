"""Arithmetic of voxel grids: edge lengths, boxes around a mask, where a part of a grid lies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Box = tuple[slice, ...]


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
