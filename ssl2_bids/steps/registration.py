"""Linear registration by mutual information: one thread, seeded, the same result every time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ssl2_bids.errors import lacks_memory
from ssl2_bids.itk import LPS, itk_image, one_thread
from ssl2_bids.steps.image_pair import (
    ImagePair,
    RegistrationStage,
    checked_mask,
    clip_brightest,
    copies,
)
from ssl2_bids.steps.similarity import BINS, Similarity, compare
from ssl2_bids.volume import Volume

TILT = 12.0  # degrees; a start within 8 degrees of a tilt of 20
CANDIDATES = 10  # starts followed up at the coarsest level; with 6, a slab can miss the brain
RIGID = (
    RegistrationStage(4.0, 15_000, 6.0),
    RegistrationStage(2.0, 50_000, 4.0),
    RegistrationStage(1.2, 150_000, 2.0),
)
AFFINE = (RegistrationStage(4.0, 15_000, 6.0), RegistrationStage(2.0, 80_000, 6.0))


@dataclass(frozen=True)
class Registration:
    """A linear transform and how well it fits.

    Attributes
    ----------
    matrix : (4, 4), RAS+ mm of the fixed image to RAS+ mm of the moving image.
    before, after : similarity under the identity and under ``matrix``, over the same points in
        and closely around the fixed brain.
    kept_identity : whether nothing better than the scanner's coordinates was found.
    """

    matrix: np.ndarray
    before: Similarity
    after: Similarity
    kept_identity: bool


def register_rigid(
    fixed: Volume,
    moving: Volume,
    *,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    seed: int = 0,
    levels: int | None = None,
    candidates: int | None = None,
) -> Registration:
    """Find the rotation and translation between two images of one head, of any contrasts.

    Maximises the mutual information of Mattes et al. (2003) on isotropic copies of 4, 2 and
    1.2 mm, from the best of several starts: the scanner's coordinates and the centres of both
    masks, each upright and tilted.

    Parameters
    ----------
    fixed, moving : images on any grids; partial coverage is fine.
    fixed_mask, moving_mask : brain masks on the grids of their images. Without one, what is
        brighter than the mean of the image stands in.
    seed : of the choice of the points that are compared.
    levels : how many of the three, from the coarsest on; None for all.
    candidates : starts that are followed up, beside the scanner's coordinates; None for 10.

    Raises
    ------
    DataError : a mask is empty, or an image is constant within it.
    """
    masks = (fixed_mask, moving_mask)
    stages = RIGID[:levels]
    return align(fixed, moving, masks=masks, stages=stages, seed=seed, candidates=candidates)


def register_affine(
    fixed: Volume,
    moving: Volume,
    *,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    seed: int = 0,
    start: np.ndarray | None = None,
    levels: int | None = None,
) -> Registration:
    """Find the twelve-parameter transform between two heads; otherwise as register_rigid.

    The copies are of 4 and 2 mm: two heads do not agree more closely than that.

    Parameters
    ----------
    start : (4, 4), RAS+ mm of the fixed image to RAS+ mm of the moving image: where the search
        begins; None: at the best of several starts.
    levels : how many of the two, from the coarsest on; None for all.
    """
    masks = (fixed_mask, moving_mask)
    stages = AFFINE[:levels]
    return align(fixed, moving, masks=masks, stages=stages, seed=seed, affine=True, start=start)


def align(
    fixed: Volume,
    moving: Volume,
    *,
    masks: tuple[Volume | None, Volume | None],
    stages: tuple[RegistrationStage, ...],
    seed: int,
    affine: bool = False,
    start: np.ndarray | None = None,
    candidates: int | None = None,
) -> Registration:
    """Go through the stages from coarse to fine; see :func:`register_rigid`."""
    fixed_mask, moving_mask = checked_mask(fixed, masks[0]), checked_mask(moving, masks[1])
    fixed, moving = clip_brightest(fixed, fixed_mask), clip_brightest(moving, moving_mask)
    identity = np.eye(4)
    matrix = identity if start is None else start
    for number, stage in enumerate(stages):
        pair = copies(fixed, moving, fixed_mask, moving_mask, stage=stage)
        if number == 0 and start is None:
            centres = centre_of(fixed_mask), centre_of(moving_mask)
            matrix = best_start(pair, centres, stage=stage, seed=seed, candidates=candidates)
        matrix = optimise(pair, matrix, stage=stage, seed=seed, affine=affine)
    before = compare(pair, identity, seed=seed)
    after = compare(pair, matrix, seed=seed)
    if after.score <= before.score:
        return Registration(identity, before, before, kept_identity=True)
    return Registration(matrix, before, after, kept_identity=False)


def centre_of(mask: Volume) -> np.ndarray:
    """Centre of mass of a mask in RAS+ mm, shape (3,)."""
    return (mask.affine @ np.append(ndimage.center_of_mass(mask.data), 1))[:3]


def radius_of(region: Volume) -> float:
    """Root mean square distance in mm of a region's voxels from its centre."""
    points = np.argwhere(region.data) * region.spacing
    return float(np.sqrt(points.var(axis=0).sum()))


def best_start(
    pair: ImagePair,
    centres: tuple[np.ndarray, np.ndarray],
    *,
    stage: RegistrationStage,
    seed: int,
    candidates: int | None = None,
) -> np.ndarray:
    """The best rigid transform on the coarsest copies, (4, 4), over all starts.

    The scanner's coordinates, and the most similar of the other starts, are followed up.
    """
    turns = [(0, 0.0), *product(range(3), (-TILT, TILT))]
    starts = [
        rotation_about(centres[0], axis=axis, degrees=degrees, offset=offset)
        for offset in (np.zeros(3), centres[1] - centres[0])
        for axis, degrees in turns
    ]
    others = sorted(starts[1:], key=lambda start: -compare(pair, start, seed=seed).score)
    ends = [
        optimise(pair, start, stage=stage, seed=seed, affine=False)
        for start in [starts[0], *others[: candidates or CANDIDATES]]
    ]
    return max(ends, key=lambda end: compare(pair, end, seed=seed).score)


def rotation_about(
    centre: np.ndarray, *, axis: int, degrees: float, offset: np.ndarray
) -> np.ndarray:
    """Rotation by ``degrees`` about an axis through ``centre``, then a shift, (4, 4)."""
    matrix = np.eye(4)
    first, second = (a for a in range(3) if a != axis)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix[first, first] = matrix[second, second] = cosine
    matrix[first, second], matrix[second, first] = -sine, sine
    matrix[:3, 3] = centre + offset - matrix[:3, :3] @ centre
    return matrix


def optimise(
    pair: ImagePair, matrix: np.ndarray, *, stage: RegistrationStage, seed: int, affine: bool
) -> np.ndarray:
    """Improve a transform by gradient steps in Mattes' mutual information; (4, 4), RAS+ mm.

    Lengths are counted in radii of the brain: so a step in a shift, an angle or an entry of the
    matrix moves the brain about equally, and a regular step in all of them is a length.
    """
    centre, radius = LPS[:3, :3] @ centre_of(pair.region), radius_of(pair.region)
    start = LPS @ matrix @ LPS
    transform = sitk.AffineTransform(3) if affine else sitk.Euler3DTransform()
    transform.SetCenter((centre / radius).tolist())
    transform.SetMatrix(start[:3, :3].ravel().tolist(), *([] if affine else [1e-6]))
    shift = start[:3, 3] + start[:3, :3] @ centre - centre
    transform.SetTranslation((shift / radius).tolist())
    with one_thread():
        method = mattes(pair, stage=stage, seed=seed)
        method.SetMetricFixedMask(itk_image(pair.region, unit=radius))
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=stage.spacing / radius,
            minStep=stage.spacing / radius / 1000,
            numberOfIterations=200,
        )
        method.SetInitialTransform(transform, inPlace=True)
        try:
            method.Execute(itk_image(pair.fixed, unit=radius), itk_image(pair.moving, unit=radius))
        except RuntimeError as error:
            if lacks_memory(error):
                raise MemoryError from error
            return matrix  # no point lies inside the moving image
    result = np.eye(4)
    result[:3, :3] = np.reshape(transform.GetMatrix(), (3, 3))
    result[:3, 3] = np.array(transform.GetTranslation()) * radius
    result[:3, 3] += centre - result[:3, :3] @ centre
    return LPS @ result @ LPS


def mattes(
    pair: ImagePair, *, stage: RegistrationStage, seed: int
) -> sitk.ImageRegistrationMethod:
    """Mattes' mutual information at a regular, jittered choice of points.

    On the voxels themselves the similarity would prefer grids that fall on one another.
    """
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    share = min(stage.points / np.count_nonzero(pair.region.data), 1.0)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(share, seed % (2**32 - 1) + 1)  # ITK takes 0 for the clock
    method.SetMetricUseFixedImageGradientFilter(False)
    method.SetMetricUseMovingImageGradientFilter(False)
    method.SetInterpolator(sitk.sitkLinear)
    return method


def displacement(matrix: np.ndarray, point: np.ndarray) -> tuple[float, float]:
    """How far a rigid transform (4, 4) moves a point (3,), mm, and its angle, degrees."""
    shift = matrix[:3, :3] @ point + matrix[:3, 3] - point
    cosine = (np.trace(matrix[:3, :3]) - 1) / 2
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return float(np.linalg.norm(shift)), float(angle)


def methods(contrasts: list[str], reference: str) -> str:
    """The methods sentences for images that were registered rigidly to the reference.

    Parameters
    ----------
    contrasts : BIDS suffixes of the images that were moved; may be empty.
    reference : BIDS suffix of the reference image.
    """
    if not contrasts:
        return ''
    named = ' and '.join(
        [', '.join(contrasts[:-1]), contrasts[-1]] if contrasts[1:] else contrasts
    )
    several = 's were' if contrasts[1:] else ' was'
    return (
        f'The {named} image{several} registered to the {reference} image with a rigid transform '
        'that maximises mutual information [@mattes2003] within and closely around the brain, '
        'at three resolution levels (SimpleITK [@lowekamp2013]).'
    )
