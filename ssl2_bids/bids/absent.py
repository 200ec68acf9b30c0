"""Files that a dataset knows and whose content was not downloaded: how to get them.

git-annex (DataLad) keeps a link without target or a small text, Git LFS a small text.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ssl2_bids.errors import NoInputError
from ssl2_bids.volume import pointer_of

NAMED = 4  # paths of a command; more are named by their folders


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
    if all(pointer_of(path) == 'git lfs pull' for path in found):
        command = 'git lfs pull'
    else:
        names = [_below(path, root) for path in found]
        if len(names) > NAMED:
            names = sorted({Path(name).parent.as_posix() for name in names})
        if len(names) > NAMED:
            levels = {'ses-' in name for name in names}
            names = ['sub-*/ses-*/*'] * (True in levels) + ['sub-*/*'] * (False in levels)
        command = f'datalad get {" ".join(names)}'
    are = 'files is' if len(found) > 1 else 'file is'
    return f'The content of {len(found)} {are} absent; in {root}: {command}'


def is_absent(path: Path) -> bool:
    """Whether a file is a link without content."""
    return path.is_symlink() and not path.exists()


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
