"""A deformation as the flow of a velocity field, improved by local correlation of two arrays."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

WINDOW = 5  # voxels; edge of the cube of a local correlation
STEP = 0.5  # voxels; the largest shift of the first step of a level
UPDATE_SMOOTHING, FIELD_SMOOTHING = 1.7, 1.1  # voxels; standard deviations
FLAT = 1e-4  # variance of normalised intensities below which a window shows nothing
LARGEST_SHIFT = 0.25  # voxels; of a part of the flow that is taken as a shift


def ascend(
    velocity: np.ndarray, fixed: np.ndarray, moving: np.ndarray, brain: np.ndarray, *, steps: int
) -> np.ndarray:
    """Improve a velocity field on one level."""
    best, field, step = -1.0, velocity, STEP
    for _ in range(steps):
        there = warped(moving, flow(field))
        value, slope = local_correlation(fixed, there, brain)
        if value <= best + 1e-5:
            step /= 2
            if step < STEP / 8:
                break
        if value > best:
            best, velocity = value, field
        update = np.stack([slope * part for part in np.gradient(there)])
        update = smooth(update, UPDATE_SMOOTHING)
        largest = float(np.sqrt((update**2).sum(axis=0)).max())
        field = smooth(velocity + update * (step / max(largest, 1e-12)), FIELD_SMOOTHING)
    return velocity


def local_correlation(
    fixed: np.ndarray, moving: np.ndarray, brain: np.ndarray
) -> tuple[float, np.ndarray]:
    """Mean of the squared local correlation in the brain, and its slope by ``moving``."""
    fixed_mean, moving_mean = box(fixed), box(moving)
    fixed_variance = box(fixed * fixed) - fixed_mean**2
    moving_variance = box(moving * moving) - moving_mean**2
    covariance = box(fixed * moving) - fixed_mean * moving_mean
    there = brain & (fixed_variance > FLAT) & (moving_variance > FLAT)
    product = np.where(there, fixed_variance * moving_variance, 1)
    squared = np.where(there, covariance**2 / product, 0)
    slope = np.where(
        there,
        2
        * covariance
        / product
        * (
            (fixed - fixed_mean)
            - covariance / np.where(there, moving_variance, 1) * (moving - moving_mean)
        ),
        0,
    )
    return float(squared.sum() / max(np.count_nonzero(brain), 1)), slope.astype(np.float32)


def box(array: np.ndarray) -> np.ndarray:
    """Mean in a cube around each voxel."""
    return ndimage.uniform_filter(array, WINDOW)


def smooth(field: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian of each component of a field (3, I, J, K)."""
    return np.stack([ndimage.gaussian_filter(part, sigma) for part in field])


def flow(velocity: np.ndarray) -> np.ndarray:
    """Shifts in voxels after one unit of time in a velocity field, by scaling and squaring."""
    largest = float(np.sqrt((velocity**2).sum(axis=0)).max())
    halvings = max(int(np.ceil(np.log2(max(largest, 1e-6) / LARGEST_SHIFT))), 0)
    shift = velocity / 2**halvings
    for _ in range(halvings):
        shift = shift + np.stack([warped(part, shift, mode='nearest') for part in shift])
    return shift


def warped(array: np.ndarray, shift: np.ndarray, *, mode: str = 'constant') -> np.ndarray:
    """An array at its voxels' positions after a shift (3, I, J, K), linear interpolation."""
    places = np.indices(array.shape, np.float32) + shift
    return ndimage.map_coordinates(array, places, order=1, mode=mode)


def coarser(array: np.ndarray, factor: int) -> np.ndarray:
    """A blurred copy with voxels ``factor`` times as large."""
    if factor == 1:
        return array
    blurred = ndimage.gaussian_filter(array, 0.5 * factor)
    return ndimage.zoom(blurred, 1 / factor, order=1, grid_mode=True, mode='nearest')


def resized(field: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A field of shifts in voxels on the same box with other voxels."""
    parts = []
    for axis, part in enumerate(field):
        ratio = np.array(shape) / np.array(part.shape)
        larger = ndimage.zoom(part, ratio, order=1, grid_mode=True, mode='nearest')
        parts.append(larger * ratio[axis])
    return np.stack(parts).astype(np.float32)


def in_mm(shift: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Shifts in voxels (3, I, J, K) as shifts in RAS+ mm, (I, J, K, 3), float32."""
    return np.einsum('ab,bijk->ijka', affine[:3, :3], shift).astype(np.float32)
