"""What is trained and segmented on a CPU, on a GPU: skipped where there is none.

pytest -m gpu
"""

import gc
import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import person, tiny_network

from ssl2_bids.device import choose_device
from ssl2_bids.errors import UnavailableError
from ssl2_bids.networks.inference import is_out_of_memory, predict
from ssl2_bids.networks.weights import find_model, load_network
from ssl2_bids.training import strategies
from ssl2_bids.training.adaptation import adapt
from ssl2_bids.training.adaptation.adapt import AdaptSettings, lighter

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no GPU'),
]
LIMIT = 1_500_000_000  # bytes of GPU memory, in the test of too little
PEOPLE = [person('a', seed=0), person('b', seed=1), person('c', seed=2, labelled=False)]


def test_the_gpu_is_chosen():
    assert choose_device('auto') == choose_device('cuda') == 'cuda:0'


@pytest.mark.parametrize('model', ['fast-3t', 'committee-3t'])
def test_a_gpu_segments_as_a_cpu_does(model, tmp_path):
    card = find_model(model, tmp_path)
    random = torch.Generator().manual_seed(0)
    image = torch.randn(len(card.channels), 112, 128, 112, generator=random)
    brain = torch.ones(112, 128, 112, dtype=torch.bool)
    settings = {'window': card.window, 'overlap': card.overlap, 'precision': 'float32'}
    network = load_network(card)
    expected = predict(network, image, brain, **settings)
    found = predict(network.to('cuda:0'), image, brain, device='cuda:0', **settings)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize('strategy', strategies.available())
def test_every_strategy_adapts(strategy, tmp_path):
    settings = AdaptSettings(strategy, 20, 1e-2, (16, 16, 16), 2, 2)
    network, history = adapt.adapt(tiny_network(), PEOPLE, settings, tmp_path, device='cuda:0')
    assert history.finished
    assert all(math.isfinite(row['loss']) for row in history.rows)
    image = torch.from_numpy(PEOPLE[0].image)[None, :, :16, :16, :16].cuda()
    assert bool(network(image).isfinite().all())


def test_a_stopped_training_is_resumed(tmp_path):
    class Stop(Exception):
        pass

    def stop_late(done, total, latest):
        if done == 25:
            raise Stop

    options = {'device': 'cuda:0', 'identity': 'x'}
    settings = AdaptSettings('mean_teacher', 40, 1e-2, (16, 16, 16), 2, 2)
    whole, _ = adapt.adapt(tiny_network(), PEOPLE, settings, tmp_path / 'whole', **options)

    with pytest.raises(Stop):
        adapt.adapt(
            tiny_network(), PEOPLE, settings, tmp_path / 'two', progress=stop_late, **options
        )
    again, history = adapt.adapt(tiny_network(), PEOPLE, settings, tmp_path / 'two', **options)
    assert history.finished
    assert history.step == 40
    for name, value in whole.state_dict().items():  # kernels of a GPU need not repeat to the bit
        torch.testing.assert_close(again.state_dict()[name], value, atol=5e-2, rtol=0)


def test_a_full_memory_is_distinguished_and_a_lighter_batch_fits():
    big = AdaptSettings('supervised', 6, 1e-2, (96, 96, 96), 16, 2)
    people = [
        replace(p, image=np.tile(p.image, (2, 1, 1, 1)), present=(True,) * 4) for p in PEOPLE
    ]
    network = load_network(find_model('fast-3t', Path()))
    free()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + LIMIT) / total)
    try:
        with pytest.raises(UnavailableError, match='memory of cuda:0') as caught:
            adapt.probe(network, people, big, window=(96,) * 3, device='cuda:0')
        assert is_out_of_memory(caught.value.__cause__)
        del caught
        settings, cost = big, None
        while cost is None:
            free()
            settings = lighter(settings, 16)
            with suppress(UnavailableError):
                cost = adapt.probe(network, people, settings, window=(32,) * 3, device='cuda:0')
        assert 0 < cost.memory < LIMIT
        assert settings.labelled < 16
        assert settings.labelled * settings.accumulate == 16
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def free():
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
