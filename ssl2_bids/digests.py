"""Digests of files' content, kept so that an unchanged file need not be read again.

What decides a result is the content of its input files, not their names, sizes or times: a copy
keeps its time stamp, and another image can have the same size. A digest that was kept is trusted
only where size, modification time, change time and inode agree with those at the time of reading.
The change time cannot be set by a program, so an image replaced under a kept time stamp is seen.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from ssl2_bids.errors import Ssl2Error
from ssl2_bids.files import read_object, sha256_of, write_json
from ssl2_bids.wording import counted

DIGESTS = 'digests'  # folder of the records below the work folder
MAX_THREADS = 8  # more do not make a disk faster
SETTLED = 2.0  # s; a file changed later than this before it was read may change unseen

Stamp = list[int]  # size, modification time (ns), change time (ns), inode


class Digests:
    """SHA-256 of files, from records in a folder where they can be trusted.

    There is one record for each folder of input files. It is written whole under a temporary
    name, so jobs that share the records at worst read a file once more.

    Parameters
    ----------
    folder : of the records; None keeps none.
    trust : whether records are used; without, every file is read.

    Attributes
    ----------
    trusted, read : how many files were known by their record, and how many were read.
    """

    def __init__(self, folder: Path | None = None, *, trust: bool = True):
        self.folder = folder
        self.trust = trust
        self.trusted = 0
        self.read = 0
        self._known: dict[Path, str] = {}
        self._records: dict[Path, dict[str, Any]] = {}
        self._changed: set[Path] = set()
        self._lock = threading.Lock()

    def of(self, path: Path) -> str:
        """The digest of a file, as it was when this object first met it.

        Raises
        ------
        OSError : the file cannot be read.
        """
        path = Path(os.path.abspath(path))
        with self._lock:
            if path in self._known:
                return self._known[path]
            record = self._record(path.parent)
        # opened before it is asked: network file systems renew what they know of a file then
        with open(path, 'rb') as stream:
            stamp = _stamp(stream.fileno())
            former = record.get(path.name)
            trusted = self.trust and _agrees(former, stamp)
            try:
                digest = former['Sha256'] if trusted and former else sha256_of(stream)
            except OSError as error:  # reading, other than opening, does not name the file
                error.filename = str(path)
                raise
            settled = _stamp(stream.fileno()) == stamp and _is_settled(stamp)
        with self._lock:
            self._known[path] = digest
            self.trusted += trusted
            self.read += not trusted
            if not trusted:
                self._keep(path, digest, stamp if settled else None)
        return digest

    def of_all(self, paths: Iterable[Path], *, threads: int = 1) -> None:
        """Meet many files at once; those that cannot be read are left to :meth:`of`."""

        def meet(path: Path) -> None:
            with suppress(OSError):
                self.of(path)

        with ThreadPoolExecutor(min(threads, MAX_THREADS)) as pool:
            list(pool.map(meet, dict.fromkeys(paths)))

    def summary(self) -> str:
        """How many digests were trusted and how many files were read, in words."""
        return (
            f'{counted(self.trusted, "file")} unchanged (size, times and inode as before), '
            f'{self.read} read'
        )

    def save(self) -> None:
        """Write the records that changed; that they cannot be written is no reason to stop."""
        for folder in sorted(self._changed):
            with suppress(Ssl2Error):
                content = {'Folder': str(folder), 'Files': self._records[folder]}
                write_json(self._path(folder), content)
        self._changed.clear()

    def _record(self, folder: Path) -> dict[str, Any]:
        if folder not in self._records:
            self._records[folder] = self._stored(folder)
        return self._records[folder]

    def _stored(self, folder: Path) -> dict[str, Any]:
        if self.folder is None:
            return {}
        try:
            content = read_object(self._path(folder))
            files = content['Files'] if content['Folder'] == str(folder) else {}
        except (OSError, ValueError, KeyError):
            return {}
        return files if isinstance(files, dict) else {}

    def _keep(self, path: Path, digest: str, stamp: Stamp | None) -> None:
        record = self._records[path.parent]
        if stamp is None:
            if record.pop(path.name, None) is None:
                return
        else:
            record[path.name] = {'Sha256': digest, 'Stamp': stamp}
        if self.folder is not None:
            self._changed.add(path.parent)

    def _path(self, folder: Path) -> Path:
        assert self.folder is not None
        name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        return self.folder / f'{name}.json'


def _stamp(descriptor: int) -> Stamp:
    found = os.fstat(descriptor)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _agrees(former: Any, stamp: Stamp) -> bool:
    return (
        isinstance(former, dict)
        and former.get('Stamp') == stamp
        and isinstance(former.get('Sha256'), str)
    )


def _is_settled(stamp: Stamp) -> bool:
    """Whether a later change must show: not within the same tick of the file system's clock."""
    return time.time() - stamp[2] / 1e9 > SETTLED
