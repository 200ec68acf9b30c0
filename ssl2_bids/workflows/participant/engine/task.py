"""How a function of ours becomes a node of nipype: measured, and its failure kept."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from importlib import import_module
from inspect import signature
from logging import getLogger
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault('NIPYPE_NO_ET', '1')  # no network, and nipype must not ask for it

import numpy as np
from nipype import Node, config, logging
from nipype.interfaces.base import (
    DynamicTraitedSpec,
    Undefined,
    isdefined,
    traits,
)
from nipype.interfaces.io import IOBase
from nipype.pipeline.plugins.multiproc import MultiProcPlugin, run_node

from ssl2_bids import __version__
from ssl2_bids.errors import Ssl2Error, lacks_memory
from ssl2_bids.files import as_ssl2_error, storage_failure, write_json
from ssl2_bids.processes import end_with_parent, whole_start

# workers import this module too: nipype speaks in none of them unless asked (-vv)
if 'SSL2_BIDS_NIPYPE_LOG' not in os.environ:
    config.update_config(
        {
            'logging': dict.fromkeys(
                ('workflow_level', 'interface_level', 'utils_level'), 'CRITICAL'
            )
        }
    )
    logging.update_logging(config)

log = getLogger('ssl2_bids')
FAILURE = 'failure.json'
RESOURCES = 'resources.json'
STORAGE_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
)
_OWN = ('function', 'version', 'use_gpu', 'identity')


class FunctionInterface(IOBase):
    """A nipype interface that calls one of our functions in the node's folder.

    The function stands at the top of a module. It gets its inputs by keyword, writes its files
    into the current folder and returns a dictionary of outputs. nipype hashes its name, and the
    time and size of inputs that are files of other nodes, so that a rerun finds its cache. Files
    from outside are known by their content: their ``identity`` is hashed in place of
    the ``unhashed`` inputs.
    """

    input_spec = DynamicTraitedSpec
    output_spec = DynamicTraitedSpec

    def __init__(
        self,
        function: Callable[..., dict[str, Any]],
        outputs: Sequence[str],
        *,
        gpu: bool = False,
        identity: str = '',
        unhashed: Collection[str] = (),
    ):
        super().__init__()
        self._output_names = list(outputs)
        inputs = signature(function).parameters
        self._results: dict[str, Any] = {}
        for name in (*_OWN, *inputs):
            self.inputs.add_trait(name, traits.Any(nohash=True if name in unhashed else None))
        self.inputs.trait_setq(**dict.fromkeys((*_OWN, *inputs), Undefined))
        self.inputs.function = f'{function.__module__}:{function.__name__}'
        self.inputs.version = __version__
        self.inputs.use_gpu = gpu
        self.inputs.identity = identity

    def _add_output_traits(self, base: DynamicTraitedSpec) -> DynamicTraitedSpec:
        for name in self._output_names:
            base.add_trait(name, traits.Any)
        base.trait_setq(**dict.fromkeys(self._output_names, Undefined))
        return base

    def _run_interface(self, runtime: Any) -> Any:
        module, name = self.inputs.function.split(':')
        arguments = {
            key: value
            for key, value in self.inputs.get().items()
            if key not in _OWN and isdefined(value)
        }
        started, before = time.perf_counter(), _cpu_seconds()
        _reset_peak()
        try:
            self._results = getattr(import_module(module), name)(**arguments)
        except Exception as error:  # the file becomes the outcome of the session
            with suppress(Ssl2Error):  # a full disk cannot take this file either
                write_json(Path.cwd() / FAILURE, describe_failure(error, name))
            raise
        write_json(
            Path.cwd() / RESOURCES,
            {
                'Stage': name,
                'Seconds': round(time.perf_counter() - started, 2),
                'CpuSeconds': round(_cpu_seconds() - before, 2),
                'PeakMemoryMB': _peak_memory_mb(),
                'GpuMemoryMB': _gpu_memory_mb(),
            },
        )
        return runtime

    def _list_outputs(self) -> dict[str, Any]:
        return {name: self._results[name] for name in self._output_names}


def describe_failure(error: BaseException, step: str) -> dict[str, Any]:
    """What a report and the exit code need of an exception, as JSON."""
    unexpected = False
    if lacks_memory(error):
        advice = 'Try --low-mem, or fewer --nprocs.'
        known = Ssl2Error('there is not enough memory', advice=advice)
    elif isinstance(error, OSError) and error.errno in STORAGE_ERRORS:
        known = as_ssl2_error(error, error.filename or Path.cwd())
    elif isinstance(error, OSError) and (failed := storage_failure(error, error.filename or '')):
        known = failed
    elif isinstance(error, Ssl2Error):
        known = error
    else:
        unexpected = True
        known = Ssl2Error(
            f'{type(error).__name__}: {error}',
            advice='This is probably a bug in ssl2-bids: please report it with the traceback in '
            'the HTML report.',
        )
    return {
        'Message': known.message,
        'Advice': known.advice,
        'File': known.path,
        'Step': step,
        'Unexpected': unexpected,
        'ExitCode': known.exit_code,
        # for a bug report; the message alone is enough where a file of the user is at fault
        'Traceback': ''.join(traceback.format_exception(error))
        if known.exit_code == Ssl2Error.exit_code
        else '',
    }


def make_node(
    name: str,
    function: Callable[..., dict[str, Any]],
    inputs: dict[str, Any],
    *,
    outputs: Sequence[str],
    threads: int = 1,
    memory_gb: float = 1.0,
    gpu: bool = False,
    always: bool = False,
    identity: str = '',
    unhashed: Collection[str] = (),
) -> Node:
    """A node for one function, whose parameters are the inputs of the node.

    Parameters
    ----------
    inputs : those known now; other nodes give the rest.
    outputs : keys of what the function returns.
    threads, memory_gb : what the scheduler sets aside.
    gpu : takes a GPU slot.
    always : runs although its inputs are unchanged (it writes outside its folder).
    identity, unhashed : identifies the content of inputs that are not hashed themselves.
    """
    task = FunctionInterface(function, outputs, gpu=gpu, identity=identity, unhashed=unhashed)
    node = Node(task, name=name, n_procs=threads, mem_gb=memory_gb, overwrite=always or None)
    for key, value in inputs.items():
        setattr(node.inputs, key, value)
    return node


def session_of(node: Node) -> str:
    """The branch that a node belongs to."""
    return str(node.fullname).split('.')[-2]


class ResilientMultiProc(MultiProcPlugin):
    """nipype's process pool, except that a worker that dies fails its node instead of all.

    Without this, a worker killed by the system (out of memory) leaves the pool broken and the
    run waits for ever. A pool ends all of its workers with one that died, so that their nodes
    run once more, one at a time: the one that dies again has failed. ``stopping``: the workers
    are being ended on purpose. ``plugin_args`` has the place of each session (``sessions``):
    nipype's own order is stage by stage.
    """

    stopping = False

    def __init__(self, plugin_args: dict[str, Any] | None = None):
        super().__init__(plugin_args)
        self._ended: deque[tuple[int, Node]] = deque()  # with a worker that died
        self._alone: Any = None  # the future of the one of them that runs again
        self._renew_pool()  # nipype's own has not begun yet

    def _send_procs_to_workers(self, updatehash: bool = False, graph: Any = None) -> None:
        """Nothing new while nodes whose workers were ended run once more, each alone."""
        if self._alone is not None and not self._alone.done():
            return
        self._alone = None
        if not self._ended:
            super()._send_procs_to_workers(updatehash=updatehash, graph=graph)
            return
        taskid, node = self._ended.popleft()
        log.warning('%s: a process was killed; %s runs again, alone', session_of(node), node.name)
        self.pool.shutdown()  # none of its workers writes any more
        self._renew_pool()
        with whole_start():
            self._alone = self.pool.submit(run_node, node, updatehash, taskid)
        self._task_obj[taskid] = self._alone
        self._alone.add_done_callback(partial(self._finished, taskid, node, alone=True))

    def _sort_jobs(self, jobids: Any, scheduler: str | None = 'tsort') -> list[int]:
        """First what an earlier session waits for: so results come one by one, not at the end."""
        order = self.plugin_args['sessions']
        places = np.array([order[session_of(node)] for node in self.procs])
        unfinished = np.unique(places[~self.proc_done | self.proc_pending])
        # one session more than cores: a stage that needs several cores is not overtaken for ever
        begun = unfinished[: self.processors + 1]
        return sorted((j for j in jobids if places[j] in begun), key=lambda job: places[job])

    def _submit_job(self, node: Node, updatehash: bool = False) -> int:
        self._taskid += 1
        with whole_start():
            try:
                future = self.pool.submit(run_node, node, updatehash, self._taskid)
            except BrokenProcessPool:
                self._renew_pool()
                future = self.pool.submit(run_node, node, updatehash, self._taskid)
        future.add_done_callback(partial(self._finished, self._taskid, node))
        self._task_obj[self._taskid] = future
        return self._taskid

    def _finished(self, taskid: int, node: Node, future: Any, *, alone: bool = False) -> None:
        try:
            self._taskresult[taskid] = future.result()
        except BaseException as error:  # noqa: BLE001  the worker is gone
            if isinstance(error, BrokenProcessPool) and not (alone or self.stopping):
                self._ended.append((taskid, node))
                return
            broken = Ssl2Error(
                'the process was killed, most often for lack of memory',
                advice='Try --low-mem, fewer --nprocs, or ask for more memory.',
            )
            self._taskresult[taskid] = {  # first: without it nipype waits for ever
                'result': None,
                'traceback': traceback.format_exception(error),
                'taskid': taskid,
            }
            if not self.stopping:
                failure = describe_failure(broken, node.name)
                with suppress(Ssl2Error, OSError):  # the disk may be full, too
                    write_json(Path(node.output_dir()) / FAILURE, failure)

    def _renew_pool(self) -> None:
        from concurrent.futures import ProcessPoolExecutor

        self.pool = ProcessPoolExecutor(
            max_workers=self.processors,
            mp_context=get_context('forkserver'),
            initializer=_begin_worker,
            initargs=(self._cwd,),
        )


def _begin_worker(folder: str) -> None:
    """Ctrl-C meets all processes of a terminal: what becomes of the workers, the first decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    os.chdir(folder)


def _cpu_seconds() -> float:
    """Of this process and those that it waited for, user and system, all threads."""
    return sum(os.times()[:4])


def _reset_peak() -> None:
    try:
        Path('/proc/self/clear_refs').write_text('5')
    except OSError:
        return


def _peak_memory_mb() -> int:
    """Peak resident memory of this process since the last reset, in MB."""
    try:
        for line in Path('/proc/self/status').read_text().splitlines():
            if line.startswith('VmHWM:'):
                return round(int(line.split()[1]) / 1024)
    except OSError:
        pass
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _gpu_memory_mb() -> int:
    import sys

    torch = sys.modules.get('torch')
    if torch is None or not torch.cuda.is_initialized():
        return 0
    return round(torch.cuda.max_memory_allocated() / 2**20)


def read_json(path: str | Path) -> Any:
    """Content of a JSON file that a node wrote."""
    return json.loads(Path(path).read_text(encoding='utf-8'))
