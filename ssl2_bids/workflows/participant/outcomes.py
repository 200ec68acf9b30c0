"""The outcome of each session of a run, and the exit code of all."""

from __future__ import annotations

import logging
import re
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl2_bids.bids.absent import AbsentResultsError
from ssl2_bids.bids.outputs import results_beside
from ssl2_bids.errors import (
    SOME_FAILED,
    SUCCESS,
    BusyError,
    DataError,
    DeniedError,
    NoInputError,
    ReadError,
    Ssl2Error,
    StorageError,
)
from ssl2_bids.settings import ParticipantSettings
from ssl2_bids.workflows.participant.course import Course
from ssl2_bids.workflows.participant.earlier import KeptResultError
from ssl2_bids.workflows.participant.plan import Plan
from ssl2_bids.workflows.participant.sloppy import UsualResultError

# codes of a run in which every session failed for the same reason
ALONE = (DataError.exit_code, NoInputError.exit_code, 69, BusyError.exit_code)
log = logging.getLogger('ssl2_bids')


@dataclass(frozen=True)
class Outcome:
    """What came of one session: done, failed, skipped, or done by a former run."""

    name: str
    status: str
    reason: str = ''
    exit_code: int = 0
    resources: list[dict[str, Any]] = field(default_factory=list)
    absent: tuple[Path, ...] = ()  # images whose content was not downloaded
    stays: bool = False  # an earlier result was left as it is


def expected_outcome(plan: Plan) -> Outcome:
    """The outcome of a session as far as files and headers show."""
    if plan.session.skipped:
        return Outcome(plan.session.name, 'skipped', plan.session.skipped)
    if plan.session.problem is not None:
        problem = plan.session.problem
        return Outcome(plan.session.name, 'failed', str(problem), problem.exit_code)
    return Outcome(plan.session.name, 'done')


def look(
    plan: Plan,
    settings: ParticipantSettings,
    command: str,
    ended: Exception | None,
    course: Course,
) -> Outcome:
    """Look at what a session left behind; a failed or skipped one gets its summary here.

    Parameters
    ----------
    ended : what the last workflow with this session, as a whole, ended with.
    course : knows which sessions the run began, and the results from before it.
    """
    from ssl2_bids.workflows.participant import graph, summary
    from ssl2_bids.workflows.participant.engine import running, task

    name = plan.session.name
    if plan.session.skipped:
        if results_beside(plan.names):  # the page describes these, and they stay
            return Outcome(name, 'skipped', plan.session.skipped)
        content = summary.base_summary(plan, 'skipped', command)
        content['error'] = {'Message': plan.session.skipped}
        summary.write_summary(plan, content)
        return Outcome(name, 'skipped', plan.session.skipped)
    problem = plan.session.problem
    left_alone = AbsentResultsError | UsualResultError | BusyError | KeptResultError
    if isinstance(problem, left_alone) or (
        isinstance(problem, ReadError | DeniedError) and results_beside(plan.names)
    ):  # results stay as they are
        return Outcome(name, 'failed', str(problem), problem.exit_code, stays=True)
    folder = graph.branch_folder(plan, settings.work_dir)
    if plan.session.problem is None and course.is_done(plan):
        return Outcome(name, 'done', resources=running.resources(folder))
    found = [] if plan.session.problem is not None else running.failures(folder)
    if plan.session.problem is not None:
        failure = task.describe_failure(plan.session.problem, 'choice of images')
    elif found:
        failure = found[0]
    else:
        failure = task.describe_failure(_reason_unfinished(settings, ended), 'run')
        if not course.was_begun(plan) and course.has_result(plan):
            # the result and its summary are as before the run
            return Outcome(name, 'failed', _in_words(failure), failure['ExitCode'], stays=True)
    content = summary.base_summary(plan, 'failed', command)
    content['error'] = {
        'Message': failure['Message'],
        'Advice': failure['Advice'],
        'File': _shorten(failure['File'], settings),
        'Step': failure['Step'],
        'Traceback': _shorten(failure['Traceback'], settings),
    }
    try:
        summary.write_summary(plan, content)
    except Ssl2Error as error:
        log.error('%s', error)
    return Outcome(
        name, 'failed', _in_words(failure), failure['ExitCode'], running.resources(folder)
    )


def _reason_unfinished(settings: ParticipantSettings, ended: Exception | None) -> Ssl2Error:
    """Why a session has neither result nor failure of its own.

    Parameters
    ----------
    ended : what the last workflow with this session, as a whole, ended with.
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


def _in_words(failure: dict[str, Any]) -> str:
    """The message and the advice of a failure, behind its file, in one line."""
    about = f'{failure["File"]}: ' if failure['File'] else ''
    return f'{about}{failure["Message"].rstrip(".")}. {failure["Advice"]}'.strip()


def _shorten(text: str, settings: ParticipantSettings) -> str:
    """A text with the user's folders named instead of spelled out."""
    for name, folder in (
        ('<BIDS_DIR>', settings.bids_dir),
        ('<OUTPUT_DIR>', settings.output_dir),
        ('<WORK_DIR>', settings.work_dir),
        *((f'<{name}>', folder) for name, folder in settings.derivatives.items()),
    ):
        end = r'(?=$|[/\s:;,"\')\]]|\.(?:\s|$))'
        text = re.sub(rf'(?<![\w.-]){re.escape(str(folder))}{end}', name, text)
    return text


def exit_code(outcomes: list[Outcome]) -> int:
    """The exit code of a run (docs/reference/exit-codes.md)."""
    failed = [o for o in outcomes if o.status == 'failed']
    succeeded = [o for o in outcomes if o.status in ('done', 'finished before')]
    if not failed:
        return SUCCESS if succeeded else NoInputError.exit_code
    codes = Counter(o.exit_code for o in failed)
    for decisive in (StorageError.exit_code, 73):
        if decisive in codes:
            return decisive
    if not succeeded and len(codes) == 1 and next(iter(codes)) in ALONE:
        return next(iter(codes))
    return SOME_FAILED
