"""The server that worker processes are forked from: it imports once what all of them need."""

from __future__ import annotations

from multiprocessing import forkserver

from ssl2_bids.processes import whole_start
from ssl2_bids.settings import ParticipantSettings

PRELOADED = [
    'nipype',
    'numpy',
    'nibabel',
    'scipy.ndimage',
    'SimpleITK',
    'torch',
    'deepbet',
    'nilearn.datasets',
    'ssl2_bids.workflows.participant.brain_nodes',
    'ssl2_bids.workflows.participant.nodes',
    'ssl2_bids.workflows.participant.finish',
]


def is_serial(settings: ParticipantSettings) -> bool:
    """Whether one node runs at a time, in the process of the command."""
    return not settings.plugin and (settings.nprocs == 1 or settings.low_mem)


def start_server(settings: ParticipantSettings) -> None:
    """Start the server where a run has workers of its own; it ends with this process.

    Its imports run beside the work of the caller.
    """
    if settings.plugin or is_serial(settings):
        return
    forkserver.set_forkserver_preload(PRELOADED)
    with whole_start():
        forkserver.ensure_running()
