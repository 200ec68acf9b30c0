"""Lesions on the template: those that resampling the whole mask gives, from any grid."""

from __future__ import annotations

import numpy as np
import pytest

from ssl2_bids.bids.outputs import UnitNames
from ssl2_bids.files import write_text
from ssl2_bids.itk import to_itk
from ssl2_bids.settings import ATLAS_SPACE
from ssl2_bids.volume import Volume, resample, write
from ssl2_bids.workflows.cohort.frequency import lesions_on_template

SHAPE = (90, 110, 90)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
AFFINE[:3, 3] = (-90, -126, -72)


def turned(degrees: float, scale: float, shift: float) -> np.ndarray:
    matrix = np.eye(4)
    angle = np.deg2rad(degrees)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, :3] *= scale
    matrix[:3, 3] = shift
    return matrix


def add_mask(root, spacing, transform, *, session=None, seed=0, density=0.002):
    """A mask of scattered voxels and of larger blocks, and its transform."""
    names = UnitNames(root, '01', session, 'FLAIR', '')
    random = np.random.default_rng(seed)
    shape = tuple(int(150 / edge) for edge in spacing)
    data = (random.random(shape) < density).astype(np.uint8)
    for _ in range(8):
        i, j, k = (int(random.integers(0, n - 2)) for n in shape)
        data[i : i + 5, j : j + 4, k : k + 3] = 1
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -75
    write(Volume(data, affine), names.path('anat.mask'), dtype=np.uint8)
    path = names.path('anat.transform', source='FLAIR', target=ATLAS_SPACE)
    write_text(path, to_itk(transform))
    return names, Volume(data, affine)


@pytest.mark.parametrize('spacing', [(0.7, 0.7, 0.7), (1, 1, 1), (3, 3, 3), (0.9, 0.9, 8)])
@pytest.mark.parametrize('transform', [np.eye(4), turned(17, 1.08, 6), turned(-40, 0.8, -30)])
def test_the_same_voxels_as_by_resampling_everything(tmp_path, spacing, transform):
    names, mask = add_mask(tmp_path, spacing, transform)
    found = lesions_on_template(SHAPE, AFFINE, [names])
    whole = resample(mask, AFFINE, SHAPE, transform=transform).data >= 0.5
    assert whole.any()
    assert np.array_equal(found.voxels, np.flatnonzero(whole))
    assert found.readable == (names,)


def test_lesions_of_all_sessions_count_once(tmp_path):
    one, _ = add_mask(tmp_path, (2, 2, 2), np.eye(4), session='1', seed=1)
    two, _ = add_mask(tmp_path, (2, 2, 2), np.eye(4), session='2', seed=2)
    alone = [lesions_on_template(SHAPE, AFFINE, [names]).voxels for names in (one, two)]
    both = lesions_on_template(SHAPE, AFFINE, [one, two]).voxels
    assert np.array_equal(both, np.union1d(*alone))


def test_no_lesion_and_no_file(tmp_path):
    names, mask = add_mask(tmp_path, (2, 2, 2), np.eye(4))
    write(mask.with_data(np.zeros_like(mask.data)), names.path('anat.mask'), dtype=np.uint8)
    lost = UnitNames(tmp_path, '02', None, 'FLAIR', '')
    found = lesions_on_template(SHAPE, AFFINE, [names, lost])
    assert not len(found.voxels)
    assert found.readable == (names,)
    ((unread, reason),) = found.unreadable
    assert unread == lost
    assert 'sub-02' in reason
