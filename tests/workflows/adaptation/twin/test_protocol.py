"""From what was measured to a protocol file, and back into the simulator."""

from dataclasses import replace

import pytest

from ssl2_bids.errors import DataError
from ssl2_bids.simulation.anatomy.tissues import read_tissues
from ssl2_bids.simulation.scanner.protocols import read_scanner
from ssl2_bids.simulation.scanner.sequences import signals
from ssl2_bids.workflows.adaptation.twin.measure import SequenceFacts, Site, measured_of
from ssl2_bids.workflows.adaptation.twin.protocol import first_twin, second_twin, with_numbers

MEASURED = {
    'gm': (1.10, 1.15, 1.20),
    'csf': (0.06, 0.08, 0.10),
    'snr': (12.0, 15.0, 18.0),
    'field': (0.3, 0.4, 0.6),
    'lesion': (1.4, 1.6, 1.8),
}
FLAIR = SequenceFacts(
    'FLAIR', 'LAS', (0.8, 0.8, 5.0), (200.0, 236.0, 170.0), 4.2,
    {'tr': 6.5, 'te': 0.12, 'ti': 2.0, 'angles': 90.0, 'bandwidth': 140.0}, 'i', ('SE', 'IR'),
    MEASURED,
)  # fmt: skip
SITE = Site(1.5, 8, {'FLAIR': FLAIR})


def read(twin, folder):
    path = folder / 'twin.toml'
    path.write_text(twin.text)
    return read_scanner(path)


def test_the_file_is_a_protocol_of_the_simulator_with_the_grid_of_the_site(tmp_path):
    scanner = read(first_twin(SITE), tmp_path)
    geometry = scanner.geometries['FLAIR']
    assert geometry.axes == 'LAS'
    assert geometry.voxel == (0.8, 0.8, 5.0)
    assert geometry.thickness == 4.2
    assert geometry.shape == (250, 295, 34)
    assert (geometry.phase, geometry.readout) == ('i', 'j')
    assert scanner.field == 1.5
    assert scanner.snr == (15, 15)
    assert scanner.protocols['FLAIR'].bandwidth == 140
    assert scanner.protocols['FLAIR'].tr == pytest.approx(6.5, rel=0.06)


@pytest.mark.parametrize(
    ('voxel', 'phase', 'found'),
    [
        ((1.0, 1.0, 1.0), 'i', ('i', 'j')),
        ((1.0, 1.0, 1.0), 'k', ('k', 'j')),
        ((1.0, 1.0, 1.2), 'k', ('k', 'i')),
        ((1.0, 1.0, 1.0), '', ('j', 'k')),
        ((0.8, 0.8, 5.0), 'j', ('j', 'i')),
        ((0.8, 0.8, 5.0), 'k', ('i', 'j')),
    ],
)
def test_the_phase_encoding_is_that_of_the_sidecars(voxel, phase, found, tmp_path):
    one = replace(FLAIR, voxel=voxel, phase=phase, thickness=0.0)
    geometry = read(first_twin(Site(3.0, 8, {'FLAIR': one})), tmp_path).geometries['FLAIR']
    assert (geometry.phase, geometry.readout) == found


def test_each_number_has_its_origin():
    text = first_twin(SITE).text
    assert 'field = 1.5  # T, of the sidecars' in text
    assert 'InversionTime of the sidecars kept close' in text
    assert 'median grid of the images' in text
    bare = replace(FLAIR, written={}, words=(), phase='')
    text = first_twin(Site(None, 3, {'FLAIR': bare})).text
    assert 'field = 3.0  # T, assumed: no sidecar has the field' in text
    assert 'of the sidecars' not in text.replace('T, assumed: no sidecar has the field', '')


def test_the_second_protocol_corrects_what_the_pilot_shows(tmp_path):
    first = first_twin(SITE)
    pilot = {'gm': (1.08,) * 3, 'csf': (0.05,) * 3, 'snr': (13.0,) * 3, 'field': (0.2,) * 3}
    second = second_twin(SITE, first, {'FLAIR': pilot})
    before, after = first.fitted['FLAIR'], second.fitted['FLAIR']
    assert after.wanted['gm'] > before.wanted['gm'] + 0.06  # partial volume had diluted it
    assert after.wanted['csf'] == pytest.approx(before.reached['csf'] + 0.03)
    scanner = read(second, tmp_path)
    # anatomy added to the residuals of the pilot: less noise is needed than was measured
    assert scanner.snr[0] > 12
    assert scanner.snr[1] > 18
    assert scanner.receive.spread == pytest.approx((0.165, 0.33))  # twice 0.11 by the median


def test_each_contrast_has_its_own_noise(tmp_path):
    quiet = replace(
        FLAIR, suffix='T1w', written={}, words=('GR', 'IR'), voxel=(1.0, 1.0, 1.0), thickness=0.0,
        measured={'gm': (0.8,) * 3, 'csf': (0.15,) * 3, 'snr': (45.0,) * 3},
    )  # fmt: skip
    site = Site(1.5, 3, {'FLAIR': FLAIR, 'T1w': quiet})
    pilot = {
        'FLAIR': {**MEASURED, 'snr': (15.0,) * 3},
        'T1w': {**quiet.measured, 'snr': (15.0,) * 3},
    }
    first = first_twin(site)
    assert read(first, tmp_path).protocols['T1w'].averages == 1
    second = second_twin(site, first, pilot)
    scanner = read(second, tmp_path)
    assert scanner.protocols['T1w'].averages == pytest.approx(9, rel=0.05)  # (45 / 15) squared
    assert scanner.protocols['FLAIR'].averages == 1
    assert 'averages = 9.0  # from the noise of its images' in second.text
    unknown = {
        'FLAIR': FLAIR,
        'T1w': replace(quiet, measured={'gm': (0.8,) * 3, 'csf': (0.15,) * 3}),
    }
    again = second_twin(Site(1.5, 3, unknown), first, pilot)
    assert read(again, tmp_path).protocols['T1w'].averages == 1


def test_a_perfect_pilot_changes_no_ratio():
    first = first_twin(SITE)
    second = second_twin(SITE, first, {'FLAIR': MEASURED})
    for tissue, value in first.fitted['FLAIR'].reached.items():
        assert second.fitted['FLAIR'].wanted[tissue] == pytest.approx(value)


def test_lesions_are_as_bright_as_what_the_start_model_marks():
    first = first_twin(SITE)
    assert 'lesion' not in first.fitted['FLAIR'].wanted  # the pilot shows what a measure means
    faint = MEASURED | {'lesion': (1.3, 1.45, 1.6)}
    second = second_twin(SITE, first, {'FLAIR': faint})
    before, after = first.fitted['FLAIR'], second.fitted['FLAIR']
    assert after.wanted['lesion'] == pytest.approx(before.reached['lesion'] * 1.6 / 1.45)
    assert after.reached['lesion'] > before.reached['lesion'] + 0.02
    # nothing marked in the pilot: no correction
    unknown = {name: value for name, value in MEASURED.items() if name != 'lesion'}
    assert 'lesion' not in second_twin(SITE, first, {'FLAIR': unknown}).fitted['FLAIR'].wanted


def test_fluid_that_a_flair_suppresses_is_nulled_and_not_inverted():
    """The measure has partial volume and noise; with a negative fluid it would be the same."""
    bright = replace(FLAIR, measured=MEASURED | {'csf': (0.25, 0.30, 0.45)})
    first = first_twin(Site(1.5, 8, {'FLAIR': bright}))
    protocol = first.fitted['FLAIR'].protocol
    tissues = read_tissues(1.5)
    fluid, white = (float(signals(tissues[name], protocol)[0].real) for name in ('csf', 'wm'))
    assert abs(fluid / white) < 0.05
    assert protocol.ti[0] == pytest.approx(2.0, rel=0.05)
    pilot = MEASURED | {'csf': (0.30, 0.33, 0.36)}  # partial volume alone gives more
    assert second_twin(Site(1.5, 8, {'FLAIR': bright}), first, {'FLAIR': pilot}).fitted[
        'FLAIR'
    ].wanted['csf'] == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize('field', [1.5, 3.0, 7.0])
@pytest.mark.parametrize('te', [0.09, 0.12, 0.14])
def test_the_echo_time_of_a_2d_flair_is_the_one_that_acts(field, te):
    start, _ = with_numbers(read_scanner(None, field).protocols['FLAIR'], {'te': te})
    assert (start.te, start.nominal_te) == (te, 0.0)
    twin = first_twin(Site(field, 8, {'FLAIR': replace(FLAIR, written={'tr': 9.0, 'te': te})}))
    assert twin.fitted['FLAIR'].protocol.te == pytest.approx(te, rel=0.1)


@pytest.mark.parametrize('field', [3.0, 7.0])
@pytest.mark.parametrize('te', [0.27, 0.39, 0.45])
def test_the_echo_time_of_a_3d_flair_is_the_nominal_one(field, te):
    bundled = read_scanner(None, field).protocols['FLAIR']
    start, _ = with_numbers(bundled, {'te': te})
    assert start.nominal_te == te
    assert start.te == pytest.approx(bundled.te * te / bundled.nominal_te)


@pytest.mark.parametrize(('field', 'suffix'), [(1.5, 'FLAIR'), (3.0, 'T2w')])
def test_a_long_echo_time_does_not_act_where_the_bundled_one_does(field, suffix):
    bundled = read_scanner(None, field).protocols[suffix]
    start, _ = with_numbers(bundled, {'te': 0.4})
    assert (start.te, start.nominal_te, start.train) == (bundled.te, 0.4, 0.4)


MPRAGE = SequenceFacts(
    'T1w', 'LAS', (1.0, 1.0, 1.0), (180.0, 224.0, 196.0), words=('GR', 'IR'),
    measured={'snr': (20.0,) * 3, 'gm': (0.70,) * 3, 'csf': (0.25,) * 3},
)  # fmt: skip


def test_a_number_of_the_sidecars_that_was_not_taken_is_not_kept_close():
    """The repetition time in the sidecar of an MPRAGE may be that between two excitations."""
    written = {'tr': 0.0072, 'ti': 0.9, 'te': 0.003, 'angles': 9.0}
    start, taken = with_numbers(read_scanner(None, 3.0).protocols['T1w'], written)
    assert start.tr == 2.3
    assert set(taken) == {'ti', 'te', 'angles'}
    text = first_twin(Site(3.0, 8, {'T1w': replace(MPRAGE, written=written)})).text
    assert 'InversionTime of the sidecars kept close' in text
    assert 'RepetitionTime' not in text
    long = replace(FLAIR, written={'te': 0.34})
    text = first_twin(Site(3.0, 8, {'FLAIR': long})).text
    assert 'the share that acts of the EchoTime of the sidecars kept close' in text
    assert 'nominal_te = 0.34  # of the sidecars' in text
    odd = replace(FLAIR, written={'tr': 1.0, 'ti': 2.0, 'te': 0.12})
    assert 'RepetitionTime' not in first_twin(Site(1.5, 8, {'FLAIR': odd})).text


def test_a_short_inversion_time_has_fewer_pulses_before_it():
    bundled = read_scanner(None, 3.0).protocols['T1w']
    start, taken = with_numbers(bundled, {'ti': 0.45})
    assert (start.ti, taken) == ((0.45,), ('ti',))
    assert start.pulses == (56, 80)
    twin = first_twin(Site(3.0, 8, {'T1w': replace(MPRAGE, written={'ti': 0.45})}))
    assert twin.fitted['T1w'].protocol.ti[0] == pytest.approx(0.45, rel=0.1)
    assert with_numbers(bundled, {'ti': 0.8})[0].pulses == bundled.pulses


def test_contrasts_that_cannot_be_drawn_are_named():
    strange = replace(FLAIR, suffix='PDw')
    twin = first_twin(Site(3.0, 8, {'FLAIR': FLAIR, 'PDw': strange}))
    assert list(twin.table['sequences']) == ['FLAIR']
    assert 'no sequence for PDw' in twin.left_out['PDw']
    with pytest.raises(DataError, match='no contrast of the site can be drawn'):
        first_twin(Site(3.0, 8, {'FLAIR': strange}))


def test_a_contrast_that_the_pilot_did_not_draw_is_not_drawn_later():
    strange = replace(FLAIR, suffix='T1w', words=('SE',), written={},
                      measured=MEASURED | {'csf': (8.0, 9.0, 10.0)})  # fmt: skip
    site = Site(3.0, 8, {'FLAIR': FLAIR, 'T1w': strange})
    first = first_twin(site)
    assert set(first.left_out) == {'T1w'}
    second = second_twin(site, first, {'FLAIR': MEASURED})
    assert second.left_out == first.left_out
    assert list(second.table['sequences']) == ['FLAIR']


def test_a_spin_echo_with_an_inversion_time_has_an_inversion():
    measured = MEASURED | {'gm': (0.61,) * 3, 'csf': (0.07,) * 3}
    t1w = replace(FLAIR, suffix='T1w', words=('SE',), measured=measured,
                  written={'tr': 2.0, 'te': 0.02, 'ti': 0.8})  # fmt: skip
    fitted = first_twin(Site(3.0, 8, {'T1w': t1w})).fitted['T1w']
    assert fitted.protocol.kind == 'tse'
    assert fitted.protocol.ti[0] == pytest.approx(0.8, rel=0.1)
    assert fitted.reached['gm'] == pytest.approx(0.61, abs=0.06)


@pytest.mark.parametrize('measured', [{}, {'snr': (9.0, 9.0, 9.0)}])
def test_images_without_tissues_are_refused_by_name(measured):
    flat = replace(FLAIR, measured=measured)
    with pytest.raises(DataError, match=r'any image \(FLAIR\).*constant'):
        first_twin(Site(1.5, 8, {'FLAIR': flat}))


def test_fluid_as_bright_as_no_flair_makes_it():
    odd = replace(FLAIR, measured=MEASURED | {'csf': (8.0, 9.0, 10.0)})
    with pytest.raises(DataError, match='FLAIR: no flair sequence at 1.5 T'):
        first_twin(Site(1.5, 8, {'FLAIR': odd}))


def test_impossible_numbers_of_sidecars_are_not_taken(tmp_path):
    odd = replace(FLAIR, written={'tr': 1.0, 'ti': 2.0, 'te': 0.12})
    scanner = read(first_twin(Site(1.5, 8, {'FLAIR': odd})), tmp_path)
    assert scanner.protocols['FLAIR'].tr > 2


@pytest.mark.parametrize(
    ('words', 'thick', 'kind'),
    [(('SE',), 1.0, 'tse'), (('GR', 'IR'), 1.0, 'mprage'), (('GR',), 4.0, 'gre'), ((), 4.0, 'tse'),
     ((), 1.0, 'mprage')],
)  # fmt: skip
def test_the_kind_of_a_t1w(words, thick, kind, tmp_path):
    t1w = SequenceFacts(
        'T1w', 'RAS', (1.0, 1.0, thick), (180.0, 220.0, 160.0), words=words,
        measured={'snr': (20.0, 20.0, 20.0), 'gm': (0.88,) * 3, 'csf': (0.42,) * 3},
    )  # fmt: skip
    scanner = read(first_twin(Site(3.0, 4, {'T1w': t1w})), tmp_path)
    assert scanner.protocols['T1w'].kind == kind


def test_a_ratio_of_tissues_that_were_not_separated_is_no_measure():
    rows = [
        {'wm2gm': 0.8, 'csf2wm': 0.1, 'cjv': 0.6},
        {'wm2gm': 1.05, 'csf2wm': 0.2, 'cjv': 9.4},
    ]
    found = measured_of(rows)
    assert found['gm'] == (1.25, 1.25, 1.25)
    assert found['csf'][1] == pytest.approx(0.15)
    assert 'gm' not in measured_of(rows[1:])


def test_measures_are_percentiles_of_what_is_known():
    rows = [{'wm2gm': 0.8, 'csf2wm': 0.1, 'tissue_snr': 20, 'inu_range': None}, {'wm2gm': None}]
    assert measured_of(rows) == {
        'gm': (1.25, 1.25, 1.25), 'csf': (0.1, 0.1, 0.1), 'snr': (20, 20, 20),
    }  # fmt: skip
