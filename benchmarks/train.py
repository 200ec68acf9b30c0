"""How many patches a second the training loop takes, against a loop as a MONAI tutorial has it.

    python benchmarks/train.py [--networks fast_unet swin_unetr] [--steps 6] [--threads 2]

Both train the same network on patches of the same size, in turns within one run, so that they
meet the same machine. Ours: ``ssl2_bids.training`` with the randomised engine, which simulates
each patch again, in one worker process. The other: MONAI's dictionary transforms (random crops
around lesions, flips, intensities) on cached images, its DataLoader with one worker, DiceCELoss
and AdamW in float32. ``--profile`` shows which operations our step spends its time in.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nilearn import datasets
from torch import nn

from ssl2_bids.device import choose_device
from ssl2_bids.networks.registry import new_network
from ssl2_bids.synthesis.appearance import CHANNELS
from ssl2_bids.synthesis.heads import Head, make_head
from ssl2_bids.synthesis.ranges import Randomisation
from ssl2_bids.training.data.prefetch import stream
from ssl2_bids.training.loop import LoopSettings
from ssl2_bids.training.pretraining.batches import LabelledBatches
from ssl2_bids.training.pretraining.tasks import SupervisedStage, whole_heads
from ssl2_bids.training.run import Run

NETWORKS: dict[str, dict[str, Any]] = {
    'fast_unet': {
        'Type': 'fast_unet',
        'Channels': [24, 48, 96, 128],
        'FullResolutionChannels': 4,
    },
    'swin_unetr': {'Type': 'swin_unetr', 'FeatureSize': 24},
}
LABELS = {'white': 2, 'grey': 3, 'fluid': 24, 'ventricle': 4}


def template_head() -> Head:
    """A head from the MNI152 tissue maps, whose middle fluid counts as ventricle."""
    brain, gm, wm = (
        load(resolution=1).get_fdata(dtype=np.float32)
        for load in (
            datasets.load_mni152_template,
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
        )
    )
    csf = np.where(brain > 0, 1 - gm - wm, 0)
    labels = np.select(
        [brain <= 0, wm >= np.maximum(gm, csf), gm >= csf],
        [0, LABELS['white'], LABELS['grey']],
        LABELS['fluid'],
    )
    middle = tuple(slice(int(0.35 * n), int(0.65 * n)) for n in labels.shape)
    inner = labels[middle]
    inner[inner == LABELS['fluid']] = LABELS['ventricle']
    return make_head('mni152', labels.astype(np.uint8))


def our_steps(
    network: nn.Module, head: Head, patch: int, batch: int, device: str, steps: int
) -> Iterator[dict[str, float]]:
    """One step each time; gives its seconds and those of waiting for the batch."""
    settings = LoopSettings(steps=steps, workers=1, ahead=4)
    run = Run(SupervisedStage(network), settings, Path('nowhere'), torch.device(device), '')
    batches = LabelledBatches((head,), Randomisation(), batch=batch, patch=(patch,) * 3, seed=0)
    source = stream(batches, range(steps), workers=1, ahead=4)
    for _ in range(steps):
        before, waited = run.history.seconds, run.waited
        run.step(source)
        float(run.watched if run.watched is not None else 0)  # waits for a GPU
        yield {'seconds': run.history.seconds - before, 'waited': run.waited - waited}


def monai_steps(
    network: nn.Module, head: Head, patch: int, batch: int, device: str, steps: int
) -> Iterator[dict[str, float]]:
    """As the tutorials for BraTS and for Swin UNETR do it."""
    from monai.data import CacheDataset, DataLoader
    from monai.losses import DiceCELoss
    from monai.transforms import (
        Compose,
        EnsureTyped,
        RandCropByPosNegLabeld,
        RandFlipd,
        RandRotate90d,
        RandScaleIntensityd,
        RandShiftIntensityd,
    )

    volumes = whole_heads([head] * 4, Randomisation(), seed=0, contrasts=CHANNELS)
    volumes = [volume for volume in volumes if volume.label.any()]
    items = [{'image': v.image[0].float(), 'label': v.label[0].float()} for v in volumes]
    both = ['image', 'label']
    transforms = Compose(
        [
            EnsureTyped(both),
            RandCropByPosNegLabeld(
                both, 'label', spatial_size=(patch,) * 3, pos=1, neg=1, num_samples=batch
            ),
            *(RandFlipd(both, prob=0.1, spatial_axis=axis) for axis in range(3)),
            RandRotate90d(both, prob=0.1, max_k=3),
            RandScaleIntensityd('image', factors=0.1, prob=0.5),
            RandShiftIntensityd('image', offsets=0.1, prob=0.5),
        ]
    )
    data = CacheDataset(items * (steps + 2), transforms, cache_num=0, progress=False)
    loader = iter(DataLoader(data, batch_size=1, shuffle=True, num_workers=1))
    loss_function = DiceCELoss(sigmoid=True)
    network.to(device).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=1e-5)
    for _ in range(steps):
        began = time.monotonic()
        item = next(loader)
        image, label = item['image'].to(device), item['label'].to(device)
        waited = time.monotonic() - began
        optimiser.zero_grad()
        loss = loss_function(network(image), label)
        loss.backward()
        optimiser.step()
        loss.item()
        yield {'seconds': time.monotonic() - began, 'waited': waited}


LOOPS: dict[str, Callable[..., Iterator[dict[str, float]]]] = {
    'ssl2': our_steps,
    'monai': monai_steps,
}


def measure(
    name: str, head: Head, *, patch: int, batch: int, device: str, steps: int
) -> dict[str, dict[str, float]]:
    """Medians of both loops, whose steps alternate; the first of each is not counted."""
    running = {}
    for loop, make in LOOPS.items():
        network = new_network(
            {'InputChannels': len(CHANNELS), 'OutputChannels': 1, **NETWORKS[name]}, seed=0
        )
        running[loop] = make(network, head, patch, batch, device, steps + 1)
    times: dict[str, list[dict[str, float]]] = {loop: [] for loop in LOOPS}
    for number in range(steps + 1):
        for loop, source in running.items():
            taken = next(source)
            if number:
                times[loop].append(taken)
    result = {}
    for loop, taken in times.items():
        seconds = [one['seconds'] for one in taken]
        middle = statistics.median(seconds)
        result[loop] = {
            'patches_per_second': batch / middle,
            'seconds_per_step': middle,
            'fastest_step': min(seconds),
            'slowest_step': max(seconds),
            'waiting_share': sum(one['waited'] for one in taken) / sum(seconds),
        }
    return result


def profile(name: str, head: Head, *, patch: int, batch: int, device: str) -> str:
    """The operations in which two of our steps spend their time."""
    network = new_network(
        {'InputChannels': len(CHANNELS), 'OutputChannels': 1, **NETWORKS[name]}, seed=0
    )
    steps = our_steps(network, head, patch, batch, device, 3)
    next(steps)
    with torch.profiler.profile() as found:
        for _ in steps:
            pass
    order = 'self_cuda_time_total' if device.startswith('cuda') else 'self_cpu_time_total'
    return found.key_averages().table(sort_by=order, row_limit=15, max_name_column_width=45)


def main() -> None:
    """Measure, print a table, and JSON where asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--networks', nargs='+', choices=sorted(NETWORKS), default=['fast_unet'])
    parser.add_argument('--steps', type=int, default=6, help='counted steps of each loop')
    parser.add_argument('--patch', type=int, default=96)
    parser.add_argument('--batch', type=int, default=2)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--device', default='auto')
    parser.add_argument('--profile', action='store_true')
    parser.add_argument('--json', type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device, head = choose_device(args.device), template_head()
    sizes = {'patch': args.patch, 'batch': args.batch, 'device': device}
    results = {}
    for name in args.networks:
        if args.profile:
            sys.stdout.write(profile(name, head, **sizes) + '\n')
            continue
        results[name] = measure(name, head, steps=args.steps, **sizes)
        for loop, row in results[name].items():
            sys.stdout.write(
                f'{name:12} {loop:6} {row["patches_per_second"]:7.3f} patches/s  '
                f'{row["seconds_per_step"]:7.3f} s/step '
                f'({row["fastest_step"]:.3f} to {row["slowest_step"]:.3f})  '
                f'waiting {row["waiting_share"]:.1%}\n'
            )
        ratio = (
            results[name]['ssl2']['patches_per_second']
            / results[name]['monai']['patches_per_second']
        )
        sys.stdout.write(f'{name:12} ratio  {ratio:7.2f}\n')
    if args.json:
        about = {'threads': args.threads, 'torch': torch.__version__, **sizes}
        args.json.write_text(json.dumps({'settings': about, 'results': results}, indent=2))


if __name__ == '__main__':
    main()
