import math

import numpy as np
import pytest

from ssl2_bids.metrics.voxelwise import (
    absolute_volume_error,
    compare,
    dice,
    hausdorff_95,
    log_volume_ratio,
    ppv,
    sensitivity,
    surface_dice,
    volume_error,
)

SHAPE = (12, 14, 16)


def box(*ranges: tuple[int, int], shape=SHAPE) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in ranges)] = True
    return mask


EMPTY = np.zeros(SHAPE, bool)
CUBE = box((2, 6), (2, 6), (2, 6))  # 64 voxels
SHIFTED = box((3, 7), (2, 6), (2, 6))  # 48 of them shared
SMALL = box((2, 4), (2, 6), (2, 6))  # the half of the cube


def test_overlap_of_a_shifted_cube():
    assert dice(CUBE, SHIFTED) == 2 * 48 / 128
    assert sensitivity(CUBE, SHIFTED) == ppv(CUBE, SHIFTED) == 48 / 64


def test_roles_are_not_swapped():
    assert sensitivity(CUBE, SMALL) == 0.5
    assert ppv(CUBE, SMALL) == 1
    assert volume_error(CUBE, SMALL) == -0.5
    assert volume_error(SMALL, CUBE) == 1
    assert absolute_volume_error(CUBE, SMALL) == 0.5
    assert log_volume_ratio(CUBE, SMALL) == pytest.approx(-math.log(2))


def test_both_empty():
    scores = compare(EMPTY, EMPTY, spacing=(1, 1, 1))
    assert (scores.dice, scores.ppv, scores.sensitivity) == (1, 1, 1)
    assert (scores.hausdorff_95, scores.surface_dice) == (0, 1)
    assert math.isnan(scores.volume_error)
    assert math.isnan(scores.log_volume_ratio)
    assert not scores.one_empty


def test_reference_empty():
    scores = compare(EMPTY, CUBE, spacing=(1, 2, 3))
    assert (scores.dice, scores.ppv, scores.surface_dice) == (0, 0, 0)
    assert math.isnan(scores.sensitivity)
    assert math.isnan(scores.absolute_volume_error)
    assert scores.hausdorff_95 == pytest.approx(math.hypot(12, 28, 48))
    assert scores.one_empty


def test_prediction_empty():
    scores = compare(CUBE, EMPTY, spacing=(1, 2, 3))
    assert (scores.dice, scores.sensitivity, scores.surface_dice) == (0, 0, 0)
    assert math.isnan(scores.ppv)
    assert (scores.volume_error, scores.absolute_volume_error) == (-1, 1)
    assert scores.log_volume_ratio == -math.inf
    assert scores.hausdorff_95 == pytest.approx(math.hypot(12, 28, 48))
    assert scores.one_empty


def test_hausdorff_is_in_millimetres_along_each_axis():
    point = box((5, 6), (5, 6), (5, 6))
    for axis, spacing in enumerate((0.5, 2.0, 3.0)):
        moved = np.roll(point, 2, axis=axis)
        assert hausdorff_95(point, moved, (0.5, 2.0, 3.0)) == pytest.approx(2 * spacing)


def test_hausdorff_takes_the_worse_direction_and_ignores_five_percent():
    # 39 surface voxels agree; one predicted voxel lies 10 voxels off: 2.5 % of the prediction
    line = box((0, 39), (0, 1), (0, 1), shape=(60, 3, 3))
    stray = line.copy()
    stray[48, 0, 0] = True
    assert hausdorff_95(line, stray, (1, 1, 1)) == 0
    # 9 stray voxels of 48 show, though every reference voxel is met exactly
    stray[45:54, 0, 0] = True
    expected = np.percentile([0] * 39 + list(range(7, 16)), 95)
    assert hausdorff_95(line, stray, (1, 1, 1)) == pytest.approx(expected)
    assert hausdorff_95(stray, line, (1, 1, 1)) == pytest.approx(expected)


def test_surface_is_that_of_the_mask_and_not_its_inside():
    big = box((1, 11), (1, 11), (1, 11))  # surface voxels: 1000 - 512
    hollow = big & ~box((2, 10), (2, 10), (2, 10))
    # the surface of the hollow box is the same, and nothing inside counts
    assert surface_dice(big, hollow, (1, 1, 1), tolerance=0.5) == 1
    assert dice(big, hollow) < 0.7


def test_surface_dice_by_tolerance():
    a = box((2, 3), (2, 8), (2, 8))  # a sheet, all surface
    b = np.roll(a, 2, axis=0)
    assert surface_dice(a, b, (0.5, 1, 1)) == 1  # 1 mm apart: within the tolerance
    assert surface_dice(a, b, (0.51, 1, 1)) == 0
    assert surface_dice(a, b, (1, 1, 1), tolerance=2) == 1


def test_mask_at_the_image_border_has_a_surface_there():
    whole = np.ones((4, 4, 4), bool)
    core = box((1, 3), (1, 3), (1, 3), shape=(4, 4, 4))
    assert hausdorff_95(whole, core, (1, 1, 1)) == pytest.approx(math.sqrt(3))


def test_compare_volumes_and_agreement_with_the_single_functions():
    scores = compare(CUBE, SHIFTED, spacing=(0.5, 1, 2))
    assert scores.reference_volume == scores.prediction_volume == 64
    assert scores.hausdorff_95 == hausdorff_95(CUBE, SHIFTED, (0.5, 1, 2))
    assert scores.surface_dice == surface_dice(CUBE, SHIFTED, (0.5, 1, 2))


def test_compare_within_an_annotated_extent_only():
    extent = box((0, 12), (0, 14), (2, 4))  # two of the four slices of the cube
    elsewhere = SHIFTED | box((8, 12), (8, 12), (8, 12))  # false, but outside the annotated extent
    scores = compare(CUBE, elsewhere, spacing=(1, 1, 1), extent=extent)
    assert scores.dice == 0.75
    assert scores.reference_volume == scores.prediction_volume == 32
    assert math.isnan(scores.hausdorff_95)
    assert math.isnan(scores.surface_dice)


def test_a_whole_extent_changes_nothing():
    whole = np.ones(SHAPE, np.uint8)
    assert compare(CUBE, SHIFTED, spacing=(1, 1, 1), extent=whole) == compare(
        CUBE.astype(np.uint8), SHIFTED.astype(np.uint8), spacing=(1, 1, 1)
    )


def test_shapes_must_agree():
    with pytest.raises(ValueError, match='shapes differ'):
        compare(CUBE, CUBE[1:], spacing=(1, 1, 1))
