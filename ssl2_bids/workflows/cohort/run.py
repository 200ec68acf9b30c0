"""The group level: adaptation of a model, tables, lesion-frequency map and page of a cohort."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl2_bids import __version__
from ssl2_bids.bids.absent import AbsentResultsError
from ssl2_bids.bids.dataset import select_participants, select_sessions, unit_name
from ssl2_bids.bids.outputs import (
    MASK_NAME,
    Result,
    UnitNames,
    find_results,
    find_summaries,
    output_name,
    read_sidecar,
    sidecar_path,
)
from ssl2_bids.bids.provenance import write_dataset_files
from ssl2_bids.bids.sidecars import is_sloppy
from ssl2_bids.errors import (
    SOME_FAILED,
    SUCCESS,
    BusyError,
    DataError,
    NoInputError,
    Ssl2Error,
)
from ssl2_bids.files import finished_files, remove_leftovers
from ssl2_bids.locks import ADAPTATION_LOCK, locked
from ssl2_bids.progress import ShowLine
from ssl2_bids.settings import ATLAS_SPACE, RECALIBRATED, GroupSettings
from ssl2_bids.volume import Volume
from ssl2_bids.workflows.adaptation import torchrun as nodes
from ssl2_bids.workflows.adaptation.cases import label_folders, labelled_in
from ssl2_bids.workflows.adaptation.description import describe as describe_adaptation
from ssl2_bids.workflows.adaptation.plan import (
    Adaptation,
    check_labels,
    label_links,
    plan_adaptation,
)
from ssl2_bids.workflows.cohort.frequency import write_frequency
from ssl2_bids.workflows.cohort.remarks import in_words, warn_of_remarks
from ssl2_bids.workflows.cohort.tables import cohort_rows, name_of_model, write_tables
from ssl2_bids.workflows.current_results import (
    ADAPT_AGAIN,
    UNFINISHED,
    current_results,
    named_together,
    unfinished_results,
)

log = logging.getLogger('ssl2_bids')

BESIDE_USUAL = 'the result is of --sloppy, others are not; run the participant level again'
NAMED = 10  # participants without a result that the terminal names; the page names all


def run_group_level(
    settings: GroupSettings, *, command: str = '', show: ShowLine = log.info
) -> int:
    """Gather what the participant level left in the output folder.

    Returns
    -------
    Exit code: 1 if some results could not be read, else 0.

    Raises
    ------
    NoInputError : there are no results.
    BusyError : another group run holds the output folder.
    """
    participants = select_participants(settings.bids_dir, settings.participants, settings.excluded)
    units = select_sessions(settings.bids_dir, participants, settings.sessions)
    chosen = _select(settings, set(units))
    if not chosen.results and chosen.absent:
        raise chosen.absent[0]
    if not chosen.results:
        reasons = chosen.out_of_date + chosen.damaged
        raise NoInputError(
            'no results of the participant level for the selected participants'
            + (f' ({reasons[0]["name"]}: {reasons[0]["reason"]})' if reasons else ''),
            advice='' if reasons else 'Run "ssl2-bids ... participant" first.',
            path=settings.output_dir,
        )
    results, missing = chosen.results, _missing(units, chosen, settings.output_dir)
    adaptation, former = None, chosen.out_of_date
    try:
        adaptation = plan_adaptation(settings, results)
    finally:
        if adaptation and not settings.dry_run:  # it may segment these again
            again = (UNFINISHED, ADAPT_AGAIN)
            former = [one for one in former if not any(text in one['reason'] for text in again)]
        _warn_of_left_out(former)
    if settings.dry_run:
        show(_describe(settings, results, missing))
        if adaptation:
            show('\n'.join(describe_adaptation(check_labels(adaptation)[0])))
        for problem in chosen.damaged:
            log.error('%s: %s', problem['name'], problem['reason'])
        return SOME_FAILED if chosen.damaged else SUCCESS
    with _lock(settings.output_dir):
        for folder in ('', 'logs', 'figures'):
            remove_leftovers(settings.output_dir / folder)
        lost: list[dict[str, str]] = []
        try:
            if adaptation:
                with _lock_work(settings.work_dir):
                    lost = _adapt(adaptation, show, command)
                chosen = _select(settings, set(units))
                results, missing = chosen.results, _missing(units, chosen, settings.output_dir)
                _warn_of_left_out([one for one in chosen.out_of_date if one not in former])
        finally:
            nodes.send_trainings(None)  # where nothing was trained, the others need not wait
        links = label_links(settings) if adaptation else {}
        models = {r.names.desc: name for r in results if (name := name_of_model(r.sidecar))}
        write_dataset_files(settings.output_dir, settings.bids_dir, links, models)
        frequency, unreadable = _frequency(settings, results)
        rows, problems = cohort_rows(settings, [r for r in results if r.names not in unreadable])
        problems = lost + chosen.damaged + _problems(unreadable) + problems
        if not rows or not frequency:
            for problem in problems[1:]:
                log.error('%s: %s', problem['name'], problem['reason'])
            raise DataError(problems[0]['reason'])  # it has the path and the advice
        write_tables(settings, rows)
        remarks = warn_of_remarks(results)
        named = {one['name'] for one in missing}
        left_out = [one for one in chosen.out_of_date if one['name'] not in named]
        _write_page(settings, rows, frequency, missing + problems, left_out, remarks, command)
    show(in_words(rows))
    for problem in problems:
        log.error('%s: %s', problem['name'], problem['reason'])
    if missing:
        names = ', '.join(m['name'] for m in missing[:NAMED])
        more = f' and {len(missing) - NAMED} more' if len(missing) > NAMED else ''
        show(f'without result ({len(missing)}): {names}{more}')
    show(f'page: {settings.output_dir / output_name("group.page")}')
    return SOME_FAILED if problems else SUCCESS


def _warn_of_left_out(out_of_date: list[dict[str, str]]) -> None:
    """One line for each reason, with all sessions that have it."""
    for names, reason in named_together((one['name'], one['reason']) for one in out_of_date):
        log.warning('left out: %s: %s', names, reason)


@dataclass(frozen=True)
class Selected:
    """One result for each selected session and model, and those that do not count."""

    results: list[Result]
    out_of_date: list[dict[str, str]]
    damaged: list[dict[str, str]]
    absent: list[AbsentResultsError]


def _select(settings: GroupSettings, units: set[tuple[str, str | None]]) -> Selected:
    errors: list[Ssl2Error] = []
    found = find_results(settings.output_dir, errors)
    results, out_of_date = current_results(
        [r for r in found if (r.names.subject, r.names.session) in units]
    )
    damaged, absent = [], []
    counting = {(r.names.subject, r.names.session, r.names.desc) for r in results}
    for error in errors:
        match = MASK_NAME.fullmatch(Path(error.path).name)
        if not match or (match[1], match[2], match['desc'] or '') in counting:
            continue  # that of a mask on another grid, beside the result
        if (match[1], match[2]) in units:
            if isinstance(error, AbsentResultsError):
                absent.append(error)
            damaged.append(_reason(match[1], match[2], str(error)))
    usual = [r for r in results if not is_sloppy(r.sidecar)]
    if usual:  # results of tests of the installation are shown where there is nothing else
        out_of_date += [(r, BESIDE_USUAL) for r in results if is_sloppy(r.sidecar)]
        results = usual
    unfinished = [
        _reason(names.subject, names.session, UNFINISHED)
        for names in unfinished_results(settings.output_dir)
        if (names.subject, names.session) in units
        and (names.subject, names.session, names.desc) not in counting
    ]
    return Selected(
        results,
        [_reason(r.names.subject, r.names.session, text) for r, text in out_of_date] + unfinished,
        damaged,
        absent,
    )


def _reason(subject: str, session: str | None, text: str) -> dict[str, str]:
    name = f'sub-{subject}' + (f'_ses-{session}' if session else '')
    return {'name': name, 'subject': subject, 'reason': text}


def _adapt(adaptation: Adaptation, show: ShowLine, command: str) -> list[dict[str, str]]:
    """Adapt, or take up what was adapted before; the sessions that were not segmented again."""
    from ssl2_bids.networks.weights import check_unneeded_weights, load_network, read_card
    from ssl2_bids.workflows.adaptation.first_results import segmented_by
    from ssl2_bids.workflows.adaptation.outputs import write_adapted
    from ssl2_bids.workflows.adaptation.resegment import resegment
    from ssl2_bids.workflows.adaptation.run import run
    from ssl2_bids.workflows.adaptation.state import begin, finished_before

    settings = adaptation.settings
    work = begin(adaptation, show)
    if finished_before(work):
        show(f'{settings.label}: already adapted with the same labels and settings')
        card = read_card(settings.output_dir / adaptation.folder)
        check_unneeded_weights(card)
    else:
        card = write_adapted(work, run(work))
    if not (card.content['Accepted'] and settings.resegment):
        return []
    cases = []
    for one in work.people:
        names = one.case.result.names
        if segmented_by(card, names.root, (names.subject, names.session)):
            show(f'{one.case.name}: segmented by {card.label} at the participant level')
        else:
            cases.append(one.case)
    failures = resegment(
        cases,
        card,
        load_network(card, work.device),
        device=work.device,
        show=show,
        start=adaptation.card if card.content.get('Rung') == RECALIBRATED else None,
        command=command,
    )
    return [
        {'name': f.case.name, 'subject': f.case.participant, 'reason': str(f.error)}
        for f in failures
    ]


@contextmanager
def _lock(output_dir: Path) -> Iterator[None]:
    """Hold the output folder."""
    path = output_dir / output_name('group.lock')
    with locked(path, ['group']) as busy:
        if busy:
            raise BusyError(
                'another group run works in this output folder',
                advice='Wait until it has ended.',
                path=output_dir,
            )
        yield
        path.unlink(missing_ok=True)


@contextmanager
def _lock_work(work_dir: Path) -> Iterator[None]:
    """Hold the part of the work folder in which prepared scans and trainings lie."""
    with locked(work_dir / ADAPTATION_LOCK, ['adaptation']) as busy:
        if busy:
            raise BusyError(
                'another adaptation works in this work folder',
                advice='Give another folder with -w, or wait until the other run has ended.',
                path=work_dir,
            )
        yield


# what the page needs of a report.json
REPORT: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(('Label', 'Parent', 'Reason', 'Strategy', 'Device'), str),
    **dict.fromkeys(('Accepted', 'Slices'), bool),
    **dict.fromkeys(('Steps', 'Labelled', 'Sessions'), int),
    **dict.fromkeys(('LeftOut', 'Performance', 'Annotate'), list),
    'Minutes': (int, float),
    'Comparison': dict,
}


def _frequency(
    settings: GroupSettings, results: list[Result]
) -> tuple[tuple[Volume, Path] | None, dict[UnitNames, str]]:
    """The map of the model with most results that can be read; the default's at a draw.

    Returns
    -------
    See :func:`write_frequency`, with the unreadable results of all models that were tried.
    """
    labels = [r.names.desc for r in results]
    unreadable: dict[UnitNames, str] = {}
    for model in sorted(set(labels), key=lambda label: (-labels.count(label), label)):
        shown = [r for r in results if r.names.desc == model]
        frequency, damaged = write_frequency(settings, shown, model)
        unreadable |= damaged
        if frequency:
            return frequency, unreadable
    return None, unreadable


def _problems(unreadable: dict[UnitNames, str]) -> list[dict[str, str]]:
    return [
        {'name': unit_name(n.subject, n.session), 'subject': n.subject, 'reason': reason}
        for n, reason in unreadable.items()
    ]


def _missing(
    units: list[tuple[str, str | None]], chosen: Selected, root: Path
) -> list[dict[str, str]]:
    """Sessions without a result that counts, and why; not those whose result is damaged."""
    have = {(r.names.subject, r.names.session) for r in chosen.results}
    known = {one['name']: one for one in chosen.out_of_date if one['reason'] != UNFINISHED}
    damaged = {one['name'] for one in chosen.damaged}
    found = [
        _reason(subject, session, _why_missing(root, subject, session))
        for subject, session in units
        if (subject, session) not in have
    ]
    return [known.get(one['name'], one) for one in found if one['name'] not in damaged]


def _why_missing(root: Path, subject: str, session: str | None) -> str:
    text = 'no result of the participant level'
    for summary in find_summaries(root, subject):
        if summary['session'] == session and summary.get('error'):
            return f'{text}: {summary["error"].get("Message", "it failed")}'
    return text


def _describe(
    settings: GroupSettings, results: list[Result], missing: list[dict[str, str]]
) -> str:
    root = settings.output_dir
    lines = [f'use    {r.names.done_marker.relative_to(root).as_posix()}' for r in results]
    lines += [f'note   {m["name"]}: {m["reason"]}' for m in missing]
    frequency = output_name('group.frequency', space=ATLAS_SPACE)
    table = output_name('group.lesions')
    for name in (
        table,
        sidecar_path(Path(table)),
        frequency,
        sidecar_path(Path(frequency)),
        output_name('group.frequency_figure', space=ATLAS_SPACE),
        output_name('group.page'),
    ):
        lines.append(f'write  {name}')
    return '\n'.join(lines)


def _write_page(
    settings: GroupSettings,
    rows: list[dict[str, Any]],
    frequency: tuple[Volume, Path],
    failed: list[dict[str, str]],
    left_out: list[dict[str, str]],
    remarks: dict[str, list[str]],
    command: str,
) -> None:
    from ssl2_bids.reports import group

    page = settings.output_dir / output_name('group.page')
    figure = frequency[1].relative_to(settings.output_dir).as_posix()
    group.render(
        rows,
        page,
        frequency_figure=figure,
        failed=failed,
        left_out=named_together((one['name'], one['reason']) for one in left_out),
        remarks=remarks,
        version=__version__,
        command=command,
        adaptations=_adaptations(settings.output_dir),
        labelled={
            f'BIDS_DIR/{folder.relative_to(settings.bids_dir).as_posix()}': people
            for folder in label_folders(settings)
            if not settings.labels and (people := labelled_in(folder))
        },
    )


def _adaptations(output_dir: Path) -> list[dict[str, Any]]:
    """The content of the page on each model that was adapted here, the newest first."""
    pattern = output_name('model.report', desc='*')
    found = []
    paths = sorted(finished_files(output_dir, pattern), key=lambda p: p.stat().st_mtime)
    for path in reversed(paths):
        try:
            content = read_sidecar(path)
            if not all(isinstance(content.get(key), kind) for key, kind in REPORT.items()):
                raise DataError('not the report of an adaptation', path=path)
            found.append(content)
        except DataError as error:
            log.warning('%s', error)
    return found
