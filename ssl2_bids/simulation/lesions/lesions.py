"""Lesions of known truth in an anatomy: how many, how large and where; painting all of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import ndimage

from ssl2_bids.simulation.anatomy.anatomy import EXTRACEREBRAL, Anatomy
from ssl2_bids.simulation.anatomy.surroundings import SHARES, Surroundings, survey
from ssl2_bids.simulation.lesions.growth import LesionPatch, PaintedLesion
from ssl2_bids.simulation.lesions.painter import MIN_VOLUME, Painter
from ssl2_bids.simulation.lesions.real import LesionShapes
from ssl2_bids.simulation.lesions.statistics import Statistics, statistics_for
from ssl2_bids.volume import Volume, resample

__all__ = [
    'PaintedLesion',
    'PaintedLesions',
    'Statistics',
    'Truth',
    'paint',
    'statistics_for',
    'truth_on',
]

FAILURES = 60  # in a row; then there is no more room
UNTOUCHED = (*EXTRACEREBRAL, 'csf', 'choroid_plexus')  # by lesions and their veins


@dataclass(frozen=True)
class PaintedLesions:
    """An anatomy with painted lesions; all maps on its grid, shape (I, J, K).

    Attributes
    ----------
    anatomy : with a fraction ``lesion`` taken from its tissues, and where they were drawn ``rim``
        (iron) and ``vein``. After :func:`mimics.with_mimics` the fraction ``lesion`` also
        holds lesion mimics: only ``severity`` is the truth.
    severity : 0 to 1; the truth is where it is at least one half, on any grid it is sampled on.
    damage : loss of R1 of the fraction ``lesion`` against white matter, 0 to 1.
    t2_factor : its T2 as a multiple of white matter's, at least 1.
    instances : uint16, number of the lesion in the truth, or 0.
    table : one entry per lesion in the order of their numbers; vanished ones stand last.
    ignore : None, or bool, where a lesion is ambiguous.
    pulsation : None, or the share 0 to 1 of the fluid's signal that escapes the inversion.
    mimics : None, or the draw of the lesion mimics.
    healthy, around, patches : what they were made from.
    highest : number of any lesion at this or a former visit.
    """

    anatomy: Anatomy
    severity: np.ndarray
    damage: np.ndarray
    t2_factor: np.ndarray
    instances: np.ndarray
    table: tuple[PaintedLesion, ...]
    healthy: Anatomy = field(repr=False)
    around: Surroundings = field(repr=False)
    patches: tuple[LesionPatch, ...] = field(repr=False)
    ignore: np.ndarray | None = None
    pulsation: np.ndarray | None = None
    mimics: Any = None
    highest: int = 0

    @property
    def count(self) -> int:
        """Lesions painted."""
        return len(self.patches)

    @property
    def truth(self) -> np.ndarray:
        """Voxels of which a lesion fills at least one half."""
        return self.severity >= 0.5

    @property
    def volume_ml(self) -> float:
        """Volume of the truth in mL."""
        return float(self.truth.sum() * self.anatomy.voxel_volume / 1000)


def paint(
    anatomy: Anatomy,
    random: np.random.Generator,
    *,
    load: float,
    statistics: Statistics | None = None,
    shapes: LesionShapes | None = None,
) -> PaintedLesions:
    """Paint lesions until their volume is ``load`` mL, or until there is no more room.

    Parameters
    ----------
    anatomy : 1 mm voxels or finer, along RAS+.
    load : mL, 0 for a head without lesions.
    statistics : sizes and places; those of 3 T by default.
    shapes : real lesions; by default all shapes are procedural.

    Raises
    ------
    DataError : the anatomy has no white matter.
    """
    statistics = statistics or Statistics()
    around = survey(anatomy)
    painter = Painter(around, random, statistics, shapes)
    wanted = painter.draw_sizes(load * 1000)
    left, failed = load * 1000.0, 0
    while left >= max(MIN_VOLUME, 0.5 * anatomy.voxel_volume) and failed < FAILURES:
        volume, place = wanted.pop(0) if wanted else painter.draw_size(load * 1000)
        volume = min(volume, left)
        patch = painter.add(volume, place)
        failed = failed + 1 if patch is None else 0
        if patch is not None:
            left -= patch.lesion.volume_mm3
        elif volume > 4 * MIN_VOLUME:
            wanted.insert(0, (volume / 2, place))
    return compose(anatomy, around, tuple(painter.patches))


def compose(
    anatomy: Anatomy, around: Surroundings, patches: tuple[LesionPatch, ...]
) -> PaintedLesions:
    """Put patches into an anatomy: where they overlap the more severe one counts."""
    amount = {kind: np.zeros(around.shape, np.float32) for kind in SHARES}
    severity, rim, vein = (np.zeros(around.shape, np.float32) for _ in range(3))
    damage = np.zeros(around.shape, np.float32)
    t2_factor = np.ones(around.shape, np.float32)
    instances = np.zeros(around.shape, np.uint16)
    for patch in patches:
        look, kind, box = patch.lesion.appearance, patch.lesion.kind, patch.box
        part = patch.severity * around.susceptible[kind][box]
        deeper = part > severity[box]
        severity[box][deeper] = part[deeper]
        damage[box][deeper] = patch.damage[deeper]
        t2_factor[box][deeper] = look.t2_factor
        for values in amount.values():
            values[box][deeper] = 0
        amount[kind][box][deeper] = look.strength * patch.severity[deeper]
        rim[box][deeper] = patch.rim[deeper]
        np.maximum(vein[box], patch.vein, out=vein[box])
        instances[box][deeper & (part >= 0.5)] = patch.lesion.index
    fractions = with_lesions(anatomy, around, amount, rim, vein)
    return PaintedLesions(
        anatomy=replace(anatomy, fractions=fractions),
        severity=paste(severity, anatomy.shape, around.box),
        damage=paste(damage, anatomy.shape, around.box),
        t2_factor=paste(t2_factor, anatomy.shape, around.box, np.ones(anatomy.shape, 'f4')),
        instances=paste(instances, anatomy.shape, around.box),
        table=measure_lesions(patches, instances, around),
        healthy=anatomy,
        around=around,
        patches=patches,
    )


def with_lesions(
    anatomy: Anatomy,
    around: Surroundings,
    amount: dict[str, np.ndarray],
    rim: np.ndarray,
    vein: np.ndarray,
) -> dict[str, np.ndarray]:
    """Fractions after lesions, iron rims and veins have taken their part; their sum is kept."""
    fractions = dict(anatomy.fractions)
    touched = vein > 0
    for values in amount.values():
        touched |= values > 0
    where = np.nonzero(touched)
    through = vein[where]
    lesion, veins = np.zeros((2, len(through)), np.float32)
    for name, fraction in anatomy.fractions.items():
        if name in UNTOUCHED:
            continue
        before = fraction[around.box][where]
        shares = [values[where] * SHARES[k].get(name, 0) for k, values in amount.items()]
        part = np.sum(shares, axis=0, dtype=np.float32) * before
        lesion += part
        left = before - part
        veins += through * left
        fractions[name] = fraction.copy()
        fractions[name][around.box][where] = left - through * left
    veins += through * lesion
    lesion -= through * lesion
    iron = rim[where] * lesion
    gained = {'lesion': lesion - iron, 'rim': iron, 'vein': veins}
    for name, values in gained.items():
        if name == 'lesion' or values.any():
            if name not in fractions:
                fractions[name] = np.zeros(anatomy.shape, np.float32)
            fractions[name][around.box][where] += values
    return fractions


def paste(
    part: np.ndarray,
    shape: tuple[int, ...],
    box: tuple[slice, ...],
    outside: np.ndarray | None = None,
) -> np.ndarray:
    """A part of the grid within a whole: of zeros, or of what is given for the outside."""
    whole = np.zeros(shape, part.dtype) if outside is None else outside.copy()
    whole[box] = part
    return whole


def measure_lesions(
    patches: tuple[LesionPatch, ...], instances: np.ndarray, around: Surroundings
) -> tuple[PaintedLesion, ...]:
    """The table of lesions, with the volumes that they have in the instance map."""
    counts = np.bincount(
        instances.ravel(), minlength=1 + max((p.lesion.index for p in patches), default=0)
    )
    volume = float(np.prod(around.spacing))
    return tuple(
        replace(patch.lesion, volume_mm3=float(counts[patch.lesion.index] * volume))
        for patch in patches
    )


@dataclass(frozen=True)
class Truth:
    """What is known of a head on the grid of a scan; arrays of its shape.

    Attributes
    ----------
    mask : bool, voxels of which a lesion fills at least one half.
    instances : uint16, number of the lesion there.
    ignore : bool, ambiguous voxels.
    affine : (4, 4).
    """

    mask: np.ndarray
    instances: np.ndarray
    ignore: np.ndarray
    affine: np.ndarray


def truth_on(
    lesions: PaintedLesions,
    affine: np.ndarray,
    shape: tuple[int, int, int],
    *,
    transform: np.ndarray | None = None,
) -> Truth:
    """The truth on another grid: severity is sampled, then thresholded.

    Parameters
    ----------
    affine, shape : the grid wanted.
    transform : (4, 4), RAS+ mm of the wanted grid to RAS+ mm of the anatomy; identity if None.
    """

    def sampled(values: np.ndarray, order: int) -> np.ndarray:
        volume = Volume(values, lesions.anatomy.affine)
        return resample(volume, affine, shape, transform=transform, order=order).data

    mask = sampled(lesions.severity, 1) >= 0.5
    instances = sampled(lesions.instances, 0)
    lost = mask & (instances == 0)
    if lost.any() and instances.any():
        nearest = ndimage.distance_transform_edt(
            instances == 0, return_distances=False, return_indices=True
        )
        instances[lost] = instances[tuple(nearest)][lost]
    ignore = np.zeros(shape, bool)
    if lesions.ignore is not None:
        ignore = (sampled(lesions.ignore.astype(np.float32), 1) >= 0.5) & ~mask
    return Truth(mask, np.where(mask, instances, 0).astype(np.uint16), ignore, affine)
