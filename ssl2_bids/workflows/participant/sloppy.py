"""All that ``--sloppy`` changes, for tests of an installation: settings of steps, and marks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ssl2_bids.networks.cards import Card
from ssl2_bids.settings import ParticipantSettings

WORKING_VOXEL = 2.0  # mm
SETTINGS: dict[str, dict[str, Any]] = {  # by node: arguments that a usual run leaves alone
    'prepare': {'working_voxel': WORKING_VOXEL},
    'find_brain': {'working_voxel': WORKING_VOXEL},
    'correct_inhomogeneity': {'iterations': 2},
    'register': {'levels': 1, 'candidates': 1},
    'find_template': {'levels': 1},
    'segment': {'voxel_size': WORKING_VOXEL},
}
MARK = 'Sloppy'  # key of sidecars
WARNING = 'made with --sloppy, for tests of an installation only: the lesions are wrong'
METHODS = (
    'Settings of low quality (--sloppy) were used, for a test of the installation: voxels of '
    f'about {WORKING_VOXEL:g} mm, few iterations and the coarsest level of each linear '
    'registration, whatever the following sentences state. The results must not be used.'
)


def settings_of(node: str, settings: ParticipantSettings) -> dict[str, Any]:
    """The arguments of a node that differ from those of a usual run; none in a usual run."""
    return SETTINGS.get(node, {}) if settings.sloppy else {}


def card_of(card: Card, settings: ParticipantSettings) -> Card:
    """The card of a model as the network is used: coarser voxels in a sloppy run."""
    size = settings_of('segment', settings).get('voxel_size')
    return replace(card, voxel_size=(size, size, size)) if size else card


def mark(settings: ParticipantSettings) -> dict[str, bool]:
    """The keys that mark a sloppy result in a sidecar; none in a usual run."""
    return {MARK: True} if settings.sloppy else {}


def is_sloppy(sidecar: Mapping[str, Any]) -> bool:
    """Whether the sidecar of a mask has the mark of a sloppy run."""
    return bool(sidecar.get(MARK))
