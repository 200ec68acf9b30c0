import math

import numpy as np
import pytest
from scipy import ndimage

from ssl2_bids.metrics.lesionwise import anima, any_overlap, detection_by_size, overlaps


def row(*runs: tuple[int, int], length: int = 400) -> np.ndarray:
    """An instance map along one axis: each run (start, stop) is a lesion, by its order."""
    lesions = np.zeros((length, 1, 1), int)
    for number, (start, stop) in enumerate(runs, start=1):
        lesions[start:stop] = number
    return lesions


NONE = row()


@pytest.mark.parametrize('rule', [any_overlap, anima])
def test_empty_cases(rule):
    both = rule(NONE, NONE)
    assert (both.sensitivity, both.precision, both.f1) == (1, 1, 1)
    missed = rule(row((0, 5)), NONE)
    assert (missed.sensitivity, missed.f1, missed.reference_count) == (0, 0, 1)
    assert math.isnan(missed.precision)
    invented = rule(NONE, row((0, 5)))
    assert (invented.precision, invented.f1, invented.prediction_count) == (0, 0, 1)
    assert math.isnan(invented.sensitivity)


@pytest.mark.parametrize('rule', [any_overlap, anima])
def test_nothing_met_is_zero_and_not_undefined(rule):
    scores = rule(row((0, 5)), row((10, 15)))
    assert (scores.sensitivity, scores.precision, scores.f1) == (0, 0, 0)


@pytest.mark.parametrize('rule', [any_overlap, anima])
def test_identical_maps_are_perfect(rule):
    lesions = row((0, 3), (10, 14), (20, 50))
    scores = rule(lesions, lesions)
    assert (scores.f1, scores.detected, scores.confirmed) == (1, 3, 3)


def test_counts_and_f1_by_any_overlap():
    reference = row((0, 10), (20, 30), (40, 50), (60, 70))
    prediction = row((5, 12), (45, 47), (100, 110))
    scores = any_overlap(reference, prediction)
    assert (scores.detected, scores.reference_count) == (2, 4)
    assert (scores.confirmed, scores.prediction_count) == (2, 3)
    assert scores.f1 == pytest.approx(2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3))


def test_one_prediction_over_two_lesions_and_two_over_one():
    assert any_overlap(row((0, 10), (12, 20)), row((0, 20))).sensitivity == 1
    assert any_overlap(row((0, 20)), row((0, 4), (8, 12))).precision == 1


def test_anima_wants_more_than_a_tenth_of_the_lesion():
    reference = row((0, 20))
    assert anima(reference, row((0, 2))).sensitivity == 0  # exactly 10 %
    assert anima(reference, row((0, 3))).sensitivity == 1
    assert any_overlap(reference, row((0, 2))).sensitivity == 1


def test_anima_adds_up_small_components_for_alpha():
    reference = row((0, 30))
    scattered = row((0, 1), (5, 6), (10, 11), (15, 16))  # each 3 %, together 13 %
    assert anima(reference, scattered).sensitivity == 1


def test_anima_rejects_a_component_mostly_outside_all_lesions():
    reference = row((0, 10))
    assert anima(reference, row((5, 22))).sensitivity == 0  # 12 of 17 outside: 71 %
    assert anima(reference, row((4, 24))).sensitivity == 1  # 14 of 20: 70 % is allowed
    assert any_overlap(reference, row((5, 22))).sensitivity == 1


def test_anima_beta_counts_what_is_outside_of_all_lesions_not_of_this_one():
    # the prediction covers a small and a large lesion: outside of the small one, yet true
    assert anima(row((0, 4), (5, 60)), row((0, 60))).sensitivity == 1


def test_anima_does_not_look_beyond_gamma():
    # 7 of 10 overlapping voxels by the good component (70 % >= 65 %): the leak is not looked at
    reference = row((0, 10))
    prediction = row((0, 7), (7, 100))
    assert anima(reference, prediction).sensitivity == 1
    # 6 of 10 are not enough: the leaking component is looked at and spoils it
    assert anima(reference, row((0, 6), (6, 100))).sensitivity == 0
    assert anima(reference, row((0, 6), (6, 100)), gamma=0.6).sensitivity == 1


def test_anima_looks_at_the_largest_overlap_first_whatever_its_number():
    reference = row((0, 10))
    leak_first = row((7, 100), (0, 7))  # the leaking component has number 1
    assert anima(reference, leak_first).sensitivity == 1


def test_anima_precision_swaps_the_roles():
    reference = row((10, 12))
    prediction = row((0, 40))
    scores = anima(reference, prediction)
    # 5 % of the predicted lesion is covered: not confirmed; it lies 95 % outside: not detected
    assert (scores.confirmed, scores.detected) == (0, 0)
    scores = anima(row((0, 40)), row((10, 30)))
    assert (scores.confirmed, scores.detected) == (1, 1)


def test_numbers_with_gaps_and_integer_types():
    reference = row((0, 5), (10, 15)) * 7
    prediction = row((0, 5), (10, 15)).astype(np.uint16) * 1000
    assert anima(reference, prediction).detected == 2
    assert overlaps(reference, prediction).toarray().tolist() == [[0, 0, 0], [0, 5, 0], [0, 0, 5]]


def test_detection_by_size_bins():
    # volumes 2, 3, 9, 10, 100, 300 mm^3; those of 9 and 300 are met
    starts = [0, 5, 10, 30, 50, 200]
    reference = row(*zip(starts, [2, 8, 19, 40, 150, 500], strict=True), length=600)
    prediction = row((18, 20), (499, 520), length=600)
    bins = detection_by_size(reference, prediction, voxel_volume=1.0)
    assert [(b.lower, b.upper) for b in bins] == [(3, 10), (10, 30), (30, 100), (100, math.inf)]
    assert [b.count for b in bins] == [2, 1, 0, 2]  # the lesion of 2 mm^3 is in none
    assert [b.detected for b in bins] == [1, 0, 0, 1]
    assert math.isnan(bins[2].sensitivity)
    assert bins[0].sensitivity == 0.5


def test_size_counts_cubic_millimetres():
    bins = detection_by_size(row((0, 20)), row((0, 20)), voxel_volume=0.5)
    assert [b.count for b in bins] == [0, 1, 0, 0]
    # 3 voxels whose volume rounds below a third of 9 are still 9 mm^3, thus below 10, not below 3
    assert detection_by_size(row((0, 3)), NONE, voxel_volume=1 - 1e-12)[0].count == 1


def test_agrees_with_a_plain_reading_of_the_rule_on_random_maps():
    rng = np.random.default_rng(0)
    for _ in range(5):
        masks = [
            ndimage.gaussian_filter(rng.normal(size=(24, 24, 24)), 1.5) > 0.12 for _ in range(2)
        ]
        masks[1] |= masks[0] & (rng.random(masks[0].shape) < 0.3)
        maps = [ndimage.label(mask, np.ones((3, 3, 3)))[0] for mask in masks]
        scores = anima(*maps)
        assert scores.detected == _plain_anima(*maps)
        assert scores.confirmed == _plain_anima(*maps[::-1])


def _plain_anima(reference: np.ndarray, prediction: np.ndarray) -> int:
    detected = 0
    for number in range(1, reference.max() + 1):
        lesion = reference == number
        overlap = (prediction[lesion] > 0).sum()
        if overlap / lesion.sum() <= 0.10:
            continue
        met = [(n, (prediction[lesion] == n).sum()) for n in range(1, prediction.max() + 1)]
        collected, fine = 0.0, True
        for component, voxels in sorted(met, key=lambda pair: -pair[1]):
            if collected >= 0.65 or not fine:
                break
            inside = reference[prediction == component] > 0
            fine = (~inside).mean() <= 0.70
            collected += voxels / overlap
        detected += fine
    return detected


def test_shapes_must_agree():
    with pytest.raises(ValueError, match='shapes differ'):
        any_overlap(NONE, row(length=9))
