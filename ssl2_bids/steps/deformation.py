"""Non-linear registration of two brains by local correlation, with the exact way back.

A diffeomorphism is the flow of a velocity field that does not change with time: the flow
backwards is its inverse. One thread, no random numbers: the same bytes every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from ssl2_bids.errors import DataError
from ssl2_bids.steps.image_pair import checked_mask, cubic
from ssl2_bids.steps.template import overlap
from ssl2_bids.steps.velocity_field import (
    ascend,
    coarser,
    flow,
    in_mm,
    local_correlation,
    resized,
    warped,
)
from ssl2_bids.volume import Volume, resample, resample_deformed, shifted
from ssl2_bids.voxel_grid import Grid, spacing_of

if TYPE_CHECKING:
    import SimpleITK as sitk

SPACING = 2.0  # mm; of the finest copies
LEVELS = ((4, 60), (2, 40), (1, 20))  # voxels of a level in those of the finest, and most steps
MARGIN = 12.0  # mm around the brain of the template; the deformation is zero at its end
SHELL = 4.0  # mm around the brain that are compared too
RIM = 3.0  # mm; of the brain, whose median intensity stands outside of it too
WORSE = 0.02  # of Dice, by which a given transform fits less well than an affine one
MIN_FIT = 0.85  # Dice of a brain in the template; with its own transform above 0.95
MAX_RETURN = 3.0  # mm; there and back with transforms of one run: below 1


@dataclass(frozen=True)
class Deformation:
    """The way between a template and an image, both ways.

    Attributes
    ----------
    matrix : (4, 4), RAS+ mm of the template to RAS+ mm of the image.
    affine : (4, 4), of the grid of both fields, which lies in the template.
    forward : shifts of points of the template in mm (RAS+) before ``matrix``, (I, J, K, 3).
    backward : shifts of points that come from the image, after the inverse of ``matrix``.
    before, after : mean local correlation of both brains (its square, 0 to 1) under the matrix
        alone, and under the deformation; NaN of a given one.
    """

    matrix: np.ndarray
    affine: np.ndarray
    forward: np.ndarray
    backward: np.ndarray
    before: float
    after: float


def register_deformation(
    template: Volume,
    image: Volume,
    matrix: np.ndarray,
    *,
    template_mask: Volume,
    image_mask: Volume,
    lesions: Volume | None = None,
) -> Deformation:
    """Find the deformation between a template and an image that are aligned affinely.

    Maximises the squared local correlation of the two brains (Avants et al. 2008; that of a
    cube of five voxels), which is the same for any contrast of tissues, with a stationary
    velocity field (Lorenzi et al. 2013, doi 10.1016/j.neuroimage.2013.04.114) on copies of 8, 4
    and 2 mm. Update and field are smoothed with Gaussians. Lesions are filled first.

    Parameters
    ----------
    template, image : brains of any contrasts, on any grids.
    matrix : (4, 4), RAS+ mm of the template to RAS+ mm of the image.
    template_mask, image_mask : brain masks on the grids of their images.
    lesions : above 0 in lesions, on the grid of ``image``.

    Raises
    ------
    DataError : a mask is empty, or an image is constant within it.
    """
    fixed_mask = checked_mask(template, template_mask)
    moving_mask = checked_mask(image, image_mask)
    filled = image if lesions is None else without_lesions(image, moving_mask, lesions)
    inside = cubic(fixed_mask, fixed_mask, spacing=SPACING, margin=MARGIN)
    fixed = normalised(template, fixed_mask, inside, np.eye(4))
    moving = normalised(filled, moving_mask, inside, matrix)
    brain = ndimage.distance_transform_edt(inside.data < 0.5) * SPACING <= SHELL
    velocity = np.zeros((3, *inside.shape), np.float32)
    rim = np.zeros(inside.shape, np.float32)
    rim[tuple(slice(2, -2) for _ in range(3))] = 1
    before = local_correlation(fixed, moving, brain)[0]
    for factor, steps in LEVELS:
        level = [coarser(array, factor) for array in (fixed, moving, brain.astype(np.float32))]
        small = resized(velocity, level[0].shape)
        small = ascend(small, level[0], level[1], level[2] >= 0.5, steps=steps)
        velocity = resized(small, inside.shape)
    velocity *= ndimage.gaussian_filter(rim, 1.0)
    after = local_correlation(fixed, warped(moving, flow(velocity)), brain)[0]
    forward, backward = (in_mm(flow(sign * velocity), inside.affine) for sign in (1, -1))
    return Deformation(matrix, inside.affine, forward, backward, before, after)


def given_deformation(
    forward: sitk.Transform, backward: sitk.Transform, template: Grid
) -> Deformation:
    """The deformation that another program found, sampled every 2 mm over a template.

    Parameters
    ----------
    forward, backward : ITK's transforms that resample the image onto the template and back: they
        map points of the template to points of the image, and back.
    template : its grid, voxel axes at right angles.
    """
    from ssl2_bids.itk import linear_part, shifts_of

    matrix = linear_part(forward)
    edges = spacing_of(template.affine)
    affine = template.affine @ np.diag([*(SPACING / edges), 1.0])
    i, j, k = (int(np.ceil(n * e / SPACING)) for n, e in zip(template.shape, edges, strict=True))
    grid = Volume(np.empty((i, j, k), bool), affine)
    there = shifts_of([forward, np.linalg.inv(matrix)], grid)
    back = shifts_of([matrix, backward], grid)
    return Deformation(matrix, affine, there, back, float('nan'), float('nan'))


def check_deformation(
    found: Deformation, *, image_mask: Volume, template_mask: Volume
) -> tuple[float, float]:
    """How well a given deformation fits a brain: Dice in the template, and mm there and back.

    Parameters
    ----------
    image_mask, template_mask : brain masks, each on any grid of its space.

    Returns
    -------
    Dice of both brains in the template, and the median distance of points of the template's brain
    from where the way there and back takes them.

    Raises
    ------
    DataError : the transforms belong to another brain, or not to one another.
    """
    if not image_mask.data.any():
        raise DataError('the brain mask is empty')
    edge = max(1, round(SPACING / float(template_mask.spacing.min())))
    affine = template_mask.affine @ np.diag([edge, edge, edge, 1.0])
    model = Volume(template_mask.data[::edge, ::edge, ::edge] > 0, affine)
    share = image_mask.with_data((image_mask.data > 0).astype(np.float32))
    dice = overlap(to_template(share, found, model).data >= 0.5, model.data)
    if dice < MIN_FIT:
        raise DataError(
            f'the transform does not fit this brain: with it, the Dice of brain and template is '
            f'{dice:.2f} (at least {MIN_FIT} is needed)',
            advice='It probably belongs to another participant or image.',
        )
    voxels = np.argwhere(model.data)[:: max(1, int(model.data.sum()) // 5000)]
    points = affine[:3, :3] @ voxels.T + affine[:3, 3:]
    there = shifted(points, found.forward, found.affine)
    there = found.matrix[:3, :3] @ there + found.matrix[:3, 3:]
    again = to_template_points(there.T, found)
    apart = float(np.median(np.linalg.norm(again - points.T, axis=1)))
    if apart > MAX_RETURN:
        raise DataError(
            f'the transforms to the template and back are not inverse: {apart:.0f} mm apart',
            advice='They probably belong to different participants or runs.',
        )
    return dice, apart


def overlap_by_affine(image_mask: Volume, template_mask: Volume, matrix: np.ndarray) -> float:
    """Dice of two brains in the template, with an affine transform.

    Parameters
    ----------
    image_mask, template_mask : brain masks, each on any grid of its space.
    matrix : (4, 4), RAS+ mm of the template to RAS+ mm of the image.
    """
    edge = max(1, round(SPACING / float(template_mask.spacing.min())))
    affine = template_mask.affine @ np.diag([edge, edge, edge, 1.0])
    model = template_mask.data[::edge, ::edge, ::edge] > 0
    share = image_mask.with_data((image_mask.data > 0).astype(np.float32))
    i, j, k = model.shape
    return overlap(resample(share, affine, (i, j, k), transform=matrix).data >= 0.5, model)


def doubts(label: str, dice: float, affine: float) -> list[str]:
    """Remarks on a given transform to a template that an affine transform surpasses.

    Parameters
    ----------
    dice, affine : of the brain masks, with the given and with the affine transform.
    """
    if dice >= affine - WORSE:
        return []
    return [
        f'the given transform to {label} fits the brain less well (Dice {dice:.2f}) than an '
        f'affine registration ({affine:.2f}): check that it is of this participant'
    ]


def without_lesions(image: Volume, brain: Volume, lesions: Volume) -> Volume:
    """An image of any contrast with the mean of the brain around them in place of its lesions.

    Parameters
    ----------
    brain, lesions : above 0 inside, on the grid of the image.

    Notes
    -----
    A lesion has no counterpart in a template: there the deformation would shrink it.
    """
    from ssl2_bids.steps.lesion_filling import local_statistics

    holes = lesions.data > 0
    data = np.nan_to_num(image.data).astype(np.float32)
    known = (brain.data > 0) & ~holes
    if holes.any() and known.any():
        data[holes], _ = local_statistics(data, known, holes, spacing=image.spacing)
    return image.with_data(data)


def normalised(image: Volume, mask: Volume, grid: Grid, matrix: np.ndarray) -> np.ndarray:
    """The brain alone on a grid, ``matrix`` as in resample; intensities have a range of 1.

    Outside is 0, the median of the rim of the brain: a step there would have the same sign in
    all contrasts, that between tissues has not.
    """
    data = np.nan_to_num(image.data)
    low, high = np.percentile(data[mask.data], (1, 99))
    depth = ndimage.distance_transform_edt(mask.data, sampling=image.spacing)
    rim = np.median(data[mask.data & (depth <= RIM)])
    scaled = np.where(mask.data, (np.clip(data, low, high) - rim) / (high - low), 0)
    brain = image.with_data(scaled.astype(np.float32))
    return resample(brain, grid.affine, grid.shape, transform=matrix).data


def write_deformation(found: Deformation, path: str | Path) -> None:
    """Write a deformation as ``.npz``."""
    np.savez(path, **vars(found))


def read_deformation(path: str | Path) -> Deformation:
    """Read what :func:`write_deformation` wrote."""
    with np.load(path) as content:
        return Deformation(
            matrix=content['matrix'],
            affine=content['affine'],
            forward=content['forward'],
            backward=content['backward'],
            before=float(content['before']),
            after=float(content['after']),
        )


def to_template(volume: Volume, found: Deformation, grid: Grid, *, order: int = 1) -> Volume:
    """A volume in the space of the image, resampled once to a grid in the template."""
    return resample_deformed(
        volume,
        grid,
        transform=found.matrix,
        shifts=found.forward,
        shifts_affine=found.affine,
        order=order,
    )


def lesions_to_template(instances: Volume, found: Deformation, grid: Grid) -> Volume:
    """Numbered lesions on a grid in the template: voxels that lesions fill by half or more.

    Such a voxel has the number of the lesion at or nearest to its centre.
    """
    mask = instances.with_data((instances.data > 0).astype(np.float32))
    share = to_template(mask, found, grid)
    numbers = to_template(instances, found, grid, order=0)
    inside = share.data >= 0.5
    if (inside & (numbers.data == 0)).any():
        nearest = ndimage.distance_transform_edt(
            numbers.data == 0, return_distances=False, return_indices=True
        )
        numbers = numbers.with_data(numbers.data[tuple(nearest)])
    return numbers.with_data(np.where(inside, numbers.data, 0).astype(np.uint16))


def lesions_in_template(
    table: Sequence[dict[str, Any]], instances: Volume, found: Deformation
) -> list[dict[str, Any]]:
    """Rows of lesions with their centre, voxels and volume in the template.

    Parameters
    ----------
    table : fields of :class:`ssl2_bids.steps.lesions.Lesion`, in the space of the image.
    instances : of :func:`lesions_to_template`.
    """
    counts = np.bincount(instances.data.ravel(), minlength=len(table) + 1)
    rows = []
    for row in table:
        centre = to_template_points(np.array([[row[axis] for axis in 'xyz']]), found)[0]
        count = int(counts[row['index']])
        size = {'voxel_count': count, 'volume_mm3': count * instances.voxel_volume}
        rows.append(row | size | dict(zip('xyz', centre.tolist(), strict=True)))
    return rows


def to_template_points(points: np.ndarray, found: Deformation) -> np.ndarray:
    """Points (N, 3) of the image, RAS+ mm, as points of the template."""
    back = np.linalg.inv(found.matrix)
    affine = back[:3, :3] @ points.T + back[:3, 3:]
    return shifted(affine, found.backward, found.affine).T


def methods(reference: str, template: str) -> str:
    """The methods sentences for a reference image of this BIDS suffix."""
    return (
        f'The brain in the {reference} image was registered to the {template} template of '
        'TemplateFlow [@ciric2022] with an affine transform (mutual information) and a '
        'diffeomorphism from a stationary velocity field that maximises local correlation '
        '[@avants2008; @lorenzi2013]. Lesions were filled with the intensities around them '
        'first. Results were resampled to the template once.'
    )


def given_methods(program: str, template: str) -> str:
    """The methods sentence for a transform that another program found."""
    return (
        f'Results were resampled to the {template} template of TemplateFlow [@ciric2022] once, '
        f'with the transform of {program}.'
    )
