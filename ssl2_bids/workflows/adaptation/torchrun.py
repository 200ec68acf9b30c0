"""Processes of one adaptation that torchrun started, on one node or on many.

The first of them does the group level; the others take their share of the trainings, which they
find in the work folder, and end. Each training is the work of one process alone, so the model
that comes out does not depend on how many there are. The store of torch.distributed carries short
notices only: where the list of trainings lies, and what went wrong.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl2_bids.errors import UnavailableError

POLL = 0.5  # s between two looks at the store; a signal is heard in between
LIST, REPORT = 'ssl2/trainings', 'ssl2/report/'  # keys of the notices


def processes() -> int:
    """How many processes torchrun started on all nodes together; 1 without it."""
    return int(os.environ.get('WORLD_SIZE', '1')) if 'RANK' in os.environ else 1


def rank() -> int:
    """The number of this process; the first one is 0."""
    return int(os.environ['RANK']) if processes() > 1 else 0


def on_this_node() -> tuple[int, int]:
    """The number of this process on its node, and how many there are."""
    if processes() == 1:
        return 0, 1
    return int(os.environ.get('LOCAL_RANK', '0')), int(os.environ.get('LOCAL_WORLD_SIZE', '1'))


def send_trainings(trainings: Path | None) -> None:
    """Send the path of the list of trainings to the others; None without trainings.

    Only the first notice counts.
    """
    if processes() > 1 and not _store().check([LIST]):
        _store().set(LIST, str(trainings or ''))


def wait_for_trainings() -> Path | None:
    """Where the list of trainings lies, once the first process knows.

    Raises
    ------
    UnavailableError : the first process has ended, or cannot be reached.
    """
    notices = _wait(LIST)
    return Path(notices) if notices else None


def report(problems: Sequence[str]) -> None:
    """Report to the first process that this one is done, with its error."""
    _store().set(f'{REPORT}{rank()}', json.dumps(list(problems)))


def wait_for_reports() -> list[str]:
    """What went wrong in the other processes, once all of them are done."""
    notices = [_wait(f'{REPORT}{number}') for number in range(1, processes())]
    return [problem for text in notices for problem in json.loads(text)]


@functools.cache
def _store() -> Any:
    """Where torchrun's processes leave notices."""
    from torch.distributed import rendezvous

    try:
        return next(iter(rendezvous('env://')))[0]
    except (OSError, RuntimeError, ValueError) as error:
        raise _lost(error) from error


def _wait(key: str) -> str:
    store = _store()
    try:
        while not store.check([key]):
            time.sleep(POLL)
        return store.get(key).decode()
    except RuntimeError as error:  # whoever keeps the store has gone
        raise _lost(error) from error


def _lost(error: Exception) -> UnavailableError:
    return UnavailableError(
        f'the processes of torchrun cannot connect to each other ({error})',
        advice='See the messages of the first process; run the same command again to resume.',
    )
