"""Files that a dataset knows and whose content was not downloaded: how to get them.

git-annex (DataLad) keeps a link without target or a small text, Git LFS a small text.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from ssl2_bids.errors import DataError, NoInputError
from ssl2_bids.files import pointer_of

ABSENT = 'its content is absent'
NAMED = 4  # paths of a command; more are named by their folders
AT_ROOT = 12  # files beside the folders of the participants; more are named by their endings


class AbsentResultsError(NoInputError):
    """Results of an earlier run are known and their content was not downloaded."""


def how_to_get(root: Path, paths: Iterable[Path]) -> str:
    """A sentence with the command that downloads the content of files; empty without files.

    Parameters
    ----------
    root : of the dataset, where the command is run.
    """
    found = sorted(set(paths))
    if not found:
        return ''
    are = 'files is' if len(found) > 1 else 'file is'
    return f'The content of {len(found)} {are} absent; {_where_and_what(root, found)}'


def how_to_get_each(roots: Sequence[Path], paths: Iterable[Path]) -> str:
    """As :func:`how_to_get`, for files of several datasets, of which some may lie in others."""
    by_root: dict[Path, list[Path]] = {}
    for path in paths:
        around = [root for root in roots if path.is_relative_to(root)] or [roots[0]]
        by_root.setdefault(max(around, key=lambda root: len(root.parts)), []).append(path)
    return ' '.join(f'{how_to_get(root, found)}.' for root, found in by_root.items()).rstrip('.')


def absent_content(path: Path, root: Path, advice: str = '') -> DataError:
    """The error of a file whose content is absent, with the command that downloads it.

    Where more of its folder is absent, the command is for the folder: of a fresh clone not one
    file after another is asked for. In place of the whole dataset the files beside it are named.

    Parameters
    ----------
    root : of its dataset.
    advice : what else may be done.
    """
    beside = [other for other in path.parent.iterdir() if is_absent(other) and other != path]
    wanted = [path]
    if beside:
        wanted = sorted([path, *beside]) if path.parent == root else [path.parent]
    command = _where_and_what(root, wanted)
    return DataError(ABSENT, advice=f'Get it {command}. {advice}'.strip(), path=path)


def is_absent(path: Path) -> bool:
    """Whether a file is a link without content."""
    return path.is_symlink() and not path.exists()


def _where_and_what(root: Path, found: list[Path]) -> str:
    other = [path for path in found if pointer_of(path) != 'git lfs pull']
    commands = ['git lfs pull'] if len(other) < len(found) else []
    if other:
        commands.append(f'datalad get {" ".join(_names(root, other))}')
    return f'in {root}: "{" && ".join(commands)}"'


def _names(root: Path, paths: list[Path]) -> list[str]:
    """Words for a command: few paths, else their folders; never the dataset as a whole."""
    names = [_below(path, root) for path in paths]
    if len(names) <= NAMED:
        return [shlex.quote(name) for name in names]
    at_root = [shlex.quote(name) for name in names if '/' not in name]
    if len(at_root) > AT_ROOT:
        endings = {name: ''.join(Path(name).suffixes) for name in names if '/' not in name}
        words = [f'*{end}' if end else shlex.quote(name) for name, end in endings.items()]
        at_root = sorted(set(words))
    folders = sorted({Path(name).parent.as_posix() for name in names if '/' in name})
    if len(folders) <= NAMED:
        return [*at_root, *(shlex.quote(folder) for folder in folders)]
    people = [folder for folder in folders if folder.startswith('sub-')]
    levels = {'ses-' in folder for folder in people}
    wild = ['sub-*/ses-*/*'] * (True in levels) + ['sub-*/*'] * (False in levels)
    return [*at_root, *wild, *(shlex.quote(one) for one in folders if one not in people)]


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
