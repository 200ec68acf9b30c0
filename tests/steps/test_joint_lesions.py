"""Lesions of several visits: masks, identities and states together."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy import ndimage
from visits_phantom import BALLS as SHAPE
from visits_phantom import balls

from ssl2_bids.steps.joint_lesions import _kept_visits, methods, segment_jointly
from ssl2_bids.steps.lesion_identities import number_lesions
from ssl2_bids.steps.lesion_states import STATES, NoiseBound, change_map
from ssl2_bids.volume import Volume

NOISE = NoiseBound(base=4.0, factor=0.0)


def jointly(probabilities: list[np.ndarray], evidence: list[np.ndarray] | None = None):
    stack = np.stack(probabilities).astype(np.float32)
    difference = np.zeros((len(stack) - 1, *SHAPE), np.float32)
    if evidence is not None:
        difference = np.stack(evidence).astype(np.float32)
    grid = Volume(np.ones(SHAPE, np.uint8), np.eye(4))
    return segment_jointly(stack, difference, grid, threshold=0.5, minimum_volume=3.0, noise=NOISE)


def as_probability(mask: np.ndarray, inside: float = 0.97) -> np.ndarray:
    return np.where(mask, inside, 0.02)


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


def test_each_visit_has_its_own_threshold():
    lesion = balls(((6, 6, 6), 3))
    stack = np.stack([np.where(lesion, p, 0.002) for p in (0.05, 0.30)]).astype(np.float32)
    grid = Volume(np.ones(SHAPE, np.uint8), np.eye(4))
    for order in (1, -1):
        found = segment_jointly(
            stack[::order], np.zeros((1, *SHAPE), np.float32), grid,
            threshold=[0.1, 0.5][::order], minimum_volume=3.0, noise=NOISE,
        )  # fmt: skip
        assert not found.instances.any()
    assert 'against 0.1 and 0.5, depending on' in methods([0.5, 0.1, 0.5])
    assert 'against 0.5)' in methods([0.5, 0.5])


def voxels(count: int) -> np.ndarray:
    """So many voxels beside one another."""
    mask = np.zeros(SHAPE, bool)
    mask[8:11, 8:11, 8:11] = (np.arange(27) < count).reshape(3, 3, 3)
    return mask


def by_volumes(*counts: int, minimum: float):
    stack = np.stack([as_probability(voxels(n), 0.95) for n in counts]).astype(np.float32)
    supported = [(b ^ a) * 3.0 * (1 if b.sum() > a.sum() else -1)
                 for a, b in pairwise([voxels(n) for n in counts])]  # fmt: skip
    found = segment_jointly(
        stack, np.stack(supported).astype(np.float32), Volume(np.ones(SHAPE, np.uint8), np.eye(4)),
        threshold=0.5, minimum_volume=minimum,
    )  # fmt: skip
    return [(one.volumes, one.states) for one in found.lesions]


def test_the_minimum_volume_makes_no_change_within_the_noise():
    assert by_volumes(9, 10, minimum=10) == [((9, 10), ('stable',))]
    assert by_volumes(14, 13, minimum=14) == [((14, 13), ('stable',))]
    assert by_volumes(9, 10, 10, minimum=10) == [((9, 10, 10), ('stable', 'stable'))]
    # along a chain of visits, each within the noise of the next
    assert by_volumes(4, 8, 12, minimum=10) == [((4, 8, 12), ('stable', 'stable'))]
    # beyond the noise the small visit is none, and so are small visits like it
    assert by_volumes(2, 2, 20, minimum=10) == [((0, 0, 20), (None, 'new'))]
    assert by_volumes(27, 9, minimum=10) == [((27, 0), ('resolved',))]
    assert by_volumes(9, 9, minimum=10) == []


def test_a_removal_is_taken_back_beside_what_is_within_the_noise_of_nothing():
    """Without the 12 mm^3 the lesion would be resolved after 5 mm^3: within the noise."""
    volumes, small = [16.0, 10.0, 5.0, 12.0], np.array([False, True, True, True])
    assert _kept_visits(volumes, small, NoiseBound()).all()
    assert _kept_visits(volumes[::-1], small[::-1], NoiseBound()).all()


def test_lesions_that_are_divided_otherwise_after_the_first_look_keep_the_rule():
    """A lesion that is divided differs from none within the noise, and is none in the end."""
    odds = np.array([
        [3.0, -0.2, 3.0, 1.0, -0.2, 1.0, 1.0, 1.0],
        [-4.0, -0.2, -0.2, -0.2, 0.5, 0.5, -0.2, -4.0],
        [-0.2, 3.0, 3.0, -4.0, -4.0, -4.0, -4.0, -4.0],
    ])  # fmt: skip
    changes = np.array([
        [-3.0, 0.0, -3.0, -1.2, 0.7, -0.5, -1.2, -3.0],
        [3.0, 3.0, 3.0, -3.0, -3.0, -3.0, -3.0, 0.0],
    ])  # fmt: skip
    found = segment_jointly(
        (1 / (1 + np.exp(-odds)))[..., None, None], changes[..., None, None],
        Volume(np.ones((8, 1, 1), np.uint8), np.eye(4)), threshold=0.5, minimum_volume=1.0,
    )  # fmt: skip
    states = [(one.index, one.volumes, one.states) for one in found.lesions]
    assert states == [(1, (2.0, 1.0, 2.0), ('stable', 'stable'))]
    assert found.instances.max() == 1


def test_new_and_resolved_are_beyond_the_noise():
    generator = np.random.default_rng(0)
    changed = 0
    for visits, minimum in ((2, 3.0), (2, 12.0), (3, 3.0), (3, 12.0)) * 4:
        peaks = np.zeros((visits, *SHAPE))
        for i, j, k in generator.integers(3, np.array(SHAPE) - 3, (14, 3)):
            peaks[:, i, j, k] = generator.uniform(80, 200) * generator.uniform(0, 1.5, visits)
        logits = np.stack([ndimage.gaussian_filter(one, 0.9) for one in peaks]) - 6
        logits += generator.normal(0, 0.8, logits.shape)
        found = segment_jointly(
            (1 / (1 + np.exp(-logits))).astype(np.float32),
            np.diff(logits, axis=0).astype(np.float32),
            Volume(np.ones(SHAPE, np.uint8), np.eye(4)),
            threshold=0.5, minimum_volume=minimum,
        )  # fmt: skip
        assert [one.index for one in found.lesions] == [*range(1, len(found.lesions) + 1)]
        for one in found.lesions:
            assert max(one.volumes) >= minimum
            for state, change, bound in zip(one.states, one.changes, one.bounds, strict=True):
                if state in ('new', 'resolved'):
                    changed += 1
                    assert abs(change) > bound, one
    assert changed > 20
