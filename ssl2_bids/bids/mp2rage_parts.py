"""Which images of a session belong to one MP2RAGE: uniform image, INV1, INV2, maps of B1+.

They are matched by names that differ in nothing but the part that identifies which of the three an
image is. That part stands in ``inv-`` and in the suffix by the standard, in ``acq-`` after
converters (``acq-INV1_MP2RAGE``, ``acq-UNI_T1w``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl2_bids.bids import image_names
from ssl2_bids.bids.preference import BY_NAME

ABOUT = ('MP2RAGE', 'INV1', 'INV2', 'UNI', 'UNIT1')  # suffixes that name a part themselves
OTHER_FIELD_MAP = 'of the B1+ maps only TB1map and TB1SRGE with its phases are used'
RELATED = {
    'T1map': 'a T1 map is used beside UNIT1 only, where none can be computed',
    'TB1map': 'a B1+ map is used with UNIT1, INV1, INV2 and the settings of MP2RAGE only',
    'TB1TFL': OTHER_FIELD_MAP,
    'TB1AFI': OTHER_FIELD_MAP,
    'TB1EPI': OTHER_FIELD_MAP,
    'TB1DAM': OTHER_FIELD_MAP,
    'TB1SRGE': OTHER_FIELD_MAP,
}
_NUMBER = r'inv(?:ersion)?(?:time)?[-_]?0*[12](?!\d)|(?<!\d)[12](?:st|nd)?inv'
_PART = re.compile(
    _NUMBER + r'|'
    r'uni(?:t1)?[-_]?(?:den(?:oised)?)?(?:images?)?|den(?:oised)?$|nd$|mp2rage$',
    re.IGNORECASE,
)
_DENOISED = re.compile(r'^.*den.*$', re.IGNORECASE)


Roles = list[tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Parts:
    """The inversion images that belong to a uniform image, or why there are none.

    Attributes
    ----------
    inversions : INV1 and INV2, magnitude; empty if they are not both there.
    reason : why not, for the person who sees them in the folder.
    """

    inversions: tuple[dict[str, Any], ...] = ()
    reason: str = ''


def is_inversion(file: dict[str, Any]) -> bool:
    """Whether a file is a magnitude or phase of INV1 or INV2 by its name."""
    if image_names.is_complex_part(file):
        return False
    return file['suffix'] in (*ABOUT, 'T1w') and bool(image_names.inversion(file))


def without_number(entities: dict[str, str]) -> dict[str, str]:
    """Entities of an inversion image without the word for it (``acq-INV2``), for its UNIT1."""
    found = {
        name: re.sub(_NUMBER, '', value, flags=re.IGNORECASE).strip('-_')
        for name, value in entities.items()
    }
    return {name: value for name, value in found.items() if value}


def inversions_of(
    uniform: dict[str, Any], files: Sequence[dict[str, Any]], *, asked: bool = False
) -> Parts:
    """Find INV1 and INV2 of a uniform image among the images of its session.

    Parameters
    ----------
    asked : the files are those that a filter asks for: names may differ if there is no choice.
    """
    magnitudes = [f for f in files if is_inversion(f) and not image_names.is_phase(f)]
    if not magnitudes:
        return Parts()
    own = _common(uniform)
    found = []
    for number in ('1', '2'):
        numbered = [f for f in magnitudes if image_names.inversion(f) == number]
        same = [f for f in numbered if _common(f) == own]
        if asked and len(numbered) == 1:
            same = numbered
        if not same:
            return Parts(reason=_why_not(number, uniform, magnitudes))
        # of several echoes the first: UNIT1 is made of it
        found.append(min(same, key=lambda f: (int(f.get('echo') or 0), f['path'].name)))
    return Parts(tuple(found))


def complex_pairs(files: Sequence[dict[str, Any]]) -> list[Roles]:
    """INV1 and INV2 with their phases, where all four belong together; the first by name first.

    Each is in the order INV2, INV1, INV1 phase, INV2 phase.
    """
    found = []
    for second in sorted(files, key=lambda f: str(f['path'].name)):
        if not is_inversion(second) or image_names.is_phase(second):
            continue
        if image_names.inversion(second) != '2':
            continue
        first = _same(second, files, number='1', phase=False)
        phases = [_same(second, files, number=n, phase=True) for n in ('1', '2')]
        if first and phases[0] and phases[1]:
            found.append(
                [
                    ('INV2', second),
                    ('INV1', first),
                    ('INV1 phase', phases[0]),
                    ('INV2 phase', phases[1]),
                ]
            )
    return found


def why_no_uniform(inversions: Sequence[dict[str, Any]]) -> str:
    """Why UNIT1 cannot be computed from the inversion images of a session."""
    have = {
        f'{image_names.inversion(f)}{" phase" if image_names.is_phase(f) else ""}'
        for f in inversions
    }
    if missing := [f'INV{number}' for number in '12' if number not in have]:
        return f'UNIT1 cannot be computed without {" and ".join(missing)}'
    phases = [f'INV{number}' for number in '12' if f'{number} phase' not in have]
    if not phases:
        return 'UNIT1 is not computed: it is not asked for, or one of the images cannot be used'
    return (
        'the magnitudes of INV1 and INV2 do not have the sign of INV1, so UNIT1 cannot be '
        f'computed from them: add the phase (part-phase) of {" and ".join(phases)}, or the UNIT1 '
        'of the scanner'
    )


def _same(
    file: dict[str, Any], files: Sequence[dict[str, Any]], *, number: str, phase: bool
) -> dict[str, Any] | None:
    """The inversion image of this number that belongs to another one."""
    return next(
        (
            f
            for f in files
            if is_inversion(f)
            and image_names.inversion(f) == number
            and image_names.is_phase(f) == phase
            and _common(f) == _common(file)
            and f.get('echo') == file.get('echo')
        ),
        None,
    )


def differences(file: dict[str, Any], uniform: dict[str, Any]) -> list[str]:
    """In which entities a file of a session is not named like a uniform image, ``run`` first."""
    own = _common(uniform)
    found = [name for name, value in _common(file).items() if own[name] != value]
    return sorted(found, key=lambda name: name != 'run')


def contradictions(file: dict[str, Any], uniform: dict[str, Any]) -> list[str]:
    """The differences of entities that both names have; a map may name itself in ``acq``."""
    its, own = _common(file), _common(uniform)
    its['acq'] = re.sub('t1(map)?', '', its['acq'])
    return [name for name in differences(file, uniform) if its[name] and own[name]]


def best_named(
    files: Sequence[dict[str, Any]], uniform: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """The files, those first that are named like a uniform image; then its run, then by name."""
    return sorted(files, key=lambda f: (*_far(f, uniform), f['path'].name))


def _far(file: dict[str, Any], uniform: dict[str, Any] | None) -> tuple[bool, bool]:
    """Whether the name of a file differs from that of a uniform image, and whether in the run."""
    apart = differences(file, uniform) if uniform else []
    return bool(apart), 'run' in apart


def transmit_maps(files: Sequence[dict[str, Any]], uniform: dict[str, Any]) -> tuple[Roles, str]:
    """What gives the B1+ field of a session: a TB1map, else a whole SA2RAGE, else nothing.

    With it, why the settings of a whole SA2RAGE cannot be used; empty where they can.

    Parameters
    ----------
    uniform : the UNIT1 that it is for.
    """
    maps = best_named([f for f in files if f['suffix'] == 'TB1map'], uniform)
    if maps:
        return [('TB1map', maps[0])], ''
    whole = _sa2rage(files, uniform)
    why = _why_no_settings(whole) if whole else ''
    return ([], why) if why else (whole, '')


def why_not_used(
    file: dict[str, Any],
    files: Sequence[dict[str, Any]],
    used: Collection[Path],
    uniform: dict[str, Any] | None = None,
) -> str:
    """Why a map of a session (a suffix of ``RELATED``) is not used.

    Parameters
    ----------
    files : all images of the session.
    used : those that go with a chosen image.
    uniform : the UNIT1 that is used.
    """
    suffix = file['suffix']
    others = [f for f in files if f['path'] in used and f['suffix'] == suffix]
    if others:
        nearer = uniform and _far(others[0], uniform) < _far(file, uniform)
        why = f'named more like {uniform["path"].name}' if uniform and nearer else BY_NAME
        return f'{others[0]["path"].name} has priority: {why}'
    whole = _sa2rage(files, uniform) if suffix == 'TB1SRGE' else []
    if whole and file['path'] in {f['path'] for _, f in whole}:
        why = _why_no_settings(whole)
        if why:
            return f'the settings of SA2RAGE are not known: {why}'
    return RELATED[suffix]


def _sa2rage(files: Sequence[dict[str, Any]], uniform: dict[str, Any] | None) -> Roles:
    """The two magnitudes and the two phases of a SA2RAGE; empty if one is missing.

    Parameters
    ----------
    uniform : the UNIT1 that it is for.
    """
    images = [f for f in files if f['suffix'] == 'TB1SRGE' and not image_names.is_complex_part(f)]
    images = best_named(images, uniform)
    alike = ([f for f in images if _common(f) == _common(first)] for first in images)
    return next(filter(None, map(_whole, (*alike, images))), [])


def _whole(images: Sequence[dict[str, Any]]) -> Roles:
    """The parts of a SA2RAGE, the first of each; empty if one is missing."""
    parts = {(image_names.inversion(f), image_names.is_phase(f)): f for f in reversed(images)}
    roles = [
        (f'SA2RAGE {number}{" phase" if phase else ""}', parts.get((number, phase)))
        for phase in (False, True)
        for number in ('1', '2')
    ]
    whole = [(role, file) for role, file in roles if file is not None]
    return whole if len(whole) == len(roles) else []


def _why_no_settings(whole: Roles) -> str:
    """Why the settings of a SA2RAGE cannot be used; empty if they can."""
    from ssl2_bids.steps import t1_mapping  # only where there is a SA2RAGE

    sidecars = {file['path'].name: file['metadata'] for _, file in whole[:2]}
    return t1_mapping.why_no_protocol(sidecars, kind='sa2rage')


def _why_not(number: str, uniform: dict[str, Any], magnitudes: Sequence[dict[str, Any]]) -> str:
    numbered = [f for f in magnitudes if image_names.inversion(f) == number]
    if not numbered:
        unclear = [f for f in magnitudes if image_names.inversion(f) == '?']
        names = ', '.join(f['path'].name for f in unclear)
        more = f' (the inversion number is unclear: {names})' if unclear else ''
        return f'INV{number} is missing{more}'
    one, own = numbered[0], _common(uniform)
    differing = [name for name, value in _common(one).items() if own[name] != value]
    return (
        f'{one["path"].name} differs from {uniform["path"].name} in {", ".join(differing)}; if '
        f'they belong together: {_recipe(magnitudes, one)}'
    )


def _recipe(magnitudes: Sequence[dict[str, Any]], one: dict[str, Any]) -> str:
    """The filter for the inversion images that are named like one of them."""
    pair = [f for f in magnitudes if _common(f) == _common(one)]
    pattern: dict[str, Any] = {}
    for name in ('suffix', 'acquisition', 'reconstruction', 'run'):
        values = list(dict.fromkeys(f.get(name) for f in pair))
        if name == 'run':
            values = [int(v) if v and v.isdecimal() else v for v in values]
        if values != ['MP2RAGE']:
            pattern[name] = values[0] if len(values) == 1 else values
    return f'--bids-filter-file with {json.dumps({"mp2rage": pattern})}'


def _common(file: dict[str, Any]) -> dict[str, str]:
    """What the parts of one MP2RAGE share in their names."""
    run = str(file.get('run') or '')
    return {
        'acq': _PART.sub('', file.get('acquisition') or '').strip('-_').lower(),
        'rec': _PART.sub('', _DENOISED.sub('', file.get('reconstruction') or '')).lower(),
        'run': str(int(run)) if run.isdecimal() else run,
        'ce': file.get('ceagent') or '',
        'task': file.get('task') or '',
    }
