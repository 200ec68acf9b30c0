"""The ventricles of a person: wider than those of the atlas, bright or dark, or not seen."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ssl2_bids.steps.regions import assign_regions, find_regions, region_maps
from ssl2_bids.steps.ventricles import find_ventricles
from ssl2_bids.volume import Volume
from tests.steps.test_regions import grid_in_template, with_balls

WIDER = 6.0  # mm
BESIDE = (-25, 14, 30)  # in white matter, more than 3 mm from the ventricles of the atlas
FAR = (-34, 42, 14)  # at the cortex
IN = np.eye(4)


@pytest.fixture(scope='module')
def head() -> dict[str, Volume]:
    """The atlas as a head with wide ventricles, and with a sulcus from these to the outside."""
    grid = grid_in_template()
    maps = region_maps(grid, IN)
    first = maps['cortex']
    brain = sum(volume.data for volume in maps.values()) > 0.3
    to_ventricles = ndimage.distance_transform_edt(
        maps['ventricles'].data < 0.5, sampling=first.spacing
    )
    below = maps['cerebellum'].data + maps['brainstem'].data > 0.5
    wide = (to_ventricles <= WIDER) & (maps['cortex'].data < 0.5) & brain & ~below
    image = 100.0 - 40.0 * maps['cortex'].data
    image[wide] = 20
    middle = first.shape[1] // 2
    image[:, middle, :] = 20
    noise = np.random.default_rng(0).normal(0, 4, image.shape)
    return {
        'image': first.with_data(((image + noise) * brain).astype(np.float32)),
        'brain': first.with_data(brain.astype(np.uint8)),
        'wide': first.with_data(wide),
        'none': first.with_data(np.zeros(first.shape, np.uint16)),
        **maps,
    }


def maps_of(head: dict[str, Volume]) -> dict[str, Volume]:
    return {name: head[name] for name in region_maps(grid_in_template((9.0, 9.0, 9.0)), IN)}


@pytest.mark.parametrize('sign', [1, -1])
def test_wide_ventricles_are_found_without_sulci(head, sign):
    image = head['image'].with_data(sign * head['image'].data)
    found = find_ventricles(image, head['brain'], head['none'], maps_of(head))
    assert found is not None
    mine, true = found.data > 0, head['wide'].data
    atlas = head['ventricles'].data >= 0.5
    dice = 2 * (mine & true).sum() / (mine.sum() + true.sum())
    assert dice > 0.9
    assert dice > 2 * (atlas & true).sum() / (atlas.sum() + true.sum()) + 0.2
    assert (mine & ~true).sum() < 0.02 * mine.sum()


def test_a_lesion_beside_wide_ventricles_is_periventricular(head):
    lesions = with_balls(head['none'], [BESIDE, FAR], IN)
    maps = maps_of(head)
    assert assign_regions(lesions, maps) == ['deep-white-matter', 'juxtacortical']
    found = find_regions(lesions, IN, image=head['image'], brain_mask=head['brain'])
    assert found == ['periventricular', 'juxtacortical']


def test_where_the_image_shows_no_fluid_the_atlas_decides(head):
    noise = np.random.default_rng(1).normal(100, 10, head['image'].shape)
    image = head['image'].with_data(noise.astype(np.float32))
    assert find_ventricles(image, head['brain'], head['none'], maps_of(head)) is None
    lesions = with_balls(head['none'], [BESIDE, FAR], IN)
    found = find_regions(lesions, IN, image=image, brain_mask=head['brain'])
    assert found == ['deep-white-matter', 'juxtacortical']
    assert find_regions(head['none'], IN, image=image, brain_mask=head['brain']) == []


def test_a_head_outside_the_atlas_has_no_ventricles():
    far = grid_in_template((2.0, 2.0, 2.0))
    far.affine[:3, 3] += 1000
    lesions = far.data.copy()
    lesions[5, 5, 5] = 1
    found = find_regions(far.with_data(lesions), IN, image=far, brain_mask=far)
    assert found == ['deep-white-matter']
