"""Recognising brain-only images, and extraction from whole heads."""

from __future__ import annotations

import numpy as np
import pytest
from phantoms import brain_image
from scipy import ndimage

from ssl2_bids.errors import DataError
from ssl2_bids.steps import brain, preprocess, quality
from ssl2_bids.volume import Volume, read, reorient


def phantom() -> Volume:
    image = brain_image()
    return Volume(np.asarray(image.dataobj), image.affine)


def test_a_brain_with_nothing_around_is_brain_only():
    assert brain.is_brain_only(phantom())


def test_air_with_noise_is_no_stripped_image():
    image = phantom()
    noisy = image.with_data(image.data + np.random.default_rng(0).random(image.shape))
    assert not brain.is_brain_only(noisy)


def test_a_head_whose_air_is_zero_is_no_brain():
    big = phantom()
    head = Volume(big.data, big.affine @ np.diag([1.3, 1.3, 1.3, 1]))
    assert not brain.is_brain_only(head)


def with_skull(image: Volume) -> Volume:
    """A brain in 8 mm of dark skull and 8 mm of scalp, zero outside."""
    data = np.pad(image.data, 4)
    outside = ndimage.distance_transform_edt(data == 0, sampling=image.spacing)
    around = np.where(outside <= 8, 12, np.where(outside <= 16, 60, 0))
    return Volume(np.where(data > 0, data, around).astype(np.float32), image.affine)


def test_a_small_part_of_a_head_whose_air_is_zero_is_no_brain():
    head = with_skull(phantom())
    part = Volume(head.data[:, :, 20:].copy(), head.affine)
    assert brain.may_be_brain_only(part)
    found = brain.find_brain(part)
    assert not found.brain_only
    assert found.warnings == (brain.IS_HEAD,)
    assert found.mask.data.sum() < 0.7 * (part.data > 0).sum()
    mask, brain_only, doubts, _ = preprocess.brain_mask(part, mode='auto', stripped=None)
    assert (brain_only, doubts) == (False, [brain.IS_HEAD])
    assert np.array_equal(mask.data, found.mask.data)


def test_a_part_of_a_brain_is_brain_only():
    image = phantom()
    part = Volume(image.data[:, :, 16:30].copy(), image.affine)
    found = brain.find_brain(part)
    assert (found.brain_only, found.warnings) == (True, ())


@pytest.mark.parametrize(
    ('name', 'slices'),
    [
        ('sub-lj03_ses-2_FLAIR', (0, 48)),
        ('sub-lj03_ses-2_FLAIR', (4, 38)),
        ('sub-lj03_ses-2_FLAIR', (0, 34)),
        ('sub-lj12_ses-1_T1w', (16, 35)),  # with bright fat
    ],
)
def test_a_real_head_of_few_slices_and_zero_air(shared_data, name, slices):
    subject, session, _ = name.split('_')
    path = shared_data / f'ms-wholehead/{subject}/{session}/anat/{name}.nii.gz'
    image = reorient(read(path))
    data = image.data[:, :, slice(*slices)].copy()
    data[data < 0.08 * np.percentile(image.data, 99)] = 0
    assert not brain.is_brain_only(Volume(data, image.affine))


def test_the_mask_of_a_stripped_image_has_no_holes_and_no_crumbs():
    image = phantom()
    data = image.data.copy()
    centre = tuple(n // 2 for n in image.shape)
    data[centre] = 0
    data[2, 2, 2] = 5
    mask = brain.mask_of_brain_only(image.with_data(data))
    assert mask.data[centre] == 1
    assert mask.data[2, 2, 2] == 0


def test_an_image_without_a_brain_is_reported():
    with pytest.raises(DataError, match='no brain'):
        brain.extract_brain(Volume(np.zeros((40, 40, 40), np.float32), np.eye(4) * 4))


def no_memory(*_, **__):
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


def test_too_little_memory_is_no_missing_brain(monkeypatch):
    monkeypatch.setattr('deepbet.bet.BrainExtraction.run_model', no_memory)
    head = with_skull(phantom())
    with pytest.raises(MemoryError):
        brain.extract_brain(head)
    with pytest.raises(MemoryError):
        brain.find_brain(Volume(head.data[:, :, 20:].copy(), head.affine))


@pytest.mark.parametrize('contrast', ['T1w', 'FLAIR'])
def test_a_real_head(shared_data, contrast):
    folder = shared_data / 'ms-wholehead'
    path = folder / f'sub-lj12/ses-1/anat/sub-lj12_ses-1_{contrast}.nii.gz'
    image = reorient(read(path))
    assert not brain.is_brain_only(image)
    mask = brain.extract_brain(image)
    assert quality.check_brain_volume(mask) == []
    if contrast == 'FLAIR':
        name = 'sub-lj12_ses-1_desc-brain_mask.nii.gz'
        other = reorient(read(folder / 'derivatives/manual/sub-lj12/ses-1/anat' / name)).data > 0
        both = 2 * (other & (mask.data > 0)).sum() / (other.sum() + mask.data.sum())
        assert both > 0.92  # theirs is rough at the base


def test_real_stripped_images_are_recognised(shared_data):
    for path in sorted((shared_data / 'ms-stripped').glob('sub-*/anat/*.nii.gz')):
        assert brain.is_brain_only(read(path)), path.name
    for path in sorted((shared_data / 't1w-3t').glob('sub-cl*/anat/*.nii.gz'))[:4]:
        assert not brain.is_brain_only(read(path)), path.name
