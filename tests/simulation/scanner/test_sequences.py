"""Signals against reference values, a brute-force simulation, and what scans look like."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ssl2_bids.simulation.anatomy.tissues import (
    Tissue,
    draw_individual,
    individual,
    lesion_tissue,
    read_tissues,
    with_texture,
)
from ssl2_bids.simulation.scanner import sequences
from ssl2_bids.simulation.scanner.protocols import Protocol, read_scanner
from ssl2_bids.simulation.scanner.sequences import (
    FULL_SCALE,
    signals,
    stored_uniform,
    t1_from_uniform,
    uniform,
)

MP2RAGE = Protocol(
    kind='mp2rage', tr=6.0, ti=(0.8, 2.7), angles=(7, 5), spacing=0.0068, pulses=(80, 80)
)
LOW_ANGLES = replace(MP2RAGE, angles=(4, 5))
MPRAGE = Protocol(kind='mprage', tr=2.3, ti=(0.9,), angles=(9,), spacing=0.0072, pulses=(80, 80))
T1S = (0.4, 0.85, 1.35, 1.9, 4.3)


def water(t1, t2=1e9, t2star=1e9):
    return Tissue(t1=t1, t2=t2, t2star=t2star, density=1.0, transfer=1.0)


# Reference values


@pytest.mark.parametrize(
    ('t1', 'expected'),
    [(1.15, 0.220), (1.40, 0.073), (1.65, -0.062), (1.85, -0.155), (2.4, -0.336), (4.3, -0.498)],
)
def test_uni_of_mp2rage(t1, expected):
    first, second = signals(water(t1), MP2RAGE)
    assert uniform(first, second) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(
    ('t1', 'first', 'second'),
    [(1.15, 0.01287, 0.05545), (1.85, -0.00663, 0.04166), (4.30, -0.01785, 0.01962)],
)
def test_inversion_images_are_signed(t1, first, second):
    assert signals(water(t1), MP2RAGE) == pytest.approx([first, second], abs=6e-6)


@pytest.mark.parametrize(
    ('transmit', 'white', 'grey'),
    [
        (0.5, 0.119, -0.398),
        (0.7, 0.161, -0.335),
        (1.0, 0.234, -0.192),
        (1.2, 0.283, -0.073),
        (1.4, 0.328, 0.048),
    ],
)
def test_uni_depends_on_the_transmit_field(transmit, white, grey):
    for t1, expected in ((1.126, white), (1.939, grey)):
        images = signals(water(t1), MP2RAGE, transmit)
        assert uniform(*images) == pytest.approx(expected, abs=6e-4)


def test_low_angles_depend_less_on_the_transmit_field():
    values = uniform(
        *signals(water(np.array([[1.126], [1.939]])), LOW_ANGLES, np.r_[0.5:1.41:0.1])
    )
    np.testing.assert_allclose(np.ptp(values, axis=1), [0.10, 0.11], atol=0.01)
    np.testing.assert_allclose(values[:, 5], [0.095, -0.256], atol=1e-3)


@pytest.mark.parametrize(
    ('t1', 'expected'), [(1.35, 0.576), (1.25, 0.636), (1.9, 0.361), (4.3, 0.109)]
)
def test_mprage_relative_to_white_matter(t1, expected):
    ratio = abs(signals(water(t1), MPRAGE)[0] / signals(water(0.85), MPRAGE)[0])
    assert ratio == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(
    ('tr', 'train', 't1', 'preparation', 'null'),
    [
        (5, 0.65, 4.0, 0, 1.611),
        (5, 0.65, 4.3, 0, 1.647),
        (9, 0.2, 4.0, 0, 2.352),
        (9, 0.2, 4.3, 0, 2.458),
        (8, 0.8, 4.0, 0, 2.161),
        (8, 0.8, 4.3, 0, 2.242),
        (8, 0.8, 4.3, 0.1, 2.097),
    ],
)
def test_fluid_is_nulled_where_theory_predicts(tr, train, t1, preparation, null):
    protocol = Protocol(
        kind='flair', tr=tr, te=0.1, train=train, preparation=preparation, efficiency=1.0
    )

    def left(time):
        return signals(water(t1, t2=1.0), replace(protocol, ti=(time,)), 1.5)[0]

    assert left(null - 2e-3) < 0 < left(null + 2e-3)


# Brute force: a magnetisation vector, pulse by pulse


def turned(m, degrees, axis='x'):
    """Magnetisation vectors (..., 3) after a hard pulse about an axis."""
    return m @ Rotation.from_euler(axis, degrees, degrees=True).as_matrix().T


def relaxed(m, time, tissue, steps=1):
    """Magnetisation vectors (..., 3) after free relaxation."""
    for _ in range(steps):
        dt = time / steps
        across = np.exp(-dt / tissue.t2)
        along = np.exp(-dt / tissue.t1)
        m = m * [across, across, along] + [0, 0, 1 - along]
    return m


def spoiled(m):
    return m * [0, 0, 1]


def bloch_trains(tissue, protocol, transmit, repetitions=30):
    before, after = protocol.pulses
    m = np.array([0.0, 0.0, 1.0])
    for _ in range(repetitions):
        measured, time = [], 0.0
        m = m * [0, 0, -protocol.efficiency]
        for ti, angle in zip(protocol.ti, protocol.angles, strict=True):
            m = relaxed(m, ti - before * protocol.spacing - time, tissue, steps=7)
            for pulse in range(before + after):
                m = turned(m, angle * transmit)
                if pulse == before:
                    sign = -1 if m[1] > 0 else 1
                    measured.append(sign * np.hypot(*m[:2]) * np.exp(-protocol.te / tissue.t2star))
                m = spoiled(relaxed(m, protocol.spacing, tissue))
            time = ti + after * protocol.spacing
        m = relaxed(m, protocol.tr - time, tissue)
    return measured


@pytest.mark.parametrize('transmit', [0.5, 1.0, 1.35])
@pytest.mark.parametrize('protocol', [MP2RAGE, MPRAGE, replace(MPRAGE, pulses=(48, 80), te=0.003)])
def test_gradient_echo_trains_against_brute_force(protocol, transmit):
    for t1 in T1S:
        tissue = water(t1, t2=0.05, t2star=0.03)
        expected = bloch_trains(tissue, protocol, transmit)
        simulated = signals(tissue, protocol, transmit)
        np.testing.assert_allclose(simulated, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize('transmit', [0.6, 1.0, 1.3])
def test_gradient_echoes_against_brute_force(transmit):
    protocol = Protocol(kind='megre', tr=0.044, echoes=(0.005, 0.02, 0.035), angles=(15,))
    for t1 in T1S:
        tissue = water(t1, t2=0.05, t2star=0.03)
        m = np.array([0.0, 0.0, 1.0])
        for _ in range(3000):
            m = turned(spoiled(m), 15 * transmit)
            at_excitation = np.hypot(*m[:2])
            m = relaxed(m, protocol.tr, tissue)
        expected = [at_excitation * np.exp(-te / 0.03) for te in protocol.echoes]
        np.testing.assert_allclose(signals(tissue, protocol, transmit), expected, rtol=1e-6)


def bloch_turbo(tissue, protocol, *, spacing=0.01, repetitions=6):
    """Echo at te of a train of 180 degree pulses, nominal transmit field."""
    m = np.array([0.0, 0.0, 1.0])
    ti = sum(protocol.ti)
    for _ in range(repetitions):
        if protocol.preparation:
            half = protocol.preparation / 2
            m = turned(relaxed(turned(m, 90), half, tissue), 180, 'y')
            m = spoiled(turned(relaxed(m, half, tissue), -90))
        if protocol.ti:
            m = m * [0, 0, -protocol.efficiency]
            m = relaxed(m, ti, tissue)
        m = turned(m, 90)
        measured = 0.0
        for echo in range(1, round(protocol.train / spacing) + 1):
            m = relaxed(turned(relaxed(m, spacing / 2, tissue), 180, 'y'), spacing / 2, tissue)
            if echo == round(protocol.te / spacing):
                measured = -m[1]
        m = spoiled(m)
        m = relaxed(m, protocol.tr - ti - protocol.train - protocol.preparation, tissue)
    return measured


@pytest.mark.parametrize(
    'protocol',
    [
        Protocol(kind='tse', tr=4.0, te=0.1, train=0.3),
        Protocol(kind='tse', tr=0.5, te=0.01, train=0.05),
        Protocol(kind='tse', tr=2.0, te=0.02, ti=(0.8,), train=0.1),
        Protocol(kind='flair', tr=9.0, te=0.1, ti=(2.4,), train=0.2),
        Protocol(kind='flair', tr=5.0, te=0.1, ti=(1.65,), train=0.65),
        Protocol(kind='flair', tr=8.0, te=0.06, ti=(2.04,), train=0.8, preparation=0.125),
    ],
)
def test_turbo_spin_echo_against_brute_force(protocol):
    """The approximations: no magnetisation after the train, T2 preparation counted as recovery."""
    for t1, t2 in ((0.85, 0.069), (1.35, 0.099), (1.85, 0.055), (4.3, 1.6)):
        tissue = water(t1, t2=t2)
        assert signals(tissue, protocol)[0] == pytest.approx(
            bloch_turbo(tissue, protocol), abs=0.006
        )


@pytest.mark.parametrize('transmit', [0.5, 0.8, 1.2])
def test_one_crushed_refocusing_pulse_against_brute_force(transmit):
    """With ``refocusing`` 1 the loss is that of a spin echo between crusher gradients."""
    phases = np.arange(0, 360, 5.0)
    m = np.tile([0.0, 0.0, 1.0], (len(phases), 1))
    m = turned(m, 90 * transmit)
    crusher = Rotation.from_euler('z', phases, degrees=True)
    m = crusher.apply(turned(crusher.apply(m), 180 * transmit, 'y'))
    echo = np.hypot(*m.mean(axis=0)[:2])
    protocol = Protocol(kind='tse', tr=30.0, te=1e-6, train=1e-3, refocusing=1.0)
    assert signals(water(0.1), protocol, transmit)[0] == pytest.approx(echo, rel=1e-4)


# Contrasts


def relative(tissues, protocol, name):
    return float(abs(signals(tissues[name], protocol)[0] / signals(tissues['wm'], protocol)[0]))


def scaled_uni(tissue, protocol):
    return float(uniform(*signals(tissue, protocol))) + 0.5


@pytest.mark.parametrize('field', [1.5, 3.0, 7.0])
def test_mean_contrasts_of_many_heads_look_like_scans(field):
    scanner = read_scanner(None, field)
    random = np.random.default_rng(0)
    table = read_tissues(field)
    ratios = {suffix: [] for suffix in scanner.protocols}
    fluid = []
    for _ in range(200):
        tissues = individual(table, draw_individual(random, scanner.tissues, table))
        for suffix, protocol in scanner.protocols.items():
            if suffix == 'UNIT1':
                ratio = scaled_uni(tissues['gm'], protocol) / scaled_uni(tissues['wm'], protocol)
            else:
                ratio = relative(tissues, protocol, 'gm')
            ratios[suffix].append(ratio)
        fluid.append(relative(tissues, scanner.protocols['FLAIR'], 'csf'))
    mean = {suffix: np.mean(values) for suffix, values in ratios.items()}
    assert 1.0 < mean['FLAIR'] < 1.4
    assert mean['T2w'] > 1.2
    assert mean['T1w'] < (0.95 if scanner.protocols['T1w'].kind == 'tse' else 0.75)
    assert mean.get('UNIT1', 0) < 0.75
    assert np.mean(fluid) < 0.25
    assert 0.03 < np.std(ratios['FLAIR']) < 0.25


@pytest.mark.parametrize('field', [1.5, 3.0, 7.0])
def test_fluid_is_dark_in_flair_and_bright_in_t2w(field):
    tissues, protocols = read_tissues(field), read_scanner(None, field).protocols
    assert relative(tissues, protocols['FLAIR'], 'csf') < 0.2
    assert relative(tissues, protocols['T2w'], 'csf') > 2
    assert relative(tissues, protocols['T1w'], 'csf') < 0.5


def test_flair_without_preparation_nulls_fluid_at_its_own_time():
    protocol = Protocol(kind='flair', tr=5.0, te=0.1, ti=(1.65,), train=0.65, efficiency=1.0)
    tissues = read_tissues(3.0)
    assert relative(tissues, protocol, 'csf') < 0.01
    assert relative(tissues, replace(protocol, ti=(2.2,)), 'csf') > 0.3


@pytest.mark.parametrize('field', [3.0, 7.0])
def test_deep_grey_matter_is_dark_where_iron_is(field):
    tissues, protocol = read_tissues(field), read_scanner(None, field).protocols['T2starw']
    values = [relative(tissues, protocol, n) for n in ('pallidum', 'putamen', 'caudate', 'gm')]
    assert sorted(values) == values
    assert relative(tissues, protocol, 'vein') < 0.6


@pytest.mark.parametrize('field', [1.5, 3.0, 7.0])
def test_lesions_are_bright_in_flair_and_dark_in_t1w(field):
    white, protocols = read_tissues(field)['wm'], read_scanner(None, field).protocols
    damage = np.array([0.15, 0.25, 0.35, 0.5])
    flair, t1w = (
        signals(lesion_tissue(white, damage), protocols[c])[0] / signals(white, protocols[c])[0]
        for c in ('FLAIR', 'T1w')
    )
    assert (flair > 1.15).all()
    if protocols['T1w'].kind == 'mprage':
        assert sorted(t1w, reverse=True) == list(t1w)
        assert t1w[0] < 0.95


def test_fat_suppression_acts_on_fat_alone():
    tissues = read_tissues(3.0)
    protocol = read_scanner(None, 3.0).protocols['T2w']
    half = replace(protocol, fat=0.5)
    for name, share in (('fat', 0.5), ('marrow', 0.5), ('wm', 1.0)):
        ratio = signals(tissues[name], half)[0] / signals(tissues[name], protocol)[0]
        assert ratio == pytest.approx(share)


def test_low_transmit_field_leaves_fluid_in_flair():
    protocol, tissues = read_scanner(None, 7.0).protocols['FLAIR'], read_tissues(7.0)
    fluid, white = (
        abs(signals(tissues[name], protocol, np.array([1.0, 0.4]))[0]) for name in ('csf', 'wm')
    )
    assert fluid[0] / white[0] < 0.2
    assert fluid[1] / white[1] > 1
    assert white[1] < 0.5 * white[0]


# Arrays


@pytest.mark.parametrize('suffix', ['UNIT1', 'T1w', 'FLAIR', 'T2w', 'T2starw', 'MEGRE'])
def test_arrays_give_what_numbers_give(suffix):
    protocol = read_scanner(None, 7.0).protocols[suffix]
    white, grey = (read_tissues(7.0)[name] for name in ('wm', 'gm'))
    names = ('t1', 't2', 't2star', 'density', 'transfer')
    both = replace(white, **{n: np.array([getattr(t, n) for t in (white, grey)]) for n in names})
    together = signals(both, protocol, np.array([1.0, 0.8]))
    alone = [signals(white, protocol, 1.0), signals(grey, protocol, 0.8)]
    assert len(together) == protocol.image_count
    np.testing.assert_allclose(together, np.transpose(alone), rtol=1e-12)


@pytest.mark.parametrize('suffix', ['UNIT1', 'FLAIR', 'MEGRE'])
def test_float32_maps_stay_float32_and_exact_in_pieces(monkeypatch, suffix):
    protocol = read_scanner(None, 7.0).protocols[suffix]
    random = np.random.default_rng(0)
    texture = random.normal(1, 0.05, (20, 30)).astype(np.float32)
    transmit = random.uniform(0.4, 1.4, (20, 30)).astype(np.float32)
    tissue = with_texture(read_tissues(7.0)['gm'], texture)
    whole = signals(tissue, protocol, transmit)
    monkeypatch.setattr(sequences, 'CHUNK', 64)
    pieces = signals(tissue, protocol, transmit)
    doubles = with_texture(read_tissues(7.0)['gm'], texture.astype(float))
    precise = signals(doubles, protocol, transmit.astype(float))
    scale = np.abs(precise).max()
    for one, other, exact in zip(whole, pieces, precise, strict=True):
        assert one.dtype == other.dtype == np.float32
        assert one.shape == (20, 30)
        np.testing.assert_allclose(one, other, atol=2e-7 * scale)
        np.testing.assert_allclose(one, exact, atol=1.5e-5 * scale)


# MP2RAGE's uniform image and T1 map


def test_uni_stays_within_its_range():
    random = np.random.default_rng(0)
    parts = random.standard_normal((4, 100_000), dtype=np.float32)
    first, second = parts[0] + 1j * parts[1], parts[2] + 1j * parts[3]
    for uni in (uniform(first, second), uniform(parts[0], parts[2])):
        assert uni.dtype == np.float32
        assert uni.min() >= -0.5
        assert uni.max() <= 0.5
        assert np.ptp(uni) > 0.95
    assert uniform(np.zeros(2), np.zeros(2)).tolist() == [0, 0]
    np.testing.assert_allclose(
        uniform(first, second),
        (first.conj() * second).real / (abs(first) ** 2 + abs(second) ** 2),
        atol=1e-6,
    )


def test_stored_uniform_image_runs_from_0_to_4095():
    stored = stored_uniform(np.array([-0.5, 0.0, 0.5, 0.7]))
    assert stored.dtype == np.int16
    assert stored.tolist() == [0, 2048, 4095, 4095]


@pytest.mark.parametrize('protocol', [MP2RAGE, LOW_ANGLES])
def test_t1_map_has_the_error_that_is_stated(protocol):
    t1 = np.arange(0.3, 5, 0.005)[:, None]
    transmit = np.linspace(0.4, 1.4, 63)
    uni = uniform(*signals(water(t1), protocol, transmit))
    unique = t1 > 1.1 * t1[uni.argmax(axis=0), 0]
    unique &= t1 < 0.95 * t1[uni.argmin(axis=0), 0]
    assert unique.mean() > 0.6

    def error(values):
        return np.abs(t1_from_uniform(values, protocol, transmit[None]) / t1 - 1)[unique]

    assert error(uni).max() < 5e-4
    stored = error(stored_uniform(uni) / FULL_SCALE - 0.5)
    assert stored.max() < 0.015
    assert np.percentile(stored, 99) < 0.003


def test_t1_map_of_every_tissue_at_the_nominal_field():
    tissues = read_tissues(7.0)
    protocol = read_scanner(None, 7.0).protocols['UNIT1']
    for name in ('wm', 'gm', 'thalamus', 'pallidum', 'csf', 'choroid_plexus'):
        uni = uniform(*signals(tissues[name], protocol))
        assert t1_from_uniform(uni, protocol) == pytest.approx(tissues[name].t1, rel=2e-3)


@pytest.mark.parametrize(
    ('t1', 'transmit', 'read_off'),
    [
        (1.126, 0.6, 1.29), (1.126, 0.8, 1.21), (1.126, 1.2, 1.04), (1.126, 1.4, 0.96),
        (1.939, 0.6, 2.56), (1.939, 0.8, 2.24), (1.939, 1.2, 1.67), (1.939, 1.4, 1.44),
    ],
)  # fmt: skip
def test_uncorrected_t1_is_wrong_as_theory_predicts(t1, transmit, read_off):
    uni = uniform(*signals(water(t1), MP2RAGE, transmit))
    assert t1_from_uniform(uni, MP2RAGE) == pytest.approx(read_off, abs=0.01)
    assert t1_from_uniform(uni, MP2RAGE, transmit) == pytest.approx(t1, rel=1e-3)


def test_low_transmit_field_makes_fluid_too_short():
    protocol = read_scanner(None, 7.0).protocols['UNIT1']
    t1 = np.arange(1, 6, 0.01)
    uni = uniform(*signals(water(t1), protocol, 0.6))
    assert t1[uni.argmin()] == pytest.approx(2.9, abs=0.05)
    fluid = uniform(*signals(water(4.3), protocol, 0.6))
    assert t1_from_uniform(fluid, protocol, 0.6) < 2.9


def test_t1_map_keeps_shape_and_precision():
    uni = np.linspace(-0.6, 0.6, 24, dtype=np.float32).reshape(2, 3, 4)
    t1 = t1_from_uniform(uni, MP2RAGE)
    assert t1.shape == uni.shape
    assert t1.dtype == np.float32
    assert (np.diff(t1.ravel()) <= 0).all()
    assert 0.05 <= t1.min() < t1.max() <= 6.0
