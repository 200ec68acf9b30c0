#!/usr/bin/env python3
"""What the threshold of a scanner twin does to the people of a simulated site.

    ssl2 simulate site --subjects 8 --field 3 --contrasts FLAIR
    ssl2-bids site out participant
    ssl2-bids site out group --strategy twin --rung recalibrated --accept always --no-resegment
    python benchmarks/twin_threshold.py out site/derivatives/truth out/models/adapted

The twin has seen none of the truth. Printed are the mean Dice of the people of OUT with the
threshold of the start model, with the move that the twin asks for, made or refused, and with the
best move for these very people, which only their labels show. Then one to three of them are
labelled, in all ways: what the move by these labels gives the others, and the one with the twin as
``group`` takes it (the larger one of the two moves, that of the twin at least 0), and their mean.
Moves are of the threshold's logit; above 0 less is marked. Dice is that of voxels, without a
minimum volume.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
from threshold import cases

from ssl2_bids.training.adaptation.recalibration import MAX_MOVE, WIDTH, Counts, count, fit_move

MOVES = np.arange(-MAX_MOVE, MAX_MOVE + WIDTH / 2, WIDTH)
LABELLED = (1, 2, 3)  # people
HALF = 0.5  # threshold of the start models


def counts_of(output: Path, truth: Path, threshold: float) -> list[Counts]:
    """The voxels of each participant by the logit of their probability."""
    return [
        count(
            probability.data,
            reference.data > 0,
            np.ones(reference.shape, bool),
            participant=str(number),
            voxel_volume=reference.voxel_volume,
            threshold=threshold,
        )
        for number, (probability, reference) in enumerate(cases(output, truth, ''))
    ]


def gains_of(parts: list[Counts], labelled: int, twin: float) -> dict[str, np.ndarray]:
    """Gain of the mean Dice of the others by rule, for each choice of the labelled people."""
    tables = np.array([part.dice(MOVES) for part in parts])
    gains: dict[str, list[float]] = {'labels': [], 'twin': [], 'larger one': [], 'mean': []}
    upward = max(twin, 0.0)
    for chosen in itertools.combinations(range(len(parts)), labelled):
        own = fit_move([parts[n] for n in chosen])
        others = np.delete(tables, chosen, axis=0).mean(axis=0)
        moves = (own, upward, max(own, upward), (own + upward) / 2)
        for name, move in zip(gains, moves, strict=True):
            at = np.abs(MOVES - move).argmin()
            gains[name].append(float(others[at] - others[MOVES.size // 2]))
    return {name: np.array(values) for name, values in gains.items()}


def main(arguments: list[str] | None = None) -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('output', type=Path, help='output folder of the site')
    parser.add_argument('truth', type=Path, help='masks of all lesions of its people')
    parser.add_argument('model', type=Path, help='folder of the model recalibrated on the twin')
    parser.add_argument('--threshold', type=float, default=HALF, help='of the start model')
    given = parser.parse_args(arguments)
    card = json.loads((given.model / 'model.json').read_text())['Recalibration']
    asked = card['ThresholdMove'] or card.get('RefusedMove', 0.0)
    parts = counts_of(given.output, given.truth, given.threshold)
    if len(parts) <= LABELLED[-1]:
        raise SystemExit(
            f'{given.output}: {len(parts)} people are too few: {LABELLED[-1]} are labelled, and '
            'the others are tested'
        )
    dice = np.mean([part.dice(MOVES) for part in parts], axis=0)
    made = 'made' if card['ThresholdMove'] else 'not made'
    print(f'{len(parts)} people; the move of the twin is {made}')
    for name, move in (('start model', 0.0), ('twin', asked), ('best', MOVES[dice.argmax()])):
        value = dice[np.abs(MOVES - move).argmin()]
        gain = value - dice[MOVES.size // 2]
        print(f'{name:12} move {move:+.2f}  Dice {value:.3f}  difference {gain:+.3f}')
    for labelled in LABELLED:
        for name, gains in gains_of(parts, labelled, asked).items():
            print(
                f'{labelled} labelled, {name:10}  mean difference {gains.mean():+.3f}, '
                f'least {gains.min():+.3f}, below 0 in {np.mean(gains < 0):.0%}'
            )


if __name__ == '__main__':
    main()
