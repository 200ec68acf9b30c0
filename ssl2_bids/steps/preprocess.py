"""From a raw image to a preprocessed one: the same for the App and for training.

Joins the steps before registration, so that this join exists once: :func:`check_image` for each
raw image, :func:`prepare_contrast` for those of one contrast, :func:`brain_mask`, :func:`even`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ssl2_bids.steps import brain, echoes, inhomogeneity, mp2rage, quality
from ssl2_bids.volume import Volume


@dataclass(frozen=True)
class PreparedScan:
    """One contrast as one image, with facts and remarks.

    Attributes
    ----------
    image : checked, echoes averaged; UNIT1 from 0 to 4095, denoised if INV1 and INV2 exist.
    """

    image: Volume
    warnings: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)


def check_image(image: Volume) -> PreparedScan:
    """One raw image with finite values, and with 0 around it where its background is constant.

    Raises
    ------
    DataError : it cannot be used, see :func:`quality.check_image`.
    """
    found, warnings = quality.check_image(image)
    if found.contrast != 'UNIT1':  # there the scale has a lowest value
        found = quality.zero_background(found)
    return PreparedScan(found, warnings)


def prepare_contrast(images: Sequence[Volume], inversions: Sequence[Volume] = ()) -> PreparedScan:
    """One image of a contrast from its checked ones.

    Parameters
    ----------
    images : the image, or its echoes, each of shape (I, J, K).
    inversions : INV1 and INV2 of a UNIT1, magnitudes; or none.

    Raises
    ------
    DataError : the images do not share their grid, or the values are not those of a UNIT1.
    """
    first = images[0]
    if inversions:
        inv1, inv2 = inversions
        image, level = mp2rage.remove_background_noise(first, inv1, inv2)
        return PreparedScan(image, methods=[mp2rage.methods(level)])
    if len(images) > 1:
        return PreparedScan(echoes.mean_of_echoes(images), methods=[echoes.methods(len(images))])
    return PreparedScan(mp2rage.on_full_scale(first) if first.contrast == 'UNIT1' else first)


def brain_mask(
    image: Volume, *, mode: str, stripped: bool | None, threads: int = 1
) -> tuple[Volume, bool, list[str]]:
    """The brain mask of a prepared image.

    Parameters
    ----------
    mode : ``skip``: the foreground; ``force``: brain extraction; ``auto``: depends on the image.
    stripped : ``SkullStripped`` of the image's sidecar; None if absent: the image decides.
    threads : of the extraction.

    Returns
    -------
    Mask, uint8, on the same grid; whether the image showed the brain only; warnings.

    Raises
    ------
    DataError : there is no brain.
    """
    brain_only = mode == 'skip'
    if mode == 'auto':
        brain_only = stripped if stripped is not None else brain.is_brain_only(image)
    if brain_only:
        mask = brain.mask_of_brain_only(image)
    else:
        if image.contrast == 'UNIT1' and mp2rage.is_noisy(image):
            image = mp2rage.smooth_for_masking(image)
        mask = brain.extract_brain(image, threads=threads)
    return mask, brain_only, quality.check_brain_volume(mask)


def has_receive_field(contrast: str) -> bool:
    """Whether N4 is for this contrast: not for UNIT1, where the receive field cancels."""
    return contrast != 'UNIT1'


def even(image: Volume, mask: Volume) -> Volume:
    """The image without the receive field, where its contrast has one.

    Parameters
    ----------
    mask : brain, on the same grid.
    """
    if not has_receive_field(image.contrast):
        return image.with_data(np.asarray(image.data, np.float32))
    return inhomogeneity.correct_inhomogeneity(image, mask)
