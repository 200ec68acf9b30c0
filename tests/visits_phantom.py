"""Phantoms at several visits: one unchanged (LAS and oblique, then PIR), and rescans of others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from phantoms import turned
from scipy import ndimage
from site_phantom import AFFINE, SHAPE, Head, head, make_model

AXES = {'1': 'LAS', '2': 'PIR'}  # by visit
FREE = (19, 24, 18)  # a place without a lesion in head 1
BALLS = (30, 24, 20)  # the grid of `balls`
ANGLES = {'1': (0.1, -0.06, 0.03), '2': (0.0, 0.0, 0.0)}  # radians


def make_visits(root: Path) -> None:
    """Raw images in ``data``, masks on their grids in ``labels``, and a model ``phantom-3t``."""
    make_model(root)
    one = head(1, decoys=0)
    files = {
        'data': {'FLAIR': one.flair, 'T1w': one.t1w},
        'labels': {'label-lesion_mask': one.lesion.astype(np.uint8)},
    }
    for folder, images in files.items():
        for session, axes in AXES.items():
            anat = root / folder / 'sub-01' / f'ses-{session}' / 'anat'
            anat.mkdir(parents=True)
            for name, data in images.items():
                image = turned(data, AFFINE, axes, sform=2, angles=ANGLES[session])
                image.to_filename(anat / f'sub-01_ses-{session}_{name}.nii.gz')
    content = {'Name': 'visits', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw'}
    (root / 'data' / 'dataset_description.json').write_text(json.dumps(content))


def drawn(root: Path, session: str) -> Path:
    """The true lesions of a visit, on the grid of its raw images."""
    name = f'sub-01_ses-{session}_label-lesion_mask.nii.gz'
    return root / 'labels/sub-01' / f'ses-{session}' / 'anat' / name


def result(root: Path, session: str, name: str) -> Path:
    """A file of the App's results for a visit."""
    (path,) = (root / 'out/sub-01' / f'ses-{session}' / 'anat').glob(f'*_{name}.nii.gz')
    return path


def ball(centre: tuple[int, int, int], radius: float) -> np.ndarray:
    """A lesion on the grid of a phantom; lengths in voxels."""
    away = np.indices(SHAPE) - np.reshape(centre, (3, 1, 1, 1))
    return np.linalg.norm(away, axis=0) < radius


def balls(*places: tuple[tuple[int, int, int], float]) -> np.ndarray:
    """Lesions by centre and radius on a small grid without a head; lengths in voxels."""
    mask = np.zeros(BALLS, bool)
    for centre, radius in places:
        away = np.indices(BALLS) - np.reshape(centre, (3, 1, 1, 1))
        mask |= np.linalg.norm(away, axis=0) <= radius
    return mask


def rescan(person: int, scan: int, new: np.ndarray | None = None) -> Head:
    """The head of a person with a texture of its own, its lesions, and the noise of a scan.

    Parameters
    ----------
    new : a further lesion, see :func:`ball`.
    """
    one = head(person, decoys=0)
    lesion = one.lesion if new is None else one.lesion | new
    texture = ndimage.gaussian_filter(np.random.default_rng(person).normal(size=SHAPE), 1.5)
    texture *= 4 / texture.std()
    noise = np.random.default_rng(1000 + scan).normal(0, 4, (2, *SHAPE))
    images = 100 + texture + 60 * lesion + noise[0], 120 - texture - 45 * lesion + noise[1]
    flair, t1w = (np.where(one.brain, image, 0).astype(np.float32) for image in images)
    return replace(one, flair=flair, t1w=t1w, lesion=lesion)
