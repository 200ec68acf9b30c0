"""One phantom at two visits, unchanged: LAS and oblique at the first, PIR at the second."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from phantoms import turned
from site_phantom import AFFINE, head, make_model

AXES = {'1': 'LAS', '2': 'PIR'}  # by visit
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
