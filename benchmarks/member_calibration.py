#!/usr/bin/env python3
"""Whether a committee is better with members calibrated on other people: simulated brains.

    python benchmarks/member_calibration.py DATASET [--model committee-3t]

DATASET is one of ``ssl2 simulate`` with T1w and FLAIR. Scale and shift of each member's logit are
fitted as at the end of ``ssl2 pretrain``, to all participants but the one that is scored (leave
one out). Dice and lesion F1 (rule of MSSEG) at the model's threshold; log loss in nats and ECE of
brain voxels within 5 mm of the truth or of any member's marks.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from brains import Brain, load_brains
from torch import Tensor
from windows import dice

from ssl2_bids.metrics.calibration import expected_calibration_error
from ssl2_bids.networks.architectures.committee import members_of
from ssl2_bids.networks.inference import predict
from ssl2_bids.networks.weights import find_model, load_network
from ssl2_bids.synthesis.randomised import Patches
from ssl2_bids.training.losses import TINY
from ssl2_bids.training.pretraining.calibration import UNCHANGED, calibrate_members, looked_at
from ssl2_bids.training.pretraining.tasks import lesion_f1

COLUMNS = ('Dice', 'F1, MSSEG rule', 'log loss', 'ECE', 'mL', 'mL, truth')


def as_patches(one: Brain) -> Patches:
    """A brain whose truth is known everywhere."""
    brain, truth = one.brain[None, None], one.truth[None, None]
    return Patches(one.image[None], torch.ones(1, len(one.image)), brain, truth, brain)


def calibrated(probability: Tensor, fitted: tuple[float, float]) -> Tensor:
    """A probability whose logit is scaled and raised."""
    scale, shift = fitted
    moved = torch.sigmoid(scale * torch.logit(probability, eps=TINY) + shift)
    return torch.where(probability > 0, moved, 0.0)


def scores(probability: Tensor, volume: Patches, place: Tensor, threshold: float) -> list[float]:
    """The numbers of ``COLUMNS``."""
    truth = volume.label[0, 0]
    p, t = probability[place].clamp(TINY, 1 - TINY), truth[place].float()
    loss = -(t * p.log() + (1 - t) * (1 - p).log()).mean()
    marked = probability >= threshold
    ece = expected_calibration_error(p.numpy(), truth[place].numpy())
    return [
        dice(marked, truth),
        lesion_f1(probability, volume, threshold),
        float(loss),
        ece,
        float(marked.sum()) / 1000,
        float(truth.sum()) / 1000,
    ]


def left_out(
    members: Sequence[Sequence[Tensor]], volumes: Sequence[Patches], number: int
) -> list[tuple[float, float]]:
    """Each member's scale and shift, fitted without one participant."""
    rest = [n for n in range(len(volumes)) if n != number]
    return calibrate_members(
        [[member[n] for n in rest] for member in members], [volumes[n] for n in rest]
    )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('dataset', type=Path)
    parser.add_argument('--model', default='committee-3t')
    parser.add_argument('--work', type=Path, help='folder that keeps the prepared brains')
    args = parser.parse_args()
    card = find_model(args.model, Path())
    work = args.work or Path(tempfile.mkdtemp(prefix='ssl2-benchmark-'))
    brains = load_brains(args.dataset, card, work, least=2)  # each is left out once
    volumes = [as_patches(one) for one in brains]
    parts = members_of(load_network(card))
    members = [
        [predict(m, b.image, b.brain, window=card.window, overlap=card.overlap) for b in brains]
        for m in parts
    ]
    print('| network | members | case |', ' | '.join(COLUMNS), '|')
    print('| --- ' * (3 + len(COLUMNS)) + '|')
    fits = [left_out(members, volumes, number) for number in range(len(volumes))]
    for way in ('as trained', 'calibrated'):
        rows: dict[str, list[list[float]]] = {}
        for number, (one, volume) in enumerate(zip(brains, volumes, strict=True)):
            raw = [member[number] for member in members]
            place = looked_at(raw, volume)
            fitted = fits[number] if way == 'calibrated' else [UNCHANGED] * len(raw)
            moved = [calibrated(p, fit) for p, fit in zip(raw, fitted, strict=True)]
            answers = {f'member {n}': p for n, p in enumerate(moved)}
            answers['mean'] = torch.stack(moved).mean(dim=0)
            for name, probability in answers.items():
                row = scores(probability, volume, place, card.threshold)
                rows.setdefault(name, []).append(row)
                if name == 'mean':
                    print(f'| mean | {way} | {one.name} |', shown(row), '|')
        for name, found in rows.items():
            print(f'| {name} | {way} | all |', shown(np.mean(found, axis=0)), '|')
    print(
        '\n| left out |', ' | '.join(f'member {n}: scale, shift' for n in range(len(parts))), '|'
    )
    print('| --- ' * (1 + len(parts)) + '|')
    for one, fit in zip(brains, fits, strict=True):
        print(f'| {one.name} |', ' | '.join(f'{a:.2f}, {b:+.2f}' for a, b in fit), '|')


def shown(numbers: Sequence[float]) -> str:
    """Cells of a row."""
    return ' | '.join(f'{x:.3f}' for x in numbers)


if __name__ == '__main__':
    main()
