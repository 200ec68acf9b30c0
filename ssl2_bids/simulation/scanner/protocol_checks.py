"""What no scanner could do: keys that mean nothing, times that do not fit, absurd values."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl2_bids.errors import DataError
from ssl2_bids.tables import Source, check_keys

if TYPE_CHECKING:
    from ssl2_bids.simulation.scanner.protocols import Geometry, Protocol, Scanner

KINDS_OF_SUFFIX = {
    'T1w': ('mprage', 'tse', 'gre'),
    'FLAIR': ('flair',),
    'T2w': ('tse',),
    'T2starw': ('gre',),
    'UNIT1': ('mp2rage',),
    'MEGRE': ('megre',),
}
NEEDED_KEYS = {
    'mprage': ('te', 'ti', 'angles', 'spacing', 'pulses'),
    'mp2rage': ('te', 'ti', 'angles', 'spacing', 'pulses'),
    'flair': ('te', 'ti', 'train'),
    'tse': ('te', 'train'),
    'gre': ('te', 'angles'),
    'megre': ('echoes', 'angles'),
}
OPTIONAL_KEYS = {
    'mprage': ('efficiency',),
    'mp2rage': ('efficiency',),
    'flair': ('nominal_te', 'preparation', 'efficiency', 'refocusing'),
    'tse': ('nominal_te', 'ti', 'preparation', 'efficiency', 'refocusing'),
    'gre': (),
    'megre': (),
}
UNITS = 'Times are in s, angles in degrees, lengths in mm.'
MAX_TR = 30.0  # s; a repetition beyond is one written in ms
VOXEL_RANGE = (0.2, 10.0)  # mm
EXTENT_RANGE = (20.0, 400.0)  # mm
LEAST_SHARE = 0.4  # of the distance between two slices that a slice fills
MAX_VOXELS = 150e6


def source_of(path: str | Path) -> Source:
    """The file of a scanner, with the units of its numbers."""
    return Source(path, DataError, UNITS)


def wrong(path: str | Path | None, key: str, problem: str) -> DataError:
    """The error about a key of a file."""
    return DataError(f'{key}: {problem}', advice=UNITS, path=path)


def check_sequence(settings: dict[str, Any], suffix: str, *, path: Path, key: str) -> None:
    """Refuse keys that are unknown, missing, or mean nothing to a kind of sequence."""
    kind = settings.get('kind')
    if kind not in KINDS_OF_SUFFIX[suffix]:
        allowed = ' or '.join(KINDS_OF_SUFFIX[suffix])
        raise wrong(path, f'{key}.kind', f'{kind!r} is not {allowed}')
    needed = ('kind', 'tr', *NEEDED_KEYS[kind])
    known = (*needed, 'averages', 'bandwidth', 'fat', *OPTIONAL_KEYS[kind])
    where = f' to a sequence of kind {kind}'
    check_keys(settings, known, needed, source_of(path), key=key, where=where)


def fault(protocol: Protocol) -> tuple[str, str] | None:
    """What no scanner could do: key and reason; None if the protocol is possible."""
    p = protocol
    rage = p.kind in ('mprage', 'mp2rage')
    trains = {'mprage': 1, 'mp2rage': 2, 'gre': 1, 'megre': 1}.get(p.kind, 0)
    last_ti = p.ti[-1] if p.ti else 0.0
    after = p.pulses[1] * p.spacing
    before = p.pulses[0] * p.spacing
    steepest = 40 if rage else 90
    turbo = p.kind in ('flair', 'tse')
    starts = [ti - before for ti in p.ti]
    ends = [0.0, *(ti + after for ti in p.ti)]
    checks = [
        (0 < p.tr <= MAX_TR, 'tr', f'{p.tr:g} s is not between 0 and {MAX_TR:g} s'),
        (all(t > 0 for t in p.echo_times), 'te', 'an echo time is not above 0'),
        (all(t > 0 for t in p.ti), 'ti', 'an inversion time is not above 0'),
        (last_ti < p.tr, 'ti', f'{last_ti:g} s is not below the repetition time {p.tr:g} s'),
        (len(p.angles) == trains, 'angles', f'{p.kind} has {trains}, not {len(p.angles)}'),
        (all(0 < a <= steepest for a in p.angles), 'angles', f'not above 0 and up to {steepest}'),
        (not rage or len(p.ti) == trains, 'ti', f'{p.kind} has {trains}, not {len(p.ti)}'),
        (not turbo or len(p.ti) <= 1, 'ti', f'{p.kind} has one, not {len(p.ti)}'),
        (p.kind != 'flair' or len(p.ti) == 1, 'ti', 'flair has one, not 0'),
        (not rage or p.te < p.spacing, 'te', 'the echo comes after the next excitation'),
        (
            not rage or min(p.pulses) >= 0 < sum(p.pulses),
            'pulses',
            'not a valid number for a train',
        ),
        (
            all(start >= end for start, end in zip(starts, ends, strict=False)),
            'ti',
            'a train of excitations begins before the inversion or inside the one before it',
        ),
        (ends[-1] <= p.tr, 'pulses', 'the last train ends after the repetition time'),
        (
            not turbo or 0 < p.train <= p.tr - last_ti - p.preparation,
            'train',
            f'{p.train:g} s of echoes do not fit into the repetition time after the inversion '
            'time',
        ),
        (not turbo or p.te <= p.train, 'te', f'{p.te:g} s is longer than the echo train'),
        (
            p.nominal_te == 0 or p.te <= p.nominal_te <= p.train,
            'nominal_te',
            'is not between te and the end of the echo train',
        ),
        (p.preparation >= 0, 'preparation', 'is negative'),
        (p.preparation == 0 or bool(p.ti), 'preparation', 'needs an inversion'),
        (p.kind != 'gre' or p.te < p.tr, 'te', 'the echo comes after the next excitation'),
        (p.kind != 'megre' or len(p.echoes) > 1, 'echoes', 'megre has at least two'),
        (
            all(a < b for a, b in itertools.pairwise((*p.echoes, p.tr)) if p.echoes),
            'echoes',
            'the echo times do not increase, or exceed the repetition time',
        ),
        (0.5 <= p.efficiency <= 1, 'efficiency', f'{p.efficiency:g} is not between 0.5 and 1'),
        (0 <= p.refocusing <= 2, 'refocusing', f'{p.refocusing:g} is not between 0 and 2'),
        (0 <= p.fat <= 1, 'fat', f'{p.fat:g} is not between 0 and 1'),
        (0.01 <= p.averages <= 100, 'averages', f'{p.averages:g} is not between 0.01 and 100'),
        (
            p.bandwidth == 0 or 5 <= p.bandwidth <= 5000,
            'bandwidth',
            f'{p.bandwidth:g} is not between 5 and 5000 Hz per voxel (0: no distortion)',
        ),
    ]
    return next(((key, reason) for fine, key, reason in checks if not fine), None)


def geometry_fault(geometry: Geometry) -> tuple[str, str] | None:
    """What is impossible about a grid: key and reason; None if it is possible."""
    letters = sorted('LRPAIS'.find(axis) // 2 for axis in geometry.axes)
    if letters != [0, 1, 2] or len(geometry.axes) != 3:
        return 'geometry.axes', f'{geometry.axes!r} are not three axes like LAS or RAS'
    for key, values, (low, high) in (
        ('voxel', geometry.voxel, VOXEL_RANGE),
        ('extent', geometry.extent, EXTENT_RANGE),
    ):
        if not all(low <= value <= high for value in values):
            return f'geometry.{key}', f'{list(values)} are not all within {low:g} and {high:g} mm'
    if geometry.thickness and not LEAST_SHARE <= geometry.share <= 1:
        least = LEAST_SHARE * max(geometry.voxel)
        return 'geometry.thickness', (
            f'{geometry.thickness:g} mm is not between {least:g} mm and the longest edge of the '
            f'voxel, {max(geometry.voxel):g} mm'
        )
    for key in ('phase', 'readout'):
        if getattr(geometry, key) not in ('i', 'j', 'k'):
            return f'geometry.{key}', 'is not i, j or k'
    if geometry.phase == geometry.readout:
        return 'geometry.phase', 'the phase encoding and the readout have the same axis'
    count = math.prod(geometry.shape)
    if count > MAX_VOXELS or min(geometry.shape) < 2:
        return 'geometry.voxel', f'the image would have {geometry.shape} voxels'
    return None


def check_ranges(scanner: Scanner, path: Path) -> None:
    """Refuse ranges in the wrong order or outside the limits."""
    limits: dict[str, tuple[float, float]] = {
        'snr': (1, 1000),
        'tissues.t1': (0, 0.3),
        'tissues.t2': (0, 0.3),
        'tissues.density': (0, 0.2),
        'tissues.common': (0, 1),
        'tissues.texture': (0, 0.2),
        'tissues.texture_scale': (2, 200),
        'transmit.mean': (0.4, 1.5),
        'transmit.dome': (0, 3),
        'transmit.width': (10, 300),
        'transmit.drop': (0, 0.8),
        'transmit.asymmetry': (0, 0.5),
        'transmit.noise': (0, 0.2),
        'off_resonance.background': (0, 5),
        'off_resonance.cavity': (0, 10),
        'receive.spread': (0, 1),
        'receive.rim': (0, 1),
        'receive.scale': (5, 500),
        'receive.phase': (0, 10),
    }
    for key, (low, high) in limits.items():
        value: Any = scanner
        for name in key.split('.'):
            value = getattr(value, name)
        values = value if isinstance(value, tuple) else (value,)
        if list(values) != sorted(values):
            raise wrong(path, key, f'{list(values)} is not a range from low to high')
        if not low <= values[0] <= values[-1] <= high:
            shown = list(values) if len(values) > 1 else values[0]
            raise wrong(path, key, f'{shown} is not within {low:g} and {high:g}')
