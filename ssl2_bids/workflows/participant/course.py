"""What a run has done of its sessions: those that it began, and the results that it wrote."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ssl2_bids.bids.dataset import branch_name
from ssl2_bids.bids.outputs import results_beside
from ssl2_bids.settings import ParticipantSettings
from ssl2_bids.workflows.participant.plan import Plan
from ssl2_bids.workflows.participant.planning import is_finished


class Course:
    """The course of one run, from the moment before its first session.

    Parameters
    ----------
    plans : the sessions that the run is to process.
    """

    def __init__(self, plans: Iterable[Plan], settings: ParticipantSettings):
        self._settings = settings
        self._begun: set[str] = set()
        # with --overwrite a finished result may be one of before
        again = plans if settings.overwrite else ()
        self._markers = {path: _identity(path) for plan in again for path in _markers(plan)}

    def note_begun(self, branch: str) -> None:
        """Note that a stage of a session was started, by the name of its branch."""
        self._begun.add(branch)

    def was_begun(self, plan: Plan) -> bool:
        """Whether a stage of a session may have run; a plugin without reports leaves it open."""
        from ssl2_bids.workflows.participant.engine import running

        return branch_name(plan.session.name) in self._begun or not running.reports(self._settings)

    def has_result(self, plan: Plan) -> bool:
        """Whether a finished result of the session and model is known to stand."""
        return bool(_markers(plan))

    def is_done(self, plan: Plan) -> bool:
        """Whether the result stands, and none of before where it was to be replaced."""
        from ssl2_bids.workflows.participant import graph
        from ssl2_bids.workflows.participant.engine import running

        if running.failures(graph.branch_folder(plan, self._settings.work_dir)):
            return False
        marker = plan.names.done_marker
        before = self._markers.get(marker)
        return is_finished(plan) and (before is None or _identity(marker) != before)


def _markers(plan: Plan) -> set[Path]:
    """The done markers of a session and model, on whatever grid its results lie."""
    with suppress(OSError):  # a folder without the permission to look into it
        return {result.names.done_marker for result in results_beside(plan.names)}
    return set()


def _identity(path: Path) -> tuple[int, int] | None:
    """Inode and time of modification (ns) of a file; None where it cannot be read.

    The file is opened: NFS asks the server then. A clock of two seconds is fine enough, since
    each marker is a new file.
    """
    try:
        with open(path, 'rb') as stream:
            found = os.fstat(stream.fileno())
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
