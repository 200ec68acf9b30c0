#!/usr/bin/env python3
"""Time and accuracy of the rigid registration on real scans moved by known transforms.

    python benchmarks/registration.py [DATA]

DATA holds ms-stripped and ms-wholehead (default: ../shared/data beside the project). A case whose
files are missing is left out, and named. The moving image is resampled once (cubic) as if the head
had lain elsewhere, registered again, and compared with what is known:

* same contrast (FLAIR to itself): the error is absolute;
* between contrasts the truth is unknown: the error is the disagreement between registering
  the moved image and registering the image as it came;
* as published: the distance to the publishers' transform (affine, so it cannot be zero), or for
  the stripped images, which come registered, to the identity.

Errors are displacements in mm over the brain. Each row is one registration on one core.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ssl2_bids.itk import from_itk
from ssl2_bids.steps.registration import register_rigid
from ssl2_bids.volume import Volume, read, resample

MOVES = {  # degrees about x, y, z through the middle of the brain; mm
    'small': ((2, -1, 3), (2, -3, 1)),
    'medium': ((-6, 4, 7), (8, -6, 9)),
    'large': ((13, -5, 6), (-12, 22, -16)),
}
STRIPPED = ('lj07', 'lj19')  # patients
WHOLE = (  # patient, session, contrast
    ('lj01', '1', 'T2w'),
    ('lj12', '1', 'T1w'),
    ('lj12', '1', 'T2w'),
    ('lj03', '2', 'T1w'),
)
PADDING = 40  # voxels around a cropped image, so that a move loses nothing of it


@dataclass(frozen=True)
class Case:
    """Two images of one head with their masks, and the transform that others found."""

    name: str
    fixed: Volume
    fixed_mask: Volume
    moving: Volume
    moving_mask: Volume
    published: np.ndarray


def present(*paths: Path) -> bool:
    """Whether the files of a case are there; what is missing is named on standard error."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        print(f'a case is left out, for {missing[0]} is missing', file=sys.stderr, flush=True)
    return not missing


def stripped(data: Path, patient: str, contrast: str) -> Case | None:
    """A case of brain-only images on one 1 mm grid; None where a file is missing."""
    stem = data / 'ms-stripped' / f'sub-{patient}' / 'anat' / f'sub-{patient}_'
    paths = [Path(f'{stem}{name}.nii.gz') for name in ('FLAIR', contrast)]
    if not present(*paths):
        return None
    fixed = padded(read(paths[0], contrast='FLAIR'))
    moving = padded(read(paths[1], contrast=contrast))
    masks = [image.with_data((image.data > 0).astype(np.uint8)) for image in (fixed, moving)]
    return Case(f'{patient} stripped {contrast}', fixed, masks[0], moving, masks[1], np.eye(4))


def whole(data: Path, patient: str, session: str, contrast: str) -> Case | None:
    """A case of whole-head 2D images with slices of 3 to 4 mm on grids of their own.

    None where a file is missing.
    """
    name = Path(f'sub-{patient}', f'ses-{session}', 'anat', f'sub-{patient}_ses-{session}_')
    images = data / 'ms-wholehead' / name
    derived = data / 'ms-wholehead' / 'derivatives' / 'manual' / name
    paths = [Path(f'{images}{one}.nii.gz') for one in ('FLAIR', contrast)]
    brain = Path(f'{derived}desc-brain_mask.nii.gz')
    transform = Path(f'{derived}from-{contrast}_to-FLAIR_mode-image_xfm.txt')
    if not present(*paths, brain, transform):
        return None
    fixed = read(paths[0], contrast='FLAIR')
    moving = read(paths[1], contrast=contrast)
    mask = read(brain, dtype=np.uint8)
    published = from_itk(transform.read_text())
    there = resample(
        mask, moving.affine, moving.shape, transform=np.linalg.inv(published), order=0
    )
    return Case(f'{patient} whole {contrast}', fixed, mask, moving, there, published)


def padded(volume: Volume) -> Volume:
    """The image with empty voxels around it."""
    affine = volume.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, PADDING)
    return Volume(np.pad(volume.data, PADDING), affine, volume.contrast)


def move(kind: str, mask: Volume) -> np.ndarray:
    """The known transform of a kind, (4, 4), about the middle of a brain."""
    degrees, shift = MOVES[kind]
    matrix = np.eye(4)
    for axis, angle in enumerate(np.radians(degrees)):
        first, second = (a for a in range(3) if a != axis)
        turn = np.eye(4)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    centre = brain_points(mask).mean(axis=0)
    matrix[:3, 3] = centre + shift - matrix[:3, :3] @ centre
    return matrix


def brain_points(mask: Volume) -> np.ndarray:
    """Some voxels of a mask in mm, (N, 3)."""
    return np.argwhere(mask.data > 0)[::97] @ mask.affine[:3, :3].T + mask.affine[:3, 3]


def error(one: np.ndarray, other: np.ndarray, mask: Volume) -> tuple[float, float]:
    """Mean and largest displacement in mm between two transforms over the brain."""
    change = one - other
    distances = np.linalg.norm(brain_points(mask) @ change[:3, :3].T + change[:3, 3], axis=1)
    return float(distances.mean()), float(distances.max())


def measure(case: Case) -> None:
    """Print the rows of one case."""
    unmoved = timed(case.fixed, case.fixed_mask, case.moving, case.moving_mask)
    row(case.name, 'as published', unmoved[1], error(unmoved[0], case.published, case.fixed_mask))
    for kind in MOVES:
        known = move(kind, case.fixed_mask)
        image, mask = (
            resample(v, v.affine, v.shape, transform=known, order=order)
            for v, order in ((case.moving, 3), (case.moving_mask, 0))
        )
        found, seconds = timed(case.fixed, case.fixed_mask, image, mask)
        row(case.name, kind, seconds, error(known @ found, unmoved[0], case.fixed_mask))
    known = move('medium', case.fixed_mask)
    image, mask = (
        resample(v, v.affine, v.shape, transform=known, order=order)
        for v, order in ((case.fixed, 3), (case.fixed_mask, 0))
    )
    found, seconds = timed(case.fixed, case.fixed_mask, image, mask)
    name = case.name.rsplit(' ', 1)[0] + ' FLAIR'
    row(name, 'medium, same', seconds, error(known @ found, np.eye(4), case.fixed_mask))


def timed(
    fixed: Volume, fixed_mask: Volume, moving: Volume, moving_mask: Volume
) -> tuple[np.ndarray, float]:
    """The matrix found and the processor seconds it took."""
    start = time.process_time()
    found = register_rigid(fixed, moving, fixed_mask=fixed_mask, moving_mask=moving_mask)
    return found.matrix, time.process_time() - start


def row(name: str, kind: str, seconds: float, errors: tuple[float, float]) -> None:
    """Print one line of the table."""
    print(
        f'| {name:20} | {kind:12} | {seconds:5.1f} | {errors[0]:6.3f} | {errors[1]:6.3f} |',
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    beside = Path(__file__).resolve().parents[2] / 'shared' / 'data'
    parser.add_argument('data', type=Path, nargs='?', default=beside)
    data = parser.parse_args().data
    cases = [partial(stripped, data, patient, 'T1w') for patient in STRIPPED]
    cases += [partial(whole, data, *words) for words in WHOLE]
    counted = 0
    for make in cases:
        if case := make():
            if not counted:
                print('| to FLAIR from        | move         | CPU s | mean mm | max mm |')
                print('| --- | --- | --- | --- | --- |')
            measure(case)
            counted += 1
    if not counted:
        raise SystemExit(f'{data}: this folder has none of the scans')


if __name__ == '__main__':
    main()
