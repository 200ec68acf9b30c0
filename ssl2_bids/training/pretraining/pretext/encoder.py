"""The features of a network where its grid is coarsest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ssl2_bids.networks.architectures.swin_unet import SwinUNet


class _Reached(Exception):  # no error
    """The features are there: the decoder need not run."""


def deepest(network: nn.Module) -> nn.Module:
    """The module whose output (or the last of whose outputs) lies on the coarsest grid.

    Raises
    ------
    TypeError : a network of an unknown build.
    """
    for name in ('enc', 'encoder'):
        stages = getattr(network, name, None)
        if isinstance(stages, nn.ModuleList):
            return stages[-1]
    if isinstance(network, SwinUNet):
        return network.encoder
    transformer = getattr(network, 'swinViT', None)
    if isinstance(transformer, nn.Module):
        return transformer
    raise TypeError(f'the coarsest level of {type(network).__name__} is not known')


def bottleneck(network: nn.Module, image: Tensor) -> Tensor:
    """The coarsest features (N, F, d, h, w) of images (N, C, D, H, W)."""
    found: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        found.append(output if isinstance(output, Tensor) else output[-1])
        raise _Reached

    handle = deepest(network).register_forward_hook(keep)
    try:
        network(image)
    except _Reached:
        pass
    finally:
        handle.remove()
    return found[0]


@torch.no_grad()
def bottleneck_size(network: nn.Module, channels: int, edge: int) -> tuple[int, int]:
    """Features of the bottleneck, and how many voxels of the image one of its voxels spans.

    Parameters
    ----------
    channels : of the image.
    edge : of a cubic image that the network accepts.
    """
    parameter = next(network.parameters())
    features = bottleneck(network, parameter.new_zeros(1, channels, edge, edge, edge))
    return features.shape[1], edge // features.shape[2]
