"""Entropy minimisation (Grandvalet & Bengio 2004): be certain on unlabelled images.

L_u = mean over F of H(p) / ln 2, with F the suspected voxels (:func:`losses.split_brain`): over
all voxels it asks for background alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl2_bids.training import losses
from ssl2_bids.training.strategy import Batch, Scalars, Strategy, StrategySettings, probability


@dataclass(frozen=True)
class EntropySettings(StrategySettings):
    """See the fields."""

    w_max: float = 0.1  # more sharpens whatever is there and drives small lesions to 0


class Entropy(Strategy):
    """One network; nothing beside it."""

    Settings = EntropySettings

    def unlabelled(self, b: Batch, step: int, random: torch.Generator) -> tuple[Tensor, Scalars]:
        """Mean entropy of the suspected voxels, 0 to 1."""
        p = probability(self.student, b.xs)
        suspected, _ = losses.split_brain(p, p, b.bu)
        return losses.masked_mean(losses.entropy(p) / math.log(2), suspected), {}
