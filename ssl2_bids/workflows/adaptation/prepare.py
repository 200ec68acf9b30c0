"""Participants prepared for training: network inputs and labels as files mapped into memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl2_bids import __version__
from ssl2_bids.errors import DataError, NoInputError, about
from ssl2_bids.files import read_object, reading, sha256, whole_file, write_json
from ssl2_bids.networks.cards import Card
from ssl2_bids.steps.annotation import Annotation
from ssl2_bids.steps.network_input import network_input
from ssl2_bids.training.checkpoint import fingerprint
from ssl2_bids.training.data.participants import Participant, read_participant, write_participant
from ssl2_bids.volume import read_grid
from ssl2_bids.voxel_grid import voxel_volume_of
from ssl2_bids.workflows.adaptation.cases import Case
from ssl2_bids.workflows.annotations import onto_model_grid
from ssl2_bids.workflows.segmentation_files import PROCESS_AGAIN, read_result

MADE = 'prepared.json'  # written last: it exists only if all other files exist


@dataclass(frozen=True)
class PreparedSession:
    """A case as the network sees it; its arrays lie in the files of ``folder``.

    Attributes
    ----------
    key : hash of all that it is made from, by content.
    affine : (4, 4), voxel indices of the network's grid to RAS+ mm.
    """

    case: Case
    folder: Path
    key: str
    affine: np.ndarray

    def read(self) -> Participant:
        """The arrays, mapped into memory."""
        return read_participant(self.folder)


def prepare(
    case: Case,
    annotation: Annotation | None,
    card: Card,
    folder: Path,
    digest: Callable[[Path], str] = sha256,
    *,
    simulated: bool = False,
) -> PreparedSession:
    """Bring a case onto the grid of a model, or take it up where it is there already.

    Parameters
    ----------
    digest : gives the SHA-256 of a file.
    simulated : whether it is of a scanner twin.

    Raises
    ------
    NoInputError : contrasts that the card requires are missing.
    DataError : an image cannot be used; it is named.
    """
    key = _key(case, annotation, card, digest)
    found = _taken_up(case, folder, key)
    if found is not None:
        return found
    brain = read_result(case.brain_mask, dtype=np.uint8)
    images = {c: read_result(path, contrast=c) for c, path in case.images.items()}
    given = network_input(images, {}, brain, card)
    label = extent = None
    if annotation is not None:
        shape = (given.brain.shape[0], given.brain.shape[1], given.brain.shape[2])
        label, extent = onto_model_grid(annotation, given.affine, shape)
    (folder / MADE).unlink(missing_ok=True)  # of other arrays than those that follow
    write_participant(
        Participant(
            name=case.name,
            image=given.tensor.numpy(),
            present=tuple(name is not None for name in given.present),
            brain=given.brain.numpy(),
            label=label,
            annotated=extent,
            simulated=simulated,
        ),
        folder,
    )
    write_json(folder / MADE, {'Key': key, 'Affine': given.affine.tolist()})
    made = _taken_up(case, folder, key)
    assert made is not None
    return made


def identified(
    case: Case,
    annotation: Annotation | None,
    card: Card,
    folder: Path,
    digest: Callable[[Path], str] = sha256,
) -> PreparedSession:
    """A case that is not brought onto the grid of a model: it has a key, but no arrays.

    Raises
    ------
    DataError : a file cannot be read; it is named.
    """
    key = _key(case, annotation, card, digest)
    return PreparedSession(case, folder, key, np.full((4, 4), np.nan))


def prepare_all(
    cases: Sequence[Case],
    annotations: dict[str, Annotation],
    card: Card,
    folder: Path,
    digest: Callable[[Path], str] = sha256,
    *,
    arrays: bool = True,
    simulated: bool = False,
) -> tuple[list[PreparedSession], list[tuple[Case, str]]]:
    """Prepare all cases one by one; those that cannot be used, and why.

    Parameters
    ----------
    arrays : False gives keys alone, see :func:`identified`.
    simulated : whether they are of a scanner twin.

    Raises
    ------
    DataError, NoInputError : a labelled case cannot be used: better to know before the training.
    """
    made, left_out = [], []
    for case in cases:
        annotation = annotations.get(case.name)
        try:
            with about(case.brain_mask):
                there = folder / case.name
                if arrays:
                    ready = prepare(case, annotation, card, there, digest, simulated=simulated)
                else:
                    ready = identified(case, annotation, card, there, digest)
                made.append(ready)
        except (DataError, NoInputError) as error:
            if case.labels:
                raise
            left_out.append((case, str(error)))
    return made, left_out


def estimated_size(cases: Sequence[Case], card: Card, folder: Path) -> int:
    """Bytes that cases to prepare will take at most: the whole reference at the card's size.

    Parameters
    ----------
    folder : where they are prepared; those that were prepared before take no more.
    """
    total = 0.0
    for case in cases:
        if (folder / case.name / MADE).is_file():
            continue
        shape, affine = read_grid(case.brain_mask)
        volume = np.prod(shape) * voxel_volume_of(affine)
        masks = 3 if case.labels else 1
        total += volume / np.prod(card.voxel_size) * (2 * len(card.channels) + masks)
    return int(total)


def _taken_up(case: Case, folder: Path, key: str) -> PreparedSession | None:
    try:
        content = read_object(folder / MADE)
        if content['Key'] != key:
            return None
        read_participant(folder)
    except (OSError, ValueError, KeyError, DataError):
        return None
    return PreparedSession(case, folder, key, np.array(content['Affine']))


def _grid_of(card: Card) -> list[object]:
    """What of a card decides how images are prepared."""
    return [card.channels, card.voxel_size, card.normalisation]


def _key(
    case: Case, annotation: Annotation | None, card: Card, digest: Callable[[Path], str]
) -> str:
    """What identifies a prepared case: content, not names of files."""
    try:
        images = {c: digest(path) for c, path in case.images.items()}
        parts: list[object] = [_grid_of(card), images, digest(case.brain_mask), __version__]
    except OSError as error:
        raise DataError(
            f'cannot be read ({error.strerror})',
            advice=PROCESS_AGAIN,
            path=error.filename,
        ) from None
    if annotation is not None:
        drawn = hashlib.sha256()
        for volume in (annotation.label, annotation.extent):
            drawn.update(str((volume.data.dtype.str, volume.shape)).encode())
            drawn.update(np.ascontiguousarray(volume.data).tobytes())
            drawn.update(volume.affine.tobytes())
        parts += [drawn.hexdigest(), annotation.whole]
    return fingerprint(parts)


def keep(path: Path, array: np.ndarray) -> None:
    """Store whole or not at all: a file that stands is not made again.

    Raises
    ------
    StorageError, CannotWriteError : as :func:`ssl2_bids.files.whole_file`.
    """
    with whole_file(path) as temporary, open(temporary, 'wb') as stream:
        np.save(stream, array)


def read_kept(path: Path) -> np.ndarray:
    """What :func:`keep` has stored.

    Raises
    ------
    DataError : the file is damaged.
    NoInputError, ReadError : it is missing or may not be read, or the disk failed.
    """
    try:
        with reading(path):
            return np.asarray(np.load(path))
    except (EOFError, ValueError) as error:
        raise DataError(
            f'an array of the work folder cannot be read ({error})',
            advice='Remove this file and run the same command again: it is then made again.',
            path=path,
        ) from None
