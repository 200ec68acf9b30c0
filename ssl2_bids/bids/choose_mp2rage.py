"""UNIT1: which is taken, with which inversions and maps, or from which images it is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ssl2_bids.bids import image_names, mp2rage_parts, preference
from ssl2_bids.bids.choosing import Choosing
from ssl2_bids.bids.mp2rage_parts import Roles
from ssl2_bids.bids.scan import Scan

OF_ONE_INVERSION = ('InversionTime', 'FlipAngle')  # keys that UNIT1 does not share with INV2


def pick_unit1(choosing: Choosing, found: list[dict[str, Any]]) -> Scan:
    """The un-denoised UNIT1 with its two inversions, else a denoised one, else the first."""
    plain = [f for f in found if not image_names.is_denoised(f)]
    denoised = [f for f in found if f not in plain]
    for file in preference.in_order(plain, choosing.headers):
        pair = _usable_pair(choosing, file)
        if pair:
            choosing.drop(denoised, 'UNIT1 with INV1 and INV2 is denoised by ssl2-bids')
            rest = [f for f in plain if f is not file]
            bare = [f for f in rest if not _usable_pair(choosing, f)]
            choosing.drop(bare, f'{file["path"].name} has priority: with INV1 and INV2')
            left = [f for f in plain if f not in bare]
            choosing.pick_first('unit1', left, [(f, 'with INV1 and INV2') for f in bare])
            roles = [('INV1', pair[0]), ('INV2', pair[1])]
            return choosing.scan('UNIT1', file, [*roles, *_for_t1(choosing, pair, file)])
    if not denoised:
        why = choosing.inversions(preference.in_order(plain, choosing.headers)[0]).reason
        choosing.warnings.append(
            'UNIT1 without INV1 and INV2'
            + (f' ({why})' if why else '')
            + ': its background noise cannot be removed by the robust combination'
        )
    elif plain:
        choosing.drop(plain, 'the denoised UNIT1 is used')
    pick = choosing.pick_first('unit1', denoised or plain)
    (file,) = [f for f in found if f['path'] == pick.paths[0]]
    maps = _scanner_maps(choosing, file)
    return choosing.scan('UNIT1', file, maps) if maps else pick


def complex_pairs(choosing: Choosing) -> list[Roles]:
    """The MP2RAGE images from which UNIT1 can be computed; see there."""
    return mp2rage_parts.complex_pairs(choosing.mp2rage_files()[0])


def pick_computed(choosing: Choosing) -> Scan | None:
    """UNIT1 computed from the magnitudes and phases of an MP2RAGE, if all can be used."""
    pairs = complex_pairs(choosing)
    for number, pair in enumerate(pairs, start=1):
        files = [file for _, file in pair]
        if len(choosing.usable(files)) < len(files):
            continue
        (_, second), *others = pair
        # the sidecar of a phase may be shorter than that of its magnitude
        role, phase = others[-1]
        known = {**second['metadata'], **phase['metadata']}
        others[-1] = (role, {**phase, 'metadata': known})
        if not all(choosing.on_grid(file, second, 'INV2') for _, file in others):
            continue
        others += _for_t1(choosing, (files[1], second), second)
        later = [other[0][1] for other in pairs[number:]]
        more = [file for file in later if _is_another_run(file, second)]
        choosing.warn_of_several('mp2rage', second, [(f, preference.BY_NAME) for f in more])
        pick = choosing.scan('UNIT1', second, others)
        metadata = {k: v for k, v in pick.metadata.items() if k not in OF_ONE_INVERSION}
        entities = mp2rage_parts.without_number(pick.entities)
        return replace(pick, metadata=metadata, entities=entities)
    return None


def _is_another_run(file: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether an inversion image is not one of the acquisition of another, whatever its echo."""
    names = [name for name in preference.ENTITIES if name != 'echo']
    return any(file.get(name) != other.get(name) for name in names)


def _for_t1(choosing: Choosing, pair: Sequence[dict[str, Any]], uniform: dict[str, Any]) -> Roles:
    """What helps to map T1 beside the inversions: a B1+ map, or the T1 map of the scanner."""
    from ssl2_bids.steps import t1_mapping  # only where there is an MP2RAGE

    sidecars = [file['metadata'] for file in pair]
    if t1_mapping.protocol_of(*sidecars):
        if given := choosing.given('TB1map'):
            return [('TB1map', given[0])]
        raw = [f for f in choosing.files if not f.get('dataset') and f['path'].exists()]
        found, why = mp2rage_parts.transmit_maps(raw, uniform)
        if why:
            choosing.warnings.append(f'no B1+ map can be computed from SA2RAGE: {why}')
        if len(choosing.usable([f for _, f in found])) < len(found):
            return []
        # the names of a B1+ map and its UNIT1 differ often; a run of another number is doubtful
        for _, file in found[:1]:
            _note_other(choosing, file, uniform, only=('run',))
        return found
    if any('InversionTime' in one for one in sidecars):
        why = t1_mapping.why_no_protocol({f['path'].name: f['metadata'] for f in pair})
        choosing.warnings.append(f'no T1 map can be computed from the MP2RAGE: {why}')
    return _scanner_maps(choosing, uniform)


def _scanner_maps(choosing: Choosing, uniform: dict[str, Any]) -> Roles:
    """The T1 map of the scanner on the grid of a UNIT1."""
    maps = [f for f in choosing.files if f['suffix'] == 'T1map' and f['path'].exists()]
    maps = [f for f in choosing.usable(maps) if choosing.on_grid(f, uniform, 'UNIT1')]
    for file in mp2rage_parts.best_named(maps, uniform)[:1]:
        _note_other(choosing, file, uniform)
        return [('T1map', file)]
    return []


def _note_other(
    choosing: Choosing,
    file: dict[str, Any],
    uniform: dict[str, Any],
    only: tuple[str, ...] | None = None,
) -> None:
    """Warn of a map whose name contradicts that of its UNIT1, in some entities or in any."""
    apart = mp2rage_parts.contradictions(file, uniform)
    apart = [name for name in apart if only is None or name in only]
    if apart:
        choosing.warnings.append(
            f'{file["path"].name} is used with {uniform["path"].name}, from which its name '
            f'differs in {", ".join(apart)}: check that both belong together'
        )


def _usable_pair(choosing: Choosing, uniform: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """INV1 and INV2 of a uniform image, if both can be used and lie on its grid."""
    pair = choosing.inversions(uniform).inversions
    if len(choosing.usable(pair)) < len(pair):
        return ()
    return pair if all(choosing.on_grid(file, uniform, 'UNIT1') for file in pair) else ()
