"""Brain mask: of a brain-only image, or by brain extraction."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ssl2_bids.errors import DataError
from ssl2_bids.volume import Volume

ZERO_BORDER = 0.6  # share of exact zeros on the border from which an image may be brain only
MAX_BRAIN = 2000.0  # mL of foreground; a whole head has more, also when its air is zero

GIVEN = 'The brain mask was given by the user.'


def is_brain_only(image: Volume) -> bool:
    """Whether an image was skull-stripped before: by its zeros and the volume that is left.

    Parameters
    ----------
    image : shape (I, J, K). At least 60 % of its border voxels and of all voxels outside the
        foreground's bounding box must be exactly 0, and the filled foreground may have at most
        2000 mL: heads whose air was set to zero (defacing, integer storage) are larger.
    """
    border = np.ones(image.shape, bool)
    border[2:-2, 2:-2, 2:-2] = False
    if (image.data[border] == 0).mean() < ZERO_BORDER:
        return False
    millilitres = float(foreground(image).sum()) * image.voxel_volume / 1000
    return 0 < millilitres <= MAX_BRAIN


def foreground(image: Volume) -> np.ndarray:
    """The largest connected part that is not zero, without holes: boolean (I, J, K)."""
    labels, count = ndimage.label(image.data != 0)
    if count > 1:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        filled = labels == sizes.argmax()
    else:
        filled = labels > 0
    return ndimage.binary_fill_holes(filled)


def mask_of_brain_only(image: Volume) -> Volume:
    """The brain mask of a skull-stripped image: its foreground, uint8.

    Raises
    ------
    DataError : the image is zero everywhere.
    """
    mask = foreground(image)
    if not mask.any():
        raise DataError('the image is zero everywhere')
    return Volume(mask.astype(np.uint8), image.affine)


def extract_brain(image: Volume, *, threads: int = 1) -> Volume:
    """Find the brain in a whole-head image with deepbet, on the CPU.

    Parameters
    ----------
    image : shape (I, J, K), any common contrast, voxel axes near RAS+.
    threads : of PyTorch; part of what decides the last bits.

    Returns
    -------
    Mask, uint8, on the same grid: the largest component without holes.

    Raises
    ------
    DataError : no brain was found.

    Notes
    -----
    Fisch 2024, doi 10.1016/j.compbiomed.2024.108845. Its weights come with the package. Made for
    T1w of adults; inspected on 1.5T FLAIR and T2w, where the mask follows the surface too.
    """
    import torch
    from deepbet.bet import BrainExtraction

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        network = BrainExtraction(no_gpu=True)
        probability = network.run_model(np.ascontiguousarray(image.data, np.float32))
        mask = network.postprocess(probability > 0.5)
    except (AssertionError, ValueError, IndexError, RuntimeError) as error:
        raise DataError(
            f'no brain was found in the image ({error})',
            advice='Check that it shows a whole head; for brain-only images set SkullStripped '
            'to true in the sidecar or give --skull-strip skip.',
        ) from None
    finally:
        torch.set_num_threads(before)
    return Volume(np.asarray(mask, np.uint8), image.affine)


def methods(brain_only: bool, *, in_inv2: bool = False) -> list[str]:
    """The methods sentences.

    Parameters
    ----------
    in_inv2 : the brain of UNIT1 was looked for in INV2.
    """
    if brain_only:
        return ['The images showed the brain only; their foreground was used as the brain mask.']
    extracted = ['The brain was extracted from each image with deepbet [@fisch2024].']
    return [*extracted, 'The brain of UNIT1 was extracted from INV2.'] if in_inv2 else extracted
