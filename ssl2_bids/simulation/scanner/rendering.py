"""A head in the scanner: what its voxels are made of, the fields there, and their signals."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ssl2_bids.simulation.anatomy.anatomy import EXTRACEREBRAL, Anatomy
from ssl2_bids.simulation.anatomy.tissues import (
    IndividualDraw,
    Tissue,
    individual,
    lesion_tissue,
    read_tissues,
    texture_map,
    with_texture,
)
from ssl2_bids.simulation.lesions.lesions import PaintedLesions
from ssl2_bids.simulation.scanner.fields import (
    OffResonanceDraw,
    TransmitDraw,
    draw_off_resonance,
    draw_transmit,
    off_resonance_map,
    transmit_map,
)
from ssl2_bids.simulation.scanner.protocols import Protocol, Scanner
from ssl2_bids.simulation.scanner.sequences import signals
from ssl2_bids.voxel_grid import bounding_box, shift_affine, spacing_of, start_of, widen

FAINTEST = 1e-3  # of a voxel; less of a tissue than this is left out
MARGIN = 4  # voxels around the brain
FATS = ('fat', 'marrow')

Filling = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class HeadDraw:
    """One head during one session: its tissues and the fields that it meets."""

    tissues: IndividualDraw
    transmit: TransmitDraw
    off_resonance: OffResonanceDraw


@dataclass(frozen=True)
class Part:
    """What one tissue fills.

    Attributes
    ----------
    where : flat indices of voxels of the whole head's grid.
    amount : fraction of each.
    tissue : there.
    escaped : share of the signal that escapes an inversion, or None.
    """

    name: str
    where: np.ndarray
    amount: np.ndarray
    tissue: Tissue
    escaped: np.ndarray | None = None


@dataclass(frozen=True)
class Surround:
    """What a head has around its brain, apart from it so that lesions need not carry it along.

    Attributes
    ----------
    shape, affine : of the whole head's grid.
    box : the brain's part of it.
    fillings : by tissue, what lies outside the brain: voxels (flat) and fraction of each.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    box: tuple[slice, ...]
    fillings: dict[str, Filling]


@dataclass(frozen=True)
class HeadInScanner:
    """One participant in the scanner; maps on the anatomy's grid, shape (I, J, K).

    Attributes
    ----------
    affine : (4, 4), RAS+ mm.
    parts : what the voxels are made of; the rest is air.
    brain : bool.
    box : the part of the grid that is not air.
    transmit : B1+ as a fraction of nominal.
    off_resonance : Hz.
    texture : factor of T1 and T2.
    centre : RAS+ mm, middle of the brain.
    field : T.
    """

    affine: np.ndarray
    parts: tuple[Part, ...]
    brain: np.ndarray
    box: tuple[slice, ...]
    transmit: np.ndarray
    off_resonance: np.ndarray
    texture: np.ndarray
    centre: np.ndarray
    field: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        return self.brain.shape

    @property
    def spacing(self) -> np.ndarray:
        """Voxel edge lengths in mm, shape (3,)."""
        return spacing_of(self.affine)


def draw_head(random: np.random.Generator, scanner: Scanner, tissues: IndividualDraw) -> HeadDraw:
    """Draw the fields that one session of a head meets."""
    transmit = draw_transmit(random, scanner.transmit)
    return HeadDraw(tissues, transmit, draw_off_resonance(random, scanner.off_resonance))


def split(anatomy: Anatomy) -> tuple[Anatomy, Surround]:
    """A head as its brain, cropped, and the rest."""
    brain = anatomy.brain
    empty = widen((slice(0, 1),) * 3, brain.shape, MARGIN)
    box = bounding_box(brain, MARGIN) if brain.any() else empty
    inner, fillings = {}, {}
    for name, fraction in anatomy.fractions.items():
        outer = fraction
        if name not in EXTRACEREBRAL:
            inner[name] = fraction[box].copy()
            outer = fraction.copy()
            outer[box] = 0
        where, amount = filling(outer)
        if where.size:
            fillings[name] = where, amount
    affine = shift_affine(anatomy.affine, start_of(box))
    labels = None if anatomy.labels is None else anatomy.labels[box].copy()
    surround = Surround(brain.shape, anatomy.affine, box, fillings)
    return Anatomy(inner, affine, labels, anatomy.sharpness), surround


def filling(fraction: np.ndarray) -> Filling:
    """Flat indices of the voxels that a tissue fills, and the fraction of each."""
    where = np.flatnonzero(fraction > FAINTEST).astype(np.int32)
    return where, fraction.reshape(-1)[where]


def make_head(
    lesions: PaintedLesions, surround: Surround, draw: HeadDraw, *, field: float
) -> HeadInScanner:
    """Give a brain with lesions its head, its tissues, and the fields of one session.

    Parameters
    ----------
    lesions : in the brain's part of the head's grid.
    field : T.
    """
    shape, affine, box = surround.shape, surround.affine, surround.box
    brain, whole = np.zeros(shape, bool), np.zeros(shape, np.float32)
    brain[box] = lesions.anatomy.brain
    tissues = individual(read_tissues(field), draw.tissues)
    parts = [Part(name, *what, tissues[name]) for name, what in surround.fillings.items()]
    for name, fraction in lesions.anatomy.fractions.items():
        whole[box] = fraction
        where, amount = filling(whole)
        if not where.size:
            continue
        inside = fraction > FAINTEST
        if name == 'lesion':
            tissue = painted_tissue(
                tissues['wm'], lesions.damage[inside], lesions.t2_factor[inside]
            )
        else:
            tissue = tissues[name]
        escaped = None
        if name == 'csf' and lesions.pulsation is not None:
            escaped = lesions.pulsation[inside]
        parts.append(Part(name, where, amount, tissue, escaped))
    not_air = np.zeros(shape, bool)
    for part in parts:
        not_air.reshape(-1)[part.where] = True
    return HeadInScanner(
        affine,
        tuple(parts),
        brain,
        bounding_box(not_air),
        transmit_map(draw.transmit, brain, affine),
        off_resonance_map(draw.off_resonance, brain, affine, field=field),
        texture_map(draw.tissues, shape, affine, lesions.anatomy.centre),
        lesions.anatomy.centre,
        field,
    )


def painted_tissue(white: Tissue, damage: np.ndarray, t2_factor: np.ndarray) -> Tissue:
    """Lesion whose R1 is that of a damage and whose T2 is a multiple of white matter's."""
    usual = lesion_tissue(white, damage)
    return lesion_tissue(white, damage, t2_factor=t2_factor * (white.t2 / usual.t2))


def render(
    head: HeadInScanner, protocol: Protocol, *, names: tuple[str, ...] | None = None
) -> list[np.ndarray]:
    """Signed images on the anatomy's grid: the mean of the signals within each voxel.

    Parameters
    ----------
    names : of the tissues; None for all but the fat ones, which resonate elsewhere.
    """
    images = [np.zeros(head.brain.size, np.float32) for _ in range(protocol.image_count)]
    for part in head.parts:
        if part.name not in names if names else part.name in FATS:
            continue
        tissue = with_texture(part.tissue, head.texture.reshape(-1)[part.where])
        transmit = head.transmit.reshape(-1)[part.where]
        measured = signals(tissue, protocol, transmit)
        if part.escaped is not None and protocol.kind == 'flair':
            let_flow(measured, tissue, protocol, transmit, part.escaped)
        for image, signal in zip(images, measured, strict=True):
            image[part.where] += part.amount * signal
    return [image.reshape(head.shape) for image in images]


def let_flow(
    measured: list[np.ndarray],
    fluid: Tissue,
    protocol: Protocol,
    transmit: np.ndarray,
    escaped: np.ndarray,
) -> None:
    """Mix the signal of fluid that flowed in after the inversion into that of FLAIR, in place."""
    flowing = np.flatnonzero(escaped)
    direct = replace(protocol, ti=(), preparation=0.0)
    bright = signals(fluid.at(flowing), direct, transmit[flowing])
    for image, light in zip(measured, bright, strict=True):
        image[flowing] += escaped[flowing] * (light - image[flowing])
