import dataclasses
import json

import numpy as np
import pytest

from ssl2_bids.errors import UsageError
from ssl2_bids.simulation.anatomy.tissues import (
    IndividualDraw,
    TissueJitter,
    draw_individual,
    individual,
    lesion_tissue,
    read_tissues,
    texture_map,
    tissue_table,
    with_texture,
)
from ssl2_bids.simulation.scanner.protocols import read_scanner
from ssl2_bids.tables import from_table

NAMES = (
    'wm gm caudate putamen pallidum thalamus hippocampus cerebellar_gm brainstem csf '
    'choroid_plexus rim vein blood fat muscle skull marrow skin eye dura mucosa'
).split()
TIMES = ('t1', 't2', 't2star')
JITTER = TissueJitter(0.1, 0.08, 0.04, 0.5, 0.03, 12.0)


def test_table_names_every_tissue_that_anatomies_have():
    assert list(read_tissues(3.0)) == NAMES


@pytest.mark.parametrize('name', NAMES)
def test_every_value_has_its_source(name):
    table = tissue_table()
    row = table['tissues'][name]
    values = [key for key in row if key not in ('name', 't1_exponent') and 'source' not in key]
    assert set(values) >= {*TIMES, 'density', 'transfer'}
    for key in values:
        sources = row[f'{key}_source']
        assert set([sources] if isinstance(sources, str) else sources) <= set(table['sources'])
        if not isinstance(sources, str):
            assert len(sources) == len(row[key]) == len(table['fields'])


def test_every_source_is_used():
    table = tissue_table()
    used = {table['lesion']['source'], 'li2009'}  # the law that read_tissues follows
    for row in table['tissues'].values():
        for key, value in row.items():
            if key.endswith('source'):
                used.update([value] if isinstance(value, str) else value)
    assert used == set(table['sources'])


@pytest.mark.parametrize('field', [1.5, 3.0, 7.0])
def test_tabulated_fields_give_the_table(field):
    table = tissue_table()
    column = table['fields'].index(field)
    for name, tissue in read_tissues(field).items():
        for time in TIMES:
            expected = table['tissues'][name][time][column]
            assert getattr(tissue, time) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('time', ['t1', 't2'])
def test_effective_values_stay_near_measured_ones(time):
    for name, row in tissue_table()['tissues'].items():
        measured = row.get(f'measured_{time}')
        if measured:
            ratio = np.array(row[time]) / measured
            assert (np.abs(ratio - 1) < 0.32).all(), name


@pytest.mark.parametrize('field', [0.55, 1.5, 2.2, 3.0, 4.7, 7.0, 9.4])
def test_values_are_physical_at_every_field(field):
    for tissue in read_tissues(field).values():
        assert 0 < tissue.t2star <= tissue.t2 < tissue.t1 < 5
        assert 0 < tissue.density <= 1
        assert 0 < tissue.transfer <= 1


def test_t1_grows_and_t2star_shrinks_with_the_field():
    fields = (0.55, 1.5, 2.2, 3.0, 4.7, 7.0, 9.4)
    for name in ('wm', 'gm', 'thalamus', 'muscle'):
        tissues = [read_tissues(field)[name] for field in fields]
        assert (np.diff([tissue.t1 for tissue in tissues]) > 0).all()
        assert (np.diff([tissue.t2star for tissue in tissues]) <= 0).all()


@pytest.mark.parametrize(
    ('name', 'factor', 'power'), [('wm', 71e-5, 0.382), ('gm', 116e-5, 0.376)]
)
def test_t1_of_other_fields_follows_rooney(name, factor, power):
    for field in (0.55, 2.0, 4.7, 9.4):
        rooney = factor * (42.577e6 * field) ** power
        assert read_tissues(field)[name].t1 == pytest.approx(rooney, rel=0.1)
    low, high = (read_tissues(field)[name].t1 for field in (7.0, 9.4))
    assert high / low == pytest.approx((9.4 / 7) ** power)


def test_r2star_is_linear_in_the_field():
    rates = [1 / read_tissues(field)['wm'].t2star for field in (3.0, 5.0, 7.0, 9.0)]
    np.testing.assert_allclose(np.diff(rates), np.diff(rates)[0])


@pytest.mark.parametrize('field', [0.1, 0.0, -3.0, 21.0, float('nan')])
def test_impossible_fields_are_refused(field):
    with pytest.raises(UsageError, match='Choose a field from 0.5 to 12 T'):
        read_tissues(field)


# Lesions


def test_no_damage_is_white_matter():
    white = read_tissues(7.0)['wm']
    lesion = lesion_tissue(white, 0.0)
    for name, value in dataclasses.asdict(lesion).items():
        assert value == pytest.approx(getattr(white, name))


@pytest.mark.parametrize(
    ('field', 'damage', 't1', 't2', 't2star'),
    [
        (3.0, 0.227, 1.10, 0.105, 0.065), (3.0, 0.33, 1.27, 0.135, 0.080),
        (3.0, 0.553, 1.90, 0.200, 0.120), (7.0, 0.227, 1.40, 0.065, 0.034),
        (7.0, 0.33, 1.65, 0.085, 0.040), (7.0, 0.553, 2.40, 0.130, 0.060),
    ],
)  # fmt: skip
def test_lesions_are_those_of_the_literature(field, damage, t1, t2, t2star):
    """Mild, typical and black hole at 3 and 7 T; the table of the fields was made apart."""
    lesion = lesion_tissue(read_tissues(field)['wm'], damage)
    assert lesion.t1 == pytest.approx(t1, rel=0.05)
    assert lesion.t2 == pytest.approx(t2, rel=0.08)
    assert lesion.t2star == pytest.approx(t2star, rel=0.08)
    assert 0.75 <= lesion.density <= 0.95


@pytest.mark.parametrize('field', [1.5, 3.0, 7.0])
def test_lesions_keep_their_share_of_the_way_to_fluid(field):
    tissues = read_tissues(field)
    rates = [1 / t.t1 for t in (tissues['wm'], lesion_tissue(tissues['wm'], 0.33), tissues['csf'])]
    share = (rates[0] - rates[1]) / (rates[0] - rates[2])
    assert share == pytest.approx(0.33 * 1.246, rel=1e-3)


def test_damage_at_3t_is_the_share_of_r1_lost():
    white = read_tissues(3.0)['wm']
    for damage in (0.12, 0.3, 0.55):
        assert lesion_tissue(white, damage).t1 == pytest.approx(white.t1 / (1 - damage), rel=1e-3)


def test_lesions_of_maps_stay_float32():
    white = read_tissues(7.0)['wm']
    damage = np.linspace(0, 0.55, 7, dtype=np.float32)
    lesion = lesion_tissue(white, damage, t2_factor=np.float32(1.1) * np.ones_like(damage))
    for name in (*TIMES, 'density', 'transfer'):
        values = getattr(lesion, name)
        assert values.dtype == np.float32
        assert (np.diff(values) > 0).all()
    assert lesion.t2[0] == pytest.approx(1.1 * white.t2)


# Individuals


def test_individuals_vary_by_the_jitter():
    table = read_tissues(3.0)
    random = np.random.default_rng(0)
    draws = [draw_individual(random, JITTER, table) for _ in range(1500)]
    logs = {
        name: np.log([[getattr(d, key)[name] for key in ('t1', 't2', 'density')] for d in draws])
        for name in ('wm', 'gm', 'csf')
    }
    np.testing.assert_allclose(logs['wm'].std(axis=0), [0.1, 0.08, 0.04], rtol=0.1)
    np.testing.assert_allclose(logs['wm'].mean(axis=0), 0, atol=0.01)
    correlation = np.corrcoef(logs['wm'][:, 0], logs['gm'][:, 0])[0, 1]
    assert correlation == pytest.approx(JITTER.common, abs=0.07)
    assert abs(np.corrcoef(logs['wm'][:, 0], logs['csf'][:, 0])[0, 1]) < 0.1


def test_individual_has_the_factors_of_its_draw():
    table = read_tissues(3.0)
    draw = draw_individual(np.random.default_rng(1), JITTER, table)
    head = individual(table, draw)
    assert head['gm'].t1 == table['gm'].t1 * draw.t1['gm']
    assert head['gm'].t2star == table['gm'].t2star * draw.t2['gm']
    assert head['fat'].chemical_shift == table['fat'].chemical_shift < 0
    assert head['gm'].transfer == table['gm'].transfer


def test_draw_survives_json():
    draw = draw_individual(np.random.default_rng(1), JITTER, read_tissues(3.0))
    again = from_table(IndividualDraw, json.loads(json.dumps(dataclasses.asdict(draw))))
    assert again == draw
    affine = np.diag([2.0, 2, 2, 1])
    maps = [texture_map(d, (20, 24, 22), affine, np.zeros(3)) for d in (draw, again)]
    assert maps[0].tobytes() == maps[1].tobytes()


def test_texture_varies_smoothly_around_1():
    draw = draw_individual(np.random.default_rng(2), JITTER, NAMES)
    texture = texture_map(draw, (60, 60, 60), np.diag([2.0, 2, 2, 1]), np.full(3, 60.0))
    assert texture.dtype == np.float32
    assert texture.mean() == pytest.approx(1, abs=0.005)
    assert texture.std() == pytest.approx(0.03, rel=0.15)
    assert max(np.diff(texture, axis=axis).std() for axis in range(3)) < 0.015


def test_texture_moves_both_relaxation_times_of_a_tissue():
    tissue = with_texture(read_tissues(3.0)['fat'], np.array([0.9, 1.1], np.float32))
    assert tissue.t1.dtype == np.float32
    np.testing.assert_allclose(tissue.t1 / tissue.t1[0], tissue.t2 / tissue.t2[0])
    assert tissue.at(np.array([True, False])).t2.shape == (1,)
    assert tissue.at(1).density == tissue.density
    assert tissue.chemical_shift < 0


def test_bundled_jitter_is_used_as_it_is():
    assert read_scanner(None, 7.0).tissues.t1 == 0.08
