"""Small datasets and images that tests make for themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[2] / 'shared' / 'data'


@pytest.fixture
def shared_data() -> Path:
    """The folder of real scans beside the project; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip('real scans (../shared/data) are not there')
    return SHARED


def brain_image(spacing: float = 4.0, *, seed: int = 0, offset: float = 0.0) -> nib.Nifti1Image:
    """An ellipsoid of a brain's size with a bright ball in it, zero outside."""
    shape = tuple(int(n / spacing) for n in (180, 208, 168))
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -np.array(shape) * spacing / 2 + offset
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing='ij'), -1) * spacing
    centre = np.array(shape) * spacing / 2
    radius = np.sqrt((((grid - centre) / np.array([62.0, 80.0, 60.0])) ** 2).sum(-1))
    data = np.where(radius < 1, 100.0 - 30 * (radius > 0.8), 0.0)
    data[np.linalg.norm(grid - centre - [25, 10, 15], axis=-1) < 8] = 190.0
    noise = np.random.default_rng(seed).normal(0, 3, shape)
    data = np.where(radius < 1, np.maximum(data + noise, 1), 0)
    image = nib.Nifti1Image(data.astype(np.float32), affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units('mm', 'sec')
    return image


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a BIDS dataset from relative file names.

    A name ending in ``.nii.gz`` gets a small brain image unless a value is given (an image, or
    the bytes of the file); a dictionary is written as JSON; text and bytes as they are.
    """

    def make(files: dict[str, object] | list[str], name: str = 'data') -> Path:
        root = tmp_path / name
        root.mkdir(parents=True, exist_ok=True)
        description = {'Name': 'test', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw'}
        (root / 'dataset_description.json').write_text(json.dumps(description))
        (root / 'README').write_text('Made by a test.\n')
        contents = files if isinstance(files, dict) else dict.fromkeys(files)
        for relative, content in contents.items():
            path = root / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None and relative.endswith(('.nii', '.nii.gz')):
                content = brain_image()
            if isinstance(content, nib.Nifti1Image):
                content.to_filename(path)
            elif isinstance(content, dict):
                path.write_text(json.dumps(content))
            elif isinstance(content, bytes):
                path.write_bytes(content)
            elif content is None:
                path.mkdir(exist_ok=True)
            else:
                path.write_text(str(content))
        return root

    return make
