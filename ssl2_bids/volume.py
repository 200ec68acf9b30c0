"""Volume: an image as array and affine; reading, writing, reorienting and the only resampling."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np

from ssl2_bids.errors import DataError, lacks_memory
from ssl2_bids.files import outside_failure, pointer_of, whole_file
from ssl2_bids.voxel_grid import Grid, spacing_of, voxel_volume_of

PIECE = 1 << 20  # bytes that are read at once
START = 4096  # bytes, with the header


@dataclass(frozen=True)
class Volume:
    """A three-dimensional image.

    Attributes
    ----------
    data : array of shape (I, J, K).
    affine : (4, 4), voxel indices to RAS+ millimetres.
    contrast : BIDS suffix of the image (``FLAIR``, ``T1w``, ...), empty for maps and masks.
    """

    data: np.ndarray
    affine: np.ndarray
    contrast: str = ''

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        return self.data.shape

    @property
    def spacing(self) -> np.ndarray:
        """Voxel edge lengths in mm, shape (3,)."""
        return spacing_of(self.affine)

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel in mm^3."""
        return voxel_volume_of(self.affine)

    def with_data(self, data: np.ndarray) -> Volume:
        """The same grid and contrast with other values."""
        return replace(self, data=data)


def read(path: str | Path, *, contrast: str = '', dtype: type | None = np.float32) -> Volume:
    """Read a NIfTI file into a Volume; a fourth axis of length one is dropped.

    Raises
    ------
    DataError : not a NIfTI file, truncated, not three-dimensional, in colour or complex, without
        a usable orientation (neither sform nor qform), or with impossible voxel sizes.
    ReadError, DeniedFileError : the disk failed; the file may not be read.
    """
    image = open_image(path)
    try:
        data = _voxels(path, image)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        if lacks_memory(error):
            raise MemoryError from error
        if failed := outside_failure(error, path):
            raise failed from error
        raise DataError(
            f'the file is truncated or damaged ({error})',
            advice='Copy or convert it again.',
            path=path,
        ) from None
    if data.dtype.fields is not None or data.dtype.kind == 'c':
        raise DataError(
            'an image of complex numbers' if data.dtype.fields is None else 'a colour image',
            advice='Give an image with one real number in each voxel.',
            path=path,
        )
    data = data.reshape(image.shape[:3])
    if dtype is not None:
        data = data.astype(dtype)
    return Volume(data, image.affine.astype(np.float64), contrast)


def _voxels(path: str | Path, image: nib.Nifti1Image) -> np.ndarray:
    """The voxels of an image; a compressed file is read to its end, where its checksum is."""
    if not str(path).lower().endswith('.gz'):
        return np.asanyarray(image.dataobj)
    with gzip.open(path, 'rb') as stream:
        data = np.asanyarray(type(image).from_stream(stream).dataobj)
        try:
            while stream.read(PIECE):
                pass
        except gzip.BadGzipFile as error:
            if not str(error).startswith('Not a gzipped file'):  # bytes after a sound end
                raise
    return data


def read_grid(path: str | Path) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape and affine (4, 4) of a NIfTI file, from its header alone.

    Raises
    ------
    DataError : as in :func:`read`, but for damage behind the header.
    """
    image = open_image(path)
    i, j, k = image.shape[:3]
    return (i, j, k), image.affine.astype(np.float64)


def open_image(path: str | Path) -> nib.Nifti1Image:
    """A NIfTI image whose header is sound; its voxels are not read yet."""
    try:
        with open(path, 'rb') as stream:  # what fails here, nibabel takes for another format
            stream.read(START)
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Image):
            raise nib.filebasedimages.ImageFileError('another image format')
    except FileNotFoundError:
        raise DataError('no such file', path=path) from None
    except (
        nib.filebasedimages.ImageFileError,
        nib.spatialimages.HeaderDataError,
        OSError,
        EOFError,
        OverflowError,
        ValueError,
        zlib.error,
    ) as error:
        if lacks_memory(error):
            raise MemoryError from error
        if failed := outside_failure(error, path):
            raise failed from error
        tool = pointer_of(path)
        if tool:
            raise DataError(
                'a pointer to the image: its content was not downloaded',
                advice=f'Run "{tool}" in the dataset.',
                path=path,
            ) from None
        raise DataError(
            f'not a readable NIfTI image ({error})',
            advice='Convert or copy the file again.',
            path=path,
        ) from None
    single = len(image.shape) == 4 and image.shape[-1] == 1
    check_geometry(image, image.shape[:3] if single else image.shape, path)
    return image


def check_geometry(image: nib.Nifti1Image, shape: tuple[int, ...], path: str | Path) -> None:
    """Check shape, orientation and voxel sizes of a NIfTI image from its header.

    Raises
    ------
    DataError : as in :func:`read`.
    """
    if len(shape) != 3:
        raise DataError(
            f'the image has {len(shape)} axes (shape {image.shape}) where 3 are needed',
            advice='Give one volume per file: split the series, or leave the file out.',
            path=path,
        )
    if min(shape) < 2:
        raise DataError(f'the image is a single slice (shape {shape})', path=path)
    header = image.header
    if int(header['sform_code']) == 0 and int(header['qform_code']) == 0:
        raise DataError(
            'the header gives no orientation (sform and qform codes are both 0)',
            advice='Convert the image again from DICOM, or set the orientation by hand; save a '
            'mask on the grid of its image.',
            path=path,
        )
    affine = image.affine
    spacing = spacing_of(affine)
    directions = affine[:3, :3] / np.where(spacing > 0, spacing, 1)
    if not np.isfinite(affine).all() or abs(np.linalg.det(directions)) < 1e-6:
        raise DataError(
            'the orientation in the header (sform or qform) is broken: '
            'it is not finite or not invertible',
            advice='Convert the image again from DICOM, or save a mask on the grid of its image.',
            path=path,
        )
    if int(header['sform_code']) == 0:
        spacing = spacing * (_stored_sizes(image, path) != 0)
    extent = spacing * np.array(shape)
    if spacing.max() > 20 or spacing.min() < 0.05 or extent.max() > 1000:
        raise DataError(
            f'absurd voxel size: {" x ".join(f"{s:.4g}" for s in spacing)} mm for {shape} voxels',
            advice='Check the units of the header (they should be millimetres).',
            path=path,
        )


def _stored_sizes(image: nib.Nifti1Image, path: str | Path) -> np.ndarray:
    """The voxel sizes (3,) as the file has them: nibabel makes 1 of 0."""
    with nib.openers.ImageOpener(str(path)) as stream:
        return np.asarray(image.header_class.from_fileobj(stream, check=False)['pixdim'][1:4])


def write(volume: Volume, path: str | Path, *, dtype: type = np.float32, code: int = 1) -> None:
    """Write a Volume as NIfTI-1, whole or not at all; equal data give equal bytes.

    Parameters
    ----------
    dtype : type on disk; values are stored without scaling.
    code : NIfTI code of sform and qform (1 scanner, 4 MNI).
    """
    image = nib.Nifti1Image(np.asarray(volume.data).astype(dtype), volume.affine)
    image.header.set_xyzt_units('mm', 'sec')
    image.set_sform(volume.affine, code=code)
    image.set_qform(volume.affine, code=code)
    store(image, path)


def store(image: nib.Nifti1Image, path: str | Path) -> None:
    """Write a NIfTI image, compressed if its name ends in ``.gz``, whole or not at all."""
    path = Path(path)
    with whole_file(path) as temporary:
        if path.name.endswith('.gz'):
            with (
                open(temporary, 'wb') as raw,
                gzip.GzipFile(
                    filename='', mode='wb', compresslevel=6, fileobj=raw, mtime=0
                ) as stream,
            ):
                stream.write(image.to_bytes())
        else:
            temporary.write_bytes(image.to_bytes())


def reorient(volume: Volume) -> Volume:
    """Bring the voxel axes as close to RAS+ as flips and permutations can: no interpolation."""
    orientation = nib.io_orientation(volume.affine)
    data = np.ascontiguousarray(nib.apply_orientation(volume.data, orientation))
    affine = volume.affine @ nib.orientations.inv_ornt_aff(orientation, volume.shape)
    return replace(volume, data=data, affine=affine)


def thin(volume: Volume, voxel: float) -> Volume:
    """Every second, third, ... voxel along each axis, so that edges are about ``voxel`` mm."""
    steps = _steps(volume, voxel)
    data = volume.data[tuple(slice((step - 1) // 2, None, step) for step in steps)]
    affine = volume.affine @ np.diag([*steps, 1.0])
    affine[:3, 3] = (volume.affine @ [*((np.array(steps) - 1) // 2), 1.0])[:3]
    return replace(volume, data=np.ascontiguousarray(data), affine=affine)


def fill(thinned: Volume, grid: Grid, voxel: float) -> Volume:
    """Bring what was made on a grid of :func:`thin` back to all voxels, each the nearest value.

    Parameters
    ----------
    grid : what was thinned to ``voxel`` mm.
    """
    places = [
        np.minimum(np.arange(count) // step, known - 1)
        for count, step, known in zip(grid.shape, _steps(grid, voxel), thinned.shape, strict=True)
    ]
    return replace(thinned, data=thinned.data[np.ix_(*places)], affine=grid.affine)


def _steps(grid: Grid, voxel: float) -> list[int]:
    edges = zip(spacing_of(grid.affine), grid.shape, strict=True)
    return [max(1, min(round(voxel / edge), count)) for edge, count in edges]


def resample(
    volume: Volume,
    affine: np.ndarray,
    shape: tuple[int, int, int],
    *,
    transform: np.ndarray | None = None,
    order: int = 1,
    antialias: bool = True,
) -> Volume:
    """Resample a volume to another grid, once; zero outside its field of view.

    Parameters
    ----------
    affine, shape : the grid wanted.
    transform : (4, 4), RAS+ mm of the wanted grid to RAS+ mm of ``volume``; identity if None.
    order : 0 nearest neighbour (labels), 1 linear, 3 cubic.
    antialias : where the wanted voxels are larger than the given ones, blur first with a
        Gaussian of the difference of both box widths (sigma = sqrt(r^2 - 1) / sqrt(12) voxels
        for a ratio r: the standard deviation of a box of width r less that of one of width 1).

    Returns
    -------
    Volume of ``shape``; float32 for order > 0, the type of ``volume`` for order 0.
    """
    from scipy import ndimage  # a third of a second, which planning alone must not take

    transform = np.eye(4) if transform is None else np.asarray(transform, np.float64)
    mapping = np.linalg.inv(volume.affine) @ transform @ affine
    shape = (int(shape[0]), int(shape[1]), int(shape[2]))
    data = volume.data if order == 0 else volume.data.astype(np.float32, copy=False)
    if volume.shape == shape and np.abs(mapping - np.eye(4)).max() < 1e-5:
        return replace(volume, data=data.copy(), affine=affine)
    if order and antialias:
        data = _blurred(data, mapping)
    data = ndimage.affine_transform(
        data,
        mapping[:3, :3],
        mapping[:3, 3],
        output_shape=shape,
        order=order,
        mode='grid-constant',
        cval=0,
        prefilter=order > 1,
    )
    return replace(volume, data=data, affine=affine)


def resample_at(
    volume: Volume, affine: np.ndarray, voxels: np.ndarray, *, transform: np.ndarray
) -> np.ndarray:
    """Values at some voxels of another grid: those of :func:`resample` with order 1.

    Parameters
    ----------
    affine : of the other grid.
    voxels : (3, N), indices in the other grid.
    transform : (4, 4), RAS+ mm of the other grid to RAS+ mm of ``volume``.

    Returns
    -------
    (N,) float32.
    """
    from scipy import ndimage

    mapping = np.linalg.inv(volume.affine) @ transform @ affine
    data = _blurred(volume.data.astype(np.float32, copy=False), mapping)
    places = mapping[:3, :3] @ voxels + mapping[:3, 3:]
    return ndimage.map_coordinates(data, places, order=1, mode='grid-constant', prefilter=False)


def _blurred(data: np.ndarray, mapping: np.ndarray) -> np.ndarray:
    """An array blurred for larger voxels; ``mapping``: their indices to those of the array."""
    from scipy import ndimage

    step = np.abs(mapping[:3, :3]).max(axis=1)
    sigma = np.sqrt(np.maximum(step**2 - 1, 0) / 12)
    return ndimage.gaussian_filter(data, sigma) if sigma.max() > 0.05 else data


def resample_deformed(
    volume: Volume,
    grid: Grid,
    *,
    transform: np.ndarray,
    shifts: np.ndarray,
    shifts_affine: np.ndarray,
    order: int = 1,
) -> Volume:
    """Resample a volume to another grid through a field of shifts; otherwise as resample.

    Parameters
    ----------
    transform : (4, 4), RAS+ mm after the shift to RAS+ mm of ``volume``.
    shifts : (I, J, K, 3), mm (RAS+), added to points of ``grid``; zero outside the field.
    shifts_affine : (4, 4), of the voxels of ``shifts``.
    """
    from scipy import ndimage

    to_voxels = np.linalg.inv(volume.affine) @ transform
    data = volume.data if order == 0 else volume.data.astype(np.float32, copy=False)
    if order:
        data = _blurred(data, to_voxels @ grid.affine)
    i, j, k = grid.shape
    found = np.zeros((i, j, k), data.dtype)
    for start in range(0, i, 16):  # parts, for the memory
        indices = np.indices((min(16, i - start), j, k)).reshape(3, -1) + [[start], [0], [0]]
        points = grid.affine[:3, :3] @ indices + grid.affine[:3, 3:]
        places = to_voxels[:3, :3] @ shifted(points, shifts, shifts_affine) + to_voxels[:3, 3:]
        part = ndimage.map_coordinates(
            data, places, order=order, mode='grid-constant', prefilter=order > 1
        )
        found[start : start + 16] = part.reshape(-1, j, k)
    return replace(volume, data=found, affine=grid.affine)


def shifted(points: np.ndarray, shifts: np.ndarray, shifts_affine: np.ndarray) -> np.ndarray:
    """Points (3, N) in RAS+ mm after a field of shifts, see :func:`resample_deformed`."""
    from scipy import ndimage

    inverse = np.linalg.inv(shifts_affine)
    places = inverse[:3, :3] @ points + inverse[:3, 3:]
    moves = [
        ndimage.map_coordinates(shifts[..., axis], places, order=1, mode='constant')
        for axis in range(3)
    ]
    return points + np.stack(moves)
