"""What a person can cause: one exception class per exit code, each with advice.

The numbers are those of the BIDS Apps execution specification (16 to 18, 64 to 75); the
docstrings below are the text of ``docs/reference/exit-codes.md``.
"""

from __future__ import annotations

import errno
import inspect
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NO_MEMORY = ('allocate memory', 'bad_alloc')  # of what torch and ITK write
SUCCESS = 0
SOME_FAILED = 1
ENDING = (  # signals that ask for an end; SIGUSR2 and SIGXCPU are those of some job queues
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
)


def heard_signals() -> tuple[signal.Signals, ...]:
    """Those of ``ENDING``, without a SIGHUP that nohup lets this process ignore.

    An ignored SIGINT is heard: a shell without job control ignores it for all that it starts in
    the background, whoever sends it.
    """
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return tuple(n for n in ENDING if not (ignored and n == signal.SIGHUP))


class Ssl2Error(Exception):
    """Base of all errors that a user can correct.

    Parameters
    ----------
    message : what is wrong, in plain words, without a final full stop.
    advice : what to do about it, one sentence.
    path : the file or folder it is about.
    """

    exit_code = 70

    def __init__(self, message: str, *, advice: str = '', path: str | Path | None = None):
        super().__init__(message)
        self.message = message
        self.advice = advice
        self.path = str(path) if path is not None else ''

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.advice, self.path)

    def __str__(self) -> str:
        text = f'{self.path}: {self.message}' if self.path else self.message
        text = text.rstrip('.') + '.'
        return f'{text} {self.advice}' if self.advice else text


def _rebuild(kind: type[Ssl2Error], message: str, advice: str, path: str) -> Ssl2Error:
    return kind(message, advice=advice, path=path or None)


def lacks_memory(error: BaseException) -> bool:
    """Whether an error, of torch, ITK or a file that is mapped, means too little memory."""
    full = isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)
    mapped = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return full or mapped or isinstance(error, MemoryError)


@contextmanager
def about(path: str | Path) -> Iterator[None]:
    """Let errors of this context that name no file name this one."""
    try:
        yield
    except Ssl2Error as error:
        error.path = error.path or str(path)
        raise


def exit_codes() -> dict[int, str]:
    """The meaning of each exit code, from the classes of this module and the signals."""
    found = {
        SUCCESS: 'No participant failed: all are finished, now or in an earlier run. A session '
        'without the contrasts that the model or `--reference` needs was skipped, with a line (66 '
        'if all were).',
        SOME_FAILED: 'Some participants failed, or all did; see the last lines and `sub-*.html`. '
        'If all failed with one of the codes 65, 66, 69 and 75, the run ends with that code, and '
        'with 73 or 74 at any of them with that one.',
        Ssl2Error.exit_code: 'Internal error: a bug in ssl2-bids.',
    }
    for kind in Ssl2Error.__subclasses__():
        found[kind.exit_code] = ' '.join((inspect.getdoc(kind) or '').split())
    for number in ENDING:
        found[128 + number] = f'Interrupted by {number.name}.'
    return dict(sorted(found.items()))


class NotBidsError(Ssl2Error):
    """The input folder is not a BIDS dataset."""

    exit_code = 16


class UnknownLevelError(Ssl2Error):
    """The analysis level is neither participant nor group."""

    exit_code = 17


class NothingSelectedError(Ssl2Error):
    """Labels or filters select nothing that can be used."""

    exit_code = 18


class UsageError(Ssl2Error):
    """The command line contradicts itself or has an impossible value.

    Also: the output folder is the dataset, or lies inside it other than below `derivatives/`.
    """

    exit_code = 64


class DataError(Ssl2Error):
    """A file is there but cannot be used.

    Of images: none can be used in every selected session.
    """

    exit_code = 65


class NoInputError(Ssl2Error):
    """Something needed is missing.

    The dataset; images that can be segmented, in every session; at group level, results of the
    participant level.
    """

    exit_code = 66


class DeniedError(NoInputError):
    """A file or folder is there and may not be read."""


class DeniedFileError(DeniedError, DataError):
    """A file may not be read; it is passed over where a damaged one would be."""


class UnavailableError(Ssl2Error):
    """The requested device, model or output space is not available."""

    exit_code = 69


class CannotWriteError(Ssl2Error):
    """The output or work folder cannot be written."""

    exit_code = 73


class StorageError(Ssl2Error):
    """The disk is full, or reading from it failed."""

    exit_code = 74


class ReadError(StorageError, DataError):
    """Reading a file failed for a reason that is not in the file: the disk or the network."""


class BusyError(Ssl2Error):
    """Another run holds the output folder (group) or the session in the work folder."""

    exit_code = 75


WRITING = frozenset((CannotWriteError.exit_code, StorageError.exit_code))
