"""A simulated raw BIDS dataset with lesions of known truth, for demonstrations and tests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from ssl2_bids import __version__
from ssl2_bids.errors import CannotWriteError, UsageError
from ssl2_bids.files import remove_leftovers, sha256
from ssl2_bids.processes import side_by_side
from ssl2_bids.progress import CountProgress
from ssl2_bids.simulation.participant import (
    Habits,
    ParticipantDraw,
    draw_participant,
    knowledge,
    make_visits,
)
from ssl2_bids.simulation.scanner.scan import scan
from ssl2_bids.workflows.heads import image_files
from ssl2_bids.workflows.simulation.dataset import (
    claim_folder,
    descriptions,
    write_participants,
    write_readme,
)
from ssl2_bids.workflows.simulation.files import MANUAL, write_image, write_truth
from ssl2_bids.workflows.simulation.labels import (
    Labelling,
    check_labelling,
    labelled_numbers,
    write_manual,
)
from ssl2_bids.workflows.simulation.plan import (
    MNI,
    SimulationPlan,
    check_phase,
    fingerprint,
    make_plan,
    settings_of,
)

ParticipantJob = tuple[SimulationPlan, int, Labelling | None]


def simulate(
    output_dir: Path,
    *,
    subjects: int,
    seed: int,
    field: float | None = None,
    contrasts: tuple[str, ...] = (),
    sessions: int = 1,
    labels: Path | None = None,
    lesion_masks: Path | None = None,
    load: float = Habits.load,
    load_spread: float = Habits.spread,
    labelled: int = 0,
    sparse: float = 1.0,
    encoding: str = 'mask',
    whole_head: bool = False,
    protocol: Path | None = None,
    motion: float = 0.0,
    spikes: float = 0.0,
    phase: bool = False,
    nprocs: int = 1,
    progress: CountProgress | None = None,
) -> None:
    """Write a simulated raw BIDS dataset and, below ``derivatives``, truth and manual labels.

    Parameters
    ----------
    output_dir : empty, missing, or holding the same simulation: finished participants are kept.
    subjects : number of participants; each depends on ``seed`` and its own number alone.
    field : T, of a bundled scanner; None for that of the protocol file, or 3 T.
    contrasts : BIDS suffixes; empty for UNIT1 (else T1w) and FLAIR, or all of a protocol file.
        UNIT1 brings the two inversion images along.
    sessions : visits of each participant; lesions change from one to the next.
    labels : folder of label maps with FreeSurfer's numbers; None for the MNI152 tissue maps.
    lesion_masks : folder of real lesion masks in MNI152 space, from which half of the lesions
        get their shapes.
    load, load_spread : median lesion volume in mL, and standard deviation of its logarithm.
    labelled : how many participants get a manual label, drawn by seed.
    sparse, encoding : of the manual labels, see :class:`simulated_labels.Labelling`.
    whole_head : with skull and scalp; needs ``labels``.
    protocol : TOML file of another scanner.
    motion, spikes : share of the scans with motion, with spikes in k-space.
    phase : also the phase images of MP2RAGE and MEGRE.
    nprocs : participants at a time, each in a process; the bytes are the same.
    progress : called after each participant with the number done and the number of all.

    Raises
    ------
    UsageError : an impossible number, field, contrast or combination.
    NoInputError, DataError : what was given to read is missing or cannot be used.
    CannotWriteError : the folder holds something else, or cannot be written.
    """
    if not 1 <= subjects <= 9999:
        raise UsageError(f'{subjects} participants cannot be simulated', advice='Give 1 to 9999.')
    labelling = Labelling(labelled, sparse, encoding)
    check_labelling(labelling, subjects)
    plan = make_plan(
        Path(output_dir),
        seed=seed,
        field=field,
        protocol=protocol,
        contrasts=contrasts,
        sessions=sessions,
        habits=Habits(load=load, spread=load_spread, motion=motion, spikes=spikes),
        labels=labels,
        lesion_masks=lesion_masks,
        whole_head=whole_head,
        phase=phase,
    )
    check_phase(plan)
    plan = replace(plan, settings=settings_of(plan, own_protocol=protocol is not None))
    numbers = range(1, subjects + 1)
    chosen = labelled_numbers(seed, subjects, labelled)
    plan.check_label_maps(number for number in numbers if not plan.finished(number))
    refuse_other_labels(plan, chosen)
    begin(plan, labelling)
    jobs = [(plan, number, labelling if number in chosen else None) for number in numbers]
    for done, _ in enumerate(side_by_side(run_job, jobs, nprocs=nprocs), start=1):
        if progress:
            progress(done, len(jobs))
    write_participants(plan.root, anatomies(plan, numbers))


def begin(plan: SimulationPlan, labelling: Labelling) -> None:
    """Claim the folder and write what stands at its root.

    Raises
    ------
    CannotWriteError : it holds something else.
    """
    given = bool(plan.label_maps)
    labels = f'{labelling.sparse:g} of the slices as {labelling.encoding}'
    claim_folder(
        plan.root,
        descriptions(plan.settings, labels=labels if labelling.participants else '', given=given),
    )
    write_readme(
        plan.root,
        field=plan.scanner.field,
        settings=plan.settings,
        reference=plan.reference,
        given=given,
        labelled=bool(labelling.participants),
    )


def refuse_other_labels(plan: SimulationPlan, chosen: Iterable[int]) -> None:
    """Check that no participant has a manual label who should have none.

    Raises
    ------
    CannotWriteError : one has.
    """
    folders = {f'sub-{plan.names(number, 0).subject}' for number in chosen}
    others = sorted(p.name for p in (plan.root / MANUAL).glob('sub-*') if p.name not in folders)
    if others:
        raise CannotWriteError(
            f'there are manual labels of other participants ({", ".join(others[:5])})',
            advice='Choose an empty folder, or give the same --subjects and --labelled as before.',
            path=plan.root / MANUAL,
        )


@threadpool_limits.wrap(limits=1)  # sums of several threads depend on how many there are
def run_job(job: ParticipantJob) -> None:
    """Make what is missing of one participant."""
    plan, number, labelling = job
    if not plan.finished(number):
        simulate_participant(plan, number)
    for visit in range(plan.sessions if labelling else 0):
        names = plan.names(number, visit)
        if labelling and not names.manual_marker(labelling.encoding).is_file():
            write_manual(names, labelling, seed=plan.seed, number=number, visit=visit)


@threadpool_limits.wrap(limits=1)
def simulate_participant(
    plan: SimulationPlan, number: int, draw: ParticipantDraw | None = None
) -> None:
    """Write one participant's images and truth; what is finished of it is kept.

    Parameters
    ----------
    draw : all that is random of it; None draws it.
    """
    draw = draw or draw_participant(
        plan.seed,
        number,
        plan.scanner,
        plan.habits,
        sessions=plan.sessions,
        contrasts=plan.contrasts,
    )
    record = {'Version': __version__, 'Number': number, 'Settings': settings_record(plan, number)}
    visits = make_visits(draw, plan.template(number), plan.scanner, shapes=plan.shapes())
    for place, visit in enumerate(visits):
        names = plan.names(number, place)
        if names.done_marker.is_file():
            continue
        for marker in (names.reference_image(), names.done_marker):
            remove_leftovers(marker.parent)
        scans = draw.visits[place].scans
        for suffix in plan.contrasts:
            images = scan(
                visit.head,
                plan.scanner,
                suffix,
                scans[suffix],
                whole_head=plan.whole_head,
                phase=plan.phase,
            )
            for image in images:
                write_image(
                    names,
                    image,
                    plan.scanner,
                    suffix,
                    whole_head=plan.whole_head,
                    phase=plan.phase,
                )
        known = knowledge(visit, plan.scanner, plan.reference, scans[plan.reference])
        draws = {'Visit': place, 'Draws': asdict(draw)}
        write_truth(names, known, visit.known.table, visit.names, record | draws)


def settings_record(plan: SimulationPlan, number: int) -> dict[str, Any]:
    """Settings of a participant's record, as JSON."""
    path = plan.label_map(number)
    masks = plan.lesion_masks
    return {
        'Description': plan.settings,
        'Seed': plan.seed,
        'Contrasts': list(plan.contrasts),
        'WholeHead': plan.whole_head,
        'Phase': plan.phase,
        'Anatomy': path.name if path else MNI,
        'AnatomySha256': sha256(path) if path else None,
        'LesionMasks': fingerprint(image_files(masks)) if masks else None,
        'Habits': asdict(plan.habits),
        'Scanner': asdict(plan.scanner),
    }


def anatomies(plan: SimulationPlan, numbers: Iterable[int]) -> dict[str, str]:
    """Name of each participant's template, by folder."""
    templates = {n: plan.label_map(n) for n in numbers}
    return {
        f'sub-{plan.names(n, 0).subject}': path.name.split('.')[0] if path else MNI
        for n, path in templates.items()
    }
