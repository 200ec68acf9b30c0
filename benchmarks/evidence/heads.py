"""Scans on 1 mm grids, real and simulated alike, ready to be measured by one rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from ssl2_bids.itk import from_itk
from ssl2_bids.simulation.anatomy.anatomy import Anatomy
from ssl2_bids.simulation.anatomy.label_maps import from_label_map
from ssl2_bids.simulation.participant import (
    Habits,
    Visit,
    draw_participant,
    knowledge,
    make_visits,
)
from ssl2_bids.simulation.scanner.protocols import Scanner
from ssl2_bids.simulation.scanner.scan import ScanDraw, scan
from ssl2_bids.steps.brain import find_brain, mask_of_brain_only
from ssl2_bids.steps.inhomogeneity import correct_inhomogeneity
from ssl2_bids.synthesis.appearance import CHANNELS
from ssl2_bids.synthesis.heads import Head, make_head
from ssl2_bids.synthesis.randomised import draw
from ssl2_bids.synthesis.ranges import Randomisation
from ssl2_bids.volume import Volume, read, reorient, resample
from ssl2_bids.workflows.heads import millimetre, read_lesion_masks

UNCORRECTED = ('UNIT1', 'MEGRE')  # the receive field has cancelled, or does so between echoes
WHOLE_HEAD = (176, 208, 176)  # voxels of 1 mm, which hold any brain of the label maps
LOAD = 9.0  # mL of lesions of the simulated patients, median

Transform = np.ndarray | None


@dataclass(frozen=True, eq=False)
class Scans:
    """Images of one head on one 1 mm grid, voxel axes along RAS+.

    Attributes
    ----------
    name : of the person or the simulated head.
    images : by contrast, corrected for the receive field (but for UNIT1).
    brain, lesions : bool; lesions None where they were not marked.
    tissues : uint8, number in ``names`` from 1: the truth of simulated heads; else None.
    facts : what was measured of the head itself.
    """

    name: str
    images: dict[str, np.ndarray]
    brain: np.ndarray
    lesions: np.ndarray | None = None
    tissues: np.ndarray | None = None
    names: tuple[str, ...] = ()
    facts: dict[str, float] | None = None


def on_one_grid(
    name: str,
    reference: Volume,
    mask: Volume,
    images: Mapping[str, tuple[Volume, Transform]],
    labels: Mapping[str, Volume] | None = None,
    **more: object,
) -> Scans:
    """Correct each image on its own grid, then bring it to that of the reference at 1 mm.

    Parameters
    ----------
    reference : whose axes and extent the common grid has.
    mask : of the brain, on the grid of the reference.
    images : by contrast, with the transform from RAS+ mm of the reference to those of the image.
    labels : on the grid of the reference; brought along by nearest neighbour.
    """
    grid = millimetre(reorient(reference))
    brain = onto(reorient(mask.with_data(mask.data.astype(np.float32))), grid) > 0.5
    ready = {}
    for contrast, (image, transform) in images.items():
        if not contrast.startswith(UNCORRECTED):
            back = None if transform is None else np.linalg.inv(transform)
            there = resample(
                mask.with_data(mask.data.astype(np.float32)), image.affine, image.shape,
                transform=back,
            )  # fmt: skip
            image = correct_inhomogeneity(image, there.with_data(there.data > 0.5))
        ready[contrast] = onto(image, grid, transform)
    brought = {key: onto(value, grid, order=0) for key, value in (labels or {}).items()}
    return Scans(name, ready, brain, **brought, **more)  # type: ignore[arg-type]


def onto(
    volume: Volume, grid: Volume, transform: Transform = None, *, order: int = 1
) -> np.ndarray:
    """Values of a volume on a grid."""
    i, j, k = grid.shape
    return resample(volume, grid.affine, (i, j, k), transform=transform, order=order).data


def healthy(data: Path) -> dict[str, Callable[[], Scans]]:
    """T1w of healthy people at 3 T, by name; each is read when it is asked for."""
    return {
        path.name.split('_')[0]: lambda path=path: healthy_person(path)
        for path in sorted((data / 't1w-3t').glob('sub-*/anat/*_T1w.nii.gz'))
    }


def healthy_person(path: Path) -> Scans:
    """One healthy person."""
    image = reorient(read(path, contrast='T1w'))
    name = path.name.split('_')[0]
    return on_one_grid(name, image, find_brain(image).mask, {'T1w': (image, None)})


def stripped(folder: Path, name: str, contrasts: tuple[str, ...]) -> Scans:
    """A person whose brain-only images came on one grid, with lesions where they were marked."""
    stem = folder / name / 'anat' / name
    images = {c: read(f'{stem}_{c}.nii.gz', contrast=c) for c in contrasts}
    first = next(iter(images.values()))
    marked = sorted((folder / 'derivatives' / 'manual' / name).glob('**/*mask.nii.gz'))
    labels = {}
    if marked:
        labels['lesions'] = read(marked[0], dtype=np.uint8)
    pairs = {contrast: (image, None) for contrast, image in images.items()}
    made = on_one_grid(name, first, mask_of_brain_only(first), pairs, labels)
    return replace(made, lesions=made.lesions > 0) if marked else made


def clinical(data: Path, name: str, session: str) -> Scans:
    """A patient at 1.5 T: 2D images on grids of their own, with published transforms."""
    folder = Path(name, f'ses-{session}', 'anat', f'{name}_ses-{session}_')
    raw = data / 'ms-wholehead' / folder
    derived = data / 'ms-wholehead' / 'derivatives' / 'manual' / folder
    flair = read(f'{raw}FLAIR.nii.gz', contrast='FLAIR')
    mask = read(f'{derived}desc-brain_mask.nii.gz', dtype=np.uint8)
    images: dict[str, tuple[Volume, Transform]] = {'FLAIR': (flair, None)}
    for contrast in ('T1w', 'T2w'):
        text = Path(f'{derived}from-{contrast}_to-FLAIR_mode-image_xfm.txt').read_text()
        images[contrast] = read(f'{raw}{contrast}.nii.gz', contrast=contrast), from_itk(text)
    return on_one_grid(f'{name} session {session}', flair, mask, images)


def flair_scans(data: Path) -> dict[str, Callable[[], Scans]]:
    """All real FLAIR scans, without their lesion labels; each is read when it is asked for."""
    found = {}
    for path in sorted(data.glob('*/sub-*/**/*_FLAIR.nii.gz')):
        dataset = data / path.relative_to(data).parts[0]
        name = path.name.removesuffix('_FLAIR.nii.gz')
        masks = sorted(dataset.glob(f'derivatives/manual/**/{name}_desc-brain_mask.nii.gz'))
        found[name] = partial(_flair_scan, name, path, masks[0] if masks else None)
    return found


def _flair_scan(name: str, path: Path, mask: Path | None) -> Scans:
    image = read(path, contrast='FLAIR')
    brain = read(mask, dtype=np.uint8) if mask else mask_of_brain_only(image)
    return on_one_grid(name, image, brain, {'FLAIR': (image, None)})


def training_heads(data: Path, count: int) -> list[Head]:
    """Prepared heads of the first label maps, with the lesions of patients where there are any."""
    masks, affine = (
        read_lesion_masks(data / 'lesion-masks')
        if (data / 'lesion-masks').is_dir()
        else ([], None)
    )
    return [
        make_head(
            path.name.split('_')[0],
            millimetre(reorient(read(path)), order=0).data,
            patients=masks,
            patient_affine=affine,
        )
        for path in label_maps(data)[:count]
    ]


def training_sample(heads: list[Head], seed: int, number: int) -> Scans:
    """The FLAIR of one sample of the training engine, as large as a head, bias field corrected."""
    head = heads[number % len(heads)]
    drawn = draw(
        [head],
        Randomisation(),
        seed=(seed, number),
        batch=1,
        patch=WHOLE_HEAD,
        contrasts=('FLAIR',),
        normalise=False,
    )
    image = Volume(drawn.image[0, CHANNELS.index('FLAIR')].numpy(), np.eye(4), 'FLAIR')
    brain = drawn.brain[0, 0].numpy() > 0
    even = correct_inhomogeneity(image, image.with_data(brain.astype(np.uint8)))
    return Scans(f'sample {number}', {'FLAIR': even.data}, brain)


@lru_cache(maxsize=1)
def anatomy(path: Path, *, whole_head: bool = False) -> Anatomy:
    """The anatomy of a label map."""
    return from_label_map(path, skull_stripped=not whole_head)


def label_maps(data: Path) -> list[Path]:
    """The label maps that simulated heads are made from, in turn."""
    return sorted((data / 'labels').glob('*.nii.gz'))


def millimetre_scanner(scanner: Scanner) -> Scanner:
    """A scanner with voxels of at least 1 mm, so that all is measured alike and soon done."""
    geometries = {
        suffix: replace(g, voxel=tuple(max(edge, 1.0) for edge in g.voxel))
        for suffix, g in scanner.geometries.items()
    }
    return replace(scanner, geometries=geometries)


def visit_of(
    scanner: Scanner,
    template: Anatomy,
    contrasts: tuple[str, ...],
    *,
    seed: int,
    number: int,
    load: float,
) -> tuple[Visit, dict[str, ScanDraw]]:
    """A simulated head and its scans, all of which find it in the same place."""
    habits = Habits(load=load)
    draw = draw_participant(seed, number, scanner, habits, contrasts=contrasts)
    scans = draw.visits[0].scans
    placement = scans[contrasts[0]].placement
    scans = {suffix: replace(one, placement=placement) for suffix, one in scans.items()}
    return make_visits(draw, template, scanner)[0], scans


def simulated(
    scanner: Scanner,
    template: Anatomy,
    contrasts: tuple[str, ...],
    *,
    seed: int,
    number: int,
    load: float = LOAD,
) -> Scans:
    """A simulated head, brain only.

    Parameters
    ----------
    contrasts : suffixes; the first is the reference.
    load : mL of lesions; 0 for a healthy head.
    """
    visit, scans = visit_of(scanner, template, contrasts, seed=seed, number=number, load=load)
    known = knowledge(visit, scanner, contrasts[0], scans[contrasts[0]])
    grid = known.grid
    labels = {
        'lesions': grid.with_data(known.lesions.mask.astype(np.uint8)),
        'tissues': grid.with_data(known.tissues),
    }
    images: dict[str, tuple[Volume, Transform]] = {}
    for suffix in contrasts:
        for name, volume in stored(visit, scanner, suffix, scans[suffix]):
            images[name] = volume, None
    transmit = visit.head.transmit[visit.head.brain]
    made = on_one_grid(
        f'{scanner.field:g} T, seed {seed}, head {number}',
        grid.with_data(np.zeros(grid.shape, np.float32)),
        grid.with_data(known.brain.astype(np.uint8)),
        images,
        labels,
        names=visit.names,
        facts={'transmit_cv': float(transmit.std() / transmit.mean())},
    )
    assert made.lesions is not None
    return replace(made, lesions=made.lesions > 0)


def stored(
    visit: Visit, scanner: Scanner, suffix: str, draw: ScanDraw
) -> Iterator[tuple[str, Volume]]:
    """The images of a sequence by name: INV2 beside UNIT1, echoes of MEGRE by number."""
    for image in scan(visit.head, scanner, suffix, draw):
        name = image.volume.contrast
        if name == 'MP2RAGE':
            name = f'INV{image.inversion}'
        elif image.echo:
            name = f'{suffix}{image.echo}'
        if name != 'INV1':
            yield name, image.volume.with_data(image.volume.data.astype(np.float32))
