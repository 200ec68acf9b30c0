"""Scores of a probability against a label, before and after; and their comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from ssl2_bids.metrics import lesionwise, voxelwise
from ssl2_bids.metrics.comparison import compare_models
from ssl2_bids.metrics.score_names import SCORES
from ssl2_bids.steps.annotation import Annotation
from ssl2_bids.steps.lesions import label_instances
from ssl2_bids.steps.network_input import to_reference
from ssl2_bids.training.adaptation.decision import ScorePair
from ssl2_bids.volume import Volume, read, reorient
from ssl2_bids.workflows.adaptation.prepare import PreparedSession


@dataclass(frozen=True)
class LabelScores:
    """One case under one model; NaN where undefined, None where annotated in part.

    Attributes
    ----------
    volume_bias : (V_p - V_r) / V_r, negative where too little was found.
    volume : predicted, in mm^3, within the annotated extent.
    """

    dice: float
    lesion_f1: float | None
    lesion_sensitivity: float | None
    lesion_precision: float | None
    volume_bias: float
    volume: float


@dataclass(frozen=True)
class Row:
    """A labelled case before and after; ``fold`` is a number, ``slices`` or ``holdout``."""

    case: str
    participant: str
    session: str | None
    fold: str
    annotated: float  # share of the brain
    reference_volume: float  # mm^3
    before: LabelScores
    after: LabelScores


def score(
    probability: np.ndarray,
    prepared: PreparedSession,
    annotation: Annotation,
    *,
    threshold: float,
    minimum_volume: float,
) -> LabelScores:
    """Compare as the results themselves would be compared: on the reference's grid.

    Parameters
    ----------
    probability : on the network's grid.
    """
    brain = reorient(read(prepared.case.brain_mask, dtype=np.uint8))
    there = to_reference(torch.from_numpy(probability), prepared.affine, brain)
    voxel = brain.voxel_volume
    marked = np.where(brain.data > 0, there.data, 0) >= threshold
    found = label_instances(marked, voxel_volume=voxel, minimum_volume=minimum_volume)
    drawn, extent = annotation.label.data > 0, annotation.extent.data
    voxels = voxelwise.compare(drawn, found > 0, spacing=brain.spacing, extent=extent)
    lesions = None
    if annotation.whole:
        reference = label_instances(drawn, voxel_volume=voxel, minimum_volume=minimum_volume)
        lesions = lesionwise.any_overlap(reference, found)
    return LabelScores(
        dice=voxels.dice,
        lesion_f1=lesions.f1 if lesions else None,
        lesion_sensitivity=lesions.sensitivity if lesions else None,
        lesion_precision=lesions.precision if lesions else None,
        volume_bias=voxels.volume_error,
        volume=voxels.prediction_volume,
    )


def reference_of(prepared: PreparedSession, annotation: Annotation) -> tuple[float, float]:
    """Share of the brain that is annotated, and the volume of what is drawn in mm^3."""
    brain = reorient(read(prepared.case.brain_mask, dtype=np.uint8)).data > 0
    share = float((annotation.extent.data & brain).sum() / max(int(brain.sum()), 1))
    label: Volume = annotation.label
    return share, float((label.data > 0).sum()) * label.voxel_volume


def as_numbers(scores: LabelScores) -> dict[str, float | None]:
    """Without what JSON cannot hold."""
    return {
        key: value if value is not None and math.isfinite(value) else None
        for key, value in asdict(scores).items()
    }


def from_numbers(numbers: dict[str, Any]) -> LabelScores:
    """The scores of :func:`as_numbers`; NaN and None of lesions are alike to those who read."""
    kept = {
        key: math.nan if value is None and key in ('dice', 'volume_bias', 'volume') else value
        for key, value in numbers.items()
    }
    return LabelScores(**kept)


def pairs_of(rows: Sequence[Row]) -> list[ScorePair]:
    """What the decision looks at: out-of-fold cases alone."""
    return [
        ScorePair(
            row.participant,
            (row.before.dice, row.after.dice),
            (_or_nan(row.before.lesion_f1), _or_nan(row.after.lesion_f1)),
        )
        for row in rows
        if row.fold != 'holdout'
    ]


def compare_metrics(rows: Sequence[Row], *, seed: int) -> dict[str, dict[str, Any]]:
    """Before and after for each metric: means over participants, and p where there are enough."""
    found = {}
    chosen = [row for row in rows if row.fold != 'holdout']
    for metric in SCORES:
        values = [
            [_or_nan(getattr(side, metric)) for side in (row.before, row.after)] for row in chosen
        ]
        columns = list(zip(*values, strict=True)) if values else [(), ()]
        result = compare_models(
            columns[0],
            columns[1],
            [row.participant for row in chosen],
            random=np.random.default_rng(seed),
        )
        found[metric] = {
            'Before': _or_none(result.first),
            'After': _or_none(result.second),
            'Difference': _or_none(result.difference),
            'Interval': [_or_none(result.low), _or_none(result.high)],
            'P': _or_none(result.p),
            'Participants': result.participants,
        }
    return found


def table_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows of ``group_performance.tsv``."""
    return [
        {
            'participant_id': f'sub-{row.participant}',
            'session_id': f'ses-{row.session}' if row.session else None,
            'fold': row.fold,
            'annotated': round(row.annotated, 4),
            'volume_reference_mm3': round(row.reference_volume, 1),
            **{
                f'{metric}_{when}': _round(getattr(side, metric))
                for metric in SCORES
                for when, side in (('before', row.before), ('after', row.after))
            },
        }
        for row in rows
    ]


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _or_none(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _round(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4)
