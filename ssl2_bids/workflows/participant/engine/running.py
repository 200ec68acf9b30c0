"""Running a nipype workflow, and reading what its nodes left: failures and resources."""

from __future__ import annotations

import gc
import gzip
import logging
import os
import pickle
import shutil
import signal
import tempfile
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from ssl2_bids.errors import ENDING
from ssl2_bids.settings import ParticipantSettings
from ssl2_bids.workflows.participant.engine.batch import cancel_jobs, make_plugin, reports_nodes
from ssl2_bids.workflows.participant.engine.server import is_serial, start_server
from ssl2_bids.workflows.participant.engine.task import (
    FAILURE,
    RESOURCES,
    ResilientMultiProc,
    read_json,
    session_of,
)

from nipype import Node, Workflow, config  # isort: skip  after task.py has settled nipype's ways

log = logging.getLogger('ssl2_bids')
# what a damaged file of nipype's cache raises in this process, where pickles and JSON are read
DAMAGED = (
    EOFError, ValueError, KeyError, IndexError, AttributeError, ImportError,
    pickle.UnpicklingError, zlib.error, gzip.BadGzipFile,
)  # fmt: skip
MIN_SESSIONS = 32  # of one workflow
SESSIONS = 16  # of one workflow for each core: few cores wait at its end
LEAST_MEMORY = 0.1  # GB; nipype starts nothing where less than 0.01 is free


def run(
    workflow: Workflow,
    settings: ParticipantSettings,
    *,
    gpus: int,
    progress: Callable[[str, str, str, int], None] | None,
) -> Exception | None:
    """Run a workflow to its end; failed branches leave a file that :func:`failures` reads.

    Returns
    -------
    The error of nipype for a run that failed: of the first failed node, or why no node could run.
    """
    (settings.work_dir / 'crash').mkdir(parents=True, exist_ok=True)
    crashes = Path(tempfile.mkdtemp(dir=settings.work_dir / 'crash'))  # of this run alone
    workflow.config['execution'] = {
        'crashdump_dir': str(crashes),
        'crashfile_format': 'txt',
        'stop_on_first_crash': str(settings.stop_on_first_crash).lower(),
        'poll_sleep_duration': '0.1',
        'hash_method': 'timestamp',
        'remove_unnecessary_outputs': 'false',
        'create_report': 'false',
    }
    config.update_config(workflow.config)

    stages = _stages(workflow)
    asked: list[int] = []

    def report_status(node: Node, status: str) -> None:
        _ask_again(asked)
        if progress is not None and not node.run_without_submitting:
            session = session_of(node)
            progress(session, node.name, status, stages[session])

    pool = None
    given = settings.plugin if (settings.plugin or {}).get('plugin') != 'Linear' else None
    batch = make_plugin(given, report_status) if given else None
    if not (settings.plugin or is_serial(settings)):
        pool = _pool(settings, gpus, list(stages), report_status)
    # nipype collects garbage before and after each node: a tenth of a second with torch imported
    gc.freeze()
    try:
        if batch is not None:
            workflow.run(plugin=batch)
        elif pool is None:
            with _noted_signals(asked):
                workflow.run(plugin='Linear', plugin_args={'status_callback': report_status})
        else:
            workflow.run(plugin=pool)
    except (RuntimeError, OSError, *DAMAGED) as error:
        log.debug('nipype: %s', error)
        return error
    except BaseException:  # a signal
        if pool is not None:
            pool.stopping = True
        stop_workers()
        if batch is not None:
            cancel_jobs(batch)
        raise
    finally:
        gc.unfreeze()
        for path in sorted(crashes.glob('*.txt')):
            log.debug('%s', path.read_text(encoding='utf-8', errors='replace'))
        shutil.rmtree(crashes, ignore_errors=True)
    return None


def sessions_at_once(settings: ParticipantSettings) -> int | None:
    """How many sessions one workflow should have; None for all.

    nipype goes through a workflow stage by stage where one node runs at a time. It holds the
    whole graph in memory and looks through it at every turn, which some dozens of sessions do
    not notice and thousands do.
    """
    if settings.plugin:
        return None
    return 1 if is_serial(settings) else max(MIN_SESSIONS, SESSIONS * settings.nprocs)


def reports(settings: ParticipantSettings) -> bool:
    """Whether the start and the end of each node are reported; not by all plugins of nipype."""
    return settings.plugin is None or reports_nodes(settings.plugin['plugin'])


def cause_of(error: Exception) -> str:
    """The message of an error of a whole run, in one line: nipype hides the first of several."""
    first = error.__cause__ if error.__cause__ is not None else error
    lines = [line.strip() for line in str(first).splitlines() if line.strip()]
    if any(line.startswith('Traceback') for line in lines):
        lines = lines[-1:]
    return ' '.join(lines) or type(first).__name__


@contextmanager
def _noted_signals(asked: list[int]) -> Iterator[None]:
    """Write down each signal that asks for an end, before its handler raises.

    nipype swallows whatever is raised while one of its interfaces runs, the end of the run too.
    """
    former = {number: signal.getsignal(number) for number in ENDING}

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        handler = former[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    if threading.current_thread() is not threading.main_thread():
        yield  # signals are not handled here
        return
    for number, handler in former.items():
        if callable(handler):
            signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _ask_again(asked: list[int]) -> None:
    """Between two nodes, raise what a signal's handler raised within one."""
    if asked:
        number = asked[0]
        asked.clear()
        signal.raise_signal(number)


def _stages(workflow: Workflow) -> Counter[str]:
    """How many stages each branch has, without the nodes that only gather lists."""
    names = workflow.list_node_names()
    return Counter(
        name.split('.')[0] for name in names if not workflow.get_node(name).run_without_submitting
    )


def _pool(
    settings: ParticipantSettings,
    gpus: int,
    sessions: list[str],
    report_status: Callable[[Node, str], None],
) -> ResilientMultiProc:
    start_server(settings)
    return ResilientMultiProc(
        plugin_args={
            'n_procs': settings.nprocs,
            'memory_gb': max(settings.memory_gb, LEAST_MEMORY),
            'n_gpu_procs': gpus,
            'raise_insufficient': False,
            'mp_context': 'forkserver',
            'status_callback': report_status,
            'sessions': {name: place for place, name in enumerate(sessions)},
        }
    )


def forget_failures(folder: Path) -> None:
    """Take away the failure files of a former run below a session's folder."""
    for path in folder.glob(f'*/{FAILURE}'):
        path.unlink()


def failures(folder: Path) -> list[dict[str, Any]]:
    """What the failed nodes of a session wrote, oldest first."""
    paths = sorted(folder.glob(f'*/{FAILURE}'), key=lambda p: p.stat().st_mtime)
    return [{'Node': path.parent.name} | read_json(path) for path in paths]


def resources(folder: Path) -> list[dict[str, Any]]:
    """Seconds and memory of each finished node of a session, oldest first."""
    found = []
    for path in sorted(folder.glob(f'*/{RESOURCES}'), key=lambda p: p.stat().st_mtime):
        with suppress(ValueError):  # a damaged file costs its row
            found.append({'Node': path.parent.name} | read_json(path))
    return found


def stop_workers() -> None:
    """End the worker processes at once, before they write anything more.

    They are the grandchildren: between them and this process stand multiprocessing's own
    servers, which end by themselves with this process and clean up after it.
    """
    import psutil

    own = psutil.Process(os.getpid())
    workers = [w for child in own.children() for w in child.children(recursive=True)]
    for worker in workers:
        with suppress(psutil.NoSuchProcess):
            worker.kill()
    psutil.wait_procs(workers, timeout=3)
