"""What the training engine does with tensors of one patch: fields, lookups, filters (torch)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ssl2_bids.synthesis.heads import INDEX


class Fields:
    """Smooth random fields of one patch, mean 0 and standard deviation about 0.8, 1.5 at knots."""

    def __init__(self, patch: tuple[int, int, int], generator: torch.Generator, device: str):
        self.patch = patch
        self.generator = generator
        self.device = device

    def __call__(self, scale: float, count: int = 1) -> Tensor:
        """(D, H, W), or (count, D, H, W); knots ``scale`` voxels apart, linear between."""
        knots = [max(2, int(np.ceil(n / scale)) + 1) for n in self.patch]
        coarse = torch.randn((1, count, *knots), generator=self.generator, device=self.device)
        fine = functional.interpolate(coarse, self.patch, mode='trilinear', align_corners=True)[0]
        fine *= 1.5  # linear interpolation along three axes leaves 0.54 of the deviation
        return fine[0] if count == 1 else fine

    def noise(self) -> Tensor:
        """White noise (D, H, W)."""
        return torch.randn(self.patch, generator=self.generator, device=self.device)


def lookup(values: Sequence[float] | np.ndarray, groups: Tensor) -> Tensor:
    """The value of each voxel's group."""
    table = torch.as_tensor(np.asarray(values, np.float32), device=groups.device)
    return table[groups]


def members(groups: Tensor, chosen: Sequence[int]) -> Tensor:
    """Which voxels belong to one of some groups, as 0 or 1 float32."""
    table = np.zeros(len(INDEX), np.float32)
    table[list(chosen)] = 1
    return lookup(table, groups)


def blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (D, H, W), sigma in voxels, zeros beyond the border."""
    radius = max(1, int(np.ceil(2.2 * sigma)))
    steps = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (steps / sigma) ** 2)
    return convolve(image, [kernel / kernel.sum()] * 3)


def shift(image: Tensor, by: np.ndarray) -> Tensor:
    """Move by up to 2 voxels per axis, linear between voxels."""
    kernels = []
    for step in by:
        low = int(np.floor(step))
        kernel = np.zeros(5)
        kernel[2 - low], kernel[1 - low] = 1 - (step - low), step - low
        kernels.append(kernel)
    return convolve(image, kernels)


def convolve(image: Tensor, kernels: Sequence[np.ndarray]) -> Tensor:
    """Convolve the three axes of (D, H, W) with a kernel each, zeros beyond the border.

    Sums of shifted slices: on a CPU several times faster than a convolution of one channel.
    """
    for axis, kernel in enumerate(kernels):
        radius = len(kernel) // 2
        result = image * float(kernel[radius])
        for step in range(1, radius + 1):
            for offset, weight in ((step, kernel[radius + step]), (-step, kernel[radius - step])):
                if weight == 0:
                    continue
                length = image.shape[axis] - step
                target = result.narrow(axis, 0 if offset > 0 else step, length)
                source = image.narrow(axis, step if offset > 0 else 0, length)
                target.add_(source, alpha=float(weight))
        image = result
    return image
