"""The participant level: choose, run, and report the outcome of each session."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ssl2_bids.bids.dataset import branch_name
from ssl2_bids.bids.outputs import AGAIN, damaged_summaries, find_summaries, output_name
from ssl2_bids.bids.provenance import BRAIN_MASKS, write_dataset_files
from ssl2_bids.errors import (
    SOME_FAILED,
    SUCCESS,
    BusyError,
    DataError,
    NoInputError,
    UnavailableError,
)
from ssl2_bids.files import remove_leftovers
from ssl2_bids.locks import LOCK, locked
from ssl2_bids.networks.weights import check_output, check_unneeded_weights, check_weights
from ssl2_bids.progress import NodeProgress, ShowLine
from ssl2_bids.settings import ParticipantSettings
from ssl2_bids.workflows.participant import sloppy
from ssl2_bids.workflows.participant.course import Course
from ssl2_bids.workflows.participant.earlier import renew, take_away
from ssl2_bids.workflows.participant.engine.server import start_server
from ssl2_bids.workflows.participant.outcomes import Outcome, exit_code, expected_outcome, look
from ssl2_bids.workflows.participant.pages import (
    cited_sentences,
    update_citation,
    write_citation,
    write_pages,
)
from ssl2_bids.workflows.participant.plan import Plan
from ssl2_bids.workflows.participant.planning import (
    describe_plans,
    is_finished,
    is_runnable,
    plan_sessions,
    unused_folders,
    with_checked_transforms,
    without_unusable,
)

log = logging.getLogger('ssl2_bids')


def run_participant_level(
    settings: ParticipantSettings,
    *,
    command: str = '',
    show: ShowLine = log.info,
    progress: NodeProgress | None = None,
) -> tuple[int, list[Outcome]]:
    """Process the asked sessions.

    Parameters
    ----------
    command : the command line, for the reports.
    show : called with each line for the user; ``progress`` with every stage.

    Returns
    -------
    Exit code and the outcome of each session, in order.

    Raises
    ------
    Ssl2Error : what makes the whole run impossible.
    """
    plans = plan_sessions(settings)
    if settings.sloppy:
        log.warning('results are %s', sloppy.WARNING)
    if settings.dry_run:
        show(describe_plans(plans, settings))
        _check_weights(plans, settings)
        if any(map(is_runnable, plans)):
            _show_unavailable(settings, show)
        return exit_code([expected_outcome(p) for p in plans]), []
    if settings.boilerplate_only:
        _write_boilerplate(plans, settings, show)
        return exit_code([expected_outcome(p) for p in plans]), []
    if settings.reports_only:
        return _write_pages_again(plans, settings)
    _check_weights(plans, settings)  # before hours of preprocessing
    plans = [with_checked_transforms(plan, settings) for plan in plans]
    with _held(plans, settings) as held:
        return _process(held, settings, command=command, show=show, progress=progress)


@contextmanager
def _held(plans: list[Plan], settings: ParticipantSettings) -> Iterator[list[Plan]]:
    """The sessions, held in the work folder; those that another run holds have that problem."""
    todo = [p for p in _split(plans, settings.overwrite)[1] if is_runnable(p)]
    if not todo:
        yield plans
        return

    problem = BusyError(
        'another run is processing this session in this work folder',
        advice='Wait until that run has ended, or give another folder with --work-dir.',
        path=settings.work_dir,
    )
    names = {plan.names: branch_name(plan.session.name) for plan in todo}
    with locked(settings.work_dir / LOCK, list(names.values())) as busy:
        yield [
            replace(plan, session=replace(plan.session, problem=problem))
            if names.get(plan.names) in busy
            else plan
            for plan in plans
        ]


def _process(
    plans: list[Plan],
    settings: ParticipantSettings,
    *,
    command: str,
    show: ShowLine,
    progress: NodeProgress | None,
) -> tuple[int, list[Outcome]]:
    finished, todo = _split(plans, settings.overwrite)
    runnable = [p for p in todo if is_runnable(p)]
    if runnable:
        start_server(settings)
    device = _checked_device(settings) if runnable else ''
    device_text = f'device: {device}; ' if device else ''
    show(f'{device_text}model: {plans[0].card.name} {plans[0].card.version}')
    for text in unused_folders(plans, settings):
        log.warning('%s', text)
    _remove_leftovers(plans, settings.output_dir)
    links = dict(settings.derivatives)
    links |= {BRAIN_MASKS: settings.brain_mask} if settings.brain_mask else {}
    models = {plan.names.desc: plan.card.name for plan in plans}
    write_dataset_files(settings.output_dir, settings.bids_dir, links, models)
    for plan in finished:
        show(f'{plan.session.name}: already finished with the same inputs and settings, skipped')
        take_away(plan.names)  # a run that was stopped at its very end did not
        renew(plan)
    subjects = {plan.session.subject for plan in plans}
    former = cited_sentences(settings.output_dir, subjects)
    course = Course(runnable, settings)
    ended: dict[str, Exception | None] = {}  # by session, what its last pass ended with
    try:
        asked = settings
        while runnable:
            names = {plan.session.name for plan in runnable}
            ended |= dict.fromkeys(names)  # where this pass is interrupted
            error = _run(
                runnable, asked, course, device=device, command=command, progress=progress
            )
            ended |= dict.fromkeys(names, error)  # other sessions keep that of their pass
            asked = replace(settings, overwrite=False)  # what the first pass made is kept
            # nipype's message on failed nodes is not needed: their own files have the reason
            again = not settings.stop_on_first_crash
            runnable = _again(runnable, plans, settings) if again else []
    finally:
        before = {plan.session.name for plan in finished}
        found = [
            Outcome(plan.session.name, 'finished before')
            if plan.session.name in before
            else look(plan, settings, command, ended.get(plan.session.name), course)
            for plan in plans
        ]
        outcomes = [
            replace(outcome, absent=plan.session.absent)
            for outcome, plan in zip(found, plans, strict=True)
        ]
        write_pages(settings.output_dir, subjects)
        update_citation(settings.output_dir, subjects, former)
    return exit_code(outcomes), outcomes


def _write_pages_again(
    plans: list[Plan], settings: ParticipantSettings
) -> tuple[int, list[Outcome]]:
    """The pages from the summaries there are; a summary that cannot be read is a failure."""
    pages = write_pages(settings.output_dir, {plan.session.subject for plan in plans})
    damaged = []
    for subject in sorted({plan.session.subject for plan in plans}):
        for path in damaged_summaries(settings.output_dir, subject):
            reason = f'{path.name} cannot be read. {AGAIN}'
            damaged.append(Outcome(f'sub-{subject}', 'failed', reason, DataError.exit_code))
    made = {page.name for page in pages}
    for subject in sorted({plan.session.subject for plan in plans}):
        page = output_name('report.page', subject=subject)
        if page not in made and find_summaries(settings.output_dir, subject):
            reason = f'{page} cannot be made: see the log. {AGAIN}'
            damaged.append(Outcome(f'sub-{subject}', 'failed', reason, DataError.exit_code))
    if damaged:
        return SOME_FAILED if pages else exit_code(damaged), damaged
    if not pages:
        raise NoInputError(
            'there are no results to report on',
            path=settings.output_dir,
            advice='Run the participant level first.',
        )
    return SUCCESS, []


def _write_boilerplate(plans: list[Plan], settings: ParticipantSettings, show: ShowLine) -> None:
    """Write the methods text as it will be after a run of these plans."""
    from ssl2_bids.workflows.participant.expected_methods import expected_methods

    for plan in plans:
        if not is_runnable(plan):
            reason = plan.session.skipped or plan.session.problem
            show(f'{plan.session.name}: not described: {reason}')
    todo = _split(plans, settings.overwrite)[1]
    expected = {plan.names: expected_methods(plan) for plan in todo if is_runnable(plan)}
    for path in write_citation(settings.output_dir, expected):
        show(f'methods text: {path}')


def _checked_device(settings: ParticipantSettings) -> str:
    """The device, once it is known that it and the plugin asked for are there."""
    from ssl2_bids.device import choose_device
    from ssl2_bids.workflows.participant.engine import batch

    if settings.plugin:
        batch.check_plugin(settings.plugin['plugin'])
    return choose_device(settings.device)


def _check_weights(plans: list[Plan], settings: ParticipantSettings) -> None:
    """Check the weights, also where all is finished: results are not of another file's weights."""
    if any(map(is_runnable, _split(plans, settings.overwrite)[1])):
        check_output(plans[0].card)
        check_weights(plans[0].card)
    elif any(map(is_runnable, plans)):
        check_unneeded_weights(plans[0].card)


def _show_unavailable(settings: ParticipantSettings, show: ShowLine) -> None:
    """Report a GPU or plugin that is not here; the run may be planned for another machine."""
    if settings.device in ('auto', 'cpu') and not settings.plugin:
        return  # and PyTorch is not imported
    try:
        _checked_device(settings)
    except UnavailableError as error:
        show(f'On this machine the run would stop: {error}')


def _remove_leftovers(plans: list[Plan], output_dir: Path) -> None:
    """Take away what a killed run left below an output folder, where this run will write."""
    folders = {output_dir, output_dir / 'logs'}
    for plan in plans:
        folders |= {plan.names.done_marker.parent, plan.names.path('report.summary').parent}
    for folder in folders:
        remove_leftovers(folder)


def _split(plans: list[Plan], overwrite: bool) -> tuple[list[Plan], list[Plan]]:
    finished: list[Plan] = []
    todo: list[Plan] = []
    for plan in plans:
        done = is_runnable(plan) and not overwrite and is_finished(plan)
        (finished if done else todo).append(plan)
    return finished, todo


def _again(done: list[Plan], plans: list[Plan], settings: ParticipantSettings) -> list[Plan]:
    """The sessions that are run again without an image that failed; they replace their plans."""
    fresh = []
    for plan in done:
        again = without_unusable(plan, settings)
        if again is not None:
            plans[plans.index(plan)] = again
            if not is_runnable(again):
                continue
            for path, why in again.session.unusable.items():
                if path not in plan.session.unusable:
                    log.warning(
                        '%s: continuing without %s: %s', again.session.name, path.name, why
                    )
            fresh.append(again)
    return fresh


def _run(
    plans: list[Plan],
    settings: ParticipantSettings,
    course: Course,
    *,
    device: str,
    command: str,
    progress: NodeProgress | None,
) -> Exception | None:
    """Run the workflow of all sessions, or one after another workflows of some of them."""
    from ssl2_bids.workflows.participant import graph
    from ssl2_bids.workflows.participant.engine import running

    cached = set()
    for plan in plans:
        folder = graph.branch_folder(plan, settings.work_dir)
        if settings.overwrite:
            shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            cached.add(plan.names)
        running.forget_failures(folder)
    sessions = {branch_name(plan.session.name): plan for plan in plans}

    def follow(session: str, stage: str, status: str, stages: int) -> None:
        if status == 'start':
            course.note_begun(session)
        if progress is not None:
            plan = sessions[session]
            failed = stage == graph.LAST and status == 'end' and not course.is_done(plan)
            name = plan.session.name
            progress(name, stage, 'failed' if failed else status, stages)
        if stage == graph.LAST and status == 'end':
            _conclude(sessions[session], settings, course)

    gpus = 0 if device == 'cpu' else 1
    at_once = running.sessions_at_once(settings) or len(plans)
    ended: Exception | None = None
    for start in range(0, len(plans), at_once):
        part = plans[start : start + at_once]
        workflow = graph.build_workflow(part, settings, device=device, command=command)
        error = running.run(workflow, settings, gpus=gpus, progress=follow)
        known = [p for p in part if p.names in cached]
        damaged = [p for p in known if _is_damaged(p, settings, course, error)]
        for plan in damaged:
            log.warning('%s: intermediate files are damaged: made again', plan.session.name)
            shutil.rmtree(graph.branch_folder(plan, settings.work_dir), ignore_errors=True)
        if damaged:
            again, first = [p for p in part if not course.is_done(p)], None
            if not isinstance(error, running.DAMAGED):  # else it ended the others, too
                first = error if len(again) > len(damaged) else None
                again = damaged
            workflow = graph.build_workflow(again, settings, device=device, command=command)
            error = running.run(workflow, settings, gpus=gpus, progress=follow) or first
        if isinstance(error, running.DAMAGED):
            raise error  # no cache is left that could be at fault
        for plan in part:
            _clean(plan, settings, course)  # some plugins do not report the end of a stage
        ended = ended or error
        if ended is not None and settings.stop_on_first_crash:
            break
    return ended


def _is_damaged(
    plan: Plan, settings: ParticipantSettings, course: Course, error: Exception | None
) -> bool:
    """Whether a session failed because of its intermediate files of an earlier run."""
    from ssl2_bids.workflows.participant import graph
    from ssl2_bids.workflows.participant.engine import running

    folder = graph.branch_folder(plan, settings.work_dir)
    if isinstance(error, running.DAMAGED):  # nipype's own files: whose is unknown
        return not course.is_done(plan)
    failures = running.failures(folder)
    blamed = [Path(one['File']) for one in failures if one['File']]
    unexpected = any(one['Unexpected'] for one in failures)
    return unexpected or any(path.is_relative_to(folder) for path in blamed)


def _conclude(plan: Plan, settings: ParticipantSettings, course: Course) -> None:
    """What a session needs once its results stand, while others are still processed.

    nipype's Linear plugin reports the end of stages, too, that it left out after a failure.
    """
    _clean(plan, settings, course)
    write_pages(settings.output_dir, {plan.session.subject})


def _clean(plan: Plan, settings: ParticipantSettings, course: Course) -> None:
    """Take away the intermediate files of a session that is done, if that was asked."""
    from ssl2_bids.workflows.participant import graph

    if settings.clean_workdir and not settings.resource_monitor and course.is_done(plan):
        shutil.rmtree(graph.branch_folder(plan, settings.work_dir), ignore_errors=True)
