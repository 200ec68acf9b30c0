"""Noise removal of MP2RAGE against closed forms and simulated noise."""

from __future__ import annotations

import numpy as np
import pytest

from ssl2_bids.errors import DataError
from ssl2_bids.steps import mp2rage
from ssl2_bids.volume import Volume

INV1 = np.array([0.01287, -0.00663, -0.01785])  # white matter, cortex, CSF (b = 1)
INV2 = np.array([0.05545, 0.04166, 0.01962])
UNI = np.array([0.220, -0.155, -0.498])


def volume(data: np.ndarray) -> Volume:
    return Volume(np.asarray(data, np.float32), np.eye(4))


def head(noise: float, seed: int = 0) -> tuple[Volume, Volume, Volume]:
    """Air around a cube of white matter, as magnitudes and as the ratio image of 0 to 4095."""
    rng = np.random.default_rng(seed)
    shape = (40, 40, 40)
    inside = np.zeros(shape, bool)
    inside[10:30, 10:30, 10:30] = True
    first = inside * INV1[0] + noise * (rng.normal(size=shape) + 1j * rng.normal(size=shape))
    second = inside * INV2[0] + noise * (rng.normal(size=shape) + 1j * rng.normal(size=shape))
    power = np.maximum(abs(first) ** 2 + abs(second) ** 2, 1e-30)
    uni = (np.conj(first) * second).real / power
    return volume((uni + 0.5) * 4095), volume(abs(first) * 1e4), volume(abs(second) * 1e4)


def test_the_sign_of_the_first_inversion_is_recovered():
    uni = INV1 * INV2 / (INV1**2 + INV2**2)
    assert uni == pytest.approx(UNI, abs=2e-3)
    found = mp2rage.signed_inv1(uni, np.abs(INV1), INV2)
    assert found == pytest.approx(INV1, rel=1e-4)


def test_background_goes_and_tissue_stays():
    unit1, inv1, inv2 = head(noise=0.0005)
    clean, level = mp2rage.remove_background_noise(unit1, inv1, inv2)
    air = clean.data[:8] / 4095
    tissue = clean.data[12:28, 12:28, 12:28] / 4095 - 0.5
    assert level > 0
    assert (unit1.data[:8] / 4095).std() > 0.2
    assert air.mean() < 0.02
    assert air.std() < 0.03
    assert tissue.mean() == pytest.approx(0.2223, abs=0.02)


def test_beta_of_the_reference_values():
    """With beta of (0.1 INV2 of white matter)^2 UNI goes from 0.220 to 0.207."""
    beta = (0.1 * INV2[0]) ** 2
    uni = (INV1[:2] * INV2[:2] - beta) / (INV1[:2] ** 2 + INV2[:2] ** 2 + 2 * beta)
    assert uni == pytest.approx([0.207, -0.167], abs=2e-3)


def test_a_stripped_image_is_brought_to_scale_and_its_background_is_zero():
    unit1, inv1, inv2 = head(noise=0.0)
    clean, level = mp2rage.remove_background_noise(unit1, inv1, inv2)
    assert level == 0
    inside = inv2.data > 0
    assert np.allclose(clean.data[inside], unit1.data[inside], atol=1)
    assert not clean.data[~inside].any()


def test_noise_goes_where_the_air_of_the_inversion_images_is_zero():
    unit1, inv1, inv2 = head(noise=0.0005)
    air = np.ones(unit1.shape, bool)
    air[8:32, 8:32, 8:32] = False
    first, second = (one.with_data(np.where(air, 0, one.data)) for one in (inv1, inv2))
    clean, level = mp2rage.remove_background_noise(unit1, first, second)
    assert level == 0
    assert not clean.data[air].any()
    assert np.allclose(clean.data[~air], unit1.data[~air], atol=1)
    assert 'set to zero in the UNIT1' in mp2rage.methods(level)
    clean, level = mp2rage.remove_background_noise(unit1, inv1, second)  # noise in INV1 alone
    assert level == 0
    assert not clean.data[air].any()


@pytest.mark.parametrize(
    'stored',
    [
        [-0.5, 0.1, 0.5],
        [0.0, 0.6, 1.0],
        [0.0, 2457.0, 4095.0],
        [-0.51, 0.1, 0.512],  # interpolated by a program that overshoots
        [-0.01, 0.6, 1.01],
        [-20.0, 2457.0, 4104.0],
    ],
)
def test_each_scale_that_is_met_is_understood(stored):
    found = mp2rage.to_signed(np.array(stored))
    assert found == pytest.approx([-0.5, 0.1, 0.5], abs=1e-3)


@pytest.mark.parametrize('stored', [[0.0, 65535.0], [-0.6, 0.5], [0.0, 30.0], [-200.0, 4095.0]])
def test_no_other_scale_is(stored):
    with pytest.raises(DataError, match='neither'):
        mp2rage.to_signed(np.array(stored))


@pytest.mark.parametrize(('bottom', 'width'), [(-0.5, 1.0), (0.0, 1.0), (0.0, 4095.0)])
def test_a_background_of_zeros_stays_background_on_each_scale(bottom, width):
    inside = np.zeros((20, 20, 20), bool)
    inside[5:15, 5:15, 5:15] = True
    stored = np.where(inside, bottom + 0.7 * width, 0)
    stored[10, 10, 10] = bottom + width
    found = mp2rage.on_full_scale(volume(stored)).data
    assert not found[~inside].any()
    assert found[6, 6, 6] == pytest.approx(0.7 * 4095, rel=1e-3)


def test_a_value_of_zero_is_no_background_where_it_is_rare():
    stored = np.full((10, 10, 10), 0.2)
    stored[4, 4, 4], stored[0, 0, 0] = 0, -0.5
    found = mp2rage.on_full_scale(volume(stored)).data
    assert found[4, 4, 4] == pytest.approx(4095 / 2, rel=1e-3)


def test_zeros_that_other_values_enclose_are_values():
    stored = np.zeros((20, 20, 20))
    stored[5:15, 5:15, 5:15] = 0.2
    stored[10, 10, 10], stored[5, 5, 5] = 0, -0.5
    found = mp2rage.on_full_scale(volume(stored)).data
    assert found[10, 10, 10] == pytest.approx(4095 / 2, rel=1e-3)
    assert found[0, 0, 0] == 0


def test_grids_must_agree():
    unit1, inv1, inv2 = head(noise=0.001)
    moved = Volume(inv2.data, np.diag([1, 1, 2.0, 1]))
    with pytest.raises(DataError, match='INV2'):
        mp2rage.remove_background_noise(unit1, inv1, moved)


def test_the_plain_ratio_image_is_noisy_and_the_clean_one_is_not():
    unit1, inv1, inv2 = head(noise=0.001)
    assert mp2rage.is_noisy(unit1)
    assert not mp2rage.is_noisy(mp2rage.remove_background_noise(unit1, inv1, inv2)[0])


def test_the_receive_field_does_not_come_back():
    """White matter received with gains of 1 and 0.25 looks alike, and air is dark."""
    rng = np.random.default_rng(0)
    shape = (48, 40, 40)
    gain = np.where(np.arange(48)[:, None, None] < 24, 1.0, 0.25) * np.ones(shape)
    inside = np.zeros(shape, bool)
    inside[6:42, 6:34, 6:34] = True
    noise = INV2[0] / 36
    first, second = (
        inside * gain * value
        + noise * (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(2)
        for value in (INV1[0], INV2[0])
    )
    uni = (np.conj(first) * second).real / (abs(first) ** 2 + abs(second) ** 2)
    parts = volume((uni + 0.5) * 4095), volume(abs(first) * 1e4), volume(abs(second) * 1e4)
    clean, level = mp2rage.remove_background_noise(*parts)
    bright, dark = clean.data[10:22, 10:30, 10:30], clean.data[28:40, 10:30, 10:30]
    assert dark.mean() == pytest.approx(bright.mean(), rel=0.03)
    assert clean.data[:4].mean() < 0.03 * bright.mean()
    # the published formula, with one strength for all voxels
    beta = (6 * level / 1e4) ** 2
    signed = mp2rage.signed_inv1(uni, abs(first), abs(second))
    plain = (signed * abs(second) - beta) / (abs(first) ** 2 + abs(second) ** 2 + 2 * beta) + 0.5
    assert plain[28:40, 10:30, 10:30].mean() < 0.85 * plain[10:22, 10:30, 10:30].mean()


@pytest.mark.parametrize(
    'stored',
    ['radians', 'of 4096 steps', 'of 8192 steps', 'degrees', 'degrees from 0', 'milliradians'],
)
def test_the_uniform_image_is_computed_from_magnitudes_and_phases(stored):
    """Signs and an arbitrary phase of the coil do not matter."""
    rng = np.random.default_rng(0)
    shape = (20, 20, 20)
    kind = rng.integers(0, 3, shape)
    coil = rng.uniform(-np.pi, np.pi, shape)
    images = [values[kind] * np.exp(1j * coil) for values in (INV1, INV2)]
    phases = [np.angle(image) for image in images]
    if stored == 'of 4096 steps':
        phases = [np.round((phase + np.pi) / (2 * np.pi) * 4095) for phase in phases]
    elif stored == 'of 8192 steps':
        phases = [np.round(phase / np.pi * 4096) for phase in phases]
    elif stored == 'milliradians':
        phases = [np.round(1000 * phase) for phase in phases]
    elif stored.startswith('degrees'):
        phases = [np.rad2deg(phase) + 180 * stored.endswith('0') for phase in phases]
    made = mp2rage.combine(*(volume(abs(i) * 1e4) for i in images), *map(volume, phases))
    assert made.contrast == 'UNIT1'
    assert made.data / 4095 - 0.5 == pytest.approx(UNI[kind], abs=4e-3)


def test_a_constant_phase_is_refused():
    flat = volume(np.zeros((4, 4, 4)))
    with pytest.raises(DataError, match='the phase is constant'):
        mp2rage.phase_in_radians(flat)
