"""FixMatch (Sohn et al., arXiv 2001.07685) in 3D, with teacher, CutMix and a true ignore band.

q = p_t(weak view). Target is background where q < 0.05, lesion where q > tau, ignored in
between: neither 0 nor 1 is known there. L_u = <1[not ignored] CE(p_s(A(x)), target)>, A the strong
view with a box of another subject pasted in (target and brain alike). tau follows the mean of q
over the voxels above 0.5, within 0.5 to 0.7: a threshold of 0.95 never lets a small lesion in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssl2_bids.training.losses import balanced_mean, cross_entropy_map
from ssl2_bids.training.strategy import (
    LESION,
    Batch,
    Scalars,
    Strategy,
    StrategySettings,
    band,
    boxes,
    contrasts_seen,
    mean_over_processes_,
    partners,
)


@dataclass(frozen=True)
class FixMatchSettings(StrategySettings):
    """See the fields."""

    cutmix: float = 0.5  # share of the images that get a box: the others stay as scanned
    edges: tuple[float, float] = (0.3, 0.7)  # of the box, shares of the patch
    lowest: float = 0.5  # tau: below it background would be the better guess
    highest: float = 0.7  # tau: above it small lesions would never be targets
    memory: float = 0.99  # of tau


class FixMatch(Strategy):
    """Student and teacher."""

    extra = frozenset({'teacher'})
    Settings = FixMatchSettings
    cfg: FixMatchSettings

    def prepare(self) -> None:
        """tau starts in the middle."""
        self.threshold = torch.tensor(LESION)

    def unlabelled(self, b: Batch, step: int, random: torch.Generator) -> tuple[Tensor, Scalars]:
        """Balanced cross-entropy with what the teacher is certain of."""
        q = self.teacher_probability(b.xu)
        self.adapt(q, b.bu)
        image, q, brain = self.mix(b, q, random)
        target, weight = band(q, self.threshold)
        logits = self.student(image).float()
        apart = weight * cross_entropy_map(logits, target)
        total = brain.sum().clamp_min(1)
        scalars: Scalars = {
            'threshold': self.threshold,
            'ignored': ((1 - weight) * brain).sum() / total,
            'pseudo_lesion': (target * brain).sum() / total,
        }
        return balanced_mean(apart, logits.sigmoid(), q, brain), scalars

    def adapt(self, q: Tensor, brain: Tensor) -> None:
        """tau <- 0.99 tau + 0.01 mean of q over predicted lesions, if there are any."""
        lesion = (q > 0.5) * brain
        total = lesion.sum()
        old = self.threshold.to(q.device)
        now = torch.where(total > 0, (q * lesion).sum() / total.clamp_min(1), old)
        mean_over_processes_([now])
        self.threshold = torch.lerp(now, old, self.cfg.memory).clamp(
            self.cfg.lowest, self.cfg.highest
        )

    def mix(self, b: Batch, q: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Strong view, teacher's probability and brain with boxes of the partner."""
        n, device = len(b.xs), b.xs.device
        shape = b.xs.shape[2:]
        drawn = torch.rand(n, 5, generator=random, device=device)
        low, high = self.cfg.edges
        partner, shared = partners(contrasts_seen(b.xs))
        centre = drawn[:, 2:] * torch.tensor(shape, device=device)
        mixed = (drawn[:, 0] < self.cfg.cutmix) & (partner != torch.arange(n, device=device))
        mixed = mixed[:, None, None, None, None]
        box = boxes(shape, centre, low + (high - low) * drawn[:, 1:2]) * mixed
        image = torch.lerp(b.xs, b.xs[partner], box) * (shared | ~mixed)
        return image, torch.lerp(q, q[partner], box), torch.lerp(b.bu, b.bu[partner], box)

    def state(self) -> dict[str, Any]:
        """tau."""
        return {'threshold': self.threshold.cpu()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take it up."""
        self.threshold = state['threshold']
