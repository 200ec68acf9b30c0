#!/usr/bin/env python3
"""Where tracts of an atlas lie in the heads of the training engine: the lines of ``tract_map``.

    python benchmarks/tracts.py --labels ../shared/data/labels --tracts FILE [--heads 10]

prints the two tables of ``synthesis/heads.py``, and how much of each tract the engine's map has.
FILE is the atlas of ``realism.py``. Each label map becomes an image with the contrast of a T1w
scan, is registered to the template, and gets the atlas from there.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evidence.places import EVEN, read_tracts

from ssl2_bids.steps.template import register_to_template
from ssl2_bids.synthesis.heads import BRAIN, GROUP_NAMES, INDEX, Head, frame_of
from ssl2_bids.volume import Volume, resample
from ssl2_bids.workflows.heads import heads_from_label_maps

T1W = {
    'white': 1.0, 'cortex': 0.7, 'striatum': 0.8, 'pallidum': 0.9, 'thalamus': 0.85,
    'limbic': 0.7, 'cerebellar_cortex': 0.7, 'cerebellar_white': 1.0, 'brainstem': 0.95,
    'ventricle': 0.2, 'plexus': 0.3, 'outer_csf': 0.2,
}  # fmt: skip
BIN = 10  # mm
ENDS = {'corticospinal tract': (-30, 60), 'optic radiation': (-20, 60)}
FEWEST = 50  # voxels of a tract in a bin


def placed(head: Head, tracts: dict[str, Volume]) -> dict[str, np.ndarray]:
    """The probability of each tract in a head."""
    intensities = np.array([T1W.get(name, 0.0) for name in GROUP_NAMES], np.float32)
    image = Volume(intensities[head.groups], np.eye(4), 'T1w')
    brain = image.with_data(np.isin(head.groups, BRAIN).astype(np.uint8))
    way = np.linalg.inv(register_to_template(image, brain).matrix)
    return {
        name: resample(volume, image.affine, head.groups.shape, transform=way).data
        for name, volume in tracts.items()
    }


def lines(head: Head, name: str, probability: np.ndarray) -> dict[int, list[np.ndarray]]:
    """Centre and spread of a tract by position along it, one row for each side."""
    thalamus = np.argwhere(head.groups == INDEX['thalamus'])
    middle, front, up = frame_of(thalamus, np.argwhere(head.groups == INDEX['brainstem']))
    found = defaultdict(list)
    for side in (-1, 1):
        nucleus, place = (
            (voxels - middle)[(voxels[:, 0] - middle[0]) * side > 0]
            for voxels in (thalamus, np.argwhere(probability > EVEN))
        )
        lateral = place[:, 0] * side - (nucleus[:, 0] * side).max()
        height, forward = place @ up, place @ front
        along, other = height, forward
        if name == 'optic radiation':
            along, other = (nucleus @ front).min() - forward, height
        for low in range(*ENDS[name], BIN):
            here = (along >= low) & (along < low + BIN)
            if here.sum() >= FEWEST:
                row = (lateral[here].mean(), other[here].mean(), lateral[here].std())
                found[low + BIN // 2].append(np.array([*row, other[here].std()]))
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--labels', type=Path, required=True)
    parser.add_argument('--tracts', type=Path, required=True, metavar='FILE')
    parser.add_argument('--heads', type=int, default=10)
    args = parser.parse_args()
    heads = heads_from_label_maps(args.labels)[: args.heads]
    tracts = read_tracts(args.tracts)
    tables: dict[str, dict[int, list[np.ndarray]]] = {n: defaultdict(list) for n in tracts}
    shares: dict[str, list[float]] = defaultdict(list)
    for head in heads:
        for name, probability in placed(head, tracts).items():
            for position, rows in lines(head, name, probability).items():
                tables[name][position] += rows
            white = (probability > EVEN) & (head.groups == INDEX['white'])
            shares[name].append(float(head.tract[white].mean()) / 255)
    for name, table in tables.items():
        print(f'{name}: mean of the map in its white matter {np.mean(shares[name]):.2f}')
        for position, rows in sorted(table.items()):
            cells = (position, *np.mean(rows, axis=0))
            print('    (' + ', '.join(f'{cell:.1f}' for cell in cells) + f'),  # {len(rows)}')


if __name__ == '__main__':
    main()
