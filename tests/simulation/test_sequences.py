"""Signals against values computed independently of this code, and contrasts against scans."""

from dataclasses import replace

import numpy as np
import pytest

from ssl2_bids.simulation import sequences
from ssl2_bids.simulation.sequences import (
    PROTOCOLS,
    TISSUES,
    Protocol,
    Tissue,
    lesion_tissue,
    signals,
    uniform,
)

MP2RAGE = Protocol(6.0, 0, (0.8, 2.7), (7, 5), 0.0068, (80, 80))


def tissue(t1, t2=1.0):
    return Tissue(t1=t1, t2=t2, t2star=1e9, density=1.0, transfer=1.0)


def relative(field, contrast, name):
    protocol = PROTOCOLS[field, contrast]
    signal = signals(TISSUES[field][name], protocol)[-1]
    return abs(signal / signals(TISSUES[field]['wm'], protocol)[-1])


@pytest.mark.parametrize(
    ('t1', 'expected'),
    [(1.15, 0.220), (1.40, 0.073), (1.65, -0.062), (1.85, -0.155), (2.4, -0.336), (4.3, -0.498)],
)
def test_uni_of_mp2rage(t1, expected):
    first, second = signals(tissue(t1), MP2RAGE)
    assert uniform(np.array(first), np.array(second)) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(
    ('t1', 'first', 'second'),
    [(1.15, 0.01287, 0.05545), (1.85, -0.00663, 0.04166), (4.30, -0.01785, 0.01962)],
)
def test_inversion_images_are_signed(t1, first, second):
    assert signals(tissue(t1), MP2RAGE) == pytest.approx([first, second], abs=6e-6)


@pytest.mark.parametrize(
    ('transmit', 'white', 'grey'),
    [(0.5, 0.119, -0.398), (0.7, 0.161, -0.335), (1.2, 0.283, -0.073), (1.4, 0.328, 0.048)],
)
def test_uni_depends_on_the_transmit_field(transmit, white, grey):
    for t1, expected in ((1.126, white), (1.939, grey)):
        images = signals(tissue(t1), MP2RAGE, transmit)
        assert uniform(*map(np.array, images)) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(('t1', 'expected'), [(1.35, 0.576), (1.9, 0.361), (4.3, 0.109)])
def test_mprage_relative_to_white_matter(t1, expected):
    protocol = Protocol(2.3, 0, (0.9,), (9,), 0.0072, (80, 80))
    ratio = abs(signals(tissue(t1), protocol)[0] / signals(tissue(0.85), protocol)[0])
    assert ratio == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(
    ('tr', 'train', 't1', 'null'),
    [(5, 0.65, 4.0, 1.611), (5, 0.65, 4.3, 1.647), (9, 0.2, 4.3, 2.458), (8, 0.8, 4.0, 2.161)],
)
def test_fluid_is_nulled_where_theory_says(monkeypatch, tr, train, t1, null):
    monkeypatch.setattr(sequences, 'INVERSION_EFFICIENCY', 1.0)
    times = np.arange(1.4, 2.7, 0.0005)
    left = [signals(tissue(t1), Protocol(tr, 0, (time,), train=train), 1.5)[0] for time in times]
    assert times[np.argmin(left)] == pytest.approx(null, abs=2e-3)


@pytest.mark.parametrize('field', [3, 7])
def test_contrasts_look_like_scans(field):
    assert 1.0 < relative(field, 'FLAIR', 'gm') < 1.4
    assert relative(field, 'FLAIR', 'csf') < 0.3
    assert relative(field, 'T2w', 'gm') > 1
    assert relative(field, 'T2w', 'csf') > 2
    assert relative(field, 'T1w', 'csf') < relative(field, 'T1w', 'gm') < 0.75


def test_scaled_uni_orders_the_tissues():
    values = {
        name: float(uniform(*map(np.array, signals(value, PROTOCOLS[7, 'UNIT1'])))) + 0.5
        for name, value in TISSUES[7].items()
    }
    assert values['csf'] < values['gm'] < 0.75 * values['wm']


@pytest.mark.parametrize('field', [3, 7])
def test_lesions_are_bright_in_flair_and_dark_in_t1w(field):
    white = TISSUES[field]['wm']
    flair, t1w = (
        [signals(lesion_tissue(white, d), PROTOCOLS[field, contrast])[0] for d in (0.2, 0.35, 0.5)]
        for contrast in ('FLAIR', 'T1w')
    )
    healthy = {c: signals(white, PROTOCOLS[field, c])[0] for c in ('FLAIR', 'T1w')}
    assert all(value > 1.2 * healthy['FLAIR'] for value in flair)
    assert sorted(t1w, reverse=True) == t1w
    assert t1w[0] < healthy['T1w']


def test_arrays_give_what_numbers_give():
    white, grey = TISSUES[7]['wm'], TISSUES[7]['gm']
    both = replace(white, **{k: np.array([v, getattr(grey, k)]) for k, v in vars(white).items()})
    for protocol in (PROTOCOLS[7, 'UNIT1'], PROTOCOLS[7, 'FLAIR']):
        together = signals(both, protocol, np.array([1.0, 0.8]))
        alone = [signals(white, protocol, 1.0), signals(grey, protocol, 0.8)]
        np.testing.assert_allclose(together, np.transpose(alone), rtol=1e-12)
