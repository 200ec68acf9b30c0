"""Heads for the training engine, from label maps and from T1w scans of healthy people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssl2_bids.errors import DataError, NoInputError, Ssl2Error, about
from ssl2_bids.files import finished_images
from ssl2_bids.progress import NameProgress
from ssl2_bids.simulation.anatomy.label_maps import label_table
from ssl2_bids.synthesis.heads import Head, make_head
from ssl2_bids.synthesis.healthy import label_t1w
from ssl2_bids.volume import Volume, read, reorient, resample
from ssl2_bids.voxel_grid import whole_labels


def image_files(folder: Path) -> list[Path]:
    """Images of a folder, sorted by name.

    Raises
    ------
    NoInputError : it is missing, or holds none.
    """
    found = finished_images(Path(folder))
    if not found:
        raise NoInputError(
            'has no images', advice='Give a folder of .nii.gz or .nii files.', path=folder
        )
    return found


def read_lesion_masks(
    folder: Path, *, hold_out: Sequence[str] = ()
) -> tuple[list[np.ndarray], np.ndarray]:
    """Lesion masks on one MNI152 grid, but those of the participants held out.

    Parameters
    ----------
    hold_out : see :func:`name_of`.

    Returns
    -------
    The masks (I, J, K), axes towards right, front, top; their affine (4, 4).

    Raises
    ------
    NoInputError : the folder has no mask of another participant.
    DataError : two grids differ.
    """
    kept = [path for path in image_files(folder) if name_of(path) not in hold_out]
    if not kept:
        raise NoInputError(
            'has lesion masks of held-out participants alone',
            advice='Give masks of other people, or leave out "lesion_masks".',
            path=folder,
        )
    volumes = [(path, reorient(read(path))) for path in kept]
    _, first = volumes[0]
    for path, volume in volumes:
        if volume.shape != first.shape or not np.allclose(volume.affine, first.affine, atol=1e-3):
            raise DataError(
                f'is on another grid than {volumes[0][0].name}',
                advice='Resample all masks to one MNI152 grid.',
                path=path,
            )
    return [volume.data > 0 for _, volume in volumes], first.affine


def name_of(path: Path) -> str:
    """The participant's label, of a name as in BIDS; else the file's name without endings."""
    name = path.name.split('.')[0]
    return name.split('_')[0].removeprefix('sub-') if name.startswith('sub-') else name


def heads_from_label_maps(
    folder: Path,
    *,
    masks: Sequence[np.ndarray] = (),
    affine: np.ndarray | None = None,
    hold_out: Sequence[str] = (),
    progress: NameProgress | None = None,
) -> list[Head]:
    """Heads of all label maps of a folder but those held out.

    Raises
    ------
    DataError : a map cannot be used, see :func:`ssl2_bids.synthesis.heads.make_head`.
    """
    heads = []
    for path in image_files(folder):
        name = name_of(path)
        if name in hold_out:
            continue
        with about(path):
            found = reorient(read(path))
            labels = millimetre(found.with_data(healthy_labels(found.data)), order=0)
            heads.append(make_head(name, labels.data, patients=masks, patient_affine=affine))
        if progress:
            progress(name)
    return heads


def healthy_labels(labels: np.ndarray) -> np.ndarray:
    """Labels of FreeSurfer as ``ssl2 simulate`` reads them: without parcels and what is ill.

    Raises
    ------
    DataError : values that are not whole numbers.
    """
    table, whole = label_table(), whole_labels(labels)
    found = np.unique(whole)
    targets = np.array([table.healthy(int(n)) for n in found], labels.dtype)
    return targets[np.searchsorted(found, whole)]


def heads_from_t1w(
    scans: Sequence[Path],
    *,
    masks: Sequence[np.ndarray] = (),
    affine: np.ndarray | None = None,
    hold_out: Sequence[str] = (),
    progress: NameProgress | None = None,
) -> tuple[list[Head], list[str]]:
    """Heads of T1w scans of healthy people, with the scan inside.

    Returns
    -------
    The heads, and one sentence for each scan that could not be used.
    """
    from ssl2_bids.steps.brain import find_brain
    from ssl2_bids.steps.inhomogeneity import correct_inhomogeneity

    heads, refused = [], []
    for path in scans:
        name = name_of(path)
        if name in hold_out:
            continue
        try:
            image = reorient(read(path, contrast='T1w'))
            mask = find_brain(image).mask
            even = millimetre(correct_inhomogeneity(image, mask))
            brain = millimetre(mask.with_data(mask.data.astype(np.float32))).data > 0.5
            labels, scaled = label_t1w(even.data, brain)
            heads.append(
                make_head(name, labels, patients=masks, patient_affine=affine, t1w=scaled)
            )
        except Ssl2Error as error:
            refused.append(f'{path.name}: {error.message}')
        if progress:
            progress(name)
    return heads, refused


def millimetre(volume: Volume, *, order: int = 1) -> Volume:
    """On voxels of 1 mm with axes along right, front, top; labels with order 0."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in volume.shape])).reshape(3, -1)
    corners = volume.affine[:3, :3] @ corners + volume.affine[:3, 3:]
    low, high = np.floor(corners.min(axis=1)), np.ceil(corners.max(axis=1))
    affine = np.eye(4)
    affine[:3, 3] = low
    first, second, third = (int(n) + 1 for n in high - low)
    return resample(volume, affine, (first, second, third), order=order)
