"""One lesion: what was drawn of it, and how it fills the tissue around its centre."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage, special

from ssl2_bids.simulation.anatomy.surroundings import Surroundings
from ssl2_bids.simulation.lesions.shapes import axes_of, noise, outward, radius_of

Point = tuple[float, float, float]

HALF = 0.5  # of a voxel; from this severity on it belongs to the lesion
ROOM = 0.5  # of a voxel must be tissue that can be diseased
MAX_HALO_SEVERITY = 0.4  # severity, well below the truth's
FAINTEST = 0.01  # severity below this is healthy
MAX_DAMAGE = 0.62  # loss of R1 in a black hole
NEIGHBOURS = np.ones((3, 3, 3), bool)


@dataclass(frozen=True)
class LesionAppearance:
    """What a lesion does to its tissue.

    Attributes
    ----------
    damage : loss of R1 against white matter, 0 to 1.
    t2_factor : T2 as a multiple of white matter's.
    edge : mm in which the severity falls from 90 to 10 %.
    halo, reach : severity just outside the border, and mm until it has faded; never in the truth.
    core : damage in the middle (a black hole), 0 for none.
    rim : share of the outermost layer that holds iron, 0 for none.
    vein : radius in mm of a vein through the middle, 0 for none.
    texture : relative standard deviation of the damage inside.
    strength : share of a voxel within the lesion that is diseased; below 1 in the cortex.
    """

    damage: float
    t2_factor: float
    edge: float
    halo: float
    reach: float
    core: float = 0.0
    rim: float = 0.0
    vein: float = 0.0
    texture: float = 0.0
    strength: float = 1.0


@dataclass(frozen=True)
class Origin:
    """From which real lesion a shape was taken, and how it was changed.

    Attributes
    ----------
    patient : name of the mask.
    component : which of its lesions, from 1 by descending volume.
    mirrored : left and right swapped.
    scale : of all axes.
    turn : degrees about the three axes.
    cut : direction of the plane through the middle that cut a part off, or None.
    """

    patient: str
    component: int
    mirrored: bool
    scale: float
    turn: Point
    cut: Point | None = None


@dataclass(frozen=True)
class PaintedLesion:
    """One painted lesion; ``dataclasses.asdict`` makes it JSON.

    Attributes
    ----------
    index : its number in the instance map, from 1.
    place : where it lies: one of ``surroundings.PLACES``.
    kind : what it takes: one of ``surroundings.SHARES``.
    form : of ``lesion_shapes.FORMS``, ``real``, or a cortical one of ``cortical.FORMS``.
    centre : mm.
    volume_wanted, volume_mm3 : drawn, and painted (voxels with a severity of one half or more).
    seed : of its shape and texture.
    origin : None for procedural shapes.
    change : of a second visit: stable, new, enlarging, shrinking or vanished; else empty.
    """

    index: int
    place: str
    kind: str
    form: str
    centre: Point
    volume_wanted: float
    volume_mm3: float
    seed: int
    appearance: LesionAppearance
    origin: Origin | None = None
    change: str = ''


@dataclass(frozen=True)
class LesionPatch:
    """A lesion on the voxels around it; arrays have the shape of ``box``.

    Attributes
    ----------
    lesion : what was drawn, with the volume that was painted.
    box : within the surroundings' grid.
    outline : distance from the border in mm, negative inside.
    severity : 0 to 1 of the tissue there; the truth is where, times the share of the voxel that
        can be diseased, it is one half or more.
    damage : loss of R1.
    rim : share of the diseased tissue that holds iron.
    vein : share of the voxel that is a vein.
    truth : bool.
    """

    lesion: PaintedLesion
    box: tuple[slice, ...]
    outline: np.ndarray
    severity: np.ndarray
    damage: np.ndarray
    rim: np.ndarray
    vein: np.ndarray
    truth: np.ndarray


def as_point(values: np.ndarray) -> Point:
    """Three numbers that JSON can hold."""
    x, y, z = map(float, values)
    return x, y, z


def room_for(
    lesion: PaintedLesion, box: tuple[slice, ...], around: Surroundings, blocked: np.ndarray
) -> np.ndarray:
    """Voxels that a lesion can fill: tissue, free, and connected to its centre.

    Lesions do not leap a sulcus. All False if the centre itself is taken.
    """
    room = (around.susceptible[lesion.kind][box] >= ROOM) & ~blocked[box]
    middle = around.voxel(np.array(lesion.centre)) - [b.start for b in box]
    if not room[tuple(middle)]:
        return np.zeros_like(room)
    pieces, _ = ndimage.label(room)
    return pieces == pieces[tuple(middle)]


def border(
    outline: np.ndarray, room: np.ndarray, share: np.ndarray, *, voxels: int, width: float
) -> float | None:
    """The level of an outline at which the truth has so many voxels; None if there is no room.

    Voxels that are partly fluid have to lie deeper inside: severity times share is one half
    where the outline is less than the level by ``width * logit(1 / (2 share))``.
    """
    inside = room & (share > HALF)
    values = outline[inside] + width * special.logit(HALF / share[inside])
    if not 0 < voxels <= len(values):
        return None
    values = np.sort(values)
    after = values[voxels] if voxels < len(values) else values[-1] + 0.5
    return float(values[voxels - 1] + after) / 2


def core_of(outline: np.ndarray, width: float) -> np.ndarray:
    """Severity of a lesion without its halo, one half at its border."""
    return special.expit(-outline / np.float32(width))


def steepness(appearance: LesionAppearance, volume: float) -> float:
    """Scale in mm of the border; small lesions would vanish behind a wide one."""
    return float(min(appearance.edge / 4.4, 0.22 * radius_of(volume)))


def grow(
    lesion: PaintedLesion,
    outline: np.ndarray,
    box: tuple[slice, ...],
    room: np.ndarray,
    around: Surroundings,
) -> LesionPatch | None:
    """Fill the room with the lesion up to its volume; None if there is no room for it.

    Parameters
    ----------
    lesion : as drawn.
    outline : grows outwards, in mm; any level of it can become the border.
    room : of :func:`room_for`.
    """
    share = around.susceptible[lesion.kind][box]
    voxels = max(round(lesion.volume_wanted / float(np.prod(around.spacing))), 1)
    width = steepness(lesion.appearance, lesion.volume_wanted)
    level = border(outline, room, share, voxels=voxels, width=width)
    if level is None:
        return None
    return finish(lesion, outline - np.float32(level), box, room, around)


def finish(
    lesion: PaintedLesion,
    outline: np.ndarray,
    box: tuple[slice, ...],
    room: np.ndarray,
    around: Surroundings,
) -> LesionPatch | None:
    """The patch of a lesion whose border is where ``outline`` is zero; None if nothing is left."""
    look = lesion.appearance
    random = np.random.default_rng([lesion.seed, 1])
    width = steepness(look, lesion.volume_wanted)
    share = around.susceptible[lesion.kind][box]
    severity = np.where(ndimage.binary_dilation(room, NEIGHBOURS), core_of(outline, width), 0)
    # The gap to a neighbour stays free.
    severity = np.where(room | (share < ROOM), severity, np.minimum(severity, MAX_HALO_SEVERITY))
    truth = room & (severity * share >= HALF)
    if not truth.any():
        return None
    halo = look.halo * np.exp(-np.maximum(outline, 0) * (2.5 / look.reach))
    severity = np.maximum(severity, np.where(outline > 0, np.minimum(halo, MAX_HALO_SEVERITY), 0))
    severity[severity < FAINTEST] = 0
    at = axes_of(around, box, np.array(lesion.centre))
    damage = np.full(outline.shape, look.damage, np.float32)
    if look.core:
        deep = 0.35 * radius_of(lesion.volume_wanted)
        inside = special.expit((-outline - deep) / 0.4)
        damage += np.float32(look.core - look.damage) * inside
    if look.texture:
        # Fine grain; large lesions are patchy as well.
        coarse = max(radius_of(lesion.volume_wanted), 2.5)
        grain = 0.6 * noise(at, random, scale=2.5) + 0.8 * noise(at, random, scale=coarse)
        damage *= 1 + look.texture * grain
    rim = look.rim * np.exp(-(((outline + 0.6) / 0.6) ** 2))
    vein = np.zeros(outline.shape, np.float32)
    if look.vein:
        vein = central_vein(lesion, at, outline, around, random)
    volume = float(truth.sum() * np.prod(around.spacing))
    return LesionPatch(
        replace(lesion, volume_mm3=volume),
        box,
        outline.astype(np.float32),
        severity.astype(np.float32),
        np.clip(damage, 0.03, MAX_DAMAGE).astype(np.float32),
        rim.astype(np.float32),
        vein.astype(np.float32),
        truth,
    )


def central_vein(
    lesion: PaintedLesion,
    at: list[np.ndarray],
    outline: np.ndarray,
    around: Surroundings,
    random: np.random.Generator,
) -> np.ndarray:
    """Share of each voxel that is a straight vein through the centre, a little longer than it.

    It runs as veins of white matter do: away from the ventricle.
    """
    axis = outward(around.to_ventricle, around, np.array(lesion.centre))
    axis = axis + 0.35 * random.standard_normal(3)
    axis /= np.linalg.norm(axis)
    x, y, z = at
    along = (
        (axis[0] * x).reshape(-1, 1, 1)
        + (axis[1] * y).reshape(1, -1, 1)
        + (axis[2] * z).reshape(1, 1, -1)
    )
    square = (x**2).reshape(-1, 1, 1) + (y**2).reshape(1, -1, 1) + (z**2).reshape(1, 1, -1)
    off = np.sqrt(np.maximum(square - along**2, 0))
    radius, edge = lesion.appearance.vein, float(around.spacing.mean())
    # A cylinder thinner than a voxel fills this share of the voxels that it runs through.
    share = min(np.pi * radius**2 / edge**2, 1.0) * np.clip(1 - off / max(edge, radius), 0, 1)
    end = random.uniform(1.0, 3.0)
    return share * (outline < end)
