"""Which scores of a rung are taken: small tables, without a scan."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ssl2_bids.networks.calibration import Calibration
from ssl2_bids.training.adaptation.recalibration import Recalibration
from ssl2_bids.workflows.adaptation import ladder
from ssl2_bids.workflows.adaptation.ladder import Labelled, Tested
from ssl2_bids.workflows.adaptation.scores import LabelScores

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
    tested = Tested(
        scores(*plain), scores(*recalibrated), FITTED, {},
        dict.fromkeys(PEOPLE, 1.0), dict.fromkeys(PEOPLE, 100.0),
    )  # fmt: skip
    rows, recalibration = ladder.better_of(cases(), tested, before, 'whole')
    assert [row.after.dice for row in rows] == [(recalibrated if taken else plain)[0]] * 3
    assert recalibration == (FITTED if taken else Recalibration())
