"""Lesion masks against manual labels: one case per participant and session."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl2_bids.bids.labels import Label, Mask, find_labels, find_masks
from ssl2_bids.errors import DataError, NoInputError, Ssl2Error
from ssl2_bids.evaluation import lesionwise, voxelwise
from ssl2_bids.steps import annotation as annotate
from ssl2_bids.steps.annotation import Annotation
from ssl2_bids.steps.lesions import label_instances
from ssl2_bids.volume import Volume, describe_grid, read, reorient, same_grid

# each number of a case: name in tables, heading on screen, digits, meaning
COLUMNS: dict[str, tuple[str, int, dict[str, str]]] = {
    'dice': ('Dice', 3, {'Description': 'voxel-wise Dice coefficient'}),
    'ppv': ('PPV', 3, {'Description': 'voxel-wise positive predictive value'}),
    'sensitivity': ('Sens', 3, {'Description': 'voxel-wise sensitivity'}),
    'volume_predicted': ('Pred mL', 2, {'Description': 'predicted lesions', 'Units': 'mL'}),
    'volume_reference': ('Ref mL', 2, {'Description': 'reference lesions', 'Units': 'mL'}),
    'lesion_f1': ('Lesion F1', 3, {'Description': 'lesion-wise F1, any overlap counts'}),
    'lesion_sensitivity': ('Lesion sens', 3, {'Description': 'reference lesions detected'}),
    'lesion_precision': ('Lesion prec', 3, {'Description': 'predicted lesions that are true'}),
    'lesion_f1_msseg': ('MSSEG F1', 3, {'Description': 'lesion-wise F1, rule of MSSEG (Anima)'}),
    'hd95': ('HD95 mm', 1, {'Description': '95th percentile Hausdorff distance', 'Units': 'mm'}),
}
MORE_COLUMNS = {
    'surface_dice': {'Description': 'share of both surfaces within 1 mm of the other'},
    'volume_error': {'Description': '(predicted - reference) / reference volume'},
    'lesions_reference': {'Description': 'lesions in the reference'},
    'lesions_predicted': {'Description': 'predicted lesions'},
    'annotated': {'Description': 'share of the voxels judged by raters; others are left out'},
    'raters': {'Description': 'number of raters, joined by majority vote'},
} | {
    f'detected_{edge:g}': {'Description': f'share detected from {edge:g} mm^3 to the next size'}
    for edge in lesionwise.SIZE_EDGES
}
UNIT_COLUMNS = {
    'participant_id': {'Description': 'participant'},
    'session_id': {'Description': 'session'},
    'space': {'Description': 'grid on which the masks were compared'},
}


@dataclass(frozen=True)
class Case:
    """One session compared; ``overlap``, ``msseg`` and ``by_size`` are None if partly annotated.

    Attributes
    ----------
    annotated : share of the voxels that were judged.
    """

    subject: str
    session: str | None
    space: str
    voxels: voxelwise.VoxelScores
    overlap: lesionwise.LesionScores | None
    msseg: lesionwise.LesionScores | None
    by_size: tuple[lesionwise.SizeBin, ...] | None
    annotated: float
    prediction: Path
    labels: tuple[Path, ...]

    def numbers(self) -> dict[str, float]:
        """All scores by the names of the columns; NaN or left out where undefined."""
        values = {
            'dice': self.voxels.dice,
            'ppv': self.voxels.ppv,
            'sensitivity': self.voxels.sensitivity,
            'volume_predicted': self.voxels.prediction_volume / 1000,
            'volume_reference': self.voxels.reference_volume / 1000,
            'hd95': self.voxels.hausdorff_95,
            'surface_dice': self.voxels.surface_dice,
            'volume_error': self.voxels.volume_error,
            'annotated': self.annotated,
            'raters': len(self.labels),
        }
        if self.overlap and self.msseg:
            values |= {
                'lesion_f1': self.overlap.f1,
                'lesion_sensitivity': self.overlap.sensitivity,
                'lesion_precision': self.overlap.precision,
                'lesion_f1_msseg': self.msseg.f1,
                'lesions_reference': self.overlap.reference_count,
                'lesions_predicted': self.overlap.prediction_count,
            }
        return values | {f'detected_{b.lower:g}': b.sensitivity for b in self.by_size or ()}


@dataclass(frozen=True)
class Failure:
    """A session that could not be compared, and why."""

    subject: str
    session: str | None
    error: Ssl2Error


@dataclass(frozen=True)
class Evaluation:
    """The cases compared, those that failed, and what a reader of the numbers must know."""

    cases: tuple[Case, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]


def unit_name(subject: str, session: str | None) -> str:
    """``sub-X`` or ``sub-X_ses-Y``."""
    return f'sub-{subject}_ses-{session}' if session else f'sub-{subject}'


def evaluate(
    predictions: Path,
    labels: Path,
    *,
    model: str | None = None,
    participants: Sequence[str] | None = None,
    minimum_volume: float = 3.0,
) -> Evaluation:
    """Compare the lesion masks of an output folder with a dataset of manual labels.

    Parameters
    ----------
    model : its label (``desc-``); None is the default bundled one.
    participants : labels without ``sub-``; None is everybody.
    minimum_volume : mm^3; smaller lesions are left out of lesion-wise scores, on both sides.

    Raises
    ------
    NoInputError : a folder is missing, or no session has both a mask and a label.
    """
    masks = _by_unit(find_masks(predictions, model))
    drawn = _by_unit(find_labels(labels, participants=participants))
    common = [unit for unit in drawn if unit in masks]
    if not common:
        among = f' among the participants {", ".join(participants)}' if participants else ''
        raise NoInputError(
            f'no session has both a mask and a label{among}',
            advice=f'{predictions} has masks of: {_names(masks)}. '
            f'{labels} has labels of: {_names(_by_unit(find_labels(labels)))}.',
        )
    cases, failures = [], []
    for unit in common:
        try:
            cases.append(_compare(masks[unit], drawn[unit], minimum_volume))
        except Ssl2Error as error:
            failures.append(Failure(unit[0], unit[1] or None, error))
    notes = _notes(cases, drawn)
    if unmatched := [unit for unit in drawn if unit not in masks]:
        notes.append(f'labelled, but without a mask: {_names(unmatched)}')
    return Evaluation(tuple(cases), tuple(failures), tuple(notes))


def read_annotation(label: Label) -> Annotation:
    """Read a label with its annotated extent, reoriented to RAS+.

    Raises
    ------
    DataError : a file cannot be read or its values mean nothing; it is named.
    """
    extent = read(label.extent_path, dtype=None) if label.extent_path else None
    annotation = _read_values(
        label.path, label.sidecar, table=label.dseg_table, extent=extent, rater=label.desc or ''
    )
    return annotate.reoriented(annotation)


def _read_values(path: Path, sidecar: dict[str, Any], **known: Any) -> Annotation:
    volume = read(path, dtype=None)
    try:
        return annotate.read_label_values(volume, sidecar, **known)
    except DataError as error:
        raise DataError(error.message, advice=error.advice, path=path) from None


def mean_numbers(cases: Sequence[Case]) -> dict[str, float]:
    """Mean of each column over the cases where it is defined; NaN where it never is."""
    means = {}
    for name in COLUMNS:
        values = np.array([case.numbers().get(name, math.nan) for case in cases])
        means[name] = float(np.nanmean(values)) if np.isfinite(values).any() else math.nan
    return means


def table(cases: Sequence[Case]) -> tuple[list[dict[str, object]], dict[str, dict[str, str]]]:
    """One row per case for a TSV, and the description of each column."""
    columns = UNIT_COLUMNS | {name: entry[2] for name, entry in COLUMNS.items()} | MORE_COLUMNS
    rows: list[dict[str, object]] = [
        {
            'participant_id': f'sub-{case.subject}',
            'session_id': f'ses-{case.session}' if case.session else None,
            'space': case.space,
            **case.numbers(),
        }
        for case in cases
    ]
    return rows, columns


def _by_unit(found: Sequence) -> dict[tuple[str, str], list]:
    units: dict[tuple[str, str], list] = {}
    for entry in found:
        units.setdefault(_unit(entry), []).append(entry)
    return dict(sorted(units.items()))


def _names(units: Iterable[tuple[str, str]]) -> str:
    names = [unit_name(*unit) for unit in units]
    return ', '.join(names[:10]) + (f' and {len(names) - 10} more' if names[10:] else '') or 'none'


def _compare(masks: list[Mask], labels: list[Label], minimum_volume: float) -> Case:
    mask, prediction, annotation, raters = _match_grids(masks, labels)
    reference, extent = annotation.label.data, annotation.extent.data
    spacing = prediction.spacing
    voxels = voxelwise.compare(reference, prediction.data, spacing=spacing, extent=extent)
    overlap = msseg = by_size = None
    if annotation.whole:
        voxel_volume = prediction.voxel_volume
        drawn, found = (
            label_instances(data > 0, voxel_volume=voxel_volume, minimum_volume=minimum_volume)
            for data in (reference, prediction.data)
        )
        overlap = lesionwise.any_overlap(drawn, found)
        msseg = lesionwise.anima(drawn, found)
        by_size = lesionwise.detection_by_size(drawn, found, voxel_volume=voxel_volume)
    return Case(
        subject=mask.subject,
        session=mask.session,
        space=mask.space,
        voxels=voxels,
        overlap=overlap,
        msseg=msseg,
        by_size=by_size,
        annotated=float(extent.mean()),
        prediction=mask.path,
        labels=tuple(label.path for label in raters),
    )


def _match_grids(
    masks: list[Mask], labels: list[Label]
) -> tuple[Mask, Volume, Annotation, list[Label]]:
    """The first mask and image's labels that lie on one grid; nothing is interpolated."""
    images: dict[tuple[str, str, str], list[Label]] = {}
    for label in labels:
        images.setdefault(label.image, []).append(label)
    misfits = []
    for raters in images.values():
        annotations = [read_annotation(label) for label in raters]
        try:
            annotation = annotate.majority(annotations)
        except DataError as error:
            raise DataError(error.message, advice=error.advice, path=raters[0].path) from None
        for mask in sorted(masks, key=lambda m: (m.space != raters[0].space, m.path)):
            prediction = reorient(_read_values(mask.path, {}).label)
            if same_grid(annotation.label, prediction):
                return mask, prediction, annotation, raters
            misfits.append(_misfit(raters[0], annotation.label, mask, prediction))
    raise misfits[0]


def _misfit(label: Label, drawn: Volume, mask: Mask, prediction: Volume) -> DataError:
    return DataError(
        f'label and mask lie on different grids: {describe_grid(drawn)}; '
        f'{mask.path}: {describe_grid(prediction)}',
        advice='Segment again, with --reference naming the image that the label was drawn on.',
        path=label.path,
    )


def _notes(cases: list[Case], drawn: dict[tuple[str, str], list]) -> list[str]:
    """What a reader of the numbers must know."""
    empty = [case for case in cases if case.voxels.reference_volume == 0]
    concerned = {
        'annotated in part: compared there alone; lesion-wise and surface scores are n/a': [
            case for case in cases if case.overlap is None
        ],
        'mask or label is empty: HD95 is the diagonal of the image': [
            case for case in cases if case.voxels.one_empty
        ],
        'the label is empty and was taken as free of lesions: if it was never drawn remove it, '
        'else write "Manual": true in its JSON': [
            c for c in empty if not all(x.sidecar.get('Manual') for x in drawn[_unit(c)])
        ],
    }
    return [f'{_names(map(_unit, found))}: {text}' for text, found in concerned.items() if found]


def _unit(entry: Case | Mask | Label) -> tuple[str, str]:
    return entry.subject, entry.session or ''
