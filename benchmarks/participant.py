#!/usr/bin/env python3
"""Seconds and memory of one participant: FLAIR and T1w at 1 mm on a whole-head grid, or others.

The App runs as a person would run it, in a process of its own, on a simulated head; then its
inference is timed against MONAI's sliding window over the whole grid, with the same network.

    python benchmarks/participant.py [--nprocs 2] [--work FOLDER] [--participants 4]
    python benchmarks/participant.py --dataset BIDS_DIR --label 01      (no comparison with MONAI)

``--model`` names another model than the default one, for both.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import torch
from scipy import ndimage

from ssl2_bids.files import read_object, write_json
from ssl2_bids.networks.cards import Card
from ssl2_bids.networks.inference import predict
from ssl2_bids.networks.weights import find_model, load_network
from ssl2_bids.steps.network_input import NetworkInput, network_input
from ssl2_bids.steps.registration import register_rigid
from ssl2_bids.volume import Volume, read, reorient, resample, write
from ssl2_bids.workflows.simulation.run import simulate

PROJECT = Path(__file__).resolve().parents[1]
WHOLE_HEAD = (192, 256, 256)  # voxels of 1 mm


def make_dataset(folder: Path) -> Path:
    """A simulated participant with skull and scalp around the brain, on a whole-head grid.

    The dataset is moved to its place when it is whole.
    """
    final, root = folder / 'data', folder / 'data-in-part'
    if final.is_dir():
        last = final / 'sub-01' / 'anat' / 'sub-01_FLAIR.json'  # what is written last
        if not last.is_file() or read_object(last).get('SkullStripped') is not False:
            raise SystemExit(
                f'{final}: a run that was stopped left this dataset in part: remove it'
            )
        return final
    shutil.rmtree(root, ignore_errors=True)
    simulate(root, subjects=1, seed=1)
    random = np.random.default_rng(0)
    for contrast, scalp in (('T1w', 1.1), ('FLAIR', 0.7)):
        path = root / 'sub-01' / 'anat' / f'sub-01_{contrast}.nii.gz'
        image = whole_head(read(path))
        distance = ndimage.distance_transform_edt(image.data == 0, sampling=image.spacing)
        level = float(np.median(image.data[image.data > 0]))
        data = np.where((distance > 5) & (distance < 11), scalp * level, image.data)
        data = ndimage.gaussian_filter(data, 0.5) + np.abs(
            random.normal(0, 0.02 * level, image.shape)
        )
        write(image.with_data(data), path)
        sidecar = path.with_name(path.name.replace('.nii.gz', '.json'))
        content = read_object(sidecar) | {'SkullStripped': False}
        write_json(sidecar, content)
    root.rename(final)
    return final


def whole_head(image: Volume) -> Volume:
    """The image on a grid of 1 mm that holds a whole head, around the same centre."""
    axes = image.affine[:3, :3] / image.spacing
    order = np.argsort([abs(axes[0, i]) for i in range(3)])[::-1]  # left-right gets the 192
    shape = [256, 256, 256]
    shape[int(order[0])] = WHOLE_HEAD[0]
    affine = np.eye(4)
    affine[:3, :3] = axes
    centre = image.affine @ [*(np.array(image.shape) - 1) / 2, 1]
    affine[:3, 3] = centre[:3] - axes @ ((np.array(shape) - 1) / 2)
    return resample(image, affine, (shape[0], shape[1], shape[2]))


class PeakMemory(threading.Thread):
    """Largest sum of the unshared memory of a process and its children, sampled, in MB."""

    def __init__(self, process: subprocess.Popen):
        super().__init__(daemon=True)
        self.process, self.peak = process, 0.0

    def run(self) -> None:
        """Sample until the process ends."""
        while self.process.poll() is None:
            total = 0
            try:
                family = [psutil.Process(self.process.pid)]
                family += family[0].children(recursive=True)
            except psutil.NoSuchProcess:
                break
            for member in family:
                try:
                    total += member.memory_full_info().uss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
            self.peak = max(self.peak, total / 2**20)
            time.sleep(0.1)


def run_measured(words: Sequence[str]) -> tuple[float, float]:
    """Run a command; its seconds, and its peak memory in MB with all its processes."""
    started = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    watcher = PeakMemory(process)
    watcher.start()
    _, errors = process.communicate()
    seconds = time.perf_counter() - started
    if process.returncode:
        sys.exit(errors.decode())
    return seconds, watcher.peak


def run_app(
    root: Path, folder: Path, nprocs: int, *, label: str = '01', model: str | None = None
) -> None:
    """Run the participant level from nothing and print its stages."""
    out, work = folder / 'out', folder / 'work'
    words = [
        sys.executable,
        str(PROJECT / 'run.py'),
        str(root),
        str(out),
        'participant',
        '--participant-label',
        label,
        '-w',
        str(work),
        '--nprocs',
        str(nprocs),
        '--resource-monitor',
        '--overwrite',
        '--clean-workdir',
    ]
    words += ['--model', model] if model else []
    seconds, peak = run_measured(words)
    newest = max((out / 'logs').glob('*_resources.tsv'), key=os.path.getmtime)
    print('| stage | seconds | CPU s | peak memory of its process, MB |')
    print('| --- | --- | --- | --- |')
    total = 0.0
    with open(newest, newline='') as stream:
        for row in csv.DictReader(stream, delimiter='\t'):
            total += float(row['cpu_seconds'])
            numbers = (row['seconds'], row['cpu_seconds'], row['peak_memory_MB'])
            print(f'| {row["stage"]} | {" | ".join(numbers)} |')
    print(
        f'| **all, from start to end** | **{seconds:.0f}** | **{total:.0f}** (stages) | '
        f'**{peak:.0f}** (all processes together) |\n'
    )


def brain_input(root: Path, subject: str, card: Card) -> tuple[NetworkInput, np.ndarray]:
    """A simulated brain on the model's grid, its FLAIR registered, and its true lesions there."""
    anat = root / subject / 'anat'
    images = {c: read(anat / f'{subject}_{c}.nii.gz', contrast=c) for c in ('T1w', 'FLAIR')}
    images = {c: reorient(image) for c, image in images.items()}
    masks = {c: i.with_data((i.data > 0).astype(np.uint8)) for c, i in images.items()}
    found = register_rigid(
        images['T1w'], images['FLAIR'], fixed_mask=masks['T1w'], moving_mask=masks['FLAIR']
    )
    given = network_input(images, {'FLAIR': found.matrix}, masks['T1w'], card)
    name = f'derivatives/truth/{subject}/anat/{subject}_space-T1w_label-L_mask.nii.gz'
    truth = reorient(read(root / name, dtype=np.uint8))
    there = resample(truth, given.affine, given.tensor.shape[1:], order=0)
    return given, there.data > 0


def compare_inference(
    folder: Path, *, threads: int, participants: int, model: str | None = None
) -> None:
    """Time our inference against MONAI's over the whole grid, and score both."""
    from monai.inferers import SlidingWindowInferer

    torch.set_num_threads(threads)
    card = find_model(model, folder)
    network = load_network(card, 'cpu')
    inferer = SlidingWindowInferer(card.window, overlap=0.5, mode='gaussian', sw_batch_size=1)
    simulate(folder / 'brains', subjects=participants, seed=100)

    def plain(given: NetworkInput) -> np.ndarray:
        whole = torch.zeros((1, given.tensor.shape[0], *WHOLE_HEAD))
        sizes = zip(WHOLE_HEAD, given.brain.shape, strict=True)
        place = tuple(slice((n - m) // 2, (n - m) // 2 + m) for n, m in sizes)
        whole[(0, slice(None), *place)] = given.tensor
        with torch.no_grad():
            return torch.sigmoid(inferer(whole, network))[(0, 0, *place)].numpy()

    def ours(given: NetworkInput) -> np.ndarray:
        return predict(
            network, given.tensor, given.brain, window=card.window, overlap=card.overlap
        ).numpy()

    print('| simulated brain | MONAI, s | ours, s | MONAI, Dice | ours, Dice |')
    print('| --- | --- | --- | --- | --- |')
    rows = []
    for number in range(1, participants + 1):
        given, truth = brain_input(folder / 'brains', f'sub-{number:02d}', card)
        row: list[float] = []
        for work in (plain, ours):
            started = time.perf_counter()
            predicted = (work(given) >= card.threshold) & given.brain.numpy()
            row.append(time.perf_counter() - started)
            row.append(2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()))
        rows.append(row)
        print(f'| sub-{number:02d} | {row[0]:.1f} | {row[2]:.1f} | {row[1]:.3f} | {row[3]:.3f} |')
    mean = np.mean(rows, axis=0)
    print(f'| mean | {mean[0]:.1f} | {mean[2]:.1f} | {mean[1]:.3f} | {mean[3]:.3f} |')
    print(
        f'\n{mean[0] / mean[2]:.1f} times faster, {threads} threads. MONAI: sliding window over '
        f'{" x ".join(map(str, WHOLE_HEAD))} voxels, overlap 0.5, Gaussian weights, float32.'
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--nprocs', type=int, default=2)
    parser.add_argument('--participants', type=int, default=4, help='of the inference table')
    parser.add_argument('--dataset', type=Path, help='BIDS dataset instead of a simulated one')
    parser.add_argument('--label', default='01', help='of its participant')
    parser.add_argument(
        '--model', help='bundled name, or folder of a model (default: that of the App)'
    )
    parser.add_argument('--work', type=Path, help='folder to keep data and results in')
    arguments = parser.parse_args()
    folder = arguments.work or Path(tempfile.mkdtemp(prefix='ssl2-benchmark-'))
    folder.mkdir(parents=True, exist_ok=True)
    print(
        f'{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, '
        f'torch {torch.__version__}; seed 1\n'
    )
    nprocs, model = arguments.nprocs, arguments.model
    if arguments.dataset:
        run_app(arguments.dataset, folder, nprocs, label=arguments.label, model=model)
        return
    run_app(make_dataset(folder), folder, nprocs, model=model)
    compare_inference(folder, threads=nprocs, participants=arguments.participants, model=model)


if __name__ == '__main__':
    main()
