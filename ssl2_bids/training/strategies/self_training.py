"""Source-free self-training: a model adapts to a site's images without a label.

The teacher starts as the given model and follows the student slowly. q = mean of p_t over the
weak view and its left-right mirror image; L_u = <w CE(p_s(strong view), t)> with target and
weight of the confidence band. Labels count if there are any; none are needed. The model must know
the task already: from a random start, this trains noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl2_bids.training.losses import balanced_mean, cross_entropy_map
from ssl2_bids.training.strategy import (
    Batch,
    Scalars,
    Strategy,
    StrategySettings,
    band,
    ema_,
)

LEFT_RIGHT = 2  # axis of the tensors: the grid of a model is RAS+


@dataclass(frozen=True)
class SelfTrainingSettings(StrategySettings):
    """See the fields."""

    warmup: float = 0.0  # the teacher is good from the start, and nothing else is there to learn
    ramp: float = 0.0
    alpha: float | None = (
        0.999  # slow: without labels nothing stops a teacher that follows its errors
    )


class SelfTraining(Strategy):
    """Student and teacher, both the given model at the start."""

    extra = frozenset({'teacher'})
    Settings = SelfTrainingSettings

    def unlabelled(self, b: Batch, step: int, random: torch.Generator) -> tuple[Tensor, Scalars]:
        """Balanced cross-entropy with what the teacher is certain of."""
        mirrored = self.teacher_probability(b.xu.flip(LEFT_RIGHT)).flip(LEFT_RIGHT)
        q = (self.teacher_probability(b.xu) + mirrored) / 2
        target, weight = band(q)
        logits = self.student(b.xs).float()
        loss = balanced_mean(weight * cross_entropy_map(logits, target), logits.sigmoid(), q, b.bu)
        seen = b.bu.sum().clamp_min(1)
        return loss, {
            'ignored': ((1 - weight) * b.bu).sum() / seen,
            'pseudo_lesion': (target * b.bu).sum() / seen,
        }

    def after_step(self, step: int) -> None:
        """The teacher follows at its own pace from the first step: its start is worth keeping."""
        ema_(self.teacher, self.student, self.cfg.alpha_max)
