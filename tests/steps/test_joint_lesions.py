"""Lesions of several visits: noise is no change, identities, states."""

from __future__ import annotations

import numpy as np
import pytest

from ssl2_bids.steps.joint_lesions import (
    STATES,
    Hysteresis,
    NoiseBound,
    change_map,
    decide,
    log_odds,
    number_lesions,
    segment_jointly,
    state_of,
)
from ssl2_bids.volume import Volume

SHAPE = (30, 24, 20)
NOISE = NoiseBound(base=4.0, factor=0.0)


def balls(*places: tuple[tuple[int, int, int], float]) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    for centre, radius in places:
        mask |= (
            np.linalg.norm(np.indices(SHAPE) - np.array(centre)[:, None, None, None], axis=0)
            <= radius
        )
    return mask


def jointly(probabilities: list[np.ndarray], evidence: list[np.ndarray] | None = None):
    stack = np.stack(probabilities).astype(np.float32)
    difference = np.zeros((len(stack) - 1, *SHAPE), np.float32)
    if evidence is not None:
        difference = np.stack(evidence).astype(np.float32)
    grid = Volume(np.ones(SHAPE, np.uint8), np.eye(4))
    return segment_jointly(stack, difference, grid, threshold=0.5, minimum_volume=3.0, noise=NOISE)


def as_probability(mask: np.ndarray, inside: float = 0.97) -> np.ndarray:
    return np.where(mask, inside, 0.02)


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
    from itertools import product

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


def test_states_of_a_pair():
    stays, grows = balls(((6, 6, 6), 3)), balls(((22, 6, 6), 2))
    grown, comes, goes = balls(((22, 6, 6), 4)), balls(((6, 17, 10), 3)), balls(((22, 17, 10), 3))
    before, after = stays | grows | goes, stays | grown | comes
    found = jointly([as_probability(before), as_probability(after)])
    states = {
        name: next(one for one in found.lesions if one.index == found.instances[:, i, j, k].max())
        for name, (i, j, k) in {
            'stable': (6, 6, 6), 'enlarging': (22, 6, 6), 'new': (6, 17, 10),
            'resolved': (22, 17, 10),
        }.items()
    }  # fmt: skip
    for name, lesion in states.items():
        assert lesion.states == (name,), lesion
    assert states['stable'].changes == (0.0,)
    assert states['new'].volumes == (0.0, float(comes.sum()))
    marked = change_map(*found.instances, found.lesions, 0)
    assert marked[6, 17, 10] == STATES.index('new') + 1
    assert marked[22, 17, 10] == STATES.index('resolved') + 1


def test_time_backwards_turns_the_states():
    before, after = balls(((22, 6, 6), 2), ((8, 8, 8), 3)), balls(((22, 6, 6), 4))
    forth = jointly([as_probability(before), as_probability(after)])
    back = jointly([as_probability(after), as_probability(before)])
    turned = {'new': 'resolved', 'enlarging': 'shrinking'}
    turned |= {b: a for a, b in turned.items()}
    assert [one.states[0] for one in back.lesions] == [
        turned[one.states[0]] for one in forth.lesions
    ]


def test_noise_about_the_threshold_is_no_change():
    faint, none = balls(((8, 8, 8), 3)), np.zeros(SHAPE, bool)
    first = as_probability(faint, 0.6) + as_probability(none)
    found = jointly([first, np.where(faint, 0.45, 0.02)])
    assert [one.states for one in found.lesions] == [('stable',)]
    assert found.lesions[0].changes == (0.0,)


def test_a_lesion_within_the_noise_neither_comes_nor_goes():
    speck = np.zeros(SHAPE, bool)
    speck[8:11, 8, 8] = True  # 3 mm^3, below the bound of 4
    found = jointly([as_probability(speck * 0), as_probability(speck)])
    assert not found.lesions
    sure = jointly(
        [as_probability(balls(((8, 8, 8), 2)) * 0), as_probability(balls(((8, 8, 8), 2)))]
    )
    assert [one.states for one in sure.lesions] == [('new',)]


def test_specks_do_not_divide_a_new_lesion():
    new = balls(((14, 12, 10), 7))
    specks = balls(((10, 12, 10), 0.5), ((18, 12, 10), 0.5))
    specks[10, 12, 11:14] = specks[18, 12, 11:14] = True
    numbers = number_lesions(np.stack([specks, new]), voxel_volume=1.0, minimum_volume=3.0)
    assert numbers.max() == 1
    found = jointly([as_probability(specks), as_probability(new)])
    assert [one.states for one in found.lesions] == [
        ('enlarging',)
    ]  # 8 mm^3 beyond the noise of 4
    less = np.where(np.indices(SHAPE)[0] == 10, specks, False)
    found = jointly([as_probability(less), as_probability(new)])
    assert [(one.states, one.volumes[0]) for one in found.lesions] == [(('new',), 0.0)]


def test_three_visits_keep_identity_through_absence():
    lesion = balls(((8, 8, 8), 3))
    gone = np.zeros(SHAPE, bool)
    visits = [as_probability(m) for m in (lesion, gone, lesion)]
    missed = jointly(visits)  # by one visit of three, and no image shows a change
    assert [one.states for one in missed.lesions] == [('stable', 'stable')]
    found = jointly(visits, [lesion * -3.0, lesion * 3.0])
    assert [one.states for one in found.lesions] == [('resolved', 'new')]
    assert found.lesions[0].parts == (1, 0, 1)


def test_no_lesion_at_all():
    found = jointly([np.zeros(SHAPE), np.zeros(SHAPE)])
    assert found.lesions == ()
    assert not found.instances.any()


def test_bound_grows_with_the_lesion():
    bound = NoiseBound(base=5, factor=2, exponent=0.5)
    assert bound.of(0) == 5
    assert bound.of(100) == pytest.approx(25)
    assert NoiseBound(base=5, factor=0, voxel=64).of(9) == 320
    assert NoiseBound(base=5, factor=0, voxel=0.3).of(9) == 5
    assert state_of(100, 124, bound.of(112)) == 'stable'
    assert state_of(100, 140, bound.of(120)) == 'enlarging'
    assert state_of(0, 0, 5) is None
