"""Which slices to label next."""

import numpy as np
import pytest

from ssl2_bids.training.adaptation.suggestions import (
    SliceGain,
    expected_error,
    slice_gains,
    suggest,
)


def test_doubt_and_contradiction_are_errors_to_expect():
    certain, torn = np.array([0.0, 1.0, 0.5, 0.9]), np.array([0.0, 1.0, 0.5, 0.1])
    assert expected_error([certain, torn]) == pytest.approx([0, 0, 0.5, 0.5])
    assert expected_error([certain]) == pytest.approx([0, 0, 0.5, 0.1])


def test_gain_is_a_volume_and_slices_keep_their_distance():
    error = np.zeros((10, 10, 40), np.float32)
    error[2:4, 2:4, 20] = 0.5
    error[2:4, 2:4, 21] = 0.4  # too near to the one before
    error[2:4, 2:4, 30] = 0.25
    found = slice_gains('sub-1', '1', error, voxel_size=(2, 2, 1))
    assert [(one.index, one.gain) for one in found] == [(20, 8.0), (30, 4.0)]


def test_nothing_is_to_be_gained_where_it_is_known():
    error = np.full((4, 4, 20), 0.1, np.float32)
    known = np.ones(error.shape, bool)
    known[..., 17] = False
    found = slice_gains('sub-1', '1', error, voxel_size=(1, 1, 1), known=known)
    assert [one.index for one in found] == [17]
    assert slice_gains('sub-1', '1', error, voxel_size=(1, 1, 1), known=known | True) == []


def test_a_second_slice_of_a_person_counts_half():
    gains = [
        SliceGain('a', 'a', 1, 10.0),
        SliceGain('a', 'a', 20, 9.0),
        SliceGain('b', 'b', 5, 6.0),
        SliceGain('c', 'c', 5, 4.0),
    ]
    found = suggest(gains, most=3)
    assert [(one.participant, one.index, one.gain) for one in found] == [
        ('a', 1, 10.0),
        ('b', 5, 6.0),
        ('a', 20, 4.5),
    ]
    assert suggest([], most=3) == []
