"""The types of networks that a card can ask for.

Building one needs torch, knowing them does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ssl2_bids.networks.cards import NetworkType

if TYPE_CHECKING:
    import torch


def _fast_unet(**parameters: Any) -> torch.nn.Module:
    from ssl2_bids.networks.architectures.fast_unet import FastUNet

    return FastUNet(**parameters)


def _residual_unet(**parameters: Any) -> torch.nn.Module:
    from ssl2_bids.networks.architectures.unet import ResidualUNet

    return ResidualUNet(**parameters)


def _swin_unetr(**parameters: Any) -> torch.nn.Module:
    from ssl2_bids.networks.architectures.swin_unetr import SwinUNETR

    return SwinUNETR(**parameters)


def _swin_unet(**parameters: Any) -> torch.nn.Module:
    from ssl2_bids.networks.architectures.swin_unet import SwinUNet

    return SwinUNet(**parameters)


def _committee(*, members: list[dict[str, Any]], **common: int) -> torch.nn.Module:
    from ssl2_bids.networks.architectures.committee import Committee

    keys = {'inputs': 'InputChannels', 'outputs': 'OutputChannels'}
    described = {'Members': members} | {keys[name]: value for name, value in common.items()}
    return Committee([new_network(member) for member in member_descriptions(described)])


def _multiple_of_members(network: Mapping[str, Any]) -> int:
    members = member_descriptions(network)
    return math.lcm(*(NETWORKS[member['Type']].multiple(member) for member in members))


def member_descriptions(network: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of a card for each member, with the channels that all have in common.

    Raises
    ------
    ValueError : the members are no list of two or more descriptions, one of them is a committee
        itself, has other channels than the committee, or has a key that its type does not know
        (a grid of its own, for instance).
    """
    members = network.get('Members')
    if not isinstance(members, list) or len(members) < 2 or not all(map(_is_described, members)):
        raise ValueError('"Members" is not a list of two networks or more, each with a "Type"')
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
        _check_keys(number, member)
    return [{**member, **common} for member in members]


def _check_keys(number: int, member: Mapping[str, Any]) -> None:
    kind = NETWORKS.get(member['Type'])
    if kind is None:
        raise ValueError(f'member {number} is of the unknown type {member["Type"]!r}')
    of_all = ('Type', 'Multiple', *CHANNELS)
    if strange := sorted(member.keys() - kind.parameters.keys() - set(of_all)):
        raise ValueError(
            f'member {number} ({member["Type"]}) has the key {strange[0]!r}, but channels, grid '
            f'and window are those of the committee; {member["Type"]} knows '
            f'{", ".join(sorted(kind.parameters))}'
        )
    if lacking := [key for key in kind.required if key not in member and key not in of_all]:
        raise ValueError(f'member {number} ({member["Type"]}) has no {lacking[0]!r}')


def _is_described(member: Any) -> bool:
    return isinstance(member, dict) and isinstance(member.get('Type'), str)


def _two_to_the_levels(network: Mapping[str, Any], *, levels: int, less: int) -> int:
    channels = network.get('Channels')
    return 2 ** ((len(channels) if isinstance(channels, list) else levels) - less)


CHANNELS = {'InputChannels': 'inputs', 'OutputChannels': 'outputs'}
NETWORKS: dict[str, NetworkType] = {
    'fast_unet': NetworkType(
        build=_fast_unet,
        parameters=CHANNELS
        | {'Channels': 'channels', 'FullResolutionChannels': 'full', 'Norm': 'norm'},
        required=('InputChannels', 'OutputChannels', 'Channels', 'FullResolutionChannels'),
        multiple=partial(_two_to_the_levels, levels=4, less=0),
    ),
    'residual_unet': NetworkType(
        build=_residual_unet,
        parameters=CHANNELS | {'Channels': 'channels'},
        required=('InputChannels', 'OutputChannels'),
        multiple=partial(_two_to_the_levels, levels=6, less=1),
    ),
    'swin_unetr': NetworkType(
        build=_swin_unetr,
        parameters=CHANNELS
        | {
            'FeatureSize': 'feature_size',
            'Depths': 'depths',
            'Heads': 'heads',
            'AttentionWindow': 'attention_window',
            'Bottleneck': 'bottleneck',
            'DropPath': 'drop_path',
        },
        required=('InputChannels', 'OutputChannels'),
        multiple=lambda network: 32,  # the embedding and four mergings halve the grid
    ),
    'swin_unet': NetworkType(
        build=_swin_unet,
        parameters=CHANNELS
        | {
            'Channels': 'channels',
            'FullResolutionChannels': 'full',
            'Depths': 'depths',
            'Heads': 'heads',
            'AttentionWindow': 'window',
        },
        required=('InputChannels', 'OutputChannels'),
        multiple=lambda network: 16,  # the entrance and three mergings halve the grid
    ),
    'committee': NetworkType(
        build=_committee,
        parameters=CHANNELS | {'Members': 'members'},
        required=('InputChannels', 'OutputChannels', 'Members'),
        multiple=_multiple_of_members,
    ),
}


# what impossible parameters raise
NOT_BUILT = (
    TypeError, ValueError, LookupError, RuntimeError, AttributeError, ArithmeticError, MemoryError,
)  # fmt: skip


def new_network(description: Mapping[str, Any], *, seed: int | None = None) -> torch.nn.Module:
    """Build a network from the entry ``Network`` of a card, with random weights.

    Parameters
    ----------
    description : ``Type`` and the parameters of that type.
    seed : of the weights; torch's random generator is then left as it was. None draws from it.

    Raises
    ------
    KeyError : a parameter is missing or unknown.
    NOT_BUILT : one is impossible.
    """
    import torch

    kind = NETWORKS[description['Type']]
    if missing := [key for key in kind.required if key not in description]:
        raise KeyError(missing[0])
    given = {key: value for key, value in description.items() if key not in ('Type', 'Multiple')}
    arguments = {kind.parameters[key]: value for key, value in given.items()}
    if seed is None:
        return kind.build(**arguments)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return kind.build(**arguments)
