#!/usr/bin/env python3
"""Which images are taken for skull-stripped ones: as they are, cut, and with the air set to zero.

    python benchmarks/brain_only.py IMAGE...

Each IMAGE (NIfTI) is assessed whole and as parts of its slices; ``zero`` sets what is below 8 % of
the 99th percentile to 0, as some exports do. ``covered``: share of the foreground in the extracted
brain; ``dark``: share of dark voxels in what lies outside it; ``beyond``: median more than 8 mm
outside, over that of the brain; ``bright``: the same of the 90th percentiles. The thresholds of
ssl2_bids/steps/brain.py come from these numbers of simulated brains and of real heads.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ssl2_bids.errors import DataError
from ssl2_bids.steps import brain
from ssl2_bids.volume import Volume, read, reorient

PARTS = {'whole': (0.0, 1.0), 'middle': (0.35, 0.75), 'upper part': (0.4, 1.0)}
AIR = 0.08  # of the 99th percentile


def variants(image: Volume) -> Iterator[tuple[str, Volume]]:
    """The image and parts of it, with and without its air set to zero."""
    zero = np.where(image.data < AIR * np.percentile(image.data, 99), 0, image.data)
    filled = np.flatnonzero(zero.any((0, 1)))
    first, last = int(filled[0]), int(filled[-1]) + 1
    for name, data in (('as it is', image.data), ('zero', zero)):
        for part, (low, high) in PARTS.items():
            start, stop = (first + round(share * (last - first)) for share in (low, high))
            some = np.ascontiguousarray(data[:, :, start:stop])
            yield f'{part}, {name}', Volume(some, image.affine, image.contrast)


def numbers(image: Volume) -> tuple[float, ...]:
    """Covered, dark, beyond and bright; see above."""
    inside = brain.foreground(image)
    found = brain.extract_brain(image).data > 0
    around, distance = inside & ~found, ndimage.distance_transform_edt(~found, image.spacing)
    beyond = inside & (distance > brain.BEYOND)
    median, top = np.percentile(image.data[inside & found], (50, 90))
    dark = (image.data[around] < brain.DARK * median).mean() if around.any() else np.nan
    levels = (np.nan, np.nan)
    if beyond.any():
        levels = tuple(np.percentile(image.data[beyond], (50, 90)) / (median, top))
    return (inside & found).sum() / inside.sum(), dark, *levels


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('image', nargs='+', type=Path)
    columns = ('image', 'variant', 'mL', 'covered', 'dark', 'beyond', 'bright', 'taken for')
    print(f'| {" | ".join(columns)} |\n{"| --- " * len(columns)}|')
    for path in parser.parse_args().image:
        for name, image in variants(reorient(read(path))):
            if not brain.may_be_brain_only(image):
                print(f'| {path.name} | {name} |  |  |  |  |  | head |', flush=True)
                continue
            volume = brain.foreground(image).sum() * image.voxel_volume / 1000
            try:
                cells = ' | '.join(f'{value:.2f}' for value in numbers(image))
            except DataError:
                cells = ' |  |  | '
            taken = 'brain' if brain.find_brain(image).brain_only else 'head'
            print(f'| {path.name} | {name} | {volume:.0f} | {cells} | {taken} |', flush=True)


if __name__ == '__main__':
    main()
