"""Scanner twin: L = L_s over labelled people, real ones and those of a simulated twin.

The scans without labels act before the training: a protocol is fitted to them, and labelled people
are drawn with it (``workflows/adaptation/twin``). Patches of real and of simulated people are
equally likely (:class:`ssl2_bids.training.data.views.ViewSettings`). Billot et al. 2023 (SynthSeg,
doi 10.1016/j.media.2023.102789) train on simulated images of any contrast; here they are those of
one scanner.
"""

from __future__ import annotations

from torch import Tensor

from ssl2_bids.training.strategy import Batch, Scalars, Strategy


class Twin(Strategy):
    """The labelled loss and nothing else; no pseudo-label confirms an error of its own."""

    def loss(self, b: Batch, step: int) -> tuple[Tensor, Scalars]:
        """L_s."""
        loss = self.labelled(b)
        return loss, {'labelled': loss.detach()}
