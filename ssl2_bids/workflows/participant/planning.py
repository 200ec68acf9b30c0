"""The plans of all sessions of a run: which images, which settings, what is left to do."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ssl2_bids.bids.absent import AbsentResultsError, how_to_get, how_to_get_each, is_absent
from ssl2_bids.bids.dataset import select_participants, select_sessions
from ssl2_bids.bids.filters import SUFFIXES_OF
from ssl2_bids.bids.folder_names import warn_of_folders, warn_of_labels
from ssl2_bids.bids.given_datasets import GivenFileError, given_file_error
from ssl2_bids.bids.inputs import Session, find_sessions
from ssl2_bids.bids.outputs import (
    find_summary,
    output_name,
    sidecar_if_any,
    stored_configuration,
)
from ssl2_bids.bids.template_spaces import Template, TemplateSpace, missing_templates
from ssl2_bids.contrasts import SIMILAR, SUFFIXES
from ssl2_bids.digests import DIGESTS, Digests
from ssl2_bids.errors import DataError, NoInputError, UnavailableError
from ssl2_bids.files import as_ssl2_error
from ssl2_bids.networks.cards import Card
from ssl2_bids.networks.weights import find_model
from ssl2_bids.settings import ParticipantSettings
from ssl2_bids.workflows.current_results import check_model
from ssl2_bids.workflows.participant.earlier import KeptResultError, kept
from ssl2_bids.workflows.participant.make_plan import make_plan
from ssl2_bids.workflows.participant.plan import Plan, file_name, is_given
from ssl2_bids.workflows.participant.planned_outputs import (
    all_paths,
    planned_outputs,
)
from ssl2_bids.workflows.participant.sloppy import check_replaced
from ssl2_bids.workflows.participant.templates import (
    by_template,
    checked_transforms,
    output_templates,
)

log = logging.getLogger('ssl2_bids')

MANY_FILES = 200  # files whose reading may take a while


def plan_sessions(settings: ParticipantSettings) -> list[Plan]:
    """Find the images of the asked sessions and settle what to do with each.

    Raises
    ------
    NothingSelectedError, UnavailableError, DataError : see ``bids.inputs`` and
        ``networks.weights``.
    UsageError : the output folder has another model of the same label.
    """
    card = find_model(settings.model, settings.output_dir)
    if not settings.reports_only:
        check_model(card, settings.output_dir)
    digests = Digests(settings.work_dir / DIGESTS, trust=not settings.overwrite)
    missing: dict[TemplateSpace, UnavailableError] = {}
    templates = output_templates(
        settings.output_spaces, digests.of, missing if settings.derivatives else None
    )
    participants = select_participants(settings.bids_dir, settings.participants, settings.excluded)
    units = select_sessions(settings.bids_dir, participants, settings.sessions)
    warn_of_labels(units)
    warn_of_folders(settings.bids_dir, participants)
    plans = _plans(units, card, settings, {}, templates, missing)
    problems = [plan.session.problem for plan in plans if not plan.session.skipped]
    if problems and all(problem in missing.values() for problem in problems):
        raise missing_templates(list(missing))
    plans = [check_replaced(_with_results_here(plan, settings), settings) for plan in plans]
    plans = [_as_known_before(plan, settings) for plan in plans]
    return [plan if is_runnable(plan) and is_finished(plan) else kept(plan) for plan in plans]


def _plans(
    units: list[tuple[str, str | None]],
    card: Card,
    settings: ParticipantSettings,
    unusable: Mapping[Path, str],
    templates: tuple[Template, ...],
    missing: Mapping[TemplateSpace, UnavailableError] | None = None,
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
        derivatives=settings.derivatives,
        database_dir=settings.bids_database_dir,
    )
    sessions = [_with_required(_with_missing_spaces(s, settings), settings) for s in sessions]
    return _plan_sessions(sessions, card, settings, templates, missing or {})


def _plan_sessions(
    sessions: list[Session],
    card: Card,
    settings: ParticipantSettings,
    templates: tuple[Template, ...],
    missing: Mapping[TemplateSpace, UnavailableError],
) -> list[Plan]:
    """Plans that know the content of their input files, where it is needed."""
    plans = [make_plan(session, card, settings, None, templates, missing) for session in sessions]
    if settings.reports_only:
        return plans
    # what is stated on a session before a run depends on its files only where there are results
    looks = settings.dry_run or settings.boilerplate_only
    asked = [not looks or plan.names.done_marker.exists() for plan in plans]
    sources = [
        path
        for session, needed in zip(sessions, asked, strict=True)
        if needed and not session.problem
        for scan in session.scans.values()
        for path in scan.sources
    ]
    digests = Digests(settings.work_dir / DIGESTS, trust=not settings.overwrite)
    if len(sources) > MANY_FILES:
        log.info('reading the content of %d input files', len(sources))
    digests.of_all(sources, threads=settings.nprocs)
    if not looks:
        digests.save()
        log.info('content of the input files: %s', digests.summary())
    return [
        make_plan(session, card, settings, digests.of, templates, missing) if needed else plan
        for session, plan, needed in zip(sessions, plans, asked, strict=True)
    ]


def _as_known_before(plan: Plan, settings: ParticipantSettings) -> Plan:
    """The plan without images that a former run found unusable, if that run stands by it."""
    if not is_runnable(plan) or settings.overwrite or is_finished(plan):
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
    (again,) = _plans([unit], plan.card, settings, unusable, plan.templates)
    # the configuration holds the content of what was left out: a repaired file is tried again
    return again if is_finished(again) else plan


def without_unusable(plan: Plan, settings: ParticipantSettings) -> Plan | None:
    """What is left to do for a session whose run failed for a part of its images; None if nothing.

    Where a result was made with these images, the problem of the plan is that this result stays.

    An image is left out where another can take its place or where it is not needed.
    """
    from ssl2_bids.workflows.participant import graph
    from ssl2_bids.workflows.participant.engine import running

    failures = running.failures(graph.branch_folder(plan, settings.work_dir))
    if any(failure['ExitCode'] != DataError.exit_code for failure in failures):
        return None
    for failure in failures:
        if path := _given_file(plan, failure['File']):
            problem = GivenFileError(failure['Message'], advice=failure['Advice'], path=path)
            again = kept(replace(plan, session=replace(plan.session, problem=problem)))
            # nothing takes the place of what was given
            return again if isinstance(again.session.problem, KeptResultError) else None
    unusable = dict(plan.session.unusable)
    for failure in failures:
        scan = plan.session.scans.get(failure['Node'].rpartition('_')[2])
        about = _sources(plan, {failure['File']}) or list(scan.paths if scan else ())
        unusable |= dict.fromkeys(about, failure['Message'])
    if unusable == plan.session.unusable:
        return None
    unit = (plan.session.subject, plan.session.session)
    (again,) = _plans([unit], plan.card, settings, unusable, plan.templates)
    again = kept(again)
    stays = isinstance(again.session.problem, KeptResultError)
    return again if stays or is_runnable(again) else None


def _given_file(plan: Plan, name: str) -> Path | None:
    """A file of ``-d`` or ``--brain-mask`` that a session uses, by its path; None if it is raw."""
    given = [path for path in _sources(plan, {name}) if is_given(plan, path)]
    given += [plan.brain_mask.path] if plan.brain_mask else []
    given += [path for ways in plan.transforms.values() for path in (ways.forward, ways.backward)]
    given += [p for t in plan.templates if t.uri.startswith('bids:') for p in (t.image, t.mask)]
    return next((path for path in given if str(path) == name), None)


def _sources(plan: Plan, files: set[str]) -> list[Path]:
    """Those of some files that images of a session are made from."""
    return [p for s in plan.session.scans.values() for p in s.sources if str(p) in files]


def _with_missing_spaces(session: Session, settings: ParticipantSettings) -> Session:
    wanted = {s.partition(':')[0] for s in settings.output_spaces} & set(SUFFIXES)
    missing = sorted(wanted - set(session.scans)) if session.scans else []
    texts = [f'no mask on the grid of {m}: the session has no such image' for m in missing]
    if session.reference in wanted:
        texts.append(
            f'{session.reference} is the reference: the result itself lies on its raw grid '
            f'(space-{session.reference})'
        )
    return replace(session, warnings=(*session.warnings, *texts))


def _with_results_here(plan: Plan, settings: ParticipantSettings) -> Plan:
    """The plan, or that results of an earlier run are known and their content is absent."""
    if not is_runnable(plan) or settings.overwrite:
        return plan
    files = [plan.names.done_marker, *planned_outputs(plan)]
    try:
        absent = [path for path in files if is_absent(path)]
    except OSError as error:  # a folder without the permission to look into it
        path = Path(error.filename or settings.output_dir)
        return replace(plan, session=replace(plan.session, problem=as_ssl2_error(error, path)))
    if not absent:
        return plan
    problem = AbsentResultsError(
        'the results of an earlier run are not here',
        advice=how_to_get(settings.output_dir, absent),
    )
    return replace(plan, session=replace(plan.session, problem=problem))


def _with_required(session: Session, settings: ParticipantSettings) -> Session:
    """The session, or which contrast of ``--require`` cannot be used and why."""
    for key in settings.require if session.problem is None else ():
        suffix = SUFFIXES_OF[key][0]
        scan = session.scans.get(suffix)
        if scan is None or not scan.channel:
            reasons = [f'{p.name}: {why}' for p, why in session.dropped if f'_{suffix}.' in p.name]
            like = next((c for c in session.scans if SIMILAR.get(c) == suffix), '')
            problem = NoInputError(
                f'no {suffix} can be used, which --require names'
                + (f' ({reasons[0]})' if reasons else ''),
                advice=how_to_get_each(settings.datasets, session.absent)
                or (
                    f'{like} takes the place of {suffix}: --require {like.lower()}.'
                    if like
                    else ''
                )
                or 'Leave the session or the contrast out, or add the image.',
            )
            return replace(session, problem=problem, skipped='')
    return session


def with_checked_transforms(plan: Plan, settings: ParticipantSettings) -> Plan:
    """The plan, or why a transform that was given for it cannot be its own.

    Only where the brain mask was given too, in its space: else this is checked when there is one.
    """
    mask = plan.brain_mask
    if not plan.transforms or mask is None or mask.contrast != plan.session.reference:
        return plan
    if not is_runnable(plan) or (is_finished(plan) and not settings.overwrite):
        return plan
    for label, template in by_template(plan.templates).items():
        try:
            if label in plan.transforms:
                checked_transforms(template, plan.transforms[label], mask.path)
        except DataError as error:
            problem = given_file_error(error)
            return kept(replace(plan, session=replace(plan.session, problem=problem)))
    return plan


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
            mark = mark if scan.channel else ' (for the brain mask only)'
            files = ', '.join(file_name(plan, p) for p in scan.sources)
            lines.append(f'  use    {contrast}{mark}: {files}')
        if plan.brain_mask:
            mask = plan.brain_mask
            lines.append(f'  use    brain mask on the grid of {mask.contrast}: {mask.path}')
        for label, given in plan.transforms.items():
            files = ', '.join(file_name(plan, p) for p in (given.forward, given.backward))
            lines.append(f'  use    transforms to {label}: {files}')
        for path, why in session.dropped:
            lines.append(f'  leave  {file_name(plan, path)}: {why}')
        lines += [f'  note   {text}' for text in session.warnings]
        if session.absent:
            lines.append(f'  note   {how_to_get_each(settings.datasets, session.absent)}')
        if is_runnable(plan):
            lines += [f'  write  {_below(p, settings.output_dir)}' for p in all_paths(plan)]
            lines.append(f'  write  {output_name("report.page", subject=session.subject)}')
    return '\n'.join(lines)


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def unused_folders(plans: list[Plan], settings: ParticipantSettings) -> list[str]:
    """A sentence for each folder of ``-d`` and ``--brain-mask`` of which nothing is used."""
    used: set[Path] = set()
    for plan in plans:
        if plan.session.problem is not None:
            return []  # it may be a problem of such a folder
        sources = [path for scan in plan.session.scans.values() for path in scan.sources]
        used |= {path for path in sources if is_given(plan, path)}
        used |= {plan.brain_mask.path} if plan.brain_mask else set()
        used |= {p for given in plan.transforms.values() for p in (given.forward, given.backward)}
    folders = {f'-d {name}={path}': path for name, path in settings.derivatives.items()}
    if settings.brain_mask:
        folders[f'--brain-mask {settings.brain_mask}'] = settings.brain_mask
    return [
        f'{option}: nothing in this folder fits a session of this run'
        for option, folder in folders.items()
        if not any(path.is_relative_to(folder) for path in used)
    ]


def is_runnable(plan: Plan) -> bool:
    return not plan.session.skipped and plan.session.problem is None


def _has_its_images(plan: Plan) -> bool:
    """Whether the preprocessed images are those of this plan: all models share them."""
    mask = sidecar_if_any(plan.names.path('anat.brain_mask'))
    return bool(mask) and bool(
        mask.get('PreprocessingHash', plan.preprocessing) == plan.preprocessing
    )


def is_finished(plan: Plan) -> bool:
    """Whether the result of just these inputs and settings stands, with its files and page.

    A later run of other settings that failed has left its own summary, which is to be replaced.
    """
    if not plan.configuration or stored_configuration(plan.names) != plan.configuration:
        return False
    summary = find_summary(plan.names)
    if summary is None or summary.get('status') != 'done' or not _has_its_images(plan):
        return False
    return all(path.is_file() and path.stat().st_size for path in planned_outputs(plan))
