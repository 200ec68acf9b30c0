"""A simulated participant made again, to the byte, from the JSON of its truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ssl2_bids import __version__
from ssl2_bids.bids.outputs import read_sidecar
from ssl2_bids.errors import DataError, NoInputError
from ssl2_bids.files import sha256
from ssl2_bids.simulation.participant import Habits, ParticipantDraw
from ssl2_bids.simulation.scanner.protocols import Scanner
from ssl2_bids.tables import Source, from_table
from ssl2_bids.workflows.heads import image_files
from ssl2_bids.workflows.simulation.dataset import write_participants
from ssl2_bids.workflows.simulation.labels import Labelling
from ssl2_bids.workflows.simulation.plan import MNI, SimulationPlan, fingerprint
from ssl2_bids.workflows.simulation.run import anatomies, begin, simulate_participant

ADVICE = 'Give the JSON of a lesion mask that ssl2 simulate wrote.'


def simulate_again(
    record: Path, output_dir: Path, *, labels: Path | None = None, lesion_masks: Path | None = None
) -> None:
    """Make one participant's images and truth again from the JSON of a true lesion mask.

    Parameters
    ----------
    record : ``derivatives/truth/sub-*/.../*_label-L_mask.json``.
    output_dir : empty, missing, or holding the same simulation.
    labels, lesion_masks : the folders that the simulation was made with.

    Raises
    ------
    DataError : the JSON is none of a simulation, or of another version, or what was given is not
        what the simulation was made with.
    NoInputError : a folder is needed and was not given.
    """
    plan, number, draw = read_record(Path(record), Path(output_dir))
    made = read_sidecar(Path(record), ADVICE)['Simulation']['Settings']
    if made['Anatomy'] != MNI:
        path = None if labels is None else Path(labels) / str(made['Anatomy'])
        check_same(path, made['AnatomySha256'], '--labels', sha256)
        plan = replace(plan, label_maps=(path,) if path else ())
    if made['LesionMasks']:
        check_same(
            lesion_masks,
            made['LesionMasks'],
            '--lesion-masks',
            lambda folder: fingerprint(image_files(folder)),
        )
        plan = replace(plan, lesion_masks=lesion_masks)
    begin(plan, Labelling())
    simulate_participant(plan, number, draw)
    write_participants(plan.root, anatomies(plan, [number]))


def read_record(record: Path, root: Path) -> tuple[SimulationPlan, int, ParticipantDraw]:
    """Plan, number and draw of a participant from the JSON of its truth.

    The plan lacks label maps and lesion masks, which are not in the JSON.

    Raises
    ------
    DataError : it is none of a simulation, or of another version.
    """
    if not record.is_file():
        raise NoInputError('no such file', advice='Give the JSON of a true mask.', path=record)
    try:
        made = read_sidecar(record, ADVICE)['Simulation']
        settings, number, version = made['Settings'], int(made['Number']), made['Version']
        draw = from_table(ParticipantDraw, made['Draws'], Source(record), key='Draws')
        plan = SimulationPlan(
            root=root,
            seed=int(settings['Seed']),
            scanner=from_table(Scanner, settings['Scanner'], Source(record), key='Scanner'),
            contrasts=tuple(settings['Contrasts']),
            sessions=len(draw.visits),
            habits=from_table(Habits, settings['Habits'], Source(record), key='Habits'),
            label_maps=(),
            lesion_masks=None,
            whole_head=bool(settings['WholeHead']),
            phase=bool(settings['Phase']),
            settings=str(settings['Description']),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f'this is not a record of a simulation ({error!r})',
            advice='Give the JSON of a lesion mask in derivatives/truth.',
            path=record,
        ) from None
    if version != __version__:
        raise DataError(
            f'made by version {version}; this is {__version__}, whose images can differ',
            advice='Use that version.',
            path=record,
        )
    return plan, number, draw


def check_same(
    path: Path | None, digest: str, option: str, compute: Callable[[Path], str]
) -> None:
    """Check that what is read now is what was read then.

    Raises
    ------
    NoInputError : it was not given, or is missing.
    DataError : it is another one.
    """
    if path is None or not path.exists():
        raise NoInputError(
            f'the simulation was made with {option}, which is required',
            advice=f'Give the same folder with {option}.',
            path=path,
        )
    if compute(path) != digest:
        raise DataError(
            'differs from the file of the simulation', advice='Give the same files.', path=path
        )
