"""What is to be done for one session: decided before anything runs, carried to every node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl2_bids import sidecar_values
from ssl2_bids.bids.brain_masks import GivenMask
from ssl2_bids.bids.given_datasets import GivenTransforms, program_of, shown_name
from ssl2_bids.bids.inputs import Session
from ssl2_bids.bids.outputs import UnitNames
from ssl2_bids.bids.provenance import bids_uri
from ssl2_bids.bids.scan import Scan
from ssl2_bids.bids.template_spaces import Template
from ssl2_bids.networks.weights import Card
from ssl2_bids.settings import ParticipantSettings


@dataclass(frozen=True)
class Plan:
    """One unit of work.

    Attributes
    ----------
    settings : of the run; threshold, minimum volume and overlap are those that will be used,
        the model's own where none was asked.
    templates : of the output spaces that were asked.
    sources : by contrast, names (of raw files below ``bids_dir``, of others BIDS URIs) and SHA-256
        of the files it is made from.
    preprocessing : hash of all that decides the preprocessed images and the brain mask.
    configuration : hash of all that decides the result; both are empty where no digest was asked.
    brain_mask : the brain mask that was given for the session, ``brain_mask_sha256`` its content.
    transforms : to templates that were given for the reference, by the label of the template.
    """

    session: Session
    names: UnitNames
    card: Card
    settings: ParticipantSettings
    templates: tuple[Template, ...] = ()
    sources: Mapping[str, list[tuple[str, str]]] = field(default_factory=dict)
    preprocessing: str = ''
    configuration: str = ''
    brain_mask: GivenMask | None = None
    brain_mask_sha256: str = ''
    transforms: Mapping[str, GivenTransforms] = field(default_factory=dict)


def is_stripped(plan: Plan, contrast: str) -> bool | None:
    """Whether an image is brain only, by its sidecar; None if the key is absent."""
    stripped = plan.session.scans[contrast].metadata.get('SkullStripped')
    return stripped if isinstance(stripped, bool) else None


def field_strength(plan: Plan, contrast: str) -> float | None:
    """Tesla, from the sidecar, else from the option, else unknown."""
    known = plan.session.scans[contrast].field_strength
    return plan.settings.field_strength if known is None else known


def channels_of(session: Session) -> tuple[str, ...]:
    """The contrasts that are inputs of the model; further ones carry a brain mask."""
    return tuple(contrast for contrast, scan in session.scans.items() if scan.channel)


def needs_correction(plan: Plan, contrast: str) -> bool:
    """Whether N4 is for an image: its contrast shows fields, and it was not corrected before."""
    from ssl2_bids.steps.preprocess import needs_n4

    corrected = plan.session.scans[contrast].corrected
    return not corrected and needs_n4(contrast, field_strength(plan, contrast))


def file_name(plan: Plan, path: Path) -> str:
    """An input file relative to the raw dataset, or its BIDS URI in a dataset of ``-d``."""
    return shown_name(path, plan.settings.derivatives, plan.settings.bids_dir)


def is_given(plan: Plan, path: Path) -> bool:
    """Whether an input file is of a dataset of ``-d``, which the raw one may lie in."""
    return file_name(plan, path).startswith('bids:')


def input_uri(plan: Plan, path: Path) -> str:
    """The BIDS URI of an input file."""
    name = file_name(plan, path)
    return name if name.startswith('bids:') else bids_uri(path, plan.settings.bids_dir, 'raw')


def given_sources(plan: Plan, label: str) -> tuple[str, ...]:
    """BIDS URIs of the transforms that were given for a template, to it and back."""
    given = plan.transforms.get(label)
    return tuple(input_uri(plan, p) for p in (given.forward, given.backward)) if given else ()


def imaging_frequency(plan: Plan, contrast: str) -> float | None:
    """MHz, as dcm2niix writes it into the sidecar; None if unknown."""
    return sidecar_values.known(plan.session.scans[contrast].metadata, 'ImagingFrequency')


def described_inputs(plan: Plan) -> list[dict[str, Any]]:
    """The rows of the report on each image that was found: its use, or why it was left out."""
    session = plan.session
    rows: list[dict[str, Any]] = []
    for contrast, scan in session.scans.items():
        for path in scan.sources:
            role, why = 'channel', 'input of the model'
            if path not in scan.paths:
                role, why = 'auxiliary', _use_of(scan, path)
            elif contrast == session.reference:
                role, why = 'reference', 'grid of the results; also input of the model'
            elif not scan.channel:
                role, why = 'auxiliary', 'the brain mask is brought to the reference with it'
            if scan.dataset:
                why += f'; from {program_of(plan.settings.derivatives[scan.dataset])}'
            rows.append(
                {
                    'Contrast': contrast,
                    'File': file_name(plan, path),
                    'Use': role,
                    'Why': why,
                    'VoxelSize': [round(s, 3) for s in scan.spacing],
                    'MagneticFieldStrength': field_strength(plan, contrast),
                }
            )
    rows += [
        {'Contrast': '', 'File': file_name(plan, path), 'Use': 'dropped', 'Why': why}
        for path, why in session.dropped
    ]
    return rows


def _use_of(scan: Scan, path: Path) -> str:
    """What a companion of an image is for."""
    role = next(companion.role for companion in scan.companions if companion.path == path)
    inversion = (
        'UNIT1 is computed from it' if scan.is_computed else 'for the noise removal of UNIT1'
    )
    transmit = 'for the correction of UNIT1 and T1 for B1+'
    return {
        'INV1': inversion,
        'INV2': inversion,
        'T1map': 'T1 map of the scanner',
        'TB1map': transmit,
        'SA2RAGE': transmit,
    }[role.partition(' ')[0]]
