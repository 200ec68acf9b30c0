"""Small datasets and images that tests make for themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import pytest
from phantoms import brain_image

SHARED = Path(__file__).resolve().parents[2] / 'shared' / 'data'


@pytest.fixture
def shared_data() -> Path:
    """The folder of real scans beside the project; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip('real scans (../shared/data) are not there')
    return SHARED


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
