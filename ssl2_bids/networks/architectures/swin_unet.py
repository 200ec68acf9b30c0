"""A U-Net at half resolution whose deeper encoder levels are shifted-window transformers.

The entrance, the branch at full resolution and the decoder are those of
:mod:`ssl2_bids.networks.architectures.fast_unet`; the encoder's levels of 4, 8 and 16 voxels are
stages of a Swin transformer (Liu et al. 2021, arXiv 2103.14030). Every norm acts on the features
of one voxel or token, so a prediction depends on the window through the field of view alone,
never through statistics of the window.

The names of the tensors are a contract: weights are stored under them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl2_bids.networks.architectures.fast_unet import (
    FACTOR,
    Residual,
    activate,
    depth_to_space,
    space_to_depth,
)

APART = -1e4  # added to the attention of tokens that must not see each other; finite in bfloat16


class Merging(nn.Module):
    """Join blocks of 2 x 2 x 2 tokens: (B, D, H, W, inputs) to (B, D/2, H/2, W/2, outputs)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm = nn.LayerNorm(8 * inputs)
        self.linear = nn.Linear(8 * inputs, outputs, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Even sizes; the position in the block varies slower than the feature."""
        b, d, h, w, c = tokens.shape
        blocks = tokens.view(b, d // 2, 2, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 5, 2, 4, 6, 7)
        return self.linear(self.norm(blocks.reshape(b, d // 2, h // 2, w // 2, 8 * c)))


class WindowAttention(nn.Module):
    """Self-attention among the tokens of a cubic window, with a bias for relative positions.

    Parameters
    ----------
    features, heads : of the tokens; the former a multiple of the latter.
    window : tokens per axis.
    """

    def __init__(self, features: int, heads: int, window: int):
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(features, 3 * features)
        self.out = nn.Linear(features, features)
        self.bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 3, heads))
        nn.init.trunc_normal_(self.bias_table, std=0.02)

    def forward(self, tokens: Tensor, apart: Tensor | None) -> Tensor:
        """Attend within each window.

        Parameters
        ----------
        tokens : (B, windows, window^3, features).
        apart : (windows, window^3, window^3) bool, pairs that must not see each other; or None.
        """
        b, windows, n, c = tokens.shape
        joined = self.qkv(tokens).view(b * windows, n, 3, self.heads, c // self.heads)
        query, key, value = joined.permute(2, 0, 3, 1, 4)
        index = relative_positions(self.window).to(tokens.device)
        bias = self.bias_table[index].permute(2, 0, 1).to(query.dtype)[None]
        if apart is not None:
            bias = bias + apart[:, None].to(query.dtype) * APART
            bias = bias.expand(b, *bias.shape).reshape(-1, *bias.shape[1:])
        found = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias.expand(b * windows, -1, -1, -1)
        )
        return self.out(found.transpose(1, 2).reshape(b, windows, n, c))


class Perceptron(nn.Module):
    """Two linear layers with a GELU between, on the features of each token."""

    def __init__(self, features: int, inner: int):
        super().__init__()
        self.linear1 = nn.Linear(features, inner)
        self.linear2 = nn.Linear(inner, features)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., features) to the same shape."""
        return self.linear2(functional.gelu(self.linear1(tokens)))


class Block(nn.Module):
    """A transformer block; every second one moves the windows by half a window."""

    def __init__(self, features: int, heads: int, window: int, *, shifted: bool):
        super().__init__()
        self.window, self.shifted = window, shifted
        self.norm1 = nn.LayerNorm(features)
        self.attention = WindowAttention(features, heads, window)
        self.norm2 = nn.LayerNorm(features)
        self.mlp = Perceptron(features, 4 * features)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, D, H, W, features), any size, to the same shape."""
        tokens = tokens + self.attend(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))

    def attend(self, tokens: Tensor) -> Tensor:
        """Attention within windows; the grid is padded to whole ones, and padding is not seen."""
        d, h, w = tokens.shape[1:4]
        n = self.window
        padded = functional.pad(tokens, (0, 0, 0, -w % n, 0, -h % n, 0, -d % n))
        shape = padded.shape
        shift = tuple(n // 2 if self.shifted and size > n else 0 for size in shape[1:4])
        apart = tokens_apart((d, h, w), n, shift)
        if any(shift):
            padded = padded.roll([-s for s in shift], (1, 2, 3))
        found = self.attention(
            into_windows(padded, n), None if apart is None else apart.to(tokens.device)
        )
        whole = out_of_windows(found, shape, n)
        if any(shift):
            whole = whole.roll(shift, (1, 2, 3))
        return whole[:, :d, :h, :w]


def into_windows(tokens: Tensor, window: int) -> Tensor:
    """(B, D, H, W, C) to (B, windows, window^3, C); sizes are multiples of the window."""
    b, d, h, w, c = tokens.shape
    n = window
    cut = tokens.view(b, d // n, n, h // n, n, w // n, n, c).permute(0, 1, 3, 5, 2, 4, 6, 7)
    return cut.reshape(b, -1, n**3, c)


def out_of_windows(tokens: Tensor, shape: Sequence[int], window: int) -> Tensor:
    """Undo :func:`into_windows` for a grid of ``shape`` (B, D, H, W, C)."""
    b, d, h, w, c = shape
    n = window
    cut = tokens.view(b, d // n, h // n, w // n, n, n, n, c).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return cut.reshape(b, d, h, w, c)


@lru_cache(maxsize=16)
def relative_positions(window: int) -> Tensor:
    """(window^3, window^3): for each pair of tokens the row of the table of biases."""
    with torch.inference_mode(False):  # kept for a training as well
        steps = torch.arange(window)
        grid = torch.stack(torch.meshgrid(steps, steps, steps, indexing='ij')).flatten(1)
        offset = grid[:, :, None] - grid[:, None, :] + window - 1
        side = 2 * window - 1
        return (offset[0] * side + offset[1]) * side + offset[2]


@lru_cache(maxsize=64)
def tokens_apart(
    sizes: tuple[int, int, int], window: int, shift: tuple[int, int, int]
) -> Tensor | None:
    """(windows, window^3, window^3) bool: pairs of tokens in a window that are no neighbours.

    A cyclic shift brings both ends of an axis into one window, and padding fills the last one.
    None where neither happens.
    """
    if not any(shift) and not any(size % window for size in sizes):
        return None
    with torch.inference_mode(False):
        axes = []
        for size, by in zip(sizes, shift, strict=True):
            length = size + -size % window
            place = torch.arange(length)
            part = (place >= length - by).long() if by else torch.zeros(length, dtype=torch.long)
            axes.append(torch.where((place + by) % length < size, part, 2))
        first, second, third = axes
        region = first[:, None, None] * 9 + second[:, None] * 3 + third
        cut = into_windows(region[None, ..., None], window)[0, :, :, 0]
        return cut[:, :, None] != cut[:, None, :]


class Stage(nn.Module):
    """Merging and transformer blocks, every second one shifted by half a window."""

    def __init__(self, inputs: int, features: int, *, depth: int, heads: int, window: int):
        super().__init__()
        self.merging = Merging(inputs, features)
        for number in range(depth):
            block = Block(features, heads, window, shifted=number % 2 == 1)
            self.add_module(f'block{number + 1}', block)
        self.depth = depth

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, D, H, W, inputs) to (B, D/2, H/2, W/2, features)."""
        tokens = self.merging(tokens)
        for number in range(self.depth):
            tokens = self.get_submodule(f'block{number + 1}')(tokens)
        return tokens


class Encoder(nn.Module):
    """Convolutions at 2 voxels, then a transformer stage at 4, 8 and 16."""

    def __init__(
        self,
        inputs: int,
        channels: Sequence[int],
        *,
        depths: Sequence[int],
        heads: Sequence[int],
        window: int,
    ):
        super().__init__()
        self.stem = nn.Conv3d(inputs * FACTOR**3, channels[0], 3, 1, 1)
        self.fine = Residual(channels[0], channels[0], norm='voxel')
        self.norms = nn.ModuleList(nn.LayerNorm(features) for features in channels[1:])
        for number in range(3):
            stage = Stage(
                channels[number],
                channels[number + 1],
                depth=depths[number],
                heads=heads[number],
                window=window,
            )
            self.add_module(f'stage{number + 1}', stage)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features (B, channels, ...) at 2, 4, 8 and 16 voxels."""
        fine = self.fine(self.stem(space_to_depth(image)))
        found, tokens = [fine], fine.movedim(1, -1).contiguous()
        for number, norm in enumerate(self.norms, start=1):
            tokens = self.get_submodule(f'stage{number}')(tokens)
            found.append(norm(tokens).movedim(-1, 1))
        return found


class SwinUNet(nn.Module):
    """Shifted-window U-Net at half resolution, with a thin branch at full resolution.

    Parameters
    ----------
    inputs, outputs : channels of the image and of the logits.
    channels : features at 2, 4, 8 and 16 voxels.
    full : features of the branch at full resolution.
    depths, heads : transformer blocks and attention heads at 4, 8 and 16 voxels.
    window : tokens per axis of an attention window.

    Raises
    ------
    ValueError : an impossible parameter.
    """

    def __init__(
        self,
        *,
        inputs: int = 4,
        outputs: int = 1,
        channels: Sequence[int] = (24, 72, 144, 288),
        full: int = 4,
        depths: Sequence[int] = (2, 2, 2),
        heads: Sequence[int] = (3, 6, 12),
        window: int = 6,
    ):
        super().__init__()
        if len(channels) != 4 or len(depths) != 3 or len(heads) != 3:
            raise ValueError('four levels of channels, three depths and three heads are needed')
        if any(c % h for c, h in zip(channels[1:], heads, strict=True)):
            raise ValueError('the features of a stage cannot be shared among its heads')
        if window < 2:
            raise ValueError('the attention window has 2 tokens per axis at least')
        pairs = list(reversed(list(zip(channels[:-1], channels[1:], strict=True))))
        self.encoder = Encoder(inputs, channels, depths=depths, heads=heads, window=window)
        self.up = nn.ModuleList(nn.ConvTranspose3d(lower, upper, 2, 2) for upper, lower in pairs)
        self.dec = nn.ModuleList(Residual(2 * upper, upper, norm='voxel') for upper, _ in pairs)
        self.head = nn.Conv3d(channels[0], full * FACTOR**3, 1)
        self.f1 = nn.Conv3d(inputs, full, 3, 1, 1)
        self.f2 = nn.Conv3d(2 * full, full, 3, 1, 1)
        self.out = nn.Conv3d(full, outputs, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, outputs, D, H, W) of an image (B, inputs, D, H, W).

        D, H and W are multiples of 16.
        """
        skipped = self.encoder(image)
        features = skipped.pop()
        for up, stage in zip(self.up, self.dec, strict=True):
            features = stage(torch.cat([up(features), skipped.pop()], 1))
        sharp = activate(self.f1(image))
        both = torch.cat([depth_to_space(self.head(features)), sharp], 1)
        return self.out(activate(self.f2(both)))
