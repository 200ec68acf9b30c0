"""The header of an image: can it be used, on which grid does it lie, how fine is it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ssl2_bids.errors import DataError, DeniedError, ReadError
from ssl2_bids.files import cannot_read
from ssl2_bids.volume import read_grid
from ssl2_bids.voxel_grid import spacing_of

HEAD = 80.0  # mm; a field of view shorter than this along an axis shows a part of the head
THICK = 2.0  # mm; a longer voxel edge, if the others are shorter, is a slice of a 2D scan
ANISOTROPIC = 1.5  # longest voxel edge over the shortest, from which an image is one of slices
DISAGREEMENT = 0.1  # of a voxel; sform and qform farther apart than this are two places


@dataclass(frozen=True)
class Header:
    """What the header of a usable image contains.

    Attributes
    ----------
    shape, affine : the grid; affine (4, 4) from voxel indices to RAS+ mm.
    forms_apart : mm between the places that sform and qform give a corner of the image, 0 where
        they agree or one of them is missing.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    forms_apart: float = 0.0

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel edges in mm."""
        i, j, k = spacing_of(self.affine)
        return float(i), float(j), float(k)

    @property
    def whole_head(self) -> bool:
        """Whether the field of view is long enough for a head along every axis."""
        return min(s * n for s, n in zip(self.spacing, self.shape, strict=True)) >= HEAD

    @property
    def slices(self) -> bool:
        """Whether the voxels are those of a 2D acquisition."""
        return max(self.spacing) > max(THICK, ANISOTROPIC * min(self.spacing))


def read_header(path: Path) -> Header:
    """The header of an image that can be used; its voxels are not read.

    Raises
    ------
    DataError : empty, no NIfTI image, not three-dimensional, in colour or complex, or without
        a sound orientation.
    ReadError, DeniedError : the disk failed; the file may not be read.
    """
    try:
        if path.stat().st_size == 0:
            raise DataError('the file is empty', advice='Copy it again.', path=path)
        with open(path, 'rb'):
            pass
    except OSError as error:
        if isinstance(problem := cannot_read(error, path), ReadError | DeniedError):
            raise problem from error
        raise DataError(f'cannot be read ({error.strerror})', path=path) from None
    shape, affine = read_grid(path)
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)  # read_grid has seen to it
    _check_length(path, image)
    kind = image.get_data_dtype()
    if kind.fields is not None or kind.kind == 'c':
        raise DataError(
            'a colour image, not one of grey values'
            if kind.fields is not None
            else 'an image of complex numbers, not of magnitudes',
            advice='Convert the original image instead.',
            path=path,
        )
    return Header(shape, affine, _forms_apart(image.header, shape, affine))


def _check_length(path: Path, image: nib.Nifti1Image) -> None:
    """Check that a file that is not compressed holds all of its voxels."""
    there = path.stat().st_size
    offset = getattr(image.dataobj, 'offset', 352)  # nibabel resets that of the header
    needed = offset + math.prod(image.shape) * image.get_data_dtype().itemsize
    if path.suffix == '.nii' and there < needed:
        raise DataError(
            f'the file is truncated or damaged ({there} of {needed} bytes)',
            advice='Copy or convert it again.',
            path=path,
        )


def _forms_apart(header: Any, shape: tuple[int, int, int], affine: np.ndarray) -> float:
    sform = header.get_sform(coded=True)[0]
    try:
        qform = header.get_qform(coded=True)[0]
    except ValueError:  # a rounded quaternion, longer than 1
        qform = None
    if sform is None or qform is None or not np.isfinite(qform).all():
        return 0.0
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], [1.0])).reshape(4, -1)
    apart = float(np.linalg.norm(((sform - qform) @ corners)[:3], axis=0).max())
    voxel = float(spacing_of(affine).min())
    return apart if apart > DISAGREEMENT * voxel else 0.0
