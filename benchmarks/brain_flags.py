#!/usr/bin/env python3
"""Which brain masks are flagged: good ones, and those that were spoiled on purpose.

    python benchmarks/brain_flags.py SHIMMED/sub-01 ../shared/data/t1w-3t/sub-cl* [--spoil]

Each PARTICIPANT is a folder of a BIDS dataset; every contrast of it is prepared as the App does,
and its brain mask found. The first table has the numbers of these masks, from which the
thresholds of ssl2_bids/steps/brain_check.py come; ``--spoil`` adds a row for each way in which a
mask can be wrong. Parts are cut off by the registration of the sound mask to the template, which
the check does not use. MASKS keeps the masks between calls, by the path of
the participant.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ssl2_bids.atlas import read_atlas
from ssl2_bids.bids.inputs import find_sessions
from ssl2_bids.contrasts import SUFFIXES
from ssl2_bids.steps import brain_check, preprocess
from ssl2_bids.steps.expected_brain import expect_brain
from ssl2_bids.steps.template import register_to_template
from ssl2_bids.training.checkpoint import fingerprint
from ssl2_bids.volume import Volume, read, resample, write
from ssl2_bids.voxel_grid import shift_affine
from ssl2_bids.workflows.raw_scan import read_scan

COLUMNS = (
    'volume', 'cerebellum', 'left temporal lobe', 'right temporal lobe', 'vertex',
    'left hemisphere', 'right hemisphere', 'above', 'outside', 'asymmetric',
)  # fmt: skip
VERTEX, GROWN, SHRUNK, SLAB = 40.0, 8.0, 6.0, 25.0  # mm


def kept_file(masks: Path, participant: Path, name: str, ending: str) -> Path:
    """Where something of an image is kept: by its name and the path of its participant."""
    key = fingerprint(str(participant.resolve()))
    return masks / f'{name.replace(" ", "_")}_{key}{ending}'


def scans_of(folder: Path, masks: Path | None) -> Iterator[tuple[str, Volume, Volume]]:
    """The prepared images of a participant with their masks, by name."""
    names = {path.name.removeprefix('ses-') for path in folder.glob('ses-*')} or {None}
    units = [(folder.name.removeprefix('sub-'), session) for session in sorted(names, key=str)]
    sessions = find_sessions(
        folder.parent, units, accepted=SUFFIXES, required=(), filters={}, contrasts=None,
        reference=None,
    )  # fmt: skip
    for session in sessions:
        for contrast, scan in session.scans.items():
            made = read_scan(scan)
            name = f'{folder.parent.name} {session.name} {contrast}'
            kept = kept_file(masks, folder, name, '.nii.gz') if masks else None
            if kept and kept.exists():
                mask = read(kept, dtype=np.uint8)
            else:
                stripped = scan.metadata.get('SkullStripped')
                mask, *_ = preprocess.brain_mask(
                    made.image, mode='auto', stripped=stripped, source=made.brain_source
                )
                if kept:
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    write(mask, kept, dtype=np.uint8)
            yield name, made.image, mask


def spoiled(image: Volume, mask: Volume) -> Iterator[tuple[str, Volume, Volume]]:
    """Image and mask with a fault, and its name."""
    found = mask.data > 0
    back = np.linalg.inv(register_to_template(image, mask).matrix)
    places = np.meshgrid(*[np.arange(n) for n in image.shape], indexing='ij', sparse=True)
    way = back @ image.affine
    x, y, z = (sum(way[a, b] * places[b] for b in range(3)) + way[a, 3] for a in range(3))

    def as_mask(inside: np.ndarray) -> Volume:
        return mask.with_data(inside.astype(np.uint8))

    atlas = read_atlas()['cerebellum']
    cerebellum = resample(atlas, image.affine, image.shape, transform=back).data > 0.3
    yield 'cerebellum cut off', image, as_mask(found & ~cerebellum)
    temporal = (np.abs(x) >= 25) & (z <= -8) & (y >= -35)
    yield 'temporal lobes cut off', image, as_mask(found & ~temporal)
    slices = np.flatnonzero(found.any((0, 1)))
    low, high = int(slices[0]), int(slices[-1])
    cut = found.copy()
    cut[:, :, high + 1 - round(VERTEX / image.spacing[2]) :] = False
    yield f'top {VERTEX:g} mm gone', image, as_mask(cut)
    outwards = ndimage.distance_transform_edt(~found, sampling=image.spacing)
    yield f'grown by {GROWN:g} mm', image, as_mask(outwards <= GROWN)
    inwards = ndimage.distance_transform_edt(found, sampling=image.spacing)
    yield f'shrunk by {SHRUNK:g} mm', image, as_mask(inwards > SHRUNK)
    yield 'one hemisphere', image, as_mask(found & (x >= 0))
    bright = ndimage.binary_closing(image.data > 0.4 * image.data[found].mean(), iterations=2)
    labels, _ = ndimage.label(ndimage.binary_fill_holes(bright))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    yield 'the whole head', image, as_mask(labels == sizes.argmax())
    for axis, name in ((2, 'up and down flipped'), (1, 'front and back flipped')):
        yield name, *(v.with_data(np.flip(v.data, axis)) for v in (image, mask))
    exchanged = np.diag([*image.spacing[[0, 2, 1]], 1.0])
    yield (
        'two axes exchanged',
        *(
            Volume(np.ascontiguousarray(v.data.transpose(0, 2, 1)), exchanged, v.contrast)
            for v in (image, mask)
        ),
    )
    thick = round(SLAB / image.spacing[2])
    for name, first, last in (
        (f'field of view without the upper {SLAB:g} mm', 0, high + 1 - thick),
        (f'field of view without the lower {SLAB:g} mm', low + thick, image.shape[2]),
    ):
        affine = shift_affine(image.affine, np.array([0, 0, first]))
        yield (
            name,
            *(Volume(v.data[:, :, first:last], affine, v.contrast) for v in (image, mask)),
        )


def row(name: str, fault: str, image: Volume, mask: Volume) -> bool:
    """Print the numbers of a mask; whether it is flagged."""
    expected = expect_brain(image, mask)
    numbers = brain_check.measure(mask, expected)
    flags = [*brain_check.check_mask(mask, expected), *brain_check.check_image(expected)]
    cells = [f'{numbers[c]:.2f}' if c in numbers else '' for c in COLUMNS]
    cells += [f'{expected.turned / max(expected.score, 1e-6):.2f}', f'{expected.missing:.3f}']
    codes = ', '.join(flag.code for flag in flags) or 'none'
    print(f'| {name} | {fault} | {" | ".join(cells)} | {codes} |', flush=True)
    return bool(flags)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('participant', nargs='+', type=Path)
    parser.add_argument('--spoil', action='store_true', help='also with each fault')
    parser.add_argument('--masks', type=Path, help='folder that keeps the brain masks')
    arguments = parser.parse_args()
    columns = ('image', 'fault', *COLUMNS, 'turned', 'cut', 'flags')
    print(f'| {" | ".join(columns)} |\n{"| --- " * len(columns)}|')
    good, wrong = [], []
    for folder in arguments.participant:
        for name, image, mask in scans_of(folder, arguments.masks):
            good.append(row(name, '', image, mask))
            for fault, other, other_mask in spoiled(image, mask) if arguments.spoil else ():
                wrong.append(row(name, fault, other, other_mask))
    print(f'\nflagged: {sum(good)} of {len(good)} good masks')
    if wrong:
        print(f'flagged: {sum(wrong)} of {len(wrong)} spoiled masks')


if __name__ == '__main__':
    main()
