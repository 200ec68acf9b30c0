"""Scores of a probability against a label, before and after; and their comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ssl2_bids.metrics import lesionwise, voxelwise
from ssl2_bids.metrics.comparison import compare_models
from ssl2_bids.metrics.score_names import SCORES
from ssl2_bids.steps.annotation import Annotation
from ssl2_bids.steps.lesions import label_instances
from ssl2_bids.training.adaptation.decision import ScorePair, standard_error
from ssl2_bids.volume import Volume
from ssl2_bids.voxel_grid import Box, bounding_box
from ssl2_bids.workflows.adaptation.prepare import PreparedSession
from ssl2_bids.workflows.segmentation_files import read_result


@dataclass(frozen=True)
class LabelScores:
    """One case under one model; NaN where undefined, None where annotated in part.

    Lesion-wise scores are undefined where the label has no lesion that counts: they would be 1 or
    0, for a single voxel.

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
    fitted: float = math.nan  # Dice of a recalibration on all labels, those of this case too
    span: float = math.nan  # see ScorePair


@dataclass(frozen=True)
class Truth:
    """What a labelled case is compared with, on the reference's grid, cropped to ``box``.

    Attributes
    ----------
    box : around the brain and what was drawn.
    brain, drawn, extent : boolean, of equal shape.
    lesions : what was drawn, numbered; None where annotated in part.
    annotated : share of the brain.
    volume : drawn, mm^3.
    """

    box: Box
    brain: np.ndarray
    drawn: np.ndarray
    extent: np.ndarray
    lesions: np.ndarray | None
    voxel_volume: float
    annotated: float
    volume: float


def truth_of(mask: Volume, annotation: Annotation, *, minimum_volume: float) -> Truth:
    """The label of a case.

    Parameters
    ----------
    mask : of the brain, RAS+.
    minimum_volume : mm^3; smaller lesions are not counted.
    """
    drawn, brain = annotation.label.data > 0, mask.data > 0
    box = bounding_box(brain | drawn)
    voxel = mask.voxel_volume
    lesions = None
    if annotation.whole:
        lesions = label_instances(drawn[box], voxel_volume=voxel, minimum_volume=minimum_volume)
    extent = annotation.extent.data[box] > 0
    brain, drawn = brain[box], drawn[box]
    return Truth(
        box=box,
        brain=brain,
        drawn=drawn,
        extent=extent,
        lesions=lesions,
        voxel_volume=voxel,
        annotated=float((extent & brain).sum() / max(int(brain.sum()), 1)),
        volume=float(drawn.sum()) * voxel,
    )


def brain_of(prepared: PreparedSession) -> Volume:
    """The brain mask of a case, RAS+."""
    return read_result(prepared.case.brain_mask, dtype=np.uint8)


def span_of(annotated: np.ndarray, spacing: Sequence[float] | np.ndarray) -> float:
    """The least extent in mm, of three directions, of an annotated part; 0 of none.

    Parameters
    ----------
    annotated : boolean array (I, J, K).
    spacing : of its voxels, in mm.
    """
    if not annotated.any():
        return 0.0
    box = bounding_box(annotated)
    return min(float(s.stop - s.start) * size for s, size in zip(box, spacing, strict=True))


def score(
    marked: np.ndarray, truth: Truth, minimum_volumes: Sequence[float]
) -> dict[float, LabelScores]:
    """Compare as the results themselves would be compared, for several minimum volumes.

    Parameters
    ----------
    marked : boolean, in the box of the truth: at or above the threshold, inside the brain.
    minimum_volumes : mm^3, of lesions that are kept of what is marked.
    """
    voxel = truth.voxel_volume
    found = label_instances(marked, voxel_volume=voxel, minimum_volume=min(minimum_volumes))
    sizes = np.bincount(found.ravel())[1:] * voxel  # descending
    drawn = truth.lesions if truth.lesions is not None and truth.lesions.any() else None
    undefined = None if truth.lesions is None else math.nan
    scores = {}
    for smallest in minimum_volumes:
        kept = np.where(found <= int((sizes >= smallest - 1e-6).sum()), found, 0)
        here = (truth.drawn & truth.extent, (kept > 0) & truth.extent)
        lesions = None if drawn is None else lesionwise.any_overlap(drawn, kept)
        scores[smallest] = LabelScores(
            dice=voxelwise.dice(*here),
            lesion_f1=lesions.f1 if lesions else undefined,
            lesion_sensitivity=lesions.sensitivity if lesions else undefined,
            lesion_precision=lesions.precision if lesions else undefined,
            volume_bias=voxelwise.volume_error(*here),
            volume=float(here[1].sum()) * voxel,
        )
    return scores


def reference_volume(annotation: Annotation) -> float:
    """The volume of what is drawn in mm^3."""
    return float((annotation.label.data > 0).sum()) * annotation.label.voxel_volume


def pairs_of(rows: Sequence[Row]) -> list[ScorePair]:
    """What the decision looks at: out-of-fold cases with lesions alone.

    The Dice of a case without lesions is 1 or 0, for a single voxel: a few such cases would
    outweigh all others.
    """
    return [
        ScorePair(
            row.participant,
            (row.before.dice, row.after.dice),
            (or_nan(row.before.lesion_f1), or_nan(row.after.lesion_f1)),
            row.fitted,
            row.span,
        )
        for row in tested_rows(rows)
    ]


def tested_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows that evidence rests on: out of fold, with lesions."""
    return [row for row in rows if row.fold != 'holdout' and row.reference_volume > 0]


def compare_metrics(rows: Sequence[Row], *, seed: int) -> dict[str, dict[str, Any]]:
    """Before and after for each metric: means over participants, and p where there are enough."""
    found = {}
    chosen = tested_rows(rows)
    for metric in SCORES:
        values = [
            [or_nan(getattr(side, metric)) for side in (row.before, row.after)] for row in chosen
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


def error_of_gain(rows: Sequence[Row]) -> float | None:
    """Standard error of the mean gain of the Dice; None for a single participant."""
    pairs = pairs_of(rows)
    if len({pair.participant for pair in pairs}) < 2:
        return None
    before = [replace(pair, dice=(pair.dice[0], pair.dice[0])) for pair in pairs]
    return _or_none(standard_error(pairs, before))


def or_nan(value: float | None) -> float:
    """A score that may be unknown, as a number."""
    return math.nan if value is None else value


def _or_none(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _round(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4)
