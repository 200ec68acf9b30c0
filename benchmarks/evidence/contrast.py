"""Ratios between the signals of tissues, and quantities that others have measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from evidence.heads import Scans
from ssl2_bids.errors import DataError
from ssl2_bids.simulation.scanner.protocols import Protocol
from ssl2_bids.simulation.scanner.sequences import FULL_SCALE, t1_from_uniform
from ssl2_bids.synthesis.healthy import CORTEX, DEEP, FLUID, VENTRICLE, WHITE, label_t1w

REGIONS = ('cortex', 'CSF', 'deep grey', 'lesion')  # each against white matter
TRUE_REGIONS = {
    'white': ('wm',),
    'cortex': ('gm',),
    'CSF': ('csf',),
    'deep grey': ('caudate', 'putamen', 'thalamus'),
}
MIN_VOXELS = 100  # voxels that a median is taken of


@dataclass(frozen=True)
class Published:
    """A value that others have measured.

    Attributes
    ----------
    text : as published, with its unit.
    source : where.
    doubt : how the value is known, where it was not read in the source itself.
    """

    text: str
    source: str
    doubt: str = ''


WRIGHT = 'Wright 2008, MAGMA 21:121'
PETERS = 'Peters 2007, MRI 25:748'
PUBLISHED = {
    ('7', 'T1 of white matter, s'): Published('1.126 ± 0.10', WRIGHT),
    ('7', 'T1 of cortex, s'): Published('1.939 ± 0.15', WRIGHT),
    ('7', 'T1 of caudate, s'): Published('1.684', WRIGHT),
    ('7', 'T1 of putamen, s'): Published('1.644', WRIGHT),
    ('3', 'T2* of white matter, ms'): Published('53.2 ± 1.2', PETERS, 'as quoted by others'),
    ('3', 'T2* of cortex, ms'): Published('66.0 ± 1.4', PETERS, 'as quoted by others'),
    ('7', 'T2* of white matter, ms'): Published('26.8', PETERS, 'as commonly quoted, not checked'),
    ('7', 'T2* of cortex, ms'): Published('32.2 ± 1.4', 'Cohen-Adad 2012, NeuroImage 60:1006'),
    ('3', 'spread of B1+ over the brain, %'): Published(
        '3.7 (373 brains)', 'ISMRM 2021, abstract 0501'
    ),
    ('7', 'spread of B1+ over the brain, %'): Published(
        'about 10 with 8 shimmed channels', 'Pan 2018, MRM 81:2924'
    ),
}


def by_rule(scans: Scans) -> dict[str, np.ndarray]:
    """Regions of a head by the rule that is used on real and simulated scans alike.

    Three classes by the intensity of the T1w image (``synthesis/healthy.py``); white matter and
    ventricles lose a rim of one voxel; lesions and a rim around them count as lesion only.

    Raises
    ------
    DataError : the T1w image does not distinguish the tissues.
    """
    t1w = scans.images.get('T1w')
    if t1w is None:
        t1w = scans.images['UNIT1']
    labels, _ = label_t1w(t1w, scans.brain)
    ventricle = ndimage.binary_erosion(labels == VENTRICLE)
    if ventricle.sum() < MIN_VOXELS:
        ventricle = ndimage.binary_erosion(np.isin(labels, (VENTRICLE, FLUID)))
    regions = {
        'white': ndimage.binary_erosion(labels == WHITE),
        'cortex': labels == CORTEX,
        'CSF': ventricle,
        'deep grey': labels == DEEP,
    }
    return without_lesions(regions, scans.lesions)


def by_truth(scans: Scans) -> dict[str, np.ndarray]:
    """Regions of a simulated head from its true tissues, without the rim of each."""
    assert scans.tissues is not None
    regions = {}
    for region, tissues in TRUE_REGIONS.items():
        numbers = [scans.names.index(name) + 1 for name in tissues if name in scans.names]
        whole = np.isin(scans.tissues, numbers)
        inner = ndimage.binary_erosion(whole)
        regions[region] = inner if inner.sum() >= MIN_VOXELS else whole
    return without_lesions(regions, scans.lesions)


def without_lesions(
    regions: dict[str, np.ndarray], lesions: np.ndarray | None
) -> dict[str, np.ndarray]:
    """The regions less the lesions and a rim of one voxel, and the lesions as a region."""
    if lesions is None:
        return regions
    near = ndimage.binary_dilation(lesions)
    return {name: region & ~near for name, region in regions.items()} | {'lesion': lesions}


def ratios(scans: Scans, regions: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Median of each region over that of white matter, by image and region."""
    result: dict[str, dict[str, float]] = {}
    for contrast, image in scans.images.items():
        white = np.median(image[regions['white']])
        result[contrast] = {
            region: float(np.median(image[regions[region]]) / white)
            for region in REGIONS
            if region in regions and regions[region].sum() >= MIN_VOXELS
        }
    return result


def measured_by_rule(scans: Scans) -> dict[str, dict[str, float]]:
    """Ratios by the common rule; empty where the rule refuses the T1w image."""
    try:
        return ratios(scans, by_rule(scans))
    except DataError:
        return {}


def quantities(scans: Scans, protocols: Mapping[str, Protocol]) -> dict[str, float]:
    """Quantities that others have measured, from the images alone but for the regions."""
    names = {tissue: index + 1 for index, tissue in enumerate(scans.names)}
    assert scans.tissues is not None
    assert scans.lesions is not None
    parts = {
        label: ndimage.binary_erosion((scans.tissues == names[tissue]) & ~scans.lesions)
        for label, tissue in (
            ('white matter', 'wm'), ('cortex', 'gm'), ('caudate', 'caudate'),
            ('putamen', 'putamen'),
        )
        if tissue in names
    }  # fmt: skip
    parts = {label: part for label, part in parts.items() if part.sum() >= MIN_VOXELS}
    found = {}
    if scans.facts:
        found['spread of B1+ over the brain, %'] = 100 * scans.facts['transmit_cv']
    if 'UNIT1' in scans.images:
        for label, part in parts.items():
            uni = scans.images['UNIT1'][part] / FULL_SCALE - 0.5
            found[f'T1 of {label}, s'] = float(np.median(t1_from_uniform(uni, protocols['UNIT1'])))
    echoes = sorted(name for name in scans.images if name.startswith('MEGRE'))
    if echoes:
        times = protocols['MEGRE'].echoes
        for label in ('white matter', 'cortex'):
            if label in parts:
                values = [np.median(scans.images[name][parts[label]]) for name in echoes]
                slope = np.polyfit(times, np.log(values), 1)[0]
                found[f'T2* of {label}, ms'] = float(-1000 / slope)
    return found


def spread(values: Sequence[float], places: int = 2) -> str:
    """Mean (least to most)."""
    if not values:
        return '–'
    low, mean, high = min(values), float(np.mean(values)), max(values)
    if len(values) == 1:
        return f'{mean:.{places}f}'
    return f'{mean:.{places}f} ({low:.{places}f}–{high:.{places}f})'


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def ratio_rows(
    label: Sequence[str], heads: Sequence[Mapping[str, Mapping[str, float]]]
) -> list[list[str]]:
    """One row per image: the label, the image, the number of heads, and each region's spread."""
    contrasts = dict.fromkeys(name for head in heads for name in head)
    rows = []
    for contrast in contrasts:
        if contrast.startswith(('MEGRE', 'INV')) and contrast != 'INV2':
            continue
        these = [head[contrast] for head in heads if contrast in head]
        cells = [spread([m[region] for m in these if region in m]) for region in REGIONS]
        rows.append([contrast, *label, str(len(these)), *cells])
    return rows


def quantity_rows(field: str, heads: Sequence[Mapping[str, float]]) -> list[list[str]]:
    """Quantities beside what others published."""
    rows = []
    for name in dict.fromkeys(name for head in heads for name in head):
        known = PUBLISHED.get((field, name))
        places = 2 if name.endswith(' s') else 1
        values = spread([head[name] for head in heads if name in head], places)
        published = ['–', '–']
        if known:
            doubt = f' ({known.doubt})' if known.doubt else ''
            published = [known.text, f'{known.source}{doubt}']
        rows.append([f'{field} T', name, values, *published])
    return rows
