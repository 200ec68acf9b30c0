"""The protocol of a twin, with reasons: what was measured, else what a bundled scanner has.

The protocol is fitted twice. The first one takes the measured ratios for those of pure tissues.
A few pilot people drawn with it and measured as the site was show what partial volume, lesions and
noise make of a ratio; the second one is corrected by that. The brightness of lesions is fitted in
the second one alone, by what the start model marks with confidence at the site and in the pilot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ssl2_bids.errors import DataError
from ssl2_bids.simulation.scanner.fitting import (
    FLUID,
    GREY,
    LESION,
    MAX_MISS,
    FittedProtocol,
    fit_protocol,
    significant,
)
from ssl2_bids.simulation.scanner.protocol_checks import (
    KINDS_OF_SUFFIX,
    fault,
)
from ssl2_bids.simulation.scanner.protocols import FIELDS, Protocol, Scanner, read_scanner
from ssl2_bids.tables import to_table
from ssl2_bids.workflows.adaptation.twin.measure import NUMBERS, SequenceFacts, Site
from ssl2_bids.workflows.adaptation.twin.protocol_file import (
    geometry_table,
    protocol_text,
    sequence_table,
    within,
)

DEFAULT_FIELD = 3.0  # T, where no sidecar has one
SNR_LIMITS = (3.0, 300.0)
SPREAD_LIMITS = (0.01, 0.6)
AVERAGES_LIMITS = (0.02, 50.0)
ROOM = 0.9  # of a written inversion time, for the pulses before it: the fit may shorten it
LONG_ECHO = 0.2  # s; an echo time beyond is the nominal one of a train with variable angles
THICK = 2.0  # mm; a T1w of thicker slices is a spin echo unless its sidecar states otherwise
FIRST_MISS = 0.6  # of a ratio, before the pilot shows what partial volume adds to fluid
SUPPRESSED = 0.6  # of white matter; fluid below that is nulled in a FLAIR
LESION_LIMITS = (0.6, 1.6)  # of the correction of the brightness of lesions
MAX_DILUTION = 2.0  # of the contrast of grey matter by partial volume
REFERENCES = (
    'FLAIR',
    'T1w',
    'T2w',
    'T2starw',
)  # the first one that is there gives noise and field


@dataclass(frozen=True)
class Twin:
    """A protocol with its reasons.

    Attributes
    ----------
    table : what a protocol file holds.
    reasons : by dotted key, where a number comes from.
    fitted : by contrast.
    left_out : by contrast, why it is not drawn.
    """

    table: dict[str, Any]
    reasons: dict[str, str] = field(default_factory=dict)
    fitted: dict[str, FittedProtocol] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The protocol file."""
        return protocol_text(self.table, self.reasons)


def first_twin(site: Site) -> Twin:
    """The protocol of pilot people: ratios as measured, noise and receive field in the middle.

    Where a FLAIR has suppressed its fluid, the fluid of the pilot is nulled: what is measured
    there is partial volume and noise. A sequence with as much signal in pure fluid could have it
    with the sign of before the null, and would then lose lesions beside fluid: both cancel.

    Raises
    ------
    DataError : no contrast of the site can be drawn; the reasons are named.
    """
    wanted = {
        contrast: {tissue: one.measured[tissue][1] for tissue in (GREY, FLUID)}
        for contrast, one in site.sequences.items()
        if {GREY, FLUID} <= one.measured.keys()
    }
    for contrast, ratios in wanted.items():
        if site.sequences[contrast].suffix == 'FLAIR' and ratios[FLUID] < SUPPRESSED:
            ratios[FLUID] = 0.0
    reference = reference_of(site)
    measured = site.sequences[reference].measured
    bundled = nearest_scanner(site)
    snr = significant(within(measured['snr'][1], SNR_LIMITS), 3)
    spread = significant(sum(bundled.receive.spread) / 2, 3)
    return _twin(site, wanted, (snr, snr), (spread, spread), miss=FIRST_MISS)


def second_twin(site: Site, first: Twin, pilot: Mapping[str, Mapping[str, Any]]) -> Twin:
    """The protocol of the twin, corrected by what pilot people of the first one show.

    Parameters
    ----------
    pilot : measures of the pilot people, by contrast, as those of a site.

    Raises
    ------
    DataError : see :func:`first_twin`.
    """
    wanted = {}
    for contrast, fitted in first.fitted.items():
        there, here = site.sequences[contrast].measured, pilot.get(contrast, {})
        if not fitted.reached or not {GREY, FLUID} <= here.keys():
            wanted[contrast] = fitted.wanted
            continue
        pure, seen = fitted.reached[GREY] - 1, here[GREY][1] - 1
        dilution = within(pure / seen, (1.0, MAX_DILUTION)) if pure * seen > 0 else 1.0
        grey = fitted.reached[GREY] + dilution * (there[GREY][1] - here[GREY][1])
        fluid = fitted.reached[FLUID]
        if there[FLUID][1] > 1:
            fluid *= there[FLUID][1] / max(here[FLUID][1], 1e-3)
        else:
            fluid += there[FLUID][1] - here[FLUID][1]
        wanted[contrast] = {GREY: max(grey, 0.0), FLUID: max(fluid, 0.0)}
        if LESION in there and LESION in here:
            factor = within(there[LESION][1] / here[LESION][1], LESION_LIMITS)
            wanted[contrast][LESION] = fitted.reached[LESION] * factor
    reference = reference_of(site)
    there, here = site.sequences[reference].measured, pilot.get(reference, {})
    drawn = first.table['snr'][0]
    snr = _noise(drawn, there['snr'], here.get('snr'))
    averages = {
        contrast: _averages(drawn, site.sequences, pilot, contrast, reference)
        for contrast in first.fitted
        if contrast != reference
    }
    spread = first.table['receive']['spread']
    spread = (spread[0], spread[1])
    if 'field' in there and 'field' in here:
        factor = spread[0] / max(here['field'][1], 1e-6)
        low, high = (within(factor * value, SPREAD_LIMITS) for value in there['field'][::2])
        spread = (significant(low, 3), significant(high, 3))
    return _twin(site, wanted, snr, spread, averages=averages, refused=first.left_out)


def _averages(
    drawn: float,
    sequences: Mapping[str, SequenceFacts],
    pilot: Mapping[str, Mapping[str, Any]],
    contrast: str,
    reference: str,
) -> float:
    """Averages with which a contrast has its own noise beside that of the reference; 1 if unknown.

    The medians over people of the two are compared.
    """
    if 'snr' not in sequences[contrast].measured:
        return 1.0
    own, usual = (
        _noise(drawn, (sequences[name].measured['snr'][1],) * 3, pilot.get(name, {}).get('snr'))[0]
        for name in (contrast, reference)
    )
    return significant(within((own / usual) ** 2, AVERAGES_LIMITS), 2)


def _noise(
    drawn: float, there: tuple[float, ...], here: tuple[float, ...] | None
) -> tuple[float, float]:
    """Range of the ratio of signal to noise; what anatomy adds to the residuals is taken off."""
    anatomy = max(here[1] ** -2 - drawn**-2, 0.0) if here else 0.0
    found = []
    for seen in there[::2]:
        noise = max(seen**-2 - anatomy, 0.1 * seen**-2)
        found.append(significant(within(noise**-0.5, SNR_LIMITS), 3))
    return found[0], found[1]


def reference_of(site: Site) -> str:
    """The contrast whose noise and receive field are those of the scanner.

    Raises
    ------
    DataError : none has measures: images are constant, or show no tissues.
    """
    needed = {GREY, FLUID, 'snr'}
    for contrast in REFERENCES:
        if contrast in site.sequences and needed <= site.sequences[contrast].measured.keys():
            return contrast
    names = ', '.join(site.sequences)
    raise DataError(
        f'brightness of the tissues and noise cannot be measured in any image ({names}): images '
        'are constant, or their tissues cannot be separated',
        advice='Look at the images; the measures are in the files *_quality.json.',
    )


def nearest_scanner(site: Site) -> Scanner:
    """The bundled scanner of the nearest field."""
    strength = site.field or DEFAULT_FIELD
    return read_scanner(None, min(FIELDS, key=lambda known: abs(math.log(known / strength))))


def _twin(
    site: Site,
    wanted: Mapping[str, Mapping[str, float]],
    snr: tuple[float, float],
    spread: tuple[float, float],
    *,
    miss: float = MAX_MISS,
    averages: Mapping[str, float] | None = None,
    refused: Mapping[str, str] | None = None,
) -> Twin:
    strength, bundled = site.field or DEFAULT_FIELD, nearest_scanner(site)
    source = f'of the bundled scanner "{bundled.name}"'
    reasons = {
        'field': 'T, of the sidecars' if site.field else 'T, assumed: no sidecar has the field',
        'snr': 'white matter over noise, percentiles 10 and 90 of the people measured',
        'receive.spread': 'from the range of the receive fields that N4 found',
    }
    receive = to_table(bundled.receive) | {'spread': list(spread)}
    sequences: dict[str, Any] = {}
    fitted: dict[str, FittedProtocol] = {}
    left_out = dict(refused or {})
    for contrast, one in site.sequences.items():
        if contrast in left_out:
            continue
        try:
            start, taken, where = start_of_sequence(one, bundled)
            made = fit_protocol(
                start,
                wanted.get(contrast, {}),
                strength,
                written=taken,
                miss=miss,
            )
        except DataError as error:
            left_out[contrast] = str(error.message)
            continue
        fitted[contrast] = made
        repeated = (averages or {}).get(contrast, 1.0)
        row = sequence_table(replace(made.protocol, averages=repeated))
        row['geometry'] = geometry_table(one)
        sequences[one.suffix] = row
        key = f'sequences.{one.suffix}'
        reasons[f'{key}.kind'] = f'start values: {where or source}'
        reasons[f'{key}.averages'] = 'from the noise of its images beside that of "snr"'
        for name in row:
            if name in made.moved:
                reasons[f'{key}.{name}'] = 'fitted to the brightness of the tissues'
                if name in taken:
                    number = NUMBERS[name]
                    if name == 'te' and 'nominal_te' in taken:
                        number = f'the share that acts of the {number}'
                    reasons[f'{key}.{name}'] += f', {number} of the sidecars kept close'
            elif name in taken:
                reasons[f'{key}.{name}'] = 'of the sidecars'
        reasons[f'{key}.geometry'] = 'median grid of the images'
    if not sequences:
        why = '; '.join(f'{contrast}: {reason}' for contrast, reason in left_out.items())
        raise DataError(f'no contrast of the site can be drawn ({why})')
    table = {
        'name': f'twin of a site, {strength:g} T',
        'field': float(strength),
        'snr': list(snr),
        'receive': receive,
        'sequences': sequences,
    }
    return Twin(table, reasons, fitted, left_out)


def start_of_sequence(
    one: SequenceFacts, bundled: Scanner
) -> tuple[Protocol, tuple[str, ...], str]:
    """First values of a sequence: of a bundled scanner, with the numbers of the sidecars.

    Returns
    -------
    The sequence, the names of the numbers of the sidecars in it, and where the others come from.

    Raises
    ------
    DataError : the simulator has no sequence for images of this suffix.
    """
    if one.suffix not in KINDS_OF_SUFFIX:
        raise DataError(f'the simulator has no sequence for {one.suffix}')
    kind = _kind(one, bundled)
    scanners = [bundled, *(read_scanner(None, strength) for strength in FIELDS)]
    found = next(
        (
            (scanner.protocols[suffix], f'of the bundled scanner "{scanner.name}", {suffix}')
            for suffix in (one.suffix, *KINDS_OF_SUFFIX)
            for scanner in scanners
            if suffix in scanner.protocols and scanner.protocols[suffix].kind == kind
        ),
        None,
    )
    if found is None:
        raise DataError(f'no bundled scanner has a sequence of kind {kind} for {one.suffix}')
    start, where = found
    return *with_numbers(start, one.written), where


def _kind(one: SequenceFacts, bundled: Scanner) -> str:
    """The kind of sequence, by the words of the sidecar, else by grid and bundled scanner."""
    possible = KINDS_OF_SUFFIX[one.suffix]
    if len(possible) == 1:
        return possible[0]
    if 'SE' in one.words:
        return 'tse'
    if 'GR' in one.words:
        return 'mprage' if 'IR' in one.words or 'ti' in one.written else 'gre'
    if one.suffix in bundled.protocols and max(one.voxel) <= THICK:
        return bundled.protocols[one.suffix].kind
    return 'tse' if max(one.voxel) > THICK else possible[0]


def with_numbers(
    start: Protocol, written: Mapping[str, float]
) -> tuple[Protocol, tuple[str, ...]]:
    """A sequence with the numbers of sidecars; one that would make it impossible is not taken.

    An echo time above ``LONG_ECHO`` is that of a long train with variable angles: it is the
    nominal one, and the one that acts is scaled with that of a start that has both. A shorter one
    acts itself. An MPRAGE has fewer pulses before an inversion time that is too short for them.

    Returns
    -------
    The sequence, and the names of the numbers that were taken.
    """
    found, te, taken = start, written.get('te', 0.0), []
    nominal = start.kind in ('flair', 'tse') and te > LONG_ECHO
    if nominal:
        factor = te / start.nominal_te if start.nominal_te else 1.0
        scaled = replace(found, te=found.te * factor, nominal_te=te, train=max(found.train, te))
        taken = ['nominal_te', *(['te'] if start.nominal_te else [])]
        if fault(scaled):
            scaled, taken = replace(found, nominal_te=0.0), []
        found = scaled
    changes: dict[str, dict[str, Any]] = {}
    if 'tr' in written and start.kind in ('flair', 'tse', 'gre'):
        changes['tr'] = {'tr': written['tr']}
    if 'ti' in written and (len(start.ti) == 1 or start.kind == 'tse'):
        changes['ti'] = {'ti': (written['ti'],)}
        before, after = start.pulses
        if before * start.spacing > written['ti']:
            changes['ti']['pulses'] = (math.floor(ROOM * written['ti'] / start.spacing), after)
    if 'te' in written and not nominal and not start.echoes:
        train = {'train': max(start.train, te)} if start.train else {}
        changes['te'] = {'te': te, 'nominal_te': 0.0, **train}
    if 'angles' in written and len(start.angles) == 1:
        changes['angles'] = {'angles': (written['angles'],)}
    if 'bandwidth' in written:
        changes['bandwidth'] = {'bandwidth': written['bandwidth']}
    together: dict[str, Any] = {}
    for change in changes.values():
        together |= change
    whole = replace(found, **together)
    if not fault(whole):
        return whole, (*taken, *changes)
    for name, change in changes.items():
        tried = replace(found, **change)
        if not fault(tried):
            found = tried
            taken.append(name)
    return found, tuple(taken)
