import sys
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
import tomli_w

from ssl2_bids.errors import DataError, NoInputError, UsageError
from ssl2_bids.simulation.scanner.protocol_checks import fault, geometry_fault
from ssl2_bids.simulation.scanner.protocols import (
    FIELDS,
    Geometry,
    Protocol,
    read_scanner,
)
from ssl2_bids.tables import from_table

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

THICK = """\
name = "Site"
field = 3

[sequences.T1w]
kind = "tse"
tr = 2.0
te = 0.02
ti = [0.8]
train = 0.1
geometry = { axes = "RAS", voxel = [0.9, 0.9, 3.3], extent = [180, 220, 160] }
"""


def bundled(field):
    folder = resources.files('ssl2_bids') / 'resources' / 'scanners'
    return tomllib.loads((folder / FIELDS[field]).read_text(encoding='utf-8'))


def written(tmp_path, content):
    path = tmp_path / 'site.toml'
    path.write_text(content if isinstance(content, str) else tomli_w.dumps(content))
    return path


def changed(path, value, field=3.0):
    """The bundled scanner with one key changed, or taken away (None)."""
    table = bundled(field)
    *parents, last = path.split('.')
    inner = table
    for name in parents:
        inner = inner[name]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return table


# Bundled scanners


@pytest.mark.parametrize(
    ('field', 'suffixes'),
    [
        (1.5, {'T1w', 'FLAIR', 'T2w', 'T2starw'}),
        (3.0, {'T1w', 'FLAIR', 'T2w', 'T2starw', 'MEGRE'}),
        (7.0, {'UNIT1', 'T1w', 'FLAIR', 'T2w', 'T2starw', 'MEGRE'}),
    ],
)
def test_bundled_scanners_have_the_protocols_of_their_field(field, suffixes):
    scanner = read_scanner(None, field)
    assert scanner.field == field
    assert set(scanner.protocols) == set(scanner.geometries) == suffixes


def test_settings_are_those_of_the_file():
    scanner = read_scanner(None, 7.0)
    uni = scanner.protocols['UNIT1']
    assert (uni.tr, uni.ti, uni.angles, uni.pulses) == (6.0, (0.8, 2.7), (7.0, 5.0), (80, 80))
    assert uni.image_count == 2
    assert scanner.protocols['FLAIR'].preparation > 0
    echoes = scanner.protocols['MEGRE']
    assert echoes.echo_times == echoes.echoes
    assert echoes.te == echoes.echoes[0]
    assert echoes.image_count == len(echoes.echoes) > 3
    assert scanner.geometries['UNIT1'].voxel == (0.7, 0.7, 0.7)
    assert read_scanner(None, 3.0).protocols['FLAIR'].echo_times == (0.1,)


def test_fields_can_be_whole_numbers():
    assert read_scanner(None, 3) == read_scanner(None, 3.0)


def test_clinical_scanner_has_thick_slices():
    for geometry in read_scanner(None, 1.5).geometries.values():
        assert max(geometry.voxel) >= 3
        assert 'ijk'[int(np.argmax(geometry.voxel))] not in (geometry.phase, geometry.readout)


def test_shape_follows_the_axes():
    geometry = Geometry('PSR', (1.0, 2.0, 4.0), (180, 220, 160), phase='k', readout='i')
    assert geometry.shape == (220, 80, 45)
    assert (geometry.phase_axis, geometry.readout_axis) == (2, 0)


def test_slices_with_gaps(tmp_path):
    text = THICK.replace('extent', 'thickness = 3.0, extent')
    geometry = read_scanner(written(tmp_path, text)).geometries['T1w']
    assert geometry.share == pytest.approx(3.0 / 3.3)
    assert replace(geometry, thickness=0.0).share == 1
    for wrong_thickness in (3.4, 0.9, -1):
        text = THICK.replace('extent', f'thickness = {wrong_thickness}, extent')
        with pytest.raises(DataError, match='geometry.thickness'):
            read_scanner(written(tmp_path, text))


@pytest.mark.parametrize('field', [None, 2.0, 9.4])
def test_a_field_without_bundled_scanner_is_refused(field):
    with pytest.raises(UsageError, match=r'Choose from 1.5, 3, 7'):
        read_scanner(None, field)


# Files of other scanners


def test_a_file_can_make_t1w_a_thick_turbo_spin_echo(tmp_path):
    scanner = read_scanner(written(tmp_path, THICK), 3.0)
    assert scanner.name == 'Site'
    assert list(scanner.protocols) == ['T1w']
    assert scanner.protocols['T1w'].kind == 'tse'
    assert scanner.geometries['T1w'].shape == (200, 244, 48)
    # what it leaves out is that of the bundled scanner
    assert replace(scanner, name='', protocols={}, geometries={}) == replace(
        read_scanner(None, 3.0), name='', protocols={}, geometries={}
    )


def test_left_out_spreads_come_from_the_nearest_field(tmp_path):
    scanner = read_scanner(written(tmp_path, THICK.replace('field = 3', 'field = 9.4')))
    assert scanner.field == 9.4
    assert scanner.transmit == read_scanner(None, 7.0).transmit


def test_left_out_keys_of_a_table_come_from_the_nearest_field_too(tmp_path):
    text = THICK.replace('field = 3', 'field = 9.4') + '\n[receive]\nspread = [0.3, 0.5]\n'
    scanner = read_scanner(written(tmp_path, text))
    usual = read_scanner(None, 7.0)
    assert scanner.receive == replace(usual.receive, spread=(0.3, 0.5))
    assert scanner.transmit == usual.transmit


@pytest.mark.parametrize('field', [1.5, 3.0, 7.0])
def test_a_copy_of_a_bundled_file_is_that_scanner(tmp_path, field):
    path = written(tmp_path, bundled(field))
    assert read_scanner(path) == read_scanner(path, field) == read_scanner(None, field)


def test_another_field_than_asked_for_is_refused(tmp_path):
    with pytest.raises(
        UsageError, match='for a scanner of 3 T, but the requested field is 7'
    ) as caught:
        read_scanner(written(tmp_path, THICK), 7.0)
    assert 'site.toml' in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(NoInputError, match='nowhere.toml'):
        read_scanner(tmp_path / 'nowhere.toml')
    with pytest.raises(NoInputError):
        read_scanner(tmp_path)


@pytest.mark.parametrize('content', ['field = ', 'a = 1\na = 2', '\x00'])
def test_what_is_not_toml_is_refused(tmp_path, content):
    with pytest.raises(DataError, match='not TOML'):
        read_scanner(written(tmp_path, content))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / 'site.toml'
    path.write_bytes(b'\xff\xfe\x00name')
    with pytest.raises(DataError, match='not TOML'):
        read_scanner(path)


FAULTS = [
    ('fielt', 3.0, '"fielt" is unknown'),
    ('protocols', {}, '"protocols" is unknown'),
    ('field', None, '"field" is missing'),
    ('field', 'three', '"field" is \'three\'. It must be a finite number'),
    ('field', True, '"field" is True'),
    ('field', 300.0, 'field: 300 T is not between'),
    ('field', float('nan'), '"field" is nan'),
    ('name', 5, '"name" is 5. It must be a text'),
    ('name', None, '"name" is missing'),
    ('snr', [25], r'"snr" is \[25\]. It must be a list of 2'),
    ('snr', [60, 25], r'snr: \[60.0, 25.0\] is not a range'),
    ('snr', [0, 25], 'snr: .* is not within 1 and 1000'),
    ('sequences', {}, 'no sequences'),
    ('sequences', 7, 'no sequences'),
    ('sequences.PDw', {'kind': 'tse'}, 'sequences.PDw: the suffix is not one of'),
    ('sequences.T1w', 7, '"sequences.T1w" is 7. It must be a table'),
    ('sequences.T1w.kind', None, 'sequences.T1w.kind: None is not mprage or'),
    ('sequences.T1w.kind', 'mp2rage', "sequences.T1w.kind: 'mp2rage' is not mprage or"),
    ('sequences.T1w.tr', None, '"sequences.T1w.tr" is missing'),
    ('sequences.T1w.tr', 2300, 'sequences.T1w.tr: 2300 s is not between'),
    ('sequences.T1w.tr', -2.3, 'sequences.T1w.tr: -2.3 s'),
    ('sequences.T1w.tr', '2.3', '"sequences.T1w.tr" is \'2.3\'. It must be a finite number'),
    ('sequences.T1w.tr', 1.2, 'sequences.T1w.pulses: the last train ends after'),
    ('sequences.T1w.te', 0.0, 'sequences.T1w.te: an echo time is not above 0'),
    ('sequences.T1w.te', 0.02, 'sequences.T1w.te: the echo comes after'),
    ('sequences.T1w.ti', [0.9, 1.9], 'sequences.T1w.ti: mprage has 1, not 2'),
    ('sequences.T1w.ti', 0.9, '"sequences.T1w.ti" is 0.9. It must be a list'),
    ('sequences.T1w.ti', [3.0], 'sequences.T1w.ti: 3 s is not below the repetition'),
    ('sequences.T1w.ti', [-0.9], 'sequences.T1w.ti: an inversion time is not above 0'),
    ('sequences.T1w.ti', [0.3], 'sequences.T1w.ti: a train of excitations begins before'),
    ('sequences.T1w.angles', [], 'sequences.T1w.angles: mprage has 1, not 0'),
    ('sequences.T1w.angles', [120], 'sequences.T1w.angles: not above 0 and up to 40'),
    ('sequences.T1w.angles', [0], 'sequences.T1w.angles'),
    ('sequences.T1w.pulses', [80], r'"sequences.T1w.pulses" is \[80\]. It must be a list of 2'),
    (
        'sequences.T1w.pulses',
        [80.5, 80],
        '"sequences.T1w.pulses" is 80.5. It must be a whole number',
    ),
    ('sequences.T1w.pulses', [-80, 80], 'sequences.T1w.pulses: not a valid number'),
    ('sequences.T1w.spacing', None, '"sequences.T1w.spacing" is missing'),
    ('sequences.T1w.flip', 9, '"sequences.T1w.flip" is unknown to a sequence of kind mprage'),
    ('sequences.T1w.train', 0.3, '"sequences.T1w.train" is unknown to a sequence of kind mprage'),
    ('sequences.T1w.efficiency', 1.2, 'sequences.T1w.efficiency: 1.2 is not between'),
    ('sequences.T1w.fat', -1, 'sequences.T1w.fat: -1 is not between 0 and 1'),
    ('sequences.T1w.bandwidth', 240000, 'sequences.T1w.bandwidth: 240000 is not between'),
    ('sequences.T1w.averages', 0, 'sequences.T1w.averages: 0 is not between 0.01 and 100'),
    ('sequences.FLAIR.ti', [6.0], 'sequences.FLAIR.ti: 6 s is not below the repetition'),
    ('sequences.FLAIR.ti', [1.65, 2.0], 'sequences.FLAIR.ti: flair has one, not 2'),
    ('sequences.FLAIR.ti', [], 'sequences.FLAIR.ti: flair has one, not 0'),
    ('sequences.FLAIR.ti', None, '"sequences.FLAIR.ti" is missing'),
    ('sequences.FLAIR.train', 5.5, 'sequences.FLAIR.train: 5.5 s of echoes do not fit'),
    ('sequences.FLAIR.train', 0.05, 'sequences.FLAIR.te: 0.1 s is longer than the echo train'),
    ('sequences.FLAIR.train', -1.0, 'sequences.FLAIR.train: -1 s of echoes'),
    ('sequences.FLAIR.nominal_te', 0.05, 'sequences.FLAIR.nominal_te: is not between te'),
    ('sequences.FLAIR.preparation', -0.1, 'sequences.FLAIR.preparation: is negative'),
    ('sequences.FLAIR.preparation', 4.0, 'sequences.FLAIR.train: 0.65 s of echoes do not'),
    ('sequences.FLAIR.refocusing', 9, 'sequences.FLAIR.refocusing: 9 is not between'),
    ('sequences.T2w.preparation', 0.1, 'sequences.T2w.preparation: needs an inversion'),
    ('sequences.T2starw.te', 0.5, 'sequences.T2starw.te: the echo comes after'),
    ('sequences.MEGRE.echoes', [0.01], 'sequences.MEGRE.echoes: megre has at least two'),
    ('sequences.MEGRE.echoes', [], 'sequences.MEGRE'),
    ('sequences.MEGRE.echoes', [0.02, 0.01], 'sequences.MEGRE.echoes: the echo times do not'),
    (
        'sequences.MEGRE.echoes',
        [0.02, 0.9],
        'sequences.MEGRE.echoes: the echo times do not increase',
    ),
    ('sequences.MEGRE.te', 0.01, '"sequences.MEGRE.te" is unknown'),
    ('sequences.T1w.geometry', None, '"sequences.T1w.geometry.axes" is missing'),
    ('sequences.T1w.geometry.axes', 'LAL', "sequences.T1w.geometry.axes: 'LAL' are not three"),
    ('sequences.T1w.geometry.axes', 'LASR', 'sequences.T1w.geometry.axes'),
    ('sequences.T1w.geometry.axes', 'LXS', 'sequences.T1w.geometry.axes'),
    ('sequences.T1w.geometry.voxel', [1.0, 1.0], '"sequences.T1w.geometry.voxel" is .* list of 3'),
    ('sequences.T1w.geometry.voxel', [0, 1, 1], 'sequences.T1w.geometry.voxel: .* within 0.2'),
    ('sequences.T1w.geometry.voxel', [0.2, 0.2, 0.2], 'sequences.T1w.geometry.voxel: the image'),
    ('sequences.T1w.geometry.extent', [1, 224, 196], 'sequences.T1w.geometry.extent'),
    ('sequences.T1w.geometry.phase', 'x', 'sequences.T1w.geometry.phase: is not i, j or k'),
    ('sequences.T1w.geometry.phase', 'k', 'sequences.T1w.geometry.phase: .* the same axis'),
    ('sequences.T1w.geometry.slices', 3, '"sequences.T1w.geometry.slices" is unknown'),
    ('tissues.t1', 8.0, 'tissues.t1: 8.0 is not within 0 and 0.3'),
    ('tissues.t3', 0.1, '"tissues.t3" is unknown'),
    ('tissues', 3, '"tissues" is 3. It must be a table'),
    ('transmit.dome', [0.5, 0.1], 'transmit.dome: .* is not a range'),
    ('transmit.width', [0, 50], 'transmit.width: .* is not within'),
    ('transmit.mean', [0.9, float('inf')], '"transmit.mean" is inf. It must be a finite number'),
    ('off_resonance.cavity', [0, 300], 'off_resonance.cavity: .* is not within'),
    ('receive.spread', [-0.1, 0.2], 'receive.spread: .* is not within'),
    ('receive.rim', ['a', 'b'], '"receive.rim" is \'a\'. It must be a finite number'),
]


@pytest.mark.parametrize(('key', 'value', 'message'), FAULTS)
def test_faults_of_a_file_are_named(tmp_path, key, value, message):
    path = written(tmp_path, changed(key, value))
    with pytest.raises(DataError, match=message) as caught:
        read_scanner(path)
    assert str(path) in str(caught.value)
    assert caught.value.advice


def test_trains_of_mp2rage_must_not_overlap(tmp_path):
    path = written(tmp_path, changed('sequences.UNIT1.ti', [0.8, 1.5], field=7.0))
    with pytest.raises(DataError, match=r'sequences.UNIT1.ti: a train .* inside the one before'):
        read_scanner(path)


def test_possible_settings_have_no_fault():
    for field in FIELDS:
        scanner = read_scanner(None, field)
        assert all(fault(protocol) is None for protocol in scanner.protocols.values())
        assert all(geometry_fault(g) is None for g in scanner.geometries.values())


def test_tables_become_dataclasses_and_name_their_faults():
    geometry = from_table(Geometry, {'axes': 'RAS', 'voxel': [1, 1, 2], 'extent': [9, 9, 9]})
    assert geometry.voxel == (1.0, 1.0, 2.0)
    assert isinstance(geometry.voxel[2], float)
    with pytest.raises(DataError, match='"tr" is missing'):
        from_table(Protocol, {'kind': 'gre'})
    with pytest.raises(DataError, match='is not a table'):
        from_table(Protocol, [1, 2])
