"""The file of a twin's protocol: its tables, and the text with where each number comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ssl2_bids.simulation.scanner.protocol_checks import (
    EXTENT_RANGE,
    LEAST_SHARE,
    NEEDED_KEYS,
    OPTIONAL_KEYS,
    VOXEL_RANGE,
)
from ssl2_bids.simulation.scanner.protocols import Protocol
from ssl2_bids.tables import to_table
from ssl2_bids.workflows.adaptation.twin.measure import SequenceFacts

SLICES = 1.5  # of the next edge of a voxel; a longest edge beyond is that of slices


def sequence_table(protocol: Protocol) -> dict[str, Any]:
    """The keys that a protocol file has of a sequence."""
    content = to_table(protocol)
    known = ('kind', 'tr', *NEEDED_KEYS[protocol.kind], *OPTIONAL_KEYS[protocol.kind],
             'fat', 'bandwidth', 'averages')  # fmt: skip
    empty = {'nominal_te': 0.0, 'preparation': 0.0, 'bandwidth': 0.0, 'ti': [], 'averages': 1.0}
    return {key: content[key] for key in known if content[key] != empty.get(key)}


def geometry_table(one: SequenceFacts) -> dict[str, Any]:
    """The grid of a sequence; a phase encoding along the slices of a 2D image is not meant."""
    i, j, k = (within(edge, VOXEL_RANGE) for edge in one.voxel)
    thick = (i, j, k).index(max(i, j, k))
    others = [letter for n, letter in enumerate('ijk') if n != thick]
    slices = max(i, j, k) >= SLICES * sorted((i, j, k))[1]
    phase = one.phase if one.phase in others or (one.phase and not slices) else others[0]
    readout = next(letter for letter in others if letter != phase)
    table: dict[str, Any] = {
        'axes': one.axes,
        'voxel': [i, j, k],
        'extent': [within(edge, EXTENT_RANGE) for edge in one.extent],
        'phase': phase,
        'readout': readout,
    }
    if one.thickness:
        table['thickness'] = max(one.thickness, round(LEAST_SHARE * max(i, j, k) + 1e-4, 4))
    return table


def protocol_text(table: Mapping[str, Any], reasons: Mapping[str, str]) -> str:
    """A protocol file: TOML, each number with where it comes from.

    Parameters
    ----------
    reasons : by dotted key.
    """
    lines = [
        '# A scanner as its unlabelled scans show it, for "ssl2 simulate --protocol". Times in s,',
        '# angles in degrees, lengths in mm, bandwidth in Hz per voxel.',
        '',
    ]
    sections = {'': {k: v for k, v in table.items() if not isinstance(v, dict)}}
    sections |= {k: v for k, v in table.items() if isinstance(v, dict) and k != 'sequences'}
    sections |= {f'sequences.{name}': row for name, row in table['sequences'].items()}
    for name, rows in sections.items():
        if name:
            lines += ['', f'[{name}]']
        for key, value in rows.items():
            why = reasons.get(f'{name}.{key}' if name else key, '')
            lines.append(f'{key} = {_toml(value)}' + (f'  # {why}' if why else ''))
    return '\n'.join(lines) + '\n'


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ', '.join(f'{key} = {_toml(one)}' for key, one in value.items())
        return f'{{ {inner} }}'
    if isinstance(value, list | tuple):
        return f'[{", ".join(map(_toml, value))}]'
    return json.dumps(value)


def within(value: float, limits: tuple[float, float]) -> float:
    """A value moved into limits."""
    return min(max(value, limits[0]), limits[1])
