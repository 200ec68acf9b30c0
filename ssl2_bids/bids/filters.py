"""The filter file: which images a person has narrowed a contrast to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssl2_bids.contrasts import CONTRASTS

# contrast keys of filter files and options, and the suffixes that they stand for
SUFFIXES_OF: dict[str, tuple[str, ...]] = {
    **{one.key: (one.suffix, *one.other_suffixes) for one in CONTRASTS},
    'mp2rage': ('MP2RAGE',),
}
LONG_NAMES = {
    'sub': 'subject',
    'ses': 'session',
    'acq': 'acquisition',
    'ce': 'ceagent',
    'rec': 'reconstruction',
    'dir': 'direction',
}


def matches(file: dict[str, Any], key: str, pattern: dict[str, Any]) -> bool:
    """Whether a file answers to a contrast key narrowed by a filter pattern."""
    pattern = {LONG_NAMES.get(name, name): value for name, value in pattern.items()}
    suffix = pattern.pop('suffix', SUFFIXES_OF[key])
    suffixes = suffix if isinstance(suffix, list | tuple) else (suffix,)
    if file['suffix'] not in suffixes:
        return False
    return entities_agree(file, pattern)


def entities_agree(entities: Mapping[str, Any], pattern: Mapping[str, Any]) -> bool:
    """Whether entities (long names) answer to a filter pattern."""
    return all(
        _agrees(
            entities.get(LONG_NAMES.get(name, name)),
            _with_dot(value) if name == 'extension' else value,
        )
        for name, value in pattern.items()
    )


def _with_dot(wanted: Any) -> Any:
    """``.nii.gz`` for ``nii.gz``, as pybids takes both."""
    if isinstance(wanted, list):
        return [_with_dot(one) for one in wanted]
    plain = isinstance(wanted, str) and wanted != '*'
    return '.' + wanted.removeprefix('.') if plain else wanted


def _agrees(actual: str | None, wanted: Any) -> bool:
    if wanted is None:
        return actual is None
    if wanted == '*':
        return actual is not None
    values = wanted if isinstance(wanted, list) else [wanted]
    return any(_agrees(actual, v) if v in (None, '*') else _equal(actual, v) for v in values)


def _equal(actual: str | None, wanted: Any) -> bool:
    if actual is None:
        return False
    number = isinstance(wanted, int) and not isinstance(wanted, bool)
    return actual.isdecimal() and int(actual) == wanted if number else actual == str(wanted)


def describe_filter(key: str, pattern: dict[str, Any]) -> str:
    """A filter in words, for messages."""
    suffix = pattern.get('suffix', ' or '.join(SUFFIXES_OF[key]))
    rest = ', '.join(f'{n} = {v!r}' for n, v in pattern.items() if n != 'suffix')
    return f'suffix {suffix}' + (f' with {rest}' if rest else '')


def unused_filters(
    files: dict[tuple[str, str | None], list[dict[str, Any]]],
    filters: dict[str, dict[str, Any]],
) -> list[str]:
    """A sentence for each filter that selects nothing in the whole dataset."""
    everything = [f for found in files.values() for f in found]
    texts = []
    for key, pattern in filters.items():
        if any(matches(f, key, pattern) for f in everything):
            continue
        plain = [f['path'].name for f in everything if f['suffix'] in SUFFIXES_OF[key]]
        near = f'without the filter there are: {", ".join(plain[:4])}' if plain else (
            'no such image exists without the filter either'
        )  # fmt: skip
        texts.append(
            f'the filter for "{key}" selects nothing ({describe_filter(key, pattern)}); {near}'
        )
    return texts
