"""What a person draws: lesions with other borders than the true ones, some missed, some invented;
and which slices were drawn at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ssl2_bids.simulation.lesions.growth import NEIGHBOURS, PaintedLesion
from ssl2_bids.simulation.lesions.lesions import Truth
from ssl2_bids.simulation.lesions.shapes import noise, radius_of
from ssl2_bids.simulation.smooth import draw_seed
from ssl2_bids.volume import Volume
from ssl2_bids.voxel_grid import spacing_of, voxel_volume_of, widen

OFFSET = (-0.5, 0.7)  # voxels, of a border; positive is outside
WOBBLE = 0.25  # voxels, standard deviation of the border along its way
WOBBLE_SCALE = 4.0  # voxels between the knots of that
BORDER = 3  # voxels around a lesion
FAINT = (0.10, 0.30)  # visible damage below the first is hard to see, above the second easy
FALSE_SIZES = (4.0, 40.0)  # mm^3 of an invented lesion
AWAY = 3  # voxels between an invented lesion and a true one
SPECK_TAKEN = 0.5  # of the spots that could be a lesion, so many are drawn


@dataclass(frozen=True)
class RaterDraw:
    """One person's way of drawing.

    Attributes
    ----------
    small : probability to miss the smallest lesions; it falls with the volume, by a factor e
        every 15 mm^3.
    faint : probability to miss the faintest.
    invented : number of lesions drawn where there are none.
    seed : of borders and of which lesions are missed.
    """

    small: float
    faint: float
    invented: int
    seed: int


@dataclass(frozen=True)
class Reading:
    """What was drawn.

    Attributes
    ----------
    mask : bool, shape (I, J, K).
    missed : numbers of true lesions on this grid that were not drawn.
    invented : lesions drawn where there are none.
    """

    mask: np.ndarray
    missed: tuple[int, ...]
    invented: int


@dataclass(frozen=True)
class Extent:
    """Which slices were annotated.

    Attributes
    ----------
    axis : voxel axis across them: 0, 1 or 2, the one nearest to feet-head.
    slices : indices along it, from 0, ascending.
    mask : bool of shape (I, J, K).
    """

    axis: int
    slices: tuple[int, ...]
    mask: np.ndarray


def draw_rater(random: np.random.Generator) -> RaterDraw:
    """Draw a rater: how many small and faint lesions are missed, and how many invented."""
    small, faint = random.uniform((0.1, 0.0), (0.5, 0.4))
    return RaterDraw(float(small), float(faint), int(random.poisson(1.5)), draw_seed(random))


def read_by_hand(
    truth: Truth, table: Sequence[PaintedLesion], draw: RaterDraw, *, brain: np.ndarray
) -> Reading:
    """Draw the lesions of a head as a rater does.

    Parameters
    ----------
    truth : on the grid of the scan.
    table : of the lesions, for how faint they are.
    brain : bool, where lesions can be invented.
    """
    random = np.random.default_rng(draw.seed)
    spacing = spacing_of(truth.affine)
    voxel = voxel_volume_of(truth.affine)
    by_number = {lesion.index: lesion for lesion in table}
    mask = np.zeros(truth.mask.shape, bool)
    missed = []
    for number, box in enumerate(ndimage.find_objects(truth.instances.astype(np.int32)), start=1):
        # One decision per lesion, drawn whether or not it is here: others don't depend on it.
        chance, offset, seed = random.random(), random.uniform(*OFFSET), random.integers(2**31)
        if box is None:
            continue
        wider = widen(box, mask.shape, BORDER)
        lesion = truth.instances[wider] == number
        if chance < miss_probability(by_number.get(number), float(lesion.sum()) * voxel, draw):
            missed.append(number)
            continue
        mask[wider] |= redraw(lesion, spacing, offset, np.random.default_rng(seed))
    invented = _invent(mask, truth, brain, draw, spacing, random)
    return Reading(mask, tuple(missed), invented)


def miss_probability(lesion: PaintedLesion | None, volume: float, draw: RaterDraw) -> float:
    """Probability to miss a lesion of a volume in mm^3."""
    small = draw.small * np.exp(-volume / 15)
    faint = 0.0
    if lesion is not None:
        visible = lesion.appearance.damage * lesion.appearance.strength
        low, high = FAINT
        faint = draw.faint * float(np.clip((high - visible) / (high - low), 0, 1))
    return float(1 - (1 - small) * (1 - faint))


def redraw(
    lesion: np.ndarray, spacing: np.ndarray, offset: float, random: np.random.Generator
) -> np.ndarray:
    """A lesion with its border moved by about ``offset`` times the smallest voxel edge.

    Something is always left of it.

    Parameters
    ----------
    lesion : bool, with a margin around it.
    spacing : voxel edges in mm.
    """
    edges = spacing / spacing.min()
    outside = ndimage.distance_transform_edt(~lesion, sampling=edges)
    inside = ndimage.distance_transform_edt(lesion, sampling=edges)
    signed = np.where(lesion, 0.5 - inside, outside - 0.5)
    at = [np.arange(n) - (n - 1) / 2 for n in lesion.shape]
    wobble = WOBBLE * noise(at, random, scale=WOBBLE_SCALE)
    drawn = signed <= offset + wobble
    return drawn if (drawn & lesion).any() else lesion & (signed <= signed.min() + 1e-6)


def _invent(
    mask: np.ndarray,
    truth: Truth,
    brain: np.ndarray,
    draw: RaterDraw,
    spacing: np.ndarray,
    random: np.random.Generator,
) -> int:
    """Add what is none: some of the spots that could be lesions, and blobs; their number."""
    count = 0
    spots, found = ndimage.label(truth.ignore, NEIGHBOURS)
    for number in range(1, found + 1):
        if random.random() < SPECK_TAKEN:
            mask |= spots == number
            count += 1
    possible = brain & ~truth.mask & ~truth.ignore
    if not draw.invented or not possible.any():
        return count
    places = np.argwhere(possible)
    for _ in range(draw.invented):
        centre = places[random.integers(len(places))]
        radius = radius_of(random.uniform(*FALSE_SIZES))
        half = np.ceil(radius / spacing).astype(int)
        box = tuple(
            slice(max(c - h, 0), min(c + h + 1, n))
            for c, h, n in zip(centre, half, mask.shape, strict=True)
        )
        at = np.meshgrid(
            *(
                (np.arange(b.start, b.stop) - c) * s
                for b, c, s in zip(box, centre, spacing, strict=True)
            ),
            indexing='ij',
        )
        blob = (np.sqrt(sum(a**2 for a in at)) <= radius) & brain[box]
        if not mask[widen(box, mask.shape, AWAY)].any():
            mask[box] |= blob
            count += 1
    return count


def annotated_slices(brain: Volume, random: np.random.Generator, *, every: int = 10) -> Extent:
    """Choose axial slices: every n-th of the brain's extent, the first one at random.

    Parameters
    ----------
    brain : mask, above 0 inside.
    every : 10 for about 10 % of the brain; 1 for all of it.

    Returns
    -------
    At least one slice, if there is any brain.
    """
    axis = int(np.abs(brain.affine[2, :3] / brain.spacing).argmax())
    others = tuple(a for a in range(3) if a != axis)
    inside = np.flatnonzero((brain.data > 0).any(axis=others))
    mask = np.zeros(brain.shape, bool)
    if not len(inside):
        return Extent(axis, (), mask)
    first = int(inside[0]) + int(random.integers(min(every, int(np.ptp(inside)) + 1)))
    slices = tuple(range(first, int(inside[-1]) + 1, every))
    np.moveaxis(mask, axis, 0)[list(slices)] = True
    return Extent(axis, slices, mask)
