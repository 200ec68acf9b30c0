"""Whether an image can be used: finite, not constant, of the size of a brain."""

from __future__ import annotations

import numpy as np

from ssl2_bids.errors import DataError
from ssl2_bids.volume import Volume

MAX_NOT_FINITE = 0.5  # share of the voxels; more than this not finite is no image
BACKGROUND = 0.9  # share of the border's voxels; more than this not finite is no fault
NEARLY_ZERO = 1e-6  # of the largest magnitude; what interpolation and float32 leave of a zero
CONSTANT_BORDER = 0.6  # share of the border's voxels from which their one value is background
MIN_EXTENT = 60.0  # mm; a field of view shorter than this along an axis holds no brain
MILLISECONDS = 50.0  # a T1 map whose median is above this is in ms
MAX_NEGATIVE = 0.01  # of the values above 0; fewer values below 0 are rounding at the edge
BRAIN_VOLUMES = (600.0, 2200.0)  # mL; adult intracranial volumes lie well inside


def check_image(image: Volume) -> tuple[Volume, list[str]]:
    """Refuse an unusable image and correct small faults.

    Parameters
    ----------
    image : any contrast, shape (I, J, K).

    Returns
    -------
    The image with non-finite voxels set to 0, and those that are 0 but for rounding; warnings.

    Raises
    ------
    DataError : constant, of two values, mostly not finite, or a field of view too small for a
        brain.
    """
    data, warnings = image.data, []
    bad = ~np.isfinite(data)
    if bad.mean() > MAX_NOT_FINITE and not surrounds(bad):
        raise DataError(
            f'{100 * bad.mean():.0f} % of the voxels are not finite (NaN or infinite)',
            advice='Convert the image again.',
        )
    if bad.any():
        data = np.where(bad, np.float32(0), data)
        if not surrounds(bad):
            warnings.append(f'{int(bad.sum())} voxels that are not finite were set to 0')
    low, high = float(data.min()), float(data.max())
    advice = 'Convert the image again, or leave it out (ssl2-bids: --bids-filter-file).'
    if low == high:
        raise DataError(f'the image is constant (every voxel is {low:g})', advice=advice)
    if bool(((data == low) | (data == high)).all()):
        raise DataError(
            f'every voxel is {low:g} or {high:g}: this is a mask, not an image', advice=advice
        )
    data = np.where(np.abs(data) <= NEARLY_ZERO * np.abs(data).max(), np.float32(0), data)
    extent = image.spacing * image.shape
    if extent.min() < MIN_EXTENT:
        raise DataError(
            'the field of view is too small for a brain: '
            f'{" x ".join(f"{e:.0f}" for e in extent)} mm',
            advice='Leave the image out (ssl2-bids: --bids-filter-file).',
        )
    return image.with_data(data), warnings


def surrounds(bad: np.ndarray) -> bool:
    """Whether voxels that are not finite are the background: nearly all of the image's border.

    Some programs store NaN around a stripped brain.

    Parameters
    ----------
    bad : (I, J, K) bool.
    """
    return bool(bad[border_of(bad.shape)].mean() > BACKGROUND and not bad.all())


def zero_background(image: Volume) -> Volume:
    """The image less its background, where that is one value, the lowest: it becomes 0.

    A slope and intercept, or a normalisation, leave a stripped image with another value around
    the brain than 0.
    """
    low = image.data.min()
    if low == 0 or (image.data[border_of(image.shape)] == low).mean() < CONSTANT_BORDER:
        return image
    return image.with_data(image.data - low)


def in_seconds(stored: Volume) -> tuple[Volume, list[str]]:
    """A T1 map in s, 0 where it is negative; a median above 50 of what is above 0 means ms.

    Returns
    -------
    The map; warnings.

    Raises
    ------
    DataError : no value is above 0, or most are below 0.
    """
    positive = stored.data[stored.data > 0]
    if not positive.size:
        raise DataError(
            'the T1 map has no value above 0',
            advice='Convert the map again, or leave it out (ssl2-bids: --bids-filter-file).',
        )
    negative = int((stored.data < 0).sum())
    if negative > positive.size:
        raise DataError(
            'most values of the T1 map are below 0',
            advice='Convert the map again, or leave it out (ssl2-bids: --bids-filter-file).',
        )
    warnings = []
    if negative > MAX_NEGATIVE * positive.size:
        warnings.append(f'{negative} voxels of the T1 map are below 0 and were set to 0')
    factor = np.float32(0.001 if float(np.median(positive)) > MILLISECONDS else 1)
    return stored.with_data(np.maximum(stored.data, 0).astype(np.float32) * factor), warnings


def border_of(shape: tuple[int, ...]) -> np.ndarray:
    """The outermost two voxels at each side, bool."""
    border = np.ones(shape, bool)
    border[2:-2, 2:-2, 2:-2] = False
    return border


def check_brain_volume(mask: Volume) -> list[str]:
    """Warn of a brain mask whose volume is none of an adult brain.

    Raises
    ------
    DataError : the mask is empty.
    """
    millilitres = float(np.count_nonzero(mask.data)) * mask.voxel_volume / 1000
    if millilitres == 0:
        raise DataError(
            'no brain was found in the image', advice='Check that it shows a whole brain.'
        )
    low, high = BRAIN_VOLUMES
    if not low <= millilitres <= high:
        return [f'the brain mask has {millilitres:.0f} mL, outside {low:.0f} to {high:.0f} mL']
    return []
