"""Saving the state of a run, and resuming from it with checks.

A checkpoint holds the modules, the optimiser, the averaged weights, the curves and the step.
Random numbers need no saving of their own: the loop seeds them from (seed, process, step).
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from ssl2_bids.errors import DataError, UnavailableError, UsageError, lacks_memory
from ssl2_bids.files import DENIED, NOT_READ, cannot_read, listing, reading, whole_file
from ssl2_bids.networks.initialisation import match

log = logging.getLogger('ssl2_bids')

FORMAT = 2
KEPT = 2  # the last good one, and the one before in case a medium damages it
NAME = re.compile(r'checkpoint-(\d{8})\.pt')


class DamagedError(DataError):
    """A checkpoint is damaged: the one before it may be whole."""


def fingerprint(content: Any) -> str:
    """Sixteen hexadecimal digits that identify a configuration."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Stream:
    """Keeps the system's own error: torch's writer hides it behind one of its own."""

    def __init__(self, stream: BinaryIO):
        self.stream = stream
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.stream.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError as error:
            self.error = error
            raise


def write_tensors(content: Any, path: Path) -> None:
    """Write what ``torch.save`` can, whole or not at all.

    Raises
    ------
    StorageError, CannotWriteError : as :func:`ssl2_bids.files.whole_file`.
    """
    with whole_file(path) as temporary, open(temporary, 'wb') as file:
        stream = _Stream(file)
        try:
            torch.save(content, stream)  # type: ignore[arg-type]
            stream.flush()
        except RuntimeError:
            if stream.error is None:
                raise
            raise stream.error from None


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the newest first.

    Raises
    ------
    NoInputError, ReadError : the folder cannot be read.
    """
    with reading(folder):
        found = listing(folder, 'checkpoint-*.pt')
    return [path for path in reversed(found) if NAME.fullmatch(path.name)]


def save(folder: Path, content: Mapping[str, Any]) -> Path:
    """Write the checkpoint of ``content['step']`` and keep none but the one before it.

    A checkpoint of a later step is damaged, or the run would have resumed from it.

    Raises
    ------
    StorageError, CannotWriteError : the former checkpoints are kept.
    """
    path = folder / f'checkpoint-{content["step"]:08d}.pt'
    write_tensors({'format': FORMAT, **content}, path)
    found = checkpoints(folder)
    place = found.index(path)
    for other in (*found[:place], *found[place + KEPT :]):
        other.unlink(missing_ok=True)
    return path


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises
    ------
    DataError : it is damaged (DamagedError), or none of this version's.
    NoInputError, ReadError : it may not be read, or the disk failed.
    UnavailableError : the memory is too small for it.
    """
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError:
        raise DataError('no such checkpoint', path=path) from None
    except Exception as error:  # noqa: BLE001  a damaged file raises any of a dozen
        if isinstance(error, OSError) and error.errno in (*DENIED, *NOT_READ):
            raise cannot_read(error, path) from None
        if lacks_memory(error):
            raise UnavailableError(
                'the memory is too small to read the checkpoint',
                advice='Run the same command with more memory.',
                path=path,
            ) from None
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DamagedError(
            f'the checkpoint cannot be read ({reason})',
            advice='Remove it: the run resumes from the checkpoint before, if there is one.',
            path=path,
        ) from None
    if not isinstance(content, dict) or content.get('format') != FORMAT:
        raise DataError('not a checkpoint of this version', path=path)
    return content


def newest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that can be read; None where there is none at all.

    Raises
    ------
    DataError : there are checkpoints, and every one is damaged; or one is none of this version's.
    NoInputError, ReadError, UnavailableError : as :func:`read`; that checkpoint may be whole.
    """
    found = checkpoints(folder)
    for path in found:
        try:
            return path, read(path)
        except DamagedError as error:
            if path == found[-1]:
                raise
            log.warning('%s', error)
    return None


def check_identity(content: Mapping[str, Any], identity: str, path: Path) -> None:
    """Check that a checkpoint belongs to a configuration.

    Raises
    ------
    UsageError : it is of another one, or of other data.
    """
    if content['identity'] != identity:
        raise UsageError(
            'the run in this folder was started with another configuration, or with other '
            f'prepared data ({content["identity"]}, now {identity})',
            advice='Give the configuration saved in this folder, or another folder. If the data '
            'were prepared again, by another version of ssl2-bids for example, finish the run '
            'with the data and the version that it began with, or give a new folder.',
            path=path,
        )


def load_all(module: nn.Module, tensors: Mapping[str, Tensor], path: Path, name: str) -> None:
    """Load tensors that must fit a module one by one.

    Raises
    ------
    DataError : naming the tensors that do not.
    """
    found = match(module, tensors)
    if found.missing or found.unexpected or found.mismatched:
        raise DataError(
            f'the checkpoint belongs to another network ({name}: {found.faults()})',
            advice='Give the network that it was trained with, or another folder.',
            path=path,
        )
    module.load_state_dict(dict(tensors))
