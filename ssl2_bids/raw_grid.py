"""The voxel grid of an image as its file has it: axes, sform, qform and their codes.

Inside the App every image has RAS+ axes; what is written lies on the grid of the raw scan again,
so that other programs can lay both upon one another, whichever of the two orientations they read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np

from ssl2_bids.volume import Volume, open_image, store

FIELDS = (
    'qform_code', 'sform_code', 'quatern_b', 'quatern_c', 'quatern_d', 'qoffset_x', 'qoffset_y',
    'qoffset_z', 'srow_x', 'srow_y', 'srow_z',
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class RawGrid:
    """Where the voxels of a file lie.

    Attributes
    ----------
    shape : voxels along each axis, (I, J, K).
    affine : (4, 4), voxel indices to RAS+ mm: the sform where its code is above 0, else the qform.
    header : the NIfTI header that both orientations and their codes are taken from.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    header: nib.Nifti1Header


def read_raw_grid(path: str | Path) -> RawGrid:
    """The grid of a NIfTI file, from its header alone.

    Raises
    ------
    DataError : as in :func:`ssl2_bids.volume.read_grid`.
    """
    image = open_image(path)
    i, j, k = image.shape[:3]
    return RawGrid((i, j, k), image.affine.astype(np.float64), image.header)


def upright(grid: RawGrid) -> RawGrid:
    """The grid with its axes in the order and directions that are closest to RAS+."""
    orientation = nib.io_orientation(grid.affine)
    shape = [0, 0, 0]
    for axis, (target, _) in enumerate(orientation.astype(int)):
        shape[target] = grid.shape[axis]
    affine = grid.affine @ nib.orientations.inv_ornt_aff(orientation, grid.shape)
    return replace(grid, shape=(shape[0], shape[1], shape[2]), affine=affine)


def onto_raw_axes(volume: Volume, grid: RawGrid) -> Volume:
    """Flip and permute the axes of a volume so that its voxels are those of the raw grid.

    Raises
    ------
    ValueError : the volume is no reorientation of the grid.
    """
    way = nib.orientations.ornt_transform(
        nib.io_orientation(volume.affine), nib.io_orientation(grid.affine)
    )
    data = np.ascontiguousarray(nib.apply_orientation(volume.data, way))
    if data.shape != grid.shape:
        raise ValueError(f'{volume.shape} voxels are no reorientation of {grid.shape}')
    return Volume(data, grid.affine, volume.contrast)


def write_on(grid: RawGrid, volume: Volume, path: str | Path, *, dtype: type = np.float32) -> None:
    """Write a volume on a raw grid, whole or not at all; equal data give equal bytes.

    sform, qform and their codes are those of the raw file; where it has one of them, or a qform
    that is no rotation, both are that one.

    Parameters
    ----------
    dtype : type on disk; values are stored without scaling.

    Raises
    ------
    ValueError : see :func:`onto_raw_axes`.
    """
    data = onto_raw_axes(volume, grid).data
    image = nib.Nifti1Image(np.asarray(data).astype(dtype), None)
    header = image.header
    header.set_xyzt_units('mm', 'sec')
    header['pixdim'][:4] = grid.header['pixdim'][:4]
    for name in FIELDS:
        header[name] = grid.header[name]
    if int(header['sform_code']) == 0:
        header.set_sform(grid.affine, int(header['qform_code']))
    if int(header['qform_code']) == 0 or not _has_rotation(header):
        header.set_qform(grid.affine, int(header['sform_code']), strip_shears=True)
    store(image, path)


def _has_rotation(header: nib.Nifti1Header) -> bool:
    try:
        header.get_qform()
    except ValueError:  # a rounded quaternion, longer than 1
        return False
    return True
