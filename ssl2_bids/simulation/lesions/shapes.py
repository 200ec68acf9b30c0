"""Shapes of lesions: a number in mm per voxel that grows from the middle outwards."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ssl2_bids.simulation.anatomy.surroundings import FAR, Surroundings

FORMS = ('punctate', 'ovoid', 'finger', 'band', 'confluent')
HUGGING = {'band': 'to_cortex', 'confluent': 'to_ventricle'}


def radius_of(volume: float) -> float:
    """Radius in mm of the ball of a volume in mm^3."""
    return float(np.cbrt(volume * 3 / (4 * np.pi)))


def reach_of(form: str, volume: float) -> float:
    """How far in mm from its centre a lesion can come, halo included."""
    return {'confluent': 2.8, 'band': 2.6, 'finger': 2.4}.get(form, 2.1) * radius_of(volume) + 5


def box_around(around: Surroundings, centre: np.ndarray, reach: float) -> tuple[slice, ...]:
    """The part of the grid within ``reach`` mm of a point along each axis."""
    middle = around.voxel(centre)
    half = np.ceil(reach / around.spacing).astype(int)
    return tuple(
        slice(max(int(m - h), 0), min(int(m + h) + 1, n))
        for m, h, n in zip(middle, half, around.shape, strict=True)
    )


def axes_of(around: Surroundings, box: tuple[slice, ...], centre: np.ndarray) -> list[np.ndarray]:
    """Millimetres from a point along each axis of a box, three arrays."""
    return [
        (around.affine[i, i] * np.arange(b.start, b.stop) + around.affine[i, 3] - centre[i])
        for i, b in enumerate(box)
    ]


def outward(field: np.ndarray, around: Surroundings, centre: np.ndarray) -> np.ndarray:
    """Unit vector up the slope of a distance field at a point; zero where it is flat."""
    at = around.voxel(centre)
    last = np.array(field.shape) - 1
    slope = np.empty(3)
    for axis in range(3):
        step = np.zeros(3, int)
        step[axis] = 2
        ahead, behind = np.clip(at + step, 0, last), np.clip(at - step, 0, last)
        slope[axis] = (field[tuple(ahead)] - field[tuple(behind)]) / around.spacing[axis]
    length = np.linalg.norm(slope)
    return slope / length if length > 1e-6 else np.zeros(3)


def shape(
    form: str,
    volume: float,
    centre: np.ndarray,
    box: tuple[slice, ...],
    around: Surroundings,
    random: np.random.Generator,
) -> np.ndarray:
    """The shape of a lesion on the voxels of a box: a level set of it has the volume wanted.

    Parameters
    ----------
    form : ``punctate`` a ball; ``ovoid`` one to six ellipsoids; ``finger`` an ellipsoid along the
        way out of the ventricle (Dawson); ``band`` along the cortex; ``confluent`` along the
        ventricle.
    volume : mm^3.
    centre : mm.
    """
    at = axes_of(around, box, centre)
    size = radius_of(volume)
    if form == 'punctate':
        x, y, z = (a - random.uniform(-0.4, 0.4) for a in at)
        return from_centre((x, y, z))
    if form in HUGGING:
        field = getattr(around, HUGGING[form])[box]
        if field.min() < FAR / 2:
            return along(field, form, at, size, random)
    if form == 'finger':
        axis = outward(around.to_ventricle, around, centre)
        if axis.any():
            outline = ellipsoid(at, axis, size, random.uniform(1.4, 2.8))
            return roughen(outline, at, size, random)
    return roughen(union(at, size, random, volume=volume), at, size, random)


def from_centre(at: tuple[np.ndarray, ...] | list[np.ndarray]) -> np.ndarray:
    """Distance from the origin of three coordinate axes."""
    x, y, z = at
    return np.sqrt(
        (x**2).reshape(-1, 1, 1) + (y**2).reshape(1, -1, 1) + (z**2).reshape(1, 1, -1)
    ).astype(np.float32)


def ellipsoid(at: list[np.ndarray], axis: np.ndarray, size: float, stretch: float) -> np.ndarray:
    """Distance in mm, about, from an ellipsoid of revolution with the volume of a ball."""
    x, y, z = at
    along_axis = (
        (axis[0] * x).reshape(-1, 1, 1)
        + (axis[1] * y).reshape(1, -1, 1)
        + (axis[2] * z).reshape(1, 1, -1)
    )
    across = from_centre(at) ** 2 - along_axis**2
    long, short = stretch ** (2 / 3), stretch ** (-1 / 3)
    scaled = np.sqrt(np.maximum((along_axis / long) ** 2 + across / short**2, 0))
    return ((scaled - size) * short).astype(np.float32)


def union(
    at: list[np.ndarray], size: float, random: np.random.Generator, *, volume: float
) -> np.ndarray:
    """One to six ellipsoids that overlap."""
    parts = 1 if volume < 20 else int(random.integers(1, 4 if volume < 60 else 7))
    part = size / np.cbrt(0.5 + 0.5 * parts)
    outlines = []
    for number in range(parts):
        offset = random.normal(0, 0.6 * size, 3) if number else np.zeros(3)
        axis = random.standard_normal(3)
        axis /= np.linalg.norm(axis)
        moved = [a - o for a, o in zip(at, offset, strict=True)]
        grown = part * random.uniform(0.7, 1.3)
        outlines.append(ellipsoid(moved, axis, grown, random.uniform(0.6, 2.0)))
    return np.min(outlines, axis=0)


def along(
    field: np.ndarray,
    form: str,
    at: list[np.ndarray],
    size: float,
    random: np.random.Generator,
) -> np.ndarray:
    """A shape that clings to ventricle or cortex, whose distance in mm is ``field``."""
    cling = random.uniform(1.4, 3.0) if form == 'confluent' else random.uniform(1.2, 2.2)
    field = ndimage.gaussian_filter(field, 0.7)
    outline = np.sqrt((cling * field) ** 2 + from_centre(at) ** 2) / np.sqrt(cling)
    return roughen(outline - size, at, size, random)


def roughen(
    outline: np.ndarray, at: list[np.ndarray], size: float, random: np.random.Generator
) -> np.ndarray:
    """An outline with coarse dents and bulges and fine roughness."""
    coarse = noise(at, random, scale=max(1.2 * size, 4.0))
    fine = noise(at, random, scale=2.5)
    return outline + 0.16 * (outline + size) * coarse + min(0.35, 0.12 * size) * fine


def noise(at: list[np.ndarray], random: np.random.Generator, *, scale: float) -> np.ndarray:
    """Smooth noise of standard deviation about 1, knots ``scale`` mm apart, float32.

    A cubic spline through random values; for a small box, where ``smooth.smooth_noise`` would draw
    knots for a whole head.

    Parameters
    ----------
    at : mm along each axis from the lattice's middle; three arrays.
    """
    count = [2 * int(np.ceil(np.abs(a).max() / scale)) + 3 for a in at]
    field = random.standard_normal(count)
    for along_axis in at:
        knots = field.shape[0]
        where = along_axis / scale + (knots - 1) / 2
        where, knot = np.meshgrid(where, np.arange(knots), indexing='ij')
        basis = ndimage.map_coordinates(np.eye(knots), [where, knot], order=3, mode='nearest')
        field = np.tensordot(field, basis, axes=(0, 1))
    return (field / 0.85).astype(np.float32)
