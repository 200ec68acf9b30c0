import json
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest
from label_phantom import label_head
from small_scanner import small_scanner

from ssl2_bids.simulation.anatomy.label_maps import from_label_map
from ssl2_bids.simulation.participant import (
    Habits,
    ParticipantDraw,
    anatomy_voxel,
    dominant,
    draw_participant,
    knowledge,
    make_visits,
)
from ssl2_bids.simulation.scanner.protocols import read_scanner
from ssl2_bids.tables import from_table
from ssl2_bids.volume import Volume

LOADS = Habits(load=9, spread=0.6)


small = partial(small_scanner, extent=(80.0, 80.0, 80.0))


def template(*, skull=False):
    affine = np.eye(4)
    affine[:3, 3] = -35.5
    return from_label_map(Volume(label_head(skull=skull), affine), skull_stripped=not skull)


def drawn(**options):
    return draw_participant(1, 3, small(3), Habits(load=1.5, spread=0.0), **options)


@pytest.fixture(scope='module')
def visits():
    draw = drawn(sessions=2)
    return draw, make_visits(draw, template(skull=True), small(3))


def test_draws_are_json():
    draw = drawn(sessions=2)
    table = json.loads(json.dumps(asdict(draw)))
    assert from_table(ParticipantDraw, table) == draw


def test_a_draw_depends_on_seed_and_number_alone():
    whole = drawn(sessions=3)
    short = drawn(sessions=1, contrasts=('FLAIR',))
    assert short.visits[0].scans['FLAIR'] == whole.visits[0].scans['FLAIR']
    assert short.visits[0].head == whole.visits[0].head
    assert replace(short, visits=()) == replace(whole, visits=())
    assert drawn() != draw_participant(1, 4, small(3), Habits(load=1.5, spread=0.0))
    assert drawn() != draw_participant(2, 3, small(3), Habits(load=1.5, spread=0.0))


def test_visits_share_the_head_and_differ_in_the_scanner():
    first, second = drawn(sessions=2).visits
    assert first.changes is None
    assert second.changes is not None
    assert first.head.tissues == second.head.tissues
    assert first.head.transmit != second.head.transmit
    assert first.scans['T1w'].placement != second.scans['T1w'].placement
    assert first.scans['T1w'].placement != first.scans['FLAIR'].placement


def test_loads_are_those_of_the_habits():
    scanner = small(3)
    loads = [draw_participant(0, n, scanner, LOADS, contrasts=('FLAIR',)).load for n in range(150)]
    assert np.median(loads) == pytest.approx(9, rel=0.2)
    assert np.std(np.log(loads)) == pytest.approx(0.6, rel=0.2)
    wide = [draw_participant(0, n, scanner, Habits(load=20, spread=3)).load for n in range(50)]
    assert min(wide) == 0.1
    assert max(wide) == 60
    assert draw_participant(0, 1, scanner, Habits(load=4, spread=0)).load == 4
    assert draw_participant(0, 1, scanner, Habits(load=0, spread=2)).load == 0


def test_anatomies_are_as_fine_as_the_scanner_deserves():
    assert anatomy_voxel(read_scanner(None, 1.5)) == 1.0
    assert anatomy_voxel(read_scanner(None, 3)) == pytest.approx(1.0, abs=0.02)
    assert anatomy_voxel(read_scanner(None, 7)) == 0.8


def test_dominant_tissue():
    head = template(skull=True)
    winner, names = dominant(head)
    for name, fraction in head.fractions.items():
        assert (winner[fraction > 0.6] == names.index(name) + 1).all()
    total = np.sum(list(head.fractions.values()), axis=0)
    assert (winner[total < 0.4] == 0).all()


def test_knowledge_agrees_with_what_was_painted(visits):
    draw, (first, second) = visits
    scanner = small(3)
    for visit, drawn_visit in zip((first, second), draw.visits, strict=True):
        known = knowledge(visit, scanner, 'T1w', drawn_visit.scans['T1w'])
        volume = known.lesions.mask.sum() * known.grid.voxel_volume / 1000
        assert volume == pytest.approx(visit.volume_ml, rel=0.2)
        np.testing.assert_array_equal(known.lesions.mask, known.lesions.instances > 0)
        assert not (known.lesions.ignore & known.lesions.mask).any()
        assert (known.brain[known.lesions.mask]).mean() > 0.98
        head = visit.head
        brain = head.brain.sum() * np.prod(head.spacing)
        assert known.brain.sum() * known.grid.voxel_volume == pytest.approx(brain, rel=0.03)
    assert first.volume_ml == pytest.approx(1.5, rel=0.1)


def test_who_has_no_lesions_gets_none_later():
    habits = Habits(load=0.0, spread=0.0)
    draws = [draw_participant(1, n, small(3), habits, sessions=2) for n in range(20)]
    assert all(draw.visits[1].changes is None for draw in draws)
