"""What a step costs where the memory is too small for it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tiny_training import person
from torch import nn

from ssl2_bids.errors import UnavailableError
from ssl2_bids.training.adaptation.adapt import AdaptSettings
from ssl2_bids.workflows.adaptation.timing import cost_of_step

ROUNDS = 20  # more than any batch can be made smaller


class FullMemory(nn.Module):
    """A network for which no memory suffices."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError('out of memory')


@pytest.mark.parametrize(
    'network',
    [
        {'Type': 'fast_unet', 'Channels': [4, 8]},  # multiples of 4
        {'Type': 'residual_unet', 'Channels': [4, 8, 8, 8, 8, 8]},  # of 32
        {'Type': 'residual_unet', 'Channels': [4, 8, 8, 8, 8, 8, 8]},  # of 64
        {'Type': 'swin_unetr', 'FeatureSize': 12},  # of 32
    ],
)
def test_a_memory_that_is_too_small_for_any_batch_ends_the_measurement(network):
    shown = []

    def show(line: str) -> None:
        shown.append(line)
        assert len(shown) < ROUNDS

    people = [SimpleNamespace(read=lambda: person('a'))]
    work = SimpleNamespace(
        people=people,
        twins=[],
        adaptation=SimpleNamespace(card=SimpleNamespace(network=network, window=(64, 64, 64))),
        network=FullMemory(),
        device='cpu',
        training=AdaptSettings('supervised', 10, 1e-3, (64, 64, 64), 2, 2),
        show=show,
    )
    with pytest.raises(UnavailableError, match='memory of cpu is too small'):
        cost_of_step(work)
    assert len(set(shown)) == len(shown)  # each batch is smaller than the one before
    assert work.training.labelled == 1
