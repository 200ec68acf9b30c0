"""From a probability to lesions: threshold, minimum size, instances and their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from ssl2_bids.errors import DataError
from ssl2_bids.volume import Volume

NEIGHBOURS = np.ones((3, 3, 3), bool)  # 26: lesions that touch at a corner are one
REGIONS = ('periventricular', 'juxtacortical', 'infratentorial', 'deep-white-matter')
MAX_LESIONS = np.iinfo(np.uint16).max
MAX_LOAD = 0.2  # share of the brain; the 200 mL of very heavy loads stay below


@dataclass(frozen=True)
class Lesion:
    """One lesion.

    Attributes
    ----------
    index : its value in the instance map, from 1.
    voxel_count, volume_mm3 : its size.
    x, y, z : centre of mass in RAS+ mm.
    probability_mean, probability_max : over its voxels.
    region : one of ``REGIONS``, or None where it is not known.
    """

    index: int
    voxel_count: int
    volume_mm3: float
    x: float
    y: float
    z: float
    probability_mean: float
    probability_max: float
    region: str | None = None


@dataclass(frozen=True)
class Lesions:
    """All lesions of one image, on one grid.

    Attributes
    ----------
    probability : 0..1.
    mask : uint8, 0 or 1; only lesions of the minimum volume or more.
    instances : uint16, 0 or the index of the lesion, 1..n by descending volume.
    table : one entry per lesion, in the order of their indices.
    """

    probability: Volume
    mask: Volume
    instances: Volume
    table: tuple[Lesion, ...]


@dataclass(frozen=True)
class RegionVolume:
    """Lesions of a region; None: unknown.

    Attributes
    ----------
    name : one of ``REGIONS``, or ``all``.
    lesion_count : lesions in the region.
    volume_mm3, volume_largest_mm3 : of all of them and of the largest, 0 without lesions.
    brain_volume_mm3 : of the whole brain mask, the same in every row.
    lesion_load : lesion volume over brain volume.
    """

    name: str
    lesion_count: int | None
    volume_mm3: float | None
    volume_largest_mm3: float | None
    brain_volume_mm3: float
    lesion_load: float | None


def label_instances(mask: np.ndarray, *, voxel_volume: float, minimum_volume: float) -> np.ndarray:
    """Number the 26-connected components of a mask by descending volume.

    Parameters
    ----------
    mask : shape (I, J, K); above 0 is lesion.
    voxel_volume : mm^3.
    minimum_volume : mm^3; smaller components are removed.

    Returns
    -------
    int32 of the same shape, 0 or 1..n; of components of one size, the one whose first voxel
    comes first in memory has the lower number.
    """
    labels, count = ndimage.label(mask > 0, structure=NEIGHBOURS)
    inside = labels.ravel()[labels.ravel() > 0]
    _, first, sizes = np.unique(inside, return_index=True, return_counts=True)
    order = np.lexsort((first, -sizes))
    kept = order[sizes[order] * voxel_volume >= minimum_volume - 1e-6]
    numbers = np.zeros(count + 1, np.int32)
    numbers[kept + 1] = np.arange(1, len(kept) + 1)
    return numbers[labels]


def count_lesions(mask: np.ndarray) -> int:
    """The number of 26-connected components of a mask of shape (I, J, K), of any volume."""
    return int(ndimage.label(mask > 0, structure=NEIGHBOURS)[1])


def find_lesions(probability: Volume, *, threshold: float, minimum_volume: float) -> Lesions:
    """Find the lesions in a lesion probability.

    Parameters
    ----------
    probability : 0..1, any grid; NaN is no lesion.
    threshold : lowest probability of a lesion voxel.
    minimum_volume : mm^3; smaller lesions are removed.

    Raises
    ------
    DataError : more lesions than the instance map can number (65535).
    """
    voxel_volume = probability.voxel_volume
    instances = label_instances(
        probability.data >= threshold, voxel_volume=voxel_volume, minimum_volume=minimum_volume
    )
    count = int(instances.max(initial=0))
    if count > MAX_LESIONS:
        raise DataError(
            f'{count} lesions were found, more than the {MAX_LESIONS} that can be numbered: the '
            'probability is noise, or the threshold is unsuitable',
            advice='Look at the input images, or raise --threshold or --min-lesion-volume.',
        )
    return Lesions(
        probability,
        Volume((instances > 0).astype(np.uint8), probability.affine),
        Volume(instances.astype(np.uint16), probability.affine),
        describe(probability, instances),
    )


def describe(probability: Volume, instances: np.ndarray) -> tuple[Lesion, ...]:
    """The table of the lesions in an instance map, by index; numbers may be missing."""
    found = []
    for index, box in enumerate(ndimage.find_objects(instances), start=1):
        if box is None:
            continue
        inside = instances[box] == index
        values = probability.data[box][inside].astype(np.float64)
        corner = [s.start for s in box]
        centre = np.argwhere(inside).mean(axis=0) + corner
        x, y, z = probability.affine[:3, :3] @ centre + probability.affine[:3, 3]
        found.append(
            Lesion(
                index=index,
                voxel_count=len(values),
                volume_mm3=len(values) * probability.voxel_volume,
                x=float(x),
                y=float(y),
                z=float(z),
                probability_mean=float(values.mean()),
                probability_max=float(values.max()),
            )
        )
    return tuple(found)


def with_regions(lesions: Lesions, regions: Sequence[str]) -> Lesions:
    """The same lesions, the i-th in the i-th of ``regions``."""
    pairs = zip(lesions.table, regions, strict=True)
    return replace(
        lesions, table=tuple(replace(lesion, region=region) for lesion, region in pairs)
    )


def volumes_by_region(
    table: Sequence[Lesion], brain_volume_mm3: float
) -> tuple[RegionVolume, ...]:
    """One row per region and one for all lesions.

    If the region of a lesion is unknown, the values of all regions are unknown.
    """
    known = all(lesion.region in REGIONS for lesion in table)
    rows = []
    for name in REGIONS:
        if known:
            inside = [lesion for lesion in table if lesion.region == name]
            rows.append(sum_lesions(name, inside, brain_volume_mm3))
        else:
            rows.append(RegionVolume(name, None, None, None, brain_volume_mm3, None))
    return (*rows, sum_lesions('all', table, brain_volume_mm3))


def sum_lesions(name: str, lesions: Sequence[Lesion], brain_volume_mm3: float) -> RegionVolume:
    """The row of some lesions."""
    volumes = [lesion.volume_mm3 for lesion in lesions]
    total = float(sum(volumes))
    return RegionVolume(
        name,
        len(volumes),
        total,
        max(volumes, default=0.0),
        brain_volume_mm3,
        total / brain_volume_mm3 if brain_volume_mm3 > 0 else None,
    )


def is_plausible(load: float | None) -> bool:
    """Whether a share of the brain can be that of lesions; one that is not known can."""
    return load is None or load <= MAX_LOAD


def doubts(load: float | None) -> list[str]:
    """A warning where a segmentation marks more of the brain than lesions can be.

    Parameters
    ----------
    load : lesion volume over brain volume, or None where the latter is 0.
    """
    if load is None or is_plausible(load):
        return []
    return [
        f'{load:.0%} of the brain are segmented as lesions: more than lesions can be; check the '
        'images, the brain mask and the model before this mask is used'
    ]


def methods(threshold: float, minimum_volume: float) -> str:
    """The methods sentence for lesions found at a threshold with a minimum volume in mm^3."""
    return (
        f'Voxels with a lesion probability of at least {threshold:g} were classified as lesion, '
        f'and 26-connected components of at least {minimum_volume:g} mm³ were counted as lesions.'
    )
