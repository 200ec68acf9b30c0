"""Uncertainty-rectified pyramid consistency (Luo et al., arXiv 2012.07042).

p_k, k = 1..K: the output and auxiliary heads on the finest levels of the decoder, interpolated
to full resolution; p = mean of p_k without gradient; v_k = KL(p || p_k).
L_u = 1/K sum over k of [<(p - p_k)^2 exp(-v_k)> / <exp(-v_k)> + <v_k>].
The heads learn from labels on features without gradient, so that the student is trained on the
labels exactly as in ``supervised`` and the unlabelled term alone makes the difference. Coarse
levels cannot see small lesions: no more than three scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl2_bids.training.losses import balanced_mean, relative_entropy
from ssl2_bids.training.strategy import (
    WITH_STAGES,
    Batch,
    Scalars,
    Strategy,
    StrategySettings,
    forward_hooks,
    stages,
)


@dataclass(frozen=True)
class PyramidSettings(StrategySettings):
    """See the fields."""

    heads: int = 2  # beside the output: three scales


class PyramidConsistency(Strategy):
    """Student and a 1 x 1 x 1 convolution on each of its finest decoder levels."""

    extra = frozenset({'heads'})
    networks = WITH_STAGES
    Settings = PyramidSettings
    cfg: PyramidSettings
    heads: nn.ModuleList

    def prepare(self) -> None:
        """One head per level."""
        if not self.levels():
            raise ValueError('the network has no decoder level coarser than the image')
        channels = [features_of(level) for level in self.levels()]
        self.heads = nn.ModuleList(nn.Conv3d(count, 1, 1) for count in channels)

    def levels(self) -> list[nn.Module]:
        """The finest of the levels of the student's decoder that are coarser than the image."""
        return stages(self.student, 'decoder')[-self.cfg.heads :]

    def scales(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits of the student, and the features of the levels."""
        features: dict[int, Tensor] = {}
        with forward_hooks(self.levels(), features.__setitem__):
            logits = self.student(image).float()
        return logits, [features[index] for index in sorted(features)]

    def read(self, features: Sequence[Tensor], shape: Sequence[int]) -> list[Tensor]:
        """Logits of the heads at full resolution."""
        return [
            functional.interpolate(head(level).float(), shape, mode='trilinear')
            for head, level in zip(self.heads, features, strict=True)
        ]

    def labelled(self, b: Batch) -> Tensor:
        """L_s of the student, and the mean of those of the heads."""
        if len(b.xl) == 0:
            return self.labelled_of(self.student, b)
        logits, features = self.scales(b.xl)
        loss = self.sup_loss(logits, b.yl, b.ml * b.bl)
        read = self.read([level.detach() for level in features], b.xl.shape[2:])
        known = b.ml * b.bl
        return loss + torch.stack([self.sup_loss(z, b.yl, known) for z in read]).mean()

    def unlabelled(self, b: Batch, step: int, random: torch.Generator) -> tuple[Tensor, Scalars]:
        """Rectified disagreement of the scales with their mean."""
        logits, features = self.scales(b.xs)
        scales = torch.stack([logits, *self.read(features, b.xs.shape[2:])]).sigmoid()
        mean, highest = scales.mean(0).detach(), scales.amax(0)
        loss = torch.zeros((), device=mean.device)
        for p in scales:
            apart = relative_entropy(mean, p)
            rectified = balanced_mean(
                (mean - p) ** 2, mean, highest, b.bu, weight=torch.exp(-apart)
            )
            loss = loss + rectified + balanced_mean(apart, mean, highest, b.bu)
        return loss / len(scales), {}


def features_of(level: nn.Module) -> int:
    """How many features a level of a decoder gives: those of its last convolution."""
    return [m for m in level.modules() if isinstance(m, nn.Conv3d)][-1].out_channels
