"""Folders of participants and sessions that are not named as in BIDS."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from ssl2_bids.bids.dataset import is_label

log = logging.getLogger('ssl2_bids')


def warn_of_labels(units: list[tuple[str, str | None]]) -> None:
    """Warn of labels that other programs cannot read: the results have the same ones."""
    names = [f'sub-{p}' for p, _ in units if not is_label(p)]
    names += [f'sub-{p}/ses-{s}' for p, s in units if s and not is_label(s)]
    if names:
        log.warning(
            '%s: BIDS allows only letters and digits in labels. Other programs may not read the '
            'results; rename the folder and its files in the dataset.',
            _some([f'"{name}"' for name in names]),
        )  # fmt: skip


def warn_of_folders(bids_dir: Path, participants: list[str]) -> None:
    """Warn of folders with images in ``anat`` whose names hide them.

    These are folders beside those of the participants that begin with "sub" in any case, and
    folders of participants that are no ``ses-LABEL``.
    """
    near = [path for path in bids_dir.glob('[sS][uU][bB]*') if not re.match('sub-.', path.name)]
    _warn(
        [path for path in sorted(near) if _has_images(path) or any(map(_has_images, _in(path)))],
        'participant', 'sub-LABEL, for example sub-01', 'sub-01_T1w.nii.gz',
    )  # fmt: skip
    inner = [path for p in participants for path in _in(bids_dir / f'sub-{p}')]
    _warn(
        [path for path in inner if not re.match('ses-.', path.name) and _has_images(path)],
        'session', 'ses-LABEL, for example ses-01', 'sub-X_ses-01_T1w.nii.gz',
    )  # fmt: skip


def _warn(wrong: list[Path], kind: str, right: str, example: str) -> None:
    if wrong:
        log.warning(
            '%s: left out: the name of a %s folder is %s. Rename the folder and its files (%s).',
            _some([f'{path}' for path in wrong]), kind, right, example,
        )  # fmt: skip


def _in(folder: Path) -> list[Path]:
    return sorted(anat.parent for anat in folder.glob('*/anat'))


def _has_images(folder: Path) -> bool:
    return any((folder / 'anat').glob('*.nii*'))


def _some(names: list[str]) -> str:
    unique = list(dict.fromkeys(names))
    more = f' and {len(unique) - 4} more' if len(unique) > 4 else ''
    return ', '.join(unique[:4]) + more
