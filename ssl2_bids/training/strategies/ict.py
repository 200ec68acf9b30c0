"""Interpolation consistency (Verma et al., arXiv 1903.03825).

L_u = <(p_s(l u1 + (1 - l) u2) - [l p_t(u1) + (1 - l) p_t(u2)])^2>, l uniform in 0..1, which is
Beta(1, 1): with the usual Beta(0.2, 0.2) two thirds of the mixes are hardly mixed. Channels that
only one of the two has are left out. The mean looks where both are brain. A mix of two brains
that were not aligned is no brain; batches whose patches lie at like places suit it better.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssl2_bids.training.losses import balanced_mean
from ssl2_bids.training.strategy import (
    Batch,
    Scalars,
    Strategy,
    contrasts_seen,
    partners,
    probability,
)


class InterpolationConsistency(Strategy):
    """Student and teacher."""

    extra = frozenset({'teacher'})

    def unlabelled(self, b: Batch, step: int, random: torch.Generator) -> tuple[Tensor, Scalars]:
        """Balanced mean squared difference between the mix's prediction and the mixed ones."""
        partner, shared = partners(contrasts_seen(b.xs))
        share = torch.rand(len(b.xu), 1, 1, 1, 1, generator=random, device=b.xu.device)
        target = self.teacher_probability(b.xu)
        target = torch.lerp(target[partner], target, share)
        p = probability(self.student, torch.lerp(b.xs[partner], b.xs, share) * shared)
        brain = b.bu * b.bu[partner]
        return balanced_mean((p - target) ** 2, p, target, brain), {}
