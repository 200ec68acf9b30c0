"""Several networks that answer together: the mean of their calibrated probabilities, and how far
they disagree.

The members run one after another, so the memory is that of one. The names of the tensors are a
contract: ``members.N.`` before those of member N, counted from 0, and ``calibration``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

TINY = 1e-6  # smallest probability in a logarithm
UNCHANGED = (1.0, 0.0)  # scale and shift of a logit


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
        self.register_buffer('calibration', torch.tensor([UNCHANGED] * len(members)))

    def uncalibrate(self) -> None:
        """Logits of the members as they are: other weights need another calibration."""
        self.calibration.copy_(torch.tensor([UNCHANGED] * len(self.members)))

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
        return joined(opinions)


def joined(opinions: Tensor) -> Tensor:
    """The logit of the mean probability of members; logits (members, ...) to (...)."""
    return torch.logit(torch.sigmoid(opinions).mean(dim=0), eps=TINY)


def disagreement(probabilities: Tensor) -> Tensor:
    """Mutual information of the label of a voxel and the member that gives it, in bits.

    The entropy of the mean probability minus the mean entropy of the members (Houlsby et al.
    2011, arXiv 1112.5745; of lesions of multiple sclerosis Nair et al. 2020, doi
    10.1016/j.media.2019.101557). 0 where all members give the same probability, whatever it is;
    1, the most, where half of them are certain of a lesion and half of none.

    Parameters
    ----------
    probabilities : (members, ...), 0 to 1.

    Returns
    -------
    Tensor (...).
    """
    apart = _entropy(probabilities.mean(dim=0)) - _entropy(probabilities).mean(dim=0)
    return apart.clamp(min=0)  # single precision may give a little less


def _entropy(probability: Tensor) -> Tensor:
    return (torch.special.entr(probability) + torch.special.entr(1 - probability)) / math.log(2)


def members_of(network: nn.Module) -> tuple[nn.Module, ...]:
    """The members of a committee; a network that is none is alone."""
    return tuple(network.members) if isinstance(network, Committee) else (network,)


def plain_name(name: str) -> str:
    """The name of a tensor within its member."""
    parts = name.split('.', 2)
    return parts[2] if parts[0] == 'members' else name
