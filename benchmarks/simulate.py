#!/usr/bin/env python3
"""How fast images are simulated.

    python benchmarks/simulate.py engine [--steps 5] [--threads 1]

``engine``: what the training engine takes for a batch, against the step of the network that it
feeds: 4 patches of 96^3 with three contrasts, the fast U-Net, the same device and threads. Both
alternate within one run, so that they meet the same machine. The engine should take less than a
third of a step: it works beside the training in a process of its own and must not be waited for.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from train import NETWORKS, template_head

from ssl2_bids.device import choose_device
from ssl2_bids.networks.registry import new_network
from ssl2_bids.simulation.appearance import CHANNELS
from ssl2_bids.simulation.randomised import Randomisation, draw
from ssl2_bids.training.loop import LoopSettings
from ssl2_bids.training.pretrain import Supervised
from ssl2_bids.training.run import Run

BATCH, PATCH = 4, (96, 96, 96)
CONTRASTS = ('FLAIR', 'T1w', 'T2w')


def engine(args: argparse.Namespace) -> None:
    """Print the seconds of a batch of the engine and of a training step, and their ratio."""
    torch.set_num_threads(args.threads)
    device, heads = choose_device(args.device), (template_head(),)
    network = new_network(
        {'InputChannels': len(CHANNELS), 'OutputChannels': 1, **NETWORKS['fast_unet']}, seed=0
    )
    settings = LoopSettings(steps=args.steps + 1)
    run = Run(Supervised(network), settings, Path('nowhere'), torch.device(device), '')
    times: dict[str, list[float]] = {'engine': [], 'step': []}
    for number in range(args.steps + 1):
        began = time.perf_counter()
        batch = draw(
            heads,
            Randomisation(),
            seed=(0, number),
            batch=BATCH,
            patch=PATCH,
            device=device,
            contrasts=CONTRASTS,
        )
        float(batch.image.sum())  # waits for a GPU
        drawn = time.perf_counter()
        run.step(itertools.repeat(batch))
        float(run.watched if run.watched is not None else 0)
        if number:  # the first of each prepares what the others use
            times['engine'].append(drawn - began)
            times['step'].append(time.perf_counter() - drawn)
    middle = {name: statistics.median(seconds) for name, seconds in times.items()}
    print(f'{machine(device)}, {args.threads} threads, bfloat16 {"on" if run.bfloat16 else "off"}')
    print('| what | seconds, median | fastest | slowest | patches a second |')
    print('| --- | --- | --- | --- | --- |')
    for name, seconds in times.items():
        cells = (middle[name], min(seconds), max(seconds), BATCH / middle[name])
        print(f'| {name} | ' + ' | '.join(f'{cell:.2f}' for cell in cells) + ' |')
    print(f'\nThe engine takes {middle["engine"] / middle["step"]:.2f} of a training step.')


def machine(device: str) -> str:
    """The device and the versions that matter for speed."""
    name = platform.machine()
    if device.startswith('cuda'):
        name = torch.cuda.get_device_name(device)
    return f'{name}, torch {torch.__version__}'


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {'engine': engine}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the parts asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('parts', nargs='*', choices=PARTS, default=list(PARTS))
    parser.add_argument('--steps', type=int, default=5, help='counted batches and steps')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--device', default='auto')
    args = parser.parse_args(arguments)
    for part in args.parts:
        PARTS[part](args)


if __name__ == '__main__':
    sys.exit(main())
