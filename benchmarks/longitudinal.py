#!/usr/bin/env python3
"""Changes between two visits, decided together and by two segmentations apart.

    ssl2 simulate DATA --subjects 8 --sessions 2
    ssl2-bids DATA OUT participant --longitudinal
    python benchmarks/longitudinal.py DATA OUT            table of simulated pairs
    python benchmarks/longitudinal.py DATA OUT --noise    volume changes of unchanged lesions
    python benchmarks/longitudinal.py DATA OUT --settings other prices of a change
    python benchmarks/longitudinal.py DATA OUT --people   visits of one person and of two
    python benchmarks/longitudinal.py DATA OUT --marked   lesion by lesion, against change masks

All reads the results in OUT. Both ways have the same grid, registration, identities and noise
bound; apart, each visit's mask is its own probability at the threshold. Several DATA and OUT of
simulations may be given, in turn.

A true new lesion is found if a lesion in the state new has a voxel of it; a new lesion is right if
it has a voxel of a true new or enlarging one. Likewise for the other states. A false change is a
lesion in any state but stable that changed by more than 10 mm^3 and has no voxel of a lesion that
truly changed.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from ssl2_bids.itk import from_itk
from ssl2_bids.steps.joint_decision import Hysteresis
from ssl2_bids.steps.joint_lesions import JointLesions, segment_jointly
from ssl2_bids.steps.lesion_identities import number_lesions
from ssl2_bids.steps.lesion_states import NoiseBound, tracked
from ssl2_bids.steps.midpoint import register_visits, within_grid
from ssl2_bids.steps.visit_matching import agreement, change_evidence, match_intensities
from ssl2_bids.volume import Volume, read, reorient, resample
from ssl2_bids.workflows.longitudinal.within import near_lesions

LARGE = 30.0  # mm^3 of a new lesion that has to be found
FALSE = 10.0  # mm^3 of a false change that counts
APART = NoiseBound(base=10.0, factor=1.0, exponent=0.6)  # of segmentations apart: --noise
STATES = {'new': 'new', 'enlarging': 'enlarging', 'shrinking': 'shrinking', 'vanished': 'resolved'}
QUANTILES = (0.5, 0.9, 0.95, 0.99, 1.0)


@dataclass(frozen=True, eq=False)
class Pair:
    """Two neighbouring visits in the space between them.

    Attributes
    ----------
    probabilities : (2, I, J, K), evidence : (1, I, J, K).
    voxel : of the coarser reference, mm^3.
    truth : instances of both visits, (2, I, J, K); or a mask of what changed, twice.
    change : of each true lesion, by number.
    volumes : of each true lesion at both visits, mm^3.
    """

    name: str
    brain: Volume
    probabilities: np.ndarray
    evidence: np.ndarray
    threshold: float
    minimum: float
    truth: np.ndarray
    change: dict[int, str]
    volumes: dict[int, tuple[float, float]]
    voxel: float = 1.0

    @property
    def noise(self) -> NoiseBound:
        """The bound for these references."""
        return NoiseBound(voxel=self.voxel)


def together(pair: Pair, hysteresis: Hysteresis, noise: NoiseBound) -> JointLesions:
    """The lesions of both visits, decided together."""
    return segment_jointly(
        pair.probabilities,
        pair.evidence,
        pair.brain,
        threshold=pair.threshold,
        minimum_volume=pair.minimum,
        hysteresis=hysteresis,
        noise=noise,
    )


def apart(pair: Pair, noise: NoiseBound) -> JointLesions:
    """The lesions of each visit by itself, followed by the same rules."""
    masks = (pair.probabilities >= pair.threshold) & (pair.brain.data > 0)
    numbers = number_lesions(
        masks, voxel_volume=pair.brain.voxel_volume, minimum_volume=pair.minimum
    )
    instances = np.where(masks, numbers, 0).astype(np.uint16)
    return JointLesions(
        instances, tracked(instances, numbers, pair.probabilities, pair.brain, noise)
    )


def pairs_of(data: Path, out: Path, *, marked: bool) -> list[Pair]:
    """All pairs of neighbouring visits that were compared in an output folder."""
    found = []
    for table in sorted(out.glob('sub-*/anat/*lesions_long.json')):
        subject = table.name.split('_')[0]
        with open(table.with_suffix('.tsv'), newline='') as stream:
            rows = csv.DictReader(stream, delimiter='\t')
            sessions = list(dict.fromkeys(row['session_id'] for row in rows))
        for before, after in itertools.pairwise(sessions or sessions_of(out, subject)):
            found.append(read_pair(data, out, subject, (before, after), marked=marked))
    return found


def sessions_of(out: Path, subject: str) -> list[str]:
    """The sessions of a participant without any lesion."""
    summary = next((out / subject / 'figures').glob('*visits_report.json'))
    return [f'ses-{visit["session"]}' for visit in json.loads(summary.read_text())['visits']]


def read_pair(
    data: Path, out: Path, subject: str, sessions: tuple[str, str], *, marked: bool
) -> Pair:
    """A pair from the files of ``--longitudinal``, with its truth."""
    folder = out / subject / 'anat'
    brain = read(folder / f'{subject}_space-within_desc-brain_mask.nii.gz', dtype=np.uint8)
    inside = brain.data > 0
    edge = float(brain.spacing[0])
    probabilities, images, keys = [], [], {}
    for session in sessions:
        (path,) = folder.glob(f'{subject}_{session}_space-within_label-L*probseg.nii.gz')
        probabilities.append(read(path).data)
        keys = json.loads(path.with_name(path.name.replace('.nii.gz', '.json')).read_text())
        found = sorted(folder.glob(f'{subject}_{session}_space-within_desc-preproc_*.nii.gz'))
        images.append({p.name.split('_')[-1].split('.')[0]: read(p).data for p in found})
    stack = np.stack(probabilities)
    compared = inside & ~near_lesions(stack, [keys['Threshold']] * 2, edge)
    pair = Pair(
        f'{subject} {sessions[0]} {sessions[1]}',
        brain,
        stack,
        change_evidence(images[0], images[1], compared, spacing=edge)[None],
        keys['Threshold'],
        keys['MinimumLesionVolume'],
        np.zeros(stack.shape, np.int32),
        {},
        {},
        json.loads(next(folder.glob('*lesions_long.json')).read_text())['NoiseBound']['Voxel'],
    )
    if marked:
        return replace(pair, truth=marked_changes(data, folder, subject, sessions, brain))
    return with_truth(pair, data, folder, subject, sessions)


def pose_of(folder: Path, subject: str, session: str) -> tuple[np.ndarray, str]:
    """The transform of the within-subject space to the reference of a visit, and its contrast."""
    (path,) = folder.glob(f'{subject}_{session}_from-*_to-within_mode-image_xfm.txt')
    return from_itk(path.read_text()), path.name.split('_from-')[1].split('_')[0]


def with_truth(
    pair: Pair, data: Path, folder: Path, subject: str, sessions: tuple[str, str]
) -> Pair:
    """The pair with the lesions of the simulation."""
    truth, volumes, change = [], [], {}
    for session in sessions:
        pose, reference = pose_of(folder, subject, session)
        stem = f'{subject}_{session}_space-{reference}_seg-lesions_dseg'
        anat = data / 'derivatives' / 'truth' / subject / session / 'anat'
        true = reorient(read(anat / f'{stem}.nii.gz', dtype=np.int32))
        moved = resample(true, pair.brain.affine, pair.brain.shape, transform=pose, order=0)
        truth.append(moved.data)
        with open(anat / f'{stem}.tsv', newline='') as stream:
            rows = list(csv.DictReader(stream, delimiter='\t'))
        volumes.append({int(row['index']): float(row['volume_mm3']) for row in rows})
        change = {int(row['index']): row['change'] for row in rows}
    both = {n: (volumes[0].get(n, 0.0), volumes[1].get(n, 0.0)) for n in change}
    return replace(pair, truth=np.stack(truth), change=change, volumes=both)


def marked_changes(
    data: Path, folder: Path, subject: str, sessions: tuple[str, str], brain: Volume
) -> np.ndarray:
    """The change mask of experts, on the FLAIR of the first visit, in the space between."""
    pose, reference = pose_of(folder, subject, sessions[0])
    anat = data / 'derivatives' / 'manual' / subject / sessions[0] / 'anat'
    mask = reorient(read(anat / f'{subject}_{sessions[0]}_desc-change_mask.nii.gz'))
    if reference != 'FLAIR':
        results = folder.parent / sessions[0] / 'anat'
        way = results / f'{subject}_{sessions[0]}_from-FLAIR_to-{reference}_mode-image_xfm.txt'
        pose = from_itk(way.read_text()) @ pose
    moved = resample(mask, brain.affine, brain.shape, transform=pose)
    return np.stack([(moved.data >= 0.5).astype(np.int32)] * 2)


def score(pair: Pair, found: JointLesions) -> Counter[str]:
    """Counts of true and found changes of a pair."""
    counts: Counter[str] = Counter()
    moving = {n for n, kind in pair.change.items() if kind != 'stable'}
    true = pair.truth
    anywhere = found.instances.max(axis=0)
    lesions = {one.index: one for one in found.lesions}
    for number in moving:
        kind, (a, b) = pair.change[number], pair.volumes[number]
        if abs(b - a) < LARGE:
            continue
        place = (true[0] == number) | (true[1] == number)
        there = {lesions[n].states[0] for n in np.unique(anywhere[place]) if n}
        counts[f'{kind} true'] += 1
        counts[f'{kind} found'] += STATES[kind] in there
        counts[f'{kind} seen'] += bool(there - {'stable'})
    truly = np.isin(true, sorted(moving)).any(axis=0)
    near = ndimage.binary_dilation(truly, np.ones((3, 3, 3), bool))
    right = {'new': ('new', 'enlarging'), 'resolved': ('vanished', 'shrinking')}
    for one in found.lesions:
        state, size = one.states[0], abs(one.changes[0])
        own = anywhere == one.index
        if state in right and size >= LARGE:
            numbers = [n for n, kind in pair.change.items() if kind in right[state]]
            counts[f'{state} reported'] += 1
            counts[f'{state} right'] += bool(np.isin(true[:, own], numbers).any())
        if state != 'stable' and size > FALSE:
            counts['false changes'] += not near[own].any()
    return counts


def share(part: int, whole: int) -> str:
    """``3/4 (75 %)``."""
    return f'{part}/{whole} ({100 * part / whole:.0f} %)' if whole else '–'


def row(name: str, pairs: list[Pair], scores: list[Counter[str]]) -> str:
    """A row of the table."""
    total: Counter[str] = sum(scores, Counter())
    still = [s['false changes'] for p, s in zip(pairs, scores, strict=True) if unchanged(p)]
    active = [s['false changes'] for p, s in zip(pairs, scores, strict=True) if not unchanged(p)]
    cells = [
        name,
        f'{np.median(still):.0f}, {max(still)}' if still else '–',
        f'{np.median(active):.0f}, {max(active)}' if active else '–',
        share(total['new found'], total['new true']),
        share(total['new right'], total['new reported']),
        *(
            share(total[f'{kind} found'], total[f'{kind} true'])
            for kind in ('enlarging', 'shrinking', 'vanished')
        ),
    ]
    return f'| {" | ".join(cells)} |'


def unchanged(pair: Pair) -> bool:
    """Whether no lesion of a pair changed."""
    return not set(pair.change.values()) - {'stable'}


def header(first: str) -> str:
    names = [
        first,
        'false changes, unchanged pairs (median, most)',
        'false changes, other pairs (median, most)',
        f'new >= {LARGE:g} mm³ found',
        'new right',
        'enlarging found',
        'shrinking found',
        'vanished found',
    ]
    return f'| {" | ".join(names)} |\n|{" --- |" * len(names)}'


def unchanged_lesions(pair: Pair, found: JointLesions) -> list[tuple[float, float]]:
    """Mean volume and change of volume of lesions that touch no true change, mm^3."""
    moving = [n for n, kind in pair.change.items() if kind != 'stable']
    near = ndimage.binary_dilation(
        np.isin(pair.truth, moving).any(axis=0), np.ones((3, 3, 3), bool), iterations=2
    )
    anywhere = found.instances.max(axis=0)
    touched = set(np.unique(anywhere[near]).tolist())
    return [
        (sum(one.volumes) / 2, one.changes[0]) for one in found.lesions if one.index not in touched
    ]


def print_noise(pairs: list[Pair], hysteresis: Hysteresis) -> None:
    """Print how volumes of unchanged lesions differ, and how often the bound is passed."""
    none = NoiseBound(base=-1.0, factor=0.0)
    edges = [0, 10, 30, 100, 300, 1000, 1e6]
    print(
        '| way | lesions of (mm³) | number | ' + ' | '.join(f'{q:.0%}' for q in QUANTILES), end=''
    )
    print(' | mean bound | beyond it |\n|' + ' --- |' * (len(QUANTILES) + 5))
    for name, way in (
        ('together', lambda p: together(p, hysteresis, none)),
        ('apart', lambda p: apart(p, none)),
    ):
        values = np.array(
            [
                (volume, change, pair.noise.of(volume))
                for pair in pairs
                for volume, change in unchanged_lesions(pair, way(pair))
            ]
        )
        for low, high in itertools.pairwise(edges):
            some = values[(values[:, 0] >= low) & (values[:, 0] < high)]
            if not len(some):
                continue
            sizes = np.abs(some[:, 1])
            parts = ' | '.join(f'{np.quantile(sizes, q):.1f}' for q in QUANTILES)
            beyond = (sizes > some[:, 2]).sum()
            text = f'{low:g} to {high:g}' if high < 1e6 else f'{low:g} and more'
            print(
                f'| {name} | {text} | {len(some)} | {parts} | {some[:, 2].mean():.1f} | {beyond} |'
            )


def print_marked(pairs: list[Pair]) -> None:
    """Print the changes of real people, lesion by lesion, against masks of experts."""
    print(
        '| pair | way | marked, by 26-neighbourhood | changed voxels in them | '
        'changes found | of these in the marks | Dice of changed voxels |\n|' + ' --- |' * 7
    )
    for pair in pairs:
        for name, found in (
            ('together', together(pair, Hysteresis(), pair.noise)),
            ('apart', apart(pair, pair.noise)),
        ):
            print_person(pair, name, found)


def print_person(pair: Pair, way: str, found: JointLesions) -> None:
    marks, count = ndimage.label(pair.truth[0] > 0, np.ones((3, 3, 3), bool))
    sizes = np.bincount(marks.ravel())[1:] * pair.brain.voxel_volume
    large = [n + 1 for n in np.flatnonzero(sizes >= FALSE)]
    moving = [one for one in found.lesions if one.states[0] not in (None, 'stable')]
    first, second = found.instances
    state = np.zeros(first.shape, bool)
    for one in moving:
        state |= (first == one.index) != (second == one.index)
    hit = [n for n in large if state[marks == n].any()]
    right = [
        one for one in moving if (marks[(first == one.index) | (second == one.index)] > 0).any()
    ]
    dice = 2 * (state & (marks > 0)).sum() / max(state.sum() + (marks > 0).sum(), 1)
    print(
        f'| {pair.name} | {way} | {len(large)} of {sizes.sum() / 1000:.1f} mL | '
        f'{share(len(hit), len(large))} | {len(moving)} | {share(len(right), len(moving))} | '
        f'{dice:.2f} |'
    )
    if way == 'together':
        print_lesions(pair, found, marks, large, state)


def print_lesions(
    pair: Pair, found: JointLesions, marks: np.ndarray, large: list[int], state: np.ndarray
) -> None:
    """Each mark with what was found in it, and each change without a mark, to the error stream."""
    voxel = pair.brain.voxel_volume
    anywhere = found.instances.max(axis=0)
    states = {one.index: one.states[0] for one in found.lesions}
    for n in large:
        place = marks == n
        there = {int(i): states[int(i)] for i in np.unique(anywhere[place]) if i}
        named = ', '.join(f'{i} {s}' for i, s in there.items()) or 'none'
        middle = (pair.brain.affine @ [*np.argwhere(place).mean(axis=0), 1])[:3].round()
        print(
            f'{pair.name} mark {n} at {middle.astype(int).tolist()}: '
            f'{place.sum() * voxel:.0f} mm³, '
            f'{(place & state).sum() * voxel:.0f} mm³ changed; lesions: {named}',
            file=sys.stderr,
        )
    for one in found.lesions:
        own = anywhere == one.index
        if one.states[0] != 'stable' and not (marks[own] > 0).any():
            print(
                f'{pair.name} no mark: lesion {one.index} {one.states[0]} at '
                f'{[round(c) for c in one.centre]}: {one.volumes[0]:.0f} to '
                f'{one.volumes[1]:.0f} mm³',
                file=sys.stderr,
            )


def print_people(out: Path) -> None:
    """Print how well two visits fit, of one person and of two, by their reference images."""
    print('| first visits | correlation | Dice of the brains | asymmetry, mm |\n|' + ' --- |' * 4)
    people = sorted(p.name for p in out.glob('sub-*') if p.is_dir())
    rows = [(a, sessions_of(out, a)[:2], a) for a in people]
    rows += [(a, sessions_of(out, a)[:1] * 2, b) for a, b in itertools.pairwise(people)]
    for one, sessions, other in rows:
        images, masks = [], []
        for subject, session in zip((one, other), sessions, strict=True):
            anat = out / subject / session / 'anat'
            mask = reorient(read(anat / f'{subject}_{session}_desc-brain_mask.nii.gz'))
            (path,) = anat.glob(f'{subject}_{session}_desc-preproc_*.nii.gz')
            images.append(reorient(read(path)))
            masks.append(mask)
        middle = register_visits(images, masks)
        grid = within_grid(masks, middle.poses)
        moved = [
            resample(image, grid.affine, grid.shape, transform=pose).data
            for volume in (images, masks)
            for image, pose in zip(volume, middle.poses, strict=True)
        ]
        brain = (moved[2] >= 0.5) & (moved[3] >= 0.5)
        matched = match_intensities(moved[:2], brain, spacing=float(grid.spacing[0]))
        print(
            f'| {one} {sessions[0]}, {other} {sessions[1]} | {agreement(*matched, brain):.2f} | '
            f'{middle.overlaps[0, 1]:.3f} | {middle.asymmetry:.2f} |',
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folders', type=Path, nargs='+', metavar='DATA OUT')
    parser.add_argument('--noise', action='store_true')
    parser.add_argument('--settings', action='store_true')
    parser.add_argument('--marked', action='store_true')
    parser.add_argument('--people', action='store_true')
    args = parser.parse_args()
    if args.people:
        for out in args.folders[1::2]:
            print_people(out)
        return
    folders = zip(args.folders[::2], args.folders[1::2], strict=True)
    pairs = [pair for data, out in folders for pair in pairs_of(data, out, marked=args.marked)]
    if args.marked:
        print_marked(pairs)
        return
    if args.noise:
        print_noise(pairs, Hysteresis())
        return
    print(header('decision'))
    ways = {'together': lambda p: together(p, Hysteresis(), p.noise)}
    if args.settings:
        for price, support, bonus in itertools.product(
            (1.0, 2.0, 4.0), (0.5, 1.0), (1.0, 2.0, 4.0)
        ):
            how = Hysteresis(price=price, support=support, bonus=bonus)
            name = f'price {price:g}, support {support:g}, bonus {bonus:g}'
            ways[name] = lambda p, how=how: together(p, how, p.noise)
    ways['apart'] = lambda p: apart(p, p.noise)
    ways['apart, bound of their noise'] = lambda p: apart(p, replace(APART, voxel=p.voxel))
    for name, way in ways.items():
        print(row(name, pairs, [score(pair, way(pair)) for pair in pairs]), flush=True)


if __name__ == '__main__':
    main()
