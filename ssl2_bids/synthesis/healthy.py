"""A label map from a healthy person's T1w alone, good enough to paint lesions into the scan.

Three tissue classes by intensity, separated by depth. It is no segmentation to measure with: the
engine needs to know roughly where white matter, ventricles, cortex and deep grey matter lie.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ssl2_bids.errors import DataError

WHITE, CORTEX, VENTRICLE, DEEP, FLUID = 2, 3, 4, 10, 24  # FreeSurfer's numbers
WHITE_INTENSITY = 160.0  # of white matter in the scaled image
SMALLEST_BRAIN = 600.0  # mL


def label_t1w(image: np.ndarray, brain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label the tissues of a T1w scan.

    Parameters
    ----------
    image : (I, J, K), 1 mm, bias field corrected, white matter brightest.
    brain : (I, J, K) bool.

    Returns
    -------
    labels : (I, J, K) uint8 in FreeSurfer's numbering, 0 outside the brain.
    scaled : (I, J, K) uint8, white matter at 160.

    Raises
    ------
    DataError : too small a brain, or tissues that cannot be separated.
    """
    if brain.sum() < SMALLEST_BRAIN * 1000:
        raise DataError(
            f'the brain has {brain.sum() / 1000:.0f} mL only', advice='Leave this scan out.'
        )
    smooth = ndimage.gaussian_filter(image.astype(np.float32), 0.5)
    fluid, grey, white = class_means(smooth[brain])
    if not fluid < 0.8 * grey or not grey < 0.92 * white:
        raise DataError(
            'white matter, grey matter and CSF cannot be separated by intensity',
            advice='Leave this scan out: it has no usual T1w contrast.',
        )
    is_fluid = brain & (smooth < (fluid + grey) / 2)
    is_white = brain & (smooth > (grey + white) / 2)
    labels = np.where(brain, CORTEX, 0).astype(np.uint8)
    labels[is_white] = WHITE
    labels[is_fluid] = FLUID
    depth = ndimage.distance_transform_edt(brain)
    ventricle = deep_fluid(is_fluid, depth)
    labels[ventricle] = VENTRICLE
    if ventricle.any():
        to_ventricle = ndimage.distance_transform_edt(~ventricle)
        to_white = ndimage.distance_transform_edt(~is_white)
        # Voxels half white matter, half ventricle are as bright as grey matter.
        rim = (labels == CORTEX) & (to_ventricle <= 2) & (to_white <= 1.5)
        labels[rim] = WHITE
        core = ndimage.binary_opening((labels == CORTEX) & (depth > 30) & (to_ventricle < 30))
        labels[core] = DEEP
    scaled = np.clip(image * (WHITE_INTENSITY / white), 0, 255) * brain
    return labels, np.rint(scaled).astype(np.uint8)


def class_means(values: np.ndarray) -> tuple[float, float, float]:
    """Means of three classes by k-means, dark to bright, started at fixed percentiles."""
    means = np.percentile(values, (4, 40, 85))
    for _ in range(50):
        edges = (means[:-1] + means[1:]) / 2
        kind = np.digitize(values, edges)
        moved = np.array(
            [values[kind == k].mean() if (kind == k).any() else means[k] for k in range(3)]
        )
        if np.allclose(moved, means, rtol=1e-4):
            break
        means = moved
    fluid, grey, white = (float(m) for m in means)
    return fluid, grey, white


def deep_fluid(fluid: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """The lateral and third ventricles: fluid connected to fluid far from the brain's border."""
    # Opened first, so that the way out through a thin fissure is cut.
    pieces, count = ndimage.label(ndimage.binary_opening(fluid & (depth > 24)))
    if not count:
        return np.zeros(fluid.shape, bool)
    sizes = np.bincount(pieces.ravel())
    deepest = np.asarray(ndimage.maximum(depth, pieces, np.arange(count + 1)))
    chosen = (sizes >= 60) & (deepest > 36)
    chosen[0] = False
    return ndimage.binary_dilation(chosen[pieces], iterations=3, mask=fluid & (depth > 18))
