"""Bidirectional copy-paste (Bai et al., arXiv 2305.00673).

With M a box of two thirds of each edge, the student sees an unlabelled box in a labelled patch and
the labelled box in the unlabelled patch. Where a voxel is labelled, its target is the label (L_s);
where not, what the teacher is certain of in the weak view (L_u); both 1/2 (CE + Dice), mean of the
two mixes. While w = 0 labelled patches are mixed with each other. Boxes are centred on lesions, so
that there is one to paste; all components of a pseudo-label count, not just the largest.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl2_bids.training.losses import sup_loss
from ssl2_bids.training.strategy import (
    Batch,
    Scalars,
    Strategy,
    StrategySettings,
    band,
    boxes,
    contrasts_seen,
    generator,
    partners,
)


@dataclass(frozen=True)
class CopyPasteSettings(StrategySettings):
    """See the fields."""

    w_max: float = 0.5  # the original's weight of pseudo-labels against labels
    edge: float = 2 / 3  # of the box, share of the patch
    mixing: bool = True  # without: pseudo-labels on unmixed images


class BidirectionalCopyPaste(Strategy):
    """Student and teacher."""

    extra = frozenset({'teacher'})
    Settings = CopyPasteSettings
    cfg: CopyPasteSettings

    def loss(self, b: Batch, step: int) -> tuple[Tensor, Scalars]:
        """L_s + w(step) L_u, both on the mixes."""
        weight = self.cfg.weight(step)
        if not self.cfg.mixing or len(b.xl) == 0:
            return super().loss(b, step)
        random = generator(self.cfg.seed, step, b.xl.device, self.part)
        if weight == 0 or len(b.xu) == 0:
            labelled = self.labelled_mixes(b, random)
            return labelled, {'labelled': labelled.detach(), 'weight': weight}
        labelled, unlabelled = self.mixes(b, random)
        return labelled + weight * unlabelled, {
            'labelled': labelled.detach(),
            'weight': weight,
            'unlabelled': unlabelled.detach(),
        }

    def unlabelled(self, b: Batch, step: int, random: torch.Generator) -> tuple[Tensor, Scalars]:
        """Pseudo-labels on unmixed images, where there is nothing to mix with."""
        target, certain = band(self.teacher_probability(b.xu))
        return sup_loss(self.student(b.xs), target, certain * b.bu), {}

    def labelled_mixes(self, b: Batch, random: torch.Generator) -> Tensor:
        """L_s on labelled patches with a box of the next one."""
        partner, shared = partners(b.cl)
        known = b.ml * b.bl
        box = self.lesion_boxes((b.yl * known)[partner], random)
        image = torch.lerp(b.xl, b.xl[partner], box) * shared
        label = torch.lerp(b.yl, b.yl[partner], box)
        return self.sup_loss(self.student(image), label, torch.lerp(known, known[partner], box))

    def mixes(self, b: Batch, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """L_s and L_u on labelled patches with unlabelled boxes and the other way round."""
        count = torch.arange(max(len(b.xl), len(b.xu)), device=b.xl.device)
        i, j = count % len(b.xl), count % len(b.xu)
        target, certain = band(self.teacher_probability(b.xu))
        label, known = b.yl[i], (b.ml * b.bl)[i]
        target, certain = target[j], (certain * b.bu)[j]
        shared = b.cl[i] & contrasts_seen(b.xs)[j]
        apart = ~shared.any(1, keepdim=True)  # no contrast in common: left unmixed
        box = self.lesion_boxes(label * known, random) * ~apart[:, :, None, None, None]
        inner = torch.lerp(b.xl[i], b.xs[j], box) * (shared | apart)[:, :, None, None, None]
        outer = torch.lerp(b.xs[j], b.xl[i], box) * (shared | apart)[:, :, None, None, None]
        z_inner, z_outer = self.student(inner), self.student(outer)
        labelled = self.sup_loss(z_inner, label, known * (1 - box))
        labelled = labelled + self.sup_loss(z_outer, label, known * box)
        unlabelled = sup_loss(z_inner, target, certain * box)
        unlabelled = unlabelled + sup_loss(z_outer, target, certain * (1 - box))
        return labelled / 2, unlabelled / 2

    def lesion_boxes(self, lesion: Tensor, random: torch.Generator) -> Tensor:
        """Boxes centred on a lesion voxel, or anywhere in a patch without one."""
        shape = lesion.shape[2:]
        lots = torch.rand(lesion.shape, generator=random, device=lesion.device)
        index = (lots + lesion).flatten(1).argmax(1)  # a lesion voxel has the higher lot
        centre = torch.stack(
            [index // (shape[1] * shape[2]), index // shape[2] % shape[1], index % shape[2]], 1
        )
        return boxes(shape, centre, self.cfg.edge)
