"""The network against the file that its weights were trained with, and against stored numbers."""

import importlib.util
from pathlib import Path

import pytest
import torch

from ssl2_bids.networks.architectures.fast_unet import FastUNet, depth_to_space, space_to_depth
from ssl2_bids.networks.weights import find_model, load_network

REFERENCE = Path(__file__).resolve().parents[2] / '../shared/weights/bootstrap-3t/network.py'


def waves(*shape: int) -> torch.Tensor:
    """An image from a formula: incommensurable sines along the flattened voxels."""
    voxels = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    image = torch.sin(0.37 * voxels) + torch.sin(0.0113 * voxels + 1) + torch.cos(0.00071 * voxels)
    return image.reshape(shape).float()


@pytest.fixture(scope='module')
def reference():
    if not REFERENCE.is_file():
        pytest.skip('the reference network is not there')
    spec = importlib.util.spec_from_file_location('reference_network', REFERENCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ('inputs', 'channels', 'full', 'size'),
    [(3, (24, 48, 96, 128), 4, 32), (2, (8, 16), 2, 12)],
)
def test_it_computes_what_the_reference_computes(reference, inputs, channels, full, size):
    torch.manual_seed(0)
    theirs = reference.FastUNet(inputs, channels, full).eval()
    ours = FastUNet(inputs=inputs, channels=channels, full=full).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    image = waves(2, inputs, size, size, size + 8 if size == 12 else size)
    with torch.inference_mode():
        assert torch.equal(ours(image), theirs(image))


def test_the_bundled_weights_give_the_stored_activations(tmp_path):
    network = load_network(find_model('fast-3t', tmp_path))
    with torch.inference_mode():
        logits = network(waves(1, 4, 32, 32, 32))
    assert logits.shape == (1, 1, 32, 32, 32)
    probed = logits[0, 0, [0, 5, 16, 16, 31], [0, 21, 16, 17, 31], [0, 9, 16, 15, 31]]
    expected = torch.tensor([-5.2459, -16.2855, -5.4742, -8.2931, -4.7752])
    torch.testing.assert_close(probed, expected, atol=2e-3, rtol=1e-3)
    assert logits.mean().item() == pytest.approx(-12.2150, abs=2e-3)
    assert logits.std().item() == pytest.approx(6.4188, abs=2e-3)


def test_space_to_depth_keeps_every_voxel_in_its_block():
    image = waves(2, 3, 4, 6, 8)
    blocks = space_to_depth(image)
    assert blocks.shape == (2, 24, 2, 3, 4)
    # channel 1, position (1, 0, 1) in the block (1, 2, 3)
    assert blocks[1, 8 + 4 + 1, 1, 2, 3] == image[1, 1, 3, 4, 7]
    assert torch.equal(depth_to_space(blocks), image)


def test_more_than_one_output():
    network = FastUNet(inputs=1, channels=(4, 8), full=2, outputs=3)
    assert network(waves(1, 1, 8, 8, 8)).shape == (1, 3, 8, 8, 8)
