"""Mean teacher (Tarvainen & Valpola, arXiv 1703.01780).

L_u = <(p_s(strong view) - p_t(weak view))^2>, <> the balanced mean; the teacher is the running
average of the student. The two views differ in intensity, not by noise of 0.1 alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssl2_bids.training.losses import balanced_mean
from ssl2_bids.training.strategy import Batch, Scalars, Strategy, probability


class MeanTeacher(Strategy):
    """Student and teacher."""

    extra = frozenset({'teacher'})

    def unlabelled(self, b: Batch, step: int, random: torch.Generator) -> tuple[Tensor, Scalars]:
        """Balanced mean squared difference."""
        target, p = self.teacher_probability(b.xu), probability(self.student, b.xs)
        return balanced_mean((p - target) ** 2, p, target, b.bu), {}
