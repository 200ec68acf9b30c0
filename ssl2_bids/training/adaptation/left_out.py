"""How good a model becomes on people left out of its training: for curves, and nothing else.

For strategies with a teacher it is the teacher that is measured: its Dice is the quality of the
pseudo-labels for training on scans without labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ssl2_bids.metrics import voxelwise
from ssl2_bids.networks.calibration import calibrate
from ssl2_bids.networks.inference import predict
from ssl2_bids.training.data.participants import Participant
from ssl2_bids.training.data.views import masks_of

if TYPE_CHECKING:
    from ssl2_bids.networks.cards import Card
    from ssl2_bids.training.run import Validate

MEASURED = 5  # times in a training
DICE = 'dice_left_out'


def quality(people: Sequence[Participant], card: Card, device: str | torch.device) -> Validate:
    """What measures a network: the mean Dice of people, on its own grid, where they are annotated.

    Parameters
    ----------
    people : labelled ones that the training does not see.
    card : of the network: window, overlap and threshold.
    """

    def measure(network: nn.Module) -> dict[str, float]:
        return {DICE: float(np.mean([dice_of(network, one, card, device) for one in people]))}

    return measure


def probability_of(
    network: nn.Module,
    person: Participant,
    card: Card,
    device: str | torch.device,
    *,
    batch_size: int = 1,
) -> np.ndarray:
    """Lesion probability (D, H, W) of a whole brain, on the grid of the network, not calibrated.

    The calibration of a card acts on the grid of the reference, see
    :func:`ssl2_bids.steps.segmentation.on_reference`.

    Parameters
    ----------
    network : on the device.
    batch_size : windows at once.
    """
    probability = predict(
        network.eval(),
        torch.from_numpy(np.asarray(person.image, np.float32)),
        torch.from_numpy(np.asarray(person.brain) > 0),
        window=card.window,
        overlap=card.overlap,
        device=device,
        batch_size=batch_size,
    )
    return probability.numpy()


def dice_of(
    network: nn.Module, person: Participant, card: Card, device: str | torch.device
) -> float:
    """Dice of one person at the card's threshold, in the annotated part of the brain."""
    brain, drawn, extent = masks_of(person, (slice(None),) * 3)
    probability = calibrate(probability_of(network, person, card, device), card.calibration)
    present = [c for c, there in zip(card.channels, person.present, strict=True) if there]
    marked = probability >= card.threshold_for(present)
    return voxelwise.dice(drawn & extent, marked & extent & brain)
