"""What unlabelled scans show of their scanner: grids, times, and measures of image quality.

The measures are those that the participant level left (``*_quality.json``), and the brightness of
what the start model marks with confidence. So a site and its twin are measured by the same rule.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ssl2_bids.bids.inheritance import Inheritance
from ssl2_bids.bids.outputs import find_qualities
from ssl2_bids.errors import DataError
from ssl2_bids.networks.calibration import expit, logit
from ssl2_bids.networks.cards import Card
from ssl2_bids.raw_grid import RawGrid, read_raw_grid
from ssl2_bids.sidecar_values import is_number, known
from ssl2_bids.steps.image_checks import MAX_CJV
from ssl2_bids.volume import read, reorient
from ssl2_bids.voxel_grid import same_grid, spacing_of
from ssl2_bids.workflows.adaptation.cases import Case, raw_file
from ssl2_bids.workflows.adaptation.first_results import stored_probability
from ssl2_bids.workflows.segmentation_files import PROCESS_AGAIN

log = logging.getLogger('ssl2_bids')

PEOPLE = 8  # whose scans are measured: medians of more move by little
SPREAD = (10, 50, 90)  # percentiles over people
MEASURES = {
    'gm': 'grey matter / white matter',
    'csf': 'fluid / white matter',
    'snr': 'white matter / noise',
    'field': 'range of the receive field',
    'lesion': 'voxels marked with confidence / normal brain',
}
CONFIDENT = 2.2  # above the threshold of the start model, as a logit: 0.9 for a threshold of 0.5
NORMAL = 0.02  # probability below which a voxel of the brain is a normal one
LEAST_MARKED = 50.0  # mm^3 marked with confidence: the brightness of less is no measure
NUMBERS = {
    'tr': 'RepetitionTime',
    'te': 'EchoTime',
    'ti': 'InversionTime',
    'angles': 'FlipAngle',
}  # of a sequence, by the key of BIDS


@dataclass(frozen=True)
class SequenceFacts:
    """One kind of image of a site: medians over its people.

    Attributes
    ----------
    suffix : of BIDS, of the raw images.
    axes, voxel, extent : as :class:`~ssl2_bids.simulation.scanner.protocols.Geometry` has them.
    thickness : mm of a slice where gaps lie between slices, else 0.
    written : numbers of the sidecars: s, degrees, Hz per voxel (``bandwidth``).
    phase : voxel axis of the phase encoding, empty if unknown.
    words : ``ScanningSequence`` of the sidecars, for example ``('SE', 'IR')``.
    measured : by name in ``MEASURES``, percentiles 10, 50 and 90 over people.
    """

    suffix: str
    axes: str
    voxel: tuple[float, float, float]
    extent: tuple[float, float, float]
    thickness: float = 0.0
    written: dict[str, float] = field(default_factory=dict)
    phase: str = ''
    words: tuple[str, ...] = ()
    measured: dict[str, tuple[float, float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Site:
    """A scanner as its scans show it.

    Attributes
    ----------
    field : T; None where no sidecar gives it.
    people : how many were measured.
    sequences : by contrast.
    """

    field: float | None
    people: int
    sequences: dict[str, SequenceFacts]


@dataclass(frozen=True)
class _Scan:
    grid: RawGrid
    suffix: str
    sidecar: Mapping[str, Any]
    metrics: Mapping[str, Any]


def measure_site(cases: Sequence[Case], bids_dir: Path, card: Card) -> Site:
    """Measure the scans of at most eight people, spread over all.

    Where people were scanned at several fields, those of the commonest one are measured, and the
    others are named.

    Parameters
    ----------
    card : of the start model, whose probabilities show where lesions are.

    Raises
    ------
    DataError : no image has a raw file and measures of its quality.
    """
    people: dict[str, Case] = {}
    for case in cases:
        people.setdefault(case.participant, case)
    inherited = Inheritance(bids_dir)
    chosen, strength = _of_one_field(list(people.values()), bids_dir, inherited)
    if len(chosen) > PEOPLE:
        places = np.linspace(0, len(chosen) - 1, PEOPLE).round().astype(int)
        chosen = [chosen[n] for n in places.tolist()]
    scans: dict[str, list[_Scan]] = {}
    for case in chosen:
        for contrast, quality in measures_of(case, card).items():
            path = raw_file(quality, bids_dir)
            if path is None:
                continue
            metadata, _ = inherited.metadata_for(path)
            suffix = path.name.split('.')[0].rsplit('_', 1)[-1]
            scans.setdefault(contrast, []).append(
                _Scan(read_raw_grid(path), suffix, metadata, quality)
            )
    if not scans:
        raise DataError(
            'no scan of the site can be measured: there are no measures of image quality',
            advice=PROCESS_AGAIN,
        )
    return Site(
        strength, len(chosen), {contrast: _sequence(found) for contrast, found in scans.items()}
    )


def _of_one_field(
    people: Sequence[Case], bids_dir: Path, inherited: Inheritance
) -> tuple[list[Case], float | None]:
    """The people of the commonest field or of none that is known, and that field in T."""
    fields = [_field_of(case, bids_dir, inherited) for case in people]
    kinds = [None if value is None else round(2 * value) for value in fields]  # 2.9 T is 3 T
    there = [kind for kind in kinds if kind is not None]
    if not there:
        return list(people), None
    usual = max(sorted(set(there)), key=there.count)
    others = [
        f'sub-{case.participant} ({value:g} T)'
        for case, value, kind in zip(people, fields, kinds, strict=True)
        if kind not in (None, usual)
    ]
    alike = [value for value, kind in zip(fields, kinds, strict=True) if kind == usual]
    strength = float(np.median(np.array(alike, float)))
    if others:
        log.warning(
            'scanner twin: scans of several fields; those of %g T are measured, not those of %s',
            strength,
            ', '.join(others),
        )
    kept = [case for case, kind in zip(people, kinds, strict=True) if kind in (None, usual)]
    return kept, strength


def _field_of(case: Case, bids_dir: Path, inherited: Inheritance) -> float | None:
    """The field of a session in T: of its measures of image quality, else of a raw sidecar."""
    for contrast, quality in find_qualities(case.result.names).items():
        if contrast not in case.images:
            continue
        value = known(quality, 'MagneticFieldStrength')
        path = raw_file(quality, bids_dir)
        if value is None and path is not None:
            value = known(inherited.metadata_for(path)[0], 'MagneticFieldStrength')
        if value is not None:
            return value
    return None


def measures_of(case: Case, card: Card) -> dict[str, dict[str, Any]]:
    """The content of ``*_quality.json`` by contrast, and the brightness of marked voxels."""
    found = {
        contrast: dict(quality)
        for contrast, quality in find_qualities(case.result.names).items()
        if contrast in case.images
    }
    for contrast, value in lesion_brightness(case, card).items():
        if contrast in found:
            found[contrast]['lesion'] = value
    return found


def lesion_brightness(case: Case, card: Card) -> dict[str, float]:
    """Median of what the start model marks with confidence over that of normal brain.

    By contrast; empty where little is marked, where the participant level did not leave the
    probability of the start model, and where a file cannot be read: whatever needs the file
    reports it.
    """
    try:
        return _brightness(case, card)
    except DataError as error:
        log.info('%s: brightness of lesions not measured: %s', case.name, error)
        return {}


def _brightness(case: Case, card: Card) -> dict[str, float]:
    brain = reorient(read(case.brain_mask))
    probability = stored_probability(case.result, card, brain)
    if isinstance(probability, str):
        raise DataError(probability)
    least = expit(logit(card.threshold_for(case.images)) + CONFIDENT)
    marked = probability.data >= least
    normal = (brain.data > 0) & (probability.data < NORMAL)
    if marked.sum() * brain.voxel_volume < LEAST_MARKED or not normal.any():
        return {}
    found = {}
    for contrast, path in case.images.items():
        image = reorient(read(path))
        if not same_grid(image, brain):
            raise DataError('not on the grid of the brain mask', path=path)
        usual = float(np.median(image.data[normal]))
        if usual > 0:
            found[contrast] = float(np.median(image.data[marked])) / usual
    return found


def _sequence(scans: Sequence[_Scan]) -> SequenceFacts:
    """Medians over people of one contrast; of the grids that of the commonest axes."""
    axes = [''.join(nib.aff2axcodes(scan.grid.affine)) for scan in scans]
    usual = max(sorted(set(axes)), key=axes.count)
    alike = [scan for scan, own in zip(scans, axes, strict=True) if own == usual]
    edges = np.median([spacing_of(scan.grid.affine) for scan in alike], axis=0)
    shape = np.median([scan.grid.shape for scan in alike], axis=0)
    order = {letter: n for n, letters in enumerate(('LR', 'PA', 'IS')) for letter in letters}
    extent = [0.0, 0.0, 0.0]
    for letter, edge, count in zip(usual, edges, shape, strict=True):
        extent[order[letter]] = round(float(edge * count), 2)
    i, j, k = (round(float(edge), 4) for edge in edges)
    written = {}
    for name, key in NUMBERS.items():
        values = [value for scan in alike if (value := known(scan.sidecar, key)) is not None]
        if values:
            written[name] = float(np.median(values))
    bandwidths = [
        float(scan.sidecar['PixelBandwidth'])
        for scan in alike
        if is_number(scan.sidecar.get('PixelBandwidth'))
    ]
    if bandwidths:
        written['bandwidth'] = float(np.median(bandwidths))
    first = alike[0].sidecar
    direction = first.get('PhaseEncodingAxis') or first.get('PhaseEncodingDirection') or ''
    return SequenceFacts(
        alike[0].suffix,
        usual,
        (i, j, k),
        (extent[0], extent[1], extent[2]),
        _thickness(alike, float(edges.max())),
        written,
        str(direction)[:1] if str(direction)[:1] in ('i', 'j', 'k') else '',
        words_of(first.get('ScanningSequence')),
        measured_of([scan.metrics for scan in alike]),
    )


def words_of(value: Any) -> tuple[str, ...]:
    """Words of ``ScanningSequence``: a list, or one string as ``GR_IR`` of dcm2niix."""
    parts = value if isinstance(value, list) else [value]
    found = (re.split(r'[\\_,/\s]+', part) for part in parts if isinstance(part, str))
    return tuple(word for words in found for word in words if word)


def _thickness(scans: Sequence[_Scan], longest: float) -> float:
    """Thickness of the slices in mm where gaps lie between them, else 0."""
    found = [
        float(scan.sidecar['SliceThickness'])
        for scan in scans
        if is_number(scan.sidecar.get('SliceThickness'))
    ]
    thickness = float(np.median(found)) if found else 0.0
    return round(thickness, 4) if 0 < thickness < longest - 0.02 else 0.0


def tissues_separated(metrics: Mapping[str, Any]) -> bool:
    """Whether grey and white matter were separated, so that their ratio is a measure."""
    return not is_number(metrics.get('cjv')) or float(metrics['cjv']) <= MAX_CJV


def measured_of(
    metrics: Sequence[Mapping[str, Any]],
) -> dict[str, tuple[float, float, float]]:
    """Percentiles over people of ratios, noise and field; without those that no participant has.

    Parameters
    ----------
    metrics : what :func:`measures_of` gives for a contrast, one per person. The ratio of grey to
        white matter counts only where the two were separated.
    """
    values: dict[str, list[float]] = {name: [] for name in MEASURES}
    for one in metrics:
        if is_number(one.get('wm2gm')) and tissues_separated(one):
            values['gm'].append(1 / float(one['wm2gm']))
        if is_number(one.get('csf2wm')):
            values['csf'].append(float(one['csf2wm']))
        if is_number(one.get('tissue_snr')):
            values['snr'].append(float(one['tissue_snr']))
        if is_number(one.get('inu_range')):
            values['field'].append(float(one['inu_range']))
        if is_number(one.get('lesion')):
            values['lesion'].append(float(one['lesion']))
    found = {}
    for name, numbers in values.items():
        if numbers:
            low, middle, high = (float(v) for v in np.percentile(numbers, SPREAD))
            found[name] = (low, middle, high)
    return found
