"""``--longitudinal``: the finished sessions of each participant, compared after all others."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ssl2_bids.bids.outputs import find_visits_summaries, read_visits_summary, sidecar_path
from ssl2_bids.errors import SOME_FAILED, WRITING, DataError, Ssl2Error
from ssl2_bids.files import remove_leftovers, write_json
from ssl2_bids.processes import side_by_side
from ssl2_bids.progress import ShowLine
from ssl2_bids.settings import ParticipantSettings
from ssl2_bids.steps.joint_lesions import segment_jointly
from ssl2_bids.volume import read_grid
from ssl2_bids.workflows.longitudinal.files import write_lesion_table, write_results
from ssl2_bids.workflows.longitudinal.plan import (
    LongitudinalPlan,
    is_finished,
    make_plan,
    planned_outputs,
)
from ssl2_bids.workflows.longitudinal.summary import base_summary, finished_summary
from ssl2_bids.workflows.longitudinal.within import bring_together
from ssl2_bids.workflows.participant import planning
from ssl2_bids.workflows.participant.engine.task import describe_failure
from ssl2_bids.workflows.participant.pages import cited_sentences, update_citation, write_pages
from ssl2_bids.workflows.participant.plan import Plan

log = logging.getLogger('ssl2_bids')

PROCESS, VOXEL = 0.4e9, 40.0  # bytes of a process, and of a voxel of each visit


def run_longitudinal(
    settings: ParticipantSettings,
    code: int,
    *,
    show: ShowLine = log.info,
    stay: Mapping[str, str] | None = None,
) -> int:
    """Compare the finished sessions of each selected participant.

    Parameters
    ----------
    code : of the sessions by themselves.
    show : called with each line for the user.
    stay : sessions whose earlier result was left as it is, with the reason.

    Returns
    -------
    The exit code of both: 1 where all sessions were done and a comparison failed, that of a full
    or unwritable disk where one was met.
    """
    if settings.reports_only or settings.boilerplate_only:
        return code
    # after a run the sessions are finished: --overwrite is for their comparison
    later = settings if settings.dry_run else replace(settings, overwrite=False)
    by_subject = _by_subject(later)
    plans = [_plan_of(subject, one) for subject, one in by_subject.items()]
    todo = []
    for subject, plan in plans:
        if why := _stays(by_subject[subject], settings, stay or {}):
            show(f'sub-{subject}: the comparison of an earlier run stays ({why})')
        elif plan is None or len(plan.visits) < 2:
            show(f'sub-{subject}: {_nothing(plan, settings)}')
        elif settings.dry_run:
            show(_planned(plan, finished=is_finished(plan) and not settings.overwrite))
        elif is_finished(plan) and not settings.overwrite:
            doubt = _doubt(read_visits_summary(plan.summary))
            same = 'sessions compared already with the same results, skipped'
            show(f'sub-{subject}: {same}{f"; {doubt}" if doubt else ""}')
        else:
            todo.append(plan)
    if not todo:
        return code
    root = settings.output_dir
    subjects = {plan.subject for plan in todo}
    former = cited_sentences(root, subjects)
    codes = set()
    try:
        for place, failure in side_by_side(compare, todo, nprocs=_at_once(todo, settings)):
            plan = todo[place]
            if failure:
                log.error('sub-%s: sessions not compared: %s', plan.subject, failure.text)
                codes.add(failure.exit_code)
            else:
                show(f'sub-{plan.subject}: {described(plan)}')
            write_pages(root, {plan.subject})
    finally:
        update_citation(root, subjects, former)
    if code not in WRITING and (full := codes & WRITING):
        return max(full)
    return code or (SOME_FAILED if codes else code)


def _at_once(plans: list[LongitudinalPlan], settings: ParticipantSettings) -> int:
    """How many participants are compared at a time, with the memory that the run has."""
    if settings.low_mem:
        return 1
    needed = max(map(memory_of, plans))
    return max(1, min(settings.nprocs, int(settings.memory_gb * 1e9 / needed)))


def memory_of(plan: LongitudinalPlan) -> float:
    """Bytes of a comparison, about: measured with two visits of 7.7 million voxels (0.95 GB)."""
    voxels = 0.0
    for visit in plan.visits:
        with suppress(DataError):  # the comparison names the file
            voxels += math.prod(read_grid(visit.plan.names.path('anat.brain_mask'))[0])
    return PROCESS + VOXEL * voxels


@dataclass(frozen=True)
class Failure:
    """Why a comparison failed, and the exit code of that."""

    text: str
    exit_code: int


def compare(plan: LongitudinalPlan) -> Failure | None:
    """Compare the sessions of one participant and write all results.

    Returns
    -------
    Why that failed; None where it did not. The page has the reason too.
    """
    former, figures = _outputs_before(plan), list[str]()
    try:
        sidecar_path(plan.table).unlink(missing_ok=True)  # the sign that all is there
        remove_leftovers(plan.table.parent)
        settings = plan.visits[0].plan.settings
        space = bring_together(plan.visits, seed=settings.random_seed)
        found = segment_jointly(
            space.probabilities,
            space.evidence,
            space.grid.with_data(space.brain.astype(np.uint8)),
            threshold=[visit.plan.settings.threshold or 0.5 for visit in plan.visits],
            minimum_volume=settings.min_lesion_volume or 0.0,
            noise=space.noise,
        )
        region_names = write_results(plan, space, found)
        summary = finished_summary(plan, space, found, region_names)
        figures = [figure['File'] for figure in summary['figures']]
        write_json(plan.summary, summary)
        doubts = [*summary['misfits'], *summary['warnings']]
        write_lesion_table(plan, found, region_names, space.noise, doubts)
        _take_away(plan, former, summary)
    except Exception as error:  # noqa: BLE001  others continue; the page has the reason
        failure = describe_failure(error, 'comparison of sessions')
        root = plan.names.root  # what this attempt has written may be taken away later, too
        written = [path.relative_to(root).as_posix() for path in planned_outputs(plan)]
        summary = base_summary(plan, 'failed')
        summary |= {'error': failure, 'former': list(dict.fromkeys([*former, *written, *figures]))}
        try:
            write_json(plan.summary, summary)
        except Ssl2Error as again:
            log.error('%s', again)
        about = f'{failure["File"]}: ' if failure['File'] else ''
        text = f'{about}{failure["Message"].rstrip(".")}. {failure["Advice"]}'.strip()
        return Failure(text, failure['ExitCode'])
    return None


def _by_subject(settings: ParticipantSettings) -> dict[str, list[Plan]]:
    found: dict[str, list[Plan]] = defaultdict(list)
    for plan in planning.plan_sessions(settings):
        found[plan.session.subject].append(plan)
    return dict(sorted(found.items()))


def _plan_of(subject: str, plans: list[Plan]) -> tuple[str, LongitudinalPlan | None]:
    """What is to be done for a participant; None where no session has a result."""
    dry = plans[0].settings.dry_run
    usable, left_out = [], {}
    for plan in plans:
        label = plan.session.session or ''
        if planning.is_runnable(plan) and (dry or planning.is_finished(plan)) and label:
            usable.append(plan)
        elif label:
            reason = plan.session.skipped or plan.session.problem or 'it has no finished result'
            left_out[label] = f'not compared: {reason}'
    return subject, make_plan(subject, usable, left_out) if usable else None


def _stays(plans: list[Plan], settings: ParticipantSettings, stay: Mapping[str, str]) -> str:
    """Why an earlier comparison is left alone; empty where it is made again.

    A session whose result stays, though something that it was made with cannot be used now, is a
    part of the comparison that would be replaced by one without it.
    """
    reasons = {one.session.session: stay.get(one.session.name, '') for one in plans}
    for summary in find_visits_summaries(settings.output_dir, plans[0].session.subject):
        if summary['model'] == plans[0].names.desc and summary['status'] != 'failed':
            for session in summary['configurations']:
                if why := reasons.get(session):
                    return f'ses-{session}: {why}'
    return ''


def _nothing(plan: LongitudinalPlan | None, settings: ParticipantSettings) -> str:
    """Why there is nothing to compare, and what stays of an earlier run."""
    if plan is None:
        return 'no session to compare (--longitudinal needs two finished sessions)'
    label = plan.visits[0].label
    chosen = ' of the selected ones' if settings.sessions else ''
    why = ''.join(f'; ses-{s} is {text}' for s, text in plan.left_out.items())
    if plan.table.is_file():
        why += '; the comparison of an earlier run stays'
    return f'ses-{label} is the only session{chosen} that can be compared: nothing to compare{why}'


def _planned(plan: LongitudinalPlan, *, finished: bool) -> str:
    names = ', '.join(f'ses-{visit.label}' for visit in plan.visits)
    done = ': compared already with the same results' if finished else ''
    lines = [f'sub-{plan.subject}: compare {names}{done}']
    lines += [f'  note   {text}' for text in plan.remarks]
    root = plan.names.root
    paths = planned_outputs(plan)
    paths += [sidecar_path(p) for p in paths if p.suffix != '.txt']
    lines += [f'  write  {p.relative_to(root).as_posix()}' for p in dict.fromkeys(paths)]
    return '\n'.join(lines)


def described(plan: LongitudinalPlan) -> str:
    """The line on a participant that was compared, without its label."""
    summary = read_visits_summary(plan.summary)
    if doubt := _doubt(summary):
        return doubt
    parts = []
    for pair in summary['pairs']:
        counts = ', '.join(
            f'{pair[state]} {state}' for state in ('new', 'enlarging', 'shrinking', 'resolved')
        )
        parts.append(f'ses-{pair["before"]} to ses-{pair["after"]}: {counts}')
    doubts = len(summary['warnings'])
    remark = f' ({doubts} warning{"s" if doubts > 1 else ""}: see the page)' if doubts else ''
    return '; '.join(parts) + remark


def _doubt(summary: dict[str, Any]) -> str:
    """That changes are withheld, and why; empty where they are not."""
    if summary['status'] != 'doubtful':
        return ''
    return '; '.join(summary['misfits']) + '. The changes are not reported: see the page.'


def _outputs_before(plan: LongitudinalPlan) -> list[str]:
    """What an earlier comparison has written."""
    if not plan.summary.is_file():
        return []
    try:
        summary = read_visits_summary(plan.summary)
    except Ssl2Error:
        return []
    figures = [figure['File'] for figure in summary.get('figures', [])]
    return [*summary.get('outputs', []), *figures, *summary.get('former', [])]


def _take_away(plan: LongitudinalPlan, former: list[str], summary: dict[str, Any]) -> None:
    """Remove what an earlier comparison of other sessions wrote, and this one did not."""
    root = plan.names.root
    now = {*summary['outputs'], *(figure['File'] for figure in summary['figures'])}
    others = [one for one in find_visits_summaries(root, plan.subject) if one != summary]
    kept = {name for one in others for name in one.get('outputs', [])}  # of other models
    for name in set(former) - now - kept:
        path = root / name
        if path.is_relative_to(root / f'sub-{plan.subject}') and '..' not in path.parts:
            path.unlink(missing_ok=True)
            if path.suffix != '.svg':
                sidecar_path(path).unlink(missing_ok=True)
