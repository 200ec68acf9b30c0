"""Cross teaching between CNN and transformer (Luo et al., arXiv 2112.04894).

L_u = Dice(p_1, t2) + Dice(p_2, t1) with target and weight of the confidence band from the other
network's weak view. The diversity is that of two architectures: ``build('peer')`` must give
another one than ``build('student')``. Dice is balanced by itself.
"""

from __future__ import annotations

from torch import Generator, Tensor, nn

from ssl2_bids.training.losses import dice
from ssl2_bids.training.strategy import Batch, PeerStrategy, Scalars, band, detached_probability


class CrossTeaching(PeerStrategy):
    """Student and a peer of another architecture; the student is shipped."""

    def unlabelled(self, b: Batch, step: int, random: Generator) -> tuple[Tensor, Scalars]:
        """Dice loss of each with what the other is certain of."""
        loss = peer_loss(self.student, self.peer, b) + peer_loss(self.peer, self.student, b)
        return loss, {}


def peer_loss(pupil: nn.Module, other: nn.Module, b: Batch) -> Tensor:
    """Dice loss of a network in the strong view with another's band."""
    target, weight = band(detached_probability(other, b.xu))
    return dice(pupil(b.xs), target, weight * b.bu)
