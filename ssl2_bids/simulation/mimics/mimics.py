"""What looks like a lesion in healthy brains and is none; the truth does not know of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ssl2_bids.simulation.anatomy.anatomy import EXTRACEREBRAL
from ssl2_bids.simulation.anatomy.surroundings import SHARES
from ssl2_bids.simulation.lesions.lesions import PaintedLesions, paste
from ssl2_bids.simulation.mimics.draws import MimicDraw, draw_mimics
from ssl2_bids.simulation.mimics.maps import (
    bright_cortex,
    bright_tracts,
    caps_and_bands,
    choroid_plexus,
    dirty_white_matter,
    pulsation_map,
    septum,
    specks,
    tubes_of_fluid,
    veins,
)

__all__ = ['MimicDraw', 'draw_mimics', 'with_mimics']

SHEET = 0.5  # amount in the septum pellucidum
IGNORED = 0.25  # amount of a speck from which on a rater is uncertain


def with_mimics(lesions: PaintedLesions, draw: MimicDraw) -> PaintedLesions:
    """The same lesions and the same truth in a brain with what resembles them.

    Heads without labels get what needs no atlas. Equal draws give equal mimics in both visits
    of a head, but where a lesion lies.
    """
    around = lesions.around
    labels = None if lesions.healthy.labels is None else lesions.healthy.labels[around.box]
    to_template = None if labels is None else around.to_template
    random = np.random.default_rng(draw.seed)
    fractions = {
        name: part[around.box].copy()
        for name, part in lesions.anatomy.fractions.items()
        if name not in EXTRACEREBRAL
    }
    healthy = 1 - lesions.severity[around.box]
    white = caps_and_bands(around, labels, draw, random)
    white = np.maximum(white, dirty_white_matter(around, draw, random))
    spots = specks(around, draw, random)
    white = np.maximum(white, spots)
    if to_template is not None:
        white = np.maximum(white, bright_tracts(around, to_template, draw))
    grey = bright_cortex(around, fractions, to_template, draw, random)
    tubes = tubes_of_fluid(around, to_template, draw, random) * healthy
    lines = veins(around, draw, random) * healthy
    move(fractions, 'csf', tubes, avoid=('csf', 'choroid_plexus'))
    move(fractions, 'vein', lines, avoid=('csf', 'vein', 'choroid_plexus'))
    if labels is not None:
        sheet = septum(labels, around.spacing, draw)
        move(fractions, 'wm', sheet, avoid=tuple(n for n in fractions if n != 'csf'))
        white[sheet > 0] = SHEET
    if to_template is not None and 'choroid_plexus' not in fractions:
        lobules = choroid_plexus(around, to_template, draw, random)
        move(fractions, 'choroid_plexus', lobules, avoid=tuple(n for n in fractions if n != 'csf'))
    damage, t2_factor = alter_tissue(lesions, fractions, white, grey, healthy, draw)
    whole = dict(lesions.anatomy.fractions) | {
        name: paste(part, lesions.anatomy.shape, around.box, lesions.anatomy.fractions.get(name))
        for name, part in fractions.items()
    }
    ignore = (spots >= IGNORED) & (lesions.severity[around.box] < 0.5)
    return replace(
        lesions,
        anatomy=replace(lesions.anatomy, fractions=whole),
        damage=paste(damage, lesions.anatomy.shape, around.box),
        t2_factor=paste(t2_factor, lesions.anatomy.shape, around.box, lesions.t2_factor),
        ignore=paste(ignore, lesions.anatomy.shape, around.box),
        pulsation=paste(
            pulsation_map(around, to_template, draw, random), lesions.anatomy.shape, around.box
        ),
        mimics=draw,
    )


def move(
    fractions: dict[str, np.ndarray], into: str, share: np.ndarray, *, avoid: tuple[str, ...]
) -> None:
    """Give a share of all tissues but some to another one, in place."""
    where = np.nonzero(share)
    if not len(where[0]):
        return
    amount, gained = share[where], np.zeros(len(where[0]), np.float32)
    for name, fraction in fractions.items():
        if name not in avoid and name != into:
            taken = amount * fraction[where]
            fraction[where] -= taken
            gained += taken
    if into not in fractions:
        fractions[into] = np.zeros(share.shape, np.float32)
    fractions[into][where] += gained


def alter_tissue(
    lesions: PaintedLesions,
    fractions: dict[str, np.ndarray],
    white: np.ndarray,
    grey: np.ndarray,
    healthy: np.ndarray,
    draw: MimicDraw,
) -> tuple[np.ndarray, np.ndarray]:
    """Turn tissue into ``lesion`` tissue where it is altered, in place.

    Returns
    -------
    Damage and T2 factor of the tissue ``lesion``: mean of those of lesions and of alterations.
    """
    box = lesions.around.box
    gained = np.zeros(healthy.shape, np.float32)
    for name in SHARES['white']:
        if name in fractions:
            amount = grey if name in ('gm', 'hippocampus') else white
            part = amount * healthy * fractions[name]
            fractions[name] -= part
            gained += part
    before = fractions['lesion']
    weight = gained / np.maximum(before + gained, 1e-6)
    fractions['lesion'] = before + gained
    damage = lesions.damage[box] * (1 - weight) + draw.damage * weight
    t2_factor = lesions.t2_factor[box] * (1 - weight) + draw.t2_factor * weight
    return damage.astype(np.float32), t2_factor.astype(np.float32)
