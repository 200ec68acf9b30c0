"""Results on the grid of the raw scan: voxels, sform, qform and their codes."""

import itertools

import nibabel as nib
import numpy as np
import pytest

from ssl2_bids.bids.headers import read_header
from ssl2_bids.raw_grid import onto_raw_axes, read_raw_grid, write_on
from ssl2_bids.volume import Volume, read, reorient

AXES = [
    ''.join(letters)
    for order in itertools.permutations((0, 1, 2))
    for letters in itertools.product(*(('RL', 'AP', 'SI')[axis] for axis in order))
]
OBLIQUE = nib.eulerangles.euler2mat(0.1, -0.06, 0.03)


def stored(path, axes='LAS', *, sform=1, qform=1, shape=(5, 6, 7), shift=0.0):
    """A file of given voxel axes, a little oblique; sform and qform apart by a shift."""
    way = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt('RAS'), nib.orientations.axcodes2ornt(axes)
    )
    upright = np.eye(4)
    upright[:3, :3] = OBLIQUE @ np.diag((1.0, 0.9, 2.5))
    upright[:3, 3] = (-12.3, 4.5, -30.1)
    data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    turned = nib.apply_orientation(data, way)
    affine = upright @ nib.orientations.inv_ornt_aff(way, shape)
    image = nib.Nifti1Image(turned, None)
    image.header.set_sform(affine, sform)
    moved = affine.copy()
    moved[0, 3] += shift
    image.header.set_qform(moved, qform)
    path = path / f'{axes}.nii.gz'
    nib.save(image, path)
    return path


def written(tmp_path, path):
    volume = reorient(read(path))
    out = tmp_path / 'out.nii.gz'
    write_on(read_raw_grid(path), volume, out)
    return nib.load(path), nib.load(out)


@pytest.mark.parametrize('axes', AXES)
def test_every_order_of_axes_comes_back(tmp_path, axes):
    raw, result = written(tmp_path, stored(tmp_path, axes))
    assert np.array_equal(raw.get_fdata(), result.get_fdata())
    for name in ('srow_x', 'srow_y', 'srow_z', 'quatern_b', 'quatern_c', 'quatern_d',
                 'qoffset_x', 'qoffset_y', 'qoffset_z', 'sform_code', 'qform_code'):  # fmt: skip
        assert np.array_equal(raw.header[name], result.header[name]), name
    assert np.array_equal(raw.header['pixdim'][:4], result.header['pixdim'][:4])


@pytest.mark.parametrize(('sform', 'qform'), [(1, 1), (2, 1), (4, 3), (0, 1), (3, 0)])
def test_codes_are_kept_and_a_missing_orientation_is_the_other(tmp_path, sform, qform):
    raw, result = written(tmp_path, stored(tmp_path, sform=sform, qform=qform))
    header = result.header
    assert int(header['sform_code']) == (sform or qform)
    assert int(header['qform_code']) == (qform or sform)
    assert np.allclose(header.get_sform(), raw.affine, atol=1e-4)
    assert np.allclose(header.get_qform(), raw.affine, atol=1e-4)


def test_a_qform_that_is_no_rotation_is_replaced_by_the_sform(tmp_path):
    """Of a rounded quaternion, longer than 1: nibabel cannot compute its affine."""
    path = stored(tmp_path)
    image = nib.load(path)
    image = nib.Nifti1Image(np.asarray(image.dataobj), None, image.header)
    image.header['quatern_b'] = image.header['quatern_c'] = image.header['quatern_d'] = 0.57736
    nib.save(image, path)
    with pytest.raises(ValueError, match='w2 should be positive'):
        nib.load(path).get_qform()
    assert read_header(path).forms_apart == 0
    raw, result = written(tmp_path, path)
    assert np.allclose(result.header.get_qform(), raw.affine, atol=1e-4)
    assert np.allclose(result.header.get_sform(), raw.affine, atol=1e-4)


def test_both_are_kept_where_they_disagree(tmp_path):
    path = stored(tmp_path, shift=1.5)
    raw, result = written(tmp_path, path)
    assert np.array_equal(raw.header.get_qform(), result.header.get_qform())
    assert np.array_equal(raw.header.get_sform(), result.header.get_sform())


def test_equal_data_give_equal_bytes(tmp_path):
    path = stored(tmp_path, 'PIR')
    volume, grid = reorient(read(path)), read_raw_grid(path)
    for name in ('a.nii.gz', 'b.nii.gz'):
        write_on(grid, volume, tmp_path / name, dtype=np.uint8)
    assert (tmp_path / 'a.nii.gz').read_bytes() == (tmp_path / 'b.nii.gz').read_bytes()


def test_another_grid_is_refused(tmp_path):
    grid = read_raw_grid(stored(tmp_path))
    with pytest.raises(ValueError, match='no reorientation'):
        onto_raw_axes(Volume(np.zeros((5, 6, 8)), np.eye(4)), grid)
