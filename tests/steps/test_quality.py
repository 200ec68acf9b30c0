"""Unusable images are refused, small faults mended."""

from __future__ import annotations

import numpy as np
import pytest

from ssl2_bids.errors import DataError
from ssl2_bids.steps.quality import check_brain_volume, check_image
from ssl2_bids.volume import Volume

GRID = np.diag([4.0, 4.0, 4.0, 1.0])


def random_image() -> np.ndarray:
    return np.random.default_rng(0).random((40, 40, 40)).astype(np.float32)


def test_few_bad_voxels_are_mended_and_told():
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
