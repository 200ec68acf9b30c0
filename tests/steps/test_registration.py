"""Linear registration: known transforms, other contrasts, thick slices, the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ssl2_bids.errors import DataError
from ssl2_bids.itk import from_itk, itk_image, to_itk
from ssl2_bids.steps.registration import (
    Registration,
    methods,
    register_affine,
    register_rigid,
)
from ssl2_bids.volume import Volume, read, resample


def known(degrees: tuple[float, ...], shift: tuple[float, ...], scale: float = 1) -> np.ndarray:
    """A rotation about the origin, where the brains below are, and a shift in mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler('xyz', degrees, degrees=True).as_matrix() * scale
    matrix[:3, 3] = shift
    return matrix


def displacement(one: np.ndarray, other: np.ndarray, mask: Volume) -> tuple[float, float]:
    """Mean and largest distance in mm between two transforms over a mask."""
    points = np.argwhere(mask.data > 0)[::53] @ mask.affine[:3, :3].T + mask.affine[:3, 3]
    change = one - other
    distances = np.linalg.norm(points @ change[:3, :3].T + change[:3, 3], axis=1)
    return float(distances.mean()), float(distances.max())


@pytest.fixture(scope='module')
def head() -> tuple[Volume, Volume, Volume]:
    """A T1w-like and a T2w-like image of one folded brain, and its mask, 2 mm, centred on 0."""
    random = np.random.default_rng(1)
    shape, affine = (80, 96, 76), np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1)
    grid = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3] + affine[:3, 3]
    folds = ndimage.gaussian_filter(random.normal(size=shape), 3)
    folds /= folds.std()
    radius = np.linalg.norm(grid / [58, 74, 56], axis=-1)
    brain = radius < 1
    classes = np.digitize(folds + 2.5 * (0.75 - radius), [-0.5, 0.5])
    centre = np.linalg.norm(grid / [16, 30, 14], axis=-1) < 1
    classes[centre] = 0
    t1w = np.where(brain, np.array([20.0, 60.0, 100.0])[classes], 0)
    t2w = np.where(brain, np.array([110.0, 70.0, 45.0])[classes], 0)
    images = [
        Volume((ndimage.gaussian_filter(i, 0.6) + random.normal(0, 2, shape)) * brain, affine, c)
        for i, c in ((t1w, 'T1w'), (t2w, 'T2w'))
    ]
    return images[0], images[1], Volume(brain.astype(np.uint8), affine)


def moved(volume: Volume, matrix: np.ndarray, spacing: tuple[float, ...], order: int) -> Volume:
    """What a scanner with other slices sees of a head that lies elsewhere."""
    affine = np.diag([*spacing, 1.0])
    shape = tuple(int(240 / s) for s in spacing)
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * spacing
    return resample(volume, affine, shape, transform=np.linalg.inv(matrix), order=order)


def test_recovers_a_known_move_between_contrasts_of_different_slices(head):
    t1w, t2w, mask = head
    truth = known((8, -6, 10), (12, -9, 7))
    spacing = (1.5, 1.5, 3.0)
    there, there_mask = moved(t2w, truth, spacing, 3), moved(mask, truth, spacing, 0)
    found = register_rigid(t1w, there, fixed_mask=mask, moving_mask=there_mask)
    mean, largest = displacement(found.matrix, truth, mask)
    assert mean < 0.1
    assert largest < 0.2
    assert not found.kept_identity
    assert found.after.normalised > found.before.normalised + 0.02
    rotation = found.matrix[:3, :3]
    assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)


def test_recovers_a_move_of_thirty_millimetres_and_fifteen_degrees(head):
    t1w, t2w, mask = head
    truth = known((15, 0, 0), (18, 20, -14))
    there, there_mask = moved(t2w, truth, (2, 2, 2), 1), moved(mask, truth, (2, 2, 2), 0)
    found = register_rigid(t1w, there, fixed_mask=mask, moving_mask=there_mask)
    assert displacement(found.matrix, truth, mask)[0] < 0.15


def test_without_masks_and_with_half_the_brain(head):
    t1w, t2w, mask = head
    truth = known((4, 3, -5), (3, -4, 5))
    there = moved(t2w, truth, (2, 2, 2), 1)
    slab = Volume(there.data[:, :, 45:80], there.affine @ _shift(0, 0, 45))
    found = register_rigid(t1w, slab)
    assert displacement(found.matrix, truth, mask)[0] < 0.4
    assert found.after.overlap < 0.8


def test_too_little_memory_does_not_leave_the_images_where_they_are(head, monkeypatch):
    def no_memory(*_):
        raise RuntimeError('ImageContainer.hxx:179:\nFailed to allocate memory for image.')

    monkeypatch.setattr(sitk.ImageRegistrationMethod, 'Execute', no_memory)
    t1w, t2w, mask = head
    with pytest.raises(MemoryError):
        register_rigid(t1w, t2w, fixed_mask=mask)


def _shift(*voxels: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = voxels
    return matrix


def test_aligned_images_stay_where_they_are(head):
    t1w, t2w, mask = head
    found = register_rigid(t1w, t2w, fixed_mask=mask, moving_mask=mask)
    assert displacement(found.matrix, np.eye(4), mask)[1] < 0.05
    assert found.after.score >= found.before.score


def test_identity_is_kept_where_nothing_is_better(head):
    t1w, _, mask = head
    unrelated = t1w.with_data(np.where(mask.data, 50.0, 0.0) + (np.indices(t1w.shape)[0] == 0))
    found = register_rigid(t1w, t1w, fixed_mask=mask, moving_mask=mask)
    assert found.kept_identity
    assert np.array_equal(found.matrix, np.eye(4))
    assert found.before == found.after
    with pytest.raises(DataError, match='constant'):
        register_rigid(t1w, unrelated, fixed_mask=mask, moving_mask=mask)


def test_affine_finds_size_and_shear(head):
    t1w, t2w, mask = head
    truth = known((5, -3, 4), (6, -4, 5), scale=0.85)
    truth[0, 1] += 0.04
    there, there_mask = moved(t2w, truth, (1.5, 1.5, 1.5), 1), moved(mask, truth, (1.5,) * 3, 0)
    found = register_affine(t1w, there, fixed_mask=mask, moving_mask=there_mask)
    assert displacement(found.matrix, truth, mask)[0] < 0.3


def test_same_bytes_whatever_the_threads(head):
    t1w, t2w, mask = head
    there = moved(t2w, known((3, 2, 1), (4, 5, 6)), (2, 2, 2), 1)
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()

    def run(threads: int, seed: int = 0) -> Registration:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
        try:
            found = register_rigid(t1w, there, fixed_mask=mask, seed=seed)
            assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == threads
            return found
        finally:
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)

    results = [run(threads) for threads in (1, 3)]
    assert len({found.matrix.tobytes() for found in results}) == 1
    assert len({found.after for found in results}) == 1
    assert run(1, seed=7).matrix.tobytes() != results[0].matrix.tobytes()


def test_wrong_masks_are_reported(head):
    t1w, t2w, mask = head
    with pytest.raises(DataError, match='T2w image cannot be registered: its brain mask is empty'):
        register_rigid(t1w, t2w, moving_mask=mask.with_data(mask.data * 0))
    cropped = Volume(mask.data[:-1], mask.affine)
    with pytest.raises(ValueError, match='grid'):
        register_rigid(t1w, t2w, fixed_mask=cropped)


def test_images_that_never_meet_keep_the_identity():
    random = np.random.default_rng(0)
    noise = Volume(random.normal(100, 10, (20, 20, 20)), np.diag([4.0, 4, 4, 1]))
    other = Volume(random.normal(100, 10, (20, 20, 20)), np.diag([4.0, 4, 4, 1]))
    other.affine[:3, 3] = 1000
    found = register_rigid(noise, other)
    assert np.isfinite(found.matrix).all()
    assert found.before.overlap == 0


def test_itk_text_is_what_itk_reads(tmp_path: Path):
    matrix = known((10, 20, -30), (1.25, -2.5, 1e-7), scale=0.9)
    path = tmp_path / 'x.txt'
    path.write_text(to_itk(matrix))
    transform = sitk.ReadTransform(str(path))
    point = np.array([12.5, -40.0, 33.0])
    expected = matrix[:3, :3] @ point + matrix[:3, 3]
    there = np.array(transform.TransformPoint((point * [-1, -1, 1]).tolist())) * [-1, -1, 1]
    assert np.allclose(there, expected, atol=1e-9)
    assert np.array_equal(from_itk(to_itk(matrix)), matrix)


def test_itk_resamples_with_the_text_as_we_do(head, tmp_path: Path):
    t1w, _, mask = head
    truth = known((8, -6, 10), (12, -9, 7))
    moving = moved(t1w, truth, (2, 2, 2), 1)
    path = tmp_path / 'x.txt'
    path.write_text(to_itk(truth))
    theirs = sitk.Resample(
        itk_image(moving), itk_image(t1w), sitk.ReadTransform(str(path)), sitk.sitkLinear
    )
    ours = resample(moving, t1w.affine, t1w.shape, transform=truth).data
    difference = np.abs(sitk.GetArrayFromImage(theirs).T - ours)
    assert difference[mask.data > 0].max() < 1e-2


def test_a_centre_written_by_itk_is_understood(tmp_path: Path):
    transform = sitk.AffineTransform(3)
    transform.SetCenter((10, -20, 30))
    transform.Rotate(0, 1, 0.3)
    transform.Translate((5, 6, 7))
    path = tmp_path / 'x.txt'
    sitk.WriteTransform(transform, str(path))
    matrix = from_itk(path.read_text())
    point = np.array([1.0, 2.0, 3.0])
    there = np.array(transform.TransformPoint((point * [-1, -1, 1]).tolist())) * [-1, -1, 1]
    assert np.allclose(matrix[:3, :3] @ point + matrix[:3, 3], there)


@pytest.mark.parametrize('text', ['', 'nonsense', to_itk(np.eye(4)) * 2, '{"a": 1}'])
def test_other_texts_are_refused(text):
    with pytest.raises(DataError, match='not an ITK text file'):
        from_itk(text)


def test_other_transforms_are_refused(tmp_path: Path):
    path = tmp_path / 'x.txt'
    sitk.WriteTransform(sitk.Euler3DTransform(), str(path))
    with pytest.raises(DataError, match='one affine'):
        from_itk(path.read_text())


def test_methods_name_all_contrasts():
    assert methods([], 'FLAIR') == ''
    assert 'The T1w image was registered to the FLAIR image' in methods(['T1w'], 'FLAIR')
    assert 'The T1w, T2w and PDw images were' in methods(['T1w', 'T2w', 'PDw'], 'FLAIR')


def test_real_thick_slices_agree_with_the_publishers(shared_data: Path):
    start = shared_data / 'ms-wholehead'
    name = 'sub-lj12/ses-1/anat/sub-lj12_ses-1_'
    flair = read(start / f'{name}FLAIR.nii.gz', contrast='FLAIR')
    t1w = read(start / f'{name}T1w.nii.gz', contrast='T1w')
    derived = start / 'derivatives' / 'manual'
    mask = read(derived / f'{name}desc-brain_mask.nii.gz', dtype=np.uint8)
    published = from_itk((derived / f'{name}from-T1w_to-FLAIR_mode-image_xfm.txt').read_text())
    found = register_rigid(flair, t1w, fixed_mask=mask)
    assert displacement(found.matrix, published, mask)[0] < 0.6  # theirs has twelve parameters
