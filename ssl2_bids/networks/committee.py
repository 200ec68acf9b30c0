"""Several networks that answer together: the mean of their calibrated probabilities.

The members run one after another, so the memory is that of one. The names of the tensors are a
contract: ``members.N.`` before those of member N, counted from 0, and ``calibration``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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


def member_descriptions(network: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a card says of each member, with the channels that all have in common.

    Raises
    ------
    ValueError : the members are no list of two or more descriptions, one of them is a committee
        itself, or one has other channels than the committee.
    """
    members = network.get('Members')
    if not isinstance(members, list) or len(members) < 2 or not all(map(_is_described, members)):
        raise ValueError('"Members" is no list of two networks or more, each with a "Type"')
    common = {k: network[k] for k in ('InputChannels', 'OutputChannels') if k in network}
    for number, member in enumerate(members):
        if member['Type'] == 'committee':
            raise ValueError(f'member {number} is a committee itself')
        for key, value in common.items():
            if member.get(key, value) != value:
                raise ValueError(
                    f'member {number} ({member["Type"]}) has {member[key]} {key}, '
                    f'the committee {value}'
                )
    return [{**member, **common} for member in members]


def _is_described(member: Any) -> bool:
    return isinstance(member, dict) and isinstance(member.get('Type'), str)
