"""Cross-consistency training (Ouali et al., arXiv 2003.09005).

L_u = 1/K sum over k of <(p_k(z_k) - p(z))^2>: auxiliary decoders k read perturbed features z_k
and follow what the main decoder reads from the clean ones, z, without gradient to it. They get
no labels. The perturbations are feature noise z (1 + U(-0.3, 0.3)), dropout of 30 %, and leaving
out the most active places (mean |z| over channels above 0.7 to 0.9 of its largest).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ssl2_bids.training.losses import balanced_mean
from ssl2_bids.training.strategy import (
    WITH_STAGES,
    Batch,
    Scalars,
    Strategy,
    StrategySettings,
    each,
    forward_hooks,
    probability,
    stages,
)


@dataclass(frozen=True)
class CrossConsistencySettings(StrategySettings):
    """See the fields."""

    strength: float = 1.0  # of all perturbations: 1 is the original, 0 none


class Playback(nn.Module):
    """Stands where a stage of the encoder stood, and returns a given tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.output: Any = None

    def forward(self, *_: Any, **__: Any) -> Any:
        """The features that were put here."""
        return self.output


class CrossConsistency(Strategy):
    """Student and three copies of its decoder."""

    extra = frozenset({'heads'})
    networks = WITH_STAGES
    Settings = CrossConsistencySettings
    cfg: CrossConsistencySettings
    heads: nn.ModuleList

    def prepare(self) -> None:
        """Copies of the student with a :class:`Playback` for each stage of the encoder."""
        self.heads = nn.ModuleList()
        for _ in PERTURBATIONS:
            # what deepcopy finds in its memo it takes for copied already
            memo = {id(stage): Playback() for stage in stages(self.student, 'encoder')}
            self.heads.append(copy.deepcopy(self.student, memo))

    def unlabelled(self, b: Batch, step: int, random: torch.Generator) -> tuple[Tensor, Scalars]:
        """Mean over the decoders of the balanced mean squared difference."""
        features: dict[int, Any] = {}
        with forward_hooks(stages(self.student, 'encoder'), features.__setitem__):
            main = probability(self.student, b.xs).detach()
        loss = torch.zeros((), device=main.device)
        for decoder, perturb in zip(self.heads, PERTURBATIONS, strict=True):
            change = partial(perturb, random=random, strength=self.cfg.strength)
            changed = [each(features[index], change) for index in sorted(features)]
            p = read(decoder, changed, b.xs)
            loss = loss + balanced_mean((p - main) ** 2, p, main, b.bu)
        return loss / len(self.heads), {}


def read(decoder: nn.Module, features: list[Any], image: Tensor) -> Tensor:
    """The probability that an auxiliary decoder reads from features; it sees no image."""
    places = stages(decoder, 'encoder')
    for place, output in zip(places, features, strict=True):
        place.output = output
    p = probability(decoder, image)
    for place in places:
        place.output = None  # type: ignore[assignment]
    return p


def add_noise(z: Tensor, random: torch.Generator, strength: float) -> Tensor:
    """z (1 + U(-0.3, 0.3))."""
    drawn = 2 * torch.rand(z.shape, generator=random, device=z.device) - 1
    return z * (1 + 0.3 * strength * drawn)


def drop_any(z: Tensor, random: torch.Generator, strength: float) -> Tensor:
    """Leave out 30 % of the features, scale up the rest."""
    share = 0.3 * strength
    return z * (torch.rand(z.shape, generator=random, device=z.device) >= share) / (1 - share)


def drop_active(z: Tensor, random: torch.Generator, strength: float) -> Tensor:
    """Leave out the places of the highest activation."""
    activity = z.detach().abs().mean(1, keepdim=True)
    below = 0.1 + 0.2 * torch.rand(len(z), 1, 1, 1, 1, generator=random, device=z.device)
    return z * (activity <= (1 - strength * below) * activity.amax((2, 3, 4), keepdim=True))


PERTURBATIONS: tuple[Callable[..., Tensor], ...] = (add_noise, drop_any, drop_active)
