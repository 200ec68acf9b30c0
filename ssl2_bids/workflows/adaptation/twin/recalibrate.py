"""Without any label: the recalibration fitted on people of the twin whom no training saw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from ssl2_bids.training.adaptation import recalibration as fitting
from ssl2_bids.training.adaptation.recalibration import Recalibration
from ssl2_bids.workflows.adaptation import ladder
from ssl2_bids.workflows.adaptation.ladder import Labelled
from ssl2_bids.workflows.adaptation.predictions import of_network
from ssl2_bids.workflows.adaptation.untrained import of_twin

if TYPE_CHECKING:
    from ssl2_bids.workflows.adaptation.prepare import PreparedSession
    from ssl2_bids.workflows.adaptation.state import Work

KEPT_APART = 2  # people of the twin for the recalibration, where no real participant is labelled


def trained_twins(work: Work) -> list[PreparedSession]:
    """The people of the twin who are in trainings."""
    return work.twins if work.annotations else work.twins[:-KEPT_APART]


def twin_uses(work: Work) -> dict[str, int]:
    """How many people of the twin are in trainings, and to how many a recalibration is fitted.

    With labels it is fitted to these, and people of the twin give no more than its least move.
    """
    trained = len(trained_twins(work)) if work.histories else 0
    return {'Trained': trained, 'Fitted': 0 if work.annotations else len(work.twins) - trained}


def recalibrated_on_twins(work: Work, network: nn.Module) -> Recalibration:
    """Scale and shift of the logit and threshold, by people of the twin in no training.

    As every other recalibration it is fitted on the grid of the reference, on which it is used.
    """
    people = of_twin(work)
    probability = of_network(people, network)
    parts = []
    for one in work.twins[-KEPT_APART:]:
        near = ladder.read_near(people, Labelled(one, ''), probability)
        parts += fitting.pooled(near.counts)
    fitted = fitting.fit(parts)
    work.show(
        f'recalibrated on {len(parts)} people of the scanner twin: the logit times '
        f'{fitted.calibration.scale:.3g}, {fitted.calibration.shift:+.3g}'
    )
    return fitted
