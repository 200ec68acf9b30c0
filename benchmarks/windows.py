#!/usr/bin/env python3
"""How far a model's answer depends on the size of the sliding window.

    python benchmarks/windows.py DATASET [--models fast-3t ...] [--windows 80 96 128 0]

DATASET is one of ``ssl2 simulate`` with T1w and FLAIR; 0 is the whole brain in one window. For
each model, each member of a committee and each window: Dice with the truth; Dice with the mask
of the card's window; mean difference of the probability from that of the card's window, where
one of both is above 0.1; CPU seconds (user and system). Means over the participants.

For networks with instance norm, ``--statistics`` adds two ways to make its mean and variance
independent of the window without a new training. ``others``: the means over windows of the other
participants, fixed. ``first pass``: the means over the card's windows of the same brain, taken
in a pass of their own, which doubles the time.
"""

from __future__ import annotations

import argparse
import copy
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from brains import Brain, load_brains
from torch import Tensor, nn

from ssl2_bids.networks.architectures.committee import Committee, members_of
from ssl2_bids.networks.cards import Card
from ssl2_bids.networks.inference import PRECISIONS, box, pad, predict, window_starts
from ssl2_bids.networks.weights import find_model, load_network

OTHERS, FIRST_PASS = 'others', 'first pass'
SUSPECTED = 0.1
COLUMNS = ('Dice', 'Dice with usual window', 'difference of probability', 'CPU s')


def fixed_statistics(network: nn.Module, brains: Sequence[Brain], card: Card) -> nn.Module:
    """The network with instance norms of fixed statistics: means over the brains' windows.

    A batch norm does that with one window at a time, as torch has no cumulative instance norm.
    """
    fixed = copy.deepcopy(network)
    for name, module in list(fixed.named_modules()):
        if isinstance(module, nn.InstanceNorm3d):
            norm = nn.BatchNorm3d(module.num_features, eps=module.eps, momentum=None)
            norm.weight, norm.bias = module.weight, module.bias
            fixed.set_submodule(name, norm)
    fixed.train()
    with torch.no_grad():
        for one in brains:
            image, brain, _ = pad(one.image, one.brain, card.window)
            for start in window_starts(brain, card.window, overlap=card.overlap):
                fixed(image[(slice(None), *box(start, card.window))][None])
    return fixed.eval()


def has_instance_norm(network: nn.Module) -> bool:
    """Whether there is one."""
    return any(isinstance(module, nn.InstanceNorm3d) for module in network.modules())


def window_of(edge: int, one: Brain, card: Card) -> tuple[int, ...]:
    """The window in voxels; the whole brain where the edge is 0."""
    multiple = card.network['Multiple']
    return (edge,) * 3 if edge else tuple(-(-n // multiple) * multiple for n in one.brain.shape)


def answers(
    network: nn.Module, one: Brain, card: Card, windows: Sequence[int], precision: str
) -> dict[int, tuple[Tensor, float]]:
    """Probability and CPU seconds for each window."""
    found = {}
    for edge in windows:
        began = os.times()
        probability = predict(
            network,
            one.image,
            one.brain,
            window=window_of(edge, one, card),
            overlap=card.overlap,
            precision=precision,
        )
        ended = os.times()
        found[edge] = probability, ended.user + ended.system - began.user - began.system
    return found


def dice(one: Tensor, other: Tensor) -> float:
    """Of two masks; 1 if both are empty."""
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0


def scores(
    found: dict[int, tuple[Tensor, float]], one: Brain, card: Card
) -> dict[int, list[float]]:
    """The numbers of ``COLUMNS`` for each window."""
    usual = found[card.window[0]][0]
    rows = {}
    for edge, (probability, seconds) in found.items():
        marked = probability >= card.threshold
        where = torch.maximum(probability, usual) > SUSPECTED
        change = float((probability - usual).abs()[where].mean()) if where.any() else 0.0
        rows[edge] = [
            dice(marked, one.truth),
            dice(marked, usual >= card.threshold),
            change,
            seconds,
        ]
    return rows


def together(
    committee: Committee, found: Sequence[dict[int, tuple[Tensor, float]]]
) -> dict[int, tuple[Tensor, float]]:
    """A committee's answers from those of its members, whose mean it is."""
    if not torch.equal(committee.calibration, torch.tensor([[1.0, 0.0]] * len(found))):
        raise SystemExit('the members are calibrated: their mean is not that of their answers')
    return {
        edge: (
            torch.stack([one[edge][0] for one in found]).mean(dim=0),
            sum(one[edge][1] for one in found),
        )
        for edge in found[0]
    }


def show(name: str, statistics: str, rows: Sequence[dict[int, list[float]]], usual: int) -> None:
    """Print the means over the participants."""
    for edge in rows[0]:
        mean = np.mean([row[edge] for row in rows], axis=0)
        window = f'{edge or "brain"}{" (usual)" if edge == usual else ""}'
        numbers = f'{mean[0]:.3f} | {mean[1]:.3f} | {mean[2]:.3f} | {mean[3]:.1f}'
        print(f'| {name} | {statistics} | {window} | {numbers} |', flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('dataset', type=Path)
    parser.add_argument('--models', nargs='+', default=['fast-3t', 'committee-3t'])
    parser.add_argument('--windows', nargs='+', type=int, default=[80, 96, 128, 0])
    parser.add_argument('--statistics', nargs='*', choices=(OTHERS, FIRST_PASS), default=[])
    parser.add_argument('--precision', choices=PRECISIONS, default='auto')
    parser.add_argument('--work', type=Path, help='folder that keeps the prepared brains')
    args = parser.parse_args()
    work = args.work or Path(tempfile.mkdtemp(prefix='ssl2-benchmark-'))
    least = 2 if OTHERS in args.statistics else 1
    print('| network | statistics of norm | window |', ' | '.join(COLUMNS), '|')
    print('| --- ' * (3 + len(COLUMNS)) + '|')
    for model in args.models:
        card = find_model(model, Path())
        usual = card.window[0]
        windows = list(dict.fromkeys([*args.windows, usual]))
        brains = load_brains(args.dataset, card, work, least=least)
        network = load_network(card)
        parts = members_of(network)
        found = [[answers(m, one, card, windows, args.precision) for one in brains] for m in parts]
        for number, (member, own) in enumerate(zip(parts, found, strict=True)):
            name = f'{model}, member {number}' if len(parts) > 1 else model
            rows = [scores(a, one, card) for a, one in zip(own, brains, strict=True)]
            by_window = has_instance_norm(member)
            show(name, 'of the window' if by_window else 'of the voxel', rows, usual)
            for kind in args.statistics if by_window else ():
                rows = []
                for one in brains:
                    seen = [one] if kind == FIRST_PASS else [b for b in brains if b is not one]
                    fixed = fixed_statistics(member, seen, card)
                    made = answers(fixed, one, card, windows, args.precision)
                    rows.append(scores(made, one, card))
                show(name, kind, rows, usual)
        if isinstance(network, Committee):
            both = [together(network, answer) for answer in zip(*found, strict=True)]
            rows = [scores(a, one, card) for a, one in zip(both, brains, strict=True)]
            show(model, 'of both', rows, usual)


if __name__ == '__main__':
    main()
