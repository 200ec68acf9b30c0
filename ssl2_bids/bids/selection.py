"""Which file of a session is taken for each contrast, and why the others are not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl2_bids.bids import choose_echoes, choose_mp2rage, image_names, mp2rage_parts, preference
from ssl2_bids.bids.choosing import Choice, Choosing
from ssl2_bids.bids.filters import SUFFIXES_OF
from ssl2_bids.bids.scan import Scan
from ssl2_bids.contrasts import KEYS, SIMILAR

UNASKED = 'not among --contrasts'


def choose(
    files: list[dict[str, Any]],
    filters: dict[str, dict[str, Any]],
    *,
    accepted: tuple[str, ...],
    wanted: tuple[str, ...] | None,
    reference: str | None = None,
    unusable: Mapping[Path, str] | None = None,
) -> Choice:
    """Take one image per contrast (docs/how-to/choose-images.md); headers are read.

    An image that cannot be used is left out: the next one is taken, or the contrast is missing.
    An image of a dataset of ``-d`` goes before raw ones.

    Parameters
    ----------
    files : entities, ``path`` and ``metadata`` of each image of the session; ``dataset`` and
        ``within`` of those of ``-d``.
    filters : entity patterns by contrast key.
    accepted : suffixes that the model takes.
    wanted : contrast keys that the user narrows to, or None.
    reference : contrast key that the user asks for as reference.
    unusable : files whose voxels were found to be unusable before, and why.
    """
    choosing = Choosing(files, filters, dict(unusable or {}))
    asked = {*(wanted or ()), reference}
    for key in KEYS:
        suffix = SUFFIXES_OF[key][0]
        reason = _why_not(key, suffix, accepted, wanted, choosing.picks)
        if not wanted or reference in wanted:
            reason = reason or _reference_instead(choosing, suffix, reference)
        known = set(choosing.absent)
        found, given = choosing.candidates(key), choosing.given(suffix, needed=not reason)
        if reason:
            choosing.absent = known  # those of this contrast are not needed
        elif key == 'unit1' and not given:
            choosing.note_absent_parts()
        if not (found or given or (key == 'unit1' and choose_mp2rage.complex_pairs(choosing))):
            continue
        if not reason and not given and key not in asked:
            reason = _given_instead(choosing, suffix, accepted, wanted)
        if reason:
            choosing.drop([*found, *given], reason)
            if given and given[0]['mask']:  # the mask is brought to other images by this one
                choosing.picks[suffix] = choosing.pick_given(suffix, given[0], channel=False)
            continue
        if given:
            choosing.picks[suffix] = choosing.pick_given(suffix, given[0])
            continue
        found = choosing.usable(found)
        if not found:
            if key == 'unit1' and (computed := choose_mp2rage.pick_computed(choosing)):
                choosing.picks[suffix] = computed
            continue
        found = choosing.without_contrast_agent(found)
        if key == 'unit1':
            pick = choose_mp2rage.pick_unit1(choosing, found)
        elif key == 't2starw':
            pick = choose_echoes.pick_t2starw(choosing, found)
        else:
            pick = choosing.pick_first(key, found)
        choosing.picks[suffix] = pick
    explain_the_rest(choosing)
    return choosing.choice()


def _why_not(
    key: str,
    suffix: str,
    accepted: tuple[str, ...],
    wanted: tuple[str, ...] | None,
    picks: dict[str, Scan],
) -> str:
    if wanted is not None and key not in wanted:
        return UNASKED
    if suffix not in accepted and SIMILAR.get(suffix) not in accepted:
        return f'the model does not take {suffix}'
    for taken in picks:
        if SIMILAR.get(taken) == suffix:
            return f'{taken} is the {suffix}-like image'
    return ''


def _reference_instead(choosing: Choosing, suffix: str, reference: str | None) -> str:
    """Why images of a contrast are not taken: the similar one is the reference asked for."""
    similar = SIMILAR.get(suffix)
    if not similar or not reference or SUFFIXES_OF[reference][0] != similar:
        return ''
    for file in choosing.given(similar):
        return f'{file["path"].name} of {file["dataset"]} is the {similar}-like image'
    own = [f for f in choosing.candidates(reference) if not image_names.is_uniform(f)]
    return f'{similar} is the reference' if own else ''


def _given_instead(
    choosing: Choosing, suffix: str, accepted: tuple[str, ...], wanted: tuple[str, ...] | None
) -> str:
    """Why raw images of a contrast are not taken: ``-d`` has an image of the similar one."""
    similar = SIMILAR.get(suffix)
    if similar not in accepted or (wanted is not None and similar.lower() not in wanted):
        return ''
    return next(
        (
            f'{file["path"].name} of {file["dataset"]} is the {similar}-like image'
            for file in choosing.given(similar)
        ),
        '',
    )


def explain_the_rest(choosing: Choosing) -> None:
    """Record why images of an MP2RAGE are not used."""
    for file in choosing.files:
        if image_names.is_complex_part(file) and image_names.inversion(file):
            choosing.drop([file], f'part-{file["part"]} is not used')
    left = [f for f in choosing.files if f['path'] not in choosing.dropped]
    inversions = [f for f in left if mp2rage_parts.is_inversion(f)]
    if 'UNIT1' in choosing.picks:
        choosing.drop(inversions, 'not needed for the noise removal of UNIT1')
    elif inversions and not any(image_names.is_uniform(f) for f in choosing.files):
        reason = mp2rage_parts.why_no_uniform(inversions)
        choosing.drop(inversions, reason)
        names = ', '.join(f['path'].name for f in inversions if not image_names.is_phase(f))
        choosing.warnings.append(f'MP2RAGE without UNIT1 ({names}): {reason}')
    choosing.drop(inversions, 'its UNIT1 is not used')
    used = {c.path for scan in choosing.picks.values() for c in scan.companions}
    chosen = choosing.picks['UNIT1'].paths if 'UNIT1' in choosing.picks else ()
    uniform = next((f for f in choosing.files if f['path'] in chosen), None)
    for file in left:
        if file['suffix'] in mp2rage_parts.RELATED:
            reason = mp2rage_parts.why_not_used(file, choosing.files, used, uniform)
            choosing.drop([file], reason)
        elif file['suffix'] in ('UNI', 'MP2RAGE', 'MPRAGE', 'MP2RAGEUNI'):
            key = 't1w' if file['suffix'] == 'MPRAGE' else 'unit1'
            recipe = preference.recipe(key, file)
            choosing.drop([file], f'not a BIDS name; to use it: {recipe}')
