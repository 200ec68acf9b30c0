import csv
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, NamedTuple

import pytest
import tiny_training
import torch
from tiny_training import BrightVoxels, FindBright, settings, tiny_network

from ssl2_bids.errors import DataError, StorageError, UsageError
from ssl2_bids.training import checkpoint, strategies
from ssl2_bids.training.data.prefetch import echo_batch, stream
from ssl2_bids.training.loop import curve_settings, train
from ssl2_bids.training.run import Run
from ssl2_bids.training.strategy import Batch

STEPS, LONG = 30, 80
TIMING = {'seconds', 'waited'}


def curves(folder: Path) -> list[dict[str, str]]:
    with open(folder / 'curves.csv', newline='') as stream:
        return [
            {k: v for k, v in row.items() if k not in TIMING} for row in csv.DictReader(stream)
        ]


def run(folder, task=None, batches=None, **changes):
    task = task or FindBright()
    given = settings(**{'steps': STEPS, **changes})
    return task, train(task, batches or BrightVoxels(), given, folder, device='cpu')


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp('whole')
    task, history = run(folder)
    assert history.finished
    return folder, task


def assert_same(folder, task, uninterrupted):
    whole, other = uninterrupted
    assert curves(folder) == curves(whole)
    for name, tensor in other.network.state_dict().items():
        assert torch.equal(task.network.state_dict()[name], tensor), name
    mine, theirs = (checkpoint.newest(f)[1] for f in (folder, whole))
    assert mine['optimiser']['state'].keys() == theirs['optimiser']['state'].keys()
    for number, state in theirs['optimiser']['state'].items():
        assert torch.equal(mine['optimiser']['state'][number]['exp_avg_sq'], state['exp_avg_sq'])


def test_the_loss_falls(uninterrupted):
    rows = curves(uninterrupted[0])
    assert float(rows[-1]['loss']) < 0.9 * float(rows[0]['loss'])
    assert [int(row['step']) for row in rows] == list(range(5, STEPS + 1, 5))


@pytest.mark.parametrize('after', [3, 10, 17])
def test_a_run_that_broke_off_is_resumed_on_the_same_curve(tmp_path, uninterrupted, after):
    class Broken(BrightVoxels):
        def __getitem__(self, step):
            if step == after:
                raise KeyboardInterrupt
            return super().__getitem__(step)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, batches=Broken())
    task, history = run(tmp_path, task=FindBright(tiny_network(seed=5)) if after > 9 else None)
    assert history.finished
    assert_same(tmp_path, task, uninterrupted)


@pytest.mark.parametrize(('workers', 'ahead'), [(0, 3), (1, 2)])
def test_batches_made_ahead_change_nothing(tmp_path, uninterrupted, workers, ahead):
    task, _ = run(tmp_path, workers=workers, ahead=ahead)
    assert_same(tmp_path, task, uninterrupted)


def test_a_finished_run_is_left_as_it_is(uninterrupted):
    folder, task = uninterrupted
    before = (folder / 'curves.csv').read_bytes()
    again, history = run(folder, task=FindBright(tiny_network(seed=9)))
    assert history.finished
    assert again.seen == STEPS
    assert (folder / 'curves.csv').read_bytes() == before
    for name, tensor in task.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], tensor)


def start(folder: Path, steps: int, **environment: str) -> subprocess.Popen:
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, tiny_training.__file__, str(folder), str(steps)],
        env={**os.environ, 'OMP_NUM_THREADS': '1', **environment},
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (folder / 'alive').exists() or int((folder / 'alive').read_text() or 0) < 12:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.fixture(scope='module')
def long_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp('long')
    task, _ = run(folder, steps=LONG)
    return folder, task


@pytest.mark.parametrize(
    ('number', 'workers'),
    [(signal.SIGUSR1, 0), (signal.SIGTERM, 1), (signal.SIGXCPU, 1), (signal.SIGKILL, 0)],
    ids=['SIGUSR1', 'SIGTERM to all, worker included', 'SIGXCPU to all', 'SIGKILL'],
)
def test_a_signal_ends_a_real_process_which_resumes_later(tmp_path, long_run, number, workers):
    folder = tmp_path / 'run'
    process = start(folder, LONG, WORKERS=str(workers))
    os.killpg(process.pid, number)
    code = process.wait(timeout=60)
    reached = checkpoint.newest(folder)[1]['step']
    if number == signal.SIGKILL:
        assert code == -signal.SIGKILL
        assert reached % 10 == 0
    else:
        assert code == 128 + number
        assert 12 <= reached < LONG
    assert not list(folder.glob('.tmp-*'))
    task, _ = run(folder, steps=LONG)
    assert_same(folder, task, long_run)


def test_a_loss_that_is_no_number_is_reported_and_checkpoints_are_kept(tmp_path):
    with pytest.raises(DataError, match=r'not a number \(step 25\)') as caught:
        run(tmp_path, batches=BrightVoxels(poisoned=24))
    assert 'learning rate' in caught.value.advice
    path, content = checkpoint.newest(tmp_path)
    assert content['step'] == 20
    assert all(t.isfinite().all() for t in content['modules']['network'].values())
    assert len(checkpoint.checkpoints(tmp_path)) == 2


def test_no_number_in_the_very_step_of_a_checkpoint_is_not_saved(tmp_path):
    with pytest.raises(DataError, match='not a number'):
        run(tmp_path, batches=BrightVoxels(poisoned=19))
    assert checkpoint.newest(tmp_path)[1]['step'] == 10


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path):
    class Full(BrightVoxels):
        def __getitem__(self, step):
            if step == 15:  # from now on no file may grow beyond 10 kB
                resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
            return super().__getitem__(step)

    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(StorageError, match='checkpoint-00000020.pt'):
            run(tmp_path, batches=Full())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert checkpoint.newest(tmp_path)[1]['step'] == 10
    assert not list(tmp_path.glob('.tmp-*'))


def test_another_network_or_configuration_is_refused(tmp_path):
    run(tmp_path, steps=10)
    wider = FindBright(tiny_training.FastUNet(inputs=2, channels=(4, 12), full=2))
    with pytest.raises(DataError, match=r'another network .*enc\.1\.c1\.weight'):
        run(tmp_path, task=wider, steps=10)
    with pytest.raises(UsageError, match='another configuration'):
        run(tmp_path, steps=10, learning_rate=1e-4)
    run(tmp_path, steps=10, workers=1, log_every=2)


def test_more_batches_per_step_equal_one_larger_batch():
    """Two batches of two accumulated give the gradient of their mean, hence of four."""
    one, two = FindBright(noise=0), FindBright(noise=0)
    batches = BrightVoxels(batch=2)
    loss = sum(one.loss(batches[number], 0)[0] for number in (0, 1)) / 2
    loss.backward()
    given = settings(1, accumulate=2, clip=1e9, learning_rate=0.0, channels_last=False)
    moving = Run(two, given, Path('nowhere'), torch.device('cpu'), '')
    moving.step(iter([batches[0], batches[1]]))
    for mine, theirs in zip(two.network.parameters(), one.network.parameters(), strict=True):
        assert torch.allclose(mine.grad, theirs.grad, atol=1e-6)


def test_the_gradient_is_clipped_after_it_was_measured(tmp_path):
    run(tmp_path, steps=5, clip=1e-3)
    assert float(curves(tmp_path)[-1]['gradient']) > 1e-2


def test_the_average_follows_and_is_what_is_shipped(tmp_path):
    task, _ = run(tmp_path, steps=12)
    content = checkpoint.newest(tmp_path)[1]
    shipped = task.network.state_dict()
    assert all(torch.equal(shipped[n], t) for n, t in content['average'].items())
    assert any(
        not torch.equal(t, content['modules']['network'][n]) for n, t in content['average'].items()
    )


def test_validation_sees_the_average_in_evaluation_mode(tmp_path):
    seen = []

    def validate(network):
        seen.append((network.training, network is task.network))
        return {'score': 0.5}

    task = FindBright()
    train(
        task,
        BrightVoxels(),
        settings(10, validate_every=4),
        tmp_path,
        device='cpu',
        validate=validate,
    )
    assert seen == [(False, False)] * 3
    scored = [row['step'] for row in curves(tmp_path) if row['score']]
    assert scored == ['4', '8', '10']


def test_a_batch_that_cannot_be_made_ends_the_run_with_its_own_error():
    class Bad:
        def __getitem__(self, step):
            if step == 2:
                raise DataError('no such head')
            return torch.zeros(1)

    for workers, ahead in ((0, 0), (0, 2)):
        source = stream(Bad(), range(5), workers=workers, ahead=ahead)
        with pytest.raises(DataError, match='no such head'):
            list(source)


def test_settings_that_do_not_show_in_the_curves_may_change():
    one = settings(10)
    assert curve_settings(one) == curve_settings(replace(one, workers=3, checkpoint_minutes=1.0))
    assert curve_settings(one) != curve_settings(replace(one, clip=2.0))


def views(step: int) -> Batch:
    """Two labelled and two unlabelled images of noise; what is bright is lesion."""
    random = torch.Generator().manual_seed(step)
    image = torch.randn(4, 2, 16, 16, 16, generator=random)
    label = (torch.nn.functional.avg_pool3d(image[:, :1], 3, 1, 1) > 0.2).float()
    ones, strong = torch.ones(2, 1, 16, 16, 16), image[2:] + 0.1
    present = torch.ones(2, 2, dtype=torch.bool)
    return Batch(image[:2], label[:2], ones, ones, image[2:], strong, ones, present, present)


@pytest.mark.parametrize('name', ['supervised', 'mean_teacher', 'cps', 'dan', 'fixmatch'])
def test_strategies_resume_where_they_stopped(tmp_path, name):
    """Teacher, peer, and the critic with its own optimiser come back from a checkpoint."""

    class Views:
        def __init__(self, last):
            self.last = last

        def __getitem__(self, step):
            if step == self.last:
                raise KeyboardInterrupt
            return views(step)

    def run_strategy(folder, last=-1):
        kind = strategies.find(name)
        given = kind.Settings(steps=8, warmup=0.0, ramp=0.0)
        strategy = kind(given, lambda what: tiny_network(seed=len(what)))
        loop = settings(8, checkpoint_every=4, log_every=2, precision='bfloat16')
        return strategy, train(strategy, Views(last), loop, folder, device='cpu')

    with pytest.raises(KeyboardInterrupt):
        run_strategy(tmp_path / 'a', 6)
    stopped, history = run_strategy(tmp_path / 'a')
    whole, _ = run_strategy(tmp_path / 'b')
    assert history.finished
    assert curves(tmp_path / 'a') == curves(tmp_path / 'b')
    for kind, module in whole.modules().items():
        for key, tensor in module.state_dict().items():
            assert torch.equal(stopped.modules()[kind].state_dict()[key], tensor), (kind, key)


class Echoes(NamedTuple):
    image: torch.Tensor
    label: torch.Tensor


def test_an_echo_has_other_intensities_and_the_same_places():
    torch.manual_seed(0)
    image = torch.randn(2, 3, 4, 5, 6)
    image[:, :, 0] = 0
    batch = Echoes(image, (image[:, :1] > 1).float())
    same, mirrored = (echo_batch(batch, mirror=mirror) for mirror in (False, True))
    assert torch.equal(same.label, batch.label)
    assert torch.equal(mirrored.label, batch.label.flip(2))
    assert torch.equal(same.image == 0, image == 0)
    assert not torch.equal(same.image, image)
    ratio = (same.image[0, 0] / image[0, 0])[image[0, 0].abs() > 1]
    assert 0.7 < float(ratio.min()) <= float(ratio.max()) < 1.3


@dataclass
class NamedBatches:
    asked: list[int]

    def __getitem__(self, step: int) -> Echoes:
        self.asked.append(step)
        return Echoes(*BrightVoxels()[step])


def test_a_batch_is_used_as_often_as_asked_for_and_a_run_resumes_in_its_middle(tmp_path):
    class Stop(Exception):
        pass

    def stop_late(done, total, latest):
        if done == 7:
            raise Stop

    whole, batches = tmp_path / 'whole', NamedBatches([])
    task, _ = run(whole, batches=batches, echo=3, steps=10)
    assert batches.asked == [0, 1, 2, 3]
    again, batches = FindBright(), NamedBatches([])
    given = settings(steps=10, echo=3, checkpoint_every=7)
    with pytest.raises(Stop):
        train(again, batches, given, tmp_path / 'two', device='cpu', progress=stop_late)
    again, batches = FindBright(), NamedBatches([])
    train(again, batches, given, tmp_path / 'two', device='cpu')
    assert batches.asked == [2, 3]
    for name, tensor in task.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], tensor), name


def test_a_batch_is_mirrored_every_second_time(tmp_path):
    class Looking(FindBright):
        labels: ClassVar[list[torch.Tensor]] = []

        def loss(self, batch, step):
            self.labels.append(batch.label)
            return super().loss((batch.image, batch.label), step)

    task = Looking()
    train(task, NamedBatches([]), settings(steps=4, echo=4), tmp_path, device='cpu')
    first, second, third, fourth = task.labels
    assert torch.equal(first, third)
    assert torch.equal(second, fourth)
    assert torch.equal(first, second.flip(2))
    assert not torch.equal(first, second)
