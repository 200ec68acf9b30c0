"""Brain mask: of a brain-only image, or by brain extraction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ssl2_bids.errors import DataError, lacks_memory
from ssl2_bids.volume import Volume

ZERO_BORDER = 0.6  # share of exact zeros on the border from which an image may be brain only
MAX_BRAIN = 2000.0  # mL of foreground; a whole head has more, also when its air is zero
# ``python benchmarks/brain_only.py`` prints the numbers of heads with zero air and of brains
DARK = 0.4  # of the median; below it is skull, air and some fluid
FEW_DARK = 0.02  # share of dark voxels up to which there is no skull
COVERED = 0.9  # share of the foreground in the extracted brain from which nothing else is there
BEYOND = 8.0  # mm outside the extracted brain: scalp, eyes, neck
MIN_BEYOND = 0.01  # share of the foreground
SKULL = (
    0.1  # share of dark voxels outside the extracted brain; heads from 0.15, cut brains up to 0.4
)
BRAIN_BEYOND = 0.75  # median beyond over that of the brain; heads up to 0.67, cut brains from 0.81
FAT = (
    1.3  # the same of the 90th percentiles; heads with bright fat from 1.5, T1w brains up to 1.13
)

GIVEN = 'The brain mask was given by the user.'
IS_HEAD = (
    'the air of the image is zero, but what it shows is larger than the brain and has a skull: '
    'the brain was extracted. If it shows the brain only, set SkullStripped to true in the '
    'sidecar or give --skull-strip skip'
)
NOT_FOUND = (
    'all that is not zero was taken as the brain, because no brain could be found within it: look '
    'at the outline of the brain mask'
)


@dataclass(frozen=True)
class FoundBrain:
    """A brain mask, and how it was found.

    Attributes
    ----------
    mask : uint8 on the grid of the image.
    brain_only : the image shows nothing else; its foreground is the mask.
    warnings : what is doubtful about that.
    """

    mask: Volume
    brain_only: bool
    warnings: tuple[str, ...] = ()


def find_brain(image: Volume, *, threads: int = 1) -> FoundBrain:
    """The brain of an image that may be skull-stripped, or may be a whole head.

    Zeros around a small foreground are no proof: the air of a head can be zero, and its field of
    view short. So the brain is extracted, too. Where the foreground reaches beyond it, contrast
    decides: around a brain lie dark skull and a scalp that is darker than the brain on the whole,
    or has bright fat; beside a part of the brain that the extraction missed lies brain.

    Raises
    ------
    DataError : no brain was found in a head.
    """
    if not may_be_brain_only(image):
        return FoundBrain(extract_brain(image, threads=threads), False)
    whole = mask_of_brain_only(image)
    inside = whole.data > 0
    values = image.data[inside]
    if (values < DARK * np.median(values)).mean() < FEW_DARK:
        return FoundBrain(whole, True)
    try:
        extracted = extract_brain(image, threads=threads)
    except DataError:
        return FoundBrain(whole, True, (NOT_FOUND,))
    if _is_head(image, inside, extracted.data > 0):
        return FoundBrain(extracted, False, (IS_HEAD,))
    return FoundBrain(whole, True)


def _is_head(image: Volume, inside: np.ndarray, brain: np.ndarray) -> bool:
    """Whether a foreground reaches beyond the extracted brain, to skull and scalp."""
    around = inside & ~brain
    if not (brain & inside).any() or around.sum() <= (1 - COVERED) * inside.sum():
        return False
    beyond = inside & (ndimage.distance_transform_edt(~brain, sampling=image.spacing) > BEYOND)
    if beyond.sum() < MIN_BEYOND * inside.sum():
        return False
    median, bright = np.percentile(image.data[brain & inside], (50, 90))
    dark = (image.data[around] < DARK * median).mean()
    middle, top = np.percentile(image.data[beyond], (50, 90))
    is_scalp = middle < BRAIN_BEYOND * median or top > FAT * bright
    return bool(dark >= SKULL and is_scalp)


def is_brain_only(image: Volume, *, threads: int = 1) -> bool:
    """Whether an image was skull-stripped before; see :func:`find_brain`."""
    return may_be_brain_only(image) and find_brain(image, threads=threads).brain_only


def may_be_brain_only(image: Volume) -> bool:
    """Whether zeros and volume allow that an image was skull-stripped before.

    Parameters
    ----------
    image : shape (I, J, K). At least 60 % of its border voxels must be exactly 0, and the filled
        foreground may have at most 2000 mL.
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
    MemoryError : there is not enough memory to look for it.

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
        if lacks_memory(error):
            raise MemoryError from error
        raise DataError(
            f'no brain was found in the image ({error})',
            advice='Check that it shows a whole head; for brain-only images set SkullStripped '
            'to true in the sidecar or give --skull-strip skip.',
        ) from None
    finally:
        torch.set_num_threads(before)
    return Volume(np.asarray(mask, np.uint8), image.affine)


def methods(brain_only: bool, contrast: str, *, in_inv2: bool = False) -> list[str]:
    """The methods sentences.

    Parameters
    ----------
    contrast : of the image.
    in_inv2 : the brain of UNIT1 was looked for in INV2.
    """
    if brain_only:
        return [
            f'The {contrast} image showed the brain only; its foreground was used as brain mask.'
        ]
    source = 'INV2' if in_inv2 else f'the {contrast} image'
    return [f'The brain of {contrast} was extracted from {source} with deepbet [@fisch2024].']
