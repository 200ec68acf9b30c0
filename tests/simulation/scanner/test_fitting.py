"""A protocol fitted to ratios of tissues."""

from dataclasses import replace

import pytest

from ssl2_bids.errors import DataError
from ssl2_bids.simulation.anatomy.tissues import read_tissues
from ssl2_bids.simulation.scanner.fitting import fit_protocol, tissue_ratios
from ssl2_bids.simulation.scanner.protocol_checks import fault
from ssl2_bids.simulation.scanner.protocols import Protocol, read_scanner

HIDDEN = Protocol(kind='flair', tr=6.5, te=0.12, ti=(2.0,), train=0.28)


@pytest.mark.parametrize('written', [(), ('tr', 'te', 'ti')])
def test_the_ratios_of_a_hidden_flair_are_found(written):
    wanted = tissue_ratios(HIDDEN, read_tissues(1.5))
    start = read_scanner(None, 1.5).protocols['FLAIR']
    before = tissue_ratios(start, read_tissues(1.5))
    assert abs(before['gm'] - wanted['gm']) > 0.04
    if written:
        start = replace(start, tr=6.5, te=0.12, ti=(2.0,))
    found = fit_protocol(start, wanted, 1.5, written=written)
    assert fault(found.protocol) is None
    assert found.reached == pytest.approx(wanted, abs=0.015)
    assert found.reached['gm'] == pytest.approx(wanted['gm'], abs=0.006)
    if written:  # what the site writes down is kept
        assert found.protocol.tr == pytest.approx(6.5, rel=0.05)
        assert found.protocol.ti[0] == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize(('suffix', 'field'), [('T1w', 1.5), ('T1w', 3), ('T2w', 3), ('FLAIR', 7)])
def test_every_kind_of_sequence_follows_its_ratios(suffix, field):
    start = read_scanner(None, field).protocols[suffix]
    now = tissue_ratios(start, read_tissues(field))
    wanted = {'gm': 1.04 * now['gm'], 'csf': 1.05 * now['csf']}
    found = fit_protocol(start, wanted, field)
    for tissue, value in wanted.items():
        assert abs(found.reached[tissue] - value) < 0.5 * abs(now[tissue] - value) + 0.01


def test_lesions_decide_between_protocols_of_equal_grey_matter_and_fluid():
    start = read_scanner(None, 3.0).protocols['FLAIR']
    now = tissue_ratios(start, read_tissues(3.0))
    plain = {'gm': now['gm'], 'csf': now['csf']}
    faint = fit_protocol(start, plain | {'lesion': 0.93 * now['lesion']}, 3.0)
    assert faint.reached['lesion'] < 0.95 * now['lesion']
    assert faint.reached['gm'] == pytest.approx(now['gm'], abs=0.03)
    assert faint.protocol.te < start.te
    # nothing is refused because of lesions: they differ from person to person
    black = fit_protocol(start, plain | {'lesion': 0.1}, 3.0)
    assert black.reached['lesion'] < now['lesion']


def test_ratios_that_no_such_sequence_gives_are_refused():
    start = read_scanner(None, 3.0).protocols['FLAIR']
    with pytest.raises(DataError, match='no flair sequence at 3 T gives the brightness'):
        fit_protocol(start, {'gm': 1.2, 'csf': 9.0}, 3.0, written=('te', 'tr', 'ti'))


def test_a_sequence_without_free_numbers_stays_as_it_is():
    start = read_scanner(None, 7.0).protocols['UNIT1']
    assert fit_protocol(start, {'gm': 1.0, 'csf': 0.1}, 7.0).protocol == start


def test_equal_ratios_give_equal_protocols():
    start = read_scanner(None, 1.5).protocols['FLAIR']
    wanted = tissue_ratios(HIDDEN, read_tissues(1.5))
    assert fit_protocol(start, wanted, 1.5) == fit_protocol(start, wanted, 1.5)
