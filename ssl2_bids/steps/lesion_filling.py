"""Lesions of a T1w image replaced by white matter, for programs that measure volumes."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ssl2_bids.errors import DataError
from ssl2_bids.synthesis.healthy import class_means
from ssl2_bids.volume import Volume
from ssl2_bids.voxel_grid import same_grid

REACHES = (2.0, 4.0, 8.0, 16.0)  # mm, sigma; the first with enough white matter around is taken
ENOUGH_WHITE = 0.05  # share of white matter among the voxels around
SMOOTHING = 0.5  # voxels, before the classes are separated by intensity
MIN_WHITE = 1000  # voxels of white matter in an image


def fill_lesions(image: Volume, lesions: Volume, brain_mask: Volume, *, seed: int = 0) -> Volume:
    """Replace lesions by the local mean of white matter, with its noise.

    White matter is the brightest of three intensity classes outside the lesions. Its mean and
    spread are local: weighted by a Gaussian of 2 mm, or of up to 16 mm where less is around. As in
    Chard et al. 2010 (doi 10.1002/jmri.22214) and Battaglini et al. 2012 (doi 10.1002/hbm.21344),
    who fill with intensities of the white matter around each lesion.

    Parameters
    ----------
    image : T1w, or another image in which white matter is brightest; bias field corrected.
    lesions, brain_mask : on the same grid, above 0 is inside.
    seed : of the noise.

    Returns
    -------
    The image, float32, changed in the lesions alone.

    Raises
    ------
    DataError : the grids differ, or white matter is not the brightest class.
    """
    if not (same_grid(image, lesions) and same_grid(image, brain_mask)):
        raise DataError('image, lesion mask and brain mask are not on one grid')
    data = image.data.astype(np.float32)
    holes = lesions.data > 0
    if not holes.any():
        return image.with_data(data)
    white = white_matter(data, (brain_mask.data > 0) & ~holes)
    mean, spread = local_statistics(data, white, holes, spacing=image.spacing)
    noise = np.random.default_rng(seed).standard_normal(int(holes.sum()), np.float32)
    filled = data.copy()
    filled[holes] = np.maximum(mean + spread * noise, 0)
    return image.with_data(filled)


def white_matter(data: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Voxels of the brightest of three intensity classes, bool.

    Parameters
    ----------
    data : (I, J, K).
    inside : where to look, bool.

    Raises
    ------
    DataError : the brightest class has too few voxels or hardly differs from the next.
    """
    smooth = ndimage.gaussian_filter(data, SMOOTHING)
    if np.count_nonzero(inside) < MIN_WHITE:
        raise DataError('there is too little brain outside the lesions')
    _, grey, white = class_means(smooth[inside])
    found = inside & (smooth > (grey + white) / 2)
    if found.sum() < MIN_WHITE or not grey < 0.92 * white:
        raise DataError(
            'white matter cannot be separated by its intensity',
            advice='Lesions are filled in images in which white matter is brightest (T1w, UNIT1).',
        )
    return found


def local_statistics(
    data: np.ndarray, white: np.ndarray, where: np.ndarray, *, spacing: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the white matter around each voxel of ``where``.

    Returns
    -------
    Two arrays (N,), in the order of ``data[where]``.
    """
    mean = np.full(int(where.sum()), data[white].mean(), np.float32)
    spread = np.full(mean.shape, data[white].std(), np.float32)
    open_ones = np.ones(mean.shape, bool)
    weights, values = white.astype(np.float32), np.where(white, data, 0)
    for reach in REACHES:
        sigma = reach / spacing
        share, total, squares = (
            ndimage.gaussian_filter(part, sigma)[where]
            for part in (weights, values, values * data)
        )
        good = open_ones & (share > ENOUGH_WHITE)
        mean[good] = (total / np.maximum(share, 1e-6))[good]
        variance = squares / np.maximum(share, 1e-6) - (total / np.maximum(share, 1e-6)) ** 2
        spread[good] = np.sqrt(np.maximum(variance, 0))[good]
        open_ones &= ~good
        if not open_ones.any():
            break
    return mean, spread
