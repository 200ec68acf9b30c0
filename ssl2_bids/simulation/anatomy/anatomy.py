"""A head as fractions of tissues on a grid, and other heads made from it by deformation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ssl2_bids.simulation.smooth import draw_seed, smooth_noise
from ssl2_bids.voxel_grid import spacing_of, voxel_volume_of

# Tissues of resources/tissues.toml that lie outside the brain; all others are brain or its fluid.
EXTRACEREBRAL = ('fat', 'muscle', 'skull', 'marrow', 'skin', 'eye', 'dura', 'mucosa', 'blood')
FIRST_EXTRACEREBRAL = 202  # from here on, a label lies outside the brain
MARGIN = 12.0  # mm of air around a deformed head
KNOTS = 30.0  # mm between the knots of an elastic deformation
VENTRICLES = (4, 43, 5, 44, 14, 72, 31, 63, 136, 137, 163, 164)  # lateral and third, with plexus
DEEP = 15.0  # mm below the surface; fluid from there on counts as ventricle without labels
AIR = 0.01  # a voxel with less than this of any tissue is air


@dataclass(frozen=True)
class Anatomy:
    """Fractions of each voxel, each of shape (I, J, K), 0 to 1, and their affine (RAS+ mm).

    Attributes
    ----------
    fractions : by name of the tissue; what they leave of a voxel is air.
    affine : (4, 4); voxel axes along RAS+.
    labels : uint8 of shape (I, J, K), FreeSurfer's numbers (``resources/label_map.toml``), or
        None where only tissues are known.
    sharpness : power to which fractions are raised after an interpolation, 1 for none.
    """

    fractions: dict[str, np.ndarray]
    affine: np.ndarray
    labels: np.ndarray | None = None
    sharpness: float = 1.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        return next(iter(self.fractions.values())).shape

    @property
    def spacing(self) -> np.ndarray:
        """Voxel edge lengths in mm, shape (3,)."""
        return spacing_of(self.affine)

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel in mm^3."""
        return voxel_volume_of(self.affine)

    @property
    def brain(self) -> np.ndarray:
        """Where brain tissue and the fluid around it fill at least half of the voxel."""
        total = np.zeros(self.shape, np.float32)
        for name, fraction in self.fractions.items():
            if name not in EXTRACEREBRAL:
                total += fraction
        inside = total >= 0.5
        return inside if self.labels is None else inside & (self.labels < FIRST_EXTRACEREBRAL)

    @property
    def centre(self) -> np.ndarray:
        """Middle of the brain's bounding box in mm."""
        inside = np.argwhere(self.brain)
        middle = (inside.min(axis=0) + inside.max(axis=0)) / 2
        return self.affine[:3, :3] @ middle + self.affine[:3, 3]


@dataclass(frozen=True)
class Deformation:
    """How a template becomes another head; all numbers can be stored as JSON.

    Attributes
    ----------
    scales : of the three axes (right, front, top); 1.1 makes the head 10 % longer.
    shears : of the axes xy, xz, yx, yz, zx, zy, dimensionless.
    elastic : standard deviation in mm of the smooth displacement, knots 30 mm apart.
    ventricles : widening of the ventricles, 1 for none (1.8: atrophy).
    seed : of the smooth displacement.
    """

    scales: tuple[float, float, float]
    shears: tuple[float, ...]
    elastic: float
    ventricles: float
    seed: int


def draw_deformation(
    random: np.random.Generator,
    *,
    size: float = 1.0,
    scaling: float = 0.08,
    shear: float = 0.03,
    elastic: float = 1.5,
    ventricles: tuple[float, float] = (1.0, 1.0),
) -> Deformation:
    """Draw a deformation.

    Parameters
    ----------
    size : mean scale; 0.94 for MNI152 maps, whose heads are larger than people's (Lancaster et
        al. 2007, doi 10.1002/hbm.20345).
    scaling : each axis is scaled by up to this share more or less.
    shear : largest shear of an axis.
    elastic : standard deviation of the smooth displacement in mm.
    ventricles : range of the widening of the ventricles.
    """
    x, y, z = map(float, size * random.uniform(1 - scaling, 1 + scaling, 3))
    return Deformation(
        scales=(x, y, z),
        shears=tuple(map(float, random.uniform(-shear, shear, 6))),
        elastic=float(elastic),
        ventricles=float(random.uniform(*ventricles)),
        seed=draw_seed(random),
    )


def deform(anatomy: Anatomy, deformation: Deformation, *, voxel_size: float = 1.0) -> Anatomy:
    """Another head on a grid of its own, with isotropic voxels along RAS+.

    Parameters
    ----------
    anatomy : the template.
    deformation : from :func:`draw_deformation`; equal draws give equal heads at any voxel size.
    voxel_size : edge in mm of the new grid, for example 1 for 3 T and 0.7 for 7 T.
    """
    low, high = extent(anatomy)
    middle = (low + high) / 2
    scales = np.array(deformation.scales)
    half = scales * (high - low) / 2 + MARGIN
    shape = tuple(int(n) for n in np.ceil(2 * half / voxel_size))
    affine = np.diag([voxel_size, voxel_size, voxel_size, 1.0])
    affine[:3, 3] = middle - voxel_size * (np.array(shape) - 1) / 2
    forward = np.diag(scales)
    forward[~np.eye(3, dtype=bool)] = deformation.shears
    at = [affine[i, 3] - middle[i] + voxel_size * np.arange(shape[i]) for i in range(3)]
    where = np.stack(np.meshgrid(*(a.astype(np.float32) for a in at), indexing='ij'))
    where = np.tensordot(np.linalg.inv(forward).astype(np.float32), where, axes=1)
    for axis in range(3):
        if deformation.elastic:
            where[axis] += deformation.elastic * smooth_noise(
                shape, affine, middle, seed=deformation.seed + axis, scale=KNOTS
            )
        where[axis] += middle[axis]
    if deformation.ventricles != 1:
        where -= widening(anatomy, deformation.ventricles, where)
    to_voxels = np.linalg.inv(anatomy.affine)
    voxels = np.tensordot(to_voxels[:3, :3].astype(np.float32), where, axes=1)
    voxels += to_voxels[:3, 3].astype(np.float32).reshape(3, 1, 1, 1)
    return resample_anatomy(anatomy, voxels, affine)


def extent(anatomy: Anatomy) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner in mm of all that is not air; voxel axes along RAS+."""
    low = np.array(anatomy.shape)
    high = np.zeros(3, int)
    for fraction in anatomy.fractions.values():
        for axis in range(3):
            others = tuple(a for a in range(3) if a != axis)
            filled = np.flatnonzero(fraction.max(axis=others) > AIR)
            if len(filled):
                low[axis] = min(low[axis], filled[0])
                high[axis] = max(high[axis], filled[-1])
    scale, origin = np.diag(anatomy.affine)[:3], anatomy.affine[:3, 3]
    return scale * low + origin, scale * high + origin


def widening(anatomy: Anatomy, factor: float, where: np.ndarray) -> np.ndarray:
    """Displacement in mm that widens the ventricles' volume by about a factor.

    Away from the ventricles, along the slope of the smoothed distance to them; it fades over
    15 mm outside and towards their middle inside.

    Parameters
    ----------
    where : (3, I, J, K) in mm, places in the new head.
    """
    mask = ventricles(anatomy)
    if not mask.any():
        return np.zeros_like(where)
    spacing = anatomy.spacing
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing)
    distance = ndimage.gaussian_filter((outside - inside).astype(np.float32), 1.5 / spacing)
    surface = mask & (inside < 1.5 * spacing.max())
    push = min((factor - 1) * mask.sum() / max(surface.sum(), 1) * spacing.mean(), 5.0)
    strength = push * np.where(distance > 0, np.exp(-distance / 15), np.exp(distance / 4))
    slope = np.stack(np.gradient(distance, *spacing))
    slope *= strength / np.maximum(np.linalg.norm(slope, axis=0), 0.3)
    matrix = np.linalg.inv(anatomy.affine)
    voxels = np.tensordot(matrix[:3, :3].astype(np.float32), where, axes=1)
    voxels += matrix[:3, 3].astype(np.float32).reshape(3, 1, 1, 1)
    return np.stack(
        [ndimage.map_coordinates(s, voxels, order=1, output=np.float32) for s in slope]
    )


def ventricles(anatomy: Anatomy) -> np.ndarray:
    """Mask of lateral and third ventricles; without labels, all fluid deep inside the brain."""
    if anatomy.labels is not None:
        return np.isin(anatomy.labels, VENTRICLES)
    depth = ndimage.distance_transform_edt(anatomy.brain, sampling=anatomy.spacing)
    fluid = anatomy.fractions['csf'] > 0.5
    return ndimage.binary_opening(fluid) & (depth > 0.6 * depth.max()) & (depth > DEEP)


def resample_anatomy(anatomy: Anatomy, voxels: np.ndarray, affine: np.ndarray) -> Anatomy:
    """The anatomy at voxel coordinates (3, I, J, K), on the grid of ``affine``."""
    fractions = {
        name: sample_part(fraction, voxels) for name, fraction in anatomy.fractions.items()
    }
    if anatomy.sharpness != 1:
        sharpen(fractions, anatomy.sharpness)
    labels = None
    if anatomy.labels is not None:
        labels = ndimage.map_coordinates(anatomy.labels, voxels, order=0)
    return Anatomy(fractions, affine, labels)


def sample_part(values: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """Linear interpolation at voxel coordinates; empty space costs nothing."""
    sampled = np.zeros(voxels.shape[1:], np.float32)
    filled = values > 0
    if not filled.any():
        return sampled
    reached = np.ones(sampled.shape, bool)
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        along = np.flatnonzero(filled.any(axis=others))
        reached &= (voxels[axis] > along[0] - 1) & (voxels[axis] < along[-1] + 1)
    if reached.mean() > 0.7:
        return ndimage.map_coordinates(values, voxels, order=1, output=np.float32)
    sampled[reached] = ndimage.map_coordinates(
        values, voxels[:, reached], order=1, output=np.float32
    )
    return sampled


def sharpen(fractions: dict[str, np.ndarray], exponent: float) -> None:
    """Make the borders that interpolation has widened narrow again, in place.

    Fractions (air among them) are raised to a power and divided by their sum.
    """
    shape = next(iter(fractions.values())).shape
    air = np.ones(shape, np.float32)
    for fraction in fractions.values():
        air -= fraction
    total = np.maximum(air, 0) ** exponent
    for fraction in fractions.values():
        fraction[:] = fraction**exponent
        total += fraction
    for fraction in fractions.values():
        fraction /= np.maximum(total, np.finfo(np.float32).tiny)


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
