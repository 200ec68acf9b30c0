"""Supervised only: L = L_s, what every other strategy is compared to."""

from __future__ import annotations

from torch import Tensor

from ssl2_bids.training.strategy import Batch, Scalars, Strategy


class Supervised(Strategy):
    """The labelled loss and nothing else; unlabelled images are not looked at."""

    def loss(self, b: Batch, step: int) -> tuple[Tensor, Scalars]:
        """L_s."""
        loss = self.labelled(b)
        return loss, {'labelled': loss.detach()}
