"""Boxes around masks and the affines of parts of a grid."""

import numpy as np
import pytest
from scipy import ndimage

from ssl2_bids.voxel_grid import bounding_box, shift_affine, spacing_of, start_of, widen

OBLIQUE = np.array([[0.6, -0.8, 0, 5], [0.8, 0.6, 0, -3], [0, 0, 2, 1], [0, 0, 0, 1.0]])


def test_the_box_of_a_mask_is_the_one_of_scipy():
    mask = np.random.default_rng(0).random((9, 10, 11)) > 0.99
    (expected,) = ndimage.find_objects(mask.astype(np.uint8))
    assert bounding_box(mask) == expected


def test_margins_end_at_the_grid():
    mask = np.zeros((5, 6, 7), bool)
    mask[1, 2:4, 3] = True
    assert bounding_box(mask, 2) == (slice(0, 4), slice(0, 6), slice(1, 6))
    assert bounding_box(mask, [0, 1, 9]) == (slice(1, 2), slice(1, 5), slice(0, 7))
    assert widen((slice(0, 1),) * 3, (2, 2, 2), 5) == (slice(0, 2),) * 3


def test_an_empty_mask_has_no_box():
    with pytest.raises(ValueError, match='empty'):
        bounding_box(np.zeros((2, 2, 2)))


def test_a_part_lies_where_it_lay():
    mask = np.zeros((5, 6, 7))
    mask[2, 3, 4] = 1
    box = bounding_box(mask)
    part = shift_affine(OBLIQUE, start_of(box))
    assert np.allclose(part @ [0, 0, 0, 1], OBLIQUE @ [2, 3, 4, 1])
    assert np.allclose(spacing_of(part), [1, 1, 2])
