"""Values of options: from the words of a command line to numbers and labels."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Collection
from pathlib import Path

from ssl2_bids.bids.dataset import is_label
from ssl2_bids.errors import NothingSelectedError, UsageError
from ssl2_bids.files import NO_PATHS, read_text, reading

LEAST_MEMORY = 0.1  # GB
RESERVED = ('raw', 'brainmasks')  # names of other datasets in BIDS URIs


def strip_prefix(
    labels: list[str] | None, prefix: str, known: Collection[str] = ()
) -> tuple[str, ...] | None:
    """Labels without ``sub-`` or ``ses-``; a single existing file is read, one label a line.

    A slash at the end, of a folder that the shell has completed, counts as nothing.

    Parameters
    ----------
    known : labels of the dataset. These are taken as they are, although a file has the same name
        or BIDS does not permit such a label.

    Raises
    ------
    NothingSelectedError : the file has no label.
    NoInputError : the file may not be read.
    UsageError : a label that is not known has other characters than letters, digits and "+".
    """
    if not labels:
        return None
    named = [_bare(label, prefix) for label in labels]
    if is_list(labels, prefix, known):
        path = Path(labels[0])
        named = []
        with reading(path):
            text = read_text(path)
        for line in text.splitlines():
            whole = _bare(line.strip(), prefix)
            words = [_bare(word, prefix) for word in line.split()]
            named += [whole] if whole in known else words
        if not named:
            raise NothingSelectedError('the file has no label', path=path)
    unique = dict.fromkeys(named)
    for label in unique:
        if label not in known and not is_label(label):
            raise UsageError(
                f'"{label}" is not a BIDS label', advice='Labels have letters and digits only.'
            )
    return tuple(unique)


def is_list(labels: list[str], prefix: str, known: Collection[str]) -> bool:
    """Whether the words of an option are a single file with labels; see :func:`strip_prefix`."""
    named = _bare(labels[0], prefix)
    return len(labels) == 1 and named not in known and os.path.isfile(labels[0])


def _bare(word: str, prefix: str) -> str:
    return word.rstrip('/').removeprefix(f'{prefix}-')


def label_of_results(text: str) -> str:
    """The label of a model in names of results, without ``desc-``; empty for ``default``."""
    label = text.removeprefix('desc-')
    return '' if label == 'default' else label


def datasets(words: list[str] | None) -> dict[str, Path]:
    """Folders by name, from ``NAME=PATH`` or ``PATH``, which is named by its folder.

    Raises
    ------
    UsageError : a name is given twice, is reserved, or has other characters than BIDS URIs allow.
    """
    found: dict[str, Path] = {}
    for word in words or ():
        name, sign, rest = word.partition('=')
        if sign and not rest:
            raise UsageError(
                f'-d {word} names no folder',
                advice='Is a variable of the shell not set? "." is this folder.',
            )
        path = absolute(Path(rest if sign and '/' not in name else word))
        name = name if sign and '/' not in name else path.name
        advice = 'Give another name: -d NAME=PATH.'
        if not re.fullmatch('[0-9A-Za-z][0-9A-Za-z_.+-]*', name):
            raise UsageError(
                f'-d {word}: "{name}" is not a name of a dataset (letters, digits, "-", "_", ".")',
                advice=advice,
            )
        if name in RESERVED:
            raise UsageError(f'-d {word}: the name "{name}" is reserved', advice=advice)
        if name in found:
            raise UsageError(f'-d {word}: there is another dataset "{name}"', advice=advice)
        found[name] = path
    return found


def absolute(path: Path) -> Path:
    """An absolute path; ``~`` is the home folder, links stay.

    Raises
    ------
    UsageError : no file can have this name, or links lead round in a circle.
    """
    found = os.path.abspath(os.path.expanduser(path))
    try:
        found.encode()
        os.stat(found)
    except UnicodeEncodeError:
        raise UsageError('the path is not in UTF-8', advice='Rename it.', path=found) from None
    except ValueError as error:
        raise UsageError(f'not a path ({error})', path=repr(found)) from None
    except OSError as error:
        if error.errno in NO_PATHS:
            raise UsageError(
                f'not a path that can be used ({error.strerror})',
                advice='Give another.',
                path=found,
            ) from None
    return Path(found)


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'"{text}" is not a number') from None


def open_unit(text: str) -> float:
    value = number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f'{text} is not between 0 and 1')
    return value


def overlap(text: str) -> float:
    value = number(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f'{text} is not at least 0 and below 1')
    return value


def positive(text: str) -> float:
    value = number(text)
    if not 0 < value < float('inf'):
        raise argparse.ArgumentTypeError(f'{text} is not a finite number above 0')
    return value


def not_negative(text: str) -> float:
    value = number(text)
    if not 0 <= value < float('inf'):
        raise argparse.ArgumentTypeError(f'{text} is not a finite number from 0 on')
    return value


def positive_int(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'"{text}" is not a whole number above 0')
    return int(text)


def seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f'"{text}" is not a whole number from 0 to 2147483647')
    return int(text)


def model_label(text: str) -> str:
    if not re.fullmatch('[0-9A-Za-z]+', text):
        raise argparse.ArgumentTypeError(f'"{text}" has other characters than letters and digits')
    return text


def folds(text: str) -> int | str:
    if text == 'slices':
        return text
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f'"{text}" is neither a number from 2 on nor "slices"')
    return int(text)


def device(text: str) -> str:
    if not re.fullmatch(r'auto|cpu|cuda(:\d+)?', text):
        raise argparse.ArgumentTypeError(f'"{text}" is not one of auto, cpu, cuda, cuda:N')
    return text


def memory(text: str, bare: float) -> float:
    """Memory in GB; ``bare`` is the size of a number without suffix, in GB."""
    match = re.fullmatch(r'(\d+(?:\.\d+)?)([KMGT]?)B?', text.strip().upper())
    if not match or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f'"{text}" is not an amount of memory such as 8000 or 8G')
    scale = {'': bare, 'K': 1e-6, 'M': 1e-3, 'G': 1.0, 'T': 1e3}[match[2]]
    gigabytes = float(match[1]) * scale
    if gigabytes < LEAST_MEMORY:
        raise argparse.ArgumentTypeError(
            f'"{text}" is {gigabytes * 1e3:g} MB, and a stage takes 1 to 3 GB; a number alone is '
            'in MB for --mem, so give 8000 or 8G'
        )
    return gigabytes


def memory_mb(text: str) -> float:
    return memory(text, 1e-3)


def memory_gb(text: str) -> float:
    return memory(text, 1.0)
