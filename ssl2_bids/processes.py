"""Work in several processes, started so that Ctrl-C meets none of them half-made."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process, resource_tracker
from multiprocessing.connection import wait
from typing import Any, TypeVar

from ssl2_bids.errors import ENDING, Ssl2Error

Job = TypeVar('Job')
Made = TypeVar('Made')


def side_by_side(
    function: Callable[[Job], Made], jobs: Sequence[Job], *, nprocs: int, parts: int = 1
) -> Iterator[tuple[int, Made]]:
    """Call a function for each job, some at a time, in processes of their own.

    Parameters
    ----------
    function : of a module, so that another process can import it.
    nprocs : processes; with one, or one job, all is done in this process.
    parts : jobs that a process takes at once: more than one for jobs of some milliseconds.

    Yields
    ------
    The place of a job and what the function returned, as each is finished.

    Raises
    ------
    Ssl2Error : a process was ended from outside.
    """
    if nprocs <= 1 or len(jobs) <= parts:
        for place, job in enumerate(jobs):
            yield place, function(job)
        return
    starts = range(0, len(jobs), parts)
    pool = ProcessPoolExecutor(
        min(nprocs, len(starts)), mp_context=get_context('spawn'), initializer=end_with_parent
    )
    try:
        with whole_start():
            futures = {
                pool.submit(_call, function, jobs[start : start + parts]): start
                for start in starts
            }
        for future in as_completed(futures):
            start = futures.pop(future)
            yield from enumerate(future.result(), start)
    except BrokenProcessPool:
        raise Ssl2Error(
            'a process was killed, most often for lack of memory',
            advice='Run the same command with fewer --nprocs: what was finished is kept.',
        ) from None
    except BaseException as error:
        # a signal: else the shutdown waits until every job under way is finished
        if not isinstance(error, (Exception, GeneratorExit)):
            with _deaf():
                for process in active_children():
                    process.terminate()
                pool.shutdown(cancel_futures=True)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _call(function: Callable[[Job], Made], jobs: Sequence[Job]) -> list[Made]:
    return [function(job) for job in jobs]


def end_with_parent() -> None:
    """End this process when its parent is killed, which sends no message."""
    parent = parent_process()
    if parent is None:
        return

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


@contextmanager
def _deaf() -> Iterator[None]:
    """Hear no further signal in this context: one in the middle of an end would hang it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {n: signal.getsignal(n) for n in ENDING if callable(signal.getsignal(n))}
    for number in former:
        signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


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
    asking = (number for number in ENDING if number != signal.SIGINT)
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
