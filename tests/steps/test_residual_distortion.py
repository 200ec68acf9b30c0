"""The smooth distortion between two aligned images, against one that was put in."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ssl2_bids.errors import DataError
from ssl2_bids.steps.residual_distortion import measure_distortion
from ssl2_bids.steps.template import template
from ssl2_bids.volume import Volume
from ssl2_bids.voxel_grid import same_grid


@pytest.fixture(scope='module')
def pair() -> tuple[Volume, Volume, Volume]:
    """A head, the same with its grey values inverted, and the brain mask; voxels of 2 mm."""
    model = template()
    data = ndimage.gaussian_filter(model.data.astype(np.float32), 0.8)[::2, ::2, ::2]
    head = Volume(data / data.max() * 1000, model.affine @ np.diag([2.0, 2.0, 2.0, 1.0]))
    brain = model.data[::2, ::2, ::2] > 0
    other = head.with_data(np.where(brain, 1200 - head.data, 0).astype(np.float32))
    return head, other, head.with_data(brain)


def displaced(image: Volume, brain: Volume, at_radius: float) -> tuple[Volume, np.ndarray]:
    """An image displaced along the radius, by the third power of it; the length in the brain."""
    voxels = np.indices(image.shape).reshape(3, -1)
    offset = 2.0 * (voxels - np.argwhere(brain.data).mean(axis=0)[:, None])
    shift = offset / 90 * (offset**2).sum(axis=0) / 90**2 * at_radius
    moved = ndimage.map_coordinates(image.data, voxels - shift / 2.0, order=1)
    length = np.linalg.norm(shift, axis=0)[brain.data.ravel()]
    return image.with_data(moved.reshape(image.shape).astype(np.float32)), length


def test_a_known_distortion_is_measured(pair):
    head, other, brain = pair
    still = measure_distortion(head, other, brain)
    assert still.high < 0.6
    moved, length = displaced(other, brain, 5.0)
    found = measure_distortion(head, moved, brain)
    assert found.high == pytest.approx(np.percentile(length, 95), rel=0.3)
    assert found.high > still.high + 1
    # the largest displacement is far from the middle of the brain
    places = np.argwhere(found.length.data > found.high)
    inside = np.argwhere(found.length.data > 0)
    middle = inside.mean(axis=0)
    distance = np.linalg.norm(places - middle, axis=1).mean()
    assert distance > 1.2 * np.linalg.norm(inside - middle, axis=1).mean()


def test_equal_bytes_from_equal_images(pair):
    head, other, brain = pair
    one, two = (measure_distortion(head, other, brain, seed=3) for _ in range(2))
    assert same_grid(one.length, two.length)
    assert one.length.data.tobytes() == two.length.data.tobytes()


def test_too_little_memory_is_no_property_of_the_image(pair, monkeypatch):
    def no_memory(*_):
        raise RuntimeError('Failed to allocate memory for image.')

    monkeypatch.setattr('SimpleITK.ImageRegistrationMethod.Execute', no_memory)
    with pytest.raises(MemoryError):
        measure_distortion(*pair)


def test_an_image_without_contrast_has_no_distortion(pair):
    head, other, brain = pair
    with pytest.raises(DataError, match='constant'):
        measure_distortion(head, other.with_data(np.ones(other.shape, np.float32)), brain)
    with pytest.raises(DataError, match='empty'):
        measure_distortion(head, other, brain.with_data(np.zeros(brain.shape, bool)))
