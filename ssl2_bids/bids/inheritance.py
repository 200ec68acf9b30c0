"""The inheritance principle of BIDS: which JSON and TSV files apply to an image."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl2_bids.bids.absent import absent_content, is_absent
from ssl2_bids.errors import DataError
from ssl2_bids.files import outside_failure, read_object

_EXTENSION = re.compile(r'\.nii(\.gz)?$')


def stem(path: Path) -> str:
    """The name of an image without ``.nii`` or ``.nii.gz``."""
    return _EXTENSION.sub('', path.name)


def session_of_folder(relative: Path) -> str | None:
    """The session in whose folder a file lies, without ``ses-``; None where it lies in none.

    Parameters
    ----------
    relative : path of the file below its dataset.
    """
    folders = [part for part in relative.parts[:-1] if part.startswith('ses-')]
    return folders[-1].removeprefix('ses-') or None if folders else None


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def read_sidecar_text(path: Path, root: Path) -> dict[str, Any]:
    """A JSON object that belongs to an input of the dataset ``root``.

    Raises
    ------
    DataError : it is not readable JSON, no object, or a link without content.
    ReadError, DeniedFileError : the disk failed; the file may not be read.
    """
    if is_absent(path):
        raise absent_content(path, root)
    try:
        # Python and MATLAB write NaN and Infinity, which are no JSON: nothing is known there
        return read_object(path, parse_constant=lambda name: None, parse_float=_finite)
    except (ValueError, OSError) as error:
        if failed := outside_failure(error, path):
            raise failed from error
        raise DataError(
            f'not readable JSON ({error})', advice='Correct or remove the file.', path=path
        ) from None


@dataclass
class Inheritance:
    """The files of a dataset from which its images inherit; each is listed and read once.

    Attributes
    ----------
    root : the dataset.
    """

    root: Path
    _listings: dict[Path, list[Path]] = field(default_factory=dict)
    _contents: dict[Path, dict[str, Any] | DataError] = field(default_factory=dict)

    def files_for(self, image: Path, extension: str) -> list[Path]:
        """Files that apply to an image, the closest last; links without content among them."""
        own = stem(image).split('_')
        found = []
        for folder in self._folders_to(image):
            applicable = []
            for path in self._listing(folder):
                parts = path.stem.split('_')
                if path.suffix == extension and parts[-1] == own[-1] and set(parts) <= set(own):
                    applicable.append((len(parts), path))
            found += [path for _, path in sorted(applicable)]
        return found

    def metadata_for(self, image: Path) -> tuple[dict[str, Any], list[DataError]]:
        """The keys of all sidecars of an image, the closest wins; and those not readable."""
        metadata: dict[str, Any] = {}
        problems = []
        for path in self.files_for(image, '.json'):
            if path not in self._contents:
                try:
                    self._contents[path] = read_sidecar_text(path, self.root)
                except DataError as error:
                    self._contents[path] = error
            content = self._contents[path]
            if isinstance(content, DataError):
                problems.append(content)
            else:
                metadata |= content
        return metadata, problems

    def _folders_to(self, image: Path) -> list[Path]:
        below = image.parent.relative_to(self.root).parts
        return [self.root.joinpath(*below[:n]) for n in range(len(below) + 1)]

    def _listing(self, folder: Path) -> list[Path]:
        if folder not in self._listings:
            self._listings[folder] = [
                path for path in folder.iterdir() if path.suffix in ('.json', '.tsv')
            ]
        return self._listings[folder]
