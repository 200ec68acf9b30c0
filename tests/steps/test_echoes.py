"""Several echoes become one image."""

from __future__ import annotations

import numpy as np
import pytest

from ssl2_bids.errors import DataError
from ssl2_bids.steps.echoes import fit_t2star, mean_of_echoes
from ssl2_bids.volume import Volume


def test_mean_and_grid():
    echoes = [Volume(np.full((3, 4, 5), v, np.float32), np.eye(4)) for v in (1, 2, 6)]
    assert np.array_equal(mean_of_echoes(echoes).data, np.full((3, 4, 5), 3, np.float32))
    with pytest.raises(DataError, match='echo 2'):
        mean_of_echoes([echoes[0], Volume(echoes[1].data, np.diag([2, 2, 2, 1.0]))])


def test_t2star_of_exponential_decay_is_found():
    rng = np.random.default_rng(0)
    times = [0.005, 0.012, 0.019, 0.026, 0.033]
    true = np.linspace(0.012, 0.060, 8000).reshape(20, 20, 20)
    true[:, :, 0] = np.inf  # air
    density = np.where(np.isinf(true), 0.0, 1000.0)
    echoes = [
        Volume(
            np.abs(density * np.exp(-t / true) + rng.normal(0, 2, true.shape)).astype(np.float32),
            np.eye(4),
        )
        for t in times
    ]
    found = fit_t2star(echoes, times).data
    inside = ~np.isinf(true)
    assert (found[~inside] == 0).all()
    assert np.median(np.abs(found[inside] / true[inside] - 1)) < 0.01
    assert np.percentile(np.abs(found[inside] / true[inside] - 1), 95) < 0.05


def test_the_unit_of_the_echoes_does_not_matter():
    times = [0.005, 0.015, 0.025]
    echoes = [
        Volume(np.full((3, 4, 5), 1e-6 * np.exp(-t / 0.030), np.float32), np.eye(4)) for t in times
    ]
    assert fit_t2star(echoes, times).data == pytest.approx(0.030, rel=1e-3)


def test_later_noise_weighs_little():
    """An echo that has sunk into the noise moves the fit less than one without weights."""
    times = [0.004, 0.010, 0.016, 0.050]
    values = [1000 * np.exp(-t / 0.010) for t in times[:3]] + [40.0]  # 6.7 and a floor of noise
    shape = (3, 4, 5)
    echoes = [Volume(np.full(shape, v, np.float32), np.eye(4)) for v in values]
    plain = -1 / np.polyfit(times, np.log(values), 1)[0]
    assert plain > 0.014
    assert fit_t2star(echoes, times).data == pytest.approx(0.010, rel=0.13)
