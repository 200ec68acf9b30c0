import math

import numpy as np
import pytest
from scipy import stats

from ssl2_bids.metrics.comparison import (
    MIN_VALUES,
    compare_models,
    holm,
    interval,
    permutation_p,
    wilcoxon_p,
)

NAN = math.nan
PEOPLE = [f'{n:02d}' for n in range(1, 9)]
FIRST = np.array([0.50, 0.61, 0.42, 0.55, 0.70, 0.33, 0.58, 0.49])
GAIN = np.array([0.05, 0.02, 0.08, -0.01, 0.03, 0.10, 0.04, 0.06])


def seeded(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_two_models_on_the_same_cases():
    result = compare_models(FIRST, FIRST + GAIN, PEOPLE, random=seeded())
    assert result.first == pytest.approx(FIRST.mean())
    assert result.difference == pytest.approx(GAIN.mean())
    assert result.second - result.first == pytest.approx(result.difference)
    assert 0 < result.low < result.difference < result.high
    # 2^8 signs: only all but the smallest positive, or all, give as large a sum; both ways
    assert result.p == pytest.approx(4 / 256)
    assert result.p_wilcoxon == pytest.approx(4 / 256)
    assert (result.participants, result.undefined) == (8, 0)


def test_roles_are_not_swapped():
    result = compare_models(FIRST + GAIN, FIRST, PEOPLE, random=seeded())
    assert result.difference < 0
    assert result.high < 0


def test_the_same_seed_gives_the_same_numbers():
    runs = [compare_models(FIRST, FIRST + GAIN, PEOPLE, random=seeded(n)) for n in (3, 3, 4)]
    assert runs[0] == runs[1]
    assert runs[0].high != runs[2].high


def test_pairs_matter():
    """Large differences between people hide a gain from an unpaired look alone."""
    hard_and_easy = np.linspace(0.1, 0.9, 8)
    result = compare_models(hard_and_easy, hard_and_easy + GAIN, PEOPLE, random=seeded())
    assert result.low > 0
    assert stats.ttest_ind(hard_and_easy, hard_and_easy + GAIN).pvalue > 0.5


def test_sessions_and_seeds_of_a_participant_are_averaged_first():
    values, people = [0.2, 0.4, 0.9], ['01', '01', '02']
    result = compare_models(values, np.zeros(3), people, random=seeded())
    assert result.first == pytest.approx((0.3 + 0.9) / 2)
    many = compare_models(np.tile(FIRST, 5), np.zeros(40), PEOPLE * 5, random=seeded())
    once = compare_models(FIRST, np.zeros(8), PEOPLE, random=seeded())
    assert many.participants == 8
    assert (many.low, many.high) == pytest.approx((once.low, once.high))


def test_undefined_scores_leave_a_case_out_and_are_counted():
    first, second = FIRST.copy(), FIRST + GAIN
    first[0], second[1] = NAN, -math.inf
    result = compare_models(first, second, PEOPLE, random=seeded())
    assert (result.participants, result.undefined) == (6, 2)
    assert result.difference == pytest.approx(GAIN[2:].mean())
    nothing = compare_models([NAN, NAN], [0, 0], ['01', '02'], random=seeded())
    assert (nothing.participants, nothing.undefined) == (0, 2)
    assert math.isnan(nothing.first)
    assert math.isnan(nothing.difference)


def test_a_few_participants_get_neither_interval_nor_p():
    count = MIN_VALUES - 1
    few = compare_models(FIRST[:count], FIRST[:count] + 0.1, PEOPLE[:count], random=seeded())
    assert few.difference == pytest.approx(0.1)
    assert all(math.isnan(v) for v in (few.low, few.high, few.p, few.p_wilcoxon))
    enough = permutation_p(np.full(MIN_VALUES, 0.1), random=seeded())
    assert enough == pytest.approx(2 / 2**MIN_VALUES)
    assert enough < 0.05 < 2 / 2**count


def test_intervals_cover_the_truth_about_as_often_as_stated():
    random = seeded(5)
    draws = random.normal(size=(400, MIN_VALUES))
    ends = [interval(values, random=random) for values in draws]
    assert 0.89 < np.mean([low <= 0 <= high for low, high in ends]) < 0.98


def test_many_participants_are_permuted_by_sampling():
    random = seeded(6)
    nothing = [permutation_p(random.normal(size=20), random=random) for _ in range(60)]
    assert 0.35 < np.mean(nothing) < 0.65
    assert permutation_p(random.normal(1.5, 1, 20), random=random) < 0.001


def test_sampled_and_exact_permutations_agree(monkeypatch):
    exact = permutation_p(GAIN - 0.03, random=seeded())
    monkeypatch.setattr('ssl2_bids.metrics.comparison.EXACT', 0)
    assert permutation_p(GAIN - 0.03, random=seeded()) == pytest.approx(exact, abs=0.02)


def test_equal_models_do_not_differ():
    result = compare_models(FIRST, FIRST, PEOPLE, random=seeded())
    assert (result.difference, result.low, result.high) == (0, 0, 0)
    assert (result.p, result.p_wilcoxon) == (1, 1)
    assert wilcoxon_p(np.zeros(10)) == 1


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1, 1]
    adjusted = holm([0.02, NAN, 0.01])
    assert adjusted[::2] == pytest.approx([0.02, 0.02])
    assert math.isnan(adjusted[1])
    assert holm([]) == []


def test_scores_without_a_participant_are_refused():
    with pytest.raises(ValueError, match='3 scores of 2 cases'):
        compare_models([1, 2, 3], [1, 2, 3], ['01', '02'], random=seeded())
