"""How many cores and how much memory this job may use: the smallest limit that is found counts.

Looked at are the machine, the affinity and ``ulimit -v`` of the process, its cgroup (v1 and v2,
with all groups above) and the variables that SLURM, PBS, LSF and Grid Engine set for a job.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

CORES = {
    'SLURM_CPUS_PER_TASK': 'SLURM_JOB_ID',
    'NCPUS': 'PBS_JOBID',  # PBS Professional, OpenPBS
    'PBS_NP': 'PBS_JOBID',  # Torque
    'LSB_DJOB_NUMPROC': 'LSB_JOBID',
    'NSLOTS': 'JOB_ID',  # Grid Engine
}  # variable with a number of cores: variable that a job of this scheduler has
MEBI = 2**20


@dataclass(frozen=True)
class Limit:
    """A number and where it was found.

    Attributes
    ----------
    value : cores, or bytes.
    source : a few words for the log.
    """

    value: int
    source: str


def cores(environment: Mapping[str, str] = os.environ, root: Path = Path('/')) -> Limit:
    """The number of cores.

    Parameters
    ----------
    root : folder in which ``proc`` and ``sys`` lie.
    """
    return min(_cores(environment, root), key=lambda limit: limit.value)


def memory(environment: Mapping[str, str] = os.environ, root: Path = Path('/')) -> Limit:
    """The memory in bytes; ``root`` as in :func:`cores`."""
    return min(_memory(environment, root), key=lambda limit: limit.value)


def _cores(environment: Mapping[str, str], root: Path) -> Iterator[Limit]:
    own = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    yield Limit(own or 1, 'cores that this process may use')
    for variable, job in CORES.items():
        count = _number(environment.get(variable))
        if job in environment and count:
            yield Limit(count, variable)
    for folder in _groups(root, 'cpu'):
        pair = _words(folder / 'cpu.max') or (
            _words(folder / 'cpu.cfs_quota_us') + _words(folder / 'cpu.cfs_period_us')
        )
        numbers = [_number(word) for word in pair]
        if len(numbers) == 2 and numbers[0] and numbers[1]:
            yield Limit(max(1, round(numbers[0] / numbers[1])), f'cgroup {folder}')


def _memory(environment: Mapping[str, str], root: Path) -> Iterator[Limit]:
    import psutil

    yield Limit(psutil.virtual_memory().total, 'memory of the machine')
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        yield Limit(limit, 'ulimit -v')
    if 'SLURM_JOB_ID' in environment:
        whole = _number(environment.get('SLURM_MEM_PER_NODE'))
        if whole:  # 0 is all of the node
            yield Limit(whole * MEBI, 'SLURM_MEM_PER_NODE')
        each = _number(environment.get('SLURM_MEM_PER_CPU'))
        count = _number(environment.get('SLURM_CPUS_ON_NODE'))
        if each and count:
            yield Limit(each * count * MEBI, 'SLURM_MEM_PER_CPU x SLURM_CPUS_ON_NODE')
    if 'LSB_JOBID' in environment:
        bound = _number(environment.get('LSB_CG_MEMLIMIT'), base=16)
        if bound:
            yield Limit(bound, 'LSB_CG_MEMLIMIT')
    for folder in _groups(root, 'memory'):
        for name in ('memory.max', 'memory.limit_in_bytes'):
            bound = _number(' '.join(_words(folder / name)))
            if bound:
                yield Limit(bound, f'cgroup {folder}')


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the cgroups of this process, from its own to the top.

    A container often sees its own group as the top.
    """
    top = root / 'sys/fs/cgroup'
    try:
        lines = (root / 'proc/self/cgroup').read_text().splitlines()
    except OSError:
        lines = ['0::/']
    for line in lines:
        number, names, path = line.split(':', 2)
        if number == '0':
            base = top
        elif controller in names.split(','):
            base = top / (names if (top / names).is_dir() else controller)
        else:
            continue
        inner = Path(path.lstrip('/'))
        for part in (inner, *inner.parents):
            if (base / part).is_dir():
                yield base / part


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _number(text: str | None, *, base: int = 10) -> int:
    """A whole number above 0; 0 for anything else, such as ``max`` or -1."""
    try:
        return max(int(text or '', base), 0)
    except ValueError:
        return 0
