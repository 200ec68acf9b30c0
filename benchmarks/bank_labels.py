"""The manual labels of the sites of a bank: of whom, how much of each, and with which faults."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl2_bids.files import write_json
from ssl2_bids.volume import read, write

SLICES = 0.06  # share of annotated slices of sparse labels
PLACES = 3  # of neighbouring slices in each person


@dataclass(frozen=True)
class Labels:
    """Whose labels a site has: of how many people, how much of each, and by which rater."""

    people: int
    sparse: bool = False  # slices that lie apart
    neighbours: int = 0  # so many slices side by side
    exact: bool = False  # the truth instead of a simulated rater with errors
    shuffled: bool = False  # each the lesions of another person


def keep_slices(folder: Path, neighbours: int = 0, place: int = 0) -> None:
    """Name in the JSON of a mask some slices as its annotated extent.

    Evenly spaced ones; or neighbours around the middle of the first, second or last third of those
    with lesions (``place`` 0 to 2). The slices lie across the third axis of the grid: axial, and
    sagittal in the 3T FLAIR pool.
    """
    (path,) = folder.rglob('*label-L_mask.nii.gz')
    mask = read(path).data > 0
    size = mask.shape[2]
    if neighbours:
        third = np.array_split(np.flatnonzero(mask.any(axis=(0, 1))), PLACES)[place]
        first = int(third[len(third) // 2]) - neighbours // 2
        indices = np.clip(first, 0, size - neighbours) + np.arange(neighbours)
    else:
        ends, count = (0.3 * size, 0.8 * size), max(2, round(SLICES * size))
        indices = np.linspace(*ends, count).round().astype(int)
    sidecar = path.with_name(path.name.replace('.nii.gz', '.json'))
    content = json.loads(sidecar.read_text(encoding='utf-8'))
    slices = {'Axis': 'k', 'Indices': indices.tolist()}
    write_json(sidecar, content | {'AnnotationExtent': 'slices', 'AnnotatedSlices': slices})


def put_labels(
    raw: Path, folder: Path, labels: Labels, further: int
) -> tuple[list[str], tuple[str, ...]]:
    """The labels of a site, and the truth of further people; who they are."""
    truth, manual = raw / 'derivatives' / 'truth', raw / 'derivatives' / 'manual'
    drawn = sorted(path.name for path in manual.glob('sub-*'))
    others = [path.name for path in sorted(truth.glob('sub-*')) if path.name not in drawn]
    return drawn, put_masks(raw, folder, labels, drawn, others[-further:])


def put_masks(
    raw: Path, folder: Path, labels: Labels, drawn: Sequence[str], others: Sequence[str]
) -> tuple[str, ...]:
    """Write the labels of some people, and the truth of others; the labels of the others."""
    truth, manual = raw / 'derivatives' / 'truth', raw / 'derivatives' / 'manual'
    shutil.rmtree(folder, ignore_errors=True)
    for place, name in enumerate(drawn):
        source = truth if labels.exact else manual
        masks = copy_masks(source / name, folder / name)
        if labels.shuffled:
            other = drawn[(place + 1) % len(drawn)]
            (wrong,) = (source / other).rglob('*label-L_mask.nii.gz')
            (mask,) = masks
            write(read(mask).with_data(read(wrong).data), mask, dtype=np.uint8)
    for name in others:
        copy_masks(truth / name, folder / name)
    return tuple(name.removeprefix('sub-') for name in others)


def copy_masks(source: Path, target: Path) -> list[Path]:
    """Lesion masks with their JSON files; the masks."""
    for path in source.rglob('*label-L_mask.*'):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return sorted(target.rglob('*label-L_mask.nii.gz'))
