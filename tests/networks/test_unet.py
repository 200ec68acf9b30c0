"""The residual U-Net: names, numbers, sizes, and that it can learn."""

import pytest
import torch
from test_swin_unetr import fill, waves

from ssl2_bids.networks.architectures.unet import ResidualUNet


def test_the_names_of_the_tensors_are_the_contract():
    layers = {'c1.weight', 'c2.weight', 'n1.weight', 'n1.bias', 'n2.weight', 'n2.bias'}
    names = {f'encoder.{n}.{layer}' for n in range(3) for layer in layers | {'sk.weight'}}
    names |= {f'decoder.{n}.{layer}' for n in range(2) for layer in layers | {'sk.weight'}}
    names |= {f'up.{n}.{kind}' for n in range(2) for kind in ('weight', 'bias')}
    names |= {'out.weight', 'out.bias'}
    assert set(ResidualUNet(inputs=2, channels=(4, 6, 8)).state_dict()) == names


def test_fixed_weights_give_the_stored_activations():
    network = fill(ResidualUNet(inputs=2, channels=(4, 6, 8, 10)))
    with torch.inference_mode():
        logits = network(waves(1, 2, 32, 16, 24))
    assert logits.shape == (1, 1, 32, 16, 24)
    probed = logits[0, 0, [0, 9, 16, 17, 31], [0, 11, 8, 7, 15], [0, 9, 12, 15, 23]]
    expected = torch.tensor([1.99862, 3.74691, 4.00459, 2.5158, 1.19091])
    torch.testing.assert_close(probed, expected, atol=2e-3, rtol=1e-3)


def test_the_default_is_of_the_size_of_swin_unetr():
    network = ResidualUNet(inputs=4)
    assert sum(p.numel() for p in network.parameters()) == 12_983_833


def test_any_number_of_channels_in_and_out():
    network = ResidualUNet(inputs=5, outputs=3, channels=(4, 6, 8))
    assert network(waves(2, 5, 8, 8, 4)).shape == (2, 3, 8, 8, 4)


def test_it_learns_where_the_bright_cubes_are():
    torch.manual_seed(0)
    target = torch.zeros(2, 1, 16, 16, 16)
    target[0, :, 2:7, 3:9, 4:8] = 1
    target[1, :, 8:14, 1:6, 9:15] = 1
    image = target + 0.2 * torch.randn(target.shape)
    network = ResidualUNet(inputs=1, channels=(4, 6, 8))
    optimiser = torch.optim.AdamW(network.parameters(), 3e-2)
    losses = []
    for _ in range(35):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(image), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_one_level_is_no_u_net():
    with pytest.raises(ValueError, match='two levels'):
        ResidualUNet(inputs=1, channels=(4,))
