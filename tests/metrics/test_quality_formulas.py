"""Measures of an image's quality on numbers whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from ssl2_bids.metrics import image_quality as metrics

COUNT = 400_000


def drawn(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_statistics_of_normal_values():
    found = metrics.summarise(drawn().normal(700, 20, COUNT).astype(np.float32))
    assert sorted(found) == sorted(metrics.STATISTICS)
    assert found['mean'] == pytest.approx(700, abs=0.2)
    assert found['mad'] == pytest.approx(20, rel=0.01)
    assert found['stdv'] == pytest.approx(20, rel=0.01)
    assert found['k'] == pytest.approx(0, abs=0.03)
    assert found['p95'] - found['p05'] == pytest.approx(2 * 1.645 * 20, rel=0.01)
    assert metrics.summarise(np.empty(0)) == {}
    assert 'k' not in metrics.summarise(np.ones(5))


def test_signal_over_noise_within_a_tissue_and_against_air():
    tissue = metrics.summarise(drawn().normal(1000, 40, COUNT))
    assert metrics.snr(tissue['median'], tissue['stdv'], COUNT) == pytest.approx(25, rel=0.01)
    air = metrics.summarise(drawn(1).rayleigh(40, COUNT))
    # MRIQC takes the scaled MAD of air, which is 2.6 % above the deviation of Rayleigh values
    assert metrics.snr_dietrich(1000, air) == pytest.approx(25, rel=0.05)
    quiet = metrics.summarise(drawn(1).rayleigh(0.4, COUNT))
    assert metrics.snr_dietrich(1000, quiet) == pytest.approx(2500, rel=0.01)
    assert metrics.snr_dietrich(1000, metrics.summarise(np.zeros(9))) is None
    assert metrics.snr(1000, 0.0, 9) is None
    assert metrics.snr(1000, 1.0, 1) is None


def test_contrast_over_noise_and_joint_variation():
    white = metrics.summarise(drawn(0).normal(1000, 30, COUNT))
    grey = metrics.summarise(drawn(1).normal(700, 40, COUNT))
    assert metrics.cnr(white, grey, 0.0) == pytest.approx(300 / 50, rel=0.01)
    assert metrics.cnr(white, grey, 120.0) == pytest.approx(300 / 130, rel=0.01)
    assert metrics.cjv(white, grey) == pytest.approx(70 / 300, rel=0.01)
    shifted = [metrics.summarise(drawn(n).normal(m, s, COUNT) * 3 - 500)
               for n, m, s in ((0, 1000, 30), (1, 700, 40))]  # fmt: skip
    assert metrics.cjv(*shifted) == pytest.approx(metrics.cjv(white, grey))
    assert metrics.cjv(white, white) is None


def test_entropy_is_0_of_one_voxel_and_1_of_an_even_image():
    one = np.zeros((20, 20, 20))
    one[3, 4, 5] = 9
    assert metrics.efc(one, one.size) == pytest.approx(0, abs=1e-9)
    assert metrics.efc(np.full(8000, 3.0), 8000) == pytest.approx(1)
    assert metrics.efc(np.zeros(9), 9) is None


def test_entropy_of_a_part_is_that_of_the_whole():
    image = drawn().gamma(1.5, 100, (60, 60, 60))
    whole = metrics.efc(image, image.size)
    assert 0 < whole < 1
    assert metrics.efc(image[::2, ::2, ::2], image.size) == pytest.approx(whole, rel=0.005)


def test_energy_of_head_and_background():
    assert metrics.fber(np.full(9, 30.0), np.array([1.0, 2.0, 9.0])) == pytest.approx(225)
    assert metrics.fber(np.ones(9), np.zeros(9)) is None
    assert metrics.fber(np.ones(9), np.empty(0)) is None


@pytest.mark.parametrize('shape', [(60, 50, 40), (4, 60, 50, 3)])
def test_noise_from_neighbours_whatever_the_field(shape):
    slope = np.linspace(500, 1500, shape[-3])[:, None, None]
    image = slope + drawn().normal(0, 25, shape)
    inside = np.ones(shape, bool)
    assert metrics.noise_of_residuals(image, inside) == pytest.approx(25, rel=0.02)
    assert metrics.noise_of_residuals(np.ones(shape), inside) is None
    assert metrics.noise_of_residuals(image, ~inside) is None
