"""One simulated participant: what is drawn of it, and its head in the scanner at every visit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ssl2_bids.simulation.anatomy.anatomy import Anatomy, Deformation, deform, draw_deformation
from ssl2_bids.simulation.anatomy.tissues import draw_individual, read_tissues
from ssl2_bids.simulation.lesions.lesions import PaintedLesions, Truth, paint
from ssl2_bids.simulation.lesions.real import LesionShapes
from ssl2_bids.simulation.lesions.statistics import statistics_for
from ssl2_bids.simulation.mimics.mimics import MimicDraw, draw_mimics, with_mimics
from ssl2_bids.simulation.scanner.grids import displace, sample, truth_in
from ssl2_bids.simulation.scanner.protocols import Scanner
from ssl2_bids.simulation.scanner.rendering import (
    HeadDraw,
    HeadInScanner,
    draw_head,
    make_head,
    split,
)
from ssl2_bids.simulation.scanner.scan import ScanDraw, draw_scan, grid_of
from ssl2_bids.simulation.smooth import draw_seed
from ssl2_bids.simulation.visits import Changes, draw_changes, next_visit
from ssl2_bids.volume import Volume, resample
from ssl2_bids.voxel_grid import bounding_box, shift_affine, start_of, widen

MIN_LOAD, MAX_LOAD = 0.1, 60.0  # mL
ATROPHY = (0.3, 1.8)  # share of heads with widened ventricles, and by how much at most
VOXELS = (0.8, 1.0)  # mm, least and most of an anatomy's voxels; label maps have 1 mm


@dataclass(frozen=True)
class Habits:
    """What participants and scans have in common.

    Attributes
    ----------
    size : mean scale of heads against the template.
    load, spread : median lesion volume in mL, and standard deviation of its logarithm; a load of
        0 is that of healthy people.
    motion, spikes : share of the scans with motion, with spikes.
    """

    size: float = 1.0
    load: float = 9.0
    spread: float = 0.6
    motion: float = 0.0
    spikes: float = 0.0


@dataclass(frozen=True)
class VisitDraw:
    """One visit.

    Attributes
    ----------
    changes : of the lesions since the visit before; None at the first.
    seed : of these changes.
    head : tissues and fields.
    scans : by suffix.
    """

    changes: Changes | None
    seed: int
    head: HeadDraw
    scans: dict[str, ScanDraw]


@dataclass(frozen=True)
class ParticipantDraw:
    """All that is random of a participant; with the template it makes the images.

    Attributes
    ----------
    deformation : of the template.
    load : lesion volume at the first visit in mL.
    seed : of the lesions' places, shapes and looks.
    nuisances : the lesion mimics.
    visits : in order.
    """

    deformation: Deformation
    load: float
    seed: int
    nuisances: MimicDraw
    visits: tuple[VisitDraw, ...]


@dataclass(frozen=True)
class Visit:
    """A head in the scanner, and what is known of it.

    Attributes
    ----------
    known : its lesions, cropped to what :func:`grids.truth_in` needs, with their table.
    tissues : uint8 on the anatomy's grid: number in ``names``, from 1, of the healthy tissue that
        fills most of the voxel; 0 for air.
    names : of tissues.
    volume_ml : of the lesions.
    """

    head: HeadInScanner
    known: PaintedLesions
    tissues: np.ndarray
    names: tuple[str, ...]
    volume_ml: float


@dataclass(frozen=True)
class Knowledge:
    """The truth on the grid of a scan, displaced as its image is.

    Attributes
    ----------
    grid : of the scan.
    lesions : mask, instances, and ambiguous voxels.
    brain : bool.
    tissues : uint8, see :class:`Visit`.
    """

    grid: Volume
    lesions: Truth
    brain: np.ndarray
    tissues: np.ndarray


def draw_participant(
    seed: int,
    number: int,
    scanner: Scanner,
    habits: Habits,
    *,
    sessions: int = 1,
    contrasts: Sequence[str] | None = None,
) -> ParticipantDraw:
    """Draw a participant.

    Each depends on seed and number alone; a visit does not depend on how many there are, a scan
    not on which others are made. The first visit's stream is that of the person (NumPy fills a
    seed with zeros), so its B1+ repeats numbers of the head's shape; another stream would change
    every simulated scan.

    Parameters
    ----------
    contrasts : suffixes of the scans; None for all of the scanner.
    """
    random = np.random.default_rng([seed, number])
    widest = ATROPHY[1] if random.random() < ATROPHY[0] else 1.0
    deformation = draw_deformation(random, size=habits.size, ventricles=(1.0, widest))
    spread = random.normal(0, 1)
    load = habits.load * float(np.exp(habits.spread * spread))
    if habits.load and habits.spread:
        load = float(np.clip(load, min(MIN_LOAD, habits.load), max(MAX_LOAD, habits.load)))
    tissues = draw_individual(random, scanner.tissues, read_tissues(scanner.field))
    lesions, mimics = draw_seed(random), draw_mimics(random)
    visits = []
    for visit in range(sessions):
        random = np.random.default_rng([seed, number, visit])
        changes = draw_changes(random) if visit else None
        if not habits.load:  # a healthy person stays one
            changes = None
        scans = {
            suffix: draw_scan(
                np.random.default_rng([seed, number, visit, *suffix.encode()]),
                scanner,
                motion=habits.motion,
                spikes=habits.spikes,
            )
            for suffix in contrasts or scanner.protocols
        }
        growth = draw_seed(random)
        visits.append(VisitDraw(changes, growth, draw_head(random, scanner, tissues), scans))
    return ParticipantDraw(deformation, load, lesions, mimics, tuple(visits))


def anatomy_voxel(scanner: Scanner) -> float:
    """Voxel edge in mm that the scanner's finest sequence deserves."""
    finest = min(float(np.prod(g.voxel)) ** (1 / 3) for g in scanner.geometries.values())
    return float(np.clip(finest, *VOXELS))


def make_visits(
    draw: ParticipantDraw,
    template: Anatomy,
    scanner: Scanner,
    *,
    shapes: LesionShapes | None = None,
) -> list[Visit]:
    """Make the heads of all visits; only what scans and truth need is kept of each.

    Parameters
    ----------
    template : the anatomy that is deformed. It is let go of early: a caller that keeps no name
        for it saves its memory.
    shapes : of real lesions.
    """
    statistics = statistics_for(scanner.field)
    healthy = deform(template, draw.deformation, voxel_size=anatomy_voxel(scanner))
    del template
    tissues, names = dominant(healthy)
    brain, surround = split(healthy)
    del healthy
    random = np.random.default_rng(draw.seed)
    lesions = paint(brain, random, load=draw.load, statistics=statistics, shapes=shapes)
    lesions = with_mimics(lesions, draw.nuisances)
    visits = []
    for number, visit in enumerate(draw.visits):
        if number:
            lesions = next_visit(
                lesions,
                visit.changes or Changes(),
                np.random.default_rng(visit.seed),
                statistics=statistics,
                shapes=shapes,
            )
        head = make_head(lesions, surround, visit.head, field=scanner.field)
        visits.append(Visit(head, truth_of(lesions), tissues, names, lesions.volume_ml))
    return visits


def dominant(anatomy: Anatomy) -> tuple[np.ndarray, tuple[str, ...]]:
    """Number of the tissue that fills most of each voxel (uint8, air 0), and the names."""
    names = tuple(read_tissues(3.0))
    winner = np.zeros(anatomy.shape, np.uint8)
    air = np.ones(anatomy.shape, np.float32)
    for fraction in anatomy.fractions.values():
        air -= fraction
    most = np.maximum(air, 0, out=air)
    for name, fraction in anatomy.fractions.items():
        more = fraction > most
        most[more] = fraction[more]
        winner[more] = names.index(name) + 1
    return winner, names


def truth_of(lesions: PaintedLesions) -> PaintedLesions:
    """Lesions with nothing but the truth and their table, cropped to where it is."""
    relevant = lesions.severity > 0
    if lesions.ignore is not None:
        relevant |= lesions.ignore
    empty = widen((slice(0, 2),) * 3, relevant.shape, 2)
    box = bounding_box(relevant, 2) if relevant.any() else empty
    affine = shift_affine(lesions.anatomy.affine, start_of(box))
    severity = lesions.severity[box].copy()
    anatomy = Anatomy({'lesion': severity}, affine)
    return replace(
        lesions,
        anatomy=anatomy,
        severity=severity,
        damage=severity,
        t2_factor=severity,
        instances=lesions.instances[box].copy(),
        ignore=None if lesions.ignore is None else lesions.ignore[box].copy(),
        pulsation=None,
        healthy=anatomy,
        patches=(),
    )


def knowledge(visit: Visit, scanner: Scanner, suffix: str, draw: ScanDraw) -> Knowledge:
    """What is known of a head, on the grid of one of its scans."""
    head, geometry = visit.head, scanner.geometries[suffix]
    bandwidth = scanner.protocols[suffix].bandwidth
    grid = grid_of(head, scanner, suffix, draw)
    pose = draw.placement.pose
    lesions = truth_in(visit.known, grid, pose)
    brain = sample(head.brain.astype(np.float32), head.affine, grid, pose) >= 0.5
    back = np.linalg.inv(np.array(pose))
    tissues = resample(
        Volume(visit.tissues, head.affine), grid.affine, grid.shape, transform=back, order=0
    ).data
    if not bandwidth:
        return Knowledge(grid, lesions, brain, tissues)
    error = sample(head.off_resonance, head.affine, grid, pose, box=head.box, thin=True)

    stack = np.stack([lesions.instances, lesions.ignore, brain, tissues])
    stack = displace(stack, error, bandwidth=bandwidth, axis=geometry.readout_axis)
    instances, ignore, brain, tissues = stack
    lesions = replace(lesions, mask=instances > 0, instances=instances, ignore=ignore > 0)
    return Knowledge(grid, lesions, brain > 0, tissues.astype(np.uint8))
