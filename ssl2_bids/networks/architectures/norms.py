"""Norms of features, by the names that a card gives them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class VoxelNorm(nn.Module):
    """Layer normalisation of the features of each voxel of (B, features, D, H, W).

    As in ConvNeXt (Liu et al. 2022, arXiv 2201.03545). No other voxel has an influence, so the
    result does not depend on the window in which a voxel is seen.
    """

    def __init__(self, features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, image: Tensor) -> Tensor:
        """The same shape."""
        last = image.movedim(1, -1)  # free where the memory format is channels last
        return functional.layer_norm(
            last, (last.shape[-1],), self.weight.to(last.dtype), self.bias.to(last.dtype)
        ).movedim(-1, 1)


NORMS = ('instance', 'voxel')


def new_norm(name: str, features: int) -> nn.Module:
    """A norm with a weight and a bias for each feature, under these names.

    Parameters
    ----------
    name : ``instance``, by the mean and the variance of each feature over all voxels of a
        window (Ulyanov et al. 2016, arXiv 1607.08022); or ``voxel`` (:class:`VoxelNorm`).

    Raises
    ------
    ValueError : another name.
    """
    if name == 'instance':
        return nn.InstanceNorm3d(features, affine=True)
    if name == 'voxel':
        return VoxelNorm(features)
    raise ValueError(f'the norm {name!r} is none of {", ".join(NORMS)}')
