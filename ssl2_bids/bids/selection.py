"""Which file of a session is taken for each contrast, and why the others are not."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# contrast keys of filter files and options, and the suffixes that they stand for
SUFFIXES: dict[str, tuple[str, ...]] = {
    'unit1': ('UNIT1',),
    't1w': ('T1w',),
    'flair': ('FLAIR',),
    't2w': ('T2w',),
    't2starw': ('T2starw', 'MEGRE'),
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
SHORT_NAMES = {'acquisition': 'acq', 'ceagent': 'ce', 'reconstruction': 'rec', 'run': 'run'}
LONGEST_ECHO = 0.060  # s; later echoes hold little signal at 7T
COMPLEX_PARTS = ('phase', 'real', 'imag')


@dataclass(frozen=True)
class Pick:
    """The file or files taken for one contrast; ``entities`` with the names of file names."""

    suffix: str
    paths: tuple[Path, ...]
    entities: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    inversions: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Choice:
    """All that was decided for one session."""

    picked: tuple[Pick, ...]
    dropped: tuple[tuple[Path, str], ...]
    warnings: tuple[str, ...]


def choose(
    files: list[dict[str, Any]],
    filters: dict[str, dict[str, Any]],
    *,
    accepted: tuple[str, ...],
    wanted: tuple[str, ...] | None,
) -> Choice:
    """Take one image per contrast (BIDS.md 1.2).

    Parameters
    ----------
    files : entities, ``path`` and ``metadata`` of each image of the session.
    filters : entity patterns by contrast key.
    accepted : suffixes that the model takes.
    wanted : contrast keys that the user narrows to, or None.
    """
    dropped: list[tuple[Path, str]] = []
    warnings: list[str] = []
    by_key = {key: _candidates(files, key, filters, dropped) for key in SUFFIXES}
    picks: dict[str, Pick] = {}
    for key in ('unit1', 't1w', 'flair', 't2w', 't2starw'):
        found = by_key[key]
        if not found:
            continue
        suffix = SUFFIXES[key][0]
        reason = _why_not(key, suffix, accepted, wanted, picks)
        if reason:
            dropped += [(f['path'], reason) for f in found]
            continue
        found = _without_contrast_agent(found, warnings, dropped)
        if key == 'unit1':
            pick = _pick_unit1(found, by_key['mp2rage'], dropped, warnings)
        elif key == 't2starw':
            pick = _pick_t2starw(found, dropped, warnings)
        else:
            pick = _pick_first(suffix, found, dropped, warnings)
        picks[suffix] = pick
    used = {path for pick in picks.values() for path in pick.paths + pick.inversions}
    if 'UNIT1' in picks:
        dropped += [
            (f['path'], 'not needed for the noise removal of UNIT1')
            for f in by_key['mp2rage']
            if f['path'] not in used
        ]
    unique = {path: reason for path, reason in dropped if path not in used}
    return Choice(tuple(picks.values()), tuple(sorted(unique.items())), tuple(warnings))


def matches(file: dict[str, Any], key: str, pattern: dict[str, Any]) -> bool:
    """Whether a file answers to a contrast key narrowed by a filter pattern."""
    pattern = {LONG_NAMES.get(name, name): value for name, value in pattern.items()}
    suffix = pattern.pop('suffix', SUFFIXES[key])
    suffixes = suffix if isinstance(suffix, list | tuple) else (suffix,)
    if file['suffix'] not in suffixes:
        return False
    return all(_agrees(file.get(name), value) for name, value in pattern.items())


def _agrees(actual: str | None, wanted: Any) -> bool:
    if wanted is None:
        return actual is None
    if wanted == '*':
        return actual is not None
    values = wanted if isinstance(wanted, list) else [wanted]
    return any(_agrees(actual, v) if v is None else _equal(actual, v) for v in values)


def _equal(actual: str | None, wanted: Any) -> bool:
    if actual is None:
        return False
    number = isinstance(wanted, int) and not isinstance(wanted, bool)
    return actual.isdecimal() and int(actual) == wanted if number else actual == str(wanted)


def describe_filter(key: str, pattern: dict[str, Any]) -> str:
    """A filter in words, for messages."""
    suffix = pattern.get('suffix', ' or '.join(SUFFIXES[key]))
    rest = ', '.join(f'{n} = {v!r}' for n, v in pattern.items() if n != 'suffix')
    return f'suffix {suffix}' + (f' with {rest}' if rest else '')


def _candidates(
    files: list[dict[str, Any]],
    key: str,
    filters: dict[str, dict[str, Any]],
    dropped: list[tuple[Path, str]],
) -> list[dict[str, Any]]:
    pattern = filters.get(key, {})
    found = []
    for file in files:
        if not matches(file, key, pattern):
            if file['suffix'] in SUFFIXES[key]:
                dropped.append((file['path'], 'left out by the filter file'))
        elif not file['path'].exists():
            reason = 'its content is absent; run "datalad get" on it'
            dropped.append((file['path'], reason))
        elif file.get('part') in COMPLEX_PARTS:
            dropped.append((file['path'], f'part-{file["part"]} is not used'))
        else:
            found.append(file)
    whole = [f for f in found if 'chunk' not in f]
    dropped += [(f['path'], 'chunks are not supported') for f in found if 'chunk' in f]
    return whole


def _why_not(
    key: str,
    suffix: str,
    accepted: tuple[str, ...],
    wanted: tuple[str, ...] | None,
    picks: dict[str, Pick],
) -> str:
    if wanted is not None and key not in wanted:
        return 'not among --contrasts'
    if suffix not in accepted and not (suffix == 'UNIT1' and 'T1w' in accepted):
        return f'the model does not take {suffix}'
    if key == 't1w' and 'UNIT1' in picks:
        return 'UNIT1 is the T1w-like image'
    return ''


def _without_contrast_agent(
    found: list[dict[str, Any]], warnings: list[str], dropped: list[tuple[Path, str]]
) -> list[dict[str, Any]]:
    plain = [f for f in found if 'ceagent' not in f]
    if not plain:
        warnings.append(f'{found[0]["path"].name}: taken although with contrast agent')
        return found
    dropped += [(f['path'], 'with contrast agent') for f in found if 'ceagent' in f]
    return plain


def _pick(suffix: str, file: dict[str, Any], inversions: tuple[Path, ...] = ()) -> Pick:
    entities = {short: file[long] for long, short in SHORT_NAMES.items() if long in file}
    return Pick(suffix, (file['path'],), entities, file['metadata'], inversions)


def _pick_first(
    suffix: str,
    found: list[dict[str, Any]],
    dropped: list[tuple[Path, str]],
    warnings: list[str],
) -> Pick:
    first, *rest = sorted(found, key=lambda f: f['path'].name)
    if rest:
        names = ', '.join(f['path'].name for f in rest)
        warnings.append(f'several {suffix}: took {first["path"].name}, left out {names}')
        dropped += [(f['path'], 'first in alphabetical order is taken') for f in rest]
    return _pick(suffix, first)


def _pick_unit1(
    found: list[dict[str, Any]],
    mp2rage: list[dict[str, Any]],
    dropped: list[tuple[Path, str]],
    warnings: list[str],
) -> Pick:
    """The un-denoised UNIT1 with its two inversions, else a denoised one, else the first."""
    plain = [f for f in found if not _is_denoised(f)]
    for file in sorted(plain, key=lambda f: f['path'].name):
        pair = [_inversion(file, mp2rage, number) for number in ('1', '2')]
        if all(pair):
            rest = [f for f in found if f is not file]
            dropped += [(f['path'], 'the UNIT1 with INV1 and INV2 is denoised here') for f in rest]
            return _pick('UNIT1', file, tuple(f['path'] for f in pair if f))
    denoised = [f for f in found if _is_denoised(f)]
    if not denoised:
        warnings.append(
            'UNIT1 without INV1 and INV2: its background noise cannot be removed by the robust '
            'combination'
        )
    elif plain:
        dropped += [(f['path'], 'the denoised UNIT1 is taken') for f in plain]
    return _pick_first('UNIT1', denoised or plain, dropped, warnings)


def _is_denoised(file: dict[str, Any]) -> bool:
    names = (file.get('reconstruction') or '') + (file.get('acquisition') or '')
    return 'den' in names.lower()


def _inversion(
    unit1: dict[str, Any], mp2rage: list[dict[str, Any]], number: str
) -> dict[str, Any] | None:
    same = [
        f
        for f in mp2rage
        if f.get('inv', '').lstrip('0') == number
        and 'echo' not in f
        and all(f.get(name) == unit1.get(name) for name in ('acquisition', 'run'))
    ]
    return same[0] if same else None


def _pick_t2starw(
    found: list[dict[str, Any]], dropped: list[tuple[Path, str]], warnings: list[str]
) -> Pick:
    """A single T2starw, else the echoes of a T2starw, else those of a MEGRE."""
    single = [f for f in found if f['suffix'] == 'T2starw' and 'echo' not in f]
    if single:
        rest = [f for f in found if f not in single]
        dropped += [(f['path'], 'a single T2starw is taken') for f in rest]
        return _pick_first('T2starw', single, dropped, warnings)
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for file in found:
        rank = '0' if file['suffix'] == 'T2starw' else '1'
        names = [file.get(name) or '' for name in ('acquisition', 'reconstruction', 'run')]
        groups[(rank, *names)].append(file)
    first, *rest_groups = (groups[key] for key in sorted(groups))
    dropped += [(f['path'], 'another group of echoes is taken') for g in rest_groups for f in g]
    times = [f['metadata'].get('EchoTime') for f in first]
    known = all(isinstance(t, int | float) for t in times)
    early = [
        f for f, t in zip(first, times, strict=True) if not known or float(t) <= LONGEST_ECHO
    ] or first
    dropped += [(f['path'], 'echo after 60 ms') for f in first if f not in early]
    early = sorted(early, key=lambda f: int(f.get('echo', 0)))
    pick = _pick('T2starw', early[0])
    return Pick('T2starw', tuple(f['path'] for f in early), pick.entities, early[0]['metadata'])
