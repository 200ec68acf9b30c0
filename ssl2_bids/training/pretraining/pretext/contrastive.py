"""Contrast (Tang et al., CVPR 2022): two views of a place are more alike than other people."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl2_bids.training import distributed

TEMPERATURE = 0.5
PROJECTION = 512


def contrast_loss(
    first: Tensor,
    second: Tensor,
    person: Tensor,
    *,
    alone: bool = False,
    temperature: float = TEMPERATURE,
) -> Tensor:
    """NT-Xent (Chen et al., arXiv 2002.05709) whose negatives are other people alone.

    With several processes the views of all are negatives; the mean is over the own ones.

    Parameters
    ----------
    first, second : (N, P), two views; row by row of one place.
    person : (N,); views of one person are not pushed apart.
    alone : whether other processes compute no such loss now.

    Returns
    -------
    Scalar; 0 without other samples.
    """
    n = len(person)
    own = functional.normalize(torch.cat([first, second]).float(), dim=1)
    persons = torch.cat([person, person])
    all_vectors = own if alone else distributed.gather(own)
    people = persons if alone else distributed.gather(persons)
    likeness = own @ all_vectors.T / temperature
    row = torch.arange(2 * n, device=own.device)
    offset = 0 if alone else 2 * n * distributed.rank()
    partner = offset + row.roll(n)
    negative = persons[:, None] != people[None]
    negative[row, partner] = True
    likeness = likeness.masked_fill(~negative, float('-inf'))
    return functional.cross_entropy(likeness, partner)


class Contrast(nn.Module):
    """Projection of the mean of the coarsest features over space.

    Parameters
    ----------
    features : of the bottleneck.
    """

    def __init__(self, features: int):
        super().__init__()
        self.project = nn.Linear(features, PROJECTION)

    def forward(self, features: Tensor) -> Tensor:
        """(N, 512) from features (N, F, d, h, w)."""
        return self.project(features.float().mean(dim=(2, 3, 4)))

    def loss(
        self, first: Tensor, second: Tensor, person: Tensor, *, alone: bool = False
    ) -> dict[str, Tensor]:
        """See :func:`contrast_loss`; the views' features (N, F, d, h, w)."""
        return {'contrast': contrast_loss(self(first), self(second), person, alone=alone)}
