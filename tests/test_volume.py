"""Reading, writing, reorienting and resampling of volumes."""

from __future__ import annotations

import errno
import gzip
import itertools
import resource
import zlib

import nibabel as nib
import numpy as np
import pytest

from ssl2_bids.bids.headers import read_header
from ssl2_bids.errors import DataError, ReadError, StorageError
from ssl2_bids.volume import Volume, fill, read, reorient, resample, thin, write
from ssl2_bids.voxel_grid import same_grid


def ramp(shape=(12, 10, 8), affine=None) -> Volume:
    """Values equal to the world coordinate x + 2 y + 3 z: linear interpolation keeps them."""
    affine = np.diag([2.0, 3.0, 4.0, 1.0]) if affine is None else affine
    indices = np.stack(np.meshgrid(*map(np.arange, shape), [1.0], indexing='ij'), -1)[:, :, :, 0]
    world = indices @ affine.T
    return Volume((world[..., :3] @ [1, 2, 3]).astype(np.float32), affine)


def oblique() -> np.ndarray:
    angle = np.deg2rad(10)
    affine = np.diag([1.0, 1.5, 2.0, 1.0])
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = rotation @ affine
    affine[:3, 3] = [-5, 7, 11]
    return affine


@pytest.mark.parametrize('name', ['a.nii', 'a.nii.gz'])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
def test_what_is_written_is_read(tmp_path, name, dtype):
    volume = Volume(np.arange(24).reshape(2, 3, 4).astype(dtype), oblique())
    write(volume, tmp_path / name, dtype=dtype)
    back = read(tmp_path / name, dtype=dtype)
    assert np.array_equal(back.data, volume.data)
    assert np.allclose(back.affine, volume.affine, atol=1e-5)
    header = nib.load(tmp_path / name).header
    assert header.get_xyzt_units() == ('mm', 'sec')
    assert (int(header['sform_code']), int(header['qform_code'])) == (1, 1)


def test_equal_data_give_equal_bytes_without_a_time(tmp_path):
    for name in ('a.nii.gz', 'b.nii.gz'):
        write(ramp(), tmp_path / name)
    first = (tmp_path / 'a.nii.gz').read_bytes()
    assert first == (tmp_path / 'b.nii.gz').read_bytes()
    assert first[4:8] == bytes(4)
    assert gzip.decompress(first)


def test_a_colour_image_is_refused(tmp_path):
    data = np.zeros((4, 5, 6), [('R', 'u1'), ('G', 'u1'), ('B', 'u1')])
    nib.Nifti1Image(data, np.eye(4)).to_filename(tmp_path / 'x.nii')
    with pytest.raises(DataError, match='x.nii: a colour image'):
        read(tmp_path / 'x.nii')


@pytest.mark.parametrize('name', ['x.nii', 'x.nii.gz'])
def test_an_image_of_complex_numbers_is_refused(tmp_path, name):
    data = np.full((4, 5, 6), 1 + 2j, np.complex64)
    nib.Nifti1Image(data, np.eye(4)).to_filename(tmp_path / name)
    for dtype in (np.float32, None):
        with pytest.raises(DataError, match=f'{name}: an image of complex numbers'):
            read(tmp_path / name, dtype=dtype)


def test_a_fourth_axis_of_one_is_dropped(tmp_path):
    nib.Nifti1Image(np.ones((4, 5, 6, 1), np.float32), np.diag([2, 2, 2, 1])).to_filename(
        tmp_path / 'x.nii'
    )
    assert read(tmp_path / 'x.nii').shape == (4, 5, 6)


@pytest.mark.parametrize('reading', [read, read_header])
def test_a_process_that_can_open_no_file_is_no_fault_of_the_image(tmp_path, reading):
    path = tmp_path / 'x.nii.gz'
    write(ramp(), path)
    reading(path)
    former = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, former[1]))
    try:
        with pytest.raises(ReadError, match='reading failed') as caught:
            reading(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, former)
    assert caught.value.exit_code == StorageError.exit_code == 74


def test_a_disk_that_fails_behind_the_header_is_no_fault_of_the_image(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.EIO, 'Input/output error')

    path = tmp_path / 'x.nii'
    write(ramp(), path)
    monkeypatch.setattr('nibabel.arrayproxy.array_from_file', fail)
    with pytest.raises(ReadError, match='Input/output error'):
        read(path)


def test_a_file_that_does_not_fit_into_the_memory_is_no_fault_of_the_disk(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.ENOMEM, 'Cannot allocate memory')

    path = tmp_path / 'x.nii'
    write(ramp(), path)
    monkeypatch.setattr('nibabel.arrayproxy.array_from_file', fail)
    with pytest.raises(MemoryError):
        read(path)


@pytest.mark.parametrize('signs', list(itertools.product((1, -1), repeat=3)))
@pytest.mark.parametrize('order', list(itertools.permutations(range(3))))
def test_reorientation_moves_no_value_in_space(signs, order):
    flips = np.diag([*signs, 1.0])[[*order, 3]]
    volume = ramp(affine=flips @ np.diag([2.0, 3.0, 4.0, 1.0]))
    there = reorient(volume)
    assert nib.aff2axcodes(there.affine) == ('R', 'A', 'S')
    assert np.allclose(there.data, ramp(there.shape, there.affine).data, atol=1e-4)


def test_resampling_is_exact_for_what_is_linear():
    volume = ramp((30, 30, 30), oblique())
    target = oblique() @ np.diag([0.5, 0.5, 0.5, 1])
    target[:3, 3] += [8, 9, 10]
    there = resample(volume, target, (20, 20, 20))
    expected = ramp((20, 20, 20), target)
    inside = there.data != 0
    assert inside.mean() > 0.9
    assert np.allclose(there.data[inside], expected.data[inside], atol=1e-3)


def test_the_transform_points_from_the_wanted_grid_to_the_volume():
    volume = Volume(np.zeros((10, 10, 10), np.float32), np.eye(4))
    volume.data[5, 5, 5] = 1
    shift = np.eye(4)
    shift[0, 3] = 2
    there = resample(volume, np.eye(4), (10, 10, 10), transform=shift)
    assert np.argwhere(there.data > 0.5).tolist() == [[3, 5, 5]]


def test_the_same_grid_is_copied_exactly():
    volume = ramp()
    there = resample(volume, volume.affine, volume.shape)
    assert np.array_equal(there.data, volume.data)
    assert there.data is not volume.data


def test_going_coarse_averages_instead_of_picking():
    noise = np.random.default_rng(0).normal(0, 1, (40, 40, 40)).astype(np.float32)
    volume = Volume(noise, np.eye(4))
    coarse = np.diag([4.0, 4.0, 4.0, 1.0])
    smooth = resample(volume, coarse, (10, 10, 10)).data[1:-1, 1:-1, 1:-1]
    picked = resample(volume, coarse, (10, 10, 10), antialias=False).data[1:-1, 1:-1, 1:-1]
    assert picked.std() > 0.9
    assert smooth.std() < 0.3


@pytest.mark.parametrize(('voxel', 'step'), [(2.0, (2, 3, 1)), (0.5, (1, 1, 1)), (9.0, (7, 5, 2))])
def test_a_thinned_image_keeps_its_place(voxel, step):
    affine = np.diag([1.1, 0.7, 4.0, 1.0])
    affine[:3, 3] = -8, 5, 2
    index = np.stack(np.meshgrid(*map(np.arange, (7, 5, 2)), indexing='ij'), -1)
    for axis in range(3):
        volume = Volume(index @ affine[axis, :3] + affine[axis, 3], affine)  # its own coordinate
        thinned = thin(volume, voxel)
        own = np.stack(np.meshgrid(*map(np.arange, thinned.shape), indexing='ij'), -1)
        where = own @ thinned.affine[axis, :3] + thinned.affine[axis, 3]
        assert thinned.data == pytest.approx(where)
        assert thinned.spacing == pytest.approx(volume.spacing * step)
        filled = fill(thinned, volume, voxel)
        assert filled.shape == volume.shape
        assert np.array_equal(filled.affine, volume.affine)
        reach = step[axis] // 2 * volume.spacing[axis]
        assert np.abs(filled.data - volume.data).max() <= reach + 1e-6


def test_grids_within_a_tenth_of_a_voxel_are_one():
    volume = ramp()
    near = volume.affine.copy()
    near[0, 3] += 0.1
    assert same_grid(volume, Volume(volume.data, near))
    near[0, 3] += 0.4
    assert not same_grid(volume, Volume(volume.data, near))


@pytest.mark.parametrize(
    ('text', 'command'),
    [
        ('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n', 'git lfs pull'),
        ('/annex/objects/MD5E-s9--0.nii.gz\n', 'datalad get'),
    ],
)
def test_a_pointer_to_an_image_names_the_command_that_gets_it(tmp_path, text, command):
    path = tmp_path / 'sub-01_T1w.nii.gz'
    path.write_text(text)
    with pytest.raises(DataError, match='not downloaded') as caught:
        read(path)
    assert command in caught.value.advice


@pytest.mark.parametrize('name', ['a.nii', 'a.nii.gz'])
def test_a_voxel_size_of_zero_is_not_one_millimetre(tmp_path, name):
    image = nib.Nifti1Image(np.ones((8, 8, 8), np.float32), np.eye(4))
    image.set_qform(np.eye(4), 1)
    image.set_sform(None, 0)
    path = tmp_path / name
    image.to_filename(path)
    assert read(path).shape == (8, 8, 8)
    opened = gzip.open if name.endswith('gz') else open
    with opened(path, 'rb') as stream:
        content = bytearray(stream.read())
    content[84:88] = bytes(4)  # pixdim[2]
    with opened(path, 'wb') as stream:
        stream.write(content)
    with pytest.raises(DataError, match='absurd voxel size: 1 x 0 x 1 mm'):
        read(path)


@pytest.mark.parametrize(
    ('spacing', 'message'),
    [(0.001, 'absurd voxel size: 0.001'), (1000.0, 'absurd voxel size'), (0.0, 'orientation')],
)
def test_absurd_voxel_sizes_are_no_broken_orientations(tmp_path, spacing, message):
    affine = np.diag([spacing, spacing, spacing, 1.0])
    image = nib.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4))
    image.header.set_sform(affine, 1)
    image.header['qform_code'] = 0
    image.header['pixdim'][1:4] = 1
    path = tmp_path / 'x.nii'
    path.write_bytes(image.header.binaryblock + bytes(4) + bytes(4 * 64))
    with pytest.raises(DataError, match=message):
        read(path)


def test_one_wrong_byte_in_a_compressed_image_is_damage(tmp_path):
    """Many such images can be unpacked, to other voxels: the checksum at the end shows it."""
    path = tmp_path / 'image.nii.gz'
    data = np.random.default_rng(0).integers(0, 2, (24, 24, 24)).astype(np.uint8)
    write(Volume(data, np.eye(4)), path, dtype=np.uint8)
    sound = path.read_bytes()
    unpacked = 0
    for place in range(len(sound) // 2, len(sound) // 2 + 40):
        wrong = bytearray(sound)
        wrong[place] ^= 1
        path.write_bytes(bytes(wrong))
        try:
            unpacked += bool(np.asanyarray(nib.load(path).dataobj).any())
        except (OSError, EOFError, zlib.error):
            pass
        with pytest.raises(DataError, match='truncated or damaged'):
            read(path)
    assert unpacked
    path.write_bytes(sound + bytes(1000))  # padded, or with more bytes behind a sound end
    assert np.array_equal(read(path).data, data)
    path.write_bytes(sound + b'more')
    assert np.array_equal(read(path).data, data)
