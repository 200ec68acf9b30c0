#!/usr/bin/env python3
"""Seconds and memory of one simulated 7 T participant: UNIT1, FLAIR, T2w and T2starw.

The command runs as a person would run it, in a process of its own, once for the brain alone and
once for a whole head; with --participants N also N of them at a time.

    python benchmarks/simulate.py --labels FOLDER [--participants 2] [--sessions 1] [--work FOLDER]
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from participant import PeakMemory

CONTRASTS = ('UNIT1', 'FLAIR', 'T2w', 'T2starw')


def run(folder: Path, labels: Path | None, *options: str) -> tuple[float, float, float]:
    """Seconds, seconds of all processors together, and peak memory in MB of one simulation."""
    words = [str(Path(sys.executable).with_name('ssl2')), 'simulate', str(folder), '--field', '7']
    words += ['--contrasts', *CONTRASTS, '--labelled', '1', '--sparse', '0.1', *options]
    words += ['--labels', str(labels)] if labels else []
    shutil.rmtree(folder, ignore_errors=True)
    before, started = os.times(), time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    watcher = PeakMemory(process)
    watcher.start()
    _, errors = process.communicate()
    seconds = time.perf_counter() - started
    if process.returncode:
        sys.exit(errors.decode())
    after = os.times()
    busy = sum(after[2:4]) - sum(before[2:4])
    return seconds, busy, watcher.peak


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--labels', type=Path, help='folder of label maps of whole heads')
    parser.add_argument(
        '--participants', type=int, default=1, help='at a time, in a run of its own'
    )
    parser.add_argument('--sessions', type=int, default=1)
    parser.add_argument('--work', type=Path, help='folder to keep the data in')
    arguments = parser.parse_args()
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
