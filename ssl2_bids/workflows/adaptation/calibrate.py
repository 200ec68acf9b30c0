"""The participant level with a recalibration on a few labelled people, in seconds.

The labelled participants are segmented by the start model like all others, in this run or in an
earlier one. On their probabilities scale and shift of the logit, threshold and minimum volume are
fitted; the model with these numbers is stored, and gives each session a second result, from the
probability of the first one. All labelled participants count, selected or not, so that jobs on
one participant each come to the same model.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path

from ssl2_bids import __version__
from ssl2_bids.bids.dataset import select_participants, select_sessions, unit_name
from ssl2_bids.bids.labels import Label
from ssl2_bids.bids.outputs import (
    Result,
    UnitNames,
    is_result_absent,
    output_name,
    results_beside,
    sessions_with_mask,
    sidecar_path,
)
from ssl2_bids.bids.provenance import configuration_hash
from ssl2_bids.bids.sidecars import is_sloppy
from ssl2_bids.errors import (
    SOME_FAILED,
    WRITING,
    DataError,
    NoInputError,
    ReadError,
    Ssl2Error,
    UsageError,
)
from ssl2_bids.files import write_json
from ssl2_bids.locks import locked
from ssl2_bids.networks.cards import CARD_FILE, Card
from ssl2_bids.networks.weights import (
    check_output,
    check_weights,
    find_model,
    load_network,
    read_card,
    write_model,
)
from ssl2_bids.progress import NodeProgress, ShowLine
from ssl2_bids.settings import (
    CALIBRATED,
    RECALIBRATED,
    GroupSettings,
    ParticipantSettings,
    RunSettings,
)
from ssl2_bids.training.adaptation.decision import RULE_OF_ONE
from ssl2_bids.voxel_grid import Grid
from ssl2_bids.wording import counted
from ssl2_bids.workflows.adaptation.cases import (
    NAMING,
    Case,
    images_of,
    labels_by_unit,
    without_labels,
)
from ssl2_bids.workflows.adaptation.first_results import segmented_by
from ssl2_bids.workflows.adaptation.former_calibrations import remove_former
from ssl2_bids.workflows.adaptation.read_labels import all_empty, is_drawn
from ssl2_bids.workflows.adaptation.start_model import segmented_by_others
from ssl2_bids.workflows.annotations import place, ras_grid, read_annotation
from ssl2_bids.workflows.current_results import current_results
from ssl2_bids.workflows.participant.outcomes import Outcome
from ssl2_bids.workflows.participant.run import run_participant_level

log = logging.getLogger('ssl2_bids')

Unit = tuple[str, str | None]  # labels of participant and session


@dataclass(frozen=True)
class Calibrating:
    """A recalibration that can begin.

    Attributes
    ----------
    card : the model to start from.
    selected : sessions of this run.
    labels : by session.
    """

    settings: GroupSettings
    card: Card
    selected: tuple[Unit, ...]
    labels: dict[Unit, list[Label]]
    overwrite: bool = False

    def names(self, unit: Unit) -> UnitNames:
        """The names of a session's first results."""
        return UnitNames(self.settings.output_dir, *unit, desc=self.card.label)


def run_calibrated(
    settings: ParticipantSettings,
    *,
    command: str = '',
    show: ShowLine = log.info,
    progress: NodeProgress | None = None,
) -> tuple[int, list[Outcome]]:
    """The participant level, and then a second result of each session by the calibrated model.

    A recalibration that is impossible after all leaves the first results as they are.

    Returns
    -------
    Exit code and the outcome of each session, as of ``run_participant_level``.

    Raises
    ------
    Ssl2Error : what makes the run impossible; labels that cannot be used, among others.
    """
    planned = plan_calibration(settings)
    code, outcomes = run_participant_level(settings, command=command, show=show, progress=progress)
    if settings.dry_run:
        show('\n'.join(describe(planned)))
        return code, outcomes
    try:
        complete = calibrate(planned, show, command)
    except Ssl2Error as error:
        log.error('not calibrated: %s', error)
        return error.exit_code if error.exit_code in WRITING else code or error.exit_code, outcomes
    return code or (0 if complete else SOME_FAILED), outcomes


def plan_calibration(settings: ParticipantSettings) -> Calibrating:
    """Find the labels, and check what can be checked before anything is segmented.

    Raises
    ------
    NoInputError : no label is of a participant of the dataset, or a labelled participant is
        neither selected nor segmented.
    DataError : no label can be read or lies on an image of its session, or all are empty.
    UsageError : the start model is the calibrated one.
    """
    card = find_model(settings.model, settings.output_dir)
    check_output(card)
    check_weights(card)
    if card.label == CALIBRATED:
        raise UsageError(
            f'--calibrate-from writes the model {CALIBRATED}, which is also the start model',
            advice='Leave --model out, or give the model that it was made from.',
        )
    shared = {field.name: getattr(settings, field.name) for field in fields(RunSettings)}
    own = GroupSettings(
        **shared | {'participants': None, 'sessions': None},
        labels=settings.calibrate_from,
        label=CALIBRATED,
        rung=RECALIBRATED,
        accept='always',
        model=settings.model,
        device=settings.device,
    )
    participants = select_participants(settings.bids_dir, None, settings.excluded)
    units = select_sessions(settings.bids_dir, participants, None)
    found = labels_by_unit(own, [(subject, session or '') for subject, session in units])
    if not found:
        raise without_labels(settings.calibrate_from, NAMING, own.filters.get('labels'))
    labels: dict[Unit, list[Label]] = {
        (subject, session or None): drawn for (subject, session), drawn in sorted(found.items())
    }
    chosen = select_participants(settings.bids_dir, settings.participants, settings.excluded)
    selected = tuple(select_sessions(settings.bids_dir, chosen, settings.sessions))
    planned = Calibrating(own, card, selected, labels, settings.overwrite)
    _check_segmented(planned)
    _check_drawn(labels)
    if not settings.derivatives:  # else the images may lie elsewhere
        _check_grids(planned)
    return planned


def _check_segmented(planned: Calibrating) -> None:
    missing = [
        unit
        for unit in planned.labels
        if unit not in planned.selected and not _first_results(planned, [unit])
    ]
    if missing:
        names = ', '.join(unit_name(*unit) for unit in missing)
        people = ' '.join(dict.fromkeys(subject for subject, _ in missing))
        raise NoInputError(
            f'labelled, but neither selected nor segmented before by {planned.card.name}: {names}',
            advice=f'Segment the labelled participants first (--participant-label {people}), or '
            f'leave them out of the recalibration (--exclude-participant-label {people}).'
            + segmented_by_others(planned.settings.output_dir, missing),
            path=planned.settings.output_dir,
        )


def _check_drawn(labels: dict[Unit, list[Label]]) -> None:
    """Check that a label can be read and has a lesion.

    Raises
    ------
    DataError : none can be read, or all that can be read are empty.
    ReadError : the disk failed.
    """
    problems, empty = [], []
    for drawn in labels.values():
        for label in drawn:
            try:
                if is_drawn(read_annotation(label)):
                    return
                empty.append(label)
            except ReadError:  # the label may be one with lesions
                raise
            except DataError as error:
                problems.append(error)
    for problem in problems if empty else problems[1:]:
        log.warning('label left out: %s', problem)
    if not empty:
        raise problems[0]
    raise all_empty(len(empty), empty[0], refused=len(problems))


def _check_grids(planned: Calibrating) -> None:
    """Check that the labels of at least one session lie on a raw image of it."""
    problems = []
    for unit, drawn in planned.labels.items():
        grids = _raw_grids(planned.settings.bids_dir, *unit)
        try:
            if grids:
                place(drawn, grids)
            return
        except DataError as error:
            problems.append(error)
    for problem in problems[1:]:
        log.warning('label left out: %s', problem)
    raise problems[0]


def _raw_grids(bids_dir: Path, subject: str, session: str | None) -> dict[str, Grid]:
    folder = bids_dir / f'sub-{subject}' / (f'ses-{session}' if session else '') / 'anat'
    grids: dict[str, Grid] = {}
    for path in sorted(folder.glob('sub-*.nii*')):
        with suppress(DataError):  # damaged or absent: the run names it
            grids[path.name] = ras_grid(path)
    return grids


def _first_results(planned: Calibrating, units: Sequence[Unit]) -> list[Result]:
    """The results of the start model, without those of sloppy runs."""
    found = [result for unit in units for result in results_beside(planned.names(unit))]
    return [result for result in current_results(found)[0] if not is_sloppy(result.sidecar)]


def calibrate(planned: Calibrating, show: ShowLine, command: str = '') -> bool:
    """Fit and store the calibrated model, and give the sessions their second result.

    Returns
    -------
    Whether all selected sessions with a first result have a second one.

    Raises
    ------
    DataError, UsageError : no label can be used.
    NoInputError : no labelled participant has a result.
    """
    from ssl2_bids.workflows.adaptation.resegment import is_done, resegment

    root = planned.settings.output_dir
    known = _stored_card(planned)
    card, device = _fit(planned, known, show)
    # no result of another calibration stays, not even one that an interrupted run left; of jobs
    # that run side by side one alone sees to those that no job has selected
    others = [u for u in sessions_with_mask(root, CALIBRATED) if u not in planned.selected]
    held = [CALIBRATED, *(unit_name(*unit) for unit in others)]
    own = [unit_name(*unit) for unit in planned.selected]
    lock = root / output_name('model.lock', desc=CALIBRATED)
    with locked(lock, held, waited_for=own) as busy:
        others = [u for u in others if not {CALIBRATED, unit_name(*u)} & busy]
        cases, complete = [], True

        def second(unit: Unit) -> UnitNames:
            return UnitNames(root, *unit, desc=CALIBRATED)

        for result in _first_results(planned, [*planned.selected, *others]):
            unit = (result.names.subject, result.names.session)
            selected = unit in planned.selected
            if segmented_by(card, root, unit):
                show(f'{unit_name(*unit)}: segmented by {card.label} at the participant level')
                continue
            try:
                case = Case(result, images_of(result))
            except DataError as error:
                log.log(logging.ERROR if selected else logging.WARNING, '%s', error)
                complete = complete and not selected
                continue
            done = is_done(case, card)
            if not done and not planned.overwrite and is_result_absent(second(unit)):
                log.log(
                    logging.ERROR if selected else logging.WARNING,
                    '%s: the content of its result by %s is absent, and it stays. Get it in %s, '
                    'or give --overwrite.',
                    unit_name(*unit),
                    CALIBRATED,
                    root,
                )
                complete = complete and not selected
            elif selected or not done:
                cases.append(case)
        network, start = load_network(card, device), planned.card
        failures = resegment(
            cases, card, network, device=device, show=show, start=start, command=command
        )
        remove_former(root, [*planned.selected, *others], card)
    return complete and not failures


def _stored_card(planned: Calibrating) -> Card | None:
    """The calibrated model of an earlier run."""
    folder = planned.settings.output_dir / output_name('model.folder', desc=CALIBRATED)
    return read_card(folder) if (folder / CARD_FILE).is_file() else None


def _fit(planned: Calibrating, known: Card | None, show: ShowLine) -> tuple[Card, str]:
    """The calibrated model, fitted or as an earlier run left it, and the device."""
    from ssl2_bids.workflows.adaptation.card import card_content
    from ssl2_bids.workflows.adaptation.outputs import report_facts, write_history
    from ssl2_bids.workflows.adaptation.plan import Adaptation
    from ssl2_bids.workflows.adaptation.scores import compare_metrics
    from ssl2_bids.workflows.adaptation.state import begin
    from ssl2_bids.workflows.adaptation.untrained import KEPT, recalibrate

    settings = planned.settings
    results = _first_results(planned, list(planned.labels))
    cases = tuple(
        Case(r, images_of(r), tuple(planned.labels[r.names.subject, r.names.session]))
        for r in results
    )
    if not cases:
        raise NoInputError(
            'no labelled participant could be segmented',
            advice='Their reports have the reasons.',
            path=settings.output_dir,
        )
    done = {(case.participant, case.result.names.session) for case in cases}
    for unit in planned.labels.keys() - done:
        log.warning('%s: labelled, but without a result: not used', unit_name(*unit))
    work = begin(Adaptation(settings, planned.card, cases), show)
    parts = {
        'version': __version__,
        'step': CALIBRATED,
        'parent': planned.card.identity,
        'people': {one.case.name: one.key for one in work.people},
        'rule': RULE_OF_ONE,
        'results': [one.case.result.sidecar['ConfigurationHash'] for one in work.people],
    }
    work = replace(work, configuration=configuration_hash(parts))
    if known and known.content.get('ConfigurationHash') == work.configuration:
        show(f'{CALIBRATED}: the model of an earlier run, with the same labels')
        return known, work.device
    adapted = recalibrate(work)
    move = adapted.recalibration.move
    reason = adapted.decision.reason
    if KEPT not in reason:
        reason += f'; threshold: {f"its logit moves by {move:+.2f}" if move else "it stays"}'
    show(f'{CALIBRATED}: {reason}')
    compared = compare_metrics(adapted.rows, seed=settings.random_seed)
    write_history(work)
    write_json(
        settings.output_dir / output_name('model.report', desc=CALIBRATED),
        report_facts(work, adapted, compared, []),
    )
    folder = settings.output_dir / output_name('model.folder', desc=CALIBRATED)
    return write_model(folder, adapted.network, card_content(work, adapted, compared)), work.device


def describe(planned: Calibrating) -> list[str]:
    """What a dry run prints beside the files of the participant level."""
    sessions = counted(len(planned.labels), 'labelled session')
    lines = [f'calibrate  {planned.card.name} on {sessions}']
    for unit, labels in planned.labels.items():
        lines += [f'  label  {unit_name(*unit)}: {label.path}' for label in labels]
    names = [output_name(f'model.{name}', desc=CALIBRATED) for name in ('configuration', 'report')]
    for table in ('model.history', 'model.splits'):
        path = output_name(table, desc=CALIBRATED)
        names += [path, sidecar_path(Path(path)).as_posix()]
    lines += [f'  write  {name}' for name in names]
    folder = output_name('model.folder', desc=CALIBRATED)
    lines += [f'  write  {folder}/{CARD_FILE}', f'  write  {folder}/weights.safetensors']
    lines += [
        f'  write  a second result of {unit_name(*unit)}, with desc-{CALIBRATED} in its names'
        for unit in planned.selected
    ]
    return lines
