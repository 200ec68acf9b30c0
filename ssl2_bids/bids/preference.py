"""Which of several images of one contrast is taken: a stated rule instead of the alphabet.

In this order: an image that is not named something else, of its own space, preprocessed where
there are such, not one echo of several or the first, not named the uniform image of MP2RAGE,
without a task of movement, with motion correction, of a whole head, 3D, with the finest voxels;
what is equal in all of these goes by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl2_bids.bids import image_names
from ssl2_bids.bids.headers import Header

ENTITIES = ('task', 'acquisition', 'ceagent', 'reconstruction', 'direction', 'run', 'echo',
            'flip', 'inv', 'mt', 'part', 'space', 'res', 'desc')  # fmt: skip
Criterion = Callable[[dict[str, Any], Header], float]


def _processing_rank(file: dict[str, Any], header: Header) -> float:
    desc = file.get('desc')
    return 0 if desc == 'preproc' else 1 if desc is None else 2


def _acquisition_rank(file: dict[str, Any], header: Header) -> float:
    acquisition = file['metadata'].get('MRAcquisitionType')
    return float(acquisition == '2D' if acquisition in ('2D', '3D') else header.slices)


def _voxel(file: dict[str, Any], header: Header) -> float:
    i, j, k = header.spacing
    return round(i * j * k, 2)  # mm^3


CRITERIA: tuple[tuple[str, Criterion], ...] = (
    ('named as such', lambda f, h: float(bool(image_names.what_else(f)))),
    ('its own space', lambda f, h: float(not image_names.is_native(f))),
    ('at its own resolution', lambda f, h: float('res' in f)),
    ('preprocessed', _processing_rank),
    ('not one echo of several', lambda f, h: float('echo' in f)),
    ('the first echo', lambda f, h: float(f.get('echo') or 0)),
    ('not named UNI', lambda f, h: float(f['suffix'] == 'T1w' and image_names.is_uniform(f))),
    ('without movement', lambda f, h: image_names.motion(f)),
    ('with motion correction', lambda f, h: image_names.motion_correction(f)),
    ('a whole head', lambda f, h: float(not h.whole_head)),
    ('3D', _acquisition_rank),
    ('the finest voxels', _voxel),
)
BY_NAME = 'first by name'


def in_order(
    files: Sequence[dict[str, Any]], headers: Mapping[Path, Header]
) -> list[dict[str, Any]]:
    """The files, the one to be taken first."""
    return sorted(files, key=lambda f: (_ranks(f, headers), _by_name(f)))


def why(taken: dict[str, Any], other: dict[str, Any], headers: Mapping[Path, Header]) -> str:
    """The first point of the rule in which one file goes before another."""
    pairs = zip(CRITERIA, _ranks(taken, headers), _ranks(other, headers), strict=True)
    return next((name for (name, _), a, b in pairs if a != b), BY_NAME)


def recipe(key: str, wanted: dict[str, Any], instead_of: dict[str, Any] | None = None) -> str:
    """The filter file that takes one file instead of another.

    Parameters
    ----------
    key : of the contrast.
    instead_of : the other file; None writes every entity that the wanted one has.
    """
    pattern: dict[str, Any] = {}
    if wanted['suffix'].lower() != key:
        pattern['suffix'] = wanted['suffix']
    for name in ENTITIES:
        value = wanted.get(name)
        if instead_of is None:
            if value is not None:
                pattern[name] = _value(value)
        elif value != instead_of.get(name):
            pattern[name] = _value(value)
    if not pattern:
        return 'remove one of the two files'
    return f'--bids-filter-file with {json.dumps({key: pattern})}'


def _value(value: str | None) -> str | int | None:
    return int(value) if value is not None and value.isdecimal() else value


def _ranks(file: dict[str, Any], headers: Mapping[Path, Header]) -> tuple[float, ...]:
    header = headers[file['path']]
    return tuple(criterion(file, header) for _, criterion in CRITERIA)


def _by_name(file: dict[str, Any]) -> list[tuple[int, int | str]]:
    """``run-2`` before ``run-10``."""
    parts = re.split(r'(\d+)', file['path'].name)
    return [(0, int(p)) if p.isdecimal() else (1, p) for p in parts if p]
