"""One session of a dataset as training wants it: the very steps of a run of the App."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ssl2_bids.bids.inputs import Session, choose_reference
from ssl2_bids.bids.scan import Scan
from ssl2_bids.errors import DataError, NoInputError, ReadError
from ssl2_bids.networks.cards import Card
from ssl2_bids.steps import preprocess
from ssl2_bids.steps.network_input import network_input
from ssl2_bids.steps.preprocess import PreparedScan
from ssl2_bids.synthesis.appearance import CHANNELS
from ssl2_bids.training.data.participants import NORMALISATION, Participant, to_bytes
from ssl2_bids.volume import Volume
from ssl2_bids.workflows.annotations import onto_model_grid, place
from ssl2_bids.workflows.raw_scan import read_scan

if TYPE_CHECKING:
    from ssl2_bids.bids.labels import Label

log = logging.getLogger('ssl2_bids')

VOXEL = (1.0, 1.0, 1.0)  # mm


def pack_session(session: Session, labels: Sequence[Label], *, strip: str = 'auto') -> Participant:
    """Strip, correct and normalise the images of a session, as a run of the App does.

    Raises
    ------
    Ssl2Error : an image or a label cannot be used.
    """
    from ssl2_bids.steps.registration import register_rigid

    if session.problem:
        raise session.problem
    if session.skipped or not session.scans:
        raise NoInputError(session.skipped or 'no usable image')
    images, brains = _read_images(session, strip)
    even = {
        name: preprocess.without_inhomogeneity(
            images[name], brains[name], field_strength=session.scans[name].field_strength
        )
        for name in images
    }
    left = {name: session.scans[name] for name in images}
    reference = session.reference if session.reference in left else choose_reference(left)
    transforms = {
        name: register_rigid(
            even[reference], image, fixed_mask=brains[reference], moving_mask=brains[name]
        ).matrix
        for name, image in even.items()
        if name != reference
    }
    ready = network_input(even, transforms, brains[reference], preparation_card())
    brain = ready.brain.numpy()
    values = ready.tensor.numpy()
    present = tuple(contrast is not None for contrast in ready.present)
    scan = Participant(session.name, to_bytes(values, values != 0), present, brain)
    if not labels:
        return scan
    label, known = drawn_label(labels, images, transforms, ready.affine, brain)
    return replace(scan, label=label & brain, annotated=known & brain)


def _read_images(session: Session, strip: str) -> tuple[dict[str, Volume], dict[str, Volume]]:
    """The images of a session and their brains; one that cannot be used is left out.

    Raises
    ------
    DataError : none can be used.
    """
    images, brains = {}, {}
    problems = []
    for name, scan in session.scans.items():
        stripped = scan.metadata.get('SkullStripped')
        try:
            made = _read(scan, session)
            images[name] = made.image
            brains[name], *_ = preprocess.brain_mask(
                made.image,
                mode=strip,
                stripped=stripped if isinstance(stripped, bool) else None,
                source=made.brain_source,
            )
        except ReadError:
            raise
        except DataError as error:
            images.pop(name, None)
            problems.append(error)
            log.warning('%s: continuing without %s: %s', session.name, name, error)
    if not images:
        raise problems[0]
    return images, brains


def _read(scan: Scan, session: Session) -> PreparedScan:
    """A scan; without its companions where one of them cannot be used."""
    try:
        return read_scan(scan)
    except DataError as error:
        if (
            isinstance(error, ReadError)
            or scan.is_computed
            or error.path not in map(str, scan.sources[len(scan.paths) :])
        ):
            raise
        log.warning('%s: %s without its inversion images: %s', session.name, scan.contrast, error)
        return read_scan(replace(scan, companions=()))


def drawn_label(
    labels: Sequence[Label],
    images: dict[str, Volume],
    transforms: dict[str, np.ndarray],
    affine: np.ndarray,
    brain: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Lesions and annotated extent on the grid of the prepared scan, by the rule of the App.

    Raises
    ------
    DataError : the label is on the grid of none of the images.
    """
    placed = place(labels, images)
    shape = (brain.shape[0], brain.shape[1], brain.shape[2])
    lesions, extent = onto_model_grid(
        placed.annotation, affine, shape, transform=transforms.get(placed.image)
    )
    return lesions > 0, extent > 0


def preparation_card() -> Card:
    """What prepared scans are made for: every channel, each of them enough."""
    return Card(
        name='prepared dataset',
        version='',
        label='',
        network={},
        channels=CHANNELS,
        required=tuple((channel,) for channel in CHANNELS),
        voxel_size=VOXEL,
        normalisation=dict(NORMALISATION),
        threshold=0.5,
        minimum_lesion_volume=0.0,
        window=(96, 96, 96),
        overlap=0.0,
        sha256='',
        folder=Path(),
        content={},
    )
