"""Images that tests make for themselves."""

from __future__ import annotations

import nibabel as nib
import numpy as np


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


def turned(
    data: np.ndarray,
    affine: np.ndarray,
    axes: str,
    *,
    sform: int = 1,
    qform: int = 1,
    angles: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> nib.Nifti1Image:
    """An image as a scanner stores it whose voxel axes and table are others.

    Parameters
    ----------
    data, affine : voxel axes RAS.
    axes : those wanted, for example LAS, or PIR of a sagittal acquisition.
    angles : radians about z, y, x by which the head lies obliquely in the scanner.
    """
    upright = affine.copy()
    upright[:3] = nib.eulerangles.euler2mat(*angles) @ affine[:3]
    way = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt('RAS'), nib.orientations.axcodes2ornt(axes)
    )
    stored = nib.apply_orientation(data, way)
    grid = upright @ nib.orientations.inv_ornt_aff(way, data.shape)
    image = nib.Nifti1Image(np.ascontiguousarray(stored), None)
    image.header.set_sform(grid, sform)
    image.header.set_qform(grid, qform)
    image.header.set_xyzt_units('mm', 'sec')
    return image
