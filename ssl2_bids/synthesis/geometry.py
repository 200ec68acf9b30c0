"""Where in a head a patch of the training engine lies, and what the head holds there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ssl2_bids.synthesis.heads import BRAIN, DISTANCE_SCALE, INDEX, TISSUE, Head
from ssl2_bids.synthesis.patch_tensors import Fields, members
from ssl2_bids.synthesis.ranges import Randomisation


@dataclass(frozen=True, eq=False)
class Prepared:
    """A head as tensors.

    Attributes
    ----------
    packed : flat int32: group, distance to ventricle, to cortex, tract, 8 bits each.
    white, below : (V, 3), voxels of cerebral white matter, and of brain stem and cerebellar white
        matter, that can be a patch's centre.
    shares : (G,) share of each group in the brain.
    horns : front and back end of the lateral ventricles, voxels.
    """

    packed: Tensor
    t1w: Tensor | None
    white: np.ndarray
    below: np.ndarray
    shares: np.ndarray
    horns: tuple[float, float]


@lru_cache(maxsize=64)
def prepare(head: Head, device: str) -> Prepared:
    """Move a head to a device, once."""
    parts = (head.groups, head.to_ventricle, head.to_cortex, head.tract)
    packed = sum(part.astype(np.int64) << (8 * place) for place, part in enumerate(parts))
    packed = np.asarray(packed).astype(np.uint32).view(np.int32).ravel()
    white = np.argwhere(head.groups == INDEX['white'])
    below = np.argwhere(np.isin(head.groups, (INDEX['brainstem'], INDEX['cerebellar_white'])))
    below = below if len(below) else white
    chosen = np.random.default_rng(0)
    fluid = (head.groups != INDEX['outer_csf']) | (head.to_cortex < 4 * DISTANCE_SCALE)
    inside = head.groups[np.isin(head.groups, BRAIN) & fluid]
    ventricle = np.argwhere(head.groups == INDEX['ventricle'])[:, 1]
    horns = np.percentile(ventricle, (99.5, 0.5)) if len(ventricle) else (1e4, -1e4)
    return Prepared(
        torch.from_numpy(packed).to(device),
        None if head.t1w is None else torch.from_numpy(head.t1w.ravel()).to(device),
        white[chosen.integers(0, len(white), 20000)],
        below[chosen.integers(0, len(below), 5000)],
        np.bincount(inside, minlength=len(INDEX)) / len(inside),
        (float(horns[0]), float(horns[1])),
    )


def positions(
    head: Head,
    drawn: np.ndarray,
    randomisation: Randomisation,
    random: np.random.Generator,
    patch: tuple[int, int, int],
    fields: Fields,
) -> tuple[Tensor, Tensor]:
    """Where in the head each voxel of a patch lies.

    Returns
    -------
    Flat indices (D, H, W) of the nearest voxels, and their coordinate from back to front.
    """
    shape = head.groups.shape
    angles = np.deg2rad(random.uniform(-1, 1, 3) * randomisation.rotation)
    matrix = rotation(angles) @ np.diag(1 + random.uniform(-1, 1, 3) * randomisation.scaling)
    if random.random() < 0.5:
        matrix[:, 0] *= -1
    centre = np.array(shape) / 2 + random.uniform(-4, 4, 3)
    if any(size < extent for size, extent in zip(patch, shape, strict=True)):
        drawn = drawn + random.uniform(-16, 16, 3)
        # A patch that covers an axis stays in its middle; else it does not leave the head by far.
        margin = np.minimum(np.array(patch) / 2 - 8, np.array(shape) / 2)
        centre = np.clip(drawn, margin, np.array(shape) - margin)
    matrix, device = matrix.astype(np.float32), fields.device
    steps = [torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2 for n in patch]
    x, y, z = steps[0][:, None, None], steps[1][None, :, None], steps[2][None, None, :]
    # divided by the deviation of a field at its knots
    bend = fields(24.0, 3) * (randomisation.elastic * random.random() / 1.5)
    coordinates = []
    for axis in range(3):
        row = matrix[axis]
        at = bend[axis] + (row[0] * x + (row[1] * y + (row[2] * z + float(centre[axis]))))
        coordinates.append(at.round_().clamp_(0, shape[axis] - 1).to(torch.int32))
    i, j, k = coordinates
    return (i * shape[1] + j) * shape[2] + k, j


def rotation(angles: np.ndarray) -> np.ndarray:
    """(3, 3) rotation about the three axes one after the other, angles in radians."""
    a, b, c = angles
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def brain_mask(groups: Tensor, to_cortex: Tensor, random: np.random.Generator) -> Tensor:
    """A brain mask from tight to generous, as skull-stripping gives it; bool."""
    near = to_cortex < random.uniform(1.0, 7.0) * DISTANCE_SCALE
    deep = members(groups, (*TISSUE, INDEX['ventricle'], INDEX['plexus'])) > 0
    fluid = groups == INDEX['outer_csf']
    mask = deep | (fluid & near)
    if random.random() < 0.3:  # rests of dura and skull
        mask |= (to_cortex < random.uniform(1.0, 4.0) * DISTANCE_SCALE) & (groups > 0)
    return mask
