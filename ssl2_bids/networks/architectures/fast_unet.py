"""A residual U-Net that works at half resolution inside, with a thin branch at full resolution.

The names of the tensors are a contract: weights are stored under them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl2_bids.networks.architectures.norms import new_norm

FACTOR = 2  # voxels per axis that become channels at the entrance


def space_to_depth(image: Tensor) -> Tensor:
    """Move blocks of 2 x 2 x 2 voxels into channels, block position varying fastest.

    Parameters
    ----------
    image : (B, C, D, H, W), even sizes.

    Returns
    -------
    Tensor of shape (B, 8 C, D/2, H/2, W/2).
    """
    b, c, d, h, w = image.shape
    r = FACTOR
    blocks = image.view(b, c, d // r, r, h // r, r, w // r, r).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return blocks.reshape(b, c * r**3, d // r, h // r, w // r)


def depth_to_space(features: Tensor) -> Tensor:
    """Undo :func:`space_to_depth`: (B, 8 C, D, H, W) to (B, C, 2 D, 2 H, 2 W)."""
    b, c, d, h, w = features.shape
    r = FACTOR
    blocks = features.view(b, c // r**3, r, r, r, d, h, w).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return blocks.reshape(b, c // r**3, d * r, h * r, w * r)


def activate(features: Tensor) -> Tensor:
    """Leaky rectifier of slope 0.01."""
    return functional.leaky_relu(features, 0.01)


class Residual(nn.Module):
    """Two 3 x 3 x 3 convolutions with a norm after each and a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, norm: str = 'instance'):
        super().__init__()
        self.c1 = nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False)
        self.n1 = new_norm(norm, outputs)
        self.c2 = nn.Conv3d(outputs, outputs, 3, 1, 1, bias=False)
        self.n2 = new_norm(norm, outputs)
        self.sk: nn.Module = nn.Identity()
        if inputs != outputs or stride > 1:
            self.sk = nn.Conv3d(inputs, outputs, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, D, H, W) to (B, outputs, D/stride, H/stride, W/stride)."""
        inner = activate(self.n1(self.c1(features)))
        return activate(self.n2(self.c2(inner)) + self.sk(features))


class FastUNet(nn.Module):
    """Residual U-Net at half resolution with a branch at full resolution that sharpens borders.

    Parameters
    ----------
    inputs : channels of the image.
    channels : features per level; each level halves the resolution of the one before.
    full : features of the branch at full resolution.
    outputs : channels of the logits.
    norm : ``instance`` or ``voxel`` (:func:`ssl2_bids.networks.architectures.norms.new_norm`).
    """

    def __init__(
        self,
        *,
        inputs: int = 3,
        channels: Sequence[int] = (24, 48, 96, 128),
        full: int = 4,
        outputs: int = 1,
        norm: str = 'instance',
    ):
        super().__init__()
        pairs = list(zip(channels[:-1], channels[1:], strict=True))
        first = channels[0]
        self.stem = nn.Conv3d(inputs * FACTOR**3, first, 3, 1, 1)
        self.enc = nn.ModuleList([Residual(first, first, norm=norm)])
        self.enc.extend(Residual(upper, lower, stride=2, norm=norm) for upper, lower in pairs)
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(lower, upper, 2, 2) for upper, lower in reversed(pairs)
        )
        self.dec = nn.ModuleList(
            Residual(2 * upper, upper, norm=norm) for upper, _ in reversed(pairs)
        )
        self.head = nn.Conv3d(first, full * FACTOR**3, 1)
        self.f1 = nn.Conv3d(inputs, full, 3, 1, 1)
        self.f2 = nn.Conv3d(2 * full, full, 3, 1, 1)
        self.out = nn.Conv3d(full, outputs, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, outputs, D, H, W) of an image (B, inputs, D, H, W).

        D, H and W are multiples of 2 to the number of levels.
        """
        features = self.stem(space_to_depth(image))
        skipped = []
        for stage in self.enc:
            features = stage(features)
            skipped.append(features)
        skipped.pop()
        for up, stage in zip(self.up, self.dec, strict=True):
            features = stage(torch.cat([up(features), skipped.pop()], 1))
        sharp = activate(self.f1(image))
        both = torch.cat([depth_to_space(self.head(features)), sharp], 1)
        return self.out(activate(self.f2(both)))
