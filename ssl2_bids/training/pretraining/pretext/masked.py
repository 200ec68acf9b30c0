"""Masked autoencoding of a whole network: fill in what is hidden, clean what is left.

He et al. (arXiv 2111.06377) for volumes as in Wald et al. (arXiv 2412.17041), with a mask of its
own for each channel and a spoilt input as in AMAES (arXiv 2408.00640).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ssl2_bids.networks.architectures.committee import members_of
from ssl2_bids.training.data.masking import block_masks, spoil
from ssl2_bids.training.strategy import generator

VISIBLE = 0.1  # weight of visible voxels: they are cleaned, not copied
EDGES = 0.25  # weight of the gradients: without them small structures are smoothed away


class Unlabelled(NamedTuple):
    """Images without labels.

    Attributes
    ----------
    image : (N, C, D, H, W) float32, normalised, zero outside the brain and where absent.
    present : (N, C) bool.
    brain : (N, 1, D, H, W) float32 in {0, 1}.
    person : (N,) int64; equal for samples of one person.
    """

    image: Tensor
    present: Tensor
    brain: Tensor
    person: Tensor


def mean_where(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of each sample where the weight is 1, then of the samples; 0 for one without any.

    Means of samples, not of all voxels: so the gradient of a batch is the mean over processes
    that hold parts of it.
    """
    total = (values * weight).flatten(1).sum(dim=1)
    return (total / weight.flatten(1).sum(dim=1).clamp_min(1)).mean()


def masked_loss(
    output: Tensor, batch: Unlabelled, hidden: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """L1 on hidden voxels + 0.1 L1 on visible ones + 0.25 L1 of gradients on hidden ones.

    Counted are voxels of the brain in channels that are present. A gradient is the difference
    of two neighbours, counted where both are hidden.

    Parameters
    ----------
    output : (N, C, D, H, W), the clean image as the network sees it.
    hidden : (N, C, D, H, W), 1 where it saw nothing.

    Returns
    -------
    Loss, and its three terms.
    """
    output = output.float()
    counted = batch.brain * batch.present[:, :, None, None, None]
    inside = counted * hidden
    error = (output - batch.image).abs()
    terms = {
        'hidden': mean_where(error, inside),
        'visible': mean_where(error, counted - inside),
        'edges': edge_error(output - batch.image, inside),
    }
    loss = terms['hidden'] + VISIBLE * terms['visible'] + EDGES * terms['edges']
    return loss, {name: term.detach() for name, term in terms.items()}


def edge_error(difference: Tensor, inside: Tensor) -> Tensor:
    """Mean of |d(v + 1) - d(v)| along the three axes, both voxels inside."""
    errors = []
    for axis in (2, 3, 4):
        size = difference.shape[axis]
        step = difference.narrow(axis, 1, size - 1) - difference.narrow(axis, 0, size - 1)
        both = inside.narrow(axis, 1, size - 1) * inside.narrow(axis, 0, size - 1)
        errors.append(mean_where(step.abs(), both))
    return torch.stack(errors).mean()


@dataclass
class MaskedAutoencoding:
    """The task of the first stage.

    Attributes
    ----------
    network : (N, C, D, H, W) to the same shape; members of a committee learn side by side.
    seed : of masks and disturbances, which are a function of it, the process, the step and the
        part.
    part : see Task.
    """

    network: nn.Module
    seed: int = 0
    part: int = 0

    def modules(self) -> dict[str, nn.Module]:
        """All that is optimised."""
        return {'network': self.network}

    def loss(self, batch: Unlabelled, step: int) -> tuple[Tensor, dict[str, Any]]:
        """See :func:`masked_loss`."""
        random = generator(self.seed, step, batch.image.device, self.part)
        return masked_reconstruction(self.network, batch, random)

    def after_step(self, step: int) -> None:
        """Nothing."""

    def predictor(self) -> nn.Module:
        """The network itself."""
        return self.network


def masked_reconstruction(
    network: nn.Module, batch: Unlabelled, random: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Hide, spoil, run and compare."""
    hidden = block_masks(batch.image.shape, random=random)
    spoilt = spoil(batch.image, batch.brain, random)
    found = [
        masked_loss(member(spoilt * (1 - hidden)), batch, hidden) for member in members_of(network)
    ]
    loss = torch.stack([loss for loss, _ in found]).mean()
    return loss, {
        name: torch.stack([terms[name] for _, terms in found]).mean() for name in found[0][1]
    }


@dataclass
class HeldOut:
    """Validation of the first stage: the loss on hidden voxels of people never trained on."""

    batches: list[Unlabelled]
    device: str = 'cpu'
    seed: int = 1

    def __call__(self, network: nn.Module) -> dict[str, float]:
        """Means over the batches; masks are the same at every call."""
        sums: dict[str, float] = {}
        device = torch.device(self.device)
        with torch.inference_mode():
            for number, batch in enumerate(self.batches):
                there = Unlabelled(*(part.to(device) for part in batch))
                random = generator(self.seed, number, device)
                _, terms = masked_reconstruction(network, there, random)
                for name, term in terms.items():
                    sums[name] = sums.get(name, 0.0) + float(term)
        return {f'validation_{name}': s / len(self.batches) for name, s in sums.items()}
