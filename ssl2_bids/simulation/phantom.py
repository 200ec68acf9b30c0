"""A simulated head: its anatomy, tissues and transmit field, and their signals."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from ssl2_bids.simulation.sequences import Protocol, Tissue, signals


@dataclass(frozen=True)
class Anatomy:
    """Fractions of each voxel, each of shape (I, J, K), 0 to 1, and their affine (RAS+ mm)."""

    fractions: dict[str, np.ndarray]
    affine: np.ndarray

    @property
    def brain(self) -> np.ndarray:
        """Where tissue and CSF together fill at least half of the voxel."""
        return np.sum(list(self.fractions.values()), axis=0) >= 0.5

    @property
    def centre(self) -> np.ndarray:
        """Middle of the brain's bounding box in mm."""
        inside = np.argwhere(self.brain)
        middle = (inside.min(axis=0) + inside.max(axis=0)) / 2
        return self.affine[:3, :3] @ middle + self.affine[:3, 3]


def smooth_field(
    shape: tuple[int, ...], random: np.random.Generator, *, scale: float
) -> np.ndarray:
    """Random field of mean 0 and standard deviation 1: splines with knots ``scale`` apart."""
    field = random.standard_normal([int(np.ceil(n / scale)) + 3 for n in shape])
    for size in shape:
        knots = field.shape[0]
        at, knot = np.meshgrid(np.linspace(1, knots - 2, size), np.arange(knots), indexing='ij')
        basis = ndimage.map_coordinates(np.eye(knots), [at, knot], order=3, mode='nearest')
        field = np.tensordot(field, basis, axes=(0, 1))
    return ((field - field.mean()) / field.std()).astype(np.float32)


def rigid(random: np.random.Generator, *, shift: float, angle: float) -> np.ndarray:
    """Random rigid (4, 4) motion about the origin, at most ``shift`` mm and ``angle`` degrees."""
    a, b, c = np.deg2rad(random.uniform(-angle, angle, 3))
    about_x = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
    about_y = [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
    about_z = [[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]
    motion = np.eye(4)
    motion[:3, :3] = np.array(about_z) @ np.array(about_y) @ np.array(about_x)
    motion[:3, 3] = random.uniform(-shift, shift, 3)
    return motion


def deform(
    template: Anatomy,
    random: np.random.Generator,
    *,
    size: float = 0.94,
    scaling: float = 0.08,
    elastic: float = 1.5,
) -> Anatomy:
    """Another head on a grid of its own.

    Parameters
    ----------
    template : voxel axes along RAS+, any size.
    size : mean scale of an axis; below 1 because MNI152 heads are larger than people's
        (Lancaster et al. 2007, doi 10.1002/hbm.20345).
    scaling : each axis is scaled by up to this share more or less.
    elastic : standard deviation in mm of a smooth displacement, knots 30 voxels apart.
    """
    inside = np.argwhere(template.brain)
    growth = max(size * (1 + scaling) - 1, 0)
    margin = 12 + (growth * np.ptp(inside, axis=0) / 2).astype(int)
    low, high = inside.min(axis=0) - margin, inside.max(axis=0) + margin
    shape = tuple(int(n) for n in high - low + 1)
    affine = template.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    middle = inside.mean(axis=0).reshape(3, 1, 1, 1)
    matrix = np.diag(1 / (size * random.uniform(1 - scaling, 1 + scaling, 3)))
    matrix += random.uniform(-0.03, 0.03, (3, 3)) * (1 - np.eye(3))
    where = np.indices(shape, dtype=np.float32) + low.reshape(3, 1, 1, 1) - middle
    where = np.tensordot(matrix.astype(np.float32), where, axes=1) + middle
    spacing = np.abs(np.diag(template.affine)[:3])
    for axis in range(3):
        where[axis] += elastic / spacing[axis] * smooth_field(shape, random, scale=30)
    fractions = {
        name: ndimage.map_coordinates(fraction, where, order=1, output=np.float32)
        for name, fraction in template.fractions.items()
    }
    return Anatomy(fractions, affine)


def render(
    anatomy: Anatomy, tissues: dict[str, Tissue], protocol: Protocol, transmit: np.ndarray
) -> list[np.ndarray]:
    """Signed images without noise on the anatomy's grid: the mean of each voxel's signals."""
    images = [np.zeros(transmit.shape, np.float32) for _ in protocol.angles or (0,)]
    for name, fraction in anatomy.fractions.items():
        where = fraction > 0
        local = Tissue(*(v[where] if np.ndim(v) else v for v in vars(tissues[name]).values()))
        for image, signal in zip(images, signals(local, protocol, transmit[where]), strict=True):
            image[where] += fraction[where] * signal
    return images


def individual(
    tissues: dict[str, Tissue], random: np.random.Generator, shape: tuple[int, ...]
) -> dict[str, Tissue]:
    """One head's tissues: T1 and T2 a few percent off the centre, T1 varying smoothly inside."""
    texture = 1 + 0.03 * smooth_field(shape, random, scale=12)
    return {
        name: replace(
            tissue,
            t1=tissue.t1 * random.lognormal(0, 0.03) * texture,
            t2=tissue.t2 * random.lognormal(0, 0.03),
        )
        for name, tissue in tissues.items()
    }


def transmit_field(anatomy: Anatomy, random: np.random.Generator, *, field: int) -> np.ndarray:
    """B1+ as a fraction of nominal: nearly flat at 3T; bright centre, low borders at 7T."""
    brain = anatomy.brain
    noise = 0.04 * smooth_field(brain.shape, random, scale=40)
    if field < 7:
        return 1 + noise
    steps = np.linalg.norm(anatomy.affine[:3, :3], axis=0)
    from_centre = [
        step * (np.arange(n) - (n - 1) / 2) for n, step in zip(brain.shape, steps, strict=True)
    ]
    square = sum(x**2 for x in np.meshgrid(*from_centre, indexing='ij', sparse=True))
    shape = 1 + random.uniform(0.2, 0.5) * np.exp(-square / (2 * 55**2)) + noise
    return np.clip(shape / shape[brain].mean(), 0.5, 1.4).astype(np.float32)
