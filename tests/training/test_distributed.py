import os
import subprocess
import sys

import pytest
import tiny_distributed
import torch
from tiny_distributed import STEPS, contrast_parts, one_step
from tiny_training import BrightVoxels, FindBright, settings, tiny_network

from ssl2_bids.training import distributed
from ssl2_bids.training.loop import train
from ssl2_bids.training.pretraining.pretext.contrastive import contrast_loss


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    """What two real processes found, connected by gloo."""
    out = tmp_path_factory.mktemp('two')
    launch = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2']
    done = subprocess.run(
        [*launch, '--master-port', '0', '--standalone', tiny_distributed.__file__, str(out)],
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out, [torch.load(out / f'{rank}.pt') for rank in (0, 1)]


def test_two_processes_give_the_gradients_of_one_with_twice_the_batch(two):
    alone = one_step(BrightVoxels(batch=4), seed=0)
    for found in two[1]:
        assert found['size'] == 2
        for name, gradient in alone.items():
            assert torch.allclose(found['gradients'][name], gradient, atol=1e-6), name
    other = one_step(BrightVoxels(batch=4, part=(0, 2)), seed=0)
    assert not torch.allclose(other['out.weight'], alone['out.weight'], atol=1e-4)


def test_a_gradient_missing_in_one_counts_as_zero_and_in_all_stays_missing(two):
    for found in two[1]:
        both, one, none = found['sparse']
        assert both.tolist() == [0.5, 0.5]
        assert one.tolist() == [0.5, 0.5]
        assert none is None


def test_a_signal_to_one_stops_both_after_the_same_step(two):
    out, found = two
    assert [one['anywhere'] for one in found] == [True, True]
    assert found[0]['stopped'] == found[1]['stopped'] == (3, False)
    for name, tensor in found[0]['weights'].items():
        assert torch.equal(tensor, found[1]['weights'][name])
    assert [p.name for p in (out / 'run').glob('*.pt')] == ['checkpoint-00000003.pt']


def test_one_process_resumes_where_two_stopped_and_comes_near_the_same(two):
    out, _ = two
    task = FindBright(noise=0)
    given = settings(STEPS, log_every=1, checkpoint_every=0)
    history = train(task, BrightVoxels(batch=4), given, out / 'run', device='cpu')
    alone = FindBright(tiny_network(seed=0), noise=0)
    whole = train(alone, BrightVoxels(batch=4), given, out / 'alone', device='cpu')
    assert history.finished
    losses = [row['loss'] for row in whole.rows]
    assert losses[0] != losses[-1]
    # the first process logs the loss of its own half; after it was alone, that of the whole
    resumed = [row['loss'] for row in history.rows if row['step'] > 3]
    assert resumed == pytest.approx(losses[3:], rel=1e-4)


def test_views_of_both_processes_are_each_others_negatives(two):
    whole = contrast_loss(*contrast_parts(None))
    halves = [found['contrast'] for found in two[1]]
    assert torch.allclose(torch.stack(halves).mean(), whole, atol=1e-6)
    assert torch.allclose(two[1][0]['alone'], whole, atol=1e-6)


def test_alone_nothing_is_sent():
    parameter = torch.zeros(2, requires_grad=True)
    distributed.average_gradients([parameter])
    assert parameter.grad is None
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.anywhere(True, torch.device('cpu'))
    with distributed.group('cpu') as device:
        assert device == 'cpu'
