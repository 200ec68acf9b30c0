"""What a simulated scanner is: sequences, grids and spreads, read from a TOML file and checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ssl2_bids.errors import DataError, UsageError
from ssl2_bids.simulation.anatomy.tissues import FIELD_RANGE, TissueJitter
from ssl2_bids.simulation.scanner.fields import OffResonanceRanges, ReceiveRanges, TransmitRanges
from ssl2_bids.simulation.scanner.protocol_checks import (
    KINDS_OF_SUFFIX,
    check_ranges,
    check_sequence,
    fault,
    geometry_fault,
    source_of,
    wrong,
)
from ssl2_bids.tables import bundled_table, check_keys, convert, from_table, read_toml

FIELDS = {1.5: '1.5t.toml', 3.0: '3t.toml', 7.0: '7t.toml'}  # bundled scanners by field in T
WITH_PHASE = ('mp2rage', 'megre')  # kinds of sequences that have phase images
NEEDED = ('name', 'field', 'sequences')
TABLES = (
    'snr',
    'tissues',
    'transmit',
    'off_resonance',
    'receive',
)  # can be left out, also in part


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Settings of one sequence: times in s, angles in degrees.

    Attributes
    ----------
    kind : mprage, mp2rage, flair (turbo spin echo with inversion), tse (with inversion if
        ``ti`` is given), gre or megre (spoiled, one or several echoes); sa2rage is for B1+ maps
        and is not simulated as an image.
    tr : one repetition, from inversion to inversion or from excitation to excitation.
    te : echo time that acts on the signal (for a turbo spin echo the effective one, which for
        variable refocusing angles is far below that on the console); of a megre the first.
    ti : inversion times to each k-space centre; empty without inversion.
    angles : excitation angle of each gradient-echo train; empty for a turbo spin echo.
    spacing, pulses : of a gradient-echo train: time between excitations, their number before
        and after the k-space centre (``n (pF - 1/2)`` and ``n / 2`` with partial Fourier pF).
    train : duration of the spin-echo train.
    preparation : echo time of the T2 preparation before the inversion, 0 without.
    echoes : all echo times of a megre.
    nominal_te : echo time on the console where that differs from ``te``, else 0.
    efficiency : share of the magnetisation that an adiabatic inversion turns round.
    refocusing : how steeply a spin echo loses signal where the transmit field is off: 1 for few
        echoes of 180 degrees, 0.5 for long trains of low angles.
    fat : share of the signal of fat and marrow that fat suppression leaves, 1 without.
    bandwidth : Hz per voxel along the readout; 0 for no geometric distortion.
    averages : repetitions that are averaged: noise is that of the scanner's ``snr`` over the root
        of it. Below 1 for a sequence with more noise, as of parallel imaging.
    """

    kind: str
    tr: float
    te: float = 0.0
    ti: tuple[float, ...] = ()
    angles: tuple[float, ...] = ()
    spacing: float = 0.0
    pulses: tuple[int, int] = (0, 0)
    train: float = 0.0
    preparation: float = 0.0
    echoes: tuple[float, ...] = ()
    nominal_te: float = 0.0
    efficiency: float = 0.96
    refocusing: float = 0.75
    fat: float = 1.0
    bandwidth: float = 0.0
    averages: float = 1.0

    @property
    def echo_times(self) -> tuple[float, ...]:
        """Echo times, one per echo."""
        return self.echoes or (self.te,)

    @property
    def image_count(self) -> int:
        """Images that the sequence gives: two of two trains, else one per echo."""
        return 2 if self.kind in ('mp2rage', 'sa2rage') else len(self.echo_times)


@dataclass(frozen=True)
class Geometry:
    """Grid of an image.

    Attributes
    ----------
    axes : directions towards which the voxel axes run, for example ``LAS``.
    voxel : edges in mm along these axes, (3,); the thick one of a 2D sequence among them.
    extent : field of view in mm, from left to right, back to front, bottom to top.
    phase, readout : voxel axis (``i``, ``j`` or ``k``) of the phase encoding and the readout.
    thickness : mm of the slices of a 2D sequence where gaps lie between them (the thick edge of
        ``voxel`` is then the distance between two slices); 0 for slices without gaps.
    """

    axes: str
    voxel: tuple[float, float, float]
    extent: tuple[float, float, float]
    phase: str = 'j'
    readout: str = 'i'
    thickness: float = 0.0

    @property
    def share(self) -> float:
        """Thickness of a slice over the distance between two slices."""
        return self.thickness / max(self.voxel) if self.thickness else 1.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each voxel axis."""
        pairs = {letter: n for n, letters in enumerate(('LR', 'PA', 'IS')) for letter in letters}
        i, j, k = (
            round(self.extent[pairs[letter]] / edge)
            for letter, edge in zip(self.axes, self.voxel, strict=True)
        )
        return i, j, k

    @property
    def phase_axis(self) -> int:
        """Number of the phase-encoding axis."""
        return 'ijk'.index(self.phase)

    @property
    def readout_axis(self) -> int:
        """Number of the readout axis."""
        return 'ijk'.index(self.readout)


@dataclass(frozen=True)
class Scanner:
    """A scanner with its protocols.

    Attributes
    ----------
    name : for people.
    field : static field in T.
    protocols, geometries : by BIDS suffix (``MEGRE`` and ``UNIT1`` stand for all their images).
    snr : range of the ratio of white matter's signal to the noise of one channel of the complex
        image, where the transmit field is nominal and the receive gain 1 (UNIT1: of INV2; MEGRE:
        of the first echo). Each sequence has it, but for its ``averages``.
    """

    name: str
    field: float
    protocols: dict[str, Protocol]
    geometries: dict[str, Geometry]
    tissues: TissueJitter
    transmit: TransmitRanges
    off_resonance: OffResonanceRanges
    receive: ReceiveRanges
    snr: tuple[float, float]


def read_scanner(path: str | Path | None = None, field: float | None = None) -> Scanner:
    """The scanner of a protocol file, or the bundled one of a field.

    A protocol file lists all sequences of its scanner. The tables ``snr``, ``tissues``,
    ``transmit``, ``off_resonance`` and ``receive``, and keys of them, can be left out: they are
    then those of the bundled scanner whose field is nearest.

    Parameters
    ----------
    path : TOML file like those in ``resources/scanners``; None for a bundled scanner.
    field : T; with a file, it must be that of the file (None: that of the file).

    Raises
    ------
    NoInputError : the file is missing.
    DataError : the file has unknown or missing keys, wrong types, or values that no scanner could
        have; file and key are named.
    UsageError : no bundled scanner has this field, or the file has another one.
    """
    if path is None:
        if field not in FIELDS:
            raise UsageError(
                f'no scanner of {field} T is bundled',
                advice=f'Choose from {", ".join(f"{f:g}" for f in FIELDS)}, or give a protocol '
                'file.',
            )
        name = f'scanners/{FIELDS[field]}'
        return _scanner(bundled_table(name), Path(name))
    table = read_toml(Path(path), 'protocol file', DataError)
    check_keys(table, (*TABLES, *NEEDED), NEEDED, source_of(path))
    strength = convert(float, table['field'], source_of(path), key='field')
    if not FIELD_RANGE[0] <= strength <= FIELD_RANGE[1]:
        raise wrong(path, 'field', f'{strength:g} T is not between 0.5 and 12 T')
    if field is not None and not math.isclose(strength, field):
        raise UsageError(
            f'the protocol file {path} is for a scanner of {strength:g} T, but the requested '
            f'field is {field:g}',
            advice='Omit the field, or give another protocol file.',
        )
    nearest = min(FIELDS, key=lambda known: abs(math.log(known / strength)))
    bundled = bundled_table(f'scanners/{FIELDS[nearest]}')
    usual = {key: _completed(bundled[key], table.get(key)) for key in TABLES}
    return _scanner(table | usual, Path(path))


def _completed(usual: Any, own: Any) -> Any:
    """A table of a file, with what it leaves out."""
    if isinstance(usual, dict) and isinstance(own, dict):
        return usual | own
    return usual if own is None else own


def _scanner(table: dict[str, Any], path: Path) -> Scanner:
    sequences = table['sequences']
    if not isinstance(sequences, dict) or not sequences:
        raise DataError(
            'there are no sequences',
            advice='Add a table [sequences.SUFFIX] for each, as in the bundled scanners.',
            path=path,
        )
    source = source_of(path)
    protocols, geometries = {}, {}
    for suffix, row in sequences.items():
        key = f'sequences.{suffix}'
        if suffix not in KINDS_OF_SUFFIX:
            raise wrong(path, key, f'the suffix is not one of {", ".join(KINDS_OF_SUFFIX)}')
        settings = convert(dict[str, Any], row, source, key=key)
        geometry = from_table(
            Geometry, settings.pop('geometry', {}), source, key=f'{key}.geometry'
        )
        check_sequence(settings, suffix, path=path, key=key)
        if 'echoes' in settings and isinstance(settings['echoes'], list) and settings['echoes']:
            settings['te'] = settings['echoes'][0]
        protocol = from_table(Protocol, settings, source, key=key)
        problem = fault(protocol) or geometry_fault(geometry)
        if problem:
            raise wrong(path, f'{key}.{problem[0]}', problem[1])
        protocols[suffix], geometries[suffix] = protocol, geometry
    rest = {name: value for name, value in table.items() if name != 'sequences'}
    scanner = from_table(Scanner, rest | {'protocols': {}, 'geometries': {}}, source)
    check_ranges(scanner, path)
    return replace(scanner, protocols=protocols, geometries=geometries)
