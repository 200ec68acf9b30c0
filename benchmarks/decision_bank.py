#!/usr/bin/env python3
"""How often the decision of an adaptation is wrong, over a bank of simulated sites.

    python benchmarks/decision_bank.py BANK [--labels LABEL_MAPS] [--lesion-masks MASKS]
    python benchmarks/decision_bank.py BANK --draws 4 [--labels ...]
    python benchmarks/decision_bank.py BANK --draws 1 --train [--labels ...]
    python benchmarks/decision_bank.py BANK --draws 4 --single [--labels ...]
    python benchmarks/decision_bank.py BANK --table

Each site is simulated, segmented, and adapted as by ``ssl2-bids ... group --labels``: all rungs,
tested out of fold. Then the final model of every rung is compared with the start model on further
people, who are in no step and whose truth is known. The bank is made of four scanners and six
kinds of labels (``SITES``); at four sites each label is that of another person: no rung should be
used there.

``--draws N`` makes many sites without a training, in minutes: a pool of twelve people for each
scanner, of whom N times for each kind of labels other ones are labelled; all others are the
further people. The recalibration is the one rung then; with ``--train`` there are all rungs, and
some of the others are people without labels. Draws of one pool share people, so they are not
independent. ``--single`` labels each of the twelve alone in turn, wholly, in five
neighbouring slices at three places, and in slices that lie apart, and tests on slices.
``--pools 0 2`` makes and counts those of some scanners alone.

A site that is finished is a JSON file in BANK and is not made again; one that was stopped resumes.
Its images are removed when it is finished. The file has the settings that its scores depend on; a
bank with a file of other ones is refused. ``--table`` prints what the sites that are there give:
how often a rule keeps a model that is worse on further people, and refuses where a rung is better.

    lowest within 1 SE   the rule of the App: of the better rungs the lowest within one standard
                         error of the best
    out of fold alone    the same, without the scores on the labels of a recalibration's fit
    any increase         that, without a least gain
    highest              the former rule: of the better rungs that with the highest Dice
    always the last      the highest rung that was tested, whatever the test gives
    any threshold        (one labelled person) the rule of the App, without its condition on
                         lower thresholds
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bank_labels import PLACES, SLICES, Labels, keep_slices, put_labels, put_masks
from decision_rules import RULES, SINGLE_RULES, table_of

from ssl2_bids.bids.outputs import find_results
from ssl2_bids.files import write_json
from ssl2_bids.settings import RECALIBRATED, GroupSettings, ParticipantSettings
from ssl2_bids.training.adaptation import adapt as training
from ssl2_bids.training.adaptation.decision import SHARES
from ssl2_bids.training.adaptation.recalibration import Recalibration
from ssl2_bids.workflows.adaptation import ladder, predictions, untrained
from ssl2_bids.workflows.adaptation import run as running
from ssl2_bids.workflows.adaptation import scores as scoring
from ssl2_bids.workflows.adaptation.plan import plan_adaptation
from ssl2_bids.workflows.adaptation.run import FINAL
from ssl2_bids.workflows.adaptation.state import Work, begin, train_one
from ssl2_bids.workflows.adaptation.untrained import Rung
from ssl2_bids.workflows.participant.run import run_participant_level
from ssl2_bids.workflows.simulation.run import simulate

FIRST_SEED = 5000  # of no other site of the docs
FIRST_POOL = 6000
POOL = 12  # people of a pool
UNLABELLED = 3  # people of the training without labels
# options that scores depend on, by kind of sites; and what files without them were made with
DEFAULTS = {'model': 'fast-3t', 'steps': 100, 'further': 6, 'unlabelled': UNLABELLED}
SETTINGS = {
    'site': tuple(DEFAULTS),
    'draw': ('model',),
    'trained': ('model', 'steps', 'further'),
    'single': ('model',),
}
UNSHIMMED = Path(__file__).parent / 'unshimmed-7t.toml'
SCANNERS: dict[str, dict[str, Any]] = {
    '1.5T FLAIR': {'field': 1.5, 'contrasts': ('FLAIR',)},
    '3T FLAIR': {'field': 3.0, 'contrasts': ('FLAIR',)},
    '3T T1w FLAIR': {'field': 3.0, 'contrasts': ('T1w', 'FLAIR')},
    '7T unshimmed': {'protocol': UNSHIMMED, 'contrasts': ('UNIT1', 'FLAIR')},
}


LABELS = (
    Labels(2), Labels(3), Labels(4), Labels(3, sparse=True), Labels(2, exact=True),
    Labels(3, shuffled=True),
)  # fmt: skip
SINGLES = Labels(1), Labels(1, neighbours=5), Labels(1, sparse=True)
SITES = [(scanner, labels) for labels in LABELS for scanner in SCANNERS]


def make_site(number: int, bank: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Simulate, segment and adapt; the scores of all rungs, out of fold and on further people."""
    scanner, labels = SITES[number]
    root = bank / f'site-{number:02d}'
    raw, out = root / 'raw', root / 'out'
    everyone = labels.people + given.unlabelled + given.further
    simulate(
        raw, subjects=everyone, seed=FIRST_SEED + number, labelled=labels.people,
        sparse=SLICES if labels.sparse else 1.0, encoding='slices' if labels.sparse else 'mask',
        labels=given.labels, lesion_masks=given.lesion_masks, nprocs=given.nprocs,
        **SCANNERS[scanner],
    )  # fmt: skip
    shared = {'nprocs': given.nprocs, 'omp_nthreads': given.nprocs, 'device': given.device}
    code, _ = run_participant_level(
        ParticipantSettings(
            raw, out, root / 'work', model=given.model, clean_workdir=False, **shared
        )
    )
    if code:
        raise SystemExit(f'site {number}: the participant level ended with exit code {code}')
    drawn, further = put_labels(raw, root / 'labels', labels, given.further)
    settings = GroupSettings(
        raw, out, root / 'work', labels=(root / 'labels',), holdout=further, steps=given.steps,
        random_seed=number, model=given.model, **shared,
    )  # fmt: skip
    found = adapt_site(settings)
    shown = {field.name: getattr(labels, field.name) for field in fields(labels)}
    return {'Scanner': scanner, 'Labels': shown, 'Labelled': drawn, **found}


def make_pool(number: int, bank: Path, given: argparse.Namespace) -> Path:
    """The people of a scanner, all labelled and segmented; the folder of ``raw`` and ``out``."""
    root = bank / f'pool-{number}'
    raw, out = root / 'raw', root / 'out'
    simulate(
        raw, subjects=POOL, seed=FIRST_POOL + number, labelled=POOL, labels=given.labels,
        lesion_masks=given.lesion_masks, nprocs=given.nprocs,
        **list(SCANNERS.values())[number],
    )  # fmt: skip
    code, _ = run_participant_level(
        ParticipantSettings(
            raw, out, root / 'work', model=given.model, device=given.device,
            nprocs=given.nprocs, omp_nthreads=given.nprocs,
        )
    )  # fmt: skip
    if code:
        raise SystemExit(f'pool {number}: the participant level ended with exit code {code}')
    return root


def make_draw(
    root: Path, kind: int, turn: int, given: argparse.Namespace, *, single: bool
) -> dict[str, Any]:
    """Recalibrate a pool's model on some of its people; scores as of :func:`make_site`."""
    labels = (SINGLES if single else LABELS)[kind]
    raw, folder = root / 'raw', root / f'draw-{kind}-{turn}'
    everyone = sorted(path.name for path in (raw / 'derivatives' / 'truth').glob('sub-*'))
    order = np.random.default_rng((kind, turn)).permutation(everyone).tolist()
    if single:
        one = everyone[turn % POOL]
        order = [one, *(name for name in everyone if name != one)]
    drawn, others = sorted(order[: labels.people]), order[labels.people :]
    trains = given.train and not single
    if trains:
        others = others[-given.further :]
    further = put_masks(raw, folder / 'labels', labels, drawn, others)
    if labels.sparse or labels.neighbours:
        for name in drawn:
            keep_slices(folder / 'labels' / name, labels.neighbours, turn // POOL)
    settings = GroupSettings(
        raw, root / 'out', folder / 'work', labels=(folder / 'labels',), holdout=further,
        rung=None if trains else RECALIBRATED, model=given.model, nprocs=given.nprocs,
        omp_nthreads=given.nprocs, device=given.device, steps=given.steps,
        random_seed=len(LABELS) * turn + kind,
    )  # fmt: skip
    found = adapt_site(settings)
    shutil.rmtree(folder)
    shown = {field.name: getattr(labels, field.name) for field in fields(labels)}
    scanner = list(SCANNERS)[int(root.name.rpartition('-')[2])]
    return {'Scanner': scanner, 'Labels': shown, 'Labelled': drawn, **found}


def adapt_site(settings: GroupSettings) -> dict[str, Any]:
    """All rungs of a site: scores out of fold, and those of final models on people held out."""
    adaptation = plan_adaptation(settings, find_results(settings.output_dir))
    assert adaptation is not None
    work = begin(adaptation, print)
    folds = untrained.make_folds(work)
    rungs, before = untrained.test_untrained(work, folds, None)
    trained: Sequence[Rung] = ()
    if work.trains:
        running.settle_time(work, folds)
        trained, _ = running.test_trained(work, folds, before)
    start, first = [], predictions.first_probability(work)
    held = untrained.labelled_of(work, set(work.held))
    for one in held:
        start.append(ladder.score_one(work, one, first, Recalibration())[0])
    found = {}
    for rung in [*rungs[1:], *trained]:
        probability = final_of(work, rung, first)
        after = [ladder.score_one(work, one, probability, rung.recalibration)[0] for one in held]
        found[rung.name] = {
            'Pairs': [
                [
                    pair.participant,
                    *map(known, (*pair.dice, *pair.lesion_f1, pair.fitted, pair.span)),
                ]
                for pair in scoring.pairs_of(rung.rows)
            ],
            'Further': [[a.dice, b.dice] for a, b in zip(start, after, strict=True)],
        }
    return {'Rungs': found}


def known(value: float) -> float | None:
    """A score as JSON has it."""
    return value if math.isfinite(value) else None


def final_of(work: Work, rung: Rung, first: ladder.Probability) -> ladder.Probability:
    """The probabilities of the final model of a rung."""
    if rung.name not in SHARES:
        return first
    layers = running.layers_for(rung.name)
    seen = [one.read() for one in running.seen_of(work, set(), layers)]
    network = train_one(work, FINAL, seen, layers=layers)
    return predictions.of_network(work, training.between(work.network, network, SHARES[rung.name]))


def settings_of(kind: str, given: argparse.Namespace) -> dict[str, Any]:
    """The options that the scores of a kind of sites depend on, by name."""
    return {name: getattr(given, name) for name in SETTINGS[kind]}


def check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a file whose scores were made with other settings.

    A file without settings counts as made with the defaults.
    """
    content = json.loads(path.read_text(encoding='utf-8'))
    if path.name.startswith('single-') and not has_spans(content):
        raise SystemExit(
            f'{path}: an earlier version made it, without the extent of what is annotated; '
            'choose another folder as BANK'
        )
    known = content.get('Settings', {})
    for name, asked in settings.items():
        if (made := known.get(name, DEFAULTS[name])) != asked:
            counts = '' if name in known else 'has no settings, and counts as '
            raise SystemExit(
                f'{path}: {counts}made with --{name} {made}, not {asked}; '
                'choose another folder as BANK'
            )


def has_spans(content: Mapping[str, Any]) -> bool:
    """Whether the entries of a site have all that the decision looks at."""
    pairs = [pair for rung in content['Rungs'].values() for pair in rung['Pairs']]
    return all(len(pair) == 7 for pair in pairs)


def missing_of(kind: str, paths: Iterable[Path], given: argparse.Namespace) -> list[Path]:
    """The files that are not made yet; all files of their kind must have the same settings."""
    for path in sorted(given.bank.glob(f'{kind}-*.json')):
        check_settings(path, settings_of(kind, given))
    return [path for path in paths if not path.is_file()]


def make_sites(given: argparse.Namespace) -> None:
    """Make the sites that are missing."""
    paths = {given.bank / f'site-{number:02d}.json': number for number in given.sites}
    for path in missing_of('site', paths, given):
        number = paths[path]
        print(f'site {number}: {SITES[number]}', flush=True)
        made = make_site(number, given.bank, given)
        write_json(path, made | {'Settings': settings_of('site', given)})
        shutil.rmtree(given.bank / f'site-{number:02d}')


def make_draws(given: argparse.Namespace) -> None:
    """Make the draws that are missing, pool by pool."""
    kind = 'trained' if given.train else 'draw'
    turns = range(given.draws or 0)
    draws = [(kind, labels, turn) for labels in range(len(LABELS)) for turn in turns]
    if given.single:
        draws += [
            ('single', kind, turn)
            for kind, labels in enumerate(SINGLES)
            for turn in range(POOL * (PLACES if labels.neighbours else 1))
        ]
    for number in given.pools:
        paths = {given.bank / '{}-{}-{}-{}.json'.format(draw[0], number, *draw[1:]): draw
                 for draw in draws}  # fmt: skip
        missing = [
            path
            for name in dict.fromkeys(draw[0] for draw in draws)
            for path in missing_of(name, (p for p in paths if paths[p][0] == name), given)
        ]
        if not missing:
            continue
        print(f'pool {number}: {list(SCANNERS)[number]}', flush=True)
        root = make_pool(number, given.bank, given)
        for path in missing:
            name, labels, turn = paths[path]
            made = make_draw(root, labels, turn, given, single=name == 'single')
            write_json(path, made | {'Settings': settings_of(name, given)})
        shutil.rmtree(root)


def main(arguments: list[str] | None = None) -> None:
    """Make what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('bank', type=Path)
    parser.add_argument('--table', action='store_true', help='print the table of what is there')
    parser.add_argument('--draws', type=int, metavar='N', help='sites without a training')
    parser.add_argument('--train', action='store_true', help='all rungs of the draws')
    parser.add_argument('--single', action='store_true', help='one labelled person at a time')
    parser.add_argument('--pools', type=int, nargs='+', default=range(len(SCANNERS)), metavar='N')
    parser.add_argument('--sites', type=int, nargs='+', default=range(len(SITES)), metavar='N')
    parser.add_argument('--labels', type=Path, help='label maps of ssl2 simulate')
    parser.add_argument('--lesion-masks', type=Path, help='lesion masks of ssl2 simulate')
    parser.add_argument('--steps', type=int, help='of each training')
    parser.add_argument('--further', type=int, help='further people of a site')
    parser.add_argument('--unlabelled', type=int, help='people without labels')
    parser.add_argument('--model', help='the start model (fast-3t)')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--nprocs', type=int, default=1)
    parser.set_defaults(**DEFAULTS)
    given = parser.parse_args(arguments)
    if given.train and not given.draws:
        parser.error('--train trains at draws: give --draws N')
    given.bank = given.bank.absolute()  # nodes of the participant level work in other folders
    if given.draws or given.single:
        make_draws(given)
    elif not given.table:
        make_sites(given)
    for kind in ('site', 'draw', 'trained', 'single'):
        pools = ['*'] if kind == 'site' else [f'{number}-*' for number in given.pools]
        done = sorted(path for pool in pools for path in given.bank.glob(f'{kind}-{pool}.json'))
        if done:
            sites = [json.loads(path.read_text(encoding='utf-8')) for path in done]
            first = sites[0].get('Settings', {})
            for path in done:
                check_settings(path, {n: first.get(n, DEFAULTS[n]) for n in SETTINGS[kind]})
            for heading, own in groups_of(kind, sites):
                print(f'{heading}:')
                print(table_of(own, SINGLE_RULES if kind == 'single' else RULES))


def groups_of(
    kind: str, sites: Sequence[dict[str, Any]]
) -> Iterator[tuple[str, Sequence[dict[str, Any]]]]:
    """The sites of each table, with its heading; those of one person by what is annotated."""
    if kind != 'single':
        yield kind, sites
        return
    parts = {
        'whole': [site for site in sites if not annotated_in_part(site)],
        'neighbouring slices': [site for site in sites if site['Labels'].get('neighbours')],
        'slices that lie apart': [site for site in sites if site['Labels'].get('sparse')],
    }
    yield from ((f'single, {name}', own) for name, own in parts.items() if own)


def annotated_in_part(site: Mapping[str, Any]) -> bool:
    """Whether the labels of a site are of some slices."""
    return bool(site['Labels'].get('sparse') or site['Labels'].get('neighbours'))


if __name__ == '__main__':
    main()
