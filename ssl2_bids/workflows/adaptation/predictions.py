"""Probabilities of labelled people: stored, kept as files, or computed when needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from ssl2_bids.steps.segmentation import on_reference
from ssl2_bids.training.adaptation.left_out import probability_of
from ssl2_bids.volume import Volume
from ssl2_bids.voxel_grid import Box
from ssl2_bids.workflows.adaptation.first_results import stored_probability
from ssl2_bids.workflows.adaptation.ladder import Labelled, Probability
from ssl2_bids.workflows.adaptation.prepare import PreparedSession, keep, prepare, read_kept
from ssl2_bids.workflows.adaptation.state import Work


def prediction_file(work: Work, one: PreparedSession, fold: str, rung: str) -> Path:
    """The probability of a case left out of a fold: on the grid of the network, not calibrated.

    An earlier version kept calibrated ones, as ``probability-CASE-FOLD-RUNG.npy``.
    """
    return work.folder / f'probability-uncalibrated-{one.case.name}-{fold}-{rung}.npy'


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


def first_probability(work: Work) -> Probability:
    """Of the start model: as the participant level left it, else from its network."""
    reported: set[str] = set()

    def found(one: PreparedSession, box: Box, brain: Volume) -> np.ndarray:
        stored = stored_probability(one.case.result, work.adaptation.card, brain)
        if not isinstance(stored, str):
            return stored.data[box]
        kept = work.folder / f'probability-{one.case.name}-first.npy'
        if one.case.name not in reported:
            work.show(f'{one.case.name}: {stored}; {work.adaptation.card.name} segments it again')
            reported.add(one.case.name)
            annotation = work.annotations[one.case.name]
            card = work.adaptation.card
            ready = prepare(one.case, annotation, card, one.folder)
            work.network.to(work.device)
            made = probability_of(work.network, ready.read(), card, work.device)
            keep(kept, on_reference(made, ready.affine, brain, card).data[box])
        return read_kept(kept)

    return found


def predict(work: Work, one: PreparedSession, network: nn.Module) -> np.ndarray:
    """The answer of a network on a case: float32 on the grid of the network, not calibrated."""
    network.to(work.device)
    return probability_of(network, one.read(), work.adaptation.card, work.device)
