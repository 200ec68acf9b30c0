"""The container image as a command: read-only, without network, as a user without a name.

SSL2_BIDS_IMAGE names an image that was built; SSL2_BIDS_RUNNER how one is run (``docker run`` if
unset).
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

IMAGE = os.environ.get('SSL2_BIDS_IMAGE', '')
RUNNER = shlex.split(os.environ.get('SSL2_BIDS_RUNNER') or 'docker run')
USER = os.getuid() or 4321  # never root, and without a name in the image
WRITABLE = ('--tmpfs', '/tmp')
LOCKED = (
    *('--rm', '--read-only', '--shm-size', '64m'),
    *('--network', 'none', '--user', f'{USER}:{USER}'),
)
PYTHON = '/opt/ssl2-bids/bin/python'


def image_command(
    *words: object, options: tuple[str, ...] = (), temporary: tuple[str, ...] = WRITABLE
) -> list[str]:
    """The command line that runs the image.

    Parameters
    ----------
    words : arguments of the App.
    options : more options of the runner; of two the last one counts.
    temporary : options for ``/tmp``.
    """
    return [*RUNNER, *LOCKED, *temporary, *options, IMAGE, *map(str, words)]


def mounted(folder: Path, inside: str, mode: str = 'ro') -> tuple[str, str]:
    """The option that shows a folder inside of the container."""
    return '--volume', f'{folder}:{inside}:{mode}'


def users_folder(folder: Path) -> Path:
    """A new folder that the user of the container may write to."""
    folder.mkdir(parents=True)
    if os.getuid() == 0:
        os.chown(folder, USER, USER)
    return folder


def engine() -> list[str]:
    """The command line of the engine, up to its command ``run``."""
    return RUNNER[: RUNNER.index('run')]
