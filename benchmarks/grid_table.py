"""The results of the grid of starts and strategies (``ssl2_grid.py``) as Markdown."""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ssl2_bids.files import whole_file
from ssl2_bids.metrics.score_names import SCORES

NOTHING, SUPERVISED = 'none', 'supervised'
CELL = ('start', 'strategy', 'labelled', 'density', 'seed', 'steps', 'learning_rate')
GROUP = ('start', 'labelled', 'density', 'strategy', 'share')  # what a line of the table is of
# what a result depends on beside its cell; empty where it does not, or where it is not known
SETTINGS = ('model', 'architecture', 'patch', 'batch', 'twin')
COLUMNS = (*CELL, 'share', 'participant', *SCORES, 'seconds', *SETTINGS)
RESAMPLES = 2000  # of the bootstrap

Rows = list[dict[str, str]]


def read_rows(path: Path) -> Rows:
    """The results so far; settings that an earlier version did not store are empty."""
    if not path.is_file():
        return []
    with open(path, encoding='utf-8', newline='') as stream:
        return [dict.fromkeys(SETTINGS, '') | row for row in csv.DictReader(stream)]


def write_rows(rows: Rows, path: Path) -> None:
    """Write all results, whole or not at all."""
    with whole_file(path) as temporary, open(temporary, 'w', newline='') as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def check_settings(
    rows: Rows,
    asked: Mapping[tuple[str, str], Mapping[str, str]],
    defaults: Mapping[str, str],
    path: Path,
) -> None:
    """Refuse a file with a result that was made with other settings than those of a run.

    Parameters
    ----------
    rows : all results of the file.
    asked : by start and strategy, the settings of the run; an empty one is not asked.
    defaults : what a result without settings counts as made with; one not in it may be any.
    path : of the file, for the message.

    Raises
    ------
    SystemExit : the first such result, with both settings.
    """
    for row in rows:
        for name, value in asked[row['start'], row['strategy']].items():
            made = row[name] or defaults.get(name, value)
            if value and made != value:
                counts = 'was' if row[name] else 'has no settings, and counts as'
                sys.exit(
                    f'{path}: {" ".join(row[n] for n in CELL)} {counts} made with another {name} '
                    f'({made}, not {value}); choose another file for --results'
                )


def show_table(paths: list[Path]) -> None:
    """The results as Markdown: means over people of the test, and how far seeds differ."""
    rows = [row for path in paths for row in read_rows(path)]
    steps = sorted({(row['steps'], row['learning_rate']) for row in rows} - {('0', '0')})
    for chosen in steps:
        print(f'\n{chosen[0]} steps, learning rate {chosen[1]}\n')
        names = ('start', 'labelled', 'slices', 'strategy', 'share', 'seeds', 'Dice',
                 'minus no training', 'minus supervised')  # fmt: skip
        print(f'| {" | ".join(names)} | lesion F1 |\n|{" --- |" * (len(names) + 1)}')
        groups: dict[tuple[str, ...], Rows] = defaultdict(list)
        for row in rows:
            if (row['steps'], row['learning_rate']) in (chosen, ('0', '0')):
                groups[tuple(row[n] for n in GROUP)] += [row]
        for key, own in sorted(groups.items(), key=in_order):
            start, labelled, density, strategy, share = key
            untrained = groups.get((start, '0', '0', NOTHING, '0'), [])
            base = groups.get((start, labelled, density, SUPERVISED, share), [])
            check_alike([*own, *base, *untrained])
            slices = f'{float(density):.0%}' if strategy != NOTHING else ''
            cell = f'| {start} | {labelled} | {slices} | {strategy} | {share} '
            means = [by_seed(own, metric) for metric in ('dice', 'lesion_f1')]
            seeds = len(means[0]) if strategy != NOTHING else ''
            spread = f' ± {means[0].std(ddof=1):.3f}' if len(means[0]) > 1 else ''
            print(
                f'{cell}| {seeds} | {means[0].mean():.3f}{spread} | {difference(own, untrained)} '
                f'| {difference(own, base)} | {means[1].mean():.3f} |'
            )


def check_alike(rows: Rows) -> None:
    """Refuse a line whose results, or those that it is compared with, differ in their settings."""
    for name in SETTINGS:
        if len(values := sorted({row[name] for row in rows} - {''})) > 1:
            group = ' '.join(rows[0][n] for n in GROUP)
            sys.exit(f'{group}: results of different settings ({name}: {", ".join(values)})')


def in_order(group: tuple[tuple[str, ...], Rows]) -> tuple[str, int, float, int, str, float]:
    """By start, labelled people and density; no training first, then supervised."""
    start, labelled, density, strategy, share = group[0]
    first = (NOTHING, SUPERVISED)
    place = first.index(strategy) if strategy in first else len(first)
    return start, int(labelled), float(density), place, strategy, float(share)


def by_seed(rows: Rows, metric: str) -> np.ndarray:
    """Means over the people of the test, one for each seed."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        values[row['seed']].append(float(row[metric]))
    return np.array([np.nanmean(numbers) for numbers in values.values()])


def difference(rows: Rows, base: Rows) -> str:
    """Mean difference of Dice to the same seeds and people, with a 95 % bootstrap interval.

    Seeds and people are drawn again, each as a whole. What was not trained is the same for all
    seeds.
    """
    first = {(row['seed'], row['participant']): float(row['dice']) for row in rows}
    second = {(row['seed'], row['participant']): float(row['dice']) for row in base}
    if base and base[0]['strategy'] == NOTHING:
        known = {row['participant']: float(row['dice']) for row in base}
        second = {key: known[key[1]] for key in first}
    if rows is base or not first.keys() <= second.keys():
        return ''
    seeds, people = (sorted({key[part] for key in first}) for part in (0, 1))
    gain = np.array([[first[s, p] - second[s, p] for p in people] for s in seeds])
    random = np.random.default_rng(0)
    drawn = [
        gain[np.ix_(*(random.integers(size, size=size) for size in gain.shape))].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f'{gain.mean():+.3f} ({low:+.3f} to {high:+.3f})'
