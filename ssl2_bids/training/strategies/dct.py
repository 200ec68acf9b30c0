"""Deep co-training (Qiao et al., arXiv 1803.05984).

L_u = <JSD(p_1, p_2)> + l_d (<CE(p_1(x), p_2(x_1))> + <CE(p_2(x), p_1(x_2))>): two networks agree
on the image x, and each withstands what fools the other, for else they become one. x_k is the
image that lowers network k's own decision most (fast gradient sign, step epsilon), changed in the
brain and in present channels only; the targets p_k(x) are without gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ssl2_bids.training.losses import balanced_mean, cross_entropy_map, entropy
from ssl2_bids.training.strategy import Batch, PeerStrategy, Scalars, StrategySettings


@dataclass(frozen=True)
class CoTrainingSettings(StrategySettings):
    """See the fields."""

    difference: float = 0.05  # l_d: the original's ratio of 0.5 to 10 between its two weights
    epsilon: float = 0.02  # in units of the network's input


class DeepCoTraining(PeerStrategy):
    """Student and peer; the student is shipped."""

    Settings = CoTrainingSettings
    cfg: CoTrainingSettings

    def unlabelled(self, b: Batch, step: int, random: torch.Generator) -> tuple[Tensor, Scalars]:
        """Agreement, and resistance to the other's adversarial images."""
        p, fooling_student = self.attacked(self.student, b)
        q, fooling_peer = self.attacked(self.peer, b)
        apart = entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2
        agreement = balanced_mean(apart, p, q, b.bu)
        resistance = self.resists(self.peer, fooling_student, p.detach(), b) + self.resists(
            self.student, fooling_peer, q.detach(), b
        )
        scalars: Scalars = {'agreement': agreement.detach(), 'resistance': resistance.detach()}
        return agreement + self.cfg.difference * resistance, scalars

    def attacked(self, network: nn.Module, b: Batch) -> tuple[Tensor, Tensor]:
        """A network's probability, and the image that fools it."""
        image = b.xs.detach().requires_grad_(True)
        logits = network(image).float()
        decided = (logits.detach() > 0).float()
        against = (b.bu * cross_entropy_map(logits, decided)).sum()
        (slope,) = torch.autograd.grad(against, image, retain_graph=True)
        seen = b.cu[:, :, None, None, None] * (b.xs != 0)
        return logits.sigmoid(), b.xs + self.cfg.epsilon * slope.sign() * seen

    def resists(self, network: nn.Module, image: Tensor, target: Tensor, b: Batch) -> Tensor:
        """Balanced cross-entropy of a network with the other's probability."""
        logits = network(image).float()
        apart = cross_entropy_map(logits, target)
        return balanced_mean(apart, logits.sigmoid(), target, b.bu)
