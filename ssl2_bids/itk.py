"""Between our world (RAS+, arrays) and ITK's (LPS+, its images and transform files)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ssl2_bids.errors import DataError
from ssl2_bids.files import whole_file
from ssl2_bids.volume import Volume
from ssl2_bids.voxel_grid import Grid

SINGULAR = 1e-6  # determinant of a matrix without a useful inverse
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # RAS+ to LPS+ and back


@contextmanager
def one_thread() -> Iterator[None]:
    """Let ITK use one thread: sums over several differ in the last digits from run to run.

    The registration's own setting does not reach its optimiser, which asks the global default.
    """
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def itk_image(volume: Volume, *, unit: float = 1.0) -> sitk.Image:
    """A volume as SimpleITK has it: axes reversed in memory, LPS+, lengths in ``unit`` mm."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.data.T))
    affine = LPS @ volume.affine
    image.SetSpacing((volume.spacing / unit).tolist())
    image.SetOrigin((affine[:3, 3] / unit).tolist())
    image.SetDirection((affine[:3, :3] / volume.spacing).ravel().tolist())
    return image


def to_itk(matrix: np.ndarray) -> str:
    """Text of an ITK affine transform file (LPS+) of a (4, 4) matrix in RAS+ mm.

    ITK's tools resample the moving image onto the fixed one with it.
    """
    lps = LPS @ matrix @ LPS
    parameters = ' '.join(repr(float(p) + 0.0) for p in [*lps[:3, :3].ravel(), *lps[:3, 3]])
    return (
        '#Insight Transform File V1.0\n#Transform 0\n'
        f'Transform: AffineTransform_double_3_3\nParameters: {parameters}\n'
        'FixedParameters: 0 0 0\n'
    )


def from_itk(text: str) -> np.ndarray:
    """The (4, 4) matrix in RAS+ mm of the text of an ITK transform file with one affine.

    Raises
    ------
    DataError : another kind of transform, several of them, not a transform file, or a matrix
        without an inverse.
    """
    fields = [line.split(':', 1) for line in text.splitlines() if ':' in line]
    entries = {key.strip(): value.split() for key, value in fields}
    try:
        (kind,) = entries['Transform']
        if len(fields) != 3 or not kind.startswith(('AffineTransform_', 'MatrixOffset')):
            raise ValueError(kind)
        parameters = np.array(entries['Parameters'], np.float64)
        centre = np.array(entries['FixedParameters'], np.float64).reshape(3)
        lps = np.eye(4)
        lps[:3, :3] = parameters[:9].reshape(3, 3)
        lps[:3, 3] = parameters[9:].reshape(3) + centre - lps[:3, :3] @ centre
    except (KeyError, ValueError):
        raise DataError(
            'not an ITK text file with one affine transform',
            advice='Give an affine transform as ANTs or ITK writes it in text (.txt).',
        ) from None
    if not (np.isfinite(lps).all() and abs(np.linalg.det(lps[:3, :3])) > SINGULAR):
        raise DataError(
            'the matrix is singular or not finite', advice='Give a transform of a head to a head.'
        )
    return LPS @ lps @ LPS


def write_composite(
    path: Path,
    matrix: np.ndarray,
    shifts: np.ndarray,
    shifts_affine: np.ndarray,
    *,
    linear_first: bool,
) -> None:
    """Write an ITK composite transform (.h5) of a matrix and a field; equal data, equal bytes.

    SimpleITK would write the time into each part of the file.

    Parameters
    ----------
    matrix : (4, 4), RAS+ mm.
    shifts, shifts_affine : see :func:`ssl2_bids.volume.resample_deformed`.
    linear_first : whether a point goes through the matrix before the field.
    """
    import h5py

    text = h5py.string_dtype('ascii')  # ITK reads no other
    lps = LPS @ matrix @ LPS
    numbers = np.array([*lps[:3, :3].ravel(), *lps[:3, 3]])
    linear = ('AffineTransform_float_3_3', numbers, [0.0] * 3)
    grid = LPS @ shifts_affine
    spacing = np.linalg.norm(grid[:3, :3], axis=0)
    fixed = [*shifts.shape[:3], *grid[:3, 3], *spacing, *(grid[:3, :3] / spacing).ravel()]
    # the vector's component runs fastest, then the first voxel axis
    values = np.moveaxis(shifts * [-1, -1, 1], 3, 0).ravel(order='F')
    field = ('DisplacementFieldTransform_float_3_3', values, fixed)
    with whole_file(path) as temporary, h5py.File(temporary, 'w') as file:
        for name, value in (('ITKVersion', '5.4.0'), ('HDFVersion', '1.12'), ('OSName', 'Linux'),
                           ('OSVersion', 'any')):  # fmt: skip
            file.create_dataset(name, data=[value], dtype=text)
        group = file.create_group('TransformGroup')
        group.create_dataset(
            '0/TransformType',
            data=['CompositeTransform_float_3_3'],
            dtype=text,
        )
        # ITK applies the last one first
        parts = (field, linear) if linear_first else (linear, field)
        for number, (kind, parameters, constants) in enumerate(parts, start=1):
            part = group.create_group(str(number))
            part.create_dataset('TransformType', data=[kind], dtype=text)
            part.create_dataset('TransformFixedParameters', data=np.array(constants, np.float64))
            large = {'compression': 'gzip', 'shuffle': True} if parameters.size > 100 else {}
            part.create_dataset('TransformParameters', data=parameters.astype(np.float32), **large)


def read_transform(path: str | Path) -> sitk.Transform:
    """An ITK transform of any kind, composites included.

    Raises
    ------
    DataError : the file cannot be read.
    """
    if str(path).endswith('.h5'):  # of a damaged one ITK prints what its library thinks
        import h5py

        try:
            h5py.File(path, 'r').close()
        except OSError as error:
            raise DataError(
                f'not a readable ITK transform ({error})', advice='Copy it again.', path=path
            ) from None
    try:
        return sitk.ReadTransform(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise DataError(
            f'not a readable ITK transform ({reason})', advice='Copy it again.', path=path
        ) from None


def linear_part(transform: sitk.Transform) -> np.ndarray:
    """The matrix (4, 4), RAS+ mm, of the linear parts of a transform; fields are left out."""
    if transform.GetTransformEnum() == sitk.sitkComposite:
        composite = sitk.CompositeTransform(transform)
        matrix = np.eye(4)
        for number in range(composite.GetNumberOfTransforms()):  # ITK applies the last one first
            matrix = matrix @ linear_part(composite.GetNthTransform(number))
        return matrix
    if not transform.IsLinear():
        return np.eye(4)
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    lps = np.eye(4)
    lps[:3, 3] = origin
    for axis in range(3):
        lps[:3, axis] = np.array(transform.TransformPoint(np.eye(3)[axis].tolist())) - origin
    return LPS @ lps @ LPS


def shifts_of(parts: Sequence[sitk.Transform | np.ndarray], grid: Grid) -> np.ndarray:
    """How far transforms shift the voxels of a grid: (I, J, K, 3), RAS+ mm, float32.

    Parameters
    ----------
    parts : ITK's transforms and matrices (4, 4) in RAS+ mm, the first is applied first.
    """
    whole = sitk.CompositeTransform(3)
    for part in reversed(parts):  # ITK applies the last one first
        if isinstance(part, np.ndarray):
            lps = LPS @ part @ LPS
            affine = sitk.AffineTransform(3)
            affine.SetMatrix(lps[:3, :3].ravel().tolist())
            affine.SetTranslation(lps[:3, 3].tolist())
            part = affine
        whole.AddTransform(part)
    affine = LPS @ grid.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    field = sitk.TransformToDisplacementField(
        whole,
        sitk.sitkVectorFloat32,
        size=[int(n) for n in grid.shape],
        outputOrigin=affine[:3, 3].tolist(),
        outputSpacing=spacing.tolist(),
        outputDirection=(affine[:3, :3] / spacing).ravel().tolist(),
    )
    values = sitk.GetArrayFromImage(field).transpose(2, 1, 0, 3)
    values *= np.array([-1, -1, 1], np.float32)
    return np.ascontiguousarray(values)
