"""A later visit of the same head: lesions that are new, larger, smaller or gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from ssl2_bids.simulation.anatomy.surroundings import Surroundings
from ssl2_bids.simulation.lesions.growth import (
    NEIGHBOURS,
    ROOM,
    LesionPatch,
    border,
    finish,
    steepness,
)
from ssl2_bids.simulation.lesions.lesions import PaintedLesions, compose
from ssl2_bids.simulation.lesions.painter import Painter
from ssl2_bids.simulation.lesions.real import LesionShapes
from ssl2_bids.simulation.lesions.statistics import Statistics
from ssl2_bids.simulation.mimics.mimics import with_mimics

ACTIVE = 0.6  # share of patients in whom anything changed
NEW_SIZES = (8.0, 1500.0)  # mm^3
TRIES = 8  # volumes and places for one new lesion
ENLARGING = (1.4, 3.0)  # factor on the volume
SHRINKING = (0.35, 0.75)
MIN_TO_GROW, MIN_TO_SHRINK, MAX_TO_VANISH = 10.0, 20.0, 150.0  # mm^3


@dataclass(frozen=True)
class Changes:
    """How many lesions change between two visits."""

    new: int = 0
    enlarging: int = 0
    shrinking: int = 0
    vanished: int = 0


def draw_changes(random: np.random.Generator) -> Changes:
    """Draw how much changed; nothing in two of five patients."""
    active = random.random() < ACTIVE
    means = (random.choice([1.0, 3.0, 10.0]), 2.0, 1.5, 0.7)
    counts = [int(random.poisson(mean)) if active else 0 for mean in means]
    return Changes(*counts)


def next_visit(
    lesions: PaintedLesions,
    changes: Changes,
    random: np.random.Generator,
    *,
    statistics: Statistics | None = None,
    shapes: LesionShapes | None = None,
) -> PaintedLesions:
    """The same head later, on the same grid, with the same mimics.

    Lesions that stay keep number and shape. Those that grow hold all of what they were, those
    that shrink lie within it.

    Parameters
    ----------
    changes : how many; of a kind that too few lesions can undergo, fewer.
    statistics, shapes : as for :func:`lesions.paint`; of the new lesions.

    Returns
    -------
    Lesions with the change of each in the table; vanished ones stand last with a volume
    of 0.
    """
    fate = draw_fates(lesions.patches, changes, random)
    around = lesions.around
    painter = Painter(
        around,
        random,
        statistics or Statistics(),
        shapes,
        patches=tuple(p for p in lesions.patches if fate.get(p.lesion.index) != 'vanished'),
    )
    changed: list[LesionPatch] = []
    for patch in lesions.patches:
        kind = fate.get(patch.lesion.index, 'stable')
        if kind in ('enlarging', 'shrinking'):
            span = ENLARGING if kind == 'enlarging' else SHRINKING
            volume = patch.lesion.volume_mm3 * float(random.uniform(*span))
            resized = resize(patch, volume, around, painter.filled)
            kind = kind if resized.lesion.volume_mm3 != patch.lesion.volume_mm3 else 'stable'
            painter.keep(resized)
            patch = resized
        if kind != 'vanished':
            changed.append(_with_change(patch, patch.lesion.index, kind))
    number = max([lesions.highest, *(lesion.index for lesion in lesions.table)])
    for _ in range(changes.new):
        for _ in range(TRIES):
            volume, place = painter.draw_size(NEW_SIZES[1])
            added = painter.add(float(np.clip(volume, *NEW_SIZES)), place)
            if added is not None:
                number += 1
                changed.append(_with_change(added, number, 'new'))
                break
    gone = tuple(
        replace(p.lesion, change='vanished', volume_mm3=0.0)
        for p in lesions.patches
        if fate.get(p.lesion.index) == 'vanished'
    )
    later = compose(lesions.healthy, around, tuple(changed))
    if lesions.mimics is not None:
        later = with_mimics(later, lesions.mimics)
    return replace(later, table=later.table + gone, highest=number)


def draw_fates(
    patches: Sequence[LesionPatch], changes: Changes, random: np.random.Generator
) -> dict[int, str]:
    """What becomes of lesions, by their number; those that are not named stay as they are."""
    fate: dict[int, str] = {}
    suited = {
        'vanished': lambda volume: volume <= MAX_TO_VANISH,
        'shrinking': lambda volume: volume >= MIN_TO_SHRINK,
        'enlarging': lambda volume: volume >= MIN_TO_GROW,
    }
    for kind, suits in suited.items():
        numbers = [
            p.lesion.index
            for p in patches
            if suits(p.lesion.volume_mm3) and p.lesion.index not in fate
        ]
        count = min(getattr(changes, kind), len(numbers))
        for number in random.choice(numbers, count, replace=False) if count else ():
            fate[int(number)] = kind
    return fate


def resize(
    patch: LesionPatch, volume: float, around: Surroundings, filled: np.ndarray
) -> LesionPatch:
    """The same lesion with another volume in mm^3, as near to it as there is room.

    Parameters
    ----------
    filled : where this and other lesions are; it keeps a gap of a voxel to others.
    """
    lesion = replace(patch.lesion, volume_wanted=float(volume))
    share = around.susceptible[lesion.kind][patch.box]
    if volume < patch.lesion.volume_mm3:
        room = patch.truth
    else:
        others = ndimage.binary_dilation(filled[patch.box] & ~patch.truth, NEIGHBOURS)
        free = (share >= ROOM) & (~others | patch.truth)
        pieces, _ = ndimage.label(free)
        room = np.isin(pieces, np.unique(pieces[patch.truth]))
    voxels = max(round(volume / float(np.prod(around.spacing))), 1)
    width = steepness(lesion.appearance, volume)
    possible = int((room & (share > 0.5)).sum())
    level = border(patch.outline, room, share, voxels=min(voxels, possible), width=width)
    if level is None:
        return patch
    resized = finish(lesion, patch.outline - np.float32(level), patch.box, room, around)
    return resized or patch


def _with_change(patch: LesionPatch, index: int, change: str) -> LesionPatch:
    return replace(patch, lesion=replace(patch.lesion, index=index, change=change))
