"""Two images made ready to be compared: cubic copies, cut to the brain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ssl2_bids.errors import DataError
from ssl2_bids.volume import Volume, resample
from ssl2_bids.voxel_grid import bounding_box, same_grid, shift_affine, start_of

MARGIN = 24.0  # mm; kept around the moving brain, the larger part of a usual offset


@dataclass(frozen=True)
class RegistrationStage:
    """One level of the pyramid.

    Attributes
    ----------
    spacing : mm, of the cubic copies.
    points : how many points of the fixed image are compared.
    shell : mm; the rim around the fixed brain that is compared too: outlines help to find the
        brain, skull and skin distract from it.
    """

    spacing: float
    points: int
    shell: float


@dataclass(frozen=True)
class ImagePair:
    """Isotropic copies of both images, and where in the fixed one they are compared."""

    fixed: Volume
    region: Volume
    moving: Volume


def checked_mask(image: Volume, mask: Volume | None) -> Volume:
    """The mask as booleans, or one of what is brighter than the mean.

    Raises
    ------
    DataError : the mask is empty, or the image is constant within it.
    """
    if mask is None:
        inside = image.data > np.nanmean(image.data)
    elif not same_grid(image, mask):
        raise ValueError('the mask is not on the grid of its image')
    else:
        inside = mask.data > 0
    name = f'the {image.contrast} image' if image.contrast else 'the image'
    if not inside.any():
        raise DataError(
            f'{name} cannot be registered: its brain mask is empty',
            advice='Look at the image and its mask.',
        )
    low, high = np.nanpercentile(image.data[inside], (0.5, 99.5))
    if not high > low:
        raise DataError(
            f'{name} cannot be registered: it is constant within the brain mask',
            advice='Look at the image, or leave it out (ssl2-bids: --bids-filter-file).',
        )
    return image.with_data(inside)


def copies(
    fixed: Volume,
    moving: Volume,
    fixed_mask: Volume,
    moving_mask: Volume,
    *,
    stage: RegistrationStage,
) -> ImagePair:
    """Cubic copies of both images, cut to the brain, and the brain with its shell.

    The images are those of :func:`clip_brightest`.
    """
    inside = cubic(fixed_mask, fixed_mask, spacing=stage.spacing, margin=stage.shell)
    distance = ndimage.distance_transform_edt(inside.data < 0.5) * stage.spacing
    return ImagePair(
        cubic(fixed, fixed_mask, spacing=stage.spacing, margin=stage.shell),
        inside.with_data((distance <= stage.shell).astype(np.uint8)),
        cubic(moving, moving_mask, spacing=stage.spacing, margin=MARGIN),
    )


def clip_brightest(image: Volume, mask: Volume) -> Volume:
    """An image without NaN and without the few brightest voxels of the brain."""
    low, high = np.nanpercentile(image.data[mask.data], (0.5, 99.5))
    return image.with_data(np.clip(np.nan_to_num(image.data), min(low, 0), high))


def cubic(image: Volume, mask: Volume, *, spacing: float, margin: float) -> Volume:
    """Copy an image to cubic voxels of ``spacing`` mm along its own axes, around a mask.

    ``margin`` mm are kept on each side of the mask, as far as the image goes.
    """
    cut = bounding_box(mask.data, np.ceil(margin / image.spacing).astype(int))
    cropped = Volume(image.data[cut].astype(np.float32), shift_affine(image.affine, start_of(cut)))
    step, length = spacing / image.spacing, np.array(cropped.shape)
    shape = np.maximum(np.rint(length / step), 2).astype(int)
    affine = shift_affine(cropped.affine, (length - 1) / 2 - (shape - 1) / 2 * step)
    affine[:3, :3] = image.affine[:3, :3] * step
    return resample(cropped, affine, tuple(shape.tolist()))
