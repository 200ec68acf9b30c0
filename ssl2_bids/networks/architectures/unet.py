"""A residual U-Net (He et al. 2016; Isensee et al. 2019): convolutions where Swin UNETR attends.

With its default channels it has the features of a Swin UNETR of feature size 24 at every level
and takes the same windows, so that it can be its yardstick and its partner in cross-teaching.
The names of the tensors are a contract: weights are stored under them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl2_bids.networks.architectures.fast_unet import Residual

CHANNELS = (24, 24, 48, 96, 192, 384)


class ResidualUNet(nn.Module):
    """U-Net of residual blocks; each level halves the resolution of the one before.

    Parameters
    ----------
    inputs, outputs : channels of the image and of the logits.
    channels : features per level, from full resolution on.

    Raises
    ------
    ValueError : fewer than two levels, or one without features.
    """

    def __init__(self, *, inputs: int, outputs: int = 1, channels: Sequence[int] = CHANNELS):
        super().__init__()
        if len(channels) < 2 or min(channels) < 1:
            raise ValueError('a U-Net needs two levels at least, and features at each')
        pairs = list(zip(channels[:-1], channels[1:], strict=True))
        self.encoder = nn.ModuleList([Residual(inputs, channels[0])])
        self.encoder.extend(Residual(upper, lower, stride=2) for upper, lower in pairs)
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(lower, upper, 2, 2) for upper, lower in reversed(pairs)
        )
        self.decoder = nn.ModuleList(Residual(2 * upper, upper) for upper, _ in reversed(pairs))
        self.out = nn.Conv3d(channels[0], outputs, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, outputs, D, H, W) of an image (B, inputs, D, H, W).

        D, H and W are multiples of 2 to the number of levels less one, and one of them is
        larger (the instance norm of the coarsest level needs more than one voxel).
        """
        features, skipped = image, []
        for stage in self.encoder:
            features = stage(features)
            skipped.append(features)
        skipped.pop()
        for up, stage in zip(self.up, self.decoder, strict=True):
            features = stage(torch.cat([up(features), skipped.pop()], 1))
        return self.out(features)
