"""Participants as training reads them: arrays mapped into memory, or packed small.

Files are of two kinds, for two needs. An adaptation reads a few patches of many participants in
the normalisation of any model: half precision, mapped into memory (:func:`write_participant`).
Data of a pretraining are copied to other machines and read whole: one byte per voxel and contrast
in one normalisation, compressed (:func:`save_scan`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl2_bids.errors import DataError
from ssl2_bids.files import read_arrays, read_object, storage_failure, whole_file, write_json
from ssl2_bids.synthesis.appearance import CHANNELS
from ssl2_bids.training.data.masking import HIGH, LOW

FACTS = 'participant.json'  # written last: with it the folder is whole
MASKS = ('brain', 'label', 'annotated')
# what masking.LOW and HIGH, and the engine's images, are the limits of
NORMALISATION: dict[str, Any] = {
    'Type': 'median-mad',
    'Region': 'brain',
    'Clip': [-6, 8],
    'Divide': 3,
    'Background': 0,
}
STEPS = 254  # values of a byte above 0, less one; 0 is unknown or outside the brain
PREFIX = 'scan-'


@dataclass(frozen=True, eq=False)
class Participant:
    """One session on the grid of a network, RAS+; arrays may be memory-mapped.

    Attributes
    ----------
    name : for messages.
    image : (C, D, H, W) float16 or float32, normalised as the network's input; or uint8, see
        :func:`to_bytes`.
    present : per channel, whether the contrast is there; absent ones are zeros.
    brain : (D, H, W), above 0 inside.
    label, annotated : (D, H, W), lesions and where they were looked for; both or neither.
    person : whose session it is; empty where it is not needed.
    simulated : whether ``ssl2 simulate`` made it.
    """

    name: str
    image: np.ndarray
    present: tuple[bool, ...]
    brain: np.ndarray
    label: np.ndarray | None = None
    annotated: np.ndarray | None = None
    person: str = ''
    simulated: bool = False


def write_participant(participant: Participant, folder: Path) -> None:
    """Write a participant's arrays into a folder, to be mapped into memory."""
    arrays = {'image': np.asarray(intensities(participant.image), np.float16)}
    for name in MASKS:
        if getattr(participant, name) is not None:
            arrays[name] = (np.asarray(getattr(participant, name)) > 0).astype(np.uint8)
    for name, array in arrays.items():
        with whole_file(folder / f'{name}.npy') as temporary:
            np.save(temporary, array)
    facts: dict[str, Any] = {
        'name': participant.name,
        'present': [bool(there) for there in participant.present],
    }
    if participant.simulated:
        facts['simulated'] = True
    write_json(folder / FACTS, {**facts, 'arrays': list(arrays)})


def read_participant(folder: Path) -> Participant:
    """A participant whose arrays stay in the files of :func:`write_participant`.

    Raises
    ------
    DataError : a file is missing or damaged, or their grids differ.
    ReadError : the disk failed.
    """
    try:
        facts = read_object(folder / FACTS)
        arrays = {name: np.load(folder / f'{name}.npy', mmap_mode='r') for name in facts['arrays']}
        found = Participant(
            facts['name'],
            present=tuple(facts['present']),
            simulated=bool(facts.get('simulated', False)),
            **arrays,
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        if failed := storage_failure(error, folder):
            raise failed from None
        raise DataError(
            f'this participant cannot be read ({error})', advice='Prepare it again.', path=folder
        ) from None
    grids = {array.shape[-3:] for array in arrays.values()}
    if len(grids) != 1 or found.image.shape[0] != len(found.present):
        raise DataError('its arrays do not match', advice='Prepare it again.', path=folder)
    return found


def to_bytes(normalised: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Normalised intensities as uint8: 1 to 255 from -2 to 8/3, in steps of 0.018; 0 unknown."""
    scaled = 1 + np.rint(STEPS * (np.clip(normalised, LOW, HIGH) - LOW) / (HIGH - LOW))
    return np.where(known, scaled, 0).astype(np.uint8)


def from_bytes(stored: Tensor) -> Tensor:
    """Normalised intensities (float32) that :func:`to_bytes` stored; 0 where unknown."""
    values = LOW + (HIGH - LOW) * (stored.float() - 1) / STEPS
    return torch.where(stored > 0, values, 0.0)


def intensities(stored: np.ndarray) -> Tensor:
    """Normalised intensities (float32) of a participant's image, or of a part of it."""
    if stored.dtype == np.uint8:
        return from_bytes(torch.from_numpy(np.ascontiguousarray(stored)))
    return torch.from_numpy(np.asarray(stored, np.float32))


def stack_channels(images: Mapping[str, np.ndarray]) -> tuple[np.ndarray, tuple[bool, ...]]:
    """Single contrasts as an image (C, D, H, W) in the order of ``CHANNELS``, and ``present``."""
    empty = np.zeros_like(next(iter(images.values())))
    image = np.stack([images.get(channel, empty) for channel in CHANNELS])
    return image, tuple(channel in images for channel in CHANNELS)


def save_scan(folder: Path, scan: Participant) -> Path:
    """Write a participant in bytes and ``CHANNELS`` into one compressed ``.npz``, or nothing."""
    path = folder / f'{PREFIX}{scan.name}.npz'
    there = zip(CHANNELS, scan.image, scan.present, strict=True)
    arrays: dict[str, Any] = {f'image_{name}': image for name, image, known in there if known}
    arrays |= {'name': np.array(scan.name), 'person': np.array(scan.person)}
    arrays |= {'brain': np.packbits(scan.brain), 'simulated': np.array(scan.simulated)}
    if scan.label is not None and scan.annotated is not None:
        arrays |= {'label': np.packbits(scan.label), 'known': np.packbits(scan.annotated)}
    with whole_file(path) as temporary, open(temporary, 'wb') as stream:
        np.savez_compressed(stream, **arrays)
    return path


def load_scan(path: Path) -> Participant:
    """Read what :func:`save_scan` wrote.

    Raises
    ------
    DataError : the file is damaged.
    NoInputError, ReadError : it may not be read, or the disk failed.
    """
    try:
        arrays = read_arrays(path)
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
    except (ValueError, KeyError, StopIteration, TypeError) as error:
        raise DataError(
            f'this prepared scan cannot be read ({error})',
            advice='Remove the file, and prepare the dataset again.',
            path=path,
        ) from None
    image, present = stack_channels(images)
    simulated = bool(arrays.get('simulated', False))
    return Participant(name, image, present, brain, label, known, person, simulated)


def load_scans(folder: Path) -> tuple[Participant, ...]:
    """All prepared scans of a folder, sorted by name."""
    return tuple(load_scan(path) for path in sorted(folder.glob(f'{PREFIX}*.npz')))
