"""The grid of starts, strategies, numbers of labelled people and densities, on simulated 7T scans.

    ssl2 simulate data --subjects 16 --field 7
    ssl2-bids data out participant
    python benchmarks/ssl2_grid.py data out --test 13 14 15 16 --results grid.csv

Each cell is a training; a cell that stands in the results is not done again, so the grid can be
stopped at any time. Small by default; the whole of it is::

    --start scratch --start selfsup-3t=FOLDER --start sup-3t=fast-3t
    --strategies supervised mean_teacher fixmatch bcp cps --labelled 1 2 4 --density 1 0.1
    --seeds 0 1 2

Rules: labelled sets are nested in a seed (1 in 2 in 4), so that curves are paired; the unlabelled
pool is always all training people; steps, patches, augmentation and optimiser are those of every
cell; no labelled scan beside those of the cell decides anything: a fixed schedule and the last
averaged weights. Two bounds are added: each start without any training (strategy none), and all
training people labelled wholly. The labels are the truth of the simulation, and the numbers say
how the methods compare on simulated scans: nothing about patients.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ssl2_bids.bids.outputs import find_results
from ssl2_bids.files import whole_file
from ssl2_bids.networks.cards import Card
from ssl2_bids.networks.weights import build_network, find_model, initialise, read_weights
from ssl2_bids.settings import ADAPTATION, GroupSettings
from ssl2_bids.steps.annotation import Annotation
from ssl2_bids.training.adapt import AdaptSettings, adapt, patch_for
from ssl2_bids.training.checkpoint import fingerprint
from ssl2_bids.training.views import AXIAL, Participant
from ssl2_bids.workflows.adaptation_cache import Prepared, prepare
from ssl2_bids.workflows.adaptation_labels import find_cases, read_labels
from ssl2_bids.workflows.adaptation_scores import METRICS, probability_of, score

SCRATCH, NOTHING = 'scratch', 'none'
COLUMNS = ('start', 'strategy', 'labelled', 'density', 'seed', 'participant', *METRICS, 'seconds')


@dataclass(frozen=True)
class Cell:
    """One training; ``labelled`` people are annotated in a share ``density`` of their slices."""

    start: str
    strategy: str
    labelled: int
    density: float
    seed: int

    @property
    def key(self) -> tuple[str, ...]:
        """As it stands in the results."""
        return (self.start, self.strategy, str(self.labelled), f'{self.density:g}', str(self.seed))


@dataclass(frozen=True)
class Grid:
    """What is equal in all cells."""

    card: Card
    people: tuple[Prepared, ...]
    test: tuple[Prepared, ...]
    annotations: dict[str, Annotation]
    starts: dict[str, str]
    settings: AdaptSettings
    work: Path
    device: str


def cells(options: argparse.Namespace, starts: Sequence[str], people: int) -> Iterator[Cell]:
    """All cells, seed by seed, so that what is there when it is stopped can be compared."""
    for seed in options.seeds:
        for start in starts:
            yield Cell(start, NOTHING, 0, 0, seed)
            yield Cell(start, 'supervised', people, 1, seed)
            for labelled, density, strategy in itertools.product(
                options.labelled, options.density, options.strategies
            ):
                yield Cell(start, strategy, labelled, density, seed)


def sparse(participant: Participant, density: float, offset: float) -> Participant:
    """Annotated in every n-th axial slice of the brain alone; ``offset`` from 0 to 1."""
    if density >= 1:
        return participant
    brain = np.asarray(participant.brain) > 0
    filled = np.flatnonzero(brain.any(axis=(0, 1)))
    every = round(1 / density)
    kept = np.zeros(brain.shape[AXIAL], bool)
    kept[filled[0] + int(offset * every) : filled[-1] + 1 : every] = True
    annotated = (np.asarray(participant.annotated) > 0) & kept
    label = (np.asarray(participant.label) > 0) & kept
    return replace(participant, label=label.astype(np.uint8), annotated=annotated.astype(np.uint8))


def people_of(grid: Grid, cell: Cell) -> list[Participant]:
    """Everybody of the training; the first of the seed's order are labelled."""
    random = np.random.default_rng(cell.seed)
    order, offsets = random.permutation(len(grid.people)), random.random(len(grid.people))
    chosen = set(order[: cell.labelled].tolist())
    found = []
    for number, one in enumerate(grid.people):
        person = one.read()
        if number in chosen:
            found.append(sparse(person, cell.density, float(offsets[number])))
        else:
            found.append(replace(person, label=None, annotated=None))
    return found


def network_of(grid: Grid, cell: Cell) -> nn.Module:
    """The network that a cell starts from."""
    network = build_network(grid.card, seed=cell.seed)
    if cell.start != SCRATCH:
        given = find_model(grid.starts[cell.start], grid.work)
        initialise(network, read_weights(given), minimum_share=0.5)
    return network


def run_cell(grid: Grid, cell: Cell) -> list[dict[str, object]]:
    """Train and test; one row for each person of the test."""
    began, network = time.monotonic(), network_of(grid, cell)
    if cell.strategy != NOTHING:
        settings = replace(grid.settings, strategy=cell.strategy, seed=cell.seed)
        key = fingerprint([cell.key, settings, [one.case.name for one in grid.people]])
        folder = grid.work / 'cells' / key
        network, history = adapt(
            network, people_of(grid, cell), settings, folder, device=grid.device, identity=key
        )
        if not history.finished:
            sys.exit(f'stopped after step {history.step}; the same command goes on')
    seconds = round(time.monotonic() - began, 1)
    rows: list[dict[str, object]] = []
    network.to(grid.device)
    for one in grid.test:
        scores = score(
            probability_of(network, one, grid.card, grid.device),
            one,
            grid.annotations[one.case.name],
            threshold=grid.card.threshold,
            minimum_volume=grid.card.minimum_lesion_volume,
        )
        values = {name: f'{getattr(scores, name):.5f}' for name in METRICS}
        identity = dict(zip(COLUMNS, cell.key, strict=False))
        rows.append(
            {**identity, 'participant': one.case.name, **values, 'seconds': f'{seconds:g}'}
        )
    return rows


def read_rows(path: Path) -> list[dict[str, object]]:
    """The results so far."""
    if not path.is_file():
        return []
    with open(path, encoding='utf-8', newline='') as stream:
        return list(csv.DictReader(stream))


def write_rows(rows: list[dict[str, object]], path: Path) -> None:
    """Write all results, whole or not at all."""
    with whole_file(path) as temporary, open(temporary, 'w', newline='') as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def make_grid(options: argparse.Namespace) -> Grid:
    """Prepare everybody for the network of the card."""
    starts = dict(text.partition('=')[::2] for text in options.start)
    settings = GroupSettings(
        options.bids_dir.absolute(),
        options.output_dir.absolute(),
        options.work.absolute(),
        labels=(options.labels or options.bids_dir.absolute() / 'derivatives' / 'truth',),
        empty_labels='negative',
    )
    cases, annotations = read_labels(
        find_cases(settings, find_results(settings.output_dir)), settings
    )
    card = find_model(options.architecture, settings.output_dir)
    made = [
        prepare(case, annotations[case.name], card, options.work / 'people' / case.name)
        for case in cases
        if case.name in annotations
    ]
    test = tuple(one for one in made if one.case.participant in options.test)
    people = tuple(one for one in made if one.case.participant not in options.test)
    if not test or len(people) < max(options.labelled):
        sys.exit(f'{len(people)} people to train with and {len(test)} to test on are too few')
    preset = ADAPTATION[options.device.partition(':')[0]]
    multiple = card.network.get('Multiple', 1)
    training = AdaptSettings(
        strategy='supervised',
        steps=options.steps or preset.steps,
        learning_rate=options.learning_rate,
        patch=patch_for(card.window, multiple, preset.patch),
        labelled=preset.labelled,
        unlabelled=preset.unlabelled,
    )
    return Grid(card, people, test, annotations, starts, training, options.work, options.device)


def main(argv: list[str] | None = None) -> int:
    """Run what is missing of the grid."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('bids_dir', type=Path)
    parser.add_argument('output_dir', type=Path, help='after the participant level')
    parser.add_argument('--labels', type=Path, help='default: BIDS_DIR/derivatives/truth')
    parser.add_argument('--test', nargs='+', required=True, help='participants never trained on')
    parser.add_argument('--start', action='append', default=[], metavar='NAME[=MODEL]',
                        help='scratch, or a name and a model to start from')  # fmt: skip
    parser.add_argument('--architecture', help='model whose card is taken for all cells')
    parser.add_argument('--strategies', nargs='+', default=['supervised', 'mean_teacher'])
    parser.add_argument('--labelled', nargs='+', type=int, default=[2])
    parser.add_argument('--density', nargs='+', type=float, default=[1.0])
    parser.add_argument('--seeds', nargs='+', type=int, default=[0])
    parser.add_argument('--steps', type=int)
    parser.add_argument('--learning-rate', type=float, default=5e-4)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--work', type=Path, default=Path('grid-work'))
    parser.add_argument('--results', type=Path, required=True)
    options = parser.parse_args(argv)
    options.start = options.start or [SCRATCH]
    grid = make_grid(options)
    rows = read_rows(options.results)
    done = {tuple(str(row[name]) for name in COLUMNS[:5]) for row in rows}
    torch.manual_seed(0)
    for cell in cells(options, list(grid.starts), len(grid.people)):
        if cell.key in done:
            continue
        rows += run_cell(grid, cell)
        done.add(cell.key)
        write_rows(rows, options.results)
        dice = np.mean([float(str(row['dice'])) for row in rows[-len(grid.test) :]])
        sys.stderr.write(f'{" ".join(cell.key)}: Dice {dice:.3f}\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
