"""What a step costs where the memory is too small for it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tiny_training import person
from torch import nn

from ssl2_bids.errors import UnavailableError
from ssl2_bids.training.adaptation.adapt import AdaptSettings, Cost
from ssl2_bids.workflows.adaptation import timing
from ssl2_bids.workflows.adaptation.expected import Brains
from ssl2_bids.workflows.adaptation.timing import cost_of_step, expected_seconds

COSTS = [Cost(1.0, 0.0, 0), Cost(3.0, 0.0, 0)]
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


@pytest.mark.parametrize(
    ('rung', 'nprocs', 'seconds'),
    [
        (None, 1, 2 * 10 + 2 * 30 + 30),
        (None, 5, 30 + 10),  # all at a time; then the final one of last layers
        ('last-layers', 1, 3 * 10),
        ('last-layers', 5, 10),
        ('whole', 2, 2 * 30),
    ],
)
def test_the_time_of_the_trainings_is_that_of_the_asked_rungs(rung, nprocs, seconds, monkeypatch):
    monkeypatch.setattr(timing, 'windows_of', lambda work: 1.0)
    monkeypatch.setattr(timing, 'file_seconds', lambda work: 0.0)
    monkeypatch.setattr(timing, 'brains_of', lambda work, folds: Brains(2, 6, 6, 4))
    settings = SimpleNamespace(
        rung=rung, nprocs=nprocs, omp_nthreads=1, memory_gb=16, device='cpu', resegment=True
    )
    work = SimpleNamespace(
        adaptation=SimpleNamespace(settings=settings, on_slices=False),
        annotations={'sub-01': None},
        device='cpu',
        memory=0,
        test_seconds=0.0,
    )
    costs = {None: COSTS, 'last-layers': COSTS[:1], 'whole': COSTS[1:]}[rung]
    assert expected_seconds(work, 3, costs)(10) == seconds
