"""Lesion masks against manual labels: one case per participant, session and model."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ssl2_bids.bids.dataset import unit_name
from ssl2_bids.bids.label_ranking import alike, left_out_lines, ranked, session_of
from ssl2_bids.bids.labels import Label, Mask, look_for_labels
from ssl2_bids.errors import DataError, NoInputError, Ssl2Error
from ssl2_bids.metrics import calibration, lesionwise, voxelwise
from ssl2_bids.settings import MINIMUM_LESION_VOLUME
from ssl2_bids.steps.annotation import Annotation
from ssl2_bids.steps.lesions import label_instances
from ssl2_bids.volume import Volume
from ssl2_bids.workflows.annotations import MisfitError, Placed, place
from ssl2_bids.workflows.evaluation import segmented
from ssl2_bids.workflows.label_doubts import doubts

SLOPPY = 'made with --sloppy: the scores have no use'
LEARNT = (
    'the model {model} was adapted to labels of a participant of this name: if it is the same '
    'person, its scores are too high'
)


@dataclass(frozen=True)
class Calibration:
    """Scores of a probability near lesions; undefined (NaN) where there are none."""

    ece: float
    brier: float


@dataclass(frozen=True)
class ComparedCase:
    """One session compared; what is lesion-wise is None if partly annotated.

    Attributes
    ----------
    model : label of the model, None for the default one.
    false_volume : of predicted lesions that touch no reference lesion, in mm^3.
    calibration : None without a probability and a brain mask on this grid.
    ndsc : NaN without a brain mask on this grid.
    annotated : share of the voxels that were annotated.
    remarks : why numbers or lesions are missing.
    """

    subject: str
    session: str | None
    model: str | None
    space: str
    voxels: voxelwise.VoxelScores
    overlap: lesionwise.LesionScores | None
    msseg: lesionwise.LesionScores | None
    by_size: tuple[lesionwise.SizeBin, ...] | None
    false_volume: float | None
    calibration: Calibration | None
    ndsc: float
    annotated: float
    prediction: Path
    labels: tuple[Path, ...]
    remarks: tuple[str, ...] = ()

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
            'absolute_volume_error': self.voxels.absolute_volume_error,
            'ndsc': self.ndsc,
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
                'false_lesions': self.overlap.prediction_count - self.overlap.confirmed,
            }
        if self.false_volume is not None:
            values['false_volume'] = self.false_volume / 1000
        if self.calibration:
            values |= asdict(self.calibration)
        for size in self.by_size or ():
            values[f'detected_{size.lower:g}'] = size.sensitivity
            values[f'lesions_{size.lower:g}'] = size.count
        return values


@dataclass(frozen=True)
class FailedCase:
    """A session that could not be compared, and why."""

    subject: str
    session: str | None
    error: Ssl2Error
    model: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """The cases compared, those that failed, and remarks on the numbers.

    Attributes
    ----------
    undrawn : cases that were compared, and whose figure could not be made.
    """

    cases: tuple[ComparedCase, ...]
    failures: tuple[FailedCase, ...]
    notes: tuple[str, ...]
    undrawn: tuple[FailedCase, ...] = ()


def evaluate(
    predictions: Path,
    labels: Path,
    *,
    model: str | None | Sequence[str | None] = None,
    participants: Sequence[str] | None = None,
    minimum_volume: float = MINIMUM_LESION_VOLUME,
    figures: Path | None = None,
) -> Evaluation:
    """Compare the lesion masks of an output folder with a dataset of manual labels.

    Parameters
    ----------
    model : its label (``desc-``), None for the default bundled one; or several, whose cases
        follow one another in this order.
    participants : labels without ``sub-``; None is all.
    minimum_volume : mm^3; smaller lesions are left out of lesion-wise scores, on both sides.
    figures : folder for one picture of each case.

    Raises
    ------
    NoInputError : a folder is missing, or no session has both a mask and a label.
    """
    models = (model,) if model is None or isinstance(model, str) else tuple(model)
    old = segmented.out_of_date(predictions)
    current = segmented.current_masks
    masks = {name: by_unit(current(predictions, name, old, participants)) for name in models}
    found = look_for_labels(labels, participants=participants)
    drawn, unassigned = _by_session(found.labels, masks)
    drawn, others = ranked(drawn)
    pairs = [(name, unit) for unit in drawn for name in models if unit in masks[name]]
    if not pairs:
        among = f' among the participants {", ".join(participants)}' if participants else ''
        former = segmented.superseded_notes(old, models, participants)
        known = sorted({unit for units in masks.values() for unit in units})
        raise NoInputError(
            f'no session has both a mask and a label{among}',
            advice=''.join(f'{note}. ' for note in former)
            + f'{predictions} has masks of: {names_of(known)}. {_labelled(labels)}',
        )
    cases, failures, undrawn = [], [], []
    for name, unit in pairs:
        try:
            matched = _match_grids(masks[name][unit], drawn[unit])
            cases.append(_compare(matched, minimum_volume))
        except Ssl2Error as error:
            failures.append(FailedCase(unit[0], unit[1] or None, error, name))
            continue
        if figures is not None:
            try:
                _draw(cases[-1], matched, figures)
            except Ssl2Error as error:
                undrawn.append(FailedCase(unit[0], unit[1] or None, error, name))
    cases.sort(key=lambda case: models.index(case.model))
    notes = _notes(cases, drawn)
    remarks = [f'{unit_name(c.subject, c.session)}: {text}' for c in cases for text in c.remarks]
    notes += dict.fromkeys(remarks)
    if made := [unit for name, unit in pairs if segmented.is_made_sloppily(masks[name][unit])]:
        notes.append(f'{names_of(dict.fromkeys(made))}: {SLOPPY}')
    for name in models:
        seen = segmented.adapted_to(predictions, name)
        if known := [unit for n, unit in pairs if n == name and f'sub-{unit[0]}' in seen]:
            notes.append(f'{names_of(known)}: {LEARNT.format(model=name)}')
    notes += left_out_lines([*found.left_out, *unassigned])
    notes += alike([*((path, f'not used: {why}') for path, why in found.superseded), *others])
    notes += alike((path, 'not recognised as the name of a mask') for path in found.unknown)
    notes += segmented.superseded_notes(old, models, participants)
    if absent := sorted(set(participants or ()) - {subject for subject, _ in drawn}):
        notes.append(f'no label of the participants {", ".join(absent)}')
    for name in models:
        if unmatched := [unit for unit in drawn if unit not in masks[name]]:
            whose = f' of {name or "the default model"}' if len(models) > 1 else ''
            notes.append(f'labelled, but without a mask{whose}: {names_of(unmatched)}')
    return Evaluation(tuple(cases), tuple(failures), tuple(notes), tuple(undrawn))


def _by_session(
    labels: Sequence[Label], masks: Mapping[str | None, dict[tuple[str, str], list]]
) -> tuple[dict[tuple[str, str], list], list[tuple[Path, str]]]:
    """Labels by unit, and those that belong to none of the sessions that have masks."""
    sessions: dict[str, list[str | None]] = {}
    for subject, session in dict.fromkeys(unit for units in masks.values() for unit in units):
        sessions.setdefault(subject, []).append(session or None)
    kept, left_out = [], []
    for label in labels:
        session, reason = session_of(label, sessions)
        if not reason:
            kept.append(replace(label, session=session or None))
        elif label.subject in sessions:
            left_out.append((label.path, reason))
        else:
            kept.append(label)
    return by_unit(kept), left_out


def by_unit(found: Sequence[Any]) -> dict[tuple[str, str], list]:
    """Masks or labels by subject and session (empty without one), sorted."""
    units: dict[tuple[str, str], list] = {}
    for entry in found:
        units.setdefault(_unit(entry), []).append(entry)
    return dict(sorted(units.items()))


def _labelled(folder: Path) -> str:
    """Whom a folder has labels of, or which of its names are not those of labels."""
    found = look_for_labels(folder)
    if found.labels:
        return f'{folder} has labels of: {names_of(by_unit(found.labels))}.'
    if found.left_out:
        path, why = found.left_out[0]
        return f'No label in {folder} can be used ({path.name}: {why}).'
    if found.unknown:
        return f'{folder} has no label by its names ({found.unknown[0].name} is not one).'
    return f'{folder} has no labels.'


def names_of(units: Iterable[tuple[str, str]]) -> str:
    """The first ten names of sessions, and how many more there are."""
    names = [unit_name(*unit) for unit in units]
    return ', '.join(names[:10]) + (f' and {len(names) - 10} more' if names[10:] else '')


def _compare(matched: Matched, minimum_volume: float) -> ComparedCase:
    mask, prediction, placed = matched
    annotation, remarks = placed.annotation, [*placed.remarks]
    reference, extent = annotation.label.data, annotation.extent.data
    spacing = prediction.spacing
    voxels = voxelwise.compare(reference, prediction.data, spacing=spacing, extent=extent)
    overlap = msseg = by_size = false_volume = None
    if annotation.whole:
        voxel_volume = prediction.voxel_volume
        drawn, found = (
            label_instances(data > 0, voxel_volume=voxel_volume, minimum_volume=minimum_volume)
            for data in (reference, prediction.data)
        )
        overlap = lesionwise.any_overlap(drawn, found)
        msseg = lesionwise.anima(drawn, found)
        by_size = lesionwise.detection_by_size(drawn, found, voxel_volume=voxel_volume)
        confirmed = np.unique(found[drawn > 0])
        false_volume = float((~np.isin(found, [0, *confirmed])).sum()) * voxel_volume
    brain = or_remark(remarks, segmented.brain_of, mask, prediction)
    probability = or_remark(remarks, segmented.probability_of, mask, prediction)
    remarks += doubts(annotation, prediction, brain=brain, probability=probability)
    return ComparedCase(
        subject=mask.subject,
        session=mask.session,
        model=mask.desc,
        space=mask.space,
        voxels=voxels,
        overlap=overlap,
        msseg=msseg,
        by_size=by_size,
        false_volume=false_volume,
        calibration=_calibration(probability, prediction, annotation, brain),
        ndsc=_normalised_dice(prediction, annotation, brain),
        annotated=float(extent.mean()),
        prediction=mask.path,
        labels=tuple(label.path for label in placed.labels),
        remarks=tuple(remarks),
    )


def or_remark(
    remarks: list[str], read: Callable[[Mask, Volume], Volume | None], mask: Mask, grid: Volume
) -> Volume | None:
    """A file beside a mask; a damaged one is a remark, for the main scores do not need it."""
    try:
        return read(mask, grid)
    except DataError as error:
        remarks.append(f'without the scores that need it: {error}')
        return None


def _calibration(
    probability: Volume | None,
    prediction: Volume,
    annotation: Annotation,
    brain: Volume | None,
) -> Calibration | None:
    if brain is None or probability is None:
        return None
    near = calibration.near_lesions(
        annotation.label.data,
        prediction.data,
        prediction.spacing,
        inside=(brain.data > 0) & annotation.extent.data,
    )
    values, truth = probability.data[near], annotation.label.data[near] > 0
    return Calibration(
        ece=calibration.expected_calibration_error(values, truth),
        brier=calibration.brier(values, truth),
    )


def _normalised_dice(prediction: Volume, annotation: Annotation, brain: Volume | None) -> float:
    if brain is None:
        return math.nan
    inside = (brain.data > 0) & annotation.extent.data
    return calibration.normalised_dice(
        annotation.label.data[inside] > 0, prediction.data[inside] > 0
    )


def _draw(case: ComparedCase, matched: Matched, folder: Path) -> None:
    from ssl2_bids.reports.figures.evaluation import draw_case

    mask, prediction, placed = matched
    image, name = segmented.image_of(mask, prediction) or (None, 'no image on this grid')
    whose = f', {case.model}' if case.model else ''
    draw_case(
        image,
        placed.annotation.label,
        prediction,
        folder / re.sub(r'\.nii(\.gz)?$', '.svg', mask.path.name),
        title=f'{unit_name(case.subject, case.session)}{whose}: Dice {case.voxels.dice:.3f}',
        image_name=name,
        brain=or_remark([], segmented.brain_of, mask, prediction),
        annotated=placed.annotation.extent,
    )


Matched = tuple[Mask, Volume, Placed]


def _match_grids(masks: list[Mask], labels: list[Label]) -> Matched:
    """The mask and image's labels that lie on one grid; nothing is interpolated."""
    spaces = {label.space for label in labels}
    by_path = {
        str(mask.path): mask
        for mask in sorted(masks, key=lambda m: (m.space not in spaces, m.path))
    }
    try:
        placed = place(labels, segmented.grids_of(list(by_path.values())))
    except MisfitError as error:
        error.advice = segmented.SHIFTED if error.shifted else segmented.OTHER_GRID
        raise
    mask = by_path[placed.image]
    return mask, segmented.read_mask(mask.path), placed


def _notes(cases: list[ComparedCase], drawn: dict[tuple[str, str], list]) -> list[str]:
    """Remarks on the numbers."""
    whole = [case for case in cases if case.overlap is not None]
    empty = [case for case in whole if case.voxels.reference_volume == 0]
    concerned = {
        'partly annotated: compared in the annotated part only; lesion-wise and surface scores '
        'are n/a': [case for case in cases if case.overlap is None],
        'masks of several raters, combined by majority vote (of two: where both agree)': [
            case for case in cases if len(case.labels) > 1
        ],
        'mask or label is empty: HD95 is the diagonal of the image': [
            case for case in whole if case.voxels.one_empty
        ],
        'the label is empty and counts as free of lesions: remove it if it was not drawn, else '
        'write "Manual": true in its JSON': [
            c for c in empty if not all(x.sidecar.get('Manual') for x in drawn[_unit(c)])
        ],
    }
    return [
        f'{names_of(dict.fromkeys(map(_unit, found)))}: {text}'
        for text, found in concerned.items()
        if found
    ]


def _unit(entry: ComparedCase | Mask | Label) -> tuple[str, str]:
    return entry.subject, entry.session or ''
