import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from ssl2_bids.simulation.lesions.growth import LesionAppearance, PaintedLesion
from ssl2_bids.simulation.lesions.lesions import Truth
from ssl2_bids.simulation.rater import (
    RaterDraw,
    annotated_slices,
    draw_rater,
    miss_probability,
    read_by_hand,
    redraw,
)
from ssl2_bids.volume import Volume

CAREFUL = RaterDraw(small=0.0, faint=0.0, invented=0, seed=1)
SHAPE = (60, 70, 50)


def generator(seed=0):
    return np.random.default_rng(seed)


def ball(centre, radius):
    at = np.indices(SHAPE) - np.reshape(centre, (3, 1, 1, 1))
    return np.sqrt((at**2).sum(axis=0)) <= radius


@pytest.fixture(scope='module')
def truth() -> Truth:
    instances = np.zeros(SHAPE, np.uint16)
    number = 0
    for x in range(8, 56, 10):
        for y in range(8, 66, 10):
            for z in range(8, 46, 10):
                number += 1
                instances[ball((x, y, z), 1 + 3 * (number % 5) / 4)] = number
    return Truth(instances > 0, instances, np.zeros(SHAPE, bool), np.eye(4))


def lesion(index, damage):
    look = LesionAppearance(damage, 1.8, 1.0, 0.2, 2.0)
    return PaintedLesion(index, 'deep', 'white', 'ovoid', (0.0, 0.0, 0.0), 30.0, 30.0, 0, look)


@pytest.fixture(scope='module')
def brain():
    inside = np.zeros(SHAPE, bool)
    inside[4:-4, 4:-4, 4:-4] = True
    return inside


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_a_careful_rater_finds_all_with_other_borders(truth, brain):
    reading = read_by_hand(truth, (), CAREFUL, brain=brain)
    assert reading.missed == ()
    assert reading.invented == 0
    found = set(np.unique(truth.instances[reading.mask])) - {0}
    assert found == set(range(1, int(truth.instances.max()) + 1))
    assert 0.7 < dice(reading.mask, truth.mask) < 0.98
    # Offsets are a little outside in the mean: raters draw too much rather than too little.
    assert reading.mask.sum() > truth.mask.sum()
    within = ndimage.binary_dilation(truth.mask, np.ones((5, 5, 5)))
    assert not (reading.mask & ~within).any()


def test_borders_move_by_the_offset():
    shape = ball((30, 35, 25), 8)[18:43, 23:48, 13:38]
    radii = [
        np.cbrt(redraw(shape, np.ones(3), offset, generator(2)).sum() * 3 / (4 * np.pi))
        for offset in (-1.0, 0.0, 1.0)
    ]
    assert radii[0] < radii[1] < radii[2]
    assert radii[2] - radii[0] == pytest.approx(2.0, abs=0.5)
    # Across thick slices a voxel is farther away than within them.
    thick = redraw(shape, np.array([1.0, 1.0, 4.0]), 1.0, generator(2))
    grown = thick & ~shape
    assert not grown[:, :, shape.any(axis=(0, 1)).argmax() - 1].any()
    tiny = np.zeros((7, 7, 7), bool)
    tiny[3, 3, 3] = True
    assert redraw(tiny, np.ones(3), -3.0, generator()).sum() == 1


def test_small_and_faint_lesions_are_missed_more_often(truth, brain):
    draw = RaterDraw(small=0.5, faint=0.4, invented=0, seed=3)
    assert (
        miss_probability(None, 2.0, draw)
        > miss_probability(None, 20.0, draw)
        > miss_probability(None, 90, draw)
    )
    assert miss_probability(lesion(1, 0.12), 90.0, draw) > 0.3
    assert miss_probability(lesion(1, 0.5), 900.0, draw) < 0.01
    table = tuple(lesion(n, 0.12) for n in range(1, int(truth.instances.max()) + 1))
    plain, faint = (read_by_hand(truth, rows, draw, brain=brain) for rows in ((), table))
    assert len(faint.missed) > len(plain.missed) > 0
    assert set(plain.missed) <= set(faint.missed)
    for number in faint.missed:
        assert not faint.mask[truth.instances == number].any()


def test_some_lesions_are_invented_in_the_brain_and_apart(truth, brain):
    draw = dataclasses.replace(CAREFUL, invented=30)
    few = np.where(truth.instances <= 3, truth.instances, 0)
    truth = dataclasses.replace(truth, instances=few, mask=few > 0)
    base = read_by_hand(truth, (), CAREFUL, brain=brain)
    reading = read_by_hand(truth, (), draw, brain=brain)
    extra = reading.mask & ~base.mask
    assert 5 < reading.invented <= 30
    assert extra.any()
    assert not (extra & ~brain).any()
    assert not (extra & truth.mask).any()


def test_spots_that_could_be_lesions_are_drawn_at_times(brain):
    ignore = np.zeros(SHAPE, bool)
    for x in range(8, 56, 8):
        for y in range(8, 64, 8):
            ignore[ball((x, y, 25), 1.5)] = True
    empty = np.zeros(SHAPE, np.uint16)
    truth = Truth(empty > 0, empty, ignore, np.eye(4))
    reading = read_by_hand(truth, (), CAREFUL, brain=brain)
    share = (reading.mask & ignore).sum() / ignore.sum()
    assert 0.3 < share < 0.7
    assert not (reading.mask & ~ignore).any()


def test_reading_repeats_itself(truth, brain):
    draw = draw_rater(generator(4))
    assert draw == draw_rater(generator(4))
    first, second = (read_by_hand(truth, (), draw, brain=brain) for _ in range(2))
    assert first.mask.tobytes() == second.mask.tobytes()
    other = read_by_hand(truth, (), dataclasses.replace(draw, seed=99), brain=brain)
    assert other.mask.tobytes() != first.mask.tobytes()
    drawn = [draw_rater(generator(seed)) for seed in range(200)]
    assert 1.0 < np.mean([each.invented for each in drawn]) < 2.0
    assert all(0.1 <= each.small <= 0.5 and 0 <= each.faint <= 0.4 for each in drawn)


def volume(axes):
    """A brain of 100 mm, its voxel axes in this order (all towards RAS or the opposite)."""
    data = np.zeros((40, 60, 120), bool)
    data[5:35, 5:55, 10:110] = True
    permuted = {'RAS': (0, 1, 2), 'PSR': (1, 2, 0), 'SLA': (2, 0, 1)}[axes]
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for column, axis in enumerate(permuted):
        affine[axis, column] = -1 if axes[column] in 'LPI' else 1
    return Volume(data.transpose(permuted).copy(), affine)


@pytest.mark.parametrize(('axes', 'axis'), [('RAS', 2), ('PSR', 1), ('SLA', 0)])
def test_every_nth_axial_slice_is_annotated(axes, axis):
    brain = volume(axes)
    starts = set()
    for seed in range(20):
        extent = annotated_slices(brain, generator(seed), every=10)
        assert extent.axis == axis
        assert len(extent.slices) == 10
        assert set(np.diff(extent.slices)) == {10}
        assert all(10 <= n < 110 for n in extent.slices)
        assert (extent.mask & brain.data).sum() / brain.data.sum() == pytest.approx(0.1)
        planes = np.moveaxis(extent.mask, axis, 0)
        assert planes[list(extent.slices)].all()
        assert planes.sum() == extent.mask.sum() == 10 * planes[0].size
        starts.add(extent.slices[0])
    assert len(starts) > 5
    again = annotated_slices(brain, generator(3), every=10)
    assert again.slices == annotated_slices(brain, generator(3), every=10).slices


def test_annotated_slices_of_odd_brains():
    brain = volume('RAS')
    assert len(annotated_slices(brain, generator(), every=1).slices) == 100
    thin = np.zeros(brain.shape)
    thin[5:10, 5:10, 60:63] = 1
    extent = annotated_slices(brain.with_data(thin), generator(7), every=10)
    assert len(extent.slices) == 1
    assert 60 <= extent.slices[0] < 63
    nothing = annotated_slices(brain.with_data(np.zeros(brain.shape)), generator(), every=10)
    assert nothing.slices == ()
    assert not nothing.mask.any()


def test_annotated_slices_are_those_of_a_rater_file():
    from ssl2_bids.steps.annotation import read_label_values

    brain = volume('PSR')
    extent = annotated_slices(brain, generator(2), every=10)
    sidecar = {'AnnotatedSlices': {'Axis': 'ijk'[extent.axis], 'Indices': list(extent.slices)}}
    annotation = read_label_values(brain.with_data(np.zeros(brain.shape)), sidecar)
    np.testing.assert_array_equal(annotation.extent.data, extent.mask)
