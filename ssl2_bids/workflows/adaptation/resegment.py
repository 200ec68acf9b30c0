"""Segmenting finished sessions again with a site's model, beside the first results."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import nn

from ssl2_bids import __version__
from ssl2_bids.bids.outputs import UnitNames, stored_configuration
from ssl2_bids.bids.provenance import configuration_hash
from ssl2_bids.errors import WRITING, ReadError, Ssl2Error
from ssl2_bids.files import remove_leftovers, write_json
from ssl2_bids.networks.calibration import Calibration, calibrate
from ssl2_bids.networks.cards import Card
from ssl2_bids.progress import ShowLine
from ssl2_bids.raw_grid import read_raw_grid
from ssl2_bids.steps import lesions, regions
from ssl2_bids.steps.segmentation import segment
from ssl2_bids.wording import counted
from ssl2_bids.workflows.adaptation.cases import Case
from ssl2_bids.workflows.adaptation.first_results import stored_probability
from ssl2_bids.workflows.adaptation.resegmented_summary import write_section
from ssl2_bids.workflows.participant.derivatives import template_transform
from ssl2_bids.workflows.participant.earlier import take_away, withdraw
from ssl2_bids.workflows.participant.pages import cited_sentences, update_citation, write_pages
from ssl2_bids.workflows.segmentation_files import (
    SegmentationFiles,
    calibration_keys,
    model_keys,
    read_result,
    write_segmentation,
)

log = logging.getLogger('ssl2_bids')

RESULT = 'Result of a model adapted to the site, from the preprocessed images.'


@dataclass(frozen=True)
class FailedSession:
    """A session that could not be segmented again, and why."""

    case: Case
    error: Ssl2Error


def resegment(
    cases: Sequence[Case],
    card: Card,
    network: nn.Module,
    *,
    device: str,
    show: ShowLine,
    start: Card | None = None,
    command: str = '',
) -> list[FailedSession]:
    """Segment all cases that this model has not segmented before; then the pages and citations.

    The preprocessed images on the reference's grid are what the model sees, as in its training;
    a later run of the participant level goes back to the images' own grids.

    Parameters
    ----------
    cases : all below one output folder.
    start : where the model is this one recalibrated: its stored probabilities are taken, where
        they are there, and the network does not run.
    command : of this run, for the pages.

    Raises
    ------
    StorageError, CannotWriteError : a result cannot be written; the others stay as they are.
    """
    if not cases:
        return []
    failures = []
    root, subjects = cases[0].result.names.root, {case.participant for case in cases}
    former = cited_sentences(root, subjects)
    todo = [case for case in cases if not is_done(case, card)]
    if len(todo) < len(cases):
        finished = counted(len(cases) - len(todo), 'session')
        show(f'segmented by {card.label} already: {finished}')
    for number, case in enumerate(todo, start=1):
        try:
            how = segment_case(case, card, network, device=device, start=start, command=command)
            show(f'{case.name}: segmented by {card.label} ({number} of {len(todo)}){how}')
        except Ssl2Error as error:
            if error.exit_code in WRITING and not isinstance(error, ReadError):
                raise  # each further one would lose its former result
            log.error('%s: not segmented by %s: %s', case.name, card.label, error)
            failures.append(FailedSession(case, error))
    write_pages(root, subjects)
    update_citation(root, subjects, former)
    return failures


def is_done(case: Case, card: Card) -> bool:
    """Whether this model's result stands, here or as a link without content."""
    names = _names(case, card)
    mask = names.path('anat.mask')
    stands = mask.is_file() or mask.is_symlink()
    return stands and stored_configuration(names) == _configuration(case, card)


def segment_case(
    case: Case,
    card: Card,
    network: nn.Module,
    *,
    device: str,
    start: Card | None = None,
    command: str = '',
) -> str:
    """Segment one session and write its derivatives; the sidecar of the mask comes last.

    Returns
    -------
    A message: why the network ran although the stored probability was wanted; else empty.

    Raises
    ------
    DataError : an image or the transform to the template cannot be read.
    """
    names = _names(case, card)
    withdraw(names)
    remove_leftovers(names.done_marker.parent)
    grid = read_raw_grid(case.brain_mask)
    brain = read_result(case.brain_mask, dtype=np.uint8)
    images = {c: read_result(path, contrast=c) for c, path in case.images.items()}
    stored = stored_probability(case.result, start, brain) if start else ''
    known = case.result.sidecar.get('Channels')
    if isinstance(stored, str) or not isinstance(known, list):
        made = segment(images, {}, brain, card, network, device=device)
        probability, channels = made.probability, made.channels
    else:
        fitted = card.content['Recalibration']  # the start model may be calibrated itself
        added = Calibration(float(fitted['Scale']), float(fitted['Shift']))
        probability = stored.with_data(calibrate(stored.data, added))
        channels = tuple(map(str, known))
    found = lesions.find_lesions(
        probability,
        threshold=_threshold(case, card),
        minimum_volume=_minimum_volume(case, card),
    )
    inside = regions.find_regions(
        found.instances,
        template_transform(names),
        image=images[names.reference],
        brain_mask=brain,
    )
    found = lesions.with_regions(found, inside)
    first = case.images[names.reference]
    segmentation = SegmentationFiles(
        names=names,
        grid=grid,
        images=[first, *(path for path in case.images.values() if path != first)],
        brain_mask=brain,
        probability=probability,
        instances=found.instances,
        table=[asdict(lesion) for lesion in found.table],
        model=_model_keys(case, card, channels, device),
        remark=RESULT,
    )
    write_section(case, card, images, segmentation, command)
    write_json(names.done_marker, write_segmentation(segmentation))
    take_away(names)
    return f': {stored}' if isinstance(stored, str) and stored else ''


def _names(case: Case, card: Card) -> UnitNames:
    own = case.result.names
    return UnitNames(own.root, own.subject, own.session, own.reference, card.label)


def _threshold(case: Case, card: Card) -> float:
    return card.threshold_for(case.images)


def _minimum_volume(case: Case, card: Card) -> float:
    """That of the first result, so that both can be compared, or the site's, if larger."""
    first = float(case.result.sidecar.get('MinimumLesionVolume', card.minimum_lesion_volume))
    return max(first, card.fitted_minimum_volume)


def _configuration(case: Case, card: Card) -> str:
    first = case.result.sidecar
    parts = {'calibration': calibration_keys(card)} if calibration_keys(card) else {}
    return configuration_hash(
        parts
        | {
            'version': __version__,
            'model': card.identity,
            'from': first.get('PreprocessingHash', first.get('ConfigurationHash')),
            'channels': sorted(case.images),
            'threshold': _threshold(case, card),
            'minimum_volume': _minimum_volume(case, card),
            'step': 'resegmented',
        }
    )


def _model_keys(case: Case, card: Card, channels: Sequence[str], device: str) -> dict[str, Any]:
    made = model_keys(
        card,
        threshold=_threshold(case, card),
        minimum_volume=_minimum_volume(case, card),
        channels=channels,
        device=device.partition(':')[0],
    )
    return made | {
        'FirstResult': case.result.sidecar.get('FirstResult', case.result.names.desc),
        'PreprocessingHash': case.result.sidecar.get('PreprocessingHash'),
        'ConfigurationHash': _configuration(case, card),
    }
