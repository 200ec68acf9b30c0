"""Inpainting (Tang et al., CVPR 2022): boxes are cut out, the encoder's features fill them in."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl2_bids.training.pretraining.pretext.masked import VISIBLE, mean_where

EDGE = (0.05, 0.25)  # of a box, share of the image's edge
SHARE = (0.15, 0.45)  # of the voxels that are cut out, drawn per sample; counted once
FEATURES = 32  # of the last stage of the decoder


def cut_boxes(shape: Sequence[int], random: torch.Generator) -> Tensor:
    """Where to cut: boxes are added until they cover the drawn share of the image.

    Parameters
    ----------
    shape : (N, C, D, H, W).
    random : on the CPU.

    Returns
    -------
    (N, 1, D, H, W) float32, 1 where cut out.
    """
    low, high = SHARE
    masks = torch.zeros(shape[0], 1, *shape[2:])
    for mask in masks:
        wanted = low + (high - low) * float(torch.rand((), generator=random))
        while float(mask.mean()) < wanted:
            drawn = torch.rand(2, 3, generator=random).tolist()
            box = []
            for size, edge, place in zip(shape[2:], *drawn, strict=True):
                length = max(1, round(size * (EDGE[0] + (EDGE[1] - EDGE[0]) * edge)))
                start = int(place * (size - length + 1))
                box.append(slice(start, start + length))
            mask[(0, *box)] = 1
    return masks


def cut_out(image: Tensor, brain: Tensor, hidden: Tensor, random: torch.Generator) -> Tensor:
    """Overwrite the boxes: with noise, or with what another sample shows there.

    Half of the samples get the one, half the other; a batch of one always noise.

    Parameters
    ----------
    image : (N, C, D, H, W).
    brain, hidden : (N, 1, D, H, W), 0 or 1.
    random : on the CPU.
    """
    n = len(image)
    noise = torch.randn(image.shape, generator=random).to(image) * brain * (image != 0)
    borrowed = torch.rand(n, generator=random) < 0.5
    other = borrowed.to(image.device)[:, None, None, None, None] & torch.tensor(n > 1)
    filling = torch.where(other, image.roll(1, 0), noise)
    return torch.where(hidden > 0, filling, image)


class Inpainting(nn.Module):
    """A decoder of its own from the bottleneck to the image: convolution, then twice the size.

    Parameters
    ----------
    features : of the bottleneck.
    factor : how much coarser than the image it is, a power of two.
    channels : of the image.
    """

    def __init__(self, features: int, factor: int, channels: int):
        super().__init__()
        layers: list[nn.Module] = []
        for left in reversed(range(round(math.log2(factor)))):
            narrower = max(FEATURES, min(features // 2, FEATURES * 2**left))
            layers += [
                nn.Conv3d(features, narrower, 3, padding=1),
                nn.InstanceNorm3d(narrower),
                nn.LeakyReLU(),
                nn.Upsample(scale_factor=2, mode='trilinear', align_corners=False),
            ]
            features = narrower
        self.decoder = nn.Sequential(*layers, nn.Conv3d(features, channels, 1))

    def forward(self, features: Tensor) -> Tensor:
        """The image (N, C, D, H, W) from features (N, F, d, h, w)."""
        return self.decoder(features)

    def loss(
        self, features: Tensor, image: Tensor, counted: Tensor, hidden: Tensor
    ) -> dict[str, Tensor]:
        """L1 where the image was cut, with a tenth of the L1 elsewhere.

        Parameters
        ----------
        image : (N, C, D, H, W), uncut.
        counted : (N, C, D, H, W), 1 in the brain and in channels that are present.
        hidden : (N, 1, D, H, W).
        """
        error = (self(features).float() - image).abs()
        inside = counted * hidden
        cut, rest = mean_where(error, inside), mean_where(error, counted - inside)
        return {'inpainting': cut + VISIBLE * rest}
