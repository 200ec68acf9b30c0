"""All that ``--sloppy`` changes, for tests of an installation: settings of steps, and marks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ssl2_bids.bids.outputs import results_beside
from ssl2_bids.bids.sidecars import SLOPPY, is_sloppy
from ssl2_bids.errors import UsageError
from ssl2_bids.networks.cards import Card
from ssl2_bids.settings import ParticipantSettings
from ssl2_bids.workflows.participant.plan import Plan

WORKING_VOXEL = 2.0  # mm
SETTINGS: dict[str, dict[str, Any]] = {  # by node: arguments that a usual run leaves alone
    'prepare': {'working_voxel': WORKING_VOXEL},
    'find_brain': {'working_voxel': WORKING_VOXEL},
    'correct_inhomogeneity': {'iterations': 2},
    'register': {'levels': 1, 'candidates': 1},
    'find_template': {'levels': 1},
    'segment': {'voxel_size': WORKING_VOXEL},
}
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
    return {SLOPPY: True} if settings.sloppy else {}


class UsualResultError(UsageError):
    """A sloppy run would replace the result of a usual one."""


def check_replaced(plan: Plan, settings: ParticipantSettings) -> Plan:
    """The plan, or that a result of a usual run is there, which stays as it is."""
    if not settings.sloppy or settings.overwrite or plan.session.problem or plan.session.skipped:
        return plan
    for result in results_beside(plan.names):
        if not is_sloppy(result.sidecar):
            problem = UsualResultError(
                'there is a result of a usual run, which --sloppy would replace',
                advice='Give another output folder, or --overwrite.',
            )
            return replace(plan, session=replace(plan.session, problem=problem))
    return plan
