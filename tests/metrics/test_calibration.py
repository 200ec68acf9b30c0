import math

import numpy as np
import pytest

from ssl2_bids.metrics.calibration import (
    brier,
    expected_calibration_error,
    near_lesions,
    normalised_dice,
)
from ssl2_bids.metrics.voxelwise import dice

SHAPE = (20, 22, 24)
NONE = np.zeros(SHAPE, bool)


def point(*place: int) -> np.ndarray:
    mask = NONE.copy()
    mask[place] = True
    return mask


# the neighbourhood


def test_near_is_five_millimetres_around_both_masks():
    near = near_lesions(point(5, 10, 10), point(15, 10, 10), (1, 1, 1))
    grid = np.indices(SHAPE)
    distances = [np.sqrt(((grid - np.array(c)[:, None, None, None]) ** 2).sum(0))
                 for c in ((5, 10, 10), (15, 10, 10))]  # fmt: skip
    assert np.array_equal(near, np.minimum(*distances) <= 5)
    assert near[10, 10, 10]
    assert near[5, 5, 10]
    assert not near[5, 4, 10]


def test_near_is_measured_in_millimetres():
    near = near_lesions(point(10, 10, 12), NONE, (0.7, 1.3, 5.0))
    assert near[3, 10, 12]
    assert not near[2, 10, 12]
    assert near[10, 13, 12]
    assert not near[10, 14, 12]
    assert near[10, 10, 13]
    assert not near[10, 10, 14]


def test_near_stays_inside_the_brain_and_the_image():
    brain = NONE.copy()
    brain[:, :, :3] = True
    near = near_lesions(point(0, 0, 0), NONE, (1, 1, 1), inside=brain)
    assert near[5, 0, 0]
    assert near.sum() == (near_lesions(point(0, 0, 0), NONE, (1, 1, 1)) & brain).sum() > 0
    assert not near_lesions(NONE, NONE, (1, 1, 1)).any()


# probabilities of voxels


def test_ece_by_hand():
    probability = np.array([0.05, 0.05, 0.85, 0.85, 0.85, 1.0])
    truth = np.array([0, 1, 1, 1, 0, 1], bool)
    expected = (2 * abs(0.05 - 1 / 2) + 3 * abs(0.85 - 2 / 3) + 0) / 6
    assert expected_calibration_error(probability, truth) == pytest.approx(expected)


def test_an_honest_probability_has_no_error_and_a_bold_one_has():
    random = np.random.default_rng(0)
    probability = random.uniform(size=200_000)
    truth = random.uniform(size=probability.shape) < probability
    assert expected_calibration_error(probability, truth) < 0.01
    bold = np.where(probability > 0.5, 0.99, 0.01)
    assert expected_calibration_error(bold, truth) == pytest.approx(0.24, abs=0.01)


def test_brier_by_hand():
    assert brier(np.array([0.0, 0.5, 1.0, 1.0]), np.array([0, 1, 1, 0], bool)) == 1.25 / 4
    assert brier(np.array([[0.0, 1.0]]), np.array([[False, True]])) == 0


def test_nothing_is_undefined():
    empty = np.empty(0), np.empty(0, bool)
    assert math.isnan(brier(*empty))
    assert math.isnan(expected_calibration_error(*empty))
    with pytest.raises(ValueError, match='shapes'):
        brier(np.zeros(3), np.zeros(4, bool))


# normalised Dice


def case(load: float, size: int = 100_000) -> tuple[np.ndarray, np.ndarray]:
    """80 % of the lesions found; false positives at a rate of 1e-4 of what is no lesion."""
    reference, prediction = np.zeros(size, bool), np.zeros(size, bool)
    count = int(load * size)
    reference[:count] = True
    prediction[: int(0.8 * count)] = True
    prediction[count : count + int(1e-4 * (size - count))] = True
    return reference, prediction


def test_at_the_load_of_reference_both_dice_agree():
    reference, prediction = case(0.001)
    assert normalised_dice(reference, prediction) == pytest.approx(dice(reference, prediction))


def test_the_load_of_the_patient_no_longer_matters():
    loads = 0.0005, 0.002, 0.01
    plain = [dice(*case(load)) for load in loads]
    normalised = [normalised_dice(*case(load)) for load in loads]
    assert max(plain) - min(plain) > 0.05
    assert max(normalised) - min(normalised) < 0.01


def test_normalised_dice_by_hand():
    reference, prediction = np.zeros(1000, bool), np.zeros(1000, bool)
    reference[:10], prediction[5:20] = True, True
    k = 0.999 * 10 / (0.001 * 990)
    assert normalised_dice(reference, prediction) == pytest.approx(10 / (10 + k * 10 + 5))


def test_normalised_dice_of_empty_masks():
    empty, some = np.zeros(50, bool), np.arange(50) < 3
    assert normalised_dice(empty, empty) == 1
    assert normalised_dice(empty, some) == normalised_dice(some, empty) == 0
    assert normalised_dice(np.ones(5, bool), np.ones(5, bool)) == 1
