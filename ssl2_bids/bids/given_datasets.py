"""Results of other programs that a run takes (``-d NAME=PATH``): which files, of whom, from where.

Names are those that fMRIPrep and sMRIPrep write. A session has files of its own, else those of its
participant without a session: there fMRIPrep puts the anatomy of several sessions, which lies in a
space of its own, neither session's (within-subject).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl2_bids.bids import image_names
from ssl2_bids.bids.absent import absent_content
from ssl2_bids.bids.brain_masks import brain_masks_of
from ssl2_bids.bids.dataset import makers_of, participant_labels, read_description, warn_once
from ssl2_bids.bids.inheritance import Inheritance
from ssl2_bids.bids.provenance import bids_uri
from ssl2_bids.errors import DataError, NoInputError, ReadError, UsageError
from ssl2_bids.files import check_folder, listing, reading
from ssl2_bids.wording import uncited

TAKEN = {'T1w': 'preproc', 'UNIT1': 'denoised', 'TB1map': None}  # by suffix, the desc-
FOLDERS = {'T1w': ('anat',), 'UNIT1': ('anat',), 'TB1map': ('fmap', 'anat')}


def check_datasets(datasets: Mapping[str, Path], bids_dir: Path, output_dir: Path) -> None:
    """Check the folders of ``-d``, by name.

    Raises
    ------
    NoInputError : a folder is missing, may not be read, or has no ``sub-*`` folder.
    UsageError : a folder is the dataset itself or the output folder.
    """
    for name, root in datasets.items():
        check_folder(root, f'folder of derivatives ({name})')
        for other, what in ((bids_dir, 'the dataset itself'), (output_dir, 'the output folder')):
            if root.resolve() == other.resolve():
                raise UsageError(
                    f'the folder of derivatives ({name}) is {what}',
                    advice='Give the output folder of another program, such as fMRIPrep.',
                    path=root,
                )
        with reading(root):
            empty = not participant_labels(root)
            below = sorted(p for p in root.iterdir() if p.is_dir()) if empty else []
        if empty:
            below = [p for p in below if os.access(p, os.R_OK | os.X_OK) and participant_labels(p)]
            raise NoInputError(
                f'the folder of derivatives ({name}) has no sub-* folder',
                advice=f'Give {below[0]}.' if below else 'Check the path.',
                path=root,
            )
        if not read_description(root):
            warn_once(f'{root}: dataset_description.json is missing or cannot be read')


def program_of(root: Path) -> str:
    """The program that made a dataset, with its version; the folder's name where it is unknown."""
    first = next(iter(makers_of(root)), {})
    if not isinstance(first.get('Name'), str):
        return uncited(root.name)
    return uncited(f'{first["Name"]} {first.get("Version", "")}'.strip())


class GivenFileError(DataError):
    """A file of ``-d`` or ``--brain-mask`` cannot be used."""


def given_file_error(error: DataError) -> DataError:
    """An error as one of a file that was given, where the file is at fault."""
    if isinstance(error, ReadError):
        return error
    return GivenFileError(error.message, advice=error.advice, path=error.path)


def shown_name(path: Path, datasets: Mapping[str, Path], bids_dir: Path) -> str:
    """A file of the raw dataset relative to it, one of another dataset as its BIDS URI."""
    around = {name: root for name, root in datasets.items() if path.is_relative_to(root)}
    if path.is_relative_to(bids_dir):  # one may lie in the other
        around = {n: root for n, root in around.items() if root.is_relative_to(bids_dir)}
    if not around:
        return path.relative_to(bids_dir).as_posix()
    name = max(around, key=lambda name: len(around[name].parts))
    return bids_uri(path, around[name], name)


def files_at(
    root: Path,
    subject: str,
    session: str | None,
    pattern: str,
    *,
    folder: str = 'anat',
    wanted: Callable[[Path], bool] = lambda path: True,
) -> tuple[list[Path], bool]:
    """Files of a session in a dataset, sorted, else those of its participant without session.

    A file of another participant in the folder is left out with a warning.

    Parameters
    ----------
    pattern, wanted : which files of the folder.

    Returns
    -------
    The files, and whether they are those of a participant whose session was asked for.
    """
    own = root / f'sub-{subject}'
    levels: list[tuple[Path, str | None]] = [(own / folder, None)]
    if session is not None:
        levels.insert(0, (own / f'ses-{session}' / folder, session))
    for place, label in levels:
        found = []
        for path in listing(place, pattern):
            name = re.fullmatch(r'sub-([^_]+)(?:_ses-([^_]+))?_.+', path.name)
            if name is None or (name[1], name[2]) != (subject, label):
                warn_once(f'{path}: left out: the file name belongs to another participant')
            elif wanted(path):
                found.append(path)
        if found:
            return found, label != session
    return [], False


def given_images(
    datasets: Mapping[str, Path],
    subject: str,
    session: str | None,
    entities_of: Callable[[Path], dict[str, str]],
    *,
    several: bool = True,
) -> list[dict[str, Any]]:
    """The images that a session may take from the datasets, in the order of these.

    Parameters
    ----------
    entities_of : gives the entities of a path below a dataset, by long names.
    several : whether the participant has several sessions. fMRIPrep leaves the session out of
        the name of a T1w from several images, of one session too.

    Returns
    -------
    Entities, ``path``, ``metadata`` and ``sidecar_problems`` of each, as for raw images, with
    ``dataset`` (its name), ``root`` (its folder), ``within`` (the file is the participant's, not
    the session's), ``shared`` (and there are several sessions) and
    ``mask`` (the dataset has a brain mask of the session).
    """
    found = []
    for name, root in datasets.items():
        inheritance = Inheritance(root)
        mask = bool(brain_masks_of(root, subject, session))
        for suffix, desc in TAKEN.items():

            def wanted(path: Path, desc: str | None = desc, root: Path = root) -> bool:
                entities = entities_of(path.relative_to(root))
                native = image_names.is_native(entities) and 'res' not in entities
                native = native and path.name.endswith(('.nii', '.nii.gz'))
                return native and (desc is None or entities.get('desc') == desc)

            for folder in FOLDERS[suffix]:
                paths, within = files_at(
                    root, subject, session, f'*_{suffix}.nii*', folder=folder, wanted=wanted
                )
                if within and suffix == 'TB1map':
                    continue  # it lies in the space of a scan of its own session
                for path in paths:
                    metadata, problems = inheritance.metadata_for(path)
                    found.append(
                        entities_of(path.relative_to(root))
                        | {'path': path, 'metadata': metadata, 'sidecar_problems': problems}
                        | {'dataset': name, 'root': root, 'within': within, 'mask': mask}
                        | {'shared': within and several}
                    )
    return found


@dataclass(frozen=True)
class GivenTransforms:
    """The transforms between the T1w of a dataset of ``-d`` and a template.

    Attributes
    ----------
    dataset : name of the dataset.
    forward, backward : ``from-T1w_to-<template>`` and the way back, ITK composites.
    within : whether they are those of the participant, where a session was asked for.
    digests : SHA-256 of both; empty where nothing is compared with a former run.
    """

    dataset: str
    forward: Path
    backward: Path
    within: bool = False
    digests: tuple[str, str] = ('', '')


def given_transforms(
    name: str, root: Path, subject: str, session: str | None, label: str
) -> GivenTransforms | None:
    """The transforms of a session to a template; None where the dataset has none.

    Parameters
    ----------
    name, root : of the dataset.
    label : of the template, as ``from-`` and ``to-`` have it.

    Raises
    ------
    DataError : one of the two is missing, or its content is absent.
    """
    ways = (f'from-T1w_to-{label}', f'from-{label}_to-T1w')
    levels = [files_at(root, subject, session, f'*_{way}_mode-image_xfm.h5') for way in ways]
    found = [paths for paths, _ in levels]
    if not any(found):
        return None
    for way, paths, other in zip(ways, found, found[::-1], strict=True):
        if not paths:
            raise DataError(
                f'the transform {way} is missing beside it',
                advice=f'Results need both ways. Without -d {name} they are not needed.',
                path=other[0],
            )
        if not paths[0].exists():
            raise absent_content(paths[0], root, f'Without -d {name} it is not needed.')
    return GivenTransforms(name, found[0][0], found[1][0], levels[0][1])
