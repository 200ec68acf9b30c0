import dataclasses
import json

import numpy as np
import pytest
from running_app import PROJECT

from ssl2_bids.simulation.scanner.fields import (
    CAVITIES,
    OffResonanceDraw,
    ReceiveDraw,
    TransmitDraw,
    draw_off_resonance,
    draw_receive,
    draw_transmit,
    echo_phase,
    off_resonance_map,
    receive_map,
    receive_phase,
    transmit_map,
)
from ssl2_bids.simulation.scanner.protocols import read_scanner
from ssl2_bids.simulation.smooth import smooth_noise
from ssl2_bids.tables import from_table

SHAPE = (44, 54, 46)
AFFINE = np.diag([4.0, 4, 4, 1])
AFFINE[:3, 3] = -2 * (np.array(SHAPE) - 1) + [1, -15, 8]


def generator(seed=0):
    return np.random.default_rng(seed)


def ellipsoid(shape=SHAPE, affine=AFFINE):
    """A brain: half axes of 70, 88 and 68 mm around (0, -15, 8)."""
    where = np.indices(shape).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]
    inside = (((where - [0, -15, 8]) / [70, 88, 68]) ** 2).sum(axis=1) <= 1
    return inside.reshape(shape)


BRAIN = ellipsoid()


def world():
    where = np.indices(SHAPE).reshape(3, -1).T @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    return (where - [0, -15, 8]).T.reshape(3, *SHAPE)


def transmit_maps(field, count=60, protocol=None):
    random = generator(1)
    ranges = read_scanner(protocol, field).transmit
    return [transmit_map(draw_transmit(random, ranges), BRAIN, AFFINE) for _ in range(count)]


# Smooth noise


def test_smooth_noise_has_unit_spread_on_average():
    affine = np.diag([5.0, 5, 5, 1])
    fields = [
        smooth_noise((40, 40, 40), affine, np.full(3, 100.0), seed=s, scale=25) for s in range(20)
    ]
    assert np.mean(fields) == pytest.approx(0, abs=0.1)
    assert np.std(fields) == pytest.approx(1, abs=0.05)


def test_smooth_noise_is_the_same_on_a_finer_grid():
    coarse = smooth_noise(SHAPE, AFFINE, np.array([3.0, 1, 2]), seed=4, scale=30)
    finer = AFFINE @ np.diag([0.5, 0.5, 0.5, 1])
    shape = tuple(2 * n - 1 for n in SHAPE)
    fine = smooth_noise(shape, finer, np.array([3.0, 1, 2]), seed=4, scale=30)
    np.testing.assert_allclose(fine[::2, ::2, ::2], coarse, atol=1e-4)
    assert max(np.abs(np.diff(fine, axis=axis)).max() for axis in range(3)) < 0.45


# Transmit field


def test_transmit_is_flat_at_3t():
    maps = transmit_maps(3.0)
    spread = [b[BRAIN].std() / b[BRAIN].mean() for b in maps]
    assert np.mean(spread) == pytest.approx(0.037, abs=0.012)
    assert min(b[BRAIN].min() for b in maps) > 0.75
    assert max(b[BRAIN].max() for b in maps) < 1.25


def test_transmit_covers_the_range_of_7t():
    maps = transmit_maps(7.0)
    spread = [b[BRAIN].std() / b[BRAIN].mean() for b in maps]
    assert np.median(spread) == pytest.approx(0.13, abs=0.03)
    values = np.concatenate([b[BRAIN] for b in maps])
    assert 0.35 <= values.min() < 0.5
    assert 1.3 < values.max() <= 1.5
    assert np.percentile(values, [5, 50, 95]) == pytest.approx([0.74, 0.94, 1.19], abs=0.05)


def test_without_shimming_transmit_spreads_as_far_as_reported():
    maps = transmit_maps(7.0, protocol=PROJECT / 'benchmarks/unshimmed-7t.toml')
    spread = [b[BRAIN].std() / b[BRAIN].mean() for b in maps]
    assert np.median(spread) == pytest.approx(0.23, abs=0.025)


def test_transmit_is_bright_in_the_middle_and_low_below():
    mean = np.mean(transmit_maps(7.0), axis=0)
    x, y, z = world()
    radius = np.sqrt(x**2 + y**2 + z**2)
    middle = mean[radius < 15].mean()
    assert middle > 1.1
    assert mean[BRAIN & (z < -48)].mean() < 0.75 * middle
    assert mean[BRAIN & (z > 48)].mean() > mean[BRAIN & (z < -48)].mean() + 0.05


def test_transmit_has_the_mean_and_the_sides_of_its_draw():
    draw = TransmitDraw(0.9, 0.3, (0, 0, 0), (55, 55, 55), 0.0, 0.3, 0.0, 1)
    field = transmit_map(draw, BRAIN, AFFINE)
    assert field.dtype == np.float32
    assert field[BRAIN].mean() == pytest.approx(0.9, abs=1e-4)
    x, y, z = world()
    low = BRAIN & (z < -40)
    assert field[low & (x < -20)].mean() > field[low & (x > 20)].mean() + 0.1


def test_transmit_is_the_same_head_on_a_finer_grid():
    draw = draw_transmit(generator(3), read_scanner(None, 7.0).transmit)
    finer = AFFINE @ np.diag([0.5, 0.5, 0.5, 1])
    shape = tuple(2 * n for n in SHAPE)
    fine = transmit_map(draw, ellipsoid(shape, finer), finer)
    coarse = transmit_map(draw, BRAIN, AFFINE)
    # the boxes of the two masks differ by up to a voxel, and the field with them
    assert np.abs(fine[::2, ::2, ::2] - coarse)[BRAIN].max() < 0.05


# Static field


def test_off_resonance_is_high_over_air_and_scales_with_the_field():
    ranges = read_scanner(None, 7.0).off_resonance
    random = generator(2)
    draws = [draw_off_resonance(random, ranges) for _ in range(15)]
    maps = [off_resonance_map(draw, BRAIN, AFFINE, field=7.0) for draw in draws]
    for error in maps:
        assert error.dtype == np.float32
        assert error[BRAIN].mean() == pytest.approx(0, abs=0.05)
    mean = np.mean(maps, axis=0)
    x, y, z = world()
    for centre in CAVITIES:
        at = np.array(centre) * [70, 88, 68]
        near = np.linalg.norm(np.stack([x, y, z], -1) - at, axis=-1) < 10
        assert 100 < mean[near].mean() < 600
    peaks = [error[BRAIN].max() for error in maps]
    assert 100 < min(peaks) < max(peaks) < 700
    quiet = BRAIN & (z > 20)
    assert 15 < np.mean([error[quiet].std() for error in maps]) < 80
    half = off_resonance_map(draws[0], BRAIN, AFFINE, field=3.5)
    np.testing.assert_allclose(2 * half, maps[0], atol=1e-2)


def test_echo_phase_grows_with_time_and_is_wrapped():
    error = np.array([[[0.0, 10.0, 60.0, -200.0]]], np.float32)
    phase = echo_phase(error, 0.01, 0.3)
    assert phase.dtype == np.float32
    assert np.abs(phase).max() <= np.pi + 1e-6
    expected = 2 * np.pi * error * 0.01 + 0.3
    np.testing.assert_allclose(np.exp(1j * phase), np.exp(1j * expected), atol=1e-5)


# Receive field


def test_receive_gain_has_the_spread_of_its_draw():
    random = generator(5)
    spreads = []
    for _ in range(15):
        draw = dataclasses.replace(
            draw_receive(random, read_scanner(None, 7.0).receive), spread=0.3
        )
        gain = receive_map(draw, SHAPE, AFFINE, np.array([0, -15, 8]))
        assert gain.dtype == np.float32
        assert gain.min() > 0
        spreads.append(np.log(gain[BRAIN]).std())
    assert np.mean(spreads) == pytest.approx(0.3, rel=0.25)


def test_receive_gain_is_bright_at_the_rim_as_far_as_it_is_drawn():
    draw = ReceiveDraw(0.3, 1.0, 80, 1.0, 0.0, 1)
    gain = receive_map(draw, SHAPE, AFFINE, np.array([0, -15, 8]))
    x, y, z = world()
    radius = np.sqrt(x**2 + y**2 + z**2)
    assert gain[radius > 75].min() > 1.3 > 0.7 > gain[radius < 20].max()


def test_coil_phase_is_smooth():
    draw = ReceiveDraw(0.3, 0.5, 80, 1.0, 2.0, 1)
    phase = receive_phase(draw, SHAPE, AFFINE, np.zeros(3))
    assert phase.dtype == np.float32
    assert max(np.abs(np.diff(phase, axis=axis)).max() for axis in range(3)) < 0.4
    assert 0.1 < phase.std() < 2


# Draws


@pytest.mark.parametrize('kind', ['transmit', 'off_resonance', 'receive'])
@pytest.mark.parametrize('field', [1.5, 3.0, 7.0])
def test_draws_survive_json_to_the_byte(kind, field):
    scanner = read_scanner(None, field)
    draw_of, draws, make = {
        'transmit': (draw_transmit, TransmitDraw, lambda d: transmit_map(d, BRAIN, AFFINE)),
        'off_resonance': (
            draw_off_resonance,
            OffResonanceDraw,
            lambda d: off_resonance_map(d, BRAIN, AFFINE, field=field),
        ),
        'receive': (
            draw_receive,
            ReceiveDraw,
            lambda d: receive_map(d, SHAPE, AFFINE, np.zeros(3)),
        ),
    }[kind]
    draw = draw_of(generator(9), getattr(scanner, kind))
    again = from_table(draws, json.loads(json.dumps(dataclasses.asdict(draw))))
    assert again == draw
    assert make(again).tobytes() == make(draw).tobytes()
    assert draw_of(generator(10), getattr(scanner, kind)) != draw
