"""The joint decision by voxel: noise is no change."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from ssl2_bids.steps.joint_decision import Hysteresis, decide, log_odds


def test_log_odds_are_against_the_threshold():
    found = log_odds(np.array([0.3, 0.5, 0.999, np.nan]), 0.3, 4.0)
    assert found == pytest.approx([0, np.log(0.7 / 0.3), 4, -4], abs=1e-5)
    assert log_odds(np.array([1.0]), 0.3, 2.0) == pytest.approx([2.0])


def test_visits_that_hardly_differ_decide_together():
    odds = np.array([[0.8, -0.8, 0.2], [-0.4, 0.4, 0.3]])
    found = decide(odds, np.zeros((1, 3)), Hysteresis(price=2.0))
    assert found.tolist() == [[True, False, True], [True, False, True]]


def test_a_clear_change_is_kept_and_difference_images_decide_the_others():
    odds = np.array([[-3.0, -1.0, -1.0, -1.0], [3.0, 1.0, 1.0, 1.0]])
    evidence = np.array([[0.0, 0.0, 3.0, -3.0]])
    found = decide(odds, evidence, Hysteresis(price=2.0, support=1.0))
    assert found[:, 0].tolist() == [False, True]
    assert found[0, 1] == found[1, 1]
    assert found[:, 2].tolist() == [False, True]
    assert found[0, 3] == found[1, 3]


def test_backwards_in_time_is_the_same_backwards():
    random = np.random.default_rng(0)
    odds, evidence = random.normal(0, 2, (4, 500)), random.normal(0, 2, (3, 500))
    forth = decide(odds, evidence)
    back = decide(odds[::-1], -evidence[::-1])
    assert (forth == back[::-1]).all()
    assert 0 < (forth[1:] != forth[:-1]).mean() < 0.5


def test_best_sequence_is_that_of_all_sequences():
    random = np.random.default_rng(1)
    odds, evidence = random.normal(0, 2, (4, 60)), random.normal(0, 2, (3, 60))
    how = Hysteresis()
    best, chosen = np.full(60, -np.inf), np.zeros((4, 60), bool)
    for states in product((0, 1), repeat=4):
        score = sum(s * odds[v] for v, s in enumerate(states))
        for v in range(3):
            step = states[v + 1] - states[v]
            if step:
                helped = np.minimum(how.support * step * evidence[v], how.price + how.bonus)
                score = score - (how.price - helped)
        better = score > best
        best = np.where(better, score, best)
        chosen[:, better] = np.array(states, bool)[:, None]
    assert (decide(odds, evidence) == chosen).all()
