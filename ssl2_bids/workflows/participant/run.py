"""The participant level: choose, run, and report the outcome of each session."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ssl2_bids import __version__
from ssl2_bids.bids.dataset import select_participants, select_sessions
from ssl2_bids.bids.inputs import Session, find_sessions
from ssl2_bids.bids.outputs import (
    find_summaries,
    find_summary,
    output_name,
    stored_configuration,
)
from ssl2_bids.bids.provenance import write_dataset_files
from ssl2_bids.digests import DIGESTS, Digests
from ssl2_bids.errors import (
    SOME_FAILED,
    SUCCESS,
    DataError,
    NoInputError,
    Ssl2Error,
    StorageError,
    UnavailableError,
    UsageError,
)
from ssl2_bids.files import remove_leftovers, write_text
from ssl2_bids.networks.cards import Card
from ssl2_bids.networks.weights import find_model
from ssl2_bids.settings import ATLAS_SPACE, ParticipantSettings
from ssl2_bids.workflows.participant.earlier import renew, take_away
from ssl2_bids.workflows.participant.plan import Plan, all_paths, make_plan, planned_outputs

if TYPE_CHECKING:
    from ssl2_bids.reports.participant import Summary

log = logging.getLogger('ssl2_bids')

MANY = 200  # files whose reading may take a while

# session, stage, 'start' | 'end' | 'exception', number of stages of the session
Progress = Callable[[str, str, str, int], None]


@dataclass(frozen=True)
class Outcome:
    """What came of one session: done, failed, skipped, or done by a former run."""

    name: str
    status: str
    reason: str = ''
    exit_code: int = 0
    resources: list[dict[str, Any]] = field(default_factory=list)


def plan_sessions(settings: ParticipantSettings) -> list[Plan]:
    """Find the images of the asked sessions and settle what to do with each.

    Raises
    ------
    NothingSelectedError, UnavailableError, DataError : see ``bids.inputs`` and
        ``networks.weights``.
    """
    card = find_model(settings.model, settings.output_dir)
    _check_spaces(settings)
    participants = select_participants(settings.bids_dir, settings.participants, settings.excluded)
    units = select_sessions(settings.bids_dir, participants, settings.sessions)
    plans = _plans(units, card, settings, {})
    return [_as_known_before(plan, settings) for plan in plans]


def _plans(
    units: list[tuple[str, str | None]],
    card: Card,
    settings: ParticipantSettings,
    unusable: Mapping[Path, str],
) -> list[Plan]:
    sessions = find_sessions(
        settings.bids_dir,
        units,
        accepted=card.channels,
        required=card.required,
        filters=settings.filters,
        contrasts=settings.contrasts,
        reference=settings.reference,
        unusable=unusable,
    )
    return _planned([_with_missing_spaces(s, settings) for s in sessions], card, settings)


def _planned(sessions: list[Session], card: Card, settings: ParticipantSettings) -> list[Plan]:
    """Plans that know the content of their input files, where it is needed."""
    plans = [make_plan(session, card, settings) for session in sessions]
    if settings.reports_only:
        return plans
    # what a dry run says of a session depends on its files only where there are results
    asked = [not settings.dry_run or plan.names.done_marker.exists() for plan in plans]
    sources = [
        path
        for session, needed in zip(sessions, asked, strict=True)
        if needed and not session.problem
        for scan in session.scans.values()
        for path in scan.sources
    ]
    digests = Digests(settings.work_dir / DIGESTS, trust=not settings.overwrite)
    if len(sources) > MANY:
        log.info('reading the content of %d input files', len(sources))
    digests.of_all(sources, threads=settings.nprocs)
    if not settings.dry_run:
        digests.save()
        log.info('content of the input files: %s', digests.told())
    return [
        make_plan(session, card, settings, digests.of) if needed else plan
        for session, plan, needed in zip(sessions, plans, asked, strict=True)
    ]


def _as_known_before(plan: Plan, settings: ParticipantSettings) -> Plan:
    """The plan without images that a former run found unusable, if that run stands by it."""
    if not _runnable(plan) or settings.overwrite or is_finished(plan):
        return plan
    known = find_summary(plan.names) or {}
    unusable = {
        settings.bids_dir / name: why
        for name, why in known.get('unusable', {}).items()
        if (settings.bids_dir / name).is_file()
    }
    if not unusable:
        return plan
    unit = (plan.session.subject, plan.session.session)
    (again,) = _plans([unit], plan.card, settings, unusable)
    # the configuration holds the content of what was left out: a mended file is tried again
    return again if is_finished(again) else plan


def _without_unusable(plan: Plan, settings: ParticipantSettings) -> Plan | None:
    """What is left to do for a session whose run failed for a part of its images; None if nothing.

    An image costs itself where another can take its place or where it is not needed.
    """
    from ssl2_bids.workflows.participant import graph
    from ssl2_bids.workflows.participant.engine import running

    failures = running.failures(graph.branch_folder(plan, settings.work_dir))
    if any(failure['ExitCode'] != DataError.exit_code for failure in failures):
        return None
    unusable = dict(plan.session.unusable)
    for failure in failures:
        scan = plan.session.scans.get(failure['Node'].rpartition('_')[2])
        named = [p for s in plan.session.scans.values() for p in s.sources]
        about = [p for p in named if str(p) == failure['File']] or list(scan.paths if scan else ())
        unusable |= dict.fromkeys(about, failure['Message'])
    if unusable == plan.session.unusable:
        return None
    unit = (plan.session.subject, plan.session.session)
    (again,) = _plans([unit], plan.card, settings, unusable)
    return again if _runnable(again) else None


def _check_spaces(settings: ParticipantSettings) -> None:
    suffixes = ('anat', 'FLAIR', 'T1w', 'UNIT1', 'T2w', 'T2starw', ATLAS_SPACE)
    for space in settings.output_spaces:
        name, _, modifier = space.partition(':')
        if name not in suffixes:
            raise UnavailableError(
                f'the output space "{space}" is not available',
                advice=f'Choose among: {", ".join(suffixes)}.',
            )
        if modifier not in ('', 'res-1') or (modifier and name != ATLAS_SPACE):
            raise UsageError(f'the output space "{space}" has an unknown modifier')


def _with_missing_spaces(session: Session, settings: ParticipantSettings) -> Session:
    from dataclasses import replace

    wanted = {s.partition(':')[0] for s in settings.output_spaces} - {'anat', ATLAS_SPACE}
    missing = sorted(wanted - set(session.scans)) if session.scans else []
    texts = [f'no mask on the grid of {m}: the session has no such image' for m in missing]
    if session.reference in wanted:
        texts.append(
            f'{session.reference} is the reference: the result itself lies on its raw grid '
            f'(space-{session.reference})'
        )
    return replace(session, warnings=(*session.warnings, *texts))


def describe_plans(plans: list[Plan], settings: ParticipantSettings) -> str:
    """What ``--dry-run`` prints: for each session the files used, left out and written."""
    lines = []
    for plan in plans:
        session = plan.session
        lines.append(session.name)
        if session.skipped or session.problem:
            lines.append(f'  nothing to do: {session.skipped or session.problem}')
        if is_finished(plan) and not settings.overwrite:
            lines.append('  finished by an earlier run; --overwrite processes it again')
        for contrast, scan in session.scans.items():
            mark = ' (reference)' if contrast == session.reference else ''
            files = ', '.join(_below(p, settings.bids_dir) for p in scan.sources)
            lines.append(f'  use    {contrast}{mark}: {files}')
        for path, why in session.dropped:
            lines.append(f'  leave  {_below(path, settings.bids_dir)}: {why}')
        lines += [f'  note   {text}' for text in session.warnings]
        if _runnable(plan):
            lines += [f'  write  {_below(p, settings.output_dir)}' for p in all_paths(plan)]
            lines.append(f'  write  {output_name("report.page", subject=session.subject)}')
    return '\n'.join(lines)


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _runnable(plan: Plan) -> bool:
    return not plan.session.skipped and plan.session.problem is None


def run_participant_level(
    settings: ParticipantSettings,
    *,
    command: str = '',
    say: Callable[[str], None] = log.info,
    progress: Progress | None = None,
) -> tuple[int, list[Outcome]]:
    """Process the asked sessions.

    Parameters
    ----------
    command : the command line, for the reports.
    say : called with each line for the user; ``progress`` with every stage.

    Returns
    -------
    Exit code and the outcome of each session, in order.

    Raises
    ------
    Ssl2Error : what makes the whole run impossible.
    """
    plans = plan_sessions(settings)
    if settings.dry_run:
        say(describe_plans(plans, settings))
        return exit_code([_expected(p) for p in plans]), []
    if settings.reports_only:
        pages = write_pages(settings.output_dir, {p.session.subject for p in plans})
        if not pages:
            raise NoInputError(
                'there are no results to report on',
                path=settings.output_dir,
                advice='Run the participant level first.',
            )
        return SUCCESS, []
    finished, todo = _split(plans, settings.overwrite)
    runnable = [p for p in todo if _runnable(p)]
    device = _checked_device(settings) if runnable else ''
    told = f'device: {device}; ' if device else ''
    say(f'{told}model: {plans[0].card.name} {plans[0].card.version}')
    _remove_leftovers(plans, settings.output_dir)
    write_dataset_files(settings.output_dir, settings.bids_dir)
    for plan in finished:
        say(f'{plan.session.name}: already finished with the same inputs and settings, skipped')
        take_away(plan.names)  # a run that was stopped at its very end did not
        renew(plan)
    ended: Exception | None = None
    try:
        while runnable:
            ended = _run(runnable, settings, device=device, command=command, progress=progress)
            # nipype's word on failed nodes does not matter here: their own files say why
            again = not settings.stop_on_first_crash
            runnable = _again(runnable, plans, settings) if again else []
    finally:
        before = {plan.session.name for plan in finished}
        outcomes = [
            Outcome(plan.session.name, 'finished before')
            if plan.session.name in before
            else _outcome(plan, settings, command, ended)
            for plan in plans
        ]
        write_pages(settings.output_dir, {p.session.subject for p in plans})
        _write_citation(settings.output_dir)
    return exit_code(outcomes), outcomes


def _checked_device(settings: ParticipantSettings) -> str:
    """The device, once it is known that it and the plugin asked for are there."""
    from ssl2_bids.device import choose_device
    from ssl2_bids.workflows.participant.engine import running

    if settings.plugin:
        running.check_plugin(settings.plugin['plugin'])
    return choose_device(settings.device)


def _remove_leftovers(plans: list[Plan], output_dir: Path) -> None:
    """Take away what a killed run left below an output folder, where this run will write."""
    folders = {output_dir, output_dir / 'logs'}
    for plan in plans:
        folders |= {plan.names.done_marker.parent, plan.names.path('report.summary').parent}
    for folder in folders:
        remove_leftovers(folder)


def _expected(plan: Plan) -> Outcome:
    """The outcome of a session as far as files and headers show."""
    if plan.session.skipped:
        return Outcome(plan.session.name, 'skipped', plan.session.skipped)
    if plan.session.problem is not None:
        problem = plan.session.problem
        return Outcome(plan.session.name, 'failed', str(problem), problem.exit_code)
    return Outcome(plan.session.name, 'done')


def _split(plans: list[Plan], overwrite: bool) -> tuple[list[Plan], list[Plan]]:
    finished: list[Plan] = []
    todo: list[Plan] = []
    for plan in plans:
        done = _runnable(plan) and not overwrite and is_finished(plan)
        (finished if done else todo).append(plan)
    return finished, todo


def is_finished(plan: Plan) -> bool:
    """Whether the result of just these inputs and settings stands, with all its files."""
    if not plan.configuration or stored_configuration(plan.names) != plan.configuration:
        return False
    return all(path.is_file() and path.stat().st_size for path in planned_outputs(plan))


def _again(done: list[Plan], plans: list[Plan], settings: ParticipantSettings) -> list[Plan]:
    """The sessions that are run again without an image that failed; they replace their plans."""
    fresh = []
    for plan in done:
        again = _without_unusable(plan, settings)
        if again is not None:
            for path, why in again.session.unusable.items():
                if path not in plan.session.unusable:
                    log.warning(
                        '%s: continuing without %s: %s', again.session.name, path.name, why
                    )
            plans[plans.index(plan)] = again
            fresh.append(again)
    return fresh


def _run(
    plans: list[Plan],
    settings: ParticipantSettings,
    *,
    device: str,
    command: str,
    progress: Progress | None,
) -> Exception | None:
    from ssl2_bids.workflows.participant import graph
    from ssl2_bids.workflows.participant.engine import running

    for plan in plans:
        folder = graph.branch_folder(plan, settings.work_dir)
        if settings.overwrite:
            shutil.rmtree(folder, ignore_errors=True)
        running.forget_failures(folder)
    workflow = graph.build_workflow(plans, settings, device=device, command=command)
    gpus = 0 if device == 'cpu' else 1
    return running.run(workflow, settings, gpus=gpus, progress=progress)


def _outcome(
    plan: Plan, settings: ParticipantSettings, command: str, ended: Exception | None
) -> Outcome:
    """Look at what a session left behind; a failed or skipped one gets its summary here.

    Parameters
    ----------
    ended : what the workflow as a whole ended with.
    """
    from ssl2_bids.workflows.participant import graph, summary
    from ssl2_bids.workflows.participant.engine import running, task

    name = plan.session.name
    if plan.session.skipped:
        content = summary.base_summary(plan, 'skipped', command)
        content['warnings'].append(f'not processed: {plan.session.skipped}')
        summary.write_summary(plan, content)
        return Outcome(name, 'skipped', plan.session.skipped)
    folder = graph.branch_folder(plan, settings.work_dir)
    if plan.session.problem is None and (is_finished(plan) and not running.failures(folder)):
        return Outcome(name, 'done', resources=running.resources(folder))
    if plan.session.problem is not None:
        failure = task.describe_failure(plan.session.problem, 'choice of images')
    else:
        found = running.failures(folder)
        failure = found[0] if found else task.describe_failure(_unfinished(settings, ended), 'run')
    content = summary.base_summary(plan, 'failed', command)
    content['error'] = {
        'Message': failure['Message'],
        'Advice': failure['Advice'],
        'File': _shortened(failure['File'], settings),
        'Step': failure['Step'],
        'Traceback': _shortened(failure['Traceback'], settings),
    }
    try:
        summary.write_summary(plan, content)
    except Ssl2Error as error:
        log.error('%s', error)
    reason = f'{failure["File"]}: {failure["Message"]}' if failure['File'] else failure['Message']
    reason = f'{reason.rstrip(".")}. {failure["Advice"]}'.strip()
    return Outcome(name, 'failed', reason, failure['ExitCode'], running.resources(folder))


def _unfinished(settings: ParticipantSettings, ended: Exception | None) -> Ssl2Error:
    """Why a session has neither result nor failure of its own.

    Parameters
    ----------
    ended : what the workflow as a whole ended with.
    """
    from ssl2_bids.workflows.participant.engine import running

    for folder in (settings.work_dir, settings.output_dir):
        if folder.exists() and shutil.disk_usage(folder).free < 2**20:
            return StorageError(
                'the disk is full',
                path=folder,
                advice='Free some space and run the same command again: finished work is kept.',
            )
    again = 'run the same command again: finished work is kept.'
    if ended is None:
        return Ssl2Error(
            'the run was interrupted before this session was finished', advice=again.capitalize()
        )
    if settings.stop_on_first_crash:
        message = 'the run was stopped by another failure (--stop-on-first-crash): '
    else:
        message = 'the run ended before this session was finished: '
    error = Ssl2Error(message + running.cause_of(ended), advice=f'Correct this, then {again}')
    error.__cause__ = ended
    return error


def _shortened(text: str, settings: ParticipantSettings) -> str:
    """A text with the user's folders named instead of spelled out."""
    for name, folder in (
        ('<BIDS_DIR>', settings.bids_dir),
        ('<OUTPUT_DIR>', settings.output_dir),
        ('<WORK_DIR>', settings.work_dir),
    ):
        text = text.replace(str(folder), name)
    return text


def write_pages(output_dir: Path, subjects: set[str]) -> list[Path]:
    """Write the page of each participant from its summaries; the pages written."""
    from ssl2_bids.reports import participant

    pages = []
    for subject in sorted(subjects):
        summaries = find_summaries(output_dir, subject)
        if summaries:
            page = output_dir / output_name('report.page', subject=subject)
            participant.render(
                cast('list[Summary]', summaries), page, subject=subject, version=__version__
            )
            pages.append(page)
    return pages


def _write_citation(output_dir: Path) -> None:
    """``logs/CITATION.*``: the methods of all finished sessions below an output folder."""
    from ssl2_bids.reports import citations

    subjects = sorted(p.name[4:] for p in output_dir.glob('sub-*') if p.is_dir())
    sentences: dict[str, None] = {}
    for subject in subjects:
        for summary in find_summaries(output_dir, subject):
            sentences.update(dict.fromkeys(summary['methods']))
    if sentences:
        for name, text in citations.documents(list(sentences)).items():
            write_text(output_dir / 'logs' / name, text)


def exit_code(outcomes: list[Outcome]) -> int:
    """The exit code of a run (BIDS.md 3.3)."""
    failed = [o for o in outcomes if o.status == 'failed']
    succeeded = [o for o in outcomes if o.status in ('done', 'finished before')]
    if not failed:
        return SUCCESS if succeeded else NoInputError.exit_code
    codes = Counter(o.exit_code for o in failed)
    for decisive in (StorageError.exit_code, 73):
        if decisive in codes:
            return decisive
    if not succeeded and len(codes) == 1 and next(iter(codes)) in (DataError.exit_code, 69):
        return next(iter(codes))
    return SOME_FAILED
