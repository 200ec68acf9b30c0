"""Rotation (Tang et al., CVPR 2022): about which of three axes, and by how many right angles."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

AXES = ((3, 4), (2, 4), (2, 3))  # of (N, C, D, H, W): the plane about D, H and W
CLASSES = 1 + 3 * len(AXES)  # upright; and 90, 180, 270 degrees about each axis


def rotate(image: Tensor, label: int) -> Tensor:
    """Turn (..., D, H, W) by the rotation of a label: 0 none, 1 + 3 axis + (quarters - 1).

    Raises
    ------
    ValueError : D, H and W are not equal.
    """
    if len(set(image.shape[-3:])) > 1:
        raise ValueError(f'only cubes can be rotated, not {tuple(image.shape[-3:])}')
    if label == 0:
        return image
    axis, quarters = divmod(label - 1, 3)
    plane = [dimension - 5 for dimension in AXES[axis]]
    return torch.rot90(image, quarters + 1, plane)


def rotate_each(parts: tuple[Tensor, ...], labels: Tensor) -> tuple[Tensor, ...]:
    """Turn each sample of several tensors (N, ...) by its label."""
    turns = labels.tolist()
    return tuple(
        torch.stack([rotate(one, turn) for one, turn in zip(part, turns, strict=True)])
        for part in parts
    )


class Rotation(nn.Module):
    """Which rotation it was, from the mean of the coarsest features over space.

    Parameters
    ----------
    features : of the bottleneck.
    """

    def __init__(self, features: int):
        super().__init__()
        self.classify = nn.Linear(features, CLASSES)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (N, 10) from features (N, F, d, h, w)."""
        return self.classify(features.float().mean(dim=(2, 3, 4)))

    def loss(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Cross-entropy; labels (N,)."""
        return {'rotation': functional.cross_entropy(self(features).float(), labels)}
