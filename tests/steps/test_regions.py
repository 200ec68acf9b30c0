"""Regions of lesions: the packaged atlas, its way to an image, and the rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssl2_bids.atlas import read_atlas
from ssl2_bids.steps.lesions import REGIONS, find_lesions, label_instances
from ssl2_bids.steps.regions import assign_regions, methods, part_around, region_maps
from ssl2_bids.volume import Volume, read

# MNI coordinates in mm; a ball of 3 mm there
PLACES = {
    (-14, -20, 24): 'periventricular',
    (16, 24, 10): 'periventricular',
    (-26, -58, 10): 'periventricular',
    (0, -30, -32): 'infratentorial',
    (24, -60, -38): 'infratentorial',
    (-12, -46, -30): 'infratentorial',
    (42, -36, 50): 'juxtacortical',
    (-34, 42, 14): 'juxtacortical',
    (26, -12, 36): 'deep-white-matter',
    (-25, 14, 30): 'deep-white-matter',
}


def grid_in_template(spacing: tuple[float, ...] = (1.5, 1.5, 1.5)) -> Volume:
    """An empty image that covers the template."""
    shape = tuple(int(n / s) for n, s in zip((180, 216, 180), spacing, strict=True))
    affine = np.diag([-spacing[0], spacing[1], spacing[2], 1.0])
    affine[:3, 3] = (90, -126, -72)
    return Volume(np.zeros(shape, np.uint16), affine)


def with_balls(grid: Volume, places: list, to_grid: np.ndarray, radius: float = 3) -> Volume:
    """Instances 1..n: balls about template coordinates, brought to the grid's space."""
    data = grid.data.copy()
    indices = np.moveaxis(np.indices(grid.shape), 0, -1)
    positions = indices @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    for index, place in enumerate(places, start=1):
        centre = to_grid[:3, :3] @ np.array(place) + to_grid[:3, 3]
        data[np.linalg.norm(positions - centre, axis=-1) <= radius] = index
    return grid.with_data(data)


def test_atlas_is_a_set_of_probabilities():
    atlas = read_atlas()
    assert {'ventricles', 'cortex', 'cerebellum', 'brainstem', 'white-matter'} <= set(atlas)
    stack = np.stack([volume.data for volume in atlas.values()])
    assert stack.min() == 0
    assert stack.max() == 1
    assert stack.sum(axis=0).max() <= 1 + len(atlas) * 0.5 / 255
    for volume in atlas.values():
        assert np.array_equal(volume.data, volume.data[::-1])
    sizes = {name: v.data.sum() * v.voxel_volume / 1000 for name, v in atlas.items()}
    assert 20 < sizes['ventricles'] < 90  # mL, at the size of the template
    assert 120 < sizes['cerebellum'] < 250


def test_structures_lie_where_they_should():
    atlas = read_atlas()

    def at(name: str, *place: float) -> float:
        volume = atlas[name]
        index = np.rint(np.linalg.solve(volume.affine, [*place, 1.0]))[:3].astype(int)
        return float(volume.data[tuple(index)])

    assert at('ventricles', -10, 14, 12) > 0.5
    assert at('ventricles', 24, -52, 8) > 0.3
    assert at('brainstem', 0, -28, -34) > 0.9
    assert at('cerebellum', -24, -66, -38) > 0.9
    assert at('white-matter', 26, -10, 36) > 0.9
    assert at('deep-grey-matter', 14, -20, 8) > 0.8
    assert at('cortex', 0, 50, 0) + at('cortex', -4, 50, 0) > 0.5


def test_known_places_get_their_regions():
    instances = with_balls(grid_in_template(), list(PLACES), np.eye(4))
    maps = region_maps(instances, np.eye(4))
    assert assign_regions(instances, maps) == list(PLACES.values())
    assert set(PLACES.values()) == set(REGIONS)


def test_the_transform_and_thick_oblique_slices_do_not_matter():
    to_reference = np.diag([0.85, 0.8, 0.9, 1.0])
    angle = np.radians(15)
    to_reference[1:3, 1:3] @= [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    to_reference[:3, 3] = (5, -12, 20)
    grid = grid_in_template((0.7, 0.7, 3.0))
    instances = with_balls(grid, list(PLACES), to_reference)
    maps = region_maps(instances, to_reference)
    found = assign_regions(instances, maps)
    agree = [a == b for a, b in zip(found, PLACES.values(), strict=True)]
    assert sum(agree) >= len(PLACES) - 1


def test_three_millimetres_count_as_near():
    grid = Volume(np.zeros((30, 9, 9), np.uint16), np.eye(4))
    names = ('ventricles', 'cortex', 'cerebellum', 'brainstem', 'white-matter')
    empty = np.zeros(grid.shape, np.float32)
    maps = {name: grid.with_data(empty.copy()) for name in names}
    maps['ventricles'].data[0:5] = 1
    maps['cortex'].data[25:30] = 1
    data = grid.data.copy()
    places = {7: 'periventricular', 8: 'deep-white-matter', 21: 'deep-white-matter'}
    for index, place in enumerate(places, start=1):
        data[place, index * 2, 4] = index
    data[22, 8, 4] = 4
    found = assign_regions(grid.with_data(data), maps)
    assert found == [*places.values(), 'juxtacortical']


def test_touching_counts_however_thick_the_slices():
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    grid = Volume(np.zeros((5, 5, 6), np.uint16), affine)
    names = ('ventricles', 'cortex', 'cerebellum', 'brainstem')
    maps = {name: grid.with_data(np.zeros(grid.shape, np.float32)) for name in names}
    maps['ventricles'].data[:, :, 2] = 1
    data = grid.data.copy()
    data[2, 2, 3] = 1
    assert assign_regions(grid.with_data(data), maps) == ['periventricular']
    data[2, 2, 3], data[2, 2, 4] = 0, 1
    assert assign_regions(grid.with_data(data), maps) == ['deep-white-matter']


def test_outside_the_atlas_nothing_breaks():
    far = grid_in_template((2.0, 2.0, 2.0))
    far.affine[:3, 3] += 1000
    data = far.data.copy()
    data[5, 5, 5] = 1
    maps = region_maps(far, np.eye(4))
    assert assign_regions(far.with_data(data), maps) == ['deep-white-matter']
    assert assign_regions(far, maps) == []


def test_the_part_around_lesions_decides_as_the_whole_grid():
    grid = grid_in_template()
    behind = [place for place in PLACES if place[1] < 0]
    lesions = with_balls(grid, behind, np.eye(4))
    whole = region_maps(lesions, np.eye(4))
    part = region_maps(lesions, np.eye(4), part=part_around(lesions))
    assert part['cortex'].data.size < 0.5 * whole['cortex'].data.size
    found = assign_regions(lesions, part)
    assert found == assign_regions(lesions, whole) == [PLACES[place] for place in behind]
    empty = region_maps(grid, np.eye(4), part=part_around(grid))
    assert assign_regions(grid, empty) == []


@pytest.mark.slow
def test_patients_have_lesions_where_patients_have_them(shared_data: Path):
    counts, volumes = dict.fromkeys(REGIONS, 0), dict.fromkeys(REGIONS, 0.0)
    for path in sorted((shared_data / 'lesion-masks').glob('*.nii.gz')):
        found = find_lesions(read(path), threshold=0.5, minimum_volume=3)
        names = assign_regions(found.instances, region_maps(found.instances, np.eye(4)))
        for name, lesion in zip(names, found.table, strict=True):
            counts[name] += 1
            volumes[name] += lesion.volume_mm3
    assert 0.6 < volumes['periventricular'] / sum(volumes.values()) < 0.9
    assert 0.05 < counts['infratentorial'] / sum(counts.values()) < 0.10
    assert min(counts.values()) > 0


def test_a_real_mask_has_all_kinds(shared_data: Path):
    path = shared_data / 'lesion-masks' / 'lj12_space-MNI152_label-lesion_mask.nii.gz'
    mask = read(path)
    labels = label_instances(mask.data, voxel_volume=1.0, minimum_volume=3)
    found = assign_regions(mask.with_data(labels), region_maps(mask, np.eye(4)))
    assert len(found) == labels.max()
    assert set(found) == set(REGIONS)
    assert found[0] == 'periventricular'


def test_methods_cite_the_definitions():
    assert '[@thompson2018; @filippi2019]' in methods()


def test_thick_slices_make_nothing_near_within_a_slice():
    grid = Volume(np.zeros((30, 5, 5), np.uint16), np.diag([0.5, 0.5, 5.0, 1.0]))
    names = ('ventricles', 'cortex', 'cerebellum', 'brainstem')
    maps = {name: grid.with_data(np.zeros(grid.shape, np.float32)) for name in names}
    maps['ventricles'].data[:5] = 1
    for place, region in ((10, 'periventricular'), (13, 'deep-white-matter')):  # 3 and 4.5 mm
        data = grid.data.copy()
        data[place, 2, 2] = 1
        assert assign_regions(grid.with_data(data), maps) == [region]
