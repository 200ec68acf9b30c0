"""Lesion masks of people known to have no lesions: all that was found is false."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl2_bids.bids.dataset import unit_name
from ssl2_bids.bids.labels import Mask
from ssl2_bids.errors import DataError, NoInputError, Ssl2Error
from ssl2_bids.settings import MINIMUM_LESION_VOLUME
from ssl2_bids.steps.lesions import label_instances
from ssl2_bids.volume import Volume
from ssl2_bids.workflows.evaluation.run import (
    LEARNT,
    SLOPPY,
    FailedCase,
    by_unit,
    names_of,
    or_remark,
)
from ssl2_bids.workflows.evaluation.segmented import (
    adapted_to,
    brain_of,
    current_masks,
    is_made_sloppily,
    out_of_date,
    read_result_mask,
    superseded_notes,
)


@dataclass(frozen=True)
class FalsePositives:
    """What was found in one brain without lesions.

    Attributes
    ----------
    volume : of all lesions of the minimum volume or more, in mm^3.
    count : of these lesions.
    largest : volume of the largest, 0 without any.
    brain_volume : mm^3; NaN without a brain mask on the grid.
    remarks : why numbers are missing.
    """

    subject: str
    session: str | None
    model: str | None
    space: str
    volume: float
    count: int
    largest: float
    brain_volume: float
    remarks: tuple[str, ...] = ()

    def numbers(self) -> dict[str, float]:
        """By the names of the columns; volumes in mL."""
        return {
            'false_volume': self.volume / 1000,
            'false_lesions': self.count,
            'false_largest': self.largest / 1000,
            'brain_volume': self.brain_volume / 1000,
        }


@dataclass(frozen=True)
class LesionFree:
    """The brains looked at, those that failed, and remarks."""

    brains: tuple[FalsePositives, ...]
    failures: tuple[FailedCase, ...]
    notes: tuple[str, ...] = ()


def look_for_false_lesions(
    predictions: Path,
    *,
    models: Sequence[str | None] = (None,),
    participants: Sequence[str] | None = None,
    minimum_volume: float = MINIMUM_LESION_VOLUME,
) -> LesionFree:
    """Measure what models found in the brains of an output folder, all without lesions.

    Parameters
    ----------
    models : their labels (``desc-``); None is the default bundled one.
    participants : labels without ``sub-``; None is all.
    minimum_volume : mm^3; smaller lesions are not counted.

    Raises
    ------
    NoInputError : the folder is missing, or has no mask of these participants and models.
    """
    old = out_of_date(predictions)
    brains, failures, notes = [], [], superseded_notes(old, models, participants)
    seen: set[str] = set()
    made_sloppily: list[tuple[str, str]] = []
    for model in models:
        masks = by_unit(current_masks(predictions, model, old, participants))
        chosen = {u: m for u, m in masks.items() if participants is None or u[0] in participants}
        if not chosen:
            raise NoInputError(
                f'no mask of the participants {", ".join(participants or ())}',
                advice=' '.join(
                    [*(f'{n}.' for n in notes), f'There are masks of: {names_of(masks)}.']
                ),
                path=predictions,
            )
        seen |= {subject for subject, _ in chosen}
        known = adapted_to(predictions, model)
        if seen_by_model := [unit for unit in chosen if f'sub-{unit[0]}' in known]:
            notes.append(f'{names_of(seen_by_model)}: {LEARNT.format(model=model)}')
        made_sloppily += [unit for unit, found in chosen.items() if is_made_sloppily(found)]
        for unit, found in chosen.items():
            try:
                brains.append(_measure(found, minimum_volume))
            except Ssl2Error as error:
                failures.append(FailedCase(unit[0], unit[1] or None, error, model))
    remarks = [f'{unit_name(b.subject, b.session)}: {r}' for b in brains for r in b.remarks]
    notes += dict.fromkeys(remarks)
    if made_sloppily:
        notes.append(f'{names_of(dict.fromkeys(made_sloppily))}: {SLOPPY}')
    if absent := sorted(set(participants or ()) - seen):
        notes.append(f'no mask of the participants {", ".join(absent)}')
    return LesionFree(tuple(brains), tuple(failures), tuple(notes))


def spread(brains: Sequence[FalsePositives]) -> dict[str, tuple[float, float, float]]:
    """Median, smallest and largest of each number, over the brains where it is known."""
    spreads = {}
    for name in FalsePositives('', None, None, '', 0, 0, 0, 0).numbers():
        values = [brain.numbers()[name] for brain in brains]
        known = [value for value in values if not math.isnan(value)]
        spreads[name] = (
            (float(np.median(known)), min(known), max(known)) if known else (math.nan,) * 3
        )
    return spreads


def _measure(masks: list[Mask], minimum_volume: float) -> FalsePositives:
    """Of several grids that with the brain mask is measured: it is the one of the reference."""
    found: tuple[Mask, Volume, Volume | None] | None = None
    first: DataError | None = None
    remarks: list[str] = []
    for mask in sorted(masks, key=lambda m: (m.space.startswith('MNI'), str(m.path))):
        try:
            volume = read_result_mask(mask)
        except DataError as error:
            first = first or error
            continue
        brain = or_remark(remarks, brain_of, mask, volume)
        if found is None or brain is not None:
            found = mask, volume, brain
        if brain is not None:
            break
    if first and (found is None or found[2] is None):  # it may be that of the reference
        raise first
    assert found is not None
    mask, volume, brain = found
    voxel_volume = volume.voxel_volume
    instances = label_instances(
        volume.data, voxel_volume=voxel_volume, minimum_volume=minimum_volume
    )
    sizes = np.bincount(instances.ravel())[1:] * voxel_volume
    return FalsePositives(
        subject=mask.subject,
        session=mask.session,
        model=mask.desc,
        space=mask.space,
        volume=float(sizes.sum()),
        count=len(sizes),
        largest=float(sizes.max(initial=0)),
        brain_volume=float(brain.data.sum()) * voxel_volume if brain else math.nan,
        remarks=tuple(dict.fromkeys(remarks)),
    )
