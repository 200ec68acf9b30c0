"""Locks between runs. The kernel lets go of them when their process ends, however it ends."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ssl2_bids.files import as_ssl2_error

log = logging.getLogger('ssl2_bids')

LOCK = 'participant.lock'  # in the work folder; each session is a name
ADAPTATION_LOCK = 'adaptation.lock'  # in the work folder
BUSY = (errno.EACCES, errno.EAGAIN)
ATTEMPTS = 100  # to hold the file at a path, and not one that another run has just removed


@contextmanager
def locked(
    path: Path, names: Sequence[str], *, waited_for: Sequence[str] = ()
) -> Iterator[set[str]]:
    """Hold names in a lock file until the block ends.

    A name is one byte of the file, far behind its end, with a record lock of POSIX: one open file
    serves any number of names, and NFS knows these locks. They belong to the process, so the file
    must not be opened a second time within the block. Where the file system has no locks, nothing
    is held and nothing is busy.

    Parameters
    ----------
    path : of the lock file, which is made and stays.
    waited_for : names that are held before the others, as soon as another process lets go.

    Returns
    -------
    Those of the names that another process holds.

    Raises
    ------
    CannotWriteError, StorageError : the file cannot be made.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise as_ssl2_error(error, path) from None
        try:
            busy = _hold(stream, path, names, waited_for)
            if attempt == ATTEMPTS or _is_at(stream, path):
                yield busy
                return
        finally:
            os.close(stream)


def _hold(stream: int, path: Path, names: Sequence[str], waited_for: Sequence[str]) -> set[str]:
    """Hold the bytes of names in an open lock file; the names that another process holds."""
    busy = set()
    for name in (*sorted(waited_for), *names):
        at_once = 0 if name in waited_for else fcntl.LOCK_NB
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | at_once, 1, _place(name))
        except OSError as error:
            if error.errno in BUSY:
                busy.add(name)
                continue
            log.debug('%s: no locks on this file system (%s)', path, error)
            break
    return busy


def _is_at(stream: int, path: Path) -> bool:
    """Whether an open file is still the one at its path: another run may have removed it."""
    with suppress(OSError):  # NFS: the handle of a removed file is stale
        return os.path.samestat(os.fstat(stream), os.stat(path))
    return False


def _place(name: str) -> int:
    """The byte of a name: 56 bits of its SHA-256, so that two names do not meet."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], 'big')
