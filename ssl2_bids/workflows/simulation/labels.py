"""The labels that a site would have: some participants', drawn by a simulated rater."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ssl2_bids.bids.columns import LABEL_COLUMNS
from ssl2_bids.bids.outputs import read_sidecar, sidecar_path, table_path, write_table
from ssl2_bids.errors import DataError, UsageError
from ssl2_bids.files import write_json
from ssl2_bids.simulation.lesions.growth import PaintedLesion
from ssl2_bids.simulation.lesions.lesions import Truth
from ssl2_bids.simulation.rater import Extent, annotated_slices, draw_rater, read_by_hand
from ssl2_bids.tables import Source, from_table
from ssl2_bids.volume import Volume, read, write
from ssl2_bids.workflows.simulation.files import MANUAL, TRUTH, VisitNames, references

ENCODINGS = ('mask', 'dseg', 'slices')
LESION, NOT_LESION = 1, 2
THREE_VALUES = (
    {'index': 0, 'name': 'not annotated'},
    {'index': LESION, 'name': 'lesion', 'mapping': 7},
    {'index': NOT_LESION, 'name': 'not lesion'},
)
RATER, CHOICE = b'reader', b'labelled'  # names of streams of random numbers


@dataclass(frozen=True)
class Labelling:
    """Which labels a site has.

    Attributes
    ----------
    participants : how many have one.
    sparse : share of the brain's axial slices that were drawn, above 0 up to 1.
    encoding : one of ``ENCODINGS``: a mask with a mask of the annotated extent, one
        three-valued file, or a mask whose JSON lists the slices.
    """

    participants: int = 0
    sparse: float = 1.0
    encoding: str = 'mask'

    @property
    def every(self) -> int:
        """Of how many slices one is drawn."""
        return max(round(1 / self.sparse), 1)


def check_labelling(labelling: Labelling, subjects: int) -> None:
    """Check what was asked for.

    Raises
    ------
    UsageError : more labels than participants, a share out of range, an unknown encoding.
    """
    if not 0 <= labelling.participants <= subjects:
        raise UsageError(
            f'{labelling.participants} of {subjects} participants cannot be labelled',
            advice=f'Give 0 to {subjects}.',
        )
    if not 0 < labelling.sparse <= 1:
        raise UsageError(
            f'{labelling.sparse:g} is not a share of slices',
            advice='Give a number above 0 and up to 1, for example 0.1.',
        )
    if abs(labelling.every * labelling.sparse - 1) > 0.15:
        raise UsageError(
            f'{labelling.sparse:g} of the slices cannot be drawn: every n-th is',
            advice='Give 1, 0.5, 0.33, 0.25 or less.',
        )
    if labelling.encoding not in ENCODINGS:
        raise UsageError(
            f'"{labelling.encoding}" is not an encoding of labels',
            advice=f'Choose from {", ".join(ENCODINGS)}.',
        )


def labelled_numbers(seed: int, subjects: int, count: int) -> frozenset[int]:
    """Which participants have labels: drawn by seed; a smaller count is part of a larger one."""
    lots = [
        (float(np.random.default_rng([seed, number, *CHOICE]).random()), number)
        for number in range(1, subjects + 1)
    ]
    return frozenset(number for _, number in sorted(lots)[:count])


def write_manual(
    names: VisitNames, labelling: Labelling, *, seed: int, number: int, visit: int
) -> None:
    """Write the label of one session from its truth, and last of all its sidecar.

    Parameters
    ----------
    number, visit : of the participant from 1, of the session from 0.

    Raises
    ------
    DataError : the truth cannot be read.
    """
    random = np.random.default_rng([seed, number, visit, *RATER])
    truth, table, brain = read_truth(names)
    draw = draw_rater(random)
    reading = read_by_hand(truth, table, draw, brain=brain.data > 0)
    extent = annotated_slices(brain, random, every=labelling.every)
    mask, annotated = reading.mask, None
    if labelling.every > 1:
        annotated = extent
        mask = mask & extent.mask
    content: dict[str, Any] = {
        'Description': 'Lesions as drawn by a SIMULATED rater',
        'Type': 'Lesion',
        'Manual': True,
        'Rater': 'simulated rater',
        'AnnotationProtocol': protocol(labelling),
        **references(names),
        **encode(names, brain, mask, annotated, encoding=labelling.encoding),
        'Simulation': {
            'Reader': asdict(draw),
            'MissedLesions': list(reading.missed),
            'InventedLesions': reading.invented,
        },
    }
    write_json(names.manual_marker(labelling.encoding), content)


def read_truth(names: VisitNames) -> tuple[Truth, list[PaintedLesion], Volume]:
    """The truth of a session as it was written: maps, table of lesions, brain mask."""
    path = names.path(TRUTH, 'anat.mask')
    mask = read(path, dtype=np.uint8)
    instances = read(names.path(TRUTH, 'anat.instances'), dtype=np.uint16).data
    brain = read(names.path(TRUTH, 'simulated.brain_mask'), dtype=np.uint8)
    ambiguous = names.path(TRUTH, 'simulated.ambiguous')
    ignore = np.zeros(mask.shape, bool)
    if ambiguous.is_file():
        ignore = read(ambiguous, dtype=np.uint8).data > 0
    sidecar = read_sidecar(sidecar_path(path))
    try:
        rows = sidecar['Simulation']['Lesions']
    except (KeyError, TypeError):
        raise DataError(
            'the sidecar has no table of the simulated lesions',
            advice='Simulate into an empty folder.',
            path=sidecar_path(path),
        ) from None
    # A rater does not know from which real lesion a shape was taken.
    rows = [row | {'origin': None} for row in rows]
    table = [from_table(PaintedLesion, row, Source(sidecar_path(path))) for row in rows]
    return Truth(mask.data > 0, instances, ignore, mask.affine), table, brain


def encode(
    names: VisitNames,
    brain: Volume,
    mask: np.ndarray,
    annotated: Extent | None,
    *,
    encoding: str,
) -> dict[str, Any]:
    """Write the images of a label; return the keys of its sidecar on the annotated extent.

    Parameters
    ----------
    annotated : None if all was drawn.
    """
    path = names.manual(encoding)
    if encoding == 'dseg':
        known = np.ones(mask.shape, bool) if annotated is None else annotated.mask
        values = np.where(mask, LESION, NOT_LESION) * known
        write(brain.with_data(values), path, dtype=np.uint8)
        write_table(table_path(path), THREE_VALUES, LABEL_COLUMNS)
        return {'AnnotationExtent': 'dseg', **LABEL_COLUMNS}
    write(brain.with_data(mask), path, dtype=np.uint8)
    if annotated is None:
        return {'AnnotationExtent': 'whole'}
    if encoding == 'slices':
        slices = {'Axis': 'ijk'[annotated.axis], 'Indices': list(annotated.slices)}
        return {'AnnotationExtent': 'slices', 'AnnotatedSlices': slices}
    extent = names.path(MANUAL, 'simulated.annotated')
    write(brain.with_data(annotated.mask), extent, dtype=np.uint8)
    write_json(
        sidecar_path(extent),
        {
            'Description': 'Slices in which lesions were drawn',
            'Type': 'ROI',
            'Manual': True,
            **references(names),
        },
    )
    return {'AnnotationExtent': 'mask'}


def protocol(labelling: Labelling) -> str:
    """What was drawn, in words."""
    if labelling.every == 1:
        return 'All lesions of the brain'
    last = 0 if labelling.every % 100 in (11, 12, 13) else labelling.every % 10
    ordinal = f'{labelling.every}{ {1: "st", 2: "nd", 3: "rd"}.get(last, "th") }'
    return f'All lesions in every {ordinal} axial slice of the brain'
