"""What the participant level left: by which model, and the probabilities of the start model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssl2_bids.bids.outputs import Result, UnitNames, results_beside
from ssl2_bids.errors import DataError
from ssl2_bids.networks.cards import Card
from ssl2_bids.volume import Volume
from ssl2_bids.voxel_grid import same_grid
from ssl2_bids.workflows.current_results import (
    calibration_of,
    current_results,
    is_made_by,
    is_of,
    is_second,
)
from ssl2_bids.workflows.segmentation_files import read_result

Unit = tuple[str, str | None]  # labels of participant and session


def stored_probability(result: Result, card: Card, brain: Volume) -> Volume | str:
    """The lesion probability of a result on the grid of the brain mask, or why it has none.

    Parameters
    ----------
    card : of the model that the probability must be of.
    brain : RAS+.
    """
    path = result.names.path('anat.probability')
    if maker := stored_by_another(result, card):
        return f'the probability in the output folder is of {maker}'
    try:
        volume = read_result(path)
    except DataError as error:
        return f'its probability cannot be read ({str(error).rstrip(".")})'
    if not same_grid(volume, brain):
        return f'its probability {path.name} is not on the grid of the brain mask'
    values = np.array(volume.data, np.float32, order='K')
    if not np.isfinite(values.sum()):
        return f'its probability {path.name} has values that are not numbers'
    np.clip(values, 0, 1, out=values)
    values *= brain.data > 0
    return volume.with_data(values)


def stored_by_another(result: Result, card: Card) -> str:
    """Which other model or calibration made the probability of a result; empty if none did."""
    if not is_made_by(result, card):
        made_by = result.sidecar.get('Model')
        name = made_by.get('Name') if isinstance(made_by, dict) else None
        if name == card.reference['Name']:
            return f'other weights or another version of {name}'
        return str(name or 'an unknown model')
    if calibration_of(result) != card.calibration:
        return f'another calibration of {card.reference["Name"]}'
    return ''


def segmented_by(card: Card, root: Path, unit: Unit) -> bool:
    """Whether the participant level itself has segmented a session with this model of a site."""
    found = results_beside(UnitNames(root, *unit, desc=card.label))
    return any(not is_second(r) and is_of(r, card) for r in current_results(found)[0])
