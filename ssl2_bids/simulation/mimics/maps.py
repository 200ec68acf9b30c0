"""Maps of what resembles lesions: where it lies in a head and how strong it is, voxel by voxel."""

from __future__ import annotations

import numpy as np
from scipy import ndimage, special

from ssl2_bids.simulation.anatomy.surroundings import Surroundings
from ssl2_bids.simulation.lesions.shapes import axes_of, box_around, from_centre, noise, outward
from ssl2_bids.simulation.mimics.draws import MimicDraw

FOURTH_VENTRICLE = 15
LATERAL = ((4, 43), (136, 163))  # ventricles, and their plexus, on either side
# Middle lines of tracts in MNI mm, on the right side, with their width (standard deviation) in
# mm. Approximate courses, not tractography; the splenium crosses the midline.
COURSES = {
    'corticospinal': (
        ((22, -22, 58), (26, -20, 36), (25, -19, 16), (21, -15, 4), (15, -14, -8))
        + ((10, -18, -18), (6, -20, -30), (4, -28, -48)),
        3.0,
    ),
    'optic_radiation': (
        ((24, -27, -2), (34, -36, 4), (35, -54, 6), (27, -74, 6), (14, -88, 4)),
        3.0,
    ),
    'splenium': (((26, -46, 14), (14, -42, 16), (0, -38, 16)), 4.0),
    'cingulum': (((9, 28, 20), (9, 4, 36), (9, -26, 38), (11, -42, 26)), 2.5),
}
# Places in MNI mm where fluid flows fast, and their extent (standard deviation) in mm.
FAST_FLUID = {
    'monro': ((5, 1, 7), 4.0),
    'third': ((0, -14, 2), 6.0),
    'fourth': ((0, -46, -32), 6.0),
    'prepontine': ((0, -12, -34), 9.0),
    'suprasellar': ((0, 4, -16), 9.0),
    'ambient': ((20, -28, -12), 7.0),
}
INSULA = ((38, 4, 2), (6.0, 15.0, 11.0))
BASAL_GANGLIA = (22, 2, -6)
GLOMUS = (23, -40, 8)  # of the choroid plexus


def caps_and_bands(
    around: Surroundings,
    labels: np.ndarray | None,
    draw: MimicDraw,
    random: np.random.Generator,
) -> np.ndarray:
    """Amount of caps at the ends of the horns, of bands along them, and of the lining."""
    distance = around.to_ventricle
    amount = np.zeros(around.shape, np.float32)
    seeds = np.argwhere(distance == 0)
    if len(seeds):
        x, y, _ = axes_of(around, whole(around), np.zeros(3))
        middle = np.median(x[seeds[:, 0]])
        uneven = 1 + 0.4 * head_noise(around, random, scale=6.0)
        fade = np.exp(-((distance / (1.6 * draw.reach)) ** 2)) * np.clip(uneven, 0.2, 2)
        strength = np.full((len(x), len(y)), draw.band, np.float32)
        for side, sign in enumerate((-1, 1)):
            own = sign * (x[seeds[:, 0]] - middle) > 0
            if not own.any():
                continue
            back, front = np.percentile(y[seeds[own, 1]], (1, 99))
            beside = special.expit(sign * (x - middle) / 1.5)
            before = draw.frontal_caps[side] * special.expit((y - front + 9) / 2.5)
            behind = draw.occipital_caps[side] * special.expit((back + 14 - y) / 3.5)
            strength += np.outer(beside, before + behind).astype(np.float32)
        amount = fade * strength[:, :, None]
        lining = distance <= 1.2 * around.spacing.max()
        amount = np.where(lining, np.maximum(amount, draw.ependyma), amount)
    if labels is not None:
        fourth = ndimage.binary_dilation(labels == FOURTH_VENTRICLE)
        amount = np.where(fourth, np.maximum(amount, draw.ependyma), amount)
    return np.clip(amount, 0, 0.9).astype(np.float32)


def dirty_white_matter(
    around: Surroundings, draw: MimicDraw, random: np.random.Generator
) -> np.ndarray:
    """Amount of smooth patches in deep white matter."""
    patches = special.expit((head_noise(around, random, scale=15.0) - 0.4) / 0.3)
    deep = np.clip((around.to_cortex - 2) / 4, 0, 1)
    return (draw.dirty * patches * deep).astype(np.float32)


def bright_tracts(around: Surroundings, to_template: np.ndarray, draw: MimicDraw) -> np.ndarray:
    """Amount in tracts that are brighter than other white matter in FLAIR and T2w."""
    amount = np.zeros(around.shape, np.float32)
    for name, (course, width) in COURSES.items():
        for sign in (-1, 1):
            points = [to_head(to_template, (sign * x, y, z)) for x, y, z in course]
            for start, end in zip(points[:-1], points[1:], strict=True):
                box, off = from_segment(around, start, end, 2.5 * width)
                tube = np.float32(draw.tracts[name]) * np.exp(-(off**2) / (2 * width**2))
                np.maximum(amount[box], tube, out=amount[box])
    return amount


def bright_cortex(
    around: Surroundings,
    fractions: dict[str, np.ndarray],
    to_template: np.ndarray | None,
    draw: MimicDraw,
    random: np.random.Generator,
) -> np.ndarray:
    """Amount in the cortex: smooth variation, insula, and limbic grey matter."""
    variation = np.clip(0.5 + 0.5 * head_noise(around, random, scale=25.0), 0, 1)
    amount = np.float32(draw.cortex) * variation
    if 'hippocampus' in fractions:
        amount = np.maximum(amount, np.float32(draw.limbic) * (fractions['hippocampus'] > 0.3))
    if to_template is not None:
        (x, y, z), widths = INSULA
        for sign in (-1, 1):
            blob(amount, around, to_head(to_template, (sign * x, y, z)), widths, draw.insula)
    return amount


def specks(around: Surroundings, draw: MimicDraw, random: np.random.Generator) -> np.ndarray:
    """Amount of small round spots in white matter."""
    amount = np.zeros(around.shape, np.float32)
    candidates = around.candidates.get('deep', around.candidates.get('juxtacortical'))
    if candidates is None:
        return amount
    for _ in range(draw.specks):
        centre = around.point(np.array(np.unravel_index(random.choice(candidates), around.shape)))
        strength, radius = random.uniform((0.4, 0.7), (1.0, 1.7))
        box = box_around(around, centre, 4.0)
        off = from_centre(axes_of(around, box, centre))
        spot = np.float32(strength) * special.expit((radius - off) / np.float32(0.25))
        np.maximum(amount[box], np.where(spot > 0.02, spot, 0), out=amount[box])
    return amount


def tubes_of_fluid(
    around: Surroundings,
    to_template: np.ndarray | None,
    draw: MimicDraw,
    random: np.random.Generator,
) -> np.ndarray:
    """Share of each voxel in perivascular (Virchow-Robin) spaces.

    Half of them lie below the basal ganglia and run upwards, the others in the white matter above
    the ventricles and run towards the cortex.
    """
    share = np.zeros(around.shape, np.float32)
    candidates = around.candidates.get('deep')
    for number in range(draw.spaces):
        x, y, z = BASAL_GANGLIA
        if to_template is not None and number % 2:
            offset = random.normal(0, (3.0, 5.0, 3.0))
            side = 1 if random.random() < 0.5 else -1
            start = to_head(to_template, (side * x + offset[0], y + offset[1], z + offset[2]))
            axis = np.array([0.0, 0.0, 1.0])
        elif candidates is not None:
            index = np.unravel_index(random.choice(candidates), around.shape)
            start = around.point(np.array(index))
            axis = outward(around.to_ventricle, around, start)
        else:
            continue
        axis = axis + random.normal(0, 0.25, 3)
        length, radius = random.uniform((3.0, 0.3), (10.0, 1.0))
        add_tube(share, around, start, start + length * axis / np.linalg.norm(axis), radius)
    return share


def veins(around: Surroundings, draw: MimicDraw, random: np.random.Generator) -> np.ndarray:
    """Share of each voxel in veins of the white matter that run towards the ventricles."""
    share = np.zeros(around.shape, np.float32)
    candidates = around.candidates.get('periventricular')
    if candidates is None:
        return share
    for _ in range(draw.veins):
        start = around.point(np.array(np.unravel_index(random.choice(candidates), around.shape)))
        axis = outward(around.to_ventricle, around, start) + random.normal(0, 0.3, 3)
        length, radius = random.uniform((6.0, 0.2), (20.0, 0.45))
        add_tube(share, around, start, start + length * axis / np.linalg.norm(axis), radius)
    return share


def septum(labels: np.ndarray, spacing: np.ndarray, draw: MimicDraw) -> np.ndarray:
    """Share of each voxel in the sheet between the lateral ventricles."""
    wide = max(round(1.0 / float(spacing.mean())), 1)
    left, right = (
        ndimage.binary_dilation(np.isin(labels, sides), iterations=wide)
        for sides in zip(*LATERAL, strict=True)
    )
    return np.float32(draw.septum) * (left & right)


def choroid_plexus(
    around: Surroundings,
    to_template: np.ndarray,
    draw: MimicDraw,
    random: np.random.Generator,
) -> np.ndarray:
    """Share of each voxel in lobules inside the lateral ventricles."""
    share = np.zeros(around.shape, np.float32)
    x, y, z = GLOMUS
    for sign in (-1, 1):
        widths = random.uniform((2.0, 3.0, 2.0), (4.0, 6.0, 4.0))
        blob(share, around, to_head(to_template, (sign * x, y, z)), tuple(widths), draw.plexus)
    return share * (around.to_ventricle == 0) * (share > 0.1)


def pulsation_map(
    around: Surroundings,
    to_template: np.ndarray | None,
    draw: MimicDraw,
    random: np.random.Generator,
) -> np.ndarray:
    """Share of the fluid's signal that escapes the inversion, 0 to 1."""
    flow = np.zeros(around.shape, np.float32)
    if to_template is not None:
        for name, ((x, y, z), width) in FAST_FLUID.items():
            for sign in (-1, 1) if x else (1,):
                at = to_head(to_template, (sign * x, y, z))
                blob(flow, around, at, (width,) * 3, draw.pools[name])
        flow *= np.clip(1 + 0.6 * head_noise(around, random, scale=5.0), 0, 2)
    return np.clip(flow + np.float32(draw.null), 0, 1).astype(np.float32)


def whole(around: Surroundings) -> tuple[slice, ...]:
    """The whole grid as a box."""
    return tuple(slice(0, n) for n in around.shape)


def head_noise(around: Surroundings, random: np.random.Generator, *, scale: float) -> np.ndarray:
    """Smooth noise of standard deviation about 1 over the head, knots ``scale`` mm apart."""
    middle = around.point((np.array(around.shape) - 1) / 2)
    return noise(axes_of(around, whole(around), middle), random, scale=scale)


def to_head(to_template: np.ndarray, point: tuple[float, float, float]) -> np.ndarray:
    """Millimetres in the head of a point in MNI mm."""
    return (np.linalg.inv(to_template) @ [*point, 1.0])[:3]


def from_segment(
    around: Surroundings, start: np.ndarray, end: np.ndarray, reach: float
) -> tuple[tuple[slice, ...], np.ndarray]:
    """A box around a straight line, and the distance in mm of its voxels from that line."""
    middle = (start + end) / 2
    length = float(np.linalg.norm(end - start))
    box = box_around(around, middle, length / 2 + reach)
    x, y, z = (a.astype(np.float32) for a in axes_of(around, box, middle))
    axis = (end - start) / max(length, 1e-6)
    along = (
        (axis[0] * x).reshape(-1, 1, 1)
        + (axis[1] * y).reshape(1, -1, 1)
        + (axis[2] * z).reshape(1, 1, -1)
    )
    square = from_centre([x, y, z]) ** 2 - along**2
    beyond = np.maximum(np.abs(along) - length / 2, 0)
    return box, np.sqrt(np.maximum(square, 0) + beyond**2).astype(np.float32)


def add_tube(
    share: np.ndarray, around: Surroundings, start: np.ndarray, end: np.ndarray, radius: float
) -> None:
    """Draw a tube into a map of shares, in place; thinner than a voxel it fills a part of it."""
    edge = float(around.spacing.mean())
    box, off = from_segment(around, start, end, radius + edge)
    if radius < edge / 2:
        tube = min(np.pi * radius**2 / edge**2, 1.0) * np.clip(1 - off / edge, 0, 1)
    else:
        tube = np.clip((radius - off) / edge + 0.5, 0, 1)
    np.maximum(share[box], tube, out=share[box])


def blob(
    values: np.ndarray,
    around: Surroundings,
    centre: np.ndarray,
    widths: tuple[float, ...],
    strength: float,
) -> None:
    """Raise a map to a Gaussian of these standard deviations in mm, in place."""
    box = box_around(around, centre, 2.5 * max(widths))
    x, y, z = (a / w for a, w in zip(axes_of(around, box, centre), widths, strict=True))
    bump = np.float32(strength) * np.exp(-(from_centre([x, y, z]) ** 2) / 2)
    np.maximum(values[box], bump, out=values[box])
