"""In which region a lesion lies, by a small probabilistic atlas and the person's ventricles."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ssl2_bids.atlas import read_atlas
from ssl2_bids.steps.ventricles import VOXEL, find_ventricles
from ssl2_bids.volume import Volume, resample, thin
from ssl2_bids.voxel_grid import Box, bounding_box, shift_affine

NEAR = 3.0  # mm; how far from ventricle or cortex a lesion still counts as touching it
LIMIT = NEAR + 1e-3
EVEN = 0.5  # probability from which on a voxel belongs to a structure


def find_regions(
    instances: Volume, template_to_reference: np.ndarray, *, image: Volume, brain_mask: Volume
) -> list[str]:
    """The region of each lesion, see :func:`assign_regions`.

    The ventricles are those that the image shows, else those of the atlas.

    Parameters
    ----------
    instances : 0 or 1..n, on the reference grid.
    template_to_reference : (4, 4), RAS+ mm to RAS+ mm.
    image, brain_mask : of the reference, the same grid.
    """
    if not instances.data.any():
        return []
    maps = region_maps(instances, template_to_reference, part=part_around(instances))
    coarse = thin(image, VOXEL)
    everywhere = region_maps(coarse, template_to_reference)
    box = _box_of(next(iter(everywhere.values())), coarse)
    own = find_ventricles(
        _cropped(coarse, box),
        _cropped(thin(brain_mask, VOXEL), box),
        _cropped(thin(instances, VOXEL), box),
        everywhere,
    )
    if own is not None:
        first = maps['ventricles']
        maps['ventricles'] = resample(own, first.affine, first.shape)
    return assign_regions(instances, maps)


def region_maps(
    grid: Volume, template_to_reference: np.ndarray, *, part: Box | None = None
) -> dict[str, Volume]:
    """Bring the atlas to a reference image.

    Parameters
    ----------
    grid : any image on the reference grid.
    template_to_reference : (4, 4), RAS+ mm to RAS+ mm.
    part : of the grid, outside of which no map is needed, see :func:`part_around`; None: all.

    Returns
    -------
    The probability of each structure by name, on the part of the reference grid that the atlas
    covers, and in ``part`` (the affine has the position); empty maps where it covers nothing.
    """
    atlas = read_atlas()
    first = next(iter(atlas.values()))
    to_grid = np.linalg.inv(grid.affine) @ template_to_reference @ first.affine
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in first.shape], [1.0])).reshape(4, -1)
    reached = (to_grid @ corners)[:3]
    start = np.clip(np.floor(reached.min(axis=1)), 0, grid.shape).astype(int)
    stop = np.clip(np.ceil(reached.max(axis=1)) + 1, start, grid.shape).astype(int)
    if part is not None:
        start = np.maximum(start, [s.start for s in part])
        stop = np.maximum(np.minimum(stop, [s.stop for s in part]), start)
    affine = shift_affine(grid.affine, start)
    shape = tuple((stop - start).tolist())
    if not all(shape):
        return {name: Volume(np.zeros(shape, np.float32), affine) for name in atlas}
    way = np.linalg.inv(template_to_reference)
    return {name: resample(volume, affine, shape, transform=way) for name, volume in atlas.items()}


def part_around(instances: Volume) -> Box:
    """The part of the grid that decides the regions of lesions; empty without lesions."""
    inside = instances.data > 0
    if not inside.any():
        return (slice(0, 0),) * instances.data.ndim
    return bounding_box(inside, _margin(instances))


def _margin(grid: Volume) -> np.ndarray:
    """Voxels of each axis within which a lesion touches."""
    return np.ceil(LIMIT / grid.spacing).astype(int)


def assign_regions(instances: Volume, maps: dict[str, Volume]) -> list[str]:
    """The region of each lesion, after McDonald 2017 and MAGNIMS 2019, approximately.

    In this order: *infratentorial* where brain stem (with the fourth ventricle) and cerebellum
    are more probable over the lesion than the cerebrum; *periventricular* where it comes within
    3 mm of the lateral or third ventricles; *juxtacortical* where it comes within 3 mm of the
    cerebral cortex or overlaps with it; else *deep-white-matter*, deep grey matter included.

    Parameters
    ----------
    instances : 0 or 1..n, on the reference grid.
    maps : of :func:`region_maps` for that grid.

    Returns
    -------
    One of the four names for each of the lesions 1..n.

    Notes
    -----
    Thompson et al. 2018, doi 10.1016/S1474-4422(17)30470-2; Filippi et al. 2019, doi
    10.1093/brain/awz144: there a lesion has to touch ventricle or cortex, rated by a person. The
    atlas has the position of both in the average head after an affine transform, within some
    millimetres: hence the 3 mm. It has no single sulci of a patient, and cannot distinguish a
    cortical from a juxtacortical lesion. Distances run from voxel centre to
    voxel centre; neighbours count as touching for any thickness of slices.
    """
    first = next(iter(maps.values()))
    start = np.array([s.start for s in _box_of(first, instances)])
    margin = _margin(instances)
    regions = []
    for index, box in enumerate(ndimage.find_objects(instances.data.astype(np.int32)), start=1):
        low = np.maximum([s.start for s in box] - margin, start)
        high = np.minimum([s.stop for s in box] + margin, start + first.shape)
        if (high <= low).any():
            regions.append('deep-white-matter')
            continue
        here = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        there = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
        lesion = instances.data[here] == index
        local = {name: volume.data[there] for name, volume in maps.items()}
        regions.append(region_of(lesion, local, spacing=instances.spacing))
    return regions


def _box_of(part: Volume, grid: Volume) -> Box:
    """Where a part of a grid lies in it."""
    offset = np.linalg.solve(grid.affine[:3, :3], part.affine[:3, 3] - grid.affine[:3, 3])
    start = np.rint(offset).astype(int)
    return tuple(slice(int(s), int(s) + n) for s, n in zip(start, part.shape, strict=True))


def _cropped(volume: Volume, box: Box) -> Volume:
    affine = shift_affine(volume.affine, [s.start for s in box])
    return Volume(volume.data[box], affine, volume.contrast)


def region_of(lesion: np.ndarray, maps: dict[str, np.ndarray], *, spacing: np.ndarray) -> str:
    """The region of one lesion in the box around it; see :func:`assign_regions`."""
    if not lesion.any():
        return 'deep-white-matter'
    share = {name: float(values[lesion].mean()) for name, values in maps.items()}
    below = share['cerebellum'] + share['brainstem']
    if below > sum(share.values()) - below:
        return 'infratentorial'
    near = ndimage.distance_transform_edt(~lesion, sampling=spacing) <= LIMIT
    near |= ndimage.binary_dilation(lesion)  # the next slice, however thick
    for name, region in (('ventricles', 'periventricular'), ('cortex', 'juxtacortical')):
        if near[maps[name] >= EVEN].any():
            return region
    return 'deep-white-matter'


def methods() -> str:
    """The methods sentence."""
    return (
        'Each lesion was assigned to a region (infratentorial, periventricular, juxtacortical or '
        'deep white matter [@thompson2018; @filippi2019]) with a probabilistic atlas made from '
        '18 label maps [@billot2023] and resampled to the image with that transform; a lesion '
        f'within {NEAR:g} mm of ventricles or cortex counted as adjacent. '
        'Ventricles were the fluid connected to those of the atlas, or, where the image shows '
        'none, those of the atlas.'
    )
