"""The MNI152 template and the way from it to an image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from ssl2_bids.steps.registration import register_affine
from ssl2_bids.steps.similarity import Similarity
from ssl2_bids.volume import Volume, resample

VOLUME_RATIOS = (0.4, 2.0)  # brain over template; MNI152 is large: patients have 0.6 to 0.8
STRETCHES = (0.6, 1.5)  # along any axis
MIN_DICE = 0.8  # of the two brain masks; 0.91 to 0.97 in the 18 heads of the atlas


@dataclass(frozen=True)
class TemplateRegistration:
    """The affine way from the template to an image.

    Attributes
    ----------
    matrix : (4, 4), RAS+ mm of the template to RAS+ mm of the image.
    similarity : of template and image under ``matrix``.
    brain_dice : overlap of the two brain masks under ``matrix``, 0..1.
    warning : why the result is not plausible, empty where it is.
    """

    matrix: np.ndarray
    similarity: Similarity
    brain_dice: float
    warning: str = ''


@cache
def template() -> Volume:
    """The symmetric MNI152 T1w template of 2009, brain only, 1 mm, as nilearn packages it."""
    from nilearn.datasets import load_mni152_template

    image = load_mni152_template(resolution=1)
    return Volume(image.get_fdata(dtype=np.float32), image.affine.astype(np.float64), 'T1w')


def register_to_template(
    image: Volume,
    brain_mask: Volume,
    *,
    seed: int = 0,
    template_of: tuple[Volume, Volume] | None = None,
    start: np.ndarray | None = None,
    levels: int | None = None,
) -> TemplateRegistration:
    """Find the affine transform from the template to an image, from the brain alone.

    Parameters
    ----------
    image : any contrast and grid.
    brain_mask : the same grid, above 0 is brain.
    seed : of the choice of the points that are compared.
    template_of : another template, and its brain mask; None: the symmetric MNI152.
    start : (4, 4), RAS+ mm of the template to RAS+ mm of the image: where the search begins; if
        its end is not plausible, or without it, the best of several starts is searched for.
    levels : see :func:`ssl2_bids.steps.registration.register_affine`.

    Raises
    ------
    DataError : the mask is empty, or the image is constant within it.
    """
    if template_of is None:
        model = template()
        model_mask = model.with_data((model.data > 0).astype(np.uint8))
    else:
        head, model_mask = template_of
        model = head.with_data(np.where(model_mask.data > 0, np.nan_to_num(head.data), 0))
    inside = brain_mask.data > 0
    brain = image.with_data(np.where(inside, np.nan_to_num(image.data), 0))
    found = register_affine(
        model,
        brain,
        fixed_mask=model_mask,
        moving_mask=brain_mask,
        seed=seed,
        start=start,
        levels=levels,
    )
    moved = resample(
        brain_mask.with_data(inside.astype(np.float32)),
        model.affine,
        model.shape,
        transform=found.matrix,
        antialias=False,
    )
    dice = overlap(moved.data >= 0.5, model_mask.data > 0)
    warning = implausible(found.matrix, dice=dice)
    if warning and start is not None:
        return register_to_template(
            image, brain_mask, seed=seed, template_of=template_of, levels=levels
        )
    return TemplateRegistration(found.matrix, found.after, dice, warning)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Dice of two boolean arrays, 0 where both are empty."""
    return float(2 * (one & other).sum() / max(one.sum() + other.sum(), 1))


def implausible(matrix: np.ndarray, *, dice: float) -> str:
    """Why no head can differ that much from the template, or nothing."""
    ratio = float(np.linalg.det(matrix[:3, :3]))
    stretches = np.linalg.svd(matrix[:3, :3], compute_uv=False)
    if not VOLUME_RATIOS[0] <= ratio <= VOLUME_RATIOS[1]:
        return f'the brain would have {ratio:.2f} times the volume of the template'
    if stretches.min() < STRETCHES[0] or stretches.max() > STRETCHES[1]:
        return f'the brain would be stretched {stretches.min():.2f} to {stretches.max():.2f} times'
    if dice < MIN_DICE:
        return f'the brain masks of image and template agree poorly (Dice {dice:.2f})'
    return ''


def methods(reference: str) -> str:
    """The methods sentence for a reference image of this BIDS suffix."""
    return (
        f'The brain in the {reference} image was registered to the symmetric MNI152 template of '
        '2009 [@fonov2011], as distributed with nilearn [@nilearn], with an affine transform that '
        'maximises mutual information [@mattes2003].'
    )
