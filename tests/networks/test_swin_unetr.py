"""Swin UNETR: names that last, numbers that another MONAI must give too, what it is made of."""

import copy
import itertools

import pytest
import torch
from monai.networks.nets import SwinUNETR as MonaiSwinUNETR

from ssl2_bids.networks.architectures.swin_unetr import (
    SwinUNETR,
    ThinBottleneck,
    stored_name,
)

SMALL = {'inputs': 2, 'feature_size': 12, 'heads': (2, 2, 4, 4)}


def waves(*shape: int, phase: float = 0.0) -> torch.Tensor:
    """Numbers from a formula: incommensurable sines along the flattened voxels."""
    place = torch.arange(torch.Size(shape).numel(), dtype=torch.float64) + phase
    values = torch.sin(0.37 * place) + torch.sin(0.0113 * place + 1) + torch.cos(0.71 * place)
    return values.reshape(shape).float()


def fill(network: torch.nn.Module) -> torch.nn.Module:
    """Weights that depend on nothing but the stored names: no random generator, no order."""
    state = network.state_dict()
    for number, name in enumerate(sorted(state)):
        shape = state[name].shape
        fan_in = max(1, shape[1:].numel()) if len(shape) > 1 else 4
        state[name] = waves(*shape, phase=1000.0 * number) / fan_in**0.5
    network.load_state_dict(state, strict=True)
    return network.eval()


def expected_names(depths=(2, 2, 2, 2)) -> set[str]:
    """The contract, written down a second time."""
    both = ('weight', 'bias')
    names = {f'encoder.embedding.{kind}' for kind in both}
    for stage, depth in enumerate(depths, start=1):
        names |= {f'encoder.stage{stage}.merging.norm.{kind}' for kind in both}
        names.add(f'encoder.stage{stage}.merging.reduction.weight')
        layers = ('norm1', 'attention.qkv', 'attention.out', 'norm2', 'mlp.linear1', 'mlp.linear2')
        for block in range(depth):
            head = f'encoder.stage{stage}.block{block}'
            names |= {f'{head}.{part}.{kind}' for part, kind in itertools.product(layers, both)}
            names.add(f'{head}.attention.bias_table')
    names |= {f'skip.{n}.conv{c}.weight' for n in (1, 2, 3, 4) for c in (1, 2)}
    names |= {f'decoder.{n}.conv{c}.weight' for n in (1, 2, 3, 4, 5) for c in (1, 2, 3)}
    names |= {f'decoder.{n}.up.weight' for n in (1, 2, 3, 4, 5)}
    names |= {'bottleneck.conv1.weight', 'bottleneck.conv2.weight', 'skip.1.conv3.weight'}
    return names | {'out.weight', 'out.bias'}


def test_the_names_of_the_tensors_are_the_contract():
    assert set(SwinUNETR(**SMALL).state_dict()) == expected_names()


def test_layers_that_monai_renamed_keep_their_name():
    old = 'swinViT.layers3.0.blocks.1.mlp.fc2.weight'
    assert stored_name(old) == 'encoder.stage3.block1.mlp.linear2.weight'
    assert stored_name(old) == stored_name(old.replace('fc2', 'linear2'))
    assert all(stored_name(name) == name for name in expected_names())


@pytest.mark.parametrize(
    ('bottleneck', 'probes', 'mean', 'deviation'),
    [
        ('full', [0.22822, -1.83571, -1.0828, -1.30974, 0.5321], -0.559369, 1.323347),
        ('thin', [1.21925, 2.58232, 2.94195, 5.04554, 4.97564], 2.835764, 2.273468),
    ],
)
def test_fixed_weights_give_the_stored_activations(bottleneck, probes, mean, deviation):
    # computed with MONAI 1.6.1; 1.5.0 gave the same to 1e-4
    network = fill(SwinUNETR(**SMALL, bottleneck=bottleneck))
    with torch.inference_mode():
        logits = network(waves(1, 2, 64, 32, 32))
    assert logits.shape == (1, 1, 64, 32, 32)
    probed = logits[0, 0, [0, 9, 32, 33, 63], [0, 21, 16, 17, 31], [0, 9, 16, 15, 31]]
    torch.testing.assert_close(probed, torch.tensor(probes), atol=2e-3, rtol=1e-3)
    assert logits.mean().item() == pytest.approx(mean, abs=1e-3)
    assert logits.std().item() == pytest.approx(deviation, abs=1e-3)


def test_it_is_monais_network_with_the_second_merging():
    """The same tensors in a plain SwinUNETR of MONAI; the other merging computes otherwise."""
    ours = fill(SwinUNETR(**SMALL))
    image = waves(1, 2, 64, 32, 32)
    logits = {}
    for merging in ('mergingv2', 'merging'):
        theirs = MonaiSwinUNETR(
            in_channels=2,
            out_channels=1,
            feature_size=12,
            num_heads=(2, 2, 4, 4),
            downsample=merging,
        ).eval()
        by_our_names = ours.state_dict()
        state = {name: by_our_names.get(stored_name(name), kept)
                 for name, kept in theirs.state_dict().items()}  # fmt: skip
        theirs.load_state_dict(state)
        with torch.inference_mode():
            logits[merging] = theirs(image)
    with torch.inference_mode():
        own = ours(image)
    torch.testing.assert_close(own, logits['mergingv2'], atol=1e-4, rtol=1e-4)
    assert (own - logits['merging']).abs().max() > 0.1


def test_training_and_inference_compute_the_same():
    """Without gradients the attention takes another path."""
    network = fill(SwinUNETR(**SMALL))
    image = waves(1, 2, 64, 32, 32)
    slow = network(image)
    with torch.inference_mode():
        fast = network(image)
    assert slow.requires_grad
    torch.testing.assert_close(slow.detach(), fast, atol=1e-4, rtol=1e-4)


def test_bfloat16_gives_nearly_the_same_probability():
    torch.manual_seed(0)
    network = SwinUNETR(**SMALL).eval()
    image = waves(1, 2, 64, 32, 32)
    with torch.inference_mode():
        exact = torch.sigmoid(network(image))
        with torch.autocast('cpu', torch.bfloat16):
            rough = torch.sigmoid(network(image).float())
    assert (exact - rough).abs().max() < 0.05


def test_what_follows_from_the_window_is_not_stored():
    network = SwinUNETR(**SMALL)
    assert not any('index' in name for name in network.state_dict())
    assert {tensor.dtype for tensor in network.state_dict().values()} == {torch.float32}
    assert any('relative_position_index' in name for name, _ in network.named_buffers())


def test_stored_names_hold_inside_another_module_and_in_copies():
    network = fill(SwinUNETR(**SMALL))
    outer = torch.nn.Sequential(torch.nn.Identity(), network)
    state = outer.state_dict()
    assert set(state) == {f'1.{name}' for name in expected_names()}
    other = torch.nn.Sequential(torch.nn.Identity(), SwinUNETR(**SMALL))
    other.load_state_dict(state, strict=True)
    for name, tensor in copy.deepcopy(other[1]).state_dict().items():
        assert torch.equal(tensor, state[f'1.{name}'])


def test_a_tensor_of_another_name_is_not_taken_silently():
    state = SwinUNETR(**SMALL).state_dict()
    state['skip.1.conv9.weight'] = state.pop('skip.1.conv1.weight')
    with pytest.raises(RuntimeError, match='encoder1'):
        SwinUNETR(**SMALL).load_state_dict(state)


def encoder_parameters(network: SwinUNETR) -> list[torch.nn.Parameter]:
    named = network.state_dict(keep_vars=True)
    return [tensor for name, tensor in named.items() if name.startswith('encoder.')]


def test_the_transformers_parameters_can_be_frozen_by_name():
    network = SwinUNETR(**SMALL)
    for parameter in encoder_parameters(network):
        parameter.requires_grad_(False)
    frozen = {name for name, p in network.state_dict(keep_vars=True).items()
              if not p.requires_grad}  # fmt: skip
    assert frozen == {name for name in expected_names() if name.startswith('encoder.')}


@pytest.mark.parametrize(('bottleneck', 'count'), [('full', 15_705_571), ('thin', 8_058_595)])
def test_numbers_of_parameters_at_feature_size_24(bottleneck, count):
    network = SwinUNETR(inputs=4, bottleneck=bottleneck)
    assert sum(p.numel() for p in network.parameters()) == count
    assert sum(p.numel() for p in encoder_parameters(network)) == 2_172_042


@pytest.mark.parametrize('inputs', [1, 5])
def test_any_number_of_channels_in_and_out(inputs):
    network = SwinUNETR(inputs=inputs, outputs=3, feature_size=12, depths=(1, 1, 1, 1))
    with torch.inference_mode():
        assert network.eval()(waves(2, inputs, 64, 32, 32)).shape == (2, 3, 64, 32, 32)


def test_stochastic_depth_acts_in_training_alone():
    network = fill(SwinUNETR(**SMALL, drop_path=0.5))
    plain = fill(SwinUNETR(**SMALL))
    image = waves(1, 2, 64, 32, 32)
    with torch.inference_mode():
        assert torch.equal(network(image), plain(image))
        torch.manual_seed(0)
        first, second = network.train()(image), network(image)
    assert not torch.equal(first, second)


def test_the_thin_bottleneck_sees_its_neighbours():
    block = ThinBottleneck(4)
    point = torch.zeros(1, 4, 7, 7, 7)
    point[..., 3, 3, 3] = 1
    changed = (block(point) - block(torch.zeros_like(point))).abs().sum(1)[0] > 1e-6
    assert changed[2, 3, 4]
    assert block(point).shape == point.shape


@pytest.mark.parametrize(
    ('wrong', 'reason'),
    [
        ({'feature_size': 18}, 'divisible by 12'),
        ({'bottleneck': 'fat'}, 'full, thin'),
        ({'depths': (2, 2, 2)}, 'four depths'),
        ({'heads': (5, 6, 12, 24)}, 'shared among its heads'),
        ({'drop_path': 2.0}, 'drop path'),
    ],
)
def test_impossible_parameters_are_refused(wrong, reason):
    with pytest.raises(ValueError, match=reason):
        SwinUNETR(inputs=1, **wrong)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match='divisible'):
        SwinUNETR(**SMALL)(waves(1, 2, 64, 32, 40))
