"""Maps for which a processor's bfloat16 gives wrong gradients are trained in float32."""

import pytest
import torch
from tiny_training import EDGE, BrightVoxels, tiny_network
from torch import nn
from torch.nn import functional

from ssl2_bids.training.loop import LoopSettings
from ssl2_bids.training.run import Run, ThinMapError, refuse_thin_maps


class Marking:
    """A network that marks bright voxels, and the precision of each of its losses."""

    def __init__(self, network):
        self.network, self.precisions = network, []

    def modules(self):
        return {'student': self.network}

    def loss(self, batch, step):
        image, label = batch
        logits = self.network(image)
        self.precisions.append(logits.dtype)
        return functional.binary_cross_entropy_with_logits(logits.float(), label), {}

    def after_step(self, step):
        pass

    def predictor(self):
        return self.network


def deep_network(levels):
    down = [nn.Conv3d(4, 4, 2, stride=2) for _ in range(levels)]
    up = nn.Upsample(scale_factor=2**levels)
    return nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), *down, nn.Conv3d(4, 1, 3, padding=1), up)


def step(task, tmp_path, precision='bfloat16'):
    settings = LoopSettings(steps=2, learning_rate=1e-3, precision=precision, average=0.9)
    run = Run(task, settings, tmp_path, torch.device('cpu'), '')
    for number in range(2):
        run.step(iter([BrightVoxels()[number]]))
    return run


def test_thin_maps_are_trained_in_float32(tmp_path):
    levels = EDGE.bit_length() - 2
    task = Marking(deep_network(levels))  # the last convolution sees maps of 2 x 2 x 2
    run = step(task, tmp_path)
    assert task.precisions == [torch.float32] * 2
    assert not run.bfloat16
    task.network(torch.zeros(1, 2, EDGE, EDGE, EDGE))  # no guard is left, nor in copies
    run.average(torch.zeros(1, 2, EDGE, EDGE, EDGE))


def test_other_maps_keep_bfloat16(tmp_path):
    task = Marking(tiny_network())
    run = step(task, tmp_path)
    assert task.precisions == [torch.bfloat16] * 2
    assert run.bfloat16


@pytest.mark.parametrize(
    ('shape', 'thin'),
    [((2, 2, 2), True), ((2, 6, 6), True), ((6, 2, 2), False), ((1, 2, 2), False)],
)
def test_guards_agree_with_the_gradients_of_this_processor(shape, thin):
    """What no guard refuses has the gradient of float32; what one refuses, does not always."""
    layer = nn.Conv3d(32, 32, 3, padding=1)
    image = torch.randn(1, 32, *shape, generator=torch.Generator().manual_seed(0))
    guards = refuse_thin_maps(layer)
    if thin:
        with pytest.raises(ThinMapError):
            layer(image)
        return
    layer(image)
    for guard in guards:
        guard.remove()
    for _ in range(20):
        junk = [torch.full((size,), float('nan')) for size in (1000, 10_000, 100_000)]
        del junk  # what is read without having been written is likely to be this
        gradients = []
        for fast in (True, False):
            layer.zero_grad()
            with torch.autocast('cpu', torch.bfloat16, enabled=fast):
                loss = layer(image).float().square().sum()
            loss.backward()
            gradients.append(layer.weight.grad.clone())
        error = (gradients[0] - gradients[1]).abs().max()
        assert error < 0.05 * gradients[1].abs().max()
