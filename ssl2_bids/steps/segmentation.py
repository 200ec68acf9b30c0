"""Volumes and a model in, probability of lesion on the reference's grid out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ssl2_bids.errors import UnavailableError
from ssl2_bids.networks.architectures.committee import Committee
from ssl2_bids.networks.calibration import UNCHANGED, calibrate
from ssl2_bids.networks.cards import Card
from ssl2_bids.networks.inference import (
    Measure,
    Network,
    average_windows,
    probability_and_disagreement,
    probability_of,
)
from ssl2_bids.progress import CountProgress
from ssl2_bids.steps import network_input as inputs
from ssl2_bids.volume import Volume
from ssl2_bids.wording import uncited

LEFT_RIGHT = 0  # axis of the model's grid, which is RAS+
GPU_BATCH = 4  # windows at once on a GPU; halved there when memory runs out
LOW_MEMORY_SHARE = 5 / 6  # of the window's edge: 58 % of its voxels; smaller ones cost accuracy


@dataclass(frozen=True)
class Segmentation:
    """The result of a model for a brain, on the grid of the brain mask.

    Attributes
    ----------
    probability : of lesion, 0 to 1, zero outside the brain.
    uncertainty : in bits, 0 (certain) to 1. Of a committee the disagreement of its members (see
        :func:`ssl2_bids.networks.architectures.committee.disagreement`), else the entropy of the
        probability; None if not asked for.
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
    uncertainty : give that map too; with ``mirror``, that of the averaged probabilities. The
        members of a committee are compared before the card's calibration.
    low_memory : smaller windows, one at once.
    precision, progress : as of :func:`inference.predict`.

    Raises
    ------
    NoInputError, DataError, UnavailableError : as of the two functions named.
    """
    given = inputs.network_input(images, transforms, brain_mask, card)
    on_gpu = torch.device(device).type != 'cpu'
    axis = LEFT_RIGHT if mirror else None
    measure: Measure = partial(probability_of, network, mirror_axis=axis)
    if compared := uncertainty and isinstance(network, Committee):
        measure = partial(probability_and_disagreement, network, mirror_axis=axis)
    maps = average_windows(
        measure,
        given.tensor,
        given.brain,
        maps=2 if compared else 1,
        window=smaller_window(card) if low_memory else card.window,
        overlap=card.overlap if overlap is None else overlap,
        device=device,
        precision=precision,
        batch_size=GPU_BATCH if on_gpu and not low_memory else 1,
        progress=progress,
    )
    if not all(bool(one.isfinite().all()) for one in maps):
        raise UnavailableError(
            f'the network of {card.name} gives values that are not finite numbers',
            advice='Choose another model with --model, or another --device.',
        )
    first, *others = maps
    result = on_reference(first, given.affine, brain_mask, card)
    doubt = None
    if uncertainty:
        doubt = result.with_data(entropy(result.data))
        if compared:
            doubt = _in_brain(others[0], given.affine, brain_mask)
    used = zip(card.channels, given.present, strict=True)
    return Segmentation(
        probability=result,
        uncertainty=doubt,
        contrasts=given.contrasts,
        channels=tuple(channel for channel, contrast in used if contrast is not None),
        coverage=given.coverage,
    )


def on_reference(
    values: Tensor | np.ndarray, affine: np.ndarray, brain_mask: Volume, card: Card
) -> Volume:
    """The answer of a network as probability on the grid of the reference: there it is calibrated.

    Parameters
    ----------
    values : (D, H, W), not calibrated, on the grid of the network.
    affine : (4, 4), voxel indices of that grid to RAS+ mm.
    brain_mask : on the grid of the reference.

    Returns
    -------
    Volume float32 on the grid of ``brain_mask``, zero outside the brain.
    """
    found = _in_brain(values, affine, brain_mask)
    return found.with_data(calibrate(found.data, card.calibration))


def _in_brain(values: Tensor | np.ndarray, affine: np.ndarray, brain_mask: Volume) -> Volume:
    found = inputs.to_reference(values, affine, brain_mask)
    return found.with_data(np.where(brain_mask.data > 0, found.data, np.float32(0)))


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
    uncertainty: bool = False,
    low_memory: bool = False,
) -> str:
    """The methods sentences for what :func:`segment` did with these options."""
    share = card.overlap if overlap is None else overlap
    window = ' x '.join(map(str, smaller_window(card) if low_memory else card.window))
    calibrated = '' if card.calibration == UNCHANGED else ', and recalibrated at the site'
    flipped = ' and over the image and its left-right mirror image' if mirror else ''
    trained = uncited(card.content.get('TrainedOn', ''))
    doubt = f' {_uncertainty_methods(card)}' if uncertainty else ''
    return (
        f'{inputs.methods(card, contrasts)} '
        f'The network {uncited(card.name)} (version {uncited(card.version)}'
        f'{"; trained on " + trained if trained else ""}) was applied in windows of {window} '
        f'voxels that overlapped by at least {share:.0%}; probabilities were averaged over '
        f'windows with Gaussian weights [@isensee2021]{flipped}, and interpolated linearly to '
        f'the reference image{calibrated}.{doubt}'
    )


def _uncertainty_methods(card: Card) -> str:
    if not card.is_committee:
        return 'Uncertainty is the entropy of the probability, in bits.'
    return (
        'Uncertainty is the disagreement of the members of the committee: the mutual information '
        'of label and member, in bits [@houlsby2011; @nair2020].'
    )
