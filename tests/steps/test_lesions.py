"""From probability to lesions: connectivity, sizes, order and sums."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ssl2_bids.errors import DataError
from ssl2_bids.steps.lesions import (
    REGIONS,
    doubts,
    find_lesions,
    label_instances,
    methods,
    volumes_by_region,
    with_regions,
)
from ssl2_bids.volume import Volume


@pytest.fixture
def probability() -> Volume:
    """Three lesions of 8, 4 and 1 voxels of 0.5 x 0.5 x 2 mm, on axes that run left and back."""
    data = np.full((12, 12, 8), 0.1, np.float32)
    data[1:3, 1:3, 1:3] = 0.9
    data[6, 6, 2:6] = [0.5, 0.6, 0.7, 0.8]
    data[10, 10, 6] = 1.0
    affine = np.array([[-0.5, 0, 0, 10], [0, -0.5, 0, 20], [0, 0, 2, -5], [0, 0, 0, 1.0]])
    return Volume(data, affine, 'FLAIR')


def test_lesions_are_numbered_by_size_and_described_in_millimetres(probability):
    lesions = find_lesions(probability, threshold=0.5, minimum_volume=1.0)
    assert [lesion.index for lesion in lesions.table] == [1, 2]
    large, small = lesions.table
    assert (large.voxel_count, small.voxel_count) == (8, 4)
    assert large.volume_mm3 == pytest.approx(4.0)
    assert (large.x, large.y, large.z) == pytest.approx((9.25, 19.25, -2.0))
    assert small.probability_mean == pytest.approx(0.65)
    assert small.probability_max == pytest.approx(0.8)
    assert large.region is None
    assert lesions.instances.data.dtype == np.uint16
    assert lesions.mask.data.dtype == np.uint8
    assert lesions.mask.data.sum() == 12
    assert lesions.instances.data[10, 10, 6] == 0
    assert np.array_equal(lesions.instances.affine, probability.affine)


def test_threshold_is_included_and_nan_is_no_lesion(probability):
    data = probability.data.copy()
    data[1, 1, 1] = np.nan
    lesions = find_lesions(probability.with_data(data), threshold=0.5, minimum_volume=0)
    assert [lesion.voxel_count for lesion in lesions.table] == [7, 4, 1]
    higher = find_lesions(probability, threshold=0.55, minimum_volume=0)
    assert [lesion.voxel_count for lesion in higher.table] == [8, 3, 1]


def test_minimum_is_a_volume_not_a_count(probability):
    kept = find_lesions(probability, threshold=0.5, minimum_volume=2.0)
    assert len(kept.table) == 2
    kept = find_lesions(probability, threshold=0.5, minimum_volume=2.01)
    assert len(kept.table) == 1


def test_minimum_forgives_rounding():
    mask = np.zeros((9, 9, 9), bool)
    mask[1:4, 1:4, 1:4] = True
    voxel = 0.7**3
    assert label_instances(mask, voxel_volume=voxel, minimum_volume=27 * voxel + 1e-9).max() == 1


def test_corners_connect():
    mask = np.zeros((4, 4, 4))
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 0, 2] = 1
    labels = label_instances(mask, voxel_volume=1.0, minimum_volume=3.0)
    assert labels.max() == 1
    assert (labels > 0).sum() == 3


def test_equal_sizes_come_in_the_order_of_their_first_voxel():
    mask = np.zeros((20, 5, 5))
    for place in (1, 5, 9, 13):
        mask[place, 2, 2] = 1
    mask[17:19, 2, 2] = 1
    labels = label_instances(mask, voxel_volume=1.0, minimum_volume=0)
    assert [labels[i, 2, 2] for i in (1, 5, 9, 13, 17)] == [2, 3, 4, 5, 1]


def test_first_voxel_counts_where_a_later_branch_joins():
    mask = np.zeros((3, 9, 1))
    mask[1, 0:3, 0] = 1
    mask[0, 5, 0] = mask[1, 6, 0] = mask[2, 5, 0] = 1
    labels = label_instances(mask, voxel_volume=1.0, minimum_volume=0)
    assert labels[0, 5, 0] == 1
    assert labels[1, 0, 0] == 2


def test_nothing_found_is_an_empty_table(probability):
    lesions = find_lesions(probability, threshold=2.0, minimum_volume=3.0)
    assert lesions.table == ()
    assert lesions.instances.data.max() == 0
    rows = volumes_by_region(lesions.table, 1_000_000.0)
    assert [(r.name, r.lesion_count, r.volume_mm3, r.volume_largest_mm3) for r in rows] == [
        (name, 0, 0.0, 0.0) for name in (*REGIONS, 'all')
    ]


def test_noise_is_refused():
    data = np.zeros((90, 90, 90), np.float32)
    data[::2, ::2, ::2] = 1
    with pytest.raises(DataError, match='91125 lesions'):
        find_lesions(Volume(data, np.eye(4)), threshold=0.5, minimum_volume=0)


def test_sums_by_region(probability):
    lesions = find_lesions(probability, threshold=0.5, minimum_volume=0)
    placed = with_regions(lesions, ['periventricular', 'infratentorial', 'periventricular'])
    rows = {row.name: row for row in volumes_by_region(placed.table, 1000.0)}
    assert list(rows) == [*REGIONS, 'all']
    assert rows['periventricular'].lesion_count == 2
    assert rows['periventricular'].volume_mm3 == pytest.approx(4.5)
    assert rows['periventricular'].volume_largest_mm3 == pytest.approx(4.0)
    assert rows['juxtacortical'].volume_mm3 == 0
    assert rows['all'].lesion_load == pytest.approx(6.5 / 1000)
    assert sum(rows[name].volume_mm3 for name in REGIONS) == pytest.approx(6.5)


def test_unknown_regions_are_not_zero(probability):
    lesions = find_lesions(probability, threshold=0.5, minimum_volume=0)
    rows = volumes_by_region(lesions.table, 0.0)
    assert all(row.lesion_count is None and row.volume_mm3 is None for row in rows[:-1])
    assert rows[-1].lesion_count == 3
    assert rows[-1].lesion_load is None


def test_regions_must_match_the_lesions(probability):
    lesions = find_lesions(probability, threshold=0.5, minimum_volume=0)
    with pytest.raises(ValueError, match='zip'):
        with_regions(lesions, ['periventricular'])
    assert replace(lesions.table[0], region='juxtacortical').region == 'juxtacortical'


def test_methods_give_the_numbers():
    assert '0.45' in methods(0.45, 3.0)
    assert '3 mm³' in methods(0.45, 3.0)


def test_a_load_that_cannot_be_is_doubted():
    (warning,) = doubts(0.79)
    assert warning.startswith('79% of the brain')
    assert doubts(0.12) == doubts(None) == []
