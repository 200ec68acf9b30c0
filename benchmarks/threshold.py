#!/usr/bin/env python3
"""Which threshold suits simulated scans of several scanners at once.

    python benchmarks/threshold.py OUT=TRUTH [OUT=TRUTH ...] [--model LABEL]

OUT is an output folder of the App, TRUTH the masks of its participants. For each threshold one
line: Dice, lesion F1 (MSSEG rule), PPV, sensitivity and the ratio of the volumes, each the mean of
the scanners' means; the best mean of Dice and F1 stands last. No labelled real scan belongs here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ssl2_bids.bids.labels import Mask, find_labels, find_masks
from ssl2_bids.metrics import lesionwise, voxelwise
from ssl2_bids.steps.lesions import label_instances
from ssl2_bids.volume import Volume
from ssl2_bids.workflows.evaluation import segmented

THRESHOLDS = np.round(np.arange(0.05, 0.85, 0.05), 2)
COLUMNS = ('Dice', 'lesion F1', 'PPV', 'sensitivity', 'volume ratio')
MIN_VOLUME = 3.0  # mm^3


def cases(output: Path, truth: Path, model: str) -> list[tuple[Volume, Volume]]:
    """Probability and truth of each participant, both RAS+ and on one grid."""
    drawn = {(label.subject, label.session): label.path for label in find_labels(truth)}
    masks = find_masks(output, model or None)
    found = [
        case(mask, drawn[mask.subject, mask.session])
        for mask in masks
        if (mask.subject, mask.session) in drawn
    ]
    if not found:
        raise SystemExit(f'{output}: no participant has a mask in {truth}')
    return found


def case(mask: Mask, path: Path) -> tuple[Volume, Volume]:
    """See :func:`cases`."""
    reference = segmented.read_mask(path)
    probability = segmented.probability_of(mask, reference)
    if probability is None:
        raise SystemExit(f'{mask.path}: its probability does not lie on the grid of {path}')
    return probability, reference


def scores(probability: Volume, reference: Volume, threshold: float) -> list[float]:
    """The numbers of ``COLUMNS``."""
    true, marked = (
        label_instances(part, voxel_volume=reference.voxel_volume, minimum_volume=MIN_VOLUME)
        for part in (reference.data > 0, probability.data >= threshold)
    )
    compared = reference.data > 0, marked > 0
    return [
        voxelwise.dice(*compared),
        lesionwise.anima(true, marked).f1,
        voxelwise.ppv(*compared),
        voxelwise.sensitivity(*compared),
        float((marked > 0).sum() / max((reference.data > 0).sum(), 1)),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('pairs', nargs='+', metavar='OUT=TRUTH')
    parser.add_argument('--model', default='', metavar='LABEL', help='desc- label (default: none)')
    args = parser.parse_args()
    scanners = [cases(*map(Path, pair.split('=', 1)), args.model) for pair in args.pairs]
    print('| threshold |', ' | '.join(COLUMNS), '|')
    print('| --- ' * (1 + len(COLUMNS)) + '|')
    means = {}
    for threshold in THRESHOLDS:
        rows = [np.nanmean([scores(*one, threshold) for one in people], axis=0)
                for people in scanners]  # fmt: skip
        means[threshold] = np.mean(rows, axis=0)
        print(f'| {threshold:.2f} |', ' | '.join(f'{x:.3f}' for x in means[threshold]), '|')
    best = max(means, key=lambda t: means[t][0] + means[t][1])
    print(f'\nbest mean of Dice and lesion F1: {best:.2f}')


if __name__ == '__main__':
    main()
