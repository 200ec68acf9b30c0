import dataclasses
import json

import numpy as np
import pytest

from ssl2_bids.simulation.scanner.artefacts import (
    Artefacts,
    MotionDraw,
    NoiseDraw,
    SpikeDraw,
    apply,
    dephasing,
    distort,
    draw_artefacts,
    draw_motion,
    draw_spike,
    ghosts,
    noisy,
    ringing,
    stripes,
)
from ssl2_bids.simulation.scanner.fields import echo_phase
from ssl2_bids.tables import from_table

SHAPE = (48, 56, 40)
STILL = MotionDraw((), (), 0.0, 1.0, 0.0)


def generator(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope='module')
def block():
    """A block of signal 100 with a soft border, on air."""
    image = np.zeros(SHAPE, np.float32)
    image[12:36, 16:40, 10:30] = 100
    for axis in range(3):
        image = (np.roll(image, 1, axis) + 2 * image + np.roll(image, -1, axis)) / 4
    return image


# Noise


@pytest.mark.parametrize('snr', [5.0, 25.0, 80.0])
def test_noise_has_the_stated_ratio(block, snr):
    received = noisy(block, NoiseDraw(snr, 3), white=100.0)
    assert received.dtype == np.complex64
    inside, air = block == 100, block == 0
    assert 100 / received.real[inside].std() == pytest.approx(snr, rel=0.03)
    assert 100 / received.imag[inside].std() == pytest.approx(snr, rel=0.03)
    assert received.real[inside].mean() == pytest.approx(100, abs=1)
    magnitude = np.abs(received)
    if snr > 20:
        assert 100 / magnitude[inside].std() == pytest.approx(snr, rel=0.03)
    # Air is Rayleigh distributed: its mean and spread follow from the level alone.
    level = 100 / snr
    assert magnitude[air].mean() == pytest.approx(level * np.sqrt(np.pi / 2), rel=0.01)
    assert magnitude[air].std() == pytest.approx(level * np.sqrt(2 - np.pi / 2), rel=0.02)


def test_each_image_of_a_sequence_has_its_own_noise(block):
    draw = NoiseDraw(20.0, 3)
    first, again, second = (
        noisy(block, draw, white=100.0, image_number=number) for number in (0, 0, 1)
    )
    assert first.tobytes() == again.tobytes()
    correlation = np.corrcoef((first - block).real.ravel(), (second - block).real.ravel())[0, 1]
    assert abs(correlation) < 0.02


# Motion


def test_no_motion_changes_nothing(block):
    same = ghosts(block, STILL, axis=1, spacing=1.0)
    np.testing.assert_allclose(same, block, atol=1e-3)


def test_a_move_before_the_scan_is_not_seen(block):
    early = dataclasses.replace(STILL, times=(-1.0,), jumps=(7.0,))
    np.testing.assert_allclose(ghosts(block, early, axis=1, spacing=1.0), block, atol=1e-3)


def test_regular_sway_makes_ghosts_where_theory_predicts():
    """A sway of n cycles per scan puts ghosts n voxels away, along the phase axis alone."""
    image = np.zeros((4, 64, 4), np.float32)
    image[1, 30, 2] = 1
    sway = dataclasses.replace(STILL, sway=0.4, cycles=12.0)
    seen = np.abs(ghosts(image, sway, axis=1, spacing=1.0))
    assert seen[1, 30, 2] > 0.8
    energy = seen[1, :, 2] ** 2
    away = np.abs(np.arange(64) - 30)
    ghost = energy[np.abs(away - 12) <= 3].sum()
    assert ghost > 0.8 * energy[away > 3].sum()
    assert 0.05 < ghost < 0.4
    seen[1, :, 2] = 0
    assert seen.max() < 1e-6


def test_motion_in_mm_counts_voxels_of_its_axis(block):
    fine = MotionDraw((0.2,), (2.0,), 0.0, 1.0, 0.0)
    coarse = dataclasses.replace(fine, jumps=(4.0,))
    one = ghosts(block, fine, axis=2, spacing=0.5)
    two = ghosts(block, coarse, axis=2, spacing=1.0)
    np.testing.assert_allclose(one, two, atol=1e-4)


def test_motion_keeps_the_energy_and_grows_with_severity(block):
    change = []
    for severity in (0.2, 1.0, 3.0):
        draw = draw_motion(generator(4), severity=severity)
        moved = ghosts(block, draw, axis=0, spacing=1.0)
        assert np.linalg.norm(moved) == pytest.approx(np.linalg.norm(block), rel=1e-4)
        change.append(np.linalg.norm(np.abs(moved) - block))
    assert sorted(change) == change
    assert change[0] > 0


# Spikes and ringing


def test_a_spike_is_one_point_of_k_space(block):
    draw = SpikeDraw((0.25, -0.125, 0.1), 0.05, 1.0)
    wave = stripes(SHAPE, draw, white=100.0)
    np.testing.assert_allclose(np.abs(wave), 5.0, rtol=1e-4)
    space = np.abs(np.fft.fftn(wave))
    assert np.unravel_index(space.argmax(), SHAPE) == (12, 49, 4)
    assert space.max() == pytest.approx(5.0 * wave.size, rel=1e-4)
    assert np.sort(space.ravel())[-2] < 1e-4 * space.max()


def test_spikes_are_never_in_the_middle_of_k_space():
    random = generator(1)
    draws = [draw_spike(random) for _ in range(200)]
    assert min(abs(share) for draw in draws for share in draw.place) >= 0.05
    assert {np.sign(draw.place[0]) for draw in draws} == {-1, 1}


def test_ringing_overshoots_by_what_gibbs_found():
    image = np.zeros((8, 256, 8), np.float32)
    image[:, 64:192] = 1
    cut = ringing(image, (1.0, 0.4, 1.0))
    assert cut.dtype == np.float32
    assert cut.max() == pytest.approx(1.09, abs=0.015)
    assert cut.min() == pytest.approx(-0.09, abs=0.015)
    assert cut.mean() == pytest.approx(image.mean(), rel=1e-5)
    turns = np.diff(np.sign(np.diff(cut[0, 70:186, 0])))
    assert (turns != 0).sum() > 20
    np.testing.assert_allclose(ringing(image, (1.0, 1.0, 1.0)), image)


def test_ringing_of_complex_images_is_that_of_their_parts(block):
    both = ringing(block + 2j * block[::-1], (0.8, 0.7, 0.9))
    np.testing.assert_allclose(both.real, ringing(block, (0.8, 0.7, 0.9)), atol=1e-3)
    np.testing.assert_allclose(both.imag, 2 * ringing(block[::-1], (0.8, 0.7, 0.9)), atol=1e-3)


# Static field


def test_dephasing_follows_the_slope_through_a_voxel():
    slope = np.array([0.0, 10.0, 25.0, 40.0])  # Hz per voxel along the last axis
    error = (np.arange(40) * slope[:, None, None]).astype(np.float32) * np.ones((4, 3, 40), 'f4')
    left = dephasing(error[2:3], 0.02)
    assert left.dtype == np.float32
    for index, expected in enumerate(np.abs(np.sinc(slope * 0.02))):
        here = dephasing(error[index : index + 1], 0.02)
        np.testing.assert_allclose(here, expected, atol=1e-5)
    thick = dephasing(error[1:2], 0.02, (1.0, 1.0, 3.0))
    np.testing.assert_allclose(thick, np.abs(np.sinc(10 * 3 * 0.02)), atol=1e-5)


def test_dephasing_is_the_mean_of_the_phases_inside_a_voxel():
    """Against brute force: 400 spins across a voxel of a linear field."""
    inside = (np.arange(400) + 0.5) / 400
    for slope, te in ((12.0, 0.02), (30.0, 0.025), (80.0, 0.02)):
        error = np.broadcast_to(slope * np.arange(5, dtype=np.float32), (1, 1, 5))
        expected = np.abs(np.exp(2j * np.pi * slope * inside * te).mean())
        np.testing.assert_allclose(dephasing(error, te), expected, atol=1e-4)


@pytest.mark.parametrize('axis', [0, 1, 2])
@pytest.mark.parametrize('hertz', [200.0, -500.0, 130.0])
def test_a_constant_offset_displaces_by_hertz_over_bandwidth(block, axis, hertz):
    image = block.astype(np.float32)
    moved = distort(image, hertz, bandwidth=100.0, axis=axis)
    voxels = hertz / 100
    low, share = int(np.floor(voxels)), voxels - np.floor(voxels)
    expected = (1 - share) * np.roll(image, low, axis) + share * np.roll(image, low + 1, axis)
    np.testing.assert_allclose(moved, expected, atol=1e-3)
    assert moved.dtype == np.float32


def test_distortion_keeps_the_signal_and_piles_it_up(block):
    x = np.indices(SHAPE)[0].astype(np.float32)
    error = 120 * np.exp(-(((x - 24) / 6) ** 2))
    moved = distort(block, error, bandwidth=100.0, axis=0)
    assert moved.sum() == pytest.approx(block.sum(), rel=0.01)
    lines = moved[:, 28, 20]
    assert lines[26:33].max() > 115
    assert lines[14:22].min() < 90
    assert distort(block, error, bandwidth=0, axis=0) is block


def test_distortion_of_a_field_map_is_undone_by_brute_force(block):
    """Spins at n are seen at n + shift: compared with a histogram of many of them."""
    line = np.zeros((1, 1, 60), np.float32)
    line[..., 20:40] = 1
    error = (40 * np.sin(np.arange(60) / 7)).astype(np.float32)[None, None]
    moved = distort(line, error, bandwidth=40.0, axis=2)[0, 0]
    fine = np.linspace(-0.5, 59.5, 60 * 400, endpoint=False) + 0.5 / 400
    signal = np.interp(fine, np.arange(60), line[0, 0])
    goal = fine + np.interp(fine, np.arange(60), error[0, 0]) / 40
    expected, _ = np.histogram(goal, bins=np.arange(-0.5, 60), weights=signal / 400)
    np.testing.assert_allclose(moved, expected, atol=0.2)
    assert np.abs(moved - expected).mean() < 0.015


def test_complex_images_are_distorted_like_their_parts(block):
    error = np.full(SHAPE, 70.0, np.float32)
    moved = distort(block + 1j * block, error, bandwidth=100.0, axis=1)
    part = distort(block, error, bandwidth=100.0, axis=1)
    np.testing.assert_allclose(moved, part + 1j * part, atol=1e-3)


def test_echo_phases_of_two_echoes_give_the_field_back():
    error = np.linspace(-30, 30, 50, dtype=np.float32)
    first, second = (np.exp(1j * echo_phase(error, te, 0.7)) for te in (0.005, 0.012))
    np.testing.assert_allclose(np.angle(second / first) / (2 * np.pi * 0.007), error, atol=1e-2)


# All together


def test_nothing_is_added_unless_drawn(block):
    assert (apply(block, Artefacts(), white=100.0, phase_axis=1, spacing=1.0) == block).all()
    draw = draw_artefacts(generator(), snr=(20, 30))
    assert draw.motion is draw.kept is None
    assert draw.spikes == ()
    assert 20 <= draw.noise.snr <= 30


def test_noise_does_not_depend_on_what_else_is_drawn():
    plain = draw_artefacts(generator(3), snr=(20, 30))
    all_of_it = draw_artefacts(generator(3), snr=(20, 30), motion=1.0, spikes=2, ringing=True)
    assert plain.noise == all_of_it.noise
    assert len(all_of_it.spikes) == 2
    assert all(0.7 <= share <= 0.95 for share in all_of_it.kept)


def test_draws_survive_json_to_the_byte(block):
    draw = draw_artefacts(generator(8), snr=(20, 30), motion=1.0, spikes=2, ringing=True)
    again = from_table(Artefacts, json.loads(json.dumps(dataclasses.asdict(draw))))
    assert again == draw
    none = from_table(Artefacts, json.loads(json.dumps(dataclasses.asdict(Artefacts()))))
    assert none == Artefacts()
    images = [apply(block, d, white=100.0, phase_axis=1, spacing=0.7) for d in (draw, again)]
    assert images[0].dtype == np.complex64
    assert images[0].tobytes() == images[1].tobytes()
    assert block.max() == 100  # the image that was given is not written into
