#!/usr/bin/env python3
"""Accuracy and CPU seconds of each preprocessing step on simulated whole heads of known truth.

    ssl2 simulate SHIMMED --field 7 --subjects 2 --seed 41 --labels LABELS --whole-head \\
        --contrasts UNIT1 FLAIR T2w T2starw
    ssl2 simulate UNSHIMMED --protocol benchmarks/unshimmed-7t.toml --subjects 2 --seed 42 \\
        --labels LABELS --whole-head --contrasts UNIT1 FLAIR
    python benchmarks/preprocess.py SHIMMED UNSHIMMED [--steps register] [--pictures FOLDER]

LABELS is a folder of label maps with skull and scalp (docs/how-to/train.md). Each step gets the
truth of the steps before it, so that each row measures one step:

* uniform: field and noise of UNIT1, as stored, with one strength for all voxels (O'Brien 2014),
  and as the App removes the noise. *Field*: spread of white matter, smoothed by 10 mm, divided by
  the difference of white matter and cortex. *Air*: mean outside the head over that of white
  matter.
* brain: Dice and volume error of each contrast's brain mask, and of the joint mask of the session,
  with the brain of UNIT1 found in UNIT1 itself and in INV2.
* inhomogeneity: coefficient of variation in white matter that is free of lesions, 2 voxels off
  its border; N4 has four levels at 7T, three below.
* register: mean displacement over the brain, in mm, between found and true position.

CPU seconds are of one thread. ``--pictures`` writes preprocess-7t.webp: UNIT1 and FLAIR of the
first head of each dataset, before and after.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evidence import pictures

from ssl2_bids.steps import brain, brain_vote, inhomogeneity, mp2rage
from ssl2_bids.steps.registration import register_rigid
from ssl2_bids.volume import Volume, read, reorient, resample

CONTRASTS = ('UNIT1', 'FLAIR', 'T2w', 'T2starw')
STRENGTHS = (1, 3, 6, 10)  # times the noise of INV2, of the published formula
SMOOTH = 10.0  # mm


@dataclass(frozen=True)
class Scan:
    """One contrast with its truth on its grid.

    Attributes
    ----------
    tissues : label of each voxel, by ``names``.
    brain, lesions : masks.
    position : (4, 4), RAS+ mm of the head's own space to RAS+ mm of the scan.
    """

    image: Volume
    tissues: np.ndarray
    names: dict[str, int]
    brain: Volume
    lesions: np.ndarray
    position: np.ndarray

    @property
    def white(self) -> np.ndarray:
        """White matter free of lesions, two voxels off its border."""
        inside = (self.tissues == self.names['wm']) & ~self.lesions
        return ndimage.binary_erosion(inside, iterations=2)

    @property
    def cortex(self) -> np.ndarray:
        """The cortex."""
        return self.tissues == self.names['gm']


@dataclass(frozen=True)
class Head:
    """One simulated participant."""

    name: str
    scans: dict[str, Scan]
    inversions: tuple[Volume, Volume]


def heads_of(dataset: Path) -> list[Head]:
    """The participants of a simulated dataset."""
    return [head_of(folder) for folder in sorted(dataset.glob('sub-*'))]


def head_of(folder: Path) -> Head:
    """One participant: images, and the truth brought onto the grid of each."""
    subject, dataset = folder.name, folder.parent
    raw = folder / 'anat' / f'{subject}_'
    truth = dataset / 'derivatives' / 'truth' / subject / 'anat' / f'{subject}_space-UNIT1_'
    record = json.loads(Path(f'{truth}label-L_mask.json').read_text())
    placed = record['Simulation']['Draws']['visits'][0]['scans']
    poses = {c: np.array(scan['placement']['pose']) for c, scan in placed.items()}
    with open(f'{truth}seg-tissues_dseg.tsv', newline='') as file:
        names = {row['name']: int(row['index']) for row in csv.DictReader(file, delimiter='\t')}
    known = {
        name: reorient(read(f'{truth}{end}.nii.gz', dtype=np.uint8))
        for name, end in (
            ('tissues', 'seg-tissues_dseg'),
            ('brain', 'desc-brain_mask'),
            ('lesions', 'label-L_mask'),
        )
    }
    scans = {}
    for contrast in (c for c in CONTRASTS if c in poses):
        image = reorient(read(f'{raw}{contrast}.nii.gz', contrast=contrast))
        there = poses['UNIT1'] @ np.linalg.inv(poses[contrast])
        moved = {
            name: resample(volume, image.affine, image.shape, transform=there, order=0)
            for name, volume in known.items()
        }
        scans[contrast] = Scan(
            image,
            moved['tissues'].data,
            names,
            moved['brain'],
            moved['lesions'].data > 0,
            poses[contrast],
        )
    first, second = (
        reorient(read(inversion(folder / 'anat', number), contrast='MP2RAGE')) for number in (1, 2)
    )
    return Head(f'{dataset.name} {subject}', scans, (first, second))


def inversion(anat: Path, number: int) -> Path:
    """The magnitude of an inversion image, whether its name has ``part-mag`` or not."""
    found = [p for p in anat.glob(f'*_inv-{number}_*MP2RAGE.nii.gz') if 'part-phase' not in p.name]
    (path,) = found
    return path


def timed(function: Callable[..., Any], *given: Any, **named: Any) -> tuple[Any, float]:
    """The result of a call, and its CPU seconds."""
    started = time.process_time()
    result = function(*given, **named)
    return result, time.process_time() - started


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def variation(image: np.ndarray, where: np.ndarray) -> float:
    """Coefficient of variation."""
    return float(image[where].std() / image[where].mean())


# --- steps


def measure_uniform(head: Head) -> None:
    """Field and noise of UNIT1 by the strength of the noise removal."""
    scan, (inv1, inv2) = head.scans['UNIT1'], head.inversions
    uni = mp2rage.to_signed(scan.image.data)
    first = mp2rage.signed_inv1(uni, inv1.data, inv2.data)
    level = mp2rage.noise_level(inv2.data)
    air = ndimage.binary_erosion(scan.tissues == 0, iterations=8)
    white, cortex = scan.white, scan.cortex
    sigma = SMOOTH / scan.image.spacing

    def row(name: str, image: np.ndarray, seconds: float = 0.0) -> None:
        weight = ndimage.gaussian_filter(white.astype(np.float32), sigma)
        smooth = ndimage.gaussian_filter(np.where(white, image, 0).astype(np.float32), sigma)
        contrast = image[white].mean() - image[cortex].mean()
        field = (smooth / np.maximum(weight, 1e-3))[white].std() / contrast
        print(
            f'| {head.name} | {name} | {field:.3f} | {variation(image, white):.3f} '
            f'| {image[air].mean() / image[white].mean():.3f} | {seconds:.1f} |'
        )

    row('as stored', uni + 0.5)
    for strength in STRENGTHS:
        beta = (strength * level) ** 2
        clean = (first * inv2.data - beta) / (first**2 + inv2.data**2 + 2 * beta)
        row(f'{strength} x noise everywhere', clean + 0.5)
    (made, _), seconds = timed(mp2rage.remove_background_noise, scan.image, inv1, inv2)
    row('the App', made.data / mp2rage.FULL_SCALE, seconds)


def measure_brain(head: Head) -> None:
    """Dice of each contrast's brain mask, and of the joint one under the true registration."""
    images = {contrast: scan.image for contrast, scan in head.scans.items()}
    images['UNIT1'], _ = mp2rage.remove_background_noise(images['UNIT1'], *head.inversions)
    masks = {}

    def row(name: str, mask: Volume, scan: Scan, seconds: float) -> None:
        found, true = mask.data > 0, scan.brain.data > 0
        agreement, more = dice(found, true), (found.sum() / true.sum() - 1) * 100
        print(f'| {head.name} | {name} | {agreement:.3f} | {more:+.1f} % | {seconds:.1f} |')

    for contrast, scan in head.scans.items():
        masks[contrast], seconds = timed(brain.extract_brain, images[contrast])
        row(contrast, masks[contrast], scan, seconds)
    uniform = head.scans['UNIT1']
    ways = {c: s.position @ np.linalg.inv(uniform.position) for c, s in head.scans.items()}
    found, seconds = timed(brain_vote.vote, images['UNIT1'], masks, ways)
    row('joint', found.mask, uniform, seconds)
    masks['UNIT1'], seconds = timed(brain.extract_brain, head.inversions[1])
    row('UNIT1, in INV2', masks['UNIT1'], uniform, seconds)
    found, seconds = timed(brain_vote.vote, images['UNIT1'], masks, ways)
    row('joint, UNIT1 in INV2', found.mask, uniform, seconds)


def measure_inhomogeneity(head: Head) -> None:
    """Coefficient of variation in white matter, before N4 and after its levels of 3T and 7T."""
    for contrast, scan in head.scans.items():
        image = scan.image
        if contrast == 'UNIT1':
            image, _ = mp2rage.remove_background_noise(image, *head.inversions)
        cells = [variation(image.data, scan.white)]
        for tesla in (3.0, 7.0):
            flat, seconds = timed(
                inhomogeneity.correct_inhomogeneity, image, scan.brain, field_strength=tesla
            )
            cells.append(variation(flat.data, scan.white))
        variations = ' | '.join(f'{cell:.3f}' for cell in cells)
        print(f'| {head.name} | {contrast} | {variations} | {seconds:.1f} |', flush=True)


def measure_register(head: Head) -> None:
    """Displacement between found and true position of each contrast on UNIT1."""
    fixed = head.scans['UNIT1']
    reference, _ = mp2rage.remove_background_noise(fixed.image, *head.inversions)
    points = np.argwhere(fixed.brain.data > 0)[::97]
    points = points @ fixed.image.affine[:3, :3].T + fixed.image.affine[:3, 3]
    for contrast, scan in head.scans.items():
        if contrast == 'UNIT1':
            continue
        moving = inhomogeneity.correct_inhomogeneity(scan.image, scan.brain, field_strength=7.0)
        found, seconds = timed(
            register_rigid, reference, moving, fixed_mask=fixed.brain, moving_mask=scan.brain
        )
        true = scan.position @ np.linalg.inv(fixed.position)
        change = found.matrix - true
        error = np.linalg.norm(points @ change[:3, :3].T + change[:3, 3], axis=1)
        print(
            f'| {head.name} | {contrast} | {error.mean():.3f} | {error.max():.3f} '
            f'| {error.mean() / fixed.image.spacing.min():.2f} | {seconds:.1f} |'
        )


def draw(heads: Sequence[Head], path: Path) -> None:
    """Slices as stored, without the background noise of UNIT1, and after N4."""
    rows = []
    for head in heads:
        for contrast in ('UNIT1', 'FLAIR'):
            scan = head.scans[contrast]
            steps = [(f'SIMULATED {contrast}, {head.name}', scan.image)]
            if contrast == 'UNIT1':
                clean, _ = mp2rage.remove_background_noise(scan.image, *head.inversions)
                steps.append(('noise removed', clean))
            flat = inhomogeneity.correct_inhomogeneity(
                steps[-1][1], scan.brain, field_strength=7.0
            )
            steps.append(('after N4', flat))
            brain = scan.brain.data > 0
            rows.append(
                [
                    (name,
                     pictures.axial(image.data, brain, image.affine, height=0.6))
                    for name, image in steps
                ]
            )  # fmt: skip
    pictures.sheet(rows, path)


STEPS: dict[str, tuple[Callable[[Head], None], tuple[str, ...]]] = {
    'uniform': (measure_uniform, ('noise removal', 'field', 'CV', 'air', 'CPU s')),
    'brain': (measure_brain, ('contrast', 'Dice', 'volume', 'CPU s')),
    'inhomogeneity': (
        measure_inhomogeneity,
        ('contrast', 'CV before', 'CV, three levels', 'CV, four levels', 'CPU s'),
    ),
    'register': (
        measure_register,
        ('contrast', 'mean, mm', 'largest, mm', 'mean, voxels', 'CPU s'),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('dataset', nargs='+', type=Path, help='made by ssl2 simulate')
    parser.add_argument('--steps', nargs='*', choices=STEPS, default=list(STEPS))
    parser.add_argument('--pictures', type=Path, metavar='FOLDER')
    arguments = parser.parse_args()
    sets = [heads_of(dataset) for dataset in arguments.dataset]
    if arguments.pictures:
        draw([heads[0] for heads in sets], arguments.pictures / 'preprocess-7t.webp')
    heads = [head for some in sets for head in some]
    for step in arguments.steps:
        function, columns = STEPS[step]
        print(f'\n| participant | {" | ".join(columns)} |')
        print('| --- ' * (len(columns) + 1) + '|')
        for head in heads:
            function(head)


if __name__ == '__main__':
    main()
