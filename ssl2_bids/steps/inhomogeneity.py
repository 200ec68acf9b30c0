"""Correction of the receive field's inhomogeneity (N4)."""

from __future__ import annotations

import numpy as np

from ssl2_bids.volume import Volume

WORKING_VOXEL = 4.0  # mm; the field is smooth, so it is estimated on a coarse copy
ITERATIONS = 50  # per level of the B-spline, N4's usual number
LEVELS = 3
# A fourth level is for the finer fields of 7T: benchmarks/preprocess.py --steps
# inhomogeneity. A fifth takes away a tenth of the contrast of lesions there.
STRONG_FIELD_LEVELS = 4
STRONG_FIELD = 5.0  # T


def is_strong(field_strength: float | None) -> bool:
    """Whether the wavelength in the brain is so short that fields vary within it (7T)."""
    return field_strength is not None and field_strength >= STRONG_FIELD


def correct_inhomogeneity(
    image: Volume,
    brain_mask: Volume,
    *,
    field_strength: float | None = None,
    iterations: int = ITERATIONS,
) -> Volume:
    """Divide an image by its smooth field, estimated within the brain by N4.

    Parameters
    ----------
    image : shape (I, J, K), any contrast with a multiplicative field; UNIT1 at 7T, where the
        transmit field acts nearly like one.
    brain_mask : the same grid, 0 or 1.
    field_strength : T, None if unknown: three levels, from 5 T on four.
    iterations : of each level, at most.

    Returns
    -------
    The image with the field's mean in the brain left as it was; outside the brain the field is
    extrapolated. One thread: the bytes do not depend on the number of cores.

    Notes
    -----
    Tustison 2010, doi 10.1109/TMI.2010.2046908, as in SimpleITK.
    """
    import SimpleITK as sitk

    from ssl2_bids.itk import itk_image, one_thread

    positive = itk_image(image.with_data(np.maximum(image.data, 0).astype(np.float32)))
    mask = itk_image(brain_mask.with_data((brain_mask.data > 0).astype(np.uint8)))
    factors = [max(1, round(WORKING_VOXEL / s)) for s in image.spacing]
    factors = [min(f, n // 8 or 1) for f, n in zip(factors, image.shape, strict=True)]
    corrector = sitk.N4BiasFieldCorrectionImageFilter()
    levels = STRONG_FIELD_LEVELS if is_strong(field_strength) else LEVELS
    corrector.SetMaximumNumberOfIterations([iterations] * levels)
    with one_thread():
        corrector.Execute(sitk.Shrink(positive, factors), sitk.Shrink(mask, factors))
        log_field = sitk.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(positive)).T
    inside = brain_mask.data > 0
    log_field = log_field - log_field[inside].mean() if inside.any() else log_field
    field = np.exp(np.clip(log_field, -2, 2))
    return image.with_data((image.data / field).astype(np.float32))


def methods(contrasts: list[str]) -> str:
    """The methods sentence."""
    return (
        f'The {_join_names(contrasts)} images were corrected for intensity inhomogeneity with N4 '
        '[@tustison2010], estimated within the brain mask (SimpleITK [@lowekamp2013]).'
    )


def _join_names(names: list[str]) -> str:
    return ' and '.join([', '.join(names[:-1]), names[-1]] if names[1:] else names)
