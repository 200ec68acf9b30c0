"""Lesions, and specks that are none, for the training engine: real shapes and drawn ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssl2_bids.synthesis.heads import DISTANCE_SCALE, INDEX, TISSUE, Head
from ssl2_bids.synthesis.patch_tensors import Fields, blur, members

PLACES = ('periventricular', 'juxtacortical', 'deep', 'infratentorial', 'deep grey')
PLACE_SHARES = (0.36, 0.26, 0.27, 0.07, 0.04)
REAL_SHARE = 0.75  # of the samples take real lesions, alone or beside drawn ones
DRAWN_SHARE = 0.65  # of the samples take drawn lesions
CONFLUENT_SHARE = 0.2  # of the samples take large lesions that fade outwards
FADING_SHARE = 0.45  # of the samples have lesions whose labelled border is fainter than the core
LESION_FREE = 0.08
MEDIAN_VOLUME, VOLUME_SPREAD = 13.0, 1.25  # mm^3 and of its log: a heavy small tail


@dataclass(frozen=True, eq=False)
class Painted:
    """What was painted into a patch; all (D, H, W).

    Attributes
    ----------
    strength : float32, 0 where there is nothing, else the lesion's strength, 0.3 to 1.2.
    specks : float32, strength of gliosis-like specks that no rater would draw.
    spaces : bool, perivascular spaces.
    """

    strength: Tensor
    specks: Tensor
    spaces: Tensor


def paint_lesions(
    real: Tensor | None,
    groups: Tensor,
    to_ventricle: Tensor,
    to_cortex: Tensor,
    random: np.random.Generator,
    fields: Fields,
) -> Painted:
    """Real and drawn lesions of a patch, on tissue alone."""
    group, ventricle, cortex = (
        m.to('cpu', torch.uint8) for m in (groups, to_ventricle, to_cortex)
    )
    drawn = draw_lesions(group, ventricle, cortex, random)
    strength, specks, spaces = (m.to(fields.device) for m in drawn)
    if real is not None:
        strength = torch.maximum(strength, real * members(groups, TISSUE))
    if random.random() < CONFLUENT_SHARE:
        large = confluent_lesions(groups, to_ventricle, random, fields)
        strength = torch.maximum(strength, large)
    if random.random() < LESION_FREE:
        strength = torch.zeros_like(strength)
    return Painted(strength, specks, spaces)


def fade(strength: Tensor, random: np.random.Generator) -> Tensor:
    """Lesions that, in some samples, are fainter at their border, which a rater includes."""
    if random.random() > FADING_SHARE:
        return strength
    core = blur((strength > 0).float(), random.uniform(0.8, 2.0))
    least = random.uniform(0.3, 0.85)
    return strength * (least + (1 - least) * (1.4 * core).clamp(max=1))


def lesion_label(strength: Tensor, random: np.random.Generator) -> Tensor:
    """What a rater outlines: tight in some, with the faint border in others; float32."""
    sharp = (strength > 0).float()
    return (blur(sharp, 0.6) > random.uniform(0.25, 0.5)).float()


def real_lesions(head: Head, random: np.random.Generator) -> tuple[Tensor, np.ndarray] | None:
    """Lesions of one or a few real patients in a head.

    Each lesion is kept or not, moved by up to 3 voxels together with those of its patient, and
    given a strength of its own.

    Returns
    -------
    Flat uint8, strength times 200; and the (3,) voxel of one lesion, each as likely as another.
    """
    if not head.patients or random.random() > REAL_SHARE:
        return None
    flat = np.zeros(head.groups.size, np.uint8)
    shape = head.groups.shape
    for _ in range(int(random.choice((1, 2, 4), p=(0.6, 0.3, 0.1)))):
        patient = head.patients[int(random.integers(len(head.patients)))]
        count = int(patient.instance.max()) + 1
        kept = random.random(count) < min(1.0, 0.12 * (1 / 0.05) ** random.random())
        kept[int(random.integers(count))] = True
        strength = np.clip(random.normal(0.9, 0.2, count), 0.5, 1.2) * kept * 200
        shift = random.integers(-3, 4, 3)
        offset = int((shift[0] * shape[1] + shift[1]) * shape[2] + shift[2])
        where = np.clip(patient.voxels + offset, 0, flat.size - 1)
        flat[where] = np.maximum(flat[where], strength[patient.instance].astype(np.uint8))
    chosen = random.choice(np.flatnonzero(kept))
    one = int(where[int(random.choice(np.flatnonzero(patient.instance == chosen)))])
    return torch.from_numpy(flat), np.array(np.unravel_index(one, shape))


def confluent_lesions(
    groups: Tensor,
    to_ventricle: Tensor,
    random: np.random.Generator,
    smooth: Callable[[float], Tensor],
) -> Tensor:
    """Large patchy lesions of white matter, densest near the ventricles, that fade outwards.

    Where a sum of two smooth fields and of nearness to a ventricle lies above a threshold.

    Parameters
    ----------
    groups, to_ventricle : (D, H, W).
    smooth : gives a field (D, H, W) of mean 0 and deviation 0.8, from its length in voxels.

    Returns
    -------
    (D, H, W) float32, strength 0.3 to 1, 0 outside.
    """
    near = torch.exp(-to_ventricle.float() / (DISTANCE_SCALE * random.uniform(4, 12)))
    field = random.uniform(0.8, 2.5) * near
    field = field + 0.7 * smooth(random.uniform(10, 18)) + 0.4 * smooth(random.uniform(4, 8))
    inside = field - random.uniform(1.2, 2.4)
    shown = 0.3 + 0.7 * (inside / random.uniform(0.2, 1.0)).clamp(0, 1)
    return shown * ((inside > 0) & (groups == INDEX['white']))


def draw_lesions(
    groups: Tensor, to_ventricle: Tensor, to_cortex: Tensor, random: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw lesions, specks and perivascular spaces as warped ellipsoids in a patch.

    Parameters
    ----------
    groups, to_ventricle, to_cortex : (D, H, W) uint8 on the CPU.

    Returns
    -------
    strength, specks : (D, H, W) float32; spaces : (D, H, W) bool.
    """
    maps = groups.numpy(), to_ventricle.numpy(), to_cortex.numpy()
    shape = maps[0].shape
    strength, specks, spaces = np.zeros((3, *shape), np.float32)
    voxels = maps[0].size / 3e6  # share of a brain's box in this patch
    if random.random() < DRAWN_SHARE:
        for _ in range(random.poisson(2 * (160 / 2) ** random.random() * voxels)):
            place = str(random.choice(PLACES, p=PLACE_SHARES))
            volume = float(np.clip(random.lognormal(np.log(MEDIAN_VOLUME), VOLUME_SPREAD), 1, 4e3))
            paint(strength, maps, random, place, volume, random.uniform(0.5, 1.2))
    if random.random() < 0.2:
        for _ in range(random.poisson(8 * voxels)):
            paint(specks, maps, random, 'deep', random.uniform(1, 6), random.uniform(0.4, 1))
    if random.random() < 0.4:
        for _ in range(random.poisson(25 * voxels)):
            paint(spaces, maps, random, 'deep', random.uniform(1, 12), 1.0, stretch=3.0)
    painted = torch.from_numpy(strength), torch.from_numpy(specks), torch.from_numpy(spaces > 0)
    return painted


def paint(
    into: np.ndarray,
    maps: tuple[np.ndarray, np.ndarray, np.ndarray],
    random: np.random.Generator,
    place: str,
    volume: float,
    strength: float,
    *,
    stretch: float = 0.0,
) -> None:
    """Paint one ellipsoid with a rough surface around a voxel of a place, if one is found."""
    groups, to_ventricle, to_cortex = maps
    centre = find_centre(maps, random, place)
    if centre is None:
        return
    radius = np.cbrt(volume * 3 / (4 * np.pi))
    half = int(np.ceil(2.2 * radius)) + 1
    box = tuple(
        slice(max(c - half, 0), min(c + half + 1, n))
        for c, n in zip(centre, groups.shape, strict=True)
    )
    axis = random.standard_normal(3)
    if place == 'periventricular' and random.random() < 0.7:
        axis = slope(to_ventricle, centre) + 0.3 * axis
    if place == 'juxtacortical':
        axis = slope(to_cortex, centre) + 0.2 * axis
    axis /= np.linalg.norm(axis) + 1e-6
    length = stretch or {'periventricular': 1.7, 'juxtacortical': 0.6}.get(place, 1.0)
    length *= np.exp(random.normal(0, 0.25))
    steps = [np.arange(b.start - c, b.stop - c) for b, c in zip(box, centre, strict=True)]
    x, y, z = np.meshgrid(*steps, indexing='ij', sparse=True)
    along = axis[0] * x + axis[1] * y + axis[2] * z
    across = x * x + y * y + z * z - along**2
    distance = np.sqrt((along / length) ** 2 + np.maximum(across, 0) * length)
    rough = random.standard_normal([n // 3 + 2 for n in distance.shape])
    rough = rough.repeat(3, 0).repeat(3, 1).repeat(3, 2)[tuple(slice(n) for n in distance.shape)]
    inside = distance * np.exp(0.18 * rough) <= max(radius, 0.6)
    allowed = np.isin(groups[box], SUSCEPTIBLE)
    allowed &= (groups[box] != INDEX['cortex']) | (rough > 0.4)
    inside &= allowed
    into[box][inside] = np.maximum(into[box][inside], strength)


SUSCEPTIBLE = tuple(
    INDEX[name]
    for name in (
        'white', 'cortex', 'striatum', 'thalamus', 'cerebellar_white', 'brainstem', 'pallidum',
    )
)  # fmt: skip


def find_centre(
    maps: tuple[np.ndarray, np.ndarray, np.ndarray], random: np.random.Generator, place: str
) -> np.ndarray | None:
    """A random voxel of a place, found by trial: most patches hold all places."""
    groups, to_ventricle, to_cortex = maps
    tries = random.integers(0, groups.shape, (400, 3))
    at = tuple(tries.T)
    group = groups[at]
    ventricle = to_ventricle[at] / DISTANCE_SCALE
    cortex = to_cortex[at] / DISTANCE_SCALE
    white = group == INDEX['white']
    fits = {
        'periventricular': white & (ventricle < 6),
        'juxtacortical': white & (cortex < 2.5) & (ventricle > 6),
        'deep': white & (cortex >= 2.5) & (ventricle >= 6),
        'infratentorial': (group == INDEX['cerebellar_white']) | (group == INDEX['brainstem']),
        'deep grey': (group == INDEX['thalamus']) | (group == INDEX['striatum']),
    }[place]
    found = np.flatnonzero(fits)
    return tries[found[0]] if len(found) else None


def slope(field: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Unnormalised direction up a distance map, zero where it is flat."""
    ahead, behind = (
        np.clip(at + step * np.eye(3, dtype=int), 0, np.array(field.shape) - 1) for step in (2, -2)
    )
    rise = field[tuple(ahead.T)].astype(float) - field[tuple(behind.T)]
    return rise / (np.linalg.norm(rise) + 1e-6)
