"""What is hidden from a network that learns to fill in, and how the rest is spoilt."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 16  # voxels: larger than a lesion, so that its surroundings cannot copy it back
RATIO = (0.5, 0.75)  # share of blocks that is hidden, drawn per sample
INDEPENDENT = 0.5  # probability that each channel is hidden elsewhere
LOW, HIGH = -2.0, 8 / 3  # normalised intensities: (x - median) / (1.4826 MAD) / 3, clipped there
DISTURBANCE_SHARE = 0.5  # probability of each disturbance, per sample
GAMMA = math.log(1.5)  # largest logarithm of the exponent
FIELD = 0.3  # largest standard deviation of the logarithm of a bias field, at its nodes
FIELD_GRID = 4  # its coarse grid, nodes per axis
BLUR = (0.3, 1.2)  # voxels, standard deviation
NOISE = 0.15  # largest standard deviation, in normalised intensity


def block_masks(
    shape: Sequence[int],
    *,
    random: torch.Generator,
    block: int = BLOCK,
    ratio: tuple[float, float] = RATIO,
    independent: float = INDEPENDENT,
) -> Tensor:
    """Blocks to be hidden: another share and other places for each sample.

    With probability ``independent`` the channels of a sample have masks of their own, so that
    one contrast is filled in from another; else they share one.

    Parameters
    ----------
    shape : (N, C, D, H, W) of the images.
    block : edge in voxels; the last block of an axis may be smaller.

    Returns
    -------
    (N, C, D, H, W) float32, 1 where hidden.
    """
    n, channels, *size = shape
    grid = [math.ceil(edge / block) for edge in size]
    count = math.prod(grid)
    device = random.device
    order = torch.rand(n, channels, count, generator=random, device=device)
    apart = torch.rand(n, 1, 1, generator=random, device=device) < independent
    order = torch.where(apart, order, order[:, :1])
    low, high = ratio
    share = low + (high - low) * torch.rand(n, 1, 1, generator=random, device=device)
    rank = order.argsort(dim=-1).argsort(dim=-1)
    hidden = (rank < (share * count).round()).float().view(n, channels, *grid)
    for axis in (2, 3, 4):
        hidden = hidden.repeat_interleave(block, dim=axis)
    return hidden[:, :, : size[0], : size[1], : size[2]].contiguous()


def spoil(image: Tensor, brain: Tensor, random: torch.Generator) -> Tensor:
    """Disturb intensities as scanners do: gamma, bias field, blur, noise; each now and then.

    Parameters
    ----------
    image : (N, C, D, H, W), normalised; exactly 0 outside the brain and where absent.
    brain : (N, 1, D, H, W), 0 or 1.

    Returns
    -------
    The same shape; zeros stay zero outside the brain and in absent channels.
    """
    n, channels = image.shape[:2]
    seen = brain * (image != 0).flatten(2).any(dim=2)[:, :, None, None, None]
    unit = ((image - LOW) / (HIGH - LOW)).clamp(0, 1)

    def draw(*size: int) -> Tensor:
        return torch.rand(n, *size, generator=random, device=image.device)

    def perhaps(changed: Tensor, former: Tensor) -> Tensor:
        chosen = (draw(channels) < DISTURBANCE_SHARE)[:, :, None, None, None]
        return torch.where(chosen, changed, former)

    exponent = torch.exp(GAMMA * (2 * draw(channels, 1, 1, 1) - 1))
    unit = perhaps(unit.clamp_min(1e-6) ** exponent, unit)
    nodes = torch.empty(n, channels, *[FIELD_GRID] * 3, device=image.device)
    nodes = nodes.normal_(generator=random) * FIELD * draw(channels, 1, 1, 1)
    field = functional.interpolate(nodes, image.shape[2:], mode='trilinear', align_corners=True)
    unit = perhaps(unit * torch.exp(field), unit)
    low, high = BLUR
    unit = perhaps(blur(unit, low + (high - low) * draw(channels)), unit)
    noise = torch.empty_like(unit).normal_(generator=random)
    unit = perhaps(unit + noise * NOISE / (HIGH - LOW) * draw(channels, 1, 1, 1), unit)
    return (LOW + (HIGH - LOW) * unit) * seen


def blur(image: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian of a width of its own for each sample and channel.

    Parameters
    ----------
    image : (N, C, D, H, W).
    sigma : (N, C), voxels.
    """
    n, channels, *size = image.shape
    reach = 3
    offsets = torch.arange(-reach, reach + 1, device=image.device)
    kernel = torch.exp(-(offsets**2) / (2 * sigma.reshape(-1, 1) ** 2))
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).to(image.dtype)
    result = image.reshape(1, n * channels, *size)
    for axis in range(3):
        view = [n * channels, 1, 1, 1, 1]
        view[2 + axis] = 2 * reach + 1
        padding = [0, 0, 0]
        padding[axis] = reach
        result = functional.conv3d(result, kernel.view(view), padding=padding, groups=n * channels)
    return result.view(n, channels, *size)
