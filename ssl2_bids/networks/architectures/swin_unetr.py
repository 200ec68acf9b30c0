"""Swin UNETR (Hatamizadeh et al., arXiv 2201.01266): MONAI's, under names of our own.

MONAI's patch merging called ``merging`` changed its meaning at version 1.5; here it is always
``mergingv2``, which keeps all eight octants. The names under which tensors are stored are a
contract, whatever a version of MONAI calls them (:func:`stored_name`). The index of relative
positions follows from the window and is not stored: half precision would spoil it.
"""

from __future__ import annotations

import inspect
import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from monai.networks.nets import SwinUNETR as MonaiSwinUNETR
from torch import Tensor, nn
from torch.nn import functional

BOTTLENECKS = ('full', 'thin')

# what MONAI calls a tensor (1.5 and 1.6; fc1 and fc2 before), and what we call it
RULES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r'^swinViT\.patch_embed\.proj\.', 'encoder.embedding.'),
        (r'^swinViT\.layers(\d)\.0\.blocks\.(\d+)\.', r'encoder.stage\1.block\2.'),
        (r'^swinViT\.layers(\d)\.0\.downsample\.', r'encoder.stage\1.merging.'),
        (r'\.attn\.relative_position_bias_table$', '.attention.bias_table'),
        (r'\.attn\.qkv\.', '.attention.qkv.'),
        (r'\.attn\.proj\.', '.attention.out.'),
        (r'\.mlp\.(?:linear|fc)(\d)\.', r'.mlp.linear\1.'),
        (r'^encoder10\.(?:layer\.)?', 'bottleneck.'),
        (r'^encoder(\d)\.layer\.', r'skip.\1.'),
        (r'^decoder(\d)\.transp_conv\.conv\.', r'decoder.\1.up.'),
        (r'^decoder(\d)\.conv_block\.', r'decoder.\1.'),
        (r'^out\.conv\.conv\.', 'out.'),
        (r'\.(conv\d)\.conv\.', r'.\1.'),
    )
)


def stored_name(name: str) -> str:
    """The name under which a tensor is stored, from MONAI's name of it."""
    for pattern, ours in RULES:
        name = pattern.sub(ours, name)
    return name


class ThinBottleneck(nn.Module):
    """Residual block of depth-wise 3 x 3 x 3 and 1 x 1 x 1 convolutions, in place of full ones.

    At 384 channels 0.3 M parameters where two full convolutions have 8.0 M.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.deep1 = nn.Conv3d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.point1 = nn.Conv3d(channels, channels, 1, bias=False)
        self.deep2 = nn.Conv3d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.point2 = nn.Conv3d(channels, channels, 1, bias=False)
        self.norm1 = nn.InstanceNorm3d(channels)
        self.norm2 = nn.InstanceNorm3d(channels)

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels, D, H, W) to the same shape."""
        inner = functional.leaky_relu(self.norm1(self.point1(self.deep1(features))), 0.01)
        inner = self.norm2(self.point2(self.deep2(inner)))
        return functional.leaky_relu(inner + features, 0.01)


class SwinUNETR(MonaiSwinUNETR):
    """Logits (B, outputs, D, H, W) of an image (B, inputs, D, H, W).

    D, H and W are multiples of 32, one of them 64 at least (the instance norm of the coarsest
    level needs more than one voxel). A model belongs to the window that it was trained with:
    where a stage has fewer tokens along an axis than the attention window (7: stage 4 below 112
    voxels, stage 3 below 56), MONAI reads other rows of the table of relative positions.

    Parameters of the network by their stored names: ``state_dict(keep_vars=True)``.

    Parameters
    ----------
    inputs, outputs : channels of the image and of the logits.
    feature_size : features at full resolution, a multiple of 12; doubled at each level.
    depths, heads : transformer blocks and attention heads of the four stages.
    attention_window : tokens per axis.
    bottleneck : ``full``, or ``thin`` for :class:`ThinBottleneck`.
    drop_path : rate of stochastic depth of the last block; rises linearly from 0.

    Raises
    ------
    ValueError : an impossible parameter.
    """

    def __init__(
        self,
        *,
        inputs: int,
        outputs: int = 1,
        feature_size: int = 24,
        depths: Sequence[int] = (2, 2, 2, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
        attention_window: int = 7,
        bottleneck: str = 'full',
        drop_path: float = 0.0,
    ):
        if bottleneck not in BOTTLENECKS:
            raise ValueError(f'the bottleneck is one of {", ".join(BOTTLENECKS)}')
        if len(depths) != 4 or len(heads) != 4:
            raise ValueError('four depths and four numbers of heads are needed')
        if any(feature_size * 2**n % heads[n] for n in range(4)):
            raise ValueError('the features of a stage cannot be shared among its heads')
        more: dict[str, Any] = {}
        if 'use_flash_attention' in inspect.signature(MonaiSwinUNETR.__init__).parameters:
            more['use_flash_attention'] = True
        super().__init__(
            in_channels=inputs,
            out_channels=outputs,
            feature_size=feature_size,
            depths=tuple(depths),
            num_heads=tuple(heads),
            window_size=attention_window,
            dropout_path_rate=drop_path,
            spatial_dims=3,
            downsample='mergingv2',
            **more,
        )
        if bottleneck == 'thin':
            self.add_module('encoder10', ThinBottleneck(16 * feature_size))
        for module in self.modules():
            index = getattr(module, 'relative_position_index', None)
            if index is not None:
                module.register_buffer('relative_position_index', index, persistent=False)

    def state_dict(
        self, *args: Any, destination: Any = None, prefix: str = '', keep_vars: bool = False
    ) -> Any:
        """All tensors by their stored names."""
        if destination is None:
            destination = OrderedDict()
        for name, tensor in super().state_dict(keep_vars=keep_vars).items():
            destination[prefix + stored_name(name)] = tensor
        return destination

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # torch hands the same dictionary on to the children, so names are turned here
        for name in super().state_dict():
            ours = prefix + stored_name(name)
            if ours in state_dict:
                state_dict[prefix + name] = state_dict.pop(ours)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
