"""``ssl2 export --to lesiontrack``: a list of the visits that ``--longitudinal`` has compared."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl2_bids.bids.columns import MANIFEST_COLUMNS
from ssl2_bids.bids.dataset import participant_labels
from ssl2_bids.bids.dates import as_date, not_a_date
from ssl2_bids.bids.outputs import (
    Result,
    UnitNames,
    find_results,
    find_visits_summaries,
    output_name,
    read_sidecar,
    sidecar_if_any,
    sidecar_path,
    write_table,
)
from ssl2_bids.bids.sidecars import is_sloppy
from ssl2_bids.errors import DataError, NoInputError, Ssl2Error
from ssl2_bids.files import read_text
from ssl2_bids.workflows.current_results import current_results
from ssl2_bids.workflows.export.run import T1_LIKE, Exported, unreadable
from ssl2_bids.workflows.participant.sloppy import WARNING

log = logging.getLogger('ssl2_bids')

AGAIN = 'Run the participant level with --longitudinal again.'
FLAIR = ('FLAIR',)


def export_manifest(
    results_dir: Path, *, model: str = '', participants: tuple[str, ...] | None = None
) -> list[Exported]:
    """Write the list of visits, with paths relative to the results.

    With ``participants`` the rows of others in a former list of the same model stay, unless they
    are known to be wrong.

    A row has a visit: images, lesion mask and brain mask, all in the space between the visits of
    the participant. The columns are those of lesiontrack 0.2, mscard 0.1 and msdataqc 0.1.

    Parameters
    ----------
    results_dir : output folder of ssl2-bids.
    model : ``desc-`` of the results; empty for those of the default model.
    participants : labels; None for all.

    Raises
    ------
    NoInputError : no participant of these was compared with this model.
    """
    errors: list[Ssl2Error] = []
    current, _ = current_results(find_results(results_dir, errors))
    of_model = [one for one in current if one.names.desc == model]
    damaged = dict(unreadable(errors, model))
    for result in of_model:
        damaged.pop((result.names.subject, result.names.session), None)
    path = results_dir / output_name('group.lesiontrack')
    subjects = participant_labels(results_dir)
    if participants is not None:
        subjects = [one for one in subjects if one in participants]
    summaries = [
        one
        for subject in subjects
        for one in find_visits_summaries(results_dir, subject)
        if one['model'] == model
    ]
    if not summaries:
        raise NoInputError(
            'no sessions were compared with this model',
            advice='Run the participant level with --longitudinal first, or name another model '
            'or participant.',
            path=results_dir,
        )
    rows: list[dict[str, Any]] = []
    if participants is not None:
        rows += _former_rows(path, model, participants, of_model, damaged)
    done: list[Exported] = []
    for summary in summaries:
        names = UnitNames(results_dir, summary['subject'], None, desc=model)
        name = f'sub-{summary["subject"]}'
        try:
            if error := _damaged_of(summary, damaged):
                raise error
            _check(summary, names, of_model)
            rows += list(_rows(summary, names))
            done.append(Exported(name, path))
        except Ssl2Error as error:
            done.append(Exported(name, None, error))
    compared = {summary['subject'] for summary in summaries}
    for label in dict.fromkeys(participants or ()):
        if label not in compared:
            absent = NoInputError('no sessions were compared with this model', advice=AGAIN)
            done.append(Exported(f'sub-{label}', None, absent))
    if rows:
        write_table(path, sorted(rows, key=lambda row: row['subject']), MANIFEST_COLUMNS)
    else:  # a former list names results that are no longer there
        for one in (path, sidecar_path(path)):
            one.unlink(missing_ok=True)
    return done


def _damaged_of(
    summary: dict[str, Any], damaged: Mapping[tuple[str, str | None], Ssl2Error]
) -> Ssl2Error | None:
    """The error of a session that was compared and whose result cannot be read."""
    units = [(summary['subject'], session) for session in summary['configurations']]
    return next((damaged[unit] for unit in units if unit in damaged), None)


def _former_rows(
    path: Path,
    model: str,
    participants: Sequence[str],
    of_model: Sequence[Result],
    damaged: Mapping[tuple[str, str | None], Ssl2Error],
) -> list[dict[str, Any]]:
    """The rows of other participants in a list of the same model that was written before.

    Those of a comparison that no longer holds are left out with a warning; what cannot be read
    now, as in a clone without all content, stays.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    text = read_text(path) if path.is_file() else ''
    for row in csv.DictReader(io.StringIO(text), delimiter='\t'):
        labels = [(row.get(key) or '').partition('-')[2] for key in ('subject', 'session')]
        subject, names = labels[0], UnitNames(Path(), labels[0], None, desc=model)
        mask = names.path('longitudinal.mask', session=labels[1])
        if row.get('mask') == mask.as_posix() and subject not in participants:
            known = {key: row.get(key) or '' for key in MANIFEST_COLUMNS}
            kept = {key: '' if value == 'n/a' else value for key, value in known.items()}
            rows.setdefault(subject, []).append(kept)
    for subject in list(rows):
        for summary in find_visits_summaries(path.parent, subject):
            if summary['model'] != model or _damaged_of(summary, damaged):
                continue
            try:
                _check(summary, UnitNames(path.parent, subject, None, desc=model), of_model)
            except DataError as error:
                log.warning('sub-%s: no longer in the list: %s', subject, error)
                del rows[subject]
    return [row for own in rows.values() for row in own]


def _check(summary: dict[str, Any], names: UnitNames, results: Sequence[Result]) -> None:
    """Check that a comparison is finished, of the results as they are now, and dated.

    Raises
    ------
    DataError : it is not.
    """
    where = names.path('longitudinal.summary')
    if misfits := summary.get('misfits'):
        raise DataError(
            misfits[0],
            advice='Run --longitudinal with --session-label, without the session that is wrong.',
            path=where,
        )
    if summary['status'] != 'done':
        raise DataError('the comparison of the sessions failed', advice=AGAIN, path=where)
    now = {
        one.names.session: one.sidecar['ConfigurationHash']
        for one in results
        if one.names.subject == names.subject
    }
    if any(now.get(session) != one for session, one in summary['configurations'].items()):
        raise DataError(
            'the results of the sessions have changed since they were compared',
            advice=AGAIN,
            path=where,
        )
    table = read_sidecar(sidecar_path(names.path('longitudinal.lesions')))
    space = table.get('SpaceHash')
    if sidecar_if_any(names.path('longitudinal.brain_mask')).get('SpaceHash', space) != space:
        raise DataError(
            'the images of the comparison were replaced by those of another model',
            advice=AGAIN,
            path=where,
        )
    if is_sloppy(table):
        raise DataError(f'the result was {WARNING}', advice=AGAIN, path=where)
    dated = f'Write acq_time of all sessions into sub-{names.subject}_sessions.tsv of the '
    dated += f'raw dataset. {AGAIN}'
    for visit in summary['visits']:
        if visit['time'] and as_date(visit['time']) is None:
            raise DataError(not_a_date(visit['session'], visit['time']), advice=dated)
    years = [visit['years'] for visit in summary['visits']]
    if None in years:
        raise DataError(
            'the date of a session is not known, and the list needs the time between sessions',
            advice=dated,
        )
    days = [date.date() for visit in summary['visits'] if (date := as_date(visit['time']))]
    if len(set(days)) != len(years):
        raise DataError(
            'two sessions have the same date, and the list needs the time between sessions',
            advice=f'Correct acq_time in sub-{names.subject}_sessions.tsv. {AGAIN}',
        )


def _rows(summary: dict[str, Any], names: UnitNames) -> Iterator[dict[str, Any]]:
    """The visits of a participant.

    Raises
    ------
    DataError : a session has no T1w (or UNIT1) or no FLAIR, or a file is missing.
    """
    for number, visit in enumerate(summary['visits'], start=1):
        session = visit['session']
        found = {
            't1': _image(names, session, T1_LIKE),
            'flair': _image(names, session, FLAIR),
            'mask': names.path('longitudinal.mask', session=session),
            'brainmask': names.path('longitudinal.brain_mask'),
        }
        for path in found.values():
            if not path.is_file():
                raise DataError('a result is missing', advice=AGAIN, path=path)
        yield {
            'subject': f'sub-{names.subject}',
            'session': f'ses-{session}',
            'visit': number,
            'time': round(visit['years'], 4),
            'time_years': round(visit['years'], 4),
            'date': date.date().isoformat() if (date := as_date(visit['time'])) else '',
            **{key: one.relative_to(names.root).as_posix() for key, one in found.items()},
        }


def _image(names: UnitNames, session: str, contrasts: Sequence[str]) -> Path:
    """The image of a visit in the space between the visits, of the first contrast it has."""
    for contrast in contrasts:
        path = names.path('longitudinal.preproc', session=session, contrast=contrast)
        if path.is_file():
            return path
    raise DataError(
        f'ses-{session} was segmented without {" or ".join(contrasts)}, which the list needs',
        advice='Leave this session out: run --longitudinal with --session-label.',
    )
