"""Smooth random maps, and where in a head the voxels of a grid lie."""

from __future__ import annotations

import numpy as np

from ssl2_bids.voxel_grid import spacing_of

LATTICE = 220.0  # mm from the centre up to which smooth noise has knots


def draw_seed(random: np.random.Generator) -> int:
    """A seed that JSON can hold."""
    return int(random.integers(2**31))


def smooth_noise(
    shape: tuple[int, ...], affine: np.ndarray, centre: np.ndarray, *, seed: int, scale: float
) -> np.ndarray:
    """Smooth random field of mean 0 and standard deviation 1, float32, bound to the head.

    Cubic B-splines with independent normal coefficients on knots ``scale`` mm apart around
    ``centre`` (RAS+ mm): grids of other voxel sizes with the same axes see the same field.
    Mean and standard deviation are those expected of many fields, not of this one.
    """
    knots = 2 * int(np.ceil(LATTICE / scale)) + 4
    coefficients = np.random.default_rng(seed).standard_normal((knots,) * 3)
    start = np.linalg.solve(affine[:3, :3], np.asarray(centre) - affine[:3, 3])
    steps = spacing_of(affine)
    at = [
        (np.arange(size) - first) * step / scale + knots / 2
        for size, first, step in zip(shape, start, steps, strict=True)
    ]
    # Between knots the variance of a cubic B-spline's sum changes from 0.46 to 0.50 per axis.
    return _splines(coefficients / 0.48**1.5, at)


def _splines(coefficients: np.ndarray, at: list[np.ndarray]) -> np.ndarray:
    """Cubic B-splines of (K, L, M) coefficients at positions along each axis, in knots."""
    field: np.ndarray = coefficients.astype(np.float32)
    for axis, places in enumerate(at):
        away = np.abs(places[:, None] - np.arange(coefficients.shape[axis]))
        inner = 2 / 3 - away**2 + away**3 / 2
        basis = np.where(away < 1, inner, np.maximum(2 - away, 0) ** 3 / 6).astype(np.float32)
        # einsum sums in one order whatever the threads of a BLAS do: equal bytes everywhere.
        field = np.einsum('xyz,nx->yzn', field, basis)
    return np.ascontiguousarray(field)


def positions(
    shape: tuple[int, ...], affine: np.ndarray, centre: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """RAS+ mm from a centre, float32: three arrays that broadcast to the shape."""
    grids = np.meshgrid(
        *(np.arange(n, dtype=np.float32) for n in shape), indexing='ij', sparse=True
    )
    matrix, offset = affine[:3, :3], affine[:3, 3] - np.asarray(centre)
    axes = []
    for row in range(3):
        axis: np.ndarray = np.full((1, 1, 1), offset[row], np.float32)
        for column, grid in enumerate(grids):
            if matrix[row, column]:
                axis = axis + np.float32(matrix[row, column]) * grid
        axes.append(axis)
    return axes[0], axes[1], axes[2]


def brain_box(brain: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Middle and half lengths of a mask's bounding box along voxel axes, in RAS+ mm."""
    ends = []
    for axis in range(3):
        inside = np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis})))
        ends.append((inside[0], inside[-1]))
    low, high = np.array(ends, dtype=float).T
    middle = affine[:3, :3] @ ((low + high) / 2) + affine[:3, 3]
    half = np.abs(affine[:3, :3] @ np.diag((high - low + 1) / 2)).sum(axis=1)
    return middle, half
