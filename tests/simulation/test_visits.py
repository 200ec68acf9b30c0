from dataclasses import replace

import numpy as np
import pytest
from label_phantom import label_head

from ssl2_bids.simulation.anatomy.anatomy import Deformation, deform
from ssl2_bids.simulation.anatomy.label_maps import from_label_map
from ssl2_bids.simulation.lesions.lesions import PaintedLesions, paint, statistics_for
from ssl2_bids.simulation.mimics.mimics import draw_mimics, with_mimics
from ssl2_bids.simulation.visits import Changes, draw_changes, next_visit
from ssl2_bids.volume import Volume

CHANGES = Changes(new=5, enlarging=6, shrinking=4, vanished=3)


def generator(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope='module')
def first() -> PaintedLesions:
    affine = np.eye(4)
    affine[:3, 3] = -35.5
    template = from_label_map(Volume(label_head(skull=False), affine))
    head = deform(template, Deformation((1.0, 1.0, 1.0), (0.0,) * 6, 0.0, 1.0, 0))
    return paint(head, generator(3), load=2.5, statistics=statistics_for(7))


@pytest.fixture(scope='module')
def second(first) -> PaintedLesions:
    return next_visit(first, CHANGES, generator(4), statistics=statistics_for(7))


def test_as_many_lesions_change_as_asked_for(first, second):
    found = [lesion.change for lesion in second.table]
    counts = {kind: found.count(kind) for kind in ('new', 'enlarging', 'shrinking', 'vanished')}
    assert counts == vars(CHANGES)
    assert found.count('stable') == first.count - 13
    assert second.count == first.count + 2
    assert {lesion.change for lesion in first.table} == {''}


def test_each_change_is_what_it_is_called(first, second):
    before = {lesion.index: lesion for lesion in first.table}
    for lesion in second.table:
        old, new = first.instances == lesion.index, second.instances == lesion.index
        assert new.sum() * second.anatomy.voxel_volume == pytest.approx(lesion.volume_mm3)
        if lesion.change == 'stable':
            np.testing.assert_array_equal(old, new)
        elif lesion.change == 'enlarging':
            assert (new | ~old).all()
            assert new.sum() > 1.1 * old.sum()
        elif lesion.change == 'shrinking':
            assert (old | ~new).all()
            assert 0 < new.sum() < 0.85 * old.sum()
        elif lesion.change == 'vanished':
            assert not new.any()
            assert lesion.volume_mm3 == 0
            assert before[lesion.index].volume_mm3 <= 150
        else:
            assert lesion.index not in before
            assert not (new & first.truth).any()
            assert new.any()


def test_the_second_truth_is_consistent(first, second):
    np.testing.assert_array_equal(second.instances > 0, second.truth)
    numbers = set(np.unique(second.instances)) - {0}
    assert numbers == {lesion.index for lesion in second.table if lesion.change != 'vanished'}
    totals = [np.sum(list(v.anatomy.fractions.values()), axis=0) for v in (first, second)]
    np.testing.assert_allclose(totals[0], totals[1], atol=1e-5)


def test_nothing_changes_where_nothing_is_asked_for(first):
    same = next_visit(first, Changes(), generator())
    assert same.severity.tobytes() == first.severity.tobytes()
    assert same.damage.tobytes() == first.damage.tobytes()
    assert {lesion.change for lesion in same.table} == {'stable'}


def test_more_changes_than_lesions(first):
    later = next_visit(first, Changes(vanished=10_000, enlarging=10_000), generator(1))
    found = [lesion.change for lesion in later.table]
    assert 'stable' not in found or min(
        lesion.volume_mm3 for lesion in later.table if lesion.change == 'stable'
    )
    assert found.count('vanished') > 0.8 * first.count
    empty = paint(first.healthy, generator(), load=0)
    with_new = next_visit(empty, Changes(new=2, shrinking=3), generator(2))
    assert [lesion.change for lesion in with_new.table] == ['new', 'new']


def test_a_third_visit_continues_the_second(second):
    third = next_visit(second, Changes(new=1), generator(9))
    assert third.count == second.count + 1
    assert len({p.lesion.index for p in third.patches}) == third.count


def test_a_number_is_given_once(first):
    last = first.table[-1].index
    without = replace(first, table=first.table[:-1], patches=first.patches[:-1], highest=last)
    later = next_visit(without, Changes(new=1), generator(9))
    assert [one.index for one in later.table if one.change == 'new'] == [last + 1]
    assert later.highest == last + 1


def test_visits_repeat_themselves_and_keep_the_mimics(first):
    draw = draw_mimics(generator(6))
    baseline = with_mimics(first, draw)
    one, two = (next_visit(baseline, CHANGES, generator(4)) for _ in range(2))
    assert one.severity.tobytes() == two.severity.tobytes()
    assert one.table == two.table
    assert one.mimics == draw
    far = (first.severity == 0) & (one.severity == 0)
    # The vein of a lesion reaches out of it.
    far &= baseline.anatomy.fractions['vein'] == one.anatomy.fractions['vein']
    before, after = (v.anatomy.fractions['lesion'][far] for v in (baseline, one))
    np.testing.assert_allclose(before, after, atol=1e-3)


def test_counts_are_drawn_and_some_patients_are_stable():
    drawn = [draw_changes(generator(seed)) for seed in range(300)]
    quiet = np.mean([sum(vars(change).values()) == 0 for change in drawn])
    assert 0.33 < quiet < 0.5
    assert max(change.new for change in drawn) > 8
    assert draw_changes(generator(1)) == draw_changes(generator(1))
