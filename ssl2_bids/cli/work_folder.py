"""The work folder of a run: where it lies if none is given, and how it is emptied."""

from __future__ import annotations

import getpass
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from ssl2_bids.bids.dataset import branch_name
from ssl2_bids.digests import DIGESTS
from ssl2_bids.errors import CannotWriteError
from ssl2_bids.locks import ADAPTATION_LOCK, LOCK, locked
from ssl2_bids.settings import ParticipantSettings, RunSettings


def usual_work_dir(bids_dir: Path, output_dir: Path) -> Path:
    """The same folder for the same dataset, output and user, so that a rerun finds its cache."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    text = f'{bids_dir.resolve()}\n{output_dir.resolve()}'
    key = hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:10]
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise CannotWriteError(
            'there is no folder for temporary files that can be written',
            advice='Give a work folder with -w, or --tmpfs /tmp for a read-only container.',
        ) from None
    return folder / f'ssl2-bids-{user}-{key}'


def clean(settings: RunSettings) -> None:
    """Empty the work folder; of participants that were named, at participant level, theirs alone.

    Jobs on other participants may share the work folder: what another run uses stays. So does
    everything in a folder without the lock file of a former run.

    Raises
    ------
    CannotWriteError : that is not permitted.
    """
    work_dir = settings.work_dir
    if not (work_dir / LOCK).exists():
        return  # no run has worked here
    shared = [work_dir / DIGESTS, *(work_dir / 'crash').glob('tmp*')]
    trainings = [work_dir / 'adaptation']
    patterns = ['sub_*']
    if isinstance(settings, ParticipantSettings) and settings.participants:
        shared = trainings = []
        names = [branch_name(f'sub-{label}') for label in settings.participants]
        patterns = [pattern for name in names for pattern in (name, f'{name}_ses_*')]
    found = [f for pattern in patterns for f in (work_dir / 'participant').glob(pattern)]
    sessions = [folder for folder in found if folder.is_dir()]
    with (
        locked(work_dir / LOCK, [folder.name for folder in sessions]) as busy,
        locked(work_dir / ADAPTATION_LOCK, ['adaptation']) as adapting,
    ):
        folders = [folder for folder in sessions if folder.name not in busy]
        folders += [] if busy else shared
        folders += [] if busy or adapting else trainings
        try:
            for folder in folders:
                if folder.exists():
                    shutil.rmtree(folder)
        except OSError as error:
            raise CannotWriteError(f'cannot be emptied ({error})', path=work_dir) from None
