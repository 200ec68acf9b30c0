"""Regularised dropout (Liang et al., arXiv 2106.14448).

L_u = <KL(p || q) + KL(q || p)> / 2 of two passes of the same network, each with its own dropout.
The dropout is put on what leaves the encoder, in these passes only: no network needs to have it,
and the labelled pass and the shipped network go without.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssl2_bids.training.losses import balanced_mean, relative_entropy
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
class DropoutSettings(StrategySettings):
    """See the fields."""

    dropped: float = 0.2  # share of the features set to zero


class RegularisedDropout(Strategy):
    """One network; nothing beside it."""

    networks = WITH_STAGES
    Settings = DropoutSettings
    cfg: DropoutSettings

    def unlabelled(self, b: Batch, step: int, random: torch.Generator) -> tuple[Tensor, Scalars]:
        """Balanced mean of the symmetric divergence."""

        def drop(_: int, output: Any) -> Any:
            return each(output, lambda z: dropout(z, random, share=self.cfg.dropped))

        with forward_hooks(stages(self.student, 'encoder'), drop):
            p, q = probability(self.student, b.xs), probability(self.student, b.xs)
        apart = (relative_entropy(p, q) + relative_entropy(q, p)) / 2
        return balanced_mean(apart, p, q, b.bu), {}


def dropout(z: Tensor, random: torch.Generator, *, share: float) -> Tensor:
    """Set a share of the features to zero and scale up the rest."""
    return z * (torch.rand(z.shape, generator=random, device=z.device) >= share) / (1 - share)
