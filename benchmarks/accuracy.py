#!/usr/bin/env python3
"""Accuracy of bundled models on a labelled dataset, for several sets of contrasts.

    python benchmarks/accuracy.py DATASET LABELS OUT [--contrasts flair flair,t1w all]

Runs the App as a user would, one output folder per set of contrasts below OUT, and prints one
Markdown table of all cases, with the means of each model. What was done before is not done again.
Without lesions (healthy people) give ``none`` for LABELS: then the volume of what is marked is the
error.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path

from ssl2_bids.networks.weights import find_model

COLUMNS = {
    'participant_id': 'case',
    'dice': 'Dice',
    'sensitivity': 'sensitivity',
    'ppv': 'PPV',
    'lesion_f1': 'lesion F1',
    'lesion_sensitivity': 'lesion sensitivity',
    'lesion_precision': 'lesion precision',
    'lesion_f1_msseg': 'F1, MSSEG rule',
    'ece': 'ECE near lesions',
    'volume_predicted': 'mL',
    'volume_reference': 'mL, truth',
    'false_volume': 'false mL',
    'false_lesions': 'false lesions',
}
PROGRAMS = Path(sys.executable).parent


def label(model: str, folder: Path) -> str:
    """The name of a model in the files of an output folder and in ``ssl2 evaluate``."""
    return find_model(model, folder).label or 'default'


def segment(args: argparse.Namespace, contrasts: str, model: str) -> Path:
    """Run the App on one set of contrasts with one model; its output folder."""
    name = contrasts.replace(',', '-')
    folder = args.out / name
    command = [
        str(PROGRAMS / 'ssl2-bids'),
        str(args.dataset),
        str(folder),
        'participant',
        '--model',
        model,
    ]
    command += ['-w', str(args.out / f'work-{name}'), '--random-seed', '0']
    if contrasts != 'all':
        command += ['--contrasts', *contrasts.split(',')]
    if args.participants:
        command += ['--participant-label', *args.participants]
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode not in (0, 1):
        sys.exit(done.returncode)
    return folder


def evaluate(args: argparse.Namespace, folder: Path) -> list[dict[str, str]]:
    """The rows of ``ssl2 evaluate`` for all models."""
    table = args.out / f'{folder.name}.tsv'
    command = [str(PROGRAMS / 'ssl2'), 'evaluate', str(folder)]
    command += ['--lesion-free'] if args.labels == 'none' else [args.labels]
    labels = [label(model, folder) for model in args.models]
    command += ['--model', *labels, '--output', str(table)]
    if args.participants:
        command += ['--participant-label', *args.participants]
    if args.figures:
        command += ['--figures', str(args.out / f'figures-{folder.name}')]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with open(table, encoding='utf-8', newline='') as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


def shown(value: str | float) -> str:
    """A number with three decimals, anything else as it is."""
    known = number(value)
    return str(value) if known is None else f'{known:.3f}'


def number(value: str | float) -> float | None:
    """A cell as a number; None where it is none."""
    try:
        return float(value)
    except ValueError:
        return None


def mean_of(rows: list[dict[str, str]], columns: list[str]) -> dict[str, str | float]:
    """The means of the cases of one model."""
    found: dict[str, str | float] = {'participant_id': 'mean'}
    for column in columns[1:]:
        known = [value for row in rows if (value := number(row[column])) is not None]
        found[column] = sum(known) / len(known) if known else ''
    return found


def main() -> None:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('dataset', type=Path)
    parser.add_argument('labels', help='dataset of masks, or none')
    parser.add_argument('out', type=Path)
    parser.add_argument('--models', nargs='+', default=['fast-3t', 'committee-3t'])
    parser.add_argument('--contrasts', nargs='+', default=['flair', 'flair,t1w', 'all'])
    parser.add_argument('--participants', nargs='+', default=[])
    parser.add_argument('--figures', action='store_true')
    args = parser.parse_args()
    if args.figures and args.labels == 'none':
        parser.error('--figures shows masks beside labels: give a dataset of masks for LABELS')
    lines: list[list[str]] = []
    for contrasts in args.contrasts:
        for model in args.models:
            folder = segment(args, contrasts, model)
        rows = evaluate(args, folder)
        columns = [name for name in COLUMNS if name in rows[0]]
        if not lines:
            lines.append(['contrasts', 'model', *(COLUMNS[name] for name in columns)])
            lines.append(['---'] * len(lines[0]))
        for model in args.models:
            own = [row for row in rows if row['model'] == label(model, folder)]
            every = [*own, mean_of(own, columns)] if len(own) > 1 else own
            lines += [[contrasts, model, *(shown(row[c]) for c in columns)] for row in every]
    for line in lines:
        print('| ' + ' | '.join(line) + ' |')


if __name__ == '__main__':
    main()
