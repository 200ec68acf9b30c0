"""Which rung of the ladder is taken."""

from __future__ import annotations

import math

import pytest

from ssl2_bids.training.adaptation.decision import (
    CLEARLY,
    ScorePair,
    choose,
    decide,
    may_lower,
    standard_error,
)


def pairs(*after: float, before: float = 0.5, f1: float = math.nan) -> list[ScorePair]:
    """A participant for each Dice."""
    return [ScorePair(str(n), (before, value), (0.6, f1)) for n, value in enumerate(after)]


def test_the_decision():
    better = [ScorePair('a', (0.5, 0.6), (0.5, 0.5)), ScorePair('b', (0.4, 0.4), (0.5, 0.5))]
    assert decide(better).accepted
    assert decide(pairs(0.505, 0.505)).accepted
    assert decide(pairs(0.506, 0.506), 'recalibrated').accepted
    assert 'less than 0.005' in decide(pairs(0.504, 0.504), 'recalibrated').reason
    assert decide(pairs(0.504, 0.504), 'whole').accepted
    worse = [*better, ScorePair('c', (0.5, 0.4))]
    assert not decide(worse).accepted  # the mean is what it was
    assert 'did not increase' in decide(worse).reason
    assert decide(worse, always=True).accepted
    lesions_lost = [ScorePair('a', (0.5, 0.6), (0.5, 0.4))]
    assert 'F1 decreased' in decide(lesions_lost).reason
    unrelated = [ScorePair('a', (0.05, 0.09))]
    assert 'labels belong to these scans' in decide(unrelated).reason
    assert not decide(unrelated).accepted
    assert not decide([]).accepted
    assert decide([], always=True).accepted


def test_the_labels_of_its_fit_decide_on_a_recalibration_too():
    def cases(after: float, fitted: float, f1: float = 0.6) -> list[ScorePair]:
        return [ScorePair(name, (0.5, after), (0.6, f1), fitted) for name in 'ab']

    taken = decide(cases(0.49, 0.52), 'recalibrated')
    assert taken.accepted
    assert 'fitted to all labels: 0.520' in taken.reason
    assert 'less than 0.01' in decide(cases(0.51, 0.505), 'recalibrated').reason
    assert 'more than 0.02' in decide(cases(0.47, 0.52), 'recalibrated').reason
    assert 'F1 decreased' in decide(cases(0.51, 0.52, f1=0.5), 'recalibrated').reason
    assert not decide(cases(0.49, 0.52), 'whole').accepted
    one = [ScorePair('a', (0.5, 0.51), fitted=0.6)]  # slices of one person are tested on others
    assert not decide(one, 'recalibrated').accepted
    unrelated = [ScorePair(name, (0.05, 0.06), fitted=0.09) for name in 'ab']
    assert 'labels belong to these scans' in decide(unrelated, 'recalibrated').reason
    unrelated = [ScorePair(name, (0.02, 0.02), fitted=0.02) for name in 'ab']
    assert 'labels belong to these scans' in decide(unrelated, 'recalibrated').reason


@pytest.mark.parametrize('rung', ['recalibrated', 'whole'])
def test_within_one_person_more_must_be_gained(rung):
    sessions = [ScorePair('a', (0.5, 0.54)), ScorePair('a', (0.5, 0.51))]
    assert decide(sessions, rung).accepted
    little = decide([ScorePair('a', (0.5, 0.515))], rung)
    assert not little.accepted
    assert 'less than 0.02' in little.reason
    assert decide([ScorePair('a', (0.5, 0.515))], rung, always=True).accepted


def test_a_participant_with_many_sessions_counts_once():
    many = [ScorePair('a', (0.5, 0.6))] * 9 + [ScorePair('b', (0.5, 0.3))]
    assert not decide(many).accepted


def test_of_rungs_of_similar_dice_the_lowest_is_taken():
    choice = choose(
        {
            'recalibrated': pairs(0.55, 0.62, 0.58),
            'half-way': pairs(0.58, 0.61, 0.60),
            'whole': pairs(0.60, 0.58, 0.62),
        }
    )
    assert choice.rung == 'recalibrated'
    assert choice.decision.accepted
    assert 'within one standard error' in choice.decision.reason
    assert 'of the best, whole' in choice.decision.reason


def test_a_rung_that_is_better_in_every_participant_is_taken():
    choice = choose({'recalibrated': pairs(0.55, 0.56, 0.52), 'whole': pairs(0.65, 0.67, 0.62)})
    assert choice.rung == 'whole'
    assert 'standard error' not in choice.decision.reason


def test_a_rung_that_does_not_beat_the_start_model_is_never_taken():
    tests = {'recalibrated': pairs(0.55, 0.40, 0.55), 'half-way': pairs(0.66, 0.41, 0.55)}
    assert choose(tests).rung == 'half-way'  # whatever the standard error is
    tests = {'recalibrated': pairs(0.45, 0.49), 'whole': pairs(0.3, 0.6)}
    choice = choose(tests)
    assert not choice.decision.accepted
    assert 'did not increase' in choice.decision.reason


def test_a_rung_that_costs_lesions_is_passed_over():
    tests = {'recalibrated': pairs(0.7, 0.7, f1=0.5), 'half-way': pairs(0.6, 0.65, f1=0.6)}
    assert choose(tests).rung == 'half-way'


def test_always_takes_one_even_without_scores():
    tests = {'recalibrated': pairs(0.45, 0.44), 'whole': pairs(0.3, 0.4)}
    choice = choose(tests, always=True)
    assert (choice.rung, choice.decision.accepted) == ('recalibrated', True)
    assert 'although' in choice.decision.reason
    choice = choose({'half-way': [], 'whole': []}, always=True)
    assert (choice.rung, choice.decision.accepted) == ('whole', True)
    assert not choose({'half-way': [], 'whole': []}).decision.accepted


def test_of_labels_that_leave_nothing_for_a_test_the_few_numbers_are_taken():
    tests = {'recalibrated': [], 'last-layers': [], 'half-way': [], 'whole': []}
    choice = choose(tests, always=True)
    assert (choice.rung, choice.decision.accepted) == ('recalibrated', True)
    choice = choose(tests)
    assert (choice.rung, choice.decision.accepted) == ('recalibrated', False)


def test_the_standard_error_is_of_paired_differences_of_participants():
    assert standard_error(pairs(0.6, 0.7, 0.8), pairs(0.5, 0.6, 0.7)) == pytest.approx(0, abs=1e-9)
    found = standard_error(pairs(0.6, 0.7), pairs(0.5, 0.4))
    assert found == pytest.approx(0.1)  # differences 0.1 and 0.3
    assert standard_error(pairs(0.6), pairs(0.5)) == CLEARLY
    sessions = [ScorePair('a', (0.5, 0.6)), ScorePair('a', (0.5, 0.8)), ScorePair('b', (0.5, 0.5))]
    same = [ScorePair(one.participant, (0.5, 0.5)) for one in sessions]
    assert standard_error(sessions, same) == pytest.approx(0.1)  # 0.2 and 0


@pytest.mark.parametrize(
    ('before', 'after', 'span', 'accepted'),
    [
        (0.05, 0.45, 130.0, True),
        (0.05, 0.45, 60.0, True),
        (0.56, 0.65, 130.0, False),  # a model that finds most lesions
        (0.44, 0.67, 25.0, False),  # neighbouring slices
        (0.56, 0.65, math.nan, True),  # the threshold does not become lower
    ],
)
def test_one_participant_lowers_the_threshold_of_a_model_that_misses_most(
    before, after, span, accepted
):
    found = [ScorePair('a', (before, after), span=span)]
    assert may_lower(found) is accepted
    decision = decide(found, 'recalibrated')
    assert decision.accepted is accepted
    assert ('only with a gain of 0.1 in slices over at least 60 mm' in decision.reason) is (
        not accepted
    )
    assert decide(found, 'recalibrated', always=True).accepted
