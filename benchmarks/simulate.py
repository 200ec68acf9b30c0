#!/usr/bin/env python3
"""Seconds and memory of one simulated 7 T participant: UNIT1, FLAIR, T2w and T2starw; or, with
--engine, how fast the training engine draws patches.

The command runs as a person would run it, in a process of its own, once for the brain alone and
once for a whole head; with --participants N also N of them at a time.

    python benchmarks/simulate.py --labels FOLDER [--participants 2] [--sessions 1] [--work FOLDER]
    python benchmarks/simulate.py --engine [--steps 5] [--threads 1]

``--engine`` times a batch (4 patches of 96^3 with three contrasts) against the step of the network
that it feeds, the fast U-Net; both alternate within one run on the same device and threads, so
that they meet the same machine. Below a third of a step the engine, which works in a process of
its own, is never waited for. A third row is the term ``lesion_cross_entropy`` alone, which a step
may have in addition.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from participant import run_measured

CONTRASTS = ('UNIT1', 'FLAIR', 'T2w', 'T2starw')
BATCH, PATCH, DRAWN = 4, (96, 96, 96), ('FLAIR', 'T1w', 'T2w')  # of the training engine


def run(folder: Path, labels: Path | None, *options: str) -> tuple[float, float, float]:
    """Seconds, seconds of all processors together, and peak memory in MB of one simulation."""
    words = [str(Path(sys.executable).with_name('ssl2')), 'simulate', str(folder), '--field', '7']
    words += ['--contrasts', *CONTRASTS, '--labelled', '1', '--sparse', '0.1', *options]
    words += ['--labels', str(labels)] if labels else []
    shutil.rmtree(folder, ignore_errors=True)
    before = os.times()
    seconds, peak = run_measured(words)
    after = os.times()
    busy = sum(after[2:4]) - sum(before[2:4])
    return seconds, busy, peak


def engine(*, steps: int, threads: int, device: str) -> None:
    """Print the seconds of a batch of the training engine and of a training step."""
    from train import NETWORKS, template_head

    from ssl2_bids.device import choose_device
    from ssl2_bids.networks.registry import new_network
    from ssl2_bids.synthesis.appearance import CHANNELS
    from ssl2_bids.synthesis.randomised import draw
    from ssl2_bids.synthesis.ranges import Randomisation
    from ssl2_bids.training.instances import lesion_cross_entropy, lesion_weights
    from ssl2_bids.training.loop import LoopSettings
    from ssl2_bids.training.pretraining.tasks import SupervisedStage
    from ssl2_bids.training.run import Run

    torch.set_num_threads(threads)
    device, heads = choose_device(device), (template_head(),)
    network = new_network(
        {'InputChannels': len(CHANNELS), 'OutputChannels': 1, **NETWORKS['fast_unet']}, seed=0
    )
    settings = LoopSettings(steps=steps + 1)
    training = Run(SupervisedStage(network), settings, Path('nowhere'), torch.device(device), '')
    term = 'lesion_cross_entropy of a batch'
    times: dict[str, list[float]] = {'batch of the engine': [], 'training step': [], term: []}
    for number in range(steps + 1):
        began = time.perf_counter()
        batch = draw(
            heads,
            Randomisation(),
            seed=(0, number),
            batch=BATCH,
            patch=PATCH,
            device=device,
            contrasts=DRAWN,
        )
        float(batch.image.sum())  # waits for a GPU
        drawn = time.perf_counter()
        training.step(itertools.repeat(batch))
        float(training.watched if training.watched is not None else 0)
        stepped = time.perf_counter()
        logits = torch.zeros_like(batch.label, requires_grad=True)
        weights = lesion_weights(batch.label, batch.known)
        lesion_cross_entropy(logits, batch.label, weights).backward()
        float(logits.grad.sum() if logits.grad is not None else 0)
        if number:  # the first of each prepares what the others use
            times['batch of the engine'].append(drawn - began)
            times['training step'].append(stepped - drawn)
            times[term].append(time.perf_counter() - stepped)
    print(
        f'{platform.machine()}, {device}, {threads} threads, load {os.getloadavg()[0]:.1f} at the '
        f'end, torch {torch.__version__}, bfloat16 {"on" if training.bfloat16 else "off"}\n'
    )
    print('| what | seconds, median | fastest | slowest | patches a second |')
    print('| --- | --- | --- | --- | --- |')
    middle = [statistics.median(seconds) for seconds in times.values()]
    for (name, seconds), half in zip(times.items(), middle, strict=True):
        cells = (half, min(seconds), max(seconds), BATCH / half)
        print(f'| {name} | ' + ' | '.join(f'{cell:.2f}' for cell in cells) + ' |')
    print(f'\nThe engine takes {middle[0] / middle[1]:.2f} of a training step.')


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--labels', type=Path, help='folder of label maps of whole heads')
    parser.add_argument(
        '--participants', type=int, default=1, help='at a time, in a run of its own'
    )
    parser.add_argument('--sessions', type=int, default=1)
    parser.add_argument('--work', type=Path, help='folder to keep the data in')
    parser.add_argument('--engine', action='store_true', help='time the training engine instead')
    parser.add_argument('--steps', type=int, default=5, help='counted batches of --engine')
    parser.add_argument('--threads', type=int, default=1, help='of --engine')
    parser.add_argument('--device', default='auto', help='of --engine')
    arguments = parser.parse_args()
    if arguments.engine:
        engine(steps=arguments.steps, threads=arguments.threads, device=arguments.device)
        return
    folder = arguments.work or Path(tempfile.mkdtemp(prefix='ssl2-benchmark-'))
    print(
        f'{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the '
        f'start, Python {platform.python_version()}, numpy {np.__version__}; '
        f'{", ".join(CONTRASTS)}; {arguments.sessions} session(s)\n'
    )
    sessions = ('--sessions', str(arguments.sessions))
    runs: list[tuple[str, tuple[str, ...]]] = [('brain', ('--subjects', '1', *sessions))]
    if arguments.labels:
        runs.append(('whole head', ('--subjects', '1', '--whole-head', *sessions)))
    if arguments.participants > 1:
        count = str(arguments.participants)
        runs.append(
            (
                f'{count} brains at a time',
                ('--subjects', count, '--nprocs', count, *sessions),
            )
        )
    print('| simulated | seconds | seconds of processors | peak memory, MB |')
    print('| --- | --- | --- | --- |')
    for name, options in runs:
        seconds, busy, peak = run(folder / name.replace(' ', '-'), arguments.labels, *options)
        print(f'| {name} | {seconds:.0f} | {busy:.0f} | {peak:.0f} |', flush=True)


if __name__ == '__main__':
    main()
