"""Small datasets and images that tests make for themselves."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable, Iterator
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


CAPABILITIES = 0x20080522  # version 3 of the interface of Linux
READS_ALL = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH


@pytest.fixture
def without_read_permission() -> Iterator[Callable[[Path], None]]:
    """A function that takes the read permission of a file; root loses its right to read all."""
    if sys.platform != 'linux':
        pytest.skip('permissions of Linux')
    library = ctypes.CDLL(None, use_errno=True)
    head = (ctypes.c_uint32 * 2)(CAPABILITIES, 0)
    before = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable of two halves
    assert library.capget(head, before) == 0
    now = (ctypes.c_uint32 * 6)(*before)
    now[0] &= ~READS_ALL
    assert library.capset(head, now) == 0
    changed: list[Path] = []

    def take(path: Path) -> None:
        path.chmod(0)
        changed.append(path)
        assert not os.access(path, os.R_OK, effective_ids=True)

    yield take
    assert library.capset(head, before) == 0
    for path in changed:
        path.chmod(0o644)
