"""Brain masks that a person gives: found by name, accepted by the grid they lie on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ssl2_bids.errors import DataError
from ssl2_bids.raw_grid import RawGrid, read_raw_grid
from ssl2_bids.volume import describe_grid, same_grid

NAME = re.compile(
    r'sub-(?P<subject>[^_]+)(?:_ses-(?P<session>[^_]+))?(?:_[a-z]+-[^_]+)*_desc-brain_mask'
    r'\.nii(?:\.gz)?'
)


@dataclass(frozen=True)
class GivenMask:
    """A brain mask and the contrast of the session on whose grid it lies."""

    path: Path
    contrast: str


def brain_masks_of(folder: Path, subject: str, session: str | None) -> list[Path]:
    """The brain masks of a session in a derivative dataset or another folder, sorted by name.

    Where there is none of a session, those of the participant without a session are taken, as
    fMRIPrep writes them for several sessions.

    Parameters
    ----------
    folder : searched for ``sub-*[_ses-*][_space-*]_desc-brain_mask.nii[.gz]``, in itself and in
        ``sub-*`` below it.
    """
    own = folder / f'sub-{subject}'
    found = [*folder.glob(f'sub-{subject}_*.nii*')]
    found += own.rglob(f'sub-{subject}_*.nii*') if own.is_dir() else []
    named = [(path, NAME.fullmatch(path.name)) for path in sorted(found)]
    masks = [(path, match['session']) for path, match in named if match]
    asked = [path for path, of in masks if of == session]
    return asked or [path for path, of in masks if of is None]


def given_brain_mask(
    folder: Path, subject: str, session: str | None, images: Mapping[str, Path]
) -> GivenMask | None:
    """The brain mask of a session that lies on the grid of one of its images.

    Parameters
    ----------
    images : raw image of each contrast, the reference first: the first that fits counts.

    Returns
    -------
    None where there is no mask of the session.

    Raises
    ------
    DataError : there are masks, but on other grids; or a mask cannot be read.
    """
    masks = brain_masks_of(folder, subject, session)
    grids: list[tuple[Path, RawGrid]] = []
    for path in masks:
        if path.is_symlink() and not path.exists():
            raise DataError('its content is absent; run "datalad get" on it', path=path)
        grids.append((path, read_raw_grid(path)))
    for contrast, image in images.items():
        own = read_raw_grid(image)
        for path, grid in grids:
            if same_grid(grid, own):
                return GivenMask(path, contrast)
    if not masks:
        return None
    reference = next(iter(images))
    own = read_raw_grid(images[reference])
    raise DataError(
        'the brain mask lies on the grid of none of the images: it has '
        f'{describe_grid(grids[0][1])}, and {reference} has {describe_grid(own)}',
        advice=f'Resample it to the raw {reference} image, or leave it out of --brain-mask.',
        path=masks[0],
    )
