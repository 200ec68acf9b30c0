"""Uncertainty-aware mean teacher (Yu et al., arXiv 1907.07034).

p_t is the mean of T passes of the teacher over noisy weak views, H = -sum p_t ln p_t over
(lesion, background), m = H < (0.75 + 0.25 ramp) ln 2.
L_u = <m (p_s - p_t)^2> / <m> in each half of the balanced mean <>; without that balance the
threshold keeps all of the background.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl2_bids.training.losses import balanced_mean, entropy
from ssl2_bids.training.strategy import (
    Batch,
    Scalars,
    Strategy,
    StrategySettings,
    noise,
    probability,
)


@dataclass(frozen=True)
class UncertaintySettings(StrategySettings):
    """See the fields."""

    passes: int = 4  # of the teacher; the original's 8 cost twice the time
    sigma: float = 0.1  # of the noise, in units of the network's input


class UncertaintyAwareMeanTeacher(Strategy):
    """Student and teacher; noise at the input, so that no network needs dropout."""

    extra = frozenset({'teacher'})
    Settings = UncertaintySettings
    cfg: UncertaintySettings

    def unlabelled(self, b: Batch, step: int, random: torch.Generator) -> tuple[Tensor, Scalars]:
        """Balanced mean squared difference where the teacher is certain."""
        passes = [
            self.teacher_probability(b.xu + noise(b.xu, random, sigma=self.cfg.sigma))
            for _ in range(self.cfg.passes)
        ]
        target = torch.stack(passes).mean(0)
        p = probability(self.student, b.xs)
        limit = (0.75 + 0.25 * self.cfg.ramped(step)) * math.log(2)
        certain = (entropy(target) < limit).float()
        loss = balanced_mean((p - target) ** 2, p, target, b.bu, weight=certain)
        return loss, {'sure': (certain * b.bu).sum() / b.bu.sum().clamp_min(1)}
