"""Files that are whole or not there: a temporary name first, the true one when finished.

And text that people wrote, in whatever encoding their program saved it.
"""

from __future__ import annotations

import codecs
import errno
import fnmatch
import hashlib
import io
import json
import logging
import os
import secrets
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from zipfile import BadZipFile

from ssl2_bids.errors import (
    CannotWriteError,
    DeniedError,
    DeniedFileError,
    NoInputError,
    ReadError,
    Ssl2Error,
    StorageError,
)

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger('ssl2_bids')

PREFIX = '.tmp-'
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
PERMISSIONS = 'Check the permissions of it and of the folders above it.'
IN_THE_WAY = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY)
INTERNAL_ERROR = Ssl2Error.exit_code
NO_PATHS = (errno.ENAMETOOLONG, errno.ELOOP)
FULL = (errno.ENOSPC, errno.EDQUOT)  # of an OSError
NOT_READ = (  # of an OSError that is not the fault of the file
    errno.EIO,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENFILE,
    errno.ETIMEDOUT,
    errno.ENOTCONN,
)
ABANDONED = 3600.0  # s; a file that is being written changes more often


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` when the block ends well.

    The temporary name keeps the suffix (image libraries look at it) and begins with a dot, so
    that no program uses it as a result. Missing folders are made. The data are flushed to disk
    before the rename, so that a crash of the machine leaves the old file or the new one.

    Raises
    ------
    StorageError : the disk is full, or writing failed for another reason of the medium.
    CannotWriteError : the folder does not permit writing.
    """
    path = Path(path)
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, 'rb') as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):  # below a file there is nothing to take away
            temporary.unlink()
        if isinstance(error, OSError):
            raise as_ssl2_error(error, path) from error
        raise


def check_folder(path: Path, what: str = 'folder', *, advice: str = 'Check the path.') -> None:
    """Check that a folder that a person named is there.

    Parameters
    ----------
    what : kind of folder, for the message.

    Raises
    ------
    NoInputError : there is nothing, or a file.
    """
    if os.path.isdir(path):  # False for a name that no file can have
        return
    if os.path.exists(path):
        raise NoInputError(
            f'a file is not a {what}', advice=f'Give the folder, such as {path.parent}.', path=path
        )
    raise NoInputError(f'no such {what}', advice=advice, path=path)


def each_once(folders: Iterable[Path]) -> tuple[Path, ...]:
    """Folders without those that are one given before, by another path or a link, too."""
    found: dict[Path, Path] = {}
    for folder in folders:
        found.setdefault(folder.resolve(), folder)
    return tuple(found.values())


def remove_leftovers(folder: Path) -> None:
    """Take away temporary files directly in a folder whose writer was killed.

    These are files that did not change for an hour, by the clock of their file system. Processes
    are not asked: another container or another node has other process numbers.
    """
    found = list(folder.glob(f'{PREFIX}*'))
    if not found:
        return
    with suppress(OSError):
        probe = temporary_path(folder / 'clock')
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
        for path in found:
            with suppress(OSError):
                if now - path.stat().st_mtime > ABANDONED:
                    path.unlink()


def temporary_path(path: Path) -> Path:
    """A name beside ``path`` that no other process has, on any machine."""
    return path.with_name(f'{PREFIX}{secrets.token_hex(6)}-{path.name}')


def as_ssl2_error(error: OSError, path: str | Path) -> CannotWriteError | StorageError:
    """The ``Ssl2Error`` for an ``OSError`` while writing ``path``."""
    if error.errno in DENIED:
        return CannotWriteError(
            f'cannot be written ({error.strerror})',
            advice='Choose a folder that you may write to.',
            path=path,
        )
    if error.errno in IN_THE_WAY:
        parents = Path(path).parents
        return CannotWriteError(
            f'cannot be written ({error.strerror})',
            advice='Move away the file or folder that has this name.',
            path=next((str(one) for one in parents if one.is_file()), path),
        )
    if error.errno in NO_PATHS:
        return CannotWriteError(
            f'not a path that can be used ({error.strerror})', advice='Give another.', path=path
        )
    if error.errno in FULL:
        return StorageError(
            'the disk is full',
            advice='Free some space and run the same command again: finished work is kept.',
            path=path,
        )
    return StorageError(f'writing failed ({error})', path=path)


def storage_failure(error: Exception, path: str | Path) -> ReadError | None:
    """The ``ReadError`` for a failed attempt to read ``path``; None if the file is at fault."""
    if not isinstance(error, OSError) or error.errno not in NOT_READ:
        return None
    return ReadError(
        f'reading failed ({error.strerror})',
        advice='Run the same command again, and check the disk if this comes back.',
        path=path,
    )


def outside_failure(error: Exception, path: str | Path) -> ReadError | DeniedFileError | None:
    """:func:`storage_failure`, or the error for a file that may not be read."""
    if isinstance(error, OSError) and error.errno in DENIED:
        return DeniedFileError(f'cannot be read ({error.strerror})', advice=PERMISSIONS, path=path)
    return storage_failure(error, path)


def cannot_read(error: OSError, path: str | Path) -> NoInputError | ReadError:
    """The ``Ssl2Error`` for an ``OSError`` while reading ``path``."""
    if failed := storage_failure(error, path):
        return failed
    if error.errno in DENIED:
        return DeniedError(f'cannot be read ({error.strerror})', advice=PERMISSIONS, path=path)
    return NoInputError(f'cannot be read ({error.strerror})', path=path)


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Let an ``OSError`` of this context be one of reading ``path``, or the file that it names.

    Raises
    ------
    NoInputError, ReadError : see :func:`cannot_read`.
    """
    try:
        yield
    except OSError as error:
        raise cannot_read(error, error.filename or path) from None


def unforeseen(error: Exception) -> tuple[str, int]:
    """What a program prints of an error that nothing caught, and its exit code."""
    if isinstance(error, OSError) and error.errno in DENIED:
        denied = CannotWriteError(
            f'cannot be read or written ({error.strerror})',
            advice=PERMISSIONS,
            path=error.filename,
        )
        return f'error: {denied}', denied.exit_code
    if isinstance(error, OSError) and error.errno in (*FULL, *IN_THE_WAY, *NO_PATHS):
        known = as_ssl2_error(error, error.filename or '')
        return f'error: {known}', known.exit_code
    return (
        f'internal error: {type(error).__name__}: {error}. This is a bug in ssl2-bids',
        INTERNAL_ERROR,
    )


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all; half of a surrogate pair as its escape."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding='utf-8', errors='backslashreplace')


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON with an indent of two, keys in the order given, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + '\n')


def read_text(path: str | Path) -> str:
    """Text that a person or another program wrote: UTF-8, UTF-16 with its mark, else Latin-1.

    Any byte is a character of Latin-1, so that every file can be read; a warning names, once,
    each file that is not in UTF-8.

    Raises
    ------
    OSError : the file cannot be read.
    """
    content = Path(path).read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        with suppress(UnicodeDecodeError):
            text = content.decode('utf-16')
            _warn_of_encoding(str(path), 'UTF-16')
            return text
    try:
        return content.decode('utf-8-sig')
    except UnicodeDecodeError:
        _warn_of_encoding(str(path), 'Latin-1')
        return content.decode('latin-1')


def read_object(path: str | Path, **parsing: Any) -> dict[str, Any]:
    """The JSON object in a file, whoever wrote it.

    Parameters
    ----------
    parsing : options of :func:`json.loads`.

    Raises
    ------
    OSError : the file cannot be read.
    ValueError : it is not JSON, or no object.
    """
    try:
        content = json.loads(read_text(path), **parsing)
    except RecursionError:
        raise ValueError('nested too deeply') from None
    if not isinstance(content, dict):
        raise ValueError('not an object with keys')
    return content


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz`` file, by name.

    Raises
    ------
    NoInputError, ReadError : see :func:`cannot_read`.
    ValueError : it is damaged, or another kind of file.
    """
    import numpy as np

    with reading(path):
        content = Path(path).read_bytes()
    try:
        stored = np.load(io.BytesIO(content))
        if not isinstance(stored, np.lib.npyio.NpzFile):
            raise ValueError('a single array')
        return dict(stored)
    except (OSError, EOFError, KeyError, RuntimeError, BadZipFile, zlib.error) as error:
        raise ValueError(str(error)) from None


@cache
def _warn_of_encoding(path: str, encoding: str) -> None:
    log.warning(
        '%s: not in UTF-8, read as %s; save it in UTF-8 if names look wrong', path, encoding
    )


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, 'rb') as stream:
        return sha256_of(stream)


def sha256_of(stream: BinaryIO) -> str:
    """Hexadecimal SHA-256 of what is left to read of an open file."""
    digest = hashlib.sha256()
    while block := stream.read(2**20):
        digest.update(block)
    return digest.hexdigest()


def files_below(folder: Path, pattern: str, *, strict: bool = False) -> list[Path]:
    """Files below a folder by a pattern of their names, sorted.

    Links to folders are followed, each folder once; ``Path.rglob`` does not follow them.

    Parameters
    ----------
    strict : a folder that may not be read is an error; else it is passed over.

    Raises
    ------
    OSError : with ``strict``.
    """

    def failed(error: OSError) -> None:
        if strict and not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise error

    seen: set[str] = set()
    found: list[Path] = []
    for place, folders, names in os.walk(folder, onerror=failed, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [Path(place) / name for name in fnmatch.filter(names, pattern)]
    return sorted(found)


def listing(folder: Path, pattern: str) -> list[Path]:
    """What a folder has by a pattern of names, sorted; nothing where there is no such folder.

    ``Path.glob`` finds nothing in a folder that may not be read.

    Raises
    ------
    OSError : the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            names = fnmatch.filter([entry.name for entry in entries], pattern)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(folder / name for name in names)


def finished_files(folder: Path, pattern: str) -> list[Path]:
    """Files below a folder by a pattern of names, sorted, without those under way.

    What another process is writing has a name that begins with a dot until it is whole; so have
    the traces of file systems and of other programs (``._x``, ``.nfs0001``).
    """
    found = folder.glob(pattern)
    return sorted(
        p for p in found if not any(part[0] == '.' for part in p.relative_to(folder).parts)
    )


def finished_images(folder: Path) -> list[Path]:
    """NIfTI files of a folder, sorted, without those under way."""
    return sorted(path for end in ('*.nii', '*.nii.gz') for path in finished_files(folder, end))


def pointer_of(path: str | Path) -> str:
    """The command that downloads the content of a file that only points to it, or nothing.

    Pointers are small texts: those of Git LFS, and unlocked files of git-annex.
    """
    try:
        with open(path, 'rb') as stream:
            start = stream.read(24)
    except OSError:
        return ''
    if start.startswith(b'version https://git-lfs'):
        return 'git lfs pull'
    return 'datalad get .' if start.startswith(b'/annex/objects/') else ''
