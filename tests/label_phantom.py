"""A small head as a FreeSurfer-numbered label map: nested ellipsoids."""

from __future__ import annotations

import numpy as np


def ellipsoid(shape: tuple[int, ...], radii: tuple[float, float, float], offset=(0, 0, 0)):
    """Boolean ellipsoid around the middle of a grid, moved by an offset in voxels."""
    where = np.indices(shape, dtype=float)
    square = np.zeros(shape)
    for axis in range(3):
        middle = (shape[axis] - 1) / 2 + offset[axis]
        square += ((where[axis] - middle) / radii[axis]) ** 2
    return square <= 1


def label_head(size: int = 72, *, skull: bool = True) -> np.ndarray:
    """(size, size, size) uint8 with both hemispheres, deep grey matter, ventricles and skull."""
    shape = (size, size, size)
    unit = size / 72
    labels = np.zeros(shape, np.uint8)
    if skull:
        labels[ellipsoid(shape, (34 * unit, 35 * unit, 34 * unit))] = 211
        labels[ellipsoid(shape, (32 * unit, 33 * unit, 32 * unit))] = 215
    labels[ellipsoid(shape, (30 * unit, 31 * unit, 30 * unit))] = 24
    labels[ellipsoid(shape, (27 * unit, 28 * unit, 27 * unit))] = 3
    labels[ellipsoid(shape, (23 * unit, 24 * unit, 23 * unit))] = 2
    for side in (-1, 1):
        at = (side * 10 * unit, 0, -3 * unit)
        labels[ellipsoid(shape, (3 * unit, 5 * unit, 4 * unit), at)] = 10
        at = (side * 16 * unit, 3 * unit, -2 * unit)
        labels[ellipsoid(shape, (2 * unit, 5 * unit, 4 * unit), at)] = 12
        at = (side * 5 * unit, 0, 4 * unit)
        labels[ellipsoid(shape, (3 * unit, 11 * unit, 4 * unit), at)] = 4
    labels[ellipsoid(shape, (3 * unit, 3 * unit, 6 * unit), (0, 0, -20 * unit))] = 16
    labels[size // 2 :][labels[size // 2 :] == 2] = 41
    labels[size // 2 :][labels[size // 2 :] == 3] = 42
    return labels
