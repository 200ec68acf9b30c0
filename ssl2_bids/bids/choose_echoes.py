"""T2starw: a single image, or the echoes whose combination stands for it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from ssl2_bids import sidecar_values
from ssl2_bids.bids import preference
from ssl2_bids.bids.choosing import Choosing
from ssl2_bids.bids.inheritance import stem
from ssl2_bids.bids.scan import Scan
from ssl2_bids.voxel_grid import same_grid

MAX_ECHO = 0.060  # s; later echoes hold little signal at 7T


def pick_t2starw(choosing: Choosing, found: list[dict[str, Any]]) -> Scan:
    """A single T2starw, else the echoes of a T2starw, else those of a MEGRE."""
    found = _without_copies(choosing, found)
    single = [f for f in found if f['suffix'] == 'T2starw' and 'echo' not in f]
    if single:
        choosing.drop([f for f in found if f not in single], 'a single T2starw is used')
        return choosing.pick_first('t2starw', single)
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for file in found:
        names = [file.get(name) or '' for name in preference.ENTITIES if name != 'echo']
        groups[(file['suffix'], *names)].append(file)
    firsts = [min(group, key=_echo) for group in groups.values()]
    firsts.sort(key=lambda f: f['suffix'] != 'T2starw')
    first = preference.in_order(
        [f for f in firsts if f['suffix'] == firsts[0]['suffix']], choosing.headers
    )[0]
    group = next(group for group in groups.values() if first in group)
    choosing.drop([f for f in found if f not in group], 'another group of echoes is used')
    others = [f for f in firsts if f['suffix'] == first['suffix'] and f is not first]
    # of the groups: the filter for another one must not ask for its first echo alone
    bare = [{k: v for k, v in f.items() if k != 'echo'} for f in (first, *others)]
    reasons = [(f, preference.why(bare[0], f, choosing.headers)) for f in bare[1:]]
    choosing.warn_of_several('t2starw', bare[0], reasons)
    return _pick_echoes(choosing, sorted(group, key=_echo))


def _without_copies(choosing: Choosing, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of an image stored as .nii and as .nii.gz one file, as for other contrasts."""
    kept: dict[Path, dict[str, Any]] = {}
    for file in preference.in_order(found, choosing.headers):
        first = kept.setdefault(file['path'].with_name(stem(file['path'])), file)
        if first is not file:
            choosing.drop([file], f'{first["path"].name} is used')
    return [f for f in found if any(f is one for one in kept.values())]


def _pick_echoes(choosing: Choosing, group: list[dict[str, Any]]) -> Scan:
    known = _have_times(choosing, group)
    early = [
        f for f in group if not known or float(f['metadata']['EchoTime']) <= MAX_ECHO
    ] or group
    choosing.drop([f for f in group if f not in early], 'echo after 60 ms')
    grid = choosing.headers[early[0]['path']]
    together = [f for f in early if same_grid(choosing.headers[f['path']], grid)]
    for file in early:
        if file not in together:
            choosing.drop([file], 'not on the grid of the first echo')
            name = file['path'].name
            choosing.warnings.append(f'{name} was left out: not on the grid of the first echo')
    pick = choosing.scan('T2starw', together[0])
    seconds = [f['metadata'].get('EchoTime') for f in together]
    metadata = pick.metadata
    if len(together) > 1:  # the mean of several has no echo time of its own
        metadata = {k: v for k, v in pick.metadata.items() if k != 'EchoTime'}
    return replace(
        pick,
        metadata=metadata,
        paths=tuple(f['path'] for f in together),
        echo_times=tuple(map(float, seconds)) if known else (),
    )


def _have_times(choosing: Choosing, group: list[dict[str, Any]]) -> bool:
    """Whether the echo times of all echoes are known; why not, where they are given but wrong."""
    wrong = [
        f'{f["path"].name}: {text}'
        for f in group
        for text in sidecar_values.faults(f['metadata'], 'EchoTime')
    ]
    times = [f['metadata'].get('EchoTime') for f in group]
    if not wrong and len(group) > 1 and None not in times:
        for (one, before), (other, after) in pairwise(zip(group, times, strict=True)):
            if after <= before:
                wrong.append(
                    f'{other["path"].name}: EchoTime is {after:g} s, expected is more than the '
                    f'{before:g} s of {one["path"].name}'
                )
    if wrong:
        choosing.warnings.append(f'no T2* map can be computed: {"; ".join(wrong)}')
    return not wrong and None not in times


def _echo(file: dict[str, Any]) -> int:
    return int(file.get('echo') or 0)
