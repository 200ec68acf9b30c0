"""White-matter lesions of known truth: where they lie, their shape, what they do to the tissue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, special

from ssl2_bids.simulation.phantom import Anatomy, smooth_field

PLACES = ('periventricular', 'juxtacortical', 'deep')
PLACE_SHARES = (0.45, 0.20, 0.35)
LARGE_SHARE = 0.06  # the confluent ones: few, yet most of the volume
SMALLEST = 3  # mm^3; what is smaller is removed before lesions are counted
ATTEMPTS = 5000  # an end for anatomies too small for the load
CORTEX_SHARE = 0.4  # of the grey matter in reach, so much is taken by a white-matter lesion


@dataclass(frozen=True)
class Lesions:
    """Painted lesions on the anatomy's grid.

    Attributes
    ----------
    anatomy : the anatomy with a fraction ``lesion`` taken from white and grey matter.
    damage : loss of R1 against white matter, 0 to 1, shape (I, J, K).
    count : lesions painted; some of them touch.
    """

    anatomy: Anatomy
    damage: np.ndarray
    count: int

    @property
    def severity(self) -> np.ndarray:
        """Lesion fraction of each voxel: the truth is where it is at least one half."""
        return self.anatomy.fractions['lesion']


@dataclass(frozen=True)
class Surroundings:
    """Where lesions can lie; distances in voxels."""

    candidates: dict[str, np.ndarray]  # by place, flat indices of voxels that can be a centre
    to_ventricle: np.ndarray
    to_cortex: np.ndarray
    grey_share: np.ndarray  # of the grey matter in reach, what a lesion takes
    susceptible: np.ndarray  # fraction of each voxel that a lesion can take


def paint(anatomy: Anatomy, random: np.random.Generator, *, load: float) -> Lesions:
    """Paint lesions on an anatomy of 1 mm voxels until their volume is ``load`` mL.

    Sizes follow the consensus masks of 30 patients (Lesjak et al. 2018, doi
    10.1007/s12021-017-9348-7: quartiles 6.5, 17 and 47 mm^3, most of the volume in few large
    ones). Periventricular lesions stand on the ventricle, juxtacortical ones lie along the cortex.
    """
    around = survey(anatomy)
    warp = smooth_field(anatomy.brain.shape, random, scale=7)
    severity, damage = np.zeros((2, *anatomy.brain.shape), np.float32)
    remaining, count = int(load * 1000), 0
    for _ in range(ATTEMPTS):
        if remaining < SMALLEST:
            break
        volume, place = draw_size_and_place(random)
        volume = min(volume, remaining)
        chosen = random.choice(around.candidates[place])
        centre = np.array(np.unravel_index(chosen, severity.shape))
        half = int(np.ceil(2.6 * radius_of(volume))) + 5
        box = tuple(
            slice(max(c - half, 0), min(c + half + 1, n))
            for c, n in zip(centre, severity.shape, strict=True)
        )
        distance = outline(box, centre, around, random, volume=volume, place=place)
        distance *= np.exp(0.18 * warp[box])
        # Only what is connected to the centre: lesions do not leap a sulcus.
        pieces, _ = ndimage.label((around.susceptible[box] >= 0.55) & (severity[box] < 0.5))
        free = (pieces > 0) & (pieces == pieces[tuple(centre - [b.start for b in box])])
        if free.sum() < volume:
            continue
        edge = np.partition(distance[free], volume - 1)[volume - 1]
        profile = fuzzy(distance - edge, random, volume=volume)
        deeper = (profile > severity[box]) & ndimage.binary_dilation(free)
        damage[box][deeper] = random.uniform(0.2, 0.55)
        severity[box][deeper] = profile[deeper]
        remaining -= volume
        count += 1
    return Lesions(take(anatomy, severity, around.grey_share), damage, count)


def survey(anatomy: Anatomy) -> Surroundings:
    """Find ventricles and cortex, and from them the voxels in which lesions can be centred."""
    wm, gm, csf = (anatomy.fractions[name] for name in ('wm', 'gm', 'csf'))
    depth = ndimage.distance_transform_edt(anatomy.brain)
    to_ventricle = distance_to(ndimage.binary_opening(csf > 0.5) & (depth > 25))
    to_cortex = distance_to((gm > 0.5) & (depth < 25) & (to_ventricle > 8))
    white = (wm > 0.75) & (depth > 4)
    masks = {
        'periventricular': white & (to_ventricle < 6),
        'juxtacortical': white & (to_cortex < 2.5) & (to_ventricle > 6),
        'deep': white & (to_cortex >= 2.5) & (to_ventricle >= 6),
    }
    # The tissue maps have a grey rim around the ventricles; lesions there reach the ventricle.
    taken = np.where(to_ventricle < 4, 1.0, CORTEX_SHARE).astype(np.float32)
    return Surroundings(
        {k: np.flatnonzero(mask if mask.any() else white) for k, mask in masks.items()},
        to_ventricle,
        to_cortex,
        taken,
        wm + taken * gm,
    )


def distance_to(mask: np.ndarray) -> np.ndarray:
    """Distance in voxels to a mask, far beyond any head if it is empty."""
    if not mask.any():
        return np.full(mask.shape, 1e4, np.float32)
    return ndimage.distance_transform_edt(~mask).astype(np.float32)


def draw_size_and_place(random: np.random.Generator) -> tuple[int, str]:
    """Volume in mm^3 (lognormal, with a second mode of confluent lesions) and place."""
    if random.random() < LARGE_SHARE:
        return int(random.lognormal(np.log(900), 0.8)), 'periventricular'
    volume = max(int(random.lognormal(np.log(17.4), 1.47)), SMALLEST)
    return volume, str(random.choice(PLACES, p=PLACE_SHARES))


def radius_of(volume: float) -> float:
    """Radius of the ball of a volume."""
    return float(np.cbrt(volume * 3 / (4 * np.pi)))


def outline(
    box: tuple[slice, ...],
    centre: np.ndarray,
    around: Surroundings,
    random: np.random.Generator,
    *,
    volume: float,
    place: str,
) -> np.ndarray:
    """Distance to a union of ellipsoids in units of their size, on the voxels of a box."""
    field = around.to_cortex if place == 'juxtacortical' else around.to_ventricle
    axis = direction(field, centre, random)
    stretch = {
        'periventricular': random.uniform(1.2, 2.2),
        'juxtacortical': random.uniform(0.4, 0.7),
        'deep': random.uniform(0.7, 1.5),
    }[place]
    parts = 1 if volume < 30 else int(random.integers(2, 7))
    spread = 0.8 * radius_of(volume)
    where = np.stack(np.meshgrid(*(np.arange(b.start, b.stop) for b in box), indexing='ij'), -1)
    distances = []
    for part in range(parts):
        offset = random.normal(0, spread, 3) if part else np.zeros(3)
        offset -= 0.5 * axis * (axis @ offset)
        relative = where - (centre + offset)
        along = relative @ axis
        across = (relative**2).sum(axis=-1) - along**2
        distances.append(np.sqrt((along / stretch) ** 2 + across * stretch))
    return np.min(distances, axis=0)


def direction(field: np.ndarray, at: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Unit vector up the slope of a distance field; a random one where it is flat."""
    ahead, behind = (
        np.clip(at + step * np.eye(3, dtype=int), 0, np.array(field.shape) - 1) for step in (2, -2)
    )
    slope = field[tuple(ahead.T)] - field[tuple(behind.T)]
    if not slope.any():
        slope = random.standard_normal(3)
    return slope / np.linalg.norm(slope)


def fuzzy(distance: np.ndarray, random: np.random.Generator, *, volume: int) -> np.ndarray:
    """Severity from the signed distance to the edge in mm: soft border and faint halo.

    One half lies at distance 0, so the halo (at most a quarter) never belongs to the truth.
    """
    width = min(random.uniform(0.25, 0.6), 0.25 * radius_of(volume))
    core = special.expit(-distance / width)
    halo = random.uniform(0.05, 0.25) * np.exp(-np.maximum(distance, 0) / random.uniform(0.7, 1.5))
    profile = np.maximum(core, halo)
    return np.where(profile < 0.01, 0, profile).astype(np.float32)


def take(anatomy: Anatomy, severity: np.ndarray, grey_share: np.ndarray) -> Anatomy:
    """Move the share of white and grey matter that is diseased to a fraction ``lesion``."""
    white = anatomy.fractions['wm'] * severity
    grey = anatomy.fractions['gm'] * severity * grey_share
    return Anatomy(
        {
            'wm': anatomy.fractions['wm'] - white,
            'gm': anatomy.fractions['gm'] - grey,
            'csf': anatomy.fractions['csf'],
            'lesion': white + grey,
        },
        anatomy.affine,
    )
