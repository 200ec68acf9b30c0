#!/usr/bin/env python3
"""CPU seconds and memory of each network: of a training step, and of a whole brain.

    python benchmarks/networks.py [--networks fast_unet ...] [--patches 96 64] [--dataset FOLDER]

One thread, one process for each row, so that its peak of memory is its own. A step is that of
``ssl2 pretrain`` (forward, supervised loss, backward, AdamW) on random images; a brain goes
through the sliding window of the App (windows of 96 voxels, overlap 0.25). Weights are random:
they change neither. The brain is the first of FOLDER (made by ``ssl2 simulate``, with T1w and
FLAIR), else a simulated one at 1 mm. CPU seconds are those of user and system together, which
other programs on the machine change less than the time on the clock. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from participant import brain_input

from ssl2_bids.errors import UsageError
from ssl2_bids.networks.inference import PRECISIONS, predict, reproducible
from ssl2_bids.networks.registry import new_network
from ssl2_bids.networks.weights import find_model
from ssl2_bids.synthesis.appearance import CHANNELS
from ssl2_bids.synthesis.randomised import Patches
from ssl2_bids.tables import read_toml
from ssl2_bids.training.pretraining.tasks import SupervisedStage
from ssl2_bids.workflows.simulation.run import simulate

SWIN_UNETR = Path(__file__).resolve().parents[1] / 'pretraining' / 'swin-3t.toml'
NETWORKS = ('fast_unet', 'fast_unet, voxel norm', 'swin_unet', 'committee', 'swin_unetr')
BRAIN = 'brain.pt'


def description(name: str) -> dict[str, Any]:
    """The entry ``Network`` of the card or the configuration that a network is taken from."""
    common = {'InputChannels': len(CHANNELS), 'OutputChannels': 1}
    if name == 'swin_unetr':
        return read_toml(SWIN_UNETR, 'configuration', UsageError)['network'] | common
    if name.startswith('fast_unet'):
        fast = find_model('fast-3t', Path()).network
        return fast | {'Norm': 'voxel'} if name != 'fast_unet' else fast
    committee = find_model('committee-3t', Path()).network
    return committee if name == 'committee' else committee['Members'][0] | common


def random_batch(size: int, batch: int) -> Patches:
    """Images of noise with a lesion in each."""
    shape = (batch, 1, size, size, size)
    label = torch.zeros(shape)
    label[..., : size // 4, : size // 4, : size // 4] = 1
    present = torch.ones(batch, len(CHANNELS), dtype=torch.bool)
    image = torch.randn(batch, len(CHANNELS), size, size, size)
    return Patches(image, present, torch.ones(shape), label, torch.ones(shape))


def step(network: torch.nn.Module, size: int, batch: int, precision: str) -> Callable[[], None]:
    """One step of a supervised training, to be called as often as wanted."""
    task = SupervisedStage(network.train())
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    patches = random_batch(size, batch)

    def run() -> None:
        optimiser.zero_grad(set_to_none=True)
        with ExitStack() as stack:
            for context in reproducible(torch.device('cpu'), precision):
                stack.enter_context(context)
            loss, _ = task.loss(patches, 0)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()

    return run


def brain(network: torch.nn.Module, folder: Path, precision: str) -> Callable[[], None]:
    """The segmentation of a brain, to be called as often as wanted."""
    card = find_model('committee-3t', Path())
    given = torch.load(folder / BRAIN)

    def run() -> None:
        predict(
            network.eval(),
            given['image'],
            given['brain'],
            window=card.window,
            overlap=card.overlap,
            precision=precision,
        )

    return run


def peak_memory() -> float:
    """Largest resident memory of this process so far, in MB."""
    status = Path('/proc/self/status').read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if 'VmHWM' in line) / 1024


def measure(name: str, what: str, args: argparse.Namespace) -> dict[str, float]:
    """The median of CPU seconds after one warm-up, the peak of memory, and the parameters."""
    torch.set_num_threads(1)
    network = new_network(description(name), seed=0)
    if what == 'brain':
        work = brain(network, args.work, args.precision)
    else:
        work = step(network, int(what), args.batch, args.precision)
    before = peak_memory()
    taken = []
    for _ in range(args.repeats + 1):
        began = os.times()
        work()
        ended = os.times()
        taken.append(ended.user + ended.system - began.user - began.system)
    return {
        'parameters': sum(p.numel() for p in network.parameters()),
        'seconds': statistics.median(taken[1:] or taken),
        'peak': peak_memory(),
        'before': before,
    }


def measured_apart(name: str, what: str, args: argparse.Namespace) -> dict[str, float]:
    """:func:`measure` in a process of its own."""
    words = [sys.executable, __file__, '--one', name, what, '--work', str(args.work)]
    words += ['--repeats', str(args.repeats), '--batch', str(args.batch)]
    words += ['--precision', args.precision]
    alone = dict.fromkeys(('OMP_NUM_THREADS', 'MKL_NUM_THREADS'), '1')
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, env=os.environ | alone)
    return json.loads(done.stdout)


def prepare_brain(args: argparse.Namespace) -> str:
    """Write the input of the brain's segmentation; name its size."""
    root = args.dataset
    if root is None:
        root = args.work / 'brain'
        simulate(root, subjects=1, seed=1)
    subject = sorted(path.name for path in root.glob('sub-*'))[0]
    given, _ = brain_input(root, subject, find_model('committee-3t', Path()))
    torch.save({'image': given.tensor, 'brain': given.brain}, args.work / BRAIN)
    litres = float(given.brain.sum()) / 1e6
    return f'{" x ".join(map(str, given.brain.shape))} voxels of 1 mm around {litres:.2f} L'


def main() -> None:
    """Measure all, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--networks', nargs='+', choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument('--patches', nargs='*', type=int, default=[96, 64], help='edges, voxels')
    parser.add_argument('--batch', type=int, default=2)
    parser.add_argument('--repeats', type=int, default=1, help='after one that is not counted')
    parser.add_argument('--precision', choices=PRECISIONS, default='float32')
    parser.add_argument('--dataset', type=Path, help='made by ssl2 simulate')
    parser.add_argument('--work', type=Path, help='folder for the brain')
    parser.add_argument('--one', nargs=2, metavar=('NETWORK', 'WHAT'), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*args.one, args)))
        return
    args.work = args.work or Path(tempfile.mkdtemp(prefix='ssl2-benchmark-'))
    args.work.mkdir(parents=True, exist_ok=True)
    size = prepare_brain(args)
    print(
        f'{platform.machine()}, one thread, Python {platform.python_version()}, '
        f'torch {torch.__version__}, {args.precision}; brain: {size}; steps: {args.batch} samples '
        f'of {len(CHANNELS)} channels\n'
    )
    tasks = {f'step, {edge}³': str(edge) for edge in args.patches} | {'brain': 'brain'}
    head = ['network', 'parameters, M']
    head += [f'{title}: {unit}' for title in tasks for unit in ('CPU s', 'peak MB')]
    print('| ' + ' | '.join(head) + ' |')
    print('| --- ' * len(head) + '|')
    before = []
    for name in args.networks:
        found = [measured_apart(name, what, args) for what in tasks.values()]
        before += [one['before'] for one in found]
        cells = [name, f'{found[0]["parameters"] / 1e6:.2f}']
        for one in found:
            cells += [f'{one["seconds"]:.2f}', f'{one["peak"]:.0f}']
        print('| ' + ' | '.join(cells) + ' |', flush=True)
    print(f'\nOf each peak, {min(before):.0f} to {max(before):.0f} MB were there before the work.')


if __name__ == '__main__':
    main()
