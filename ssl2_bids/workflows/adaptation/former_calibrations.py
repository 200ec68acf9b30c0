"""Results by a calibrated model that no run of the present calibration has made."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from ssl2_bids.bids.dataset import unit_name
from ssl2_bids.bids.outputs import (
    UnitNames,
    find_summaries,
    find_summary,
    is_result_absent,
    output_name,
    results_beside,
)
from ssl2_bids.networks.cards import Card
from ssl2_bids.workflows.current_results import is_of, is_second
from ssl2_bids.workflows.participant.earlier import take_away_result
from ssl2_bids.workflows.participant.pages import cited_sentences, update_citation, write_pages

log = logging.getLogger('ssl2_bids')

Unit = tuple[str, str | None]  # labels of participant and session


def remove_former(root: Path, units: Iterable[Unit], card: Card) -> None:
    """Remove what another calibration has left of sessions that the present one did not segment.

    Pages and citations are written again. What the participant level has made with a calibrated
    model stays, with a warning.

    Parameters
    ----------
    card : of the calibrated model.
    """
    removed, left = [], []
    for unit in units:
        names = UnitNames(root, *unit, desc=card.label)
        found = results_beside(names)
        if is_result_absent(names) or any(is_of(result, card) for result in found):
            continue
        if not all(is_second(result) for result in found):
            left.append(unit_name(*unit))
        elif found or find_summary(names):
            removed.append(unit)
    subjects = {subject for subject, _ in removed}
    former = cited_sentences(root, subjects)
    for unit in removed:
        take_away_result(UnitNames(root, *unit, desc=card.label))
    if removed:
        for subject in subjects:
            if not find_summaries(root, subject):
                (root / output_name('report.page', subject=subject)).unlink(missing_ok=True)
        write_pages(root, subjects)
        update_citation(root, subjects, former)
        log.warning(
            'removed: the results of an earlier calibration of %s, which the present one has not '
            'segmented',
            ', '.join(unit_name(*unit) for unit in removed),
        )
    if left:
        log.warning(
            'of an earlier calibration: the results of %s; run the participant level on them '
            'again with --model %s',
            ', '.join(left),
            card.label,
        )
