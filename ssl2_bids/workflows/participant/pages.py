"""Pages and citations, from the summaries of sessions."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ssl2_bids import __version__
from ssl2_bids.bids.absent import AbsentResultsError
from ssl2_bids.bids.outputs import (
    UnitNames,
    find_summaries,
    find_visits_summaries,
    is_result_absent,
    output_name,
    read_sidecar,
    results_beside,
    sidecar_path,
)
from ssl2_bids.errors import DataError, Ssl2Error
from ssl2_bids.files import finished_files, write_text
from ssl2_bids.settings import CALIBRATED
from ssl2_bids.workflows.current_results import current_results, is_second

if TYPE_CHECKING:
    from ssl2_bids.reports.participant import Summary
    from ssl2_bids.reports.visits import VisitsSummary

log = logging.getLogger('ssl2_bids')

T = TypeVar('T')
ROUNDS = 10  # at most, of reading and writing while other jobs end
WITHDRAWN = 'the last run could not finish this result: what is shown is of an earlier one'


def write_pages(output_dir: Path, subjects: set[str]) -> list[Path]:
    """Write the page of each participant from its summaries; the pages written.

    One that fails is named in the log; results and other pages do not depend on it.
    """
    from ssl2_bids.reports import participant

    pages = []
    for subject in sorted(subjects):
        page = output_dir / output_name('report.page', subject=subject)
        try:
            for summaries, visits in _as_long_as_it_changes(partial(_read, output_dir, subject)):
                if not summaries:
                    break
                participant.render(
                    cast('list[Summary]', summaries),
                    page,
                    subject=subject,
                    version=__version__,
                    visits=cast('list[VisitsSummary]', visits),
                )
            else:
                pages.append(page)
        except Ssl2Error:
            raise
        except Exception:  # a summary of another version: the results stand
            log.exception('%s was not written', page.name)
    return pages


def _read(output_dir: Path, subject: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the page of a participant shows: the summaries of sessions and of comparisons."""
    summaries = find_summaries(output_dir, subject)
    if not summaries:
        return [], []
    shown = _with_out_of_date(output_dir, subject, summaries)
    return shown, find_visits_summaries(output_dir, subject)


def _as_long_as_it_changes(read: Callable[[], T]) -> Iterator[T]:
    """What is read, and again what is read once that was used, until it is the same.

    Jobs side by side write the same files, without a lock between them. A job that has read
    before the end of another, and writes after it, so writes once more.
    """
    former = None
    for _ in range(ROUNDS):
        found = read()
        text = json.dumps(found)  # NaN is equal to itself here
        if text == former:
            return
        yield found
        former = text


def _with_out_of_date(
    root: Path, subject: str, summaries: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The summaries of a participant; of results that do not count any more with a warning."""
    names = [
        UnitNames(root, subject, one['session'], desc=one['model'].get('Label', ''))
        for one in summaries
    ]
    try:
        found = {key: results_beside(key) for key in names}
    except OSError as error:  # a folder without the permission to look into it
        log.warning('sub-%s: results cannot be looked at (%s)', subject, error)
        return summaries
    counts, left_out = current_results([r for results in found.values() for r in results])
    current = {(r.names.session, r.names.desc) for r in counts}
    reasons = {(r.names.session, r.names.desc): reason for r, reason in left_out}
    first = {
        (r.names.session, r.names.desc): replace(key, desc=r.sidecar['FirstResult'])
        for key, results in found.items()
        for r in results
        if is_second(r)
    }
    reasons = {
        key: reason
        for key, reason in reasons.items()
        if key not in first or not is_result_absent(first[key])
    }
    shown = []
    for one, key in zip(summaries, names, strict=True):
        reason = ''
        if one.get('status') == 'done' and (key.session, key.desc) not in current:
            reason = reasons.get((key.session, key.desc), '')
            if not found[key] and _was_withdrawn(key):
                reason = WITHDRAWN
        if reason:
            one = one | {'warnings': [reason, *one.get('warnings', ())]}
        elif key.desc == CALIBRATED and one.get('adaptation'):
            notes = {'LabelNotes': _label_notes(root)}
            one = one | {'adaptation': one['adaptation'] | notes}
        shown.append(one)
    return shown


def _label_notes(root: Path) -> list[dict[str, str]]:
    """The notes of ``--calibrate-from`` on labels, which no page of a cohort shows."""
    try:
        found = read_sidecar(root / output_name('model.report', desc=CALIBRATED))
    except (DataError, AbsentResultsError):
        return []
    notes = found.get('LabelNotes')
    return [
        one
        for one in (notes if isinstance(notes, list) else [])
        if isinstance(one, dict) and {'name', 'note'} <= one.keys()
    ]


def _was_withdrawn(names: UnitNames) -> bool:
    """Whether a mask of a model lies here without its JSON file, which is written last."""
    desc = f'_desc-{names.desc}' if names.desc else ''
    masks = finished_files(names.done_marker.parent, f'*_label-L{desc}_mask.nii.gz')
    sidecars = [sidecar_path(path) for path in masks]
    return not all(path.exists() or path.is_symlink() for path in sidecars)


def cited_sentences(output_dir: Path, subjects: Iterable[str]) -> list[str]:
    """The sentences of all finished sessions of some participants, each once."""
    summaries = [
        summary
        for subject in sorted(subjects)
        for find in (find_summaries, find_visits_summaries)
        for summary in find(output_dir, subject)
    ]
    texts = (text for summary in summaries for text in summary.get('methods', ()))
    return list(dict.fromkeys(texts))


def update_citation(output_dir: Path, subjects: set[str], former: list[str]) -> None:
    """Write ``logs/CITATION.*`` again if it lacks a sentence, or may have one too many.

    A job on one of thousands of participants then reads its own results alone.

    Parameters
    ----------
    subjects : participants of this run.
    former : sentences of their results before it.
    """
    from ssl2_bids.reports import citations

    own = cited_sentences(output_dir, subjects)
    path = output_dir / 'logs' / 'CITATION.md'
    try:
        known = citations.contains(path.read_text(encoding='utf-8'), own)
    except (OSError, ValueError):
        known = False
    if not known or set(former) - set(own):
        write_citation(output_dir)


def write_citation(
    output_dir: Path, expected: Mapping[UnitNames, list[str]] | None = None
) -> list[Path]:
    """``logs/CITATION.*``: the methods of all finished sessions below an output folder.

    Parameters
    ----------
    expected : sentences on sessions that are not processed yet, in place of those of their
        former results.

    Returns
    -------
    The files written; none where there are no sentences.
    """
    from ssl2_bids.reports import citations

    written: list[Path] = []
    for sentences in _as_long_as_it_changes(partial(_sentences, output_dir, expected or {})):
        documents = citations.documents(sentences) if sentences else {}
        for name, text in documents.items():
            write_text(output_dir / 'logs' / name, text)
        written = [output_dir / 'logs' / name for name in documents] or written
    return written


def _sentences(output_dir: Path, expected: Mapping[UnitNames, list[str]]) -> list[str]:
    """The sentences of all sessions, with those expected in place of the former ones."""
    renewed = {(names.subject, names.session, names.desc) for names in expected}
    subjects = {p.name[4:] for p in output_dir.glob('sub-*') if p.is_dir()}
    subjects |= {names.subject for names in expected}
    sentences: dict[str, None] = {}
    for subject in sorted(subjects):
        for summary in find_summaries(output_dir, subject):
            if (subject, summary['session'], summary['model'].get('Label')) not in renewed:
                sentences.update(dict.fromkeys(summary.get('methods', ())))
        for summary in find_visits_summaries(output_dir, subject):
            sentences.update(dict.fromkeys(summary.get('methods', ())))
        for names, methods in expected.items():
            if names.subject == subject:
                sentences.update(dict.fromkeys(methods))
    return list(sentences)
