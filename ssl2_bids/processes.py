"""Starting processes so that Ctrl-C meets none of them half-made."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any


@contextmanager
def whole_start() -> Iterator[None]:
    """Start processes in this context: a signal that comes meanwhile is heard at its end.

    A process whose start is interrupted prints a traceback about a message that it never got.
    Those started here never hear Ctrl-C, which a terminal sends to all of them: whoever started
    them ends them. Outside the main thread, which alone hears signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []

    def later(number: int, _: Any) -> None:
        heard.append(number)

    resource_tracker.ensure_running()  # its own start would let SIGINT through again
    asking = (signal.SIGTERM, signal.SIGUSR1)
    former = {n: signal.getsignal(n) for n in asking if callable(signal.getsignal(n))}
    for number in former:
        signal.signal(number, later)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for late in heard:
            signal.raise_signal(late)
