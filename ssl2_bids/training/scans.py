"""Real scans packed for training: stripped, 1 mm, normalised, one byte per voxel and contrast."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from ssl2_bids.errors import DataError
from ssl2_bids.files import whole_file
from ssl2_bids.training.masking import HIGH, LOW, spoil

# what masking.LOW and HIGH, and the engine's images, are the limits of
NORMALISATION: dict[str, Any] = {
    'Type': 'median-mad',
    'Region': 'brain',
    'Clip': [-6, 8],
    'Divide': 3,
    'Background': 0,
}
VOXEL = (1.0, 1.0, 1.0)  # mm
STEPS = 254  # values of a byte above 0, less one; 0 is unknown or outside the brain
ON_LESION = 0.6  # share of labelled patches around a lesion, each lesion as often as another
MIRROR = 0.5
TURN, SCALE = 15.0, 0.12  # degrees about each axis; share of each axis, of labelled patches
DROP = 0.25  # probability that a contrast of a labelled patch is left out; never all
PREFIX = 'scan-'


@dataclass(frozen=True, eq=False)
class PackedScan:
    """One session of a person.

    Attributes
    ----------
    name, person : ``sub-X_ses-Y`` and ``sub-X``.
    images : by contrast, (I, J, K) uint8; see :func:`to_bytes`.
    brain : (I, J, K) bool.
    label, known : (I, J, K) bool, lesions and where they were looked for; None without label.
    lesions : (L, 3), a voxel of each lesion.
    simulated : whether ``ssl2 simulate`` made it.
    """

    name: str
    person: str
    images: Mapping[str, np.ndarray]
    brain: np.ndarray
    label: np.ndarray | None = None
    known: np.ndarray | None = None
    lesions: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), int))
    simulated: bool = False


class RealPatch(NamedTuple):
    """One patch: image (C, D, H, W); present (C,) bool; brain, label, known (1, D, H, W)."""

    image: Tensor
    present: Tensor
    brain: Tensor
    label: Tensor
    known: Tensor


def to_bytes(normalised: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Normalised intensities as uint8: 1 to 255 from -2 to 8/3, in steps of 0.018; 0 unknown."""
    scaled = 1 + np.rint(STEPS * (np.clip(normalised, LOW, HIGH) - LOW) / (HIGH - LOW))
    return np.where(known, scaled, 0).astype(np.uint8)


def from_bytes(stored: Tensor) -> Tensor:
    """Normalised intensities (float32) that :func:`to_bytes` stored; 0 where unknown."""
    values = LOW + (HIGH - LOW) * (stored.float() - 1) / STEPS
    return torch.where(stored > 0, values, 0.0)


def save_scan(folder: Path, scan: PackedScan) -> Path:
    """Write a scan into one compressed ``.npz``, whole or not at all."""
    path = folder / f'{PREFIX}{scan.name}.npz'
    arrays: dict[str, Any] = {
        f'image_{contrast}': image for contrast, image in scan.images.items()
    }
    arrays |= {'name': np.array(scan.name), 'person': np.array(scan.person)}
    arrays |= {'brain': np.packbits(scan.brain), 'simulated': np.array(scan.simulated)}
    if scan.label is not None and scan.known is not None:
        arrays |= {'label': np.packbits(scan.label), 'known': np.packbits(scan.known)}
    with whole_file(path) as temporary, open(temporary, 'wb') as stream:
        np.savez_compressed(stream, **arrays)
    return path


def load_scan(path: Path) -> PackedScan:
    """Read what :func:`save_scan` wrote.

    Raises
    ------
    DataError : the file is damaged.
    """
    try:
        with np.load(path) as stored:
            arrays = dict(stored)
        images = {k.removeprefix('image_'): a for k, a in arrays.items() if k[:6] == 'image_'}
        shape = next(iter(images.values())).shape
        brain, label, known = (
            None
            if key not in arrays
            else np.unpackbits(arrays[key], count=int(np.prod(shape))).reshape(shape) > 0
            for key in ('brain', 'label', 'known')
        )
        name, person = str(arrays['name']), str(arrays['person'])
        if brain is None:
            raise KeyError('brain')
    except (
        OSError,
        ValueError,
        KeyError,
        StopIteration,
        EOFError,
        BadZipFile,
        zlib.error,
    ) as error:
        raise DataError(
            f'this packed scan cannot be read ({error})', advice='Pack it again.', path=path
        ) from None
    lesions = np.zeros((0, 3), int) if label is None else one_voxel_each(label)
    simulated = bool(arrays.get('simulated', False))
    return PackedScan(name, person, images, brain, label, known, lesions, simulated)


def load_scans(folder: Path) -> tuple[PackedScan, ...]:
    """All packed scans of a folder, sorted by name."""
    return tuple(load_scan(path) for path in sorted(folder.glob(f'{PREFIX}*.npz')))


def one_voxel_each(label: np.ndarray) -> np.ndarray:
    """(L, 3), the voxel of each lesion (26-connected) that is nearest to its centre."""
    pieces, count = ndimage.label(label, np.ones((3, 3, 3)))
    voxels = []
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        own = np.argwhere(pieces[box] == number)
        nearest = own[((own - own.mean(axis=0)) ** 2).sum(axis=1).argmin()]
        voxels.append(nearest + [part.start for part in box])
    return np.array(voxels, int).reshape(count, 3)


def centre_of(scan: PackedScan, random: np.random.Generator, *, on_lesion: float) -> np.ndarray:
    """A voxel (3,) to put a patch around: of a lesion, or any of the brain."""
    if len(scan.lesions) and random.random() < on_lesion:
        return scan.lesions[int(random.integers(len(scan.lesions)))]
    # a few tries find a brain voxel without listing them all
    for _ in range(100):
        voxel = random.integers(scan.brain.shape)
        if scan.brain[tuple(voxel)]:
            return voxel
    return np.array(scan.brain.shape) // 2


def place_of(
    centre: np.ndarray, patch: Sequence[int], shape: Sequence[int], random: np.random.Generator
) -> tuple[list[slice], list[tuple[int, int]]]:
    """A box around a centre, moved by up to a quarter of its size; and what it lacks outside.

    The box stays within the image where that is larger, and is centred on it where it is not.
    """
    slices, missing = [], []
    for middle, size, length in zip(centre, patch, shape, strict=True):
        jitter = int(random.integers(-(size // 4), size // 4 + 1))
        start = int(middle) + jitter - size // 2
        spare = length - size
        start = min(max(start, 0), spare) if spare >= 0 else spare // 2
        slices.append(slice(max(start, 0), min(start + size, length)))
        missing.append((max(-start, 0), max(start + size - length, 0)))
    return slices, missing


def patch_of(
    scan: PackedScan,
    channels: Sequence[str],
    patch: tuple[int, int, int],
    random: np.random.Generator,
) -> RealPatch:
    """A patch of a scan, on the CPU, as it is but for a mirroring of left and right.

    Parameters
    ----------
    channels : contrasts in the order of the network's channels; absent ones are zeros.
    patch : voxels; zeros beyond the scan.
    """
    place, missing = place_of(
        centre_of(scan, random, on_lesion=ON_LESION), patch, scan.brain.shape, random
    )

    def cut(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.pad(array[tuple(place)], missing))

    empty = np.zeros(scan.brain.shape, bool)
    stored = [cut(scan.images[c]) if c in scan.images else None for c in channels]
    image = torch.stack([torch.zeros(patch) if s is None else from_bytes(s) for s in stored])
    masks = (scan.brain, scan.label, scan.known)
    brain, label, known = (cut(empty if m is None else m)[None].float() for m in masks)
    present = torch.tensor([s is not None for s in stored])
    parts = (image, brain, label, known)
    if random.random() < MIRROR:
        image, brain, label, known = (part.flip(1) for part in parts)
    return RealPatch(image, present, brain, label, known)


def whole_scan(scan: PackedScan, channels: Sequence[str], *, multiple: int = 16) -> RealPatch:
    """All of a scan, on the CPU; sizes are rounded up to a multiple with zeros."""
    shape = scan.brain.shape
    missing = [(0, -size % multiple) for size in shape]
    nothing = np.zeros(shape, np.uint8)
    stored = np.stack([scan.images.get(channel, nothing) for channel in channels])
    masks = (nothing if mask is None else mask for mask in (scan.brain, scan.label, scan.known))
    brain, label, known = (torch.from_numpy(np.pad(m, missing))[None] > 0 for m in masks)
    image = from_bytes(torch.from_numpy(np.pad(stored, [(0, 0), *missing])))
    present = torch.tensor([channel in scan.images for channel in channels])
    return RealPatch(image, present, brain, label, known)


def varied(patch: RealPatch, random: np.random.Generator) -> RealPatch:
    """A labelled patch turned, stretched, spoilt, and perhaps without some of its contrasts."""
    angles = np.deg2rad(random.uniform(-TURN, TURN, 3))
    scales = 1 + random.uniform(-SCALE, SCALE, 3)
    masks = torch.cat([patch.brain, patch.label, patch.known])
    image, masks = transformed(patch.image, masks, rotation(angles) @ np.diag(scales))
    present = patch.present & torch.from_numpy(random.random(len(patch.present)) >= DROP)
    if not present.any():
        present = patch.present
    brain, label, known = (masks >= 0.5).float().split(1)
    generator = torch.Generator().manual_seed(int(random.integers(2**62)))
    image = image * brain * present[:, None, None, None]
    image = spoil(image[None], brain[None], generator)[0]
    return RealPatch(image, present, brain, label, known * brain)


def rotation(angles: np.ndarray) -> np.ndarray:
    """(3, 3): turns about the first, second and third axis, in radians, one after another."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        first, second = (other for other in range(3) if other != axis)
        turn = np.eye(3)
        turn[[first, first, second, second], [first, second, first, second]] = (
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        )
        matrix = turn @ matrix
    return matrix


def transformed(image: Tensor, masks: Tensor, matrix: np.ndarray) -> tuple[Tensor, Tensor]:
    """Interpolate (C, D, H, W) tensors linearly at ``matrix`` times the offset from the centre.

    Parameters
    ----------
    matrix : (3, 3), in voxels along D, H and W.
    """
    both = torch.cat([image, masks])[None]
    sizes = np.array(both.shape[2:], float)
    # torch counts axes backwards and from -1 to 1
    scaled = matrix * sizes[None, :] / sizes[:, None]
    theta = torch.zeros(1, 3, 4)
    theta[0, :, :3] = torch.from_numpy(scaled[::-1, ::-1].copy()).float()
    grid = functional.affine_grid(theta, list(both.shape), align_corners=False)
    moved = functional.grid_sample(both, grid, mode='bilinear', align_corners=False)[0]
    return moved[: len(image)], moved[len(image) :]
