"""Regions of the true lesions of simulated people, against the places in the truth.

    python benchmarks/regions.py DATASET [DATASET ...]

Each region is found twice: with the ventricles of the atlas, and with those that the image shows.
Brain mask and lesions are the true ones; the image is that on whose grid they lie.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from ssl2_bids.steps.regions import (
    assign_regions,
    find_regions,
    part_around,
    region_maps,
)
from ssl2_bids.steps.template import register_to_template
from ssl2_bids.volume import Volume, read, reorient
from ssl2_bids.voxel_grid import same_grid

REGION_OF = {
    'periventricular': 'periventricular',
    'juxtacortical': 'juxtacortical',
    'cortical': 'juxtacortical',
    'infratentorial': 'infratentorial',
    'deep': 'deep-white-matter',
    'deep_grey': 'deep-white-matter',
}
WAYS = ('atlas', 'image')


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('datasets', nargs='+', type=Path, help='of ssl2 simulate')
    parser.add_argument('--participant-label', nargs='+', help='without sub-')
    args = parser.parse_args()
    lesions, volumes = Counter(), Counter()
    for root in args.datasets:
        for truth in sorted((root / 'derivatives' / 'truth').glob('sub-*/anat')):
            if not args.participant_label or truth.parent.name[4:] in args.participant_label:
                measure(root, truth, lesions, volumes)
    print('| place | lesions | right by the atlas | right by the image | mL | atlas | image |')
    print('| --- | --- | --- | --- | --- | --- | --- |')
    for place in [*REGION_OF, 'all']:
        if lesions[place, 'all']:
            counts = [lesions[place, way] for way in ('all', *WAYS)]
            sizes = [volumes[place, way] / 1000 for way in ('all', *WAYS)]
            cells = [place, *map(str, counts), *(f'{size:.1f}' for size in sizes)]
            print(f'| {" | ".join(cells)} |')
    wrong = [lesions['periventricular', 'false', way] for way in WAYS]
    print(f'\nOther lesions that count as periventricular: atlas {wrong[0]}, image {wrong[1]}.')
    return 0


def measure(root: Path, truth: Path, lesions: Counter, volumes: Counter) -> None:
    """Add the lesions of a person to the counts."""

    def one(pattern: str, dtype: type) -> Volume:
        return reorient(read(next(truth.glob(pattern)), dtype=dtype))

    brain = one('*_desc-brain_mask.nii.gz', np.uint8)
    instances = one('*_seg-lesions_dseg.nii.gz', np.int32)
    own = next(truth.glob('*_desc-brain_mask.nii.gz')).name.split('_space-')[1].split('_')[0]
    path = next((root / truth.parent.name / 'anat').glob(f'*_{own}.nii.gz'))
    image = reorient(read(path, contrast=own))
    if not same_grid(image, brain):
        raise SystemExit(f'{path}: the image does not lie on the grid of the truth')
    with open(next(truth.glob('*_seg-lesions_dseg.tsv')), encoding='utf-8') as stream:
        rows = list(csv.DictReader(stream, delimiter='\t'))
    present = [row for row in rows if (instances.data == int(row['index'])).any()]
    numbers = np.zeros(int(instances.data.max()) + 1, np.int32)
    for number, row in enumerate(present, start=1):
        numbers[int(row['index'])] = number
    instances = instances.with_data(numbers[instances.data])
    matrix = register_to_template(image, brain).matrix
    maps = region_maps(instances, matrix, part=part_around(instances))
    found = {
        'atlas': assign_regions(instances, maps),
        'image': find_regions(instances, matrix, image=image, brain_mask=brain),
    }
    for number, row in enumerate(present):
        place, volume = row['place'], float(row['volume_mm3'])
        right = {way: REGION_OF[place] == found[way][number] for way in WAYS}
        for name in (place, 'all'):
            for way in ('all', *WAYS):
                if right.get(way, True):
                    lesions[name, way] += 1
                    volumes[name, way] += volume
        for way in WAYS:
            if place != 'periventricular' and found[way][number] == 'periventricular':
                lesions['periventricular', 'false', way] += 1


if __name__ == '__main__':
    sys.exit(main())
