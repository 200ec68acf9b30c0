"""Volumes and a model in, probability of lesion on the reference's grid out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ssl2_bids.networks.calibration import UNCHANGED, calibrate
from ssl2_bids.networks.cards import Card
from ssl2_bids.networks.inference import Network, predict
from ssl2_bids.progress import CountProgress
from ssl2_bids.steps import network_input as inputs
from ssl2_bids.volume import Volume

LEFT_RIGHT = 0  # axis of the model's grid, which is RAS+
GPU_BATCH = 4  # windows at once on a GPU; halved there when memory runs out
LOW_MEMORY_SHARE = 5 / 6  # of the window's edge: 58 % of its voxels; smaller ones cost accuracy


@dataclass(frozen=True)
class Segmentation:
    """The result of a model for a brain, on the grid of the brain mask.

    Attributes
    ----------
    probability : of lesion, 0 to 1, zero outside the brain.
    uncertainty : normalised entropy of the probability, 0 (certain) to 1 (probability 0.5); None
        if not asked for.
    contrasts : the contrasts used, in the order of the model's channels.
    channels : the model's channels that they went into.
    coverage : for each contrast, the share of the brain inside its field of view.
    """

    probability: Volume
    uncertainty: Volume | None
    contrasts: tuple[str, ...]
    channels: tuple[str, ...]
    coverage: Mapping[str, float]


def segment(
    images: Mapping[str, Volume],
    transforms: Mapping[str, np.ndarray],
    brain_mask: Volume,
    card: Card,
    network: Network,
    *,
    device: str | torch.device = 'cpu',
    overlap: float | None = None,
    mirror: bool = False,
    uncertainty: bool = False,
    low_memory: bool = False,
    precision: str = 'auto',
    progress: CountProgress | None = None,
) -> Segmentation:
    """Segment lesions with a model: probability on the grid of the brain mask.

    Parameters
    ----------
    images, transforms, brain_mask, card : as of :func:`network_input.network_input`.
    network : that of the card, on ``device`` (see :func:`networks.weights.load_network`).
    overlap : share of a window; None is the card's.
    mirror : average with the prediction of the image mirrored left-right: twice the time.
    uncertainty : give the entropy too; with ``mirror``, that of the averaged probability.
    low_memory : smaller windows, one at once.
    precision, progress : as of :func:`inference.predict`.

    Raises
    ------
    NoInputError, DataError, UnavailableError : as of the two functions named.
    """
    given = inputs.network_input(images, transforms, brain_mask, card)
    on_gpu = torch.device(device).type != 'cpu'
    probability = predict(
        network,
        given.tensor,
        given.brain,
        window=smaller_window(card) if low_memory else card.window,
        overlap=card.overlap if overlap is None else overlap,
        device=device,
        precision=precision,
        mirror_axis=LEFT_RIGHT if mirror else None,
        batch_size=GPU_BATCH if on_gpu and not low_memory else 1,
        progress=progress,
    )
    result = inputs.to_reference(probability, given.affine, brain_mask)
    inside = np.where(brain_mask.data > 0, result.data, np.float32(0))
    result = result.with_data(calibrate(inside, card.calibration))
    used = zip(card.channels, given.present, strict=True)
    return Segmentation(
        probability=result,
        uncertainty=result.with_data(entropy(result.data)) if uncertainty else None,
        contrasts=given.contrasts,
        channels=tuple(channel for channel, contrast in used if contrast is not None),
        coverage=given.coverage,
    )


def smaller_window(card: Card) -> tuple[int, int, int]:
    """At most five sixths of the card's window, in the multiples that its network needs."""
    multiple = card.network.get('Multiple', 1)
    depth, height, width = (
        max(multiple, int(size * LOW_MEMORY_SHARE + 1e-9) // multiple * multiple)
        for size in card.window
    )
    return depth, height, width


def entropy(probability: np.ndarray) -> np.ndarray:
    """Entropy of a yes-or-no probability in bits: -p log2 p - (1 - p) log2(1 - p)."""
    p = np.clip(probability.astype(np.float64), 1e-12, 1 - 1e-12)
    bits = -p * np.log2(p) - (1 - p) * np.log2(1 - p)
    return np.where((probability > 0) & (probability < 1), bits, 0).astype(np.float32)


def methods(
    card: Card,
    contrasts: tuple[str, ...],
    *,
    overlap: float | None = None,
    mirror: bool = False,
    low_memory: bool = False,
) -> str:
    """The methods sentences for what :func:`segment` did with these options."""
    share = card.overlap if overlap is None else overlap
    window = ' x '.join(map(str, smaller_window(card) if low_memory else card.window))
    calibrated = '' if card.calibration == UNCHANGED else ', and recalibrated at the site'
    flipped = ' and over the image and its left-right mirror image' if mirror else ''
    trained = card.content.get('TrainedOn', '')
    return (
        f'{inputs.methods(card, contrasts)} '
        f'The network {card.name} (version {card.version}'
        f'{"; trained on " + trained if trained else ""}) was applied in windows of {window} '
        f'voxels that overlapped by at least {share:.0%}; probabilities were averaged over '
        f'windows with Gaussian weights [@isensee2021]{flipped}, and interpolated linearly to '
        f'the reference image{calibrated}.'
    )
