"""Unusable images are refused, small faults repaired."""

from __future__ import annotations

import numpy as np
import pytest

from ssl2_bids.errors import DataError
from ssl2_bids.steps.quality import check_brain_volume, check_image, zero_background
from ssl2_bids.volume import Volume

GRID = np.diag([4.0, 4.0, 4.0, 1.0])


def random_image() -> np.ndarray:
    return np.random.default_rng(0).random((40, 40, 40)).astype(np.float32)


def test_few_bad_voxels_are_repaired_and_reported():
    data = random_image()
    data[0, 0, :3] = [np.nan, np.inf, -np.inf]
    image, warnings = check_image(Volume(data, GRID))
    assert np.isfinite(image.data).all()
    assert warnings == ['3 voxels that are not finite were set to 0']


@pytest.mark.parametrize(
    ('data', 'words'),
    [
        (np.full((40, 40, 40), np.nan, np.float32), 'not finite'),
        (np.full((40, 40, 40), 3, np.float32), 'constant'),
        (np.pad(np.full((36, 36, 36), 7, np.float32), 2), 'is 0 or 7: this is a mask'),
        (np.random.default_rng(0).random((40, 40, 4)).astype(np.float32), 'too small'),
    ],
)
def test_unusable(data, words):
    with pytest.raises(DataError, match=words):
        check_image(Volume(data, GRID))


def test_brain_volumes():
    ball = np.zeros((40, 40, 40), np.uint8)
    with pytest.raises(DataError, match='no brain'):
        check_brain_volume(Volume(ball, GRID))
    ball[:20] = 1  # 2048 mL
    assert check_brain_volume(Volume(ball, GRID)) == []
    ball[:30] = 1
    assert 'outside' in check_brain_volume(Volume(ball, GRID))[0]


def stripped(background: float) -> np.ndarray:
    data = np.full((40, 40, 40), background, np.float32)
    data[10:30, 10:30, 10:30] = random_image()[10:30, 10:30, 10:30] * 50 + 20
    return data


@pytest.mark.parametrize('background', [1e-7, -1e-6, -0.0])
def test_what_is_zero_but_for_rounding_is_zero(background):
    image, _ = check_image(Volume(stripped(background), GRID))
    assert not image.data[:10].any()
    assert image.data[10:30, 10:30, 10:30].all()


@pytest.mark.parametrize('background', [-20.0, 12.5])
def test_a_constant_background_becomes_zero(background):
    found = zero_background(Volume(stripped(background), GRID)).data
    assert not found[:10].any()
    inside = np.s_[10:30, 10:30, 10:30]
    assert np.allclose(found[inside], stripped(0)[inside] - background, atol=1e-4)


@pytest.mark.parametrize('data', [random_image(), random_image() - 0.5, stripped(30.0)])
def test_no_other_background_is_touched(data):
    """Air with noise, and a constant that is not the lowest value."""
    assert np.array_equal(zero_background(Volume(data, GRID)).data, data)
