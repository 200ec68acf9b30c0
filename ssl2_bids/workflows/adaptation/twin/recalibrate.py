"""Without any label: the recalibration fitted on people of the twin whom no training saw."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from ssl2_bids.training.adaptation import recalibration as fitting
from ssl2_bids.training.adaptation.left_out import probability_of
from ssl2_bids.training.adaptation.recalibration import Recalibration

if TYPE_CHECKING:
    from ssl2_bids.workflows.adaptation.prepare import PreparedSession
    from ssl2_bids.workflows.adaptation.state import Work

KEPT_APART = 2  # people of the twin for the recalibration, where no real participant is labelled


def trained_twins(work: Work) -> list[PreparedSession]:
    """The people of the twin who are in trainings."""
    return work.twins if work.annotations else work.twins[:-KEPT_APART]


def recalibrated_on_twins(work: Work, network: nn.Module) -> Recalibration:
    """Scale and shift of the logit and threshold, by people of the twin in no training."""
    card = work.adaptation.card
    network.to(work.device)
    parts = []
    for one in work.twins[-KEPT_APART:]:
        found = one.read()
        probability = probability_of(network, found, card, work.device)
        brain = np.asarray(found.brain) > 0
        parts.append(
            fitting.count(
                probability,
                np.asarray(found.label) > 0,
                brain,
                participant=one.case.participant,
                voxel_volume=math.prod(card.voxel_size),
                threshold=card.threshold_for(one.case.images),
            )
        )
    fitted = fitting.fit(parts)
    work.show(
        f'recalibrated on {len(parts)} people of the scanner twin: the logit times '
        f'{fitted.calibration.scale:.3g}, {fitted.calibration.shift:+.3g}'
    )
    return fitted
