"""Probabilities of people who were left out: kept as files, or computed when needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from ssl2_bids.steps.segmentation import on_reference
from ssl2_bids.training.adaptation.left_out import probability_of
from ssl2_bids.volume import Volume
from ssl2_bids.voxel_grid import Box
from ssl2_bids.workflows.adaptation.ladder import Labelled, Probability
from ssl2_bids.workflows.adaptation.prepare import PreparedSession, read_kept
from ssl2_bids.workflows.adaptation.state import Work


def prediction_file(work: Work, one: PreparedSession, fold: str, rung: str) -> Path:
    """The probability of a case left out of a fold: on the grid of the network, not calibrated."""
    return work.folder / f'probability-{one.case.name}-{fold}-{rung}.npy'


def of_files(work: Work, rung: str, cases: Sequence[Labelled]) -> Probability:
    """The out-of-fold probabilities of a rung, on the reference's grid."""
    fold_of = {case.one.case.name: case.fold for case in cases}

    def found(one: PreparedSession, box: Box, brain: Volume) -> np.ndarray:
        path = prediction_file(work, one, fold_of[one.case.name], rung)
        made = on_reference(read_kept(path), one.affine, brain, work.adaptation.card)
        return made.data[box]

    return found


def of_network(work: Work, network: nn.Module) -> Probability:
    """The probabilities of a network, on the reference's grid."""

    def found(one: PreparedSession, box: Box, brain: Volume) -> np.ndarray:
        made = predict(work, one, network)
        return on_reference(made, one.affine, brain, work.adaptation.card).data[box]

    return found


def predict(work: Work, one: PreparedSession, network: nn.Module) -> np.ndarray:
    """The answer of a network on a case: float32 on the grid of the network, not calibrated."""
    network.to(work.device)
    return probability_of(network, one.read(), work.adaptation.card, work.device)
