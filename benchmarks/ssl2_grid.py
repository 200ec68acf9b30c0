"""The grid of starts, strategies, numbers of labelled people and densities, on simulated 7T scans.

    ssl2-bids site out participant                        # people to train with
    python benchmarks/ssl2_grid.py pack site out people
    ssl2-bids further out2 participant                    # others, to test on
    python benchmarks/ssl2_grid.py pack further out2 test
    python benchmarks/ssl2_grid.py run people test --results grid.csv
    python benchmarks/ssl2_grid.py table grid.csv

``pack`` brings all people onto the network's grid (1 mm), with the truth, in about 4 MB each; what
comes after needs no imaging software beside nibabel, so the folders can move to a machine with a
GPU. ``run`` trains one cell after another; a cell that stands in the results is not done again, so
it can be stopped at any time (results of another model, patch, batch or twin are refused), and
``--part 1/8`` to ``--part 8/8`` with a file of results each share the cells among processes. Small
by default; the whole of it is::

    --start sup-3t=fast-3t --start selfsup-3t=FOLDER --start scratch
    --strategies supervised mean_teacher fixmatch bcp cps --labelled 1 2 4 --density 1 0.1
    --seeds 0 1 2

The strategy ``twin`` needs labelled people of a scanner twin, packed too::

    ssl2-bids site-scans out group --strategy twin        # fits models/adapted/twin.toml
    ssl2 simulate twin --protocol out/models/adapted/twin.toml
    ssl2-bids twin out3 participant
    python benchmarks/ssl2_grid.py pack twin out3 twins
    python benchmarks/ssl2_grid.py run people test --twin twins --strategies supervised twin ...

Rules: labelled sets are nested in a seed (1 in 2 in 4), so that curves are paired; the unlabelled
pool is always all training people; steps, patches, augmentation and optimiser are those of every
cell; no labelled scan beside those of the cell decides anything: a fixed schedule and the last
averaged weights. Two bounds are added: each start without any training (strategy none), and all
training people labelled wholly. A network is tested with its trained weights and, as in an
adaptation, half-way to them (share 0.5) where the start marks lesions already. The labels are the
truth of the simulation, and scores are taken on the network's grid. The numbers show how the
methods compare on simulated scans: nothing about patients.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import grid_table
import numpy as np
import torch
from grid_table import CELL, NOTHING, SETTINGS, SUPERVISED, Rows
from torch import nn

from ssl2_bids.metrics import lesionwise, voxelwise
from ssl2_bids.metrics.score_names import SCORES
from ssl2_bids.networks.calibration import calibrate
from ssl2_bids.networks.cards import LESION, Card
from ssl2_bids.networks.weights import build_network, find_model, initialise, read_weights
from ssl2_bids.settings import ADAPTATION, GroupSettings
from ssl2_bids.steps.lesions import label_instances
from ssl2_bids.synthesis.appearance import CHANNELS
from ssl2_bids.training.adaptation.adapt import AdaptSettings, adapt, between, patch_for
from ssl2_bids.training.adaptation.decision import SHARES
from ssl2_bids.training.adaptation.left_out import probability_of
from ssl2_bids.training.checkpoint import fingerprint
from ssl2_bids.training.data.participants import (
    Participant,
    intensities,
    load_scans,
    save_scan,
    stack_channels,
    to_bytes,
)
from ssl2_bids.training.data.views import AXIAL

SCRATCH, TWIN = 'scratch', 'twin'
ARCHITECTURE = 'fast-3t'  # a single network: the default model is a committee


@dataclass(frozen=True)
class Cell:
    """One training; ``labelled`` people are annotated in a share ``density`` of their slices."""

    start: str
    strategy: str
    labelled: int
    density: float
    seed: int
    steps: int
    learning_rate: float

    @property
    def key(self) -> tuple[str, ...]:
        """As it stands in the results."""
        values = (getattr(self, name) for name in CELL)
        return tuple(v if isinstance(v, str) else f'{v:g}' for v in values)


@dataclass(frozen=True)
class Grid:
    """What is equal in all cells."""

    card: Card
    people: tuple[Participant, ...]
    test: tuple[Participant, ...]
    twin: tuple[Participant, ...]  # labelled, simulated by a protocol fitted to the people
    starts: dict[str, str]
    settings: AdaptSettings
    work: Path
    device: str


def cells(options: argparse.Namespace, starts: dict[str, str], people: int) -> Iterator[Cell]:
    """All cells, seed by seed, so that what is there when it is stopped can be compared."""
    trained = (options.steps, options.learning_rate)
    for start, model in starts.items():
        if options.bound and start != SCRATCH and segments(model, options.work):
            yield Cell(start, NOTHING, 0, 0, 0, 0, 0)
    for seed, start in itertools.product(options.seeds, starts):
        if options.bound:
            yield Cell(start, SUPERVISED, people, 1, seed, *trained)
        for labelled, density, strategy in itertools.product(
            options.labelled, options.density, options.strategies
        ):
            yield Cell(start, strategy, labelled, density, seed, *trained)


def segments(model: str, work: Path) -> bool:
    """Whether a model marks lesions: one that has learnt without labels gives an image."""
    return find_model(model, work).content.get('Output', LESION) == LESION


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


def settings_of(grid: Grid, start: str, strategy: str) -> dict[str, str]:
    """What results depend on beside their cell, as it stands there; empty: not known."""
    found = dict.fromkeys(SETTINGS, '') | {'architecture': grid.card.name}
    if start != SCRATCH and start in grid.starts:
        model = find_model(grid.starts[start], grid.work)
        found['model'] = f'{model.name} {fingerprint(model.identity)}'
    if strategy != NOTHING:
        found['patch'] = ' '.join(map(str, grid.settings.patch))
        found['batch'] = f'{grid.settings.labelled} {grid.settings.unlabelled}'
    if strategy == TWIN and grid.twin:
        digest = hashlib.sha256()
        for person in grid.twin:
            digest.update(np.ascontiguousarray(person.image).tobytes())
            digest.update((np.asarray(person.label) > 0).tobytes())
        found['twin'] = digest.hexdigest()[:16]
    return found


def defaults_of(grid: Grid) -> dict[str, str]:
    """The settings of results of an earlier version, which did not store them."""
    preset, multiple = ADAPTATION['cpu'], grid.card.network.get('Multiple', 1)
    return {
        'architecture': find_model(ARCHITECTURE, grid.work).name,
        'patch': ' '.join(map(str, patch_for(grid.card.window, multiple, preset.patch))),
        'batch': f'{preset.labelled} {preset.unlabelled}',
    }


def people_of(grid: Grid, cell: Cell) -> list[Participant]:
    """All people of the training; the first of the seed's order are labelled."""
    random = np.random.default_rng(cell.seed)
    order, offsets = random.permutation(len(grid.people)), random.random(len(grid.people))
    chosen = set(order[: cell.labelled].tolist())
    people = [
        sparse(person, cell.density, float(offsets[number]))
        if number in chosen
        else replace(person, label=None, annotated=None)
        for number, person in enumerate(grid.people)
    ]
    return people + list(grid.twin if cell.strategy == TWIN else ())


def network_of(grid: Grid, cell: Cell) -> nn.Module:
    """The network that a cell starts from."""
    network = build_network(grid.card, seed=cell.seed)
    if cell.start != SCRATCH:
        given = find_model(grid.starts[cell.start], grid.work)
        initialise(network, read_weights(given), minimum_share=0.5)
    return network


def run_cell(grid: Grid, cell: Cell) -> Rows:
    """Train and test; a row for each person of the test and share of the change of the weights."""
    began, start = time.monotonic(), network_of(grid, cell)
    networks, made_with = {0.0: start}, settings_of(grid, cell.start, cell.strategy)
    if cell.strategy != NOTHING:
        settings = replace(grid.settings, strategy=cell.strategy, seed=cell.seed)
        people = people_of(grid, cell)
        key = fingerprint([cell.key, made_with, settings, [person.name for person in people]])
        trained, history = adapt(
            start,
            people,
            settings,
            grid.work / 'cells' / key,
            device=grid.device,
            identity=key,
        )
        if not history.finished:
            sys.exit(f'stopped after step {history.step}; run the same command again to resume')
        for path in (grid.work / 'cells' / key).glob('checkpoint-*'):
            path.unlink()
        # half-way from what marks no lesions is no model
        marks = cell.start != SCRATCH and segments(grid.starts[cell.start], grid.work)
        shares = tuple(SHARES.values()) if marks else (1.0,)
        networks = {share: between(start, trained, share) for share in shares}
    seconds = time.monotonic() - began
    identity = dict(zip(CELL, cell.key, strict=True)) | made_with
    return [
        {**identity, 'share': f'{share:g}', 'participant': person.name}
        | tested(network.to(grid.device).eval(), person, grid)
        | {'seconds': f'{seconds:.1f}'}
        for share, network in networks.items()
        for person in grid.test
    ]


def tested(network: nn.Module, person: Participant, grid: Grid) -> dict[str, str]:
    """Scores of one person of the test, on the network's grid of 1 mm."""
    truth = np.asarray(person.label) > 0
    windows = 1 if grid.device == 'cpu' else 8
    probability = calibrate(
        probability_of(network, person, grid.card, grid.device, batch_size=windows),
        grid.card.calibration,
    )
    least = {'voxel_volume': 1.0, 'minimum_volume': grid.card.minimum_lesion_volume}
    found = label_instances(probability >= grid.card.threshold, **least)
    lesions = lesionwise.any_overlap(label_instances(truth, **least), found)
    values = {
        'dice': voxelwise.dice(truth, found > 0),
        'lesion_f1': lesions.f1,
        'lesion_sensitivity': lesions.sensitivity,
        'lesion_precision': lesions.precision,
        'volume_bias': voxelwise.volume_error(truth, found > 0),
    }
    return {name: f'{values[name]:.5f}' for name in SCORES}


def as_participant(scan: Participant, channels: Sequence[str]) -> Participant:
    """A prepared scan in a network's channels, in half precision as an adaptation has it."""
    chosen = [CHANNELS.index(channel) for channel in channels]
    present = tuple(scan.present[number] for number in chosen)
    return replace(scan, image=intensities(scan.image[chosen]).half().numpy(), present=present)


def pack(options: argparse.Namespace) -> None:
    """All people of a dataset, with the truth, into one small file each."""
    # here, for they need imaging software
    from ssl2_bids.bids.outputs import find_results
    from ssl2_bids.workflows.adaptation.cases import find_cases
    from ssl2_bids.workflows.adaptation.prepare import prepare
    from ssl2_bids.workflows.adaptation.read_labels import read_labels

    root = options.bids_dir.absolute()
    settings = GroupSettings(
        root,
        options.output_dir.absolute(),
        options.folder.absolute(),
        labels=(options.labels or root / 'derivatives' / 'truth',),
        empty_labels='negative',
    )
    found = find_cases(settings, find_results(settings.output_dir))
    read = read_labels(found, settings)
    cases, annotations = read.cases, read.annotations
    card = find_model(options.architecture, settings.output_dir)
    options.folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        if case.name not in annotations:
            continue
        folder = options.folder / 'prepared' / case.name
        person = prepare(case, annotations[case.name], card, folder).read()
        pairs = zip(card.channels, person.image, person.present, strict=True)
        brain = person.brain > 0
        assert person.label is not None
        assert person.annotated is not None
        images = {name: to_bytes(image, image != 0) for name, image, there in pairs if there}
        scan = Participant(
            case.name,
            *stack_channels(images),
            brain=brain,
            label=person.label > 0,
            annotated=person.annotated > 0,
            person=case.participant,
        )
        save_scan(options.folder, scan)
        sys.stderr.write(f'{case.name}\n')


def run(options: argparse.Namespace) -> None:
    """Run what is missing of the grid."""
    starts = dict(text.partition('=')[::2] for text in options.start or [SCRATCH])
    card = find_model(options.architecture, options.work)
    people, test, twin = (
        tuple(as_participant(scan, card.channels) for scan in load_scans(folder)) if folder else ()
        for folder in (options.people, options.test, options.twin)
    )
    if TWIN in options.strategies and not twin:
        sys.exit('the strategy twin needs labelled people of a twin: --twin')
    twin = tuple(replace(p, name=f'twin-{p.name}', simulated=True) for p in twin)
    if not test or len(people) < max(options.labelled):
        sys.exit(f'{len(people)} people to train with and {len(test)} to test on are too few')
    training = AdaptSettings(
        strategy=SUPERVISED,
        steps=options.steps,
        learning_rate=options.learning_rate,
        patch=patch_for(card.window, card.network.get('Multiple', 1), options.patch),
        labelled=options.batch[0],
        unlabelled=options.batch[1],
        checkpoint_minutes=1,
    )
    grid = Grid(card, people, test, twin, starts, training, options.work, options.device)
    rows = grid_table.read_rows(options.results)
    asked = {
        kind: settings_of(grid, *kind) for kind in {(r['start'], r['strategy']) for r in rows}
    }
    grid_table.check_settings(rows, asked, defaults_of(grid), options.results)
    done = {tuple(row[name] for name in CELL) for row in rows}
    number, of = (int(text) for text in options.part.split('/'))
    for cell in list(cells(options, starts, len(people)))[number - 1 :: of]:
        if cell.key in done:
            continue
        torch.manual_seed(cell.seed)
        rows += run_cell(grid, cell)
        done.add(cell.key)
        grid_table.write_rows(rows, options.results)
        dice = np.mean([float(row['dice']) for row in rows[-len(test) :]])
        sys.stderr.write(f'{" ".join(cell.key)}: Dice {dice:.3f}, {rows[-1]["seconds"]} s\n')


def main(argv: list[str] | None = None) -> int:
    """Pack, run or print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    tasks = parser.add_subparsers(required=True)

    pack_parser = tasks.add_parser('pack', help='people of a dataset into small files')
    pack_parser.add_argument('bids_dir', type=Path)
    pack_parser.add_argument('output_dir', type=Path, help='after the participant level')
    pack_parser.add_argument('folder', type=Path, help='of the small files')
    pack_parser.add_argument('--labels', type=Path, help='default: BIDS_DIR/derivatives/truth')
    pack_parser.add_argument('--architecture', default=ARCHITECTURE,
                             help='model whose grid and channels are taken')  # fmt: skip
    pack_parser.set_defaults(task=pack)

    running = tasks.add_parser('run', help='run what is missing of the grid')
    running.add_argument('people', type=Path, help='packed, to train with')
    running.add_argument('test', type=Path, help='packed, to test on')
    running.add_argument('--twin', type=Path, help='packed, of a scanner twin, for its strategy')
    running.add_argument('--start', action='append', default=[], metavar='NAME[=MODEL]',
                         help='scratch, or a name and a model to start from')  # fmt: skip
    running.add_argument('--architecture', default=ARCHITECTURE,
                         help='model whose card is taken for all cells')  # fmt: skip
    running.add_argument('--strategies', nargs='+', default=[SUPERVISED, 'mean_teacher'])
    running.add_argument('--labelled', nargs='+', type=int, default=[2])
    running.add_argument('--density', nargs='+', type=float, default=[1.0])
    running.add_argument('--seeds', nargs='+', type=int, default=[0])
    running.add_argument('--no-bound', dest='bound', action='store_false',
                         help='leave out the two bounds')  # fmt: skip
    preset = ADAPTATION['cpu']
    running.add_argument('--steps', type=int, default=preset.steps)
    running.add_argument('--learning-rate', type=float, default=GroupSettings.learning_rate)
    running.add_argument('--patch', type=int, default=preset.patch, help='edge, voxels')
    running.add_argument('--batch', type=int, nargs=2, metavar=('LABELLED', 'UNLABELLED'),
                         default=[preset.labelled, preset.unlabelled],
                         help='patches of a step')  # fmt: skip
    running.add_argument('--device', default='cpu')
    running.add_argument('--part', default='1/1', metavar='I/N', help='every N-th cell')
    running.add_argument('--work', type=Path, default=Path('grid-work'))
    running.add_argument('--results', type=Path, required=True)
    running.set_defaults(task=run)

    printing = tasks.add_parser('table', help='results as Markdown')
    printing.add_argument('results', type=Path, nargs='+')
    printing.set_defaults(task=lambda options: grid_table.show_table(options.results))

    options = parser.parse_args(argv)
    options.task(options)
    return 0


if __name__ == '__main__':
    sys.exit(main())
