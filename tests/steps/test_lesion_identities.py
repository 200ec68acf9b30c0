"""Numbers of lesions over time, through splits and merges."""

from __future__ import annotations

import numpy as np
from visits_phantom import balls

from ssl2_bids.steps.lesion_identities import number_lesions


def test_a_lesion_that_splits_is_followed_as_its_parts():
    whole = balls(((8, 10, 10), 4), ((14, 10, 10), 4))
    split = balls(((8, 10, 10), 3), ((16, 10, 10), 2))
    for masks in ([whole, split], [split, whole]):
        numbers = number_lesions(np.stack(masks), voxel_volume=1.0, minimum_volume=3.0)
        assert numbers.max() == 2
        assert {numbers[8, 10, 10], numbers[16, 10, 10]} == {1, 2}
        assert ((numbers > 0) == (whole | split)).all()


def test_a_speck_is_no_part_and_small_lesions_are_removed():
    one = balls(((8, 10, 10), 4))
    broken = balls(((8, 10, 10), 2.5))
    broken[11, 10, 10] = True  # a single voxel of what shrinks
    alone = balls(((25, 5, 5), 0.5))
    masks = np.stack([one | alone, broken | alone])
    numbers = number_lesions(masks, voxel_volume=1.0, minimum_volume=3.0)
    assert numbers.max() == 1
    assert numbers[25, 5, 5] == 0


def test_numbers_go_by_size_at_the_largest_visit():
    small, large = balls(((6, 6, 6), 2)), balls(((20, 12, 10), 4))
    masks = np.stack([small, small | large])
    numbers = number_lesions(masks, voxel_volume=1.0, minimum_volume=3.0)
    assert numbers[20, 12, 10] == 1
    assert numbers[6, 6, 6] == 2
