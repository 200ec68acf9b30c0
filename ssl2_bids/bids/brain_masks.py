"""Brain masks that a person gives: found by name, accepted by the grid they lie on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ssl2_bids.bids.absent import absent_content, is_absent
from ssl2_bids.bids.dataset import warn_once
from ssl2_bids.bids.image_names import is_native
from ssl2_bids.bids.inheritance import session_of_folder
from ssl2_bids.bids.provenance import BRAIN_MASKS
from ssl2_bids.errors import DataError, ReadError
from ssl2_bids.files import files_below, listing, pointer_of
from ssl2_bids.raw_grid import RawGrid, read_raw_grid, upright
from ssl2_bids.voxel_grid import describe_grid, same_grid

NAME = re.compile(
    r'sub-(?P<subject>[^_]+)(?:_ses-(?P<session>[^_]+))?(?:_(?!task-|space-)[a-z]+-[^_]+)*'
    r'(?:_space-(?P<space>[^_]+))?(?:_(?!task-|space-)[a-z]+-[^_]+)*_desc-brain_mask\.nii(?:\.gz)?'
)
SHOWN_NAME = 'sub-*[_ses-*][_space-*]_desc-brain_mask.nii[.gz]'
LIKE_A_MASK = re.compile('mask', re.IGNORECASE)
OF_OTHERS = ('func', 'fmap', 'dwi', 'perf', 'pet')  # folders with masks of other images


@dataclass(frozen=True)
class GivenMask:
    """A brain mask and the contrast of the session on whose grid it lies.

    Attributes
    ----------
    root, dataset : the folder that it was found in, and the name of that in BIDS URIs.
    """

    path: Path
    contrast: str
    root: Path
    dataset: str


def brain_masks_of(folder: Path, subject: str, session: str | None) -> list[Path]:
    """The brain masks of a session in a derivative dataset or another folder, sorted by name.

    Those in the space of a template are left out, and those of functional images. The session of
    a mask is that of its name, else that of its folder; one of two sessions is left out with a
    warning. Where there is none of a session, those of the participant without a session are
    taken, as fMRIPrep writes them for several sessions.

    Parameters
    ----------
    folder : searched for ``sub-*[_ses-*][_space-*]_desc-brain_mask.nii[.gz]``, in itself and in
        ``sub-*`` below it.

    Raises
    ------
    OSError : one of these folders may not be read.
    """
    own = folder / f'sub-{subject}'
    found = listing(folder, f'sub-{subject}_*.nii*')
    found += files_below(own, f'sub-{subject}_*.nii*', strict=True)
    found = [path for path in found if path.parent.name not in OF_OTHERS]
    masks: dict[str | None, list[Path]] = {}
    for path in sorted(found):
        match = NAME.fullmatch(path.name)
        if match is None or not is_native({'space': match['space']}):
            continue
        around = session_of_folder(path.relative_to(folder))
        if around and match['session'] and around != match['session']:
            warn_once(
                f'{path}: left out: it is named after ses-{match["session"]}, but lies in the '
                f'folder ses-{around}'
            )
            continue
        masks.setdefault(match['session'] or around, []).append(path)
    return masks.get(session) or masks.get(None, [])


def given_brain_mask(
    folder: Path,
    subject: str,
    session: str | None,
    images: Mapping[str, Path],
    *,
    dataset: str = BRAIN_MASKS,
    within: Mapping[str, str] | None = None,
) -> GivenMask | None:
    """The brain mask of a session that lies on the grid of one of its images.

    Parameters
    ----------
    dataset : name of the folder in BIDS URIs; those of ``-d`` have a name of their own.
    within : images that lie in the space of all sessions, with their dataset. A mask of ``-d``
        that is not of the session lies in that space too, whatever grid it has.
    images : raw image of each contrast, the reference first: the first that fits counts.

    Returns
    -------
    None where there is no mask of the session.

    Raises
    ------
    DataError : there are masks, but on other grids; or a mask cannot be read.
    OSError : a folder may not be read.
    """
    masks = brain_masks_of(folder, subject, session)
    fits = images
    if dataset != BRAIN_MASKS and masks and session and not _of_session(masks[0], folder):
        fits = {c: path for c, path in images.items() if (within or {}).get(c) == dataset}
        if not fits:
            return None
    option = '--brain-mask' if dataset == BRAIN_MASKS else f'-d {dataset}'
    grids: list[tuple[Path, RawGrid]] = []
    for path in masks:
        if is_absent(path) or pointer_of(path):
            raise absent_content(path, folder)
        try:
            grids.append((path, read_raw_grid(path)))
        except ReadError:
            raise
        except DataError as error:
            advice = f'Give a NIfTI mask on the grid of an image, or leave it out of {option}.'
            raise DataError(error.message, advice=advice, path=path) from None
    owns = {contrast: read_raw_grid(image) for contrast, image in fits.items()}
    # the very grid of one image counts before the reordered grid of another
    for reordered in (False, True):
        for contrast, own in owns.items():
            on_it = [
                path
                for path, grid in grids
                if same_grid(*((upright(grid), upright(own)) if reordered else (grid, own)))
            ]
            if on_it:  # runs share their grid, and the head has moved between them
                image_name = fits[contrast].name
                best = min(on_it, key=lambda path: _contradictions(path.name, image_name))
                return GivenMask(best, contrast, folder, dataset)
    if not masks:
        return None
    reference, image = next(iter(fits.items()))
    raise DataError(
        'the brain mask lies on the grid of none of the images: it has '
        f'{describe_grid(grids[0][1])}, and {reference} has {describe_grid(owns[reference])}',
        advice=f'Resample it to {image.name}, or leave it out of {option}.',
        path=masks[0],
    )


def _of_session(mask: Path, folder: Path) -> bool:
    """Whether a mask is one of a session, by its name or by its folder."""
    relative = mask.relative_to(folder)
    return '_ses-' in mask.name or session_of_folder(relative) is not None


def _contradictions(mask: str, image: str) -> int:
    """How many entities of acquisition both names have, with different values."""
    pattern = re.compile(r'_(acq|ce|rec|run|echo)-([0-9a-zA-Z]+)')
    one, other = dict(pattern.findall(mask)), dict(pattern.findall(image))
    return sum(one[key].lstrip('0') != other[key].lstrip('0') for key in one.keys() & other)


def unlike_masks(folder: Path, subject: str) -> list[Path]:
    """Files of a participant that seem to be brain masks and are named otherwise.

    Parameters
    ----------
    folder : that of ``--brain-mask``.
    """
    found = [*folder.glob(f'sub-{subject}_*.nii*')]
    found += files_below(folder / f'sub-{subject}', '*.nii*')
    return sorted(
        path
        for path in found
        if LIKE_A_MASK.search(path.name)
        and NAME.fullmatch(path.name) is None
        and path.parent.name not in OF_OTHERS
    )
