"""Robust distances and what stands out by them."""

from __future__ import annotations

import numpy as np
import pytest

from ssl2_bids.metrics.cohort import outliers, representatives, robust_z


def test_robust_z_against_its_definition():
    values = np.array([1.0, 2, 3, 4, 5])
    assert robust_z(values) == pytest.approx(0.6745 * (values - 3) / 1.0)
    mostly = [5.0] * 9 + [15.0]
    assert robust_z(mostly)[-1] == pytest.approx(10 / (1.253314 * 1.0))
    assert not robust_z([7.0] * 8).any()
    assert not robust_z([1.0, 1000.0]).any()


def test_the_odd_one_stands_out_and_zero_does_not():
    volumes = [10.0, 11.0, 9.0, 10.5, 9.5, 0.0, None, 900.0]
    found = outliers(volumes)
    assert list(found) == [7]
    assert found[7] > 3.5


def test_representatives_stand_in_the_middle_of_equal_parts():
    volumes = {f'p{n:02d}': float((7 * n) % 12) for n in range(12)}
    found = representatives(volumes, 3)
    assert [volumes[name] for name in found] == [2, 6, 10]
    assert representatives(volumes, 12) == sorted(volumes, key=volumes.__getitem__)
    assert representatives({'b': 0.0, 'a': 0.0}, 1) == ['b']  # the upper one of two in the middle
    for count in (0, 13):
        with pytest.raises(ValueError, match='cannot be selected'):
            representatives(volumes, count)
