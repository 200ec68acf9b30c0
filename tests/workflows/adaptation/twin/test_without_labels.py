"""What simulated people may change where no real participant is labelled."""

import math

import pytest

from ssl2_bids.networks.calibration import Calibration
from ssl2_bids.training.adaptation.decision import ScorePair
from ssl2_bids.training.adaptation.recalibration import Recalibration
from ssl2_bids.workflows.adaptation.untrained import without_labels

CALIBRATION = Calibration(0.9, -1.5)


def pairs(before, after):
    return [ScorePair(f'sub-{n}', (before, after), (math.nan,) * 2, after) for n in range(4)]


def test_a_higher_threshold_is_taken_if_simulated_people_gain():
    fitted = Recalibration(CALIBRATION, 1.1)
    assert without_labels(fitted, pairs(0.60, 0.66)) == (fitted, '')


@pytest.mark.parametrize(
    ('move', 'after', 'why'),
    [(1.1, 0.603, '; the threshold of the start model stays'),
     (-0.6, 0.70, 'without a label it is not lowered; the threshold of the start model stays')],
)  # fmt: skip
def test_else_the_masks_stay_and_the_probabilities_are_calibrated(move, after, why):
    found, reason = without_labels(Recalibration(CALIBRATION, move, 10.0), pairs(0.60, after))
    assert (found.calibration, found.move, found.refused) == (CALIBRATION, 0.0, move)
    assert found.minimum_volume is None
    assert found.mark_from(0.5) == pytest.approx(0.5)
    assert reason.endswith(why)
