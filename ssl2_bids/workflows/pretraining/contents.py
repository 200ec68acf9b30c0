"""The sources of a prepared dataset, by content: a replaced image is prepared again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl2_bids.errors import DataError
from ssl2_bids.files import read_object, write_json
from ssl2_bids.training.checkpoint import fingerprint

if TYPE_CHECKING:
    from ssl2_bids.bids.inputs import Session
    from ssl2_bids.bids.labels import Label
    from ssl2_bids.training.pretraining.config import Data

CONTENTS = 'contents.json'
PREPARATION = 6  # increased when other values come of the same files
Digest = Callable[[Path], str]


def read_kept(path: Path) -> dict[str, Any]:
    """The content of a JSON file of a prepared dataset.

    Raises
    ------
    DataError : it cannot be read.
    """
    try:
        return read_object(path)
    except (OSError, ValueError) as error:
        raise DataError(
            f'not readable JSON ({error})',
            advice='Remove the prepared dataset, and prepare it again.',
            path=path,
        ) from None


class Contents:
    """The keys of the files of a prepared dataset, and why others were left out.

    Written after each file, so that an interrupted preparation resumes.

    Parameters
    ----------
    ready : file that exists once all of the folder is prepared; removed before any change.
    """

    def __init__(self, folder: Path, ready: Path):
        self.path = folder / CONTENTS
        self.ready = ready
        self.known = self.path.is_file()
        self.files: dict[str, dict[str, str]] = {}
        if self.known:
            self.files = read_kept(self.path)
            for name, entry in self.files.items():
                if not isinstance(entry, dict) or not isinstance(entry.get('Key'), str):
                    raise DataError(
                        f'the entry {name!r} has no "Key"',
                        advice='Copy the prepared dataset again, or prepare it again.',
                        path=self.path,
                    )

    def has(self, name: str, key: str) -> bool:
        """Whether a file was made from just this, or left out for it."""
        return self.files.get(name, {}).get('Key') == key

    def reason(self, name: str) -> str:
        """Why a file was left out; empty for one that was made."""
        return self.files.get(name, {}).get('LeftOut', '')

    def parts(self, name: str) -> list[str]:
        """The folders that have a file of this name, where these were written down."""
        return self.files.get(name, {}).get('Parts', '').split()

    def lists(self, name: str, part: str) -> bool:
        """Whether a file of this name belongs into a folder, as far as it was written down."""
        entry = self.files.get(name)
        return entry is not None and ('Parts' not in entry or part in self.parts(name))

    def keep(
        self, name: str, key: str, *, left_out: str = '', parts: Collection[str] | None = None
    ) -> None:
        """Write down what a file was made from, or why there is none.

        Parameters
        ----------
        parts : folders that have a file of this name, where it can be in several or in none.
        """
        self.files[name] = (
            {'Key': key}
            | ({'LeftOut': left_out} if left_out else {})
            | ({'Parts': ' '.join(parts)} if parts is not None else {})
        )
        write_json(self.path, dict(sorted(self.files.items())))

    def forget(self, name: str) -> None:
        """A file is about to change: until all are prepared, the folder is not ready."""
        self.ready.unlink(missing_ok=True)
        if self.files.pop(name, None) is not None:
            write_json(self.path, self.files)

    def others(self, start: str, names: Collection[str]) -> list[str]:
        """Names that begin with ``start`` and are not among ``names``: their sources are gone."""
        return [name for name in self.files if name.startswith(start) and name not in names]


def heads_key(data: Data, files: Sequence[Path], digest: Digest) -> str:
    """All that decides the heads: their sources, who is left out, how heads are made of them.

    Heads that others prepared are taken as they are: how they are made does not count.

    Raises
    ------
    OSError : a file cannot be read.
    """
    made = [PREPARATION] if files and not data.heads else []
    sources = [(path.name, digest(path)) for path in files]
    held_out = tuple(label.removeprefix('sub-') for label in data.hold_out)
    return fingerprint([sources, held_out, data.validation, *made])


def session_key(session: Session, labels: Sequence[Label], strip: str, digest: Digest) -> str:
    """All that decides a prepared scan: images, metadata that are used, labels, options.

    Raises
    ------
    OSError : a file cannot be read.
    """
    images = {c: [digest(p) for p in scan.sources] for c, scan in session.scans.items()}
    used = {
        c: [scan.metadata.get('SkullStripped'), scan.field_strength]
        for c, scan in session.scans.items()
    }
    drawn: list[Any] = [
        [
            digest(one.path),
            one.extent_path and digest(one.extent_path),
            one.sidecar,
            one.dseg_table,
            one.image,
            one.desc,
        ]
        for one in labels
    ]
    return fingerprint([PREPARATION, images, used, session.reference, strip, drawn])
