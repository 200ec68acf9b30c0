"""Filled lesions against the image before the lesions were painted."""

from __future__ import annotations

import numpy as np
import pytest
from phantoms import brain_image
from scipy import ndimage

from ssl2_bids.errors import DataError
from ssl2_bids.steps.inhomogeneity import correct_inhomogeneity
from ssl2_bids.steps.lesion_filling import fill_lesions, white_matter
from ssl2_bids.synthesis.healthy import class_means
from ssl2_bids.volume import Volume, read, reorient

LESIONS = 25
RADII = (2, 5)  # voxels


def t1w_phantom(seed: int = 0) -> tuple[Volume, Volume]:
    """White matter with a slow gradient inside grey matter, fluid in the middle; brain mask."""
    shape = (60, 70, 60)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing='ij'), -1).astype(float)
    radius = np.linalg.norm((grid - np.array(shape) / 2) / (28, 33, 28), axis=-1)
    values = np.select([radius < 0.15, radius < 0.75, radius < 1], [30, 100, 65], 0.0)
    values *= 1 + 0.05 * (grid[..., 1] / shape[1] - 0.5)
    noise = np.random.default_rng(seed).normal(0, 3, shape) * (radius < 1)
    brain = Volume((radius < 1).astype(np.uint8), np.eye(4), 'T1w')
    return Volume((values + noise).astype(np.float32), np.eye(4), 'T1w'), brain


def paint(image: Volume, brain: Volume, *, seed: int = 0) -> tuple[Volume, Volume]:
    """The image with dark balls in its white matter; their mask."""
    rng = np.random.default_rng(seed)
    white = white_matter(image.data, brain.data > 0)
    _, grey, bright = class_means(image.data[brain.data > 0])
    deep = np.argwhere(ndimage.distance_transform_edt(white) > 1.5)
    mask = np.zeros(image.shape, bool)
    near = np.stack(np.meshgrid(*[np.arange(-6, 7)] * 3, indexing='ij'), -1)
    for centre in deep[rng.choice(len(deep), LESIONS)]:
        ball = near[(near**2).sum(-1) <= rng.integers(*RADII) ** 2]
        at = np.clip(centre + ball, 0, np.array(image.shape) - 1)
        mask[tuple(at.T)] = True
    mask &= white
    damage = rng.uniform(0.5, 1.1, image.shape)
    painted = np.where(mask, image.data - damage * (bright - grey), image.data)
    return image.with_data(painted.astype(np.float32)), image.with_data(mask.astype(np.uint8))


def white_volume(image: Volume, brain: Volume) -> int:
    return int(white_matter(image.data, brain.data > 0).sum())


def check_filling(original: Volume, brain: Volume) -> None:
    painted, lesions = paint(original, brain)
    filled = fill_lesions(painted, lesions, brain)
    inside = lesions.data > 0
    assert np.array_equal(filled.data[~inside], painted.data[~inside])
    _, grey, bright = class_means(original.data[brain.data > 0])
    error = abs(filled.data[inside].mean() - original.data[inside].mean())
    assert error < 0.1 * (bright - grey)
    assert filled.data[inside].std() == pytest.approx(original.data[inside].std(), rel=0.5)
    true, damaged, mended = (white_volume(v, brain) for v in (original, painted, filled))
    assert true - damaged > 0.5 * inside.sum()
    assert abs(true - mended) < 0.15 * (true - damaged)


def test_a_filled_phantom_is_as_before_the_lesions():
    check_filling(*t1w_phantom())


@pytest.mark.parametrize('subject', ['rs60', 'cl01'])
def test_a_real_scan_of_a_healthy_person_is_as_before_the_lesions(shared_data, subject):
    """Lesions are painted into the scan; the untouched scan is the truth."""
    from ssl2_bids.steps.brain import extract_brain

    path = shared_data / 't1w-3t' / f'sub-{subject}' / 'anat' / f'sub-{subject}_T1w.nii.gz'
    if not path.is_file():
        pytest.skip(f'{path.name} is not there')
    scan = reorient(read(path, contrast='T1w'))
    brain = extract_brain(scan)
    check_filling(correct_inhomogeneity(scan, brain), brain)


def test_equal_bytes_and_nothing_to_fill():
    image, brain = t1w_phantom()
    painted, lesions = paint(image, brain)
    one, two = (fill_lesions(painted, lesions, brain).data for _ in range(2))
    assert one.tobytes() == two.tobytes()
    none = lesions.with_data(np.zeros_like(lesions.data))
    assert np.array_equal(fill_lesions(painted, none, brain).data, painted.data)


def test_an_image_without_bright_white_matter_is_refused():
    image, brain = t1w_phantom()
    flat = image.with_data(np.full(image.shape, 100, np.float32))
    lesions = brain.with_data(np.zeros_like(brain.data))
    lesions.data[30, 35, 40] = 1
    with pytest.raises(DataError, match='white matter cannot be separated'):
        fill_lesions(flat, lesions, brain)
    other = Volume(np.asarray(brain_image().dataobj), brain_image().affine)
    with pytest.raises(DataError, match='not on one grid'):
        fill_lesions(image, other, brain)
