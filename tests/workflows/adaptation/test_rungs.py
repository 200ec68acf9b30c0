"""Which scores of a rung are taken: small tables, without a scan."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ssl2_bids.networks.calibration import Calibration
from ssl2_bids.steps.annotation import Annotation
from ssl2_bids.training.adaptation.decision import decide
from ssl2_bids.training.adaptation.recalibration import Recalibration
from ssl2_bids.volume import Volume
from ssl2_bids.workflows.adaptation import ladder
from ssl2_bids.workflows.adaptation.ladder import Labelled
from ssl2_bids.workflows.adaptation.scores import LabelScores, Row, pairs_of, score, truth_of

PEOPLE = ('A', 'B', 'C')
FITTED = Recalibration(Calibration(1.1, -0.2), 0.3)


def scores(dice: float, lesion_f1: float) -> dict[str, LabelScores]:
    return {name: LabelScores(dice, lesion_f1, 0.5, 0.5, 0.0, 10.0) for name in PEOPLE}


def cases() -> list[Labelled]:
    return [
        Labelled(
            SimpleNamespace(
                case=SimpleNamespace(
                    name=name,
                    result=SimpleNamespace(names=SimpleNamespace(subject=name, session=None)),
                )
            ),
            '1',
        )
        for name in PEOPLE
    ]


@pytest.mark.parametrize(
    ('plain', 'recalibrated', 'taken'),
    [
        ((0.550, 0.60), (0.551, 0.54), False),  # it would be refused for lesions that it misses
        ((0.550, 0.60), (0.551, 0.59), True),
        ((0.550, 0.54), (0.545, 0.60), True),  # without it the rung would be refused
        ((0.490, 0.60), (0.495, 0.60), True),  # both are refused
        ((0.550, 0.50), (0.551, 0.50), True),
        ((0.550, 0.60), (0.549, 0.65), False),
    ],
)
def test_a_rung_is_recalibrated_where_that_is_better_and_not_refused(plain, recalibrated, taken):
    before = scores(0.5, 0.6)
    tested = ladder.Tested(
        scores(*plain), scores(*recalibrated), FITTED, {},
        dict.fromkeys(PEOPLE, 1.0), dict.fromkeys(PEOPLE, 100.0), {},
    )  # fmt: skip
    rows, recalibration = ladder.better_of(cases(), tested, before, 'whole')
    assert [row.after.dice for row in rows] == [(recalibrated if taken else plain)[0]] * 3
    assert recalibration == (FITTED if taken else Recalibration())


def test_a_rung_whose_threshold_one_participant_lowers_too_much_is_not_recalibrated():
    tested = ladder.Tested(
        scores(0.55, 0.6), scores(0.58, 0.6), replace(FITTED, move=-0.8), {},
        dict.fromkeys(PEOPLE, 1.0), dict.fromkeys(PEOPLE, 100.0), dict.fromkeys(PEOPLE, 20.0),
    )  # fmt: skip
    rows, recalibration = ladder.better_of(cases(), tested, scores(0.5, 0.6), 'whole')
    assert recalibration == Recalibration()
    assert [row.after.dice for row in rows] == [0.55] * 3
    assert all(math.isnan(row.span) for row in rows)


def scored(drawn: np.ndarray, marked: np.ndarray) -> tuple[float, dict[float, LabelScores]]:
    """Volume of a whole label in 1 mm voxels, and its scores by minimum volume (3 and 5 mm^3)."""
    whole = Volume(np.ones(drawn.shape, bool), np.eye(4))
    annotation = Annotation(Volume(drawn.astype(np.uint8), np.eye(4)), whole)
    truth = truth_of(whole, annotation, minimum_volume=3)
    return truth.volume, score(marked[truth.box], truth, [3.0, 5.0])


def test_a_label_without_a_lesion_that_counts_has_no_lesion_wise_scores():
    drawn, marked, large = (np.zeros((12, 12, 12), bool) for _ in range(3))
    drawn[5, 5, 5:7] = True  # 2 mm^3
    marked[9:11, 9:11, 9] = True  # 4 mm^3, which the second minimum volume removes
    large[2:5, 2:5, 2:5] = True
    volume, found = scored(drawn, marked)
    assert volume == 2
    for one in found.values():
        assert np.isnan([one.lesion_f1, one.lesion_sensitivity, one.lesion_precision]).all()
        assert one.dice == 0
    # else the fewer lesions that a larger minimum leaves would count as a gain
    tables = [('A', found), ('B', scored(large, large)[1])]
    assert ladder._best_minimum(tables, [3.0, 5.0]) == 3
    row = Row('A', 'A', None, '1', 1.0, volume, found[3.0], found[5.0])
    (pair,) = pairs_of([row])
    assert np.isnan(pair.lesion_f1).all()
    assert 'lesion F1' not in decide([pair]).reason


def test_a_lesion_that_counts_has_lesion_wise_scores():
    large = np.zeros((12, 12, 12), bool)
    large[2:5, 2:5, 2:5] = True
    _, found = scored(large, large)
    assert {one.lesion_f1 for one in found.values()} == {1.0}
