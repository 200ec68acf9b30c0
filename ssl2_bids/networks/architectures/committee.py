"""Several networks that answer together: the mean of their calibrated probabilities.

The members run one after another, so the memory is that of one. The names of the tensors are a
contract: ``members.N.`` before those of member N, counted from 0, and ``calibration``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

TINY = 1e-6  # smallest probability in a logarithm


class Committee(nn.Module):
    """Networks with the same inputs and outputs.

    Parameters
    ----------
    members : each (B, C, D, H, W) to (B, outputs, D, H, W).
    """

    calibration: Tensor

    def __init__(self, members: Sequence[nn.Module]):
        super().__init__()
        if len(members) < 2:
            raise ValueError('a committee has two members at least')
        self.members = nn.ModuleList(members)
        self.register_buffer('calibration', torch.tensor([[1.0, 0.0]] * len(members)))

    def opinions(self, image: Tensor) -> Tensor:
        """Calibrated logits of each member, (members, B, outputs, D, H, W).

        A member's logit is multiplied by the first and raised by the second number of its row
        of ``calibration``.
        """
        logits = [member(image).float() for member in self.members]
        return torch.stack(
            [
                logit * scale + shift
                for logit, (scale, shift) in zip(logits, self.calibration, strict=True)
            ]
        )

    def forward(self, image: Tensor) -> Tensor:
        """The logit of the mean probability; the mean of images where members give images."""
        opinions = self.opinions(image)
        if opinions.shape[2] > 1:
            return opinions.mean(dim=0)
        return torch.logit(torch.sigmoid(opinions).mean(dim=0), eps=TINY)


def members_of(network: nn.Module) -> tuple[nn.Module, ...]:
    """The members of a committee; a network that is none is alone."""
    return tuple(network.members) if isinstance(network, Committee) else (network,)


def plain_name(name: str) -> str:
    """The name of a tensor within its member."""
    parts = name.split('.', 2)
    return parts[2] if parts[0] == 'members' else name
