"""Images of several visits made comparable, and the evidence of their differences on lesions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

# how a lesion looks against white matter; contrasts that are not named show no change
SIGNS = {'FLAIR': 1.0, 'T2w': 1.0, 'PDw': 1.0, 'T1w': -1.0, 'UNIT1': -1.0}
FIELD = 12.0  # mm, sigma of the smooth field between visits (Lewis and Fox 2004)
MAX_FIELD = 0.4  # of its logarithm
DENOISING = 0.7  # mm, sigma of the smoothing of a difference
SHIFT = 0.25  # mm by which two visits lie apart where the registration is good
MAX_EVIDENCE = 6.0  # standard deviations; more is no better evidence


def match_intensities(
    images: Sequence[np.ndarray], compared: np.ndarray, *, spacing: float
) -> list[np.ndarray]:
    """Bring the images of one contrast to one scale and one smooth field.

    Each is scaled to the mean location and spread (quartiles) of all, and then divided by the
    smooth ratio of it to the mean of all: the differential field of Lewis and Fox 2004,
    doi 10.1016/j.neuroimage.2004.04.030. No visit is the standard of the others.

    Parameters
    ----------
    images : each (I, J, K), on one grid.
    compared : bool, the brain without lesions; intensities elsewhere do not count.
    spacing : mm, of the cubic voxels.

    Returns
    -------
    The images, float32, in the order given.
    """
    if len(images) < 2 or np.count_nonzero(compared) < 100:
        return [image.astype(np.float32) for image in images]
    quartiles = np.array([np.percentile(image[compared], (25, 50, 75)) for image in images])
    centres = quartiles[:, 1]
    spreads = np.maximum(quartiles[:, 2] - quartiles[:, 0], _tiny(centres))
    scaled = [
        ((image - centre) / spread * spreads.mean() + centres.mean()).astype(np.float32)
        for image, centre, spread in zip(images, centres, spreads, strict=True)
    ]
    mean = np.mean(scaled, axis=0)
    floor = 0.2 * float(np.median(mean[compared]))
    usable = compared & (mean > floor)
    for image in scaled:
        usable &= image > floor
    weight = ndimage.gaussian_filter(usable.astype(np.float32), FIELD / spacing)
    for image in scaled:
        ratio = np.zeros_like(image)
        ratio[usable] = np.clip(np.log(image[usable] / mean[usable]), -MAX_FIELD, MAX_FIELD)
        smooth = ndimage.gaussian_filter(ratio, FIELD / spacing) / np.maximum(weight, 1e-3)
        image /= np.exp(np.clip(smooth, -MAX_FIELD, MAX_FIELD))
    return scaled


def change_evidence(
    before: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    compared: np.ndarray,
    *,
    spacing: float,
) -> np.ndarray:
    """How much more like a lesion each voxel looks at the later of two visits.

    The mean over contrasts of the smoothed difference in standard deviations; the sign is that
    of lesions in each contrast. The deviation is that of the differences in the brain outside
    lesions, plus what a shift of a quarter of a millimetre makes at an edge.

    Parameters
    ----------
    before, after : matched images by contrast, each (I, J, K); contrasts of one visit alone are
        left out.
    compared : as in :func:`match_intensities`.
    spacing : mm.

    Returns
    -------
    (I, J, K) float32, cut at six; zero without a common contrast.
    """
    common = [name for name in before if name in after and name in SIGNS]
    total = np.zeros(compared.shape, np.float32)
    for name in common:
        difference = ndimage.gaussian_filter(after[name] - before[name], DENOISING / spacing)
        middle = ndimage.gaussian_filter(after[name] + before[name], DENOISING / spacing) / 2
        slope = np.sqrt(sum(np.gradient(middle, spacing, axis=a) ** 2 for a in range(3)))
        values = difference[compared]
        noise = 1.4826 * float(np.median(np.abs(values - np.median(values)))) if values.size else 0
        least = float(_tiny(np.median(middle[compared]))) if values.size else 1e-6
        deviation = np.sqrt(max(noise, least) ** 2 + (SHIFT * slope) ** 2)
        total += SIGNS[name] * difference / deviation
    return np.clip(total / max(len(common), 1), -MAX_EVIDENCE, MAX_EVIDENCE)


def agreement(one: np.ndarray, other: np.ndarray, brain: np.ndarray) -> float:
    """Correlation of two matched images of one contrast within the brain, -1 to 1."""
    values = np.stack([one[brain], other[brain]]).astype(np.float64)
    if values.shape[1] < 100:
        return 0.0
    if (values.std(axis=1) < 1e-3 * _tiny(np.abs(values).max(axis=1))).any():
        return 0.0
    return float(np.corrcoef(values)[0, 1])


def _tiny(size: np.ndarray | float) -> np.ndarray:
    """What counts as zero for values of this size, above 0: 1e-6, or that share of them."""
    return np.asarray(1e-6 * np.clip(np.abs(size), 1e-9, 1.0))


def methods() -> str:
    """The methods sentence."""
    return (
        'Within a contrast, intensities of the visits were brought to one scale and one smooth '
        'field in the brain outside lesions [@lewis2004].'
    )
