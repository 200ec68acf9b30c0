"""Cross pseudo supervision (Chen et al., arXiv 2106.01226).

L_u = <w2 CE(p_1, t2)> + <w1 CE(p_2, t1)>: two networks of different initialisation train each
other. Target t and weight w come of the other network's probability in the weak view through
the confidence band (:func:`strategy.band`): a plain cut at 0.5 lets small lesions die out.
"""

from __future__ import annotations

from torch import Generator, Tensor, nn

from ssl2_bids.training.losses import balanced_mean, cross_entropy_map
from ssl2_bids.training.strategy import Batch, PeerStrategy, Scalars, band, detached_probability


class CrossPseudoSupervision(PeerStrategy):
    """Student and peer; the student is shipped."""

    def unlabelled(self, b: Batch, step: int, random: Generator) -> tuple[Tensor, Scalars]:
        """Cross-entropy of each with what the other is certain of."""
        loss = peer_loss(self.student, self.peer, b) + peer_loss(self.peer, self.student, b)
        return loss, {}


def peer_loss(pupil: nn.Module, other: nn.Module, b: Batch) -> Tensor:
    """Balanced cross-entropy of a network in the strong view with another's band."""
    q = detached_probability(other, b.xu)
    target, weight = band(q)
    logits = pupil(b.xs).float()
    return balanced_mean(weight * cross_entropy_map(logits, target), logits.sigmoid(), q, b.bu)
