"""The transformer against MONAI's, and what it promises of windows."""

import pytest
import torch
from monai.networks.nets.swin_unetr import SwinTransformerBlock, compute_mask

from ssl2_bids.networks.architectures.norms import VoxelNorm
from ssl2_bids.networks.architectures.swin_unet import Block, SwinUNet, tokens_apart
from ssl2_bids.networks.registry import new_network

SMALL = {'inputs': 2, 'channels': (8, 12, 24, 48), 'heads': (2, 3, 4), 'window': 3, 'full': 2}


def small(seed=0, **changes):
    torch.manual_seed(seed)
    return SwinUNet(**{**SMALL, **changes}).eval()


@pytest.mark.parametrize('shifted', [False, True])
def test_a_block_computes_what_monai_computes(shifted):
    """On a grid of whole windows, where both define the same thing."""
    torch.manual_seed(0)
    ours = Block(24, 3, 4, shifted=shifted).eval()
    shift = (2, 2, 2) if shifted else (0, 0, 0)
    theirs = SwinTransformerBlock(24, 3, (4, 4, 4), shift).eval()
    names = {
        'attn.relative_position_bias_table': 'attention.bias_table',
        'attn.qkv': 'attention.qkv', 'attn.proj': 'attention.out',
    }  # fmt: skip
    state = ours.state_dict()
    for theirs_name, tensor in theirs.state_dict().items():
        name = theirs_name
        for old, new in names.items():
            name = name.replace(old, new)
        if 'index' not in name:
            tensor.copy_(state[name])
    tokens = torch.randn(2, 8, 12, 8, 24)
    mask = compute_mask((8, 12, 8), (4, 4, 4), shift, 'cpu') if shifted else None
    with torch.inference_mode():
        torch.testing.assert_close(ours(tokens), theirs(tokens, mask), atol=1e-5, rtol=1e-4)


def test_padding_is_not_seen():
    torch.manual_seed(1)
    block = Block(8, 2, 4, shifted=False).eval()
    tokens = torch.randn(1, 6, 4, 4, 8)
    with torch.inference_mode():
        whole = block(tokens)
        last = block(
            tokens[:, 4:]
        )  # the second window holds two rows of tokens and two of padding
    torch.testing.assert_close(whole[:, 4:], last)


@pytest.mark.parametrize(('sizes', 'shift'), [((8, 8, 8), (2, 2, 2)), ((7, 8, 5), (2, 2, 2))])
def test_tokens_of_both_ends_are_apart(sizes, shift):
    apart = tokens_apart(sizes, 4, shift)
    assert apart.dtype == torch.bool
    assert torch.equal(apart, apart.transpose(1, 2))
    assert not apart.diagonal(dim1=1, dim2=2).any()
    assert not apart[0].any() or sizes[0] < 8
    assert apart[-1].any()


def test_nothing_is_apart_in_whole_windows_at_rest():
    assert tokens_apart((8, 4, 4), 4, (0, 0, 0)) is None


@pytest.mark.parametrize('size', [(16, 16, 16), (32, 48, 16), (64, 48, 32)])
def test_any_window_that_is_a_multiple_of_sixteen(size):
    network = small()
    with torch.inference_mode():
        logits = network(torch.randn(1, 2, *size))
    assert logits.shape == (1, 1, *size)
    assert torch.isfinite(logits).all()


def test_the_far_side_of_a_window_changes_nothing():
    """Beyond the field of view no statistic of the window is left: instance norm has one."""
    torch.manual_seed(0)
    for network, same in ((small(), True), (fast(), False), (fast(Norm='voxel'), True)):
        image = torch.randn(1, 2, 16, 16, 288)
        other = image.clone()
        other[..., 240:] *= 3
        with torch.inference_mode():
            change = (network(image) - network(other)).abs()[..., :48].max()
        assert (float(change) == 0) is same


def fast(**changes):
    described = {
        'Type': 'fast_unet', 'InputChannels': 2, 'OutputChannels': 1, 'Channels': [8, 12],
        'FullResolutionChannels': 2, **changes,
    }  # fmt: skip
    return new_network(described, seed=0).eval()


def test_a_voxel_norm_is_a_layer_norm_of_features():
    norm = VoxelNorm(5)
    torch.nn.init.normal_(norm.weight)
    image = torch.randn(2, 5, 3, 4, 2)
    expected = torch.nn.functional.layer_norm(
        image.movedim(1, -1), (5,), norm.weight, norm.bias
    ).movedim(-1, 1)
    torch.testing.assert_close(norm(image), expected)


def test_it_learns_and_every_tensor_has_a_gradient():
    network = small().train()
    network(torch.randn(1, 2, 48, 48, 48)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(
    'changes', [{'channels': (8, 12, 24)}, {'heads': (5, 3, 4)}, {'window': 1}]
)
def test_impossible_parameters(changes):
    with pytest.raises(ValueError, match='needed|shared|window'):
        SwinUNet(**{**SMALL, **changes})


def test_names_of_tensors():
    names = set(small().state_dict())
    assert {
        'encoder.stem.weight', 'encoder.fine.n1.weight', 'encoder.stage1.merging.linear.weight',
        'encoder.stage3.block2.attention.bias_table', 'encoder.stage2.block1.mlp.linear1.bias',
        'encoder.norms.0.weight', 'up.0.weight', 'dec.2.c1.weight', 'head.weight', 'out.bias',
    } <= names  # fmt: skip
    assert not any('index' in name for name in names)
