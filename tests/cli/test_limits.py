"""Cores and memory of a job, from files of cgroups and variables of schedulers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ssl2_bids.cli import limits

GB = 10**9
ALL = len(os.sched_getaffinity(0))


def make(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_machine_without_limits(tmp_path):
    assert limits.cores({}, tmp_path).value == ALL
    assert limits.memory({}, tmp_path).value <= psutil.virtual_memory().total


SLURM = 'sys/fs/cgroup/system.slice/slurm/job_7'
V2 = {'proc/self/cgroup': '0::/system.slice/slurm/job_7/step_0\n'}
V1 = {'proc/self/cgroup': '5:cpu,cpuacct:/slurm/job_7\n4:memory:/slurm/job_7\n1:name=systemd:/x\n'}


@pytest.mark.parametrize(
    ('files', 'variables', 'cores', 'memory', 'source'),
    [
        ({f'{SLURM}/step_0/cpu.max': 'max 100000', f'{SLURM}/cpu.max': '100000 100000',
          f'{SLURM}/step_0/memory.max': 'max', f'{SLURM}/memory.max': str(GB), **V2},
         {}, 1, GB, 'job_7'),
        ({'sys/fs/cgroup/cpu,cpuacct/slurm/job_7/cpu.cfs_quota_us': '150000',
          'sys/fs/cgroup/cpu,cpuacct/slurm/job_7/cpu.cfs_period_us': '200000',
          'sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes': str(GB),
          'sys/fs/cgroup/memory/memory.limit_in_bytes': '9223372036854771712', **V1},
         {}, 1, GB, 'memory/slurm/job_7'),
        # a container sees its own group as the top, and the host's path
        ({'sys/fs/cgroup/memory.max': str(GB), 'sys/fs/cgroup/cpu.max': '50000 100000', **V2},
         {}, 1, GB, 'cgroup'),
        ({}, {'SLURM_JOB_ID': '7', 'SLURM_CPUS_PER_TASK': '1', 'SLURM_MEM_PER_NODE': '1000'},
         1, 1000 * 2**20, 'SLURM_MEM_PER_NODE'),
        ({}, {'SLURM_JOB_ID': '7', 'SLURM_CPUS_PER_TASK': '1', 'SLURM_CPUS_ON_NODE': '3',
              'SLURM_MEM_PER_CPU': '500'},
         1, 1500 * 2**20, 'SLURM_MEM_PER_CPU x SLURM_CPUS_ON_NODE'),
        ({}, {'SLURM_JOB_ID': '7', 'SLURM_MEM_PER_NODE': '0', 'SLURM_CPUS_PER_TASK': '1'},
         1, None, 'machine'),
        ({}, {'PBS_JOBID': '7', 'NCPUS': '1'}, 1, None, 'machine'),
        ({}, {'LSB_JOBID': '7', 'LSB_DJOB_NUMPROC': '1', 'LSB_CG_MEMLIMIT': '3b9aca00'},
         1, GB, 'LSB_CG_MEMLIMIT'),
        ({}, {'JOB_ID': '7', 'NSLOTS': '1'}, 1, None, 'machine'),
        # left in the environment by something that is no job
        ({}, {'SLURM_CPUS_PER_TASK': '1', 'SLURM_MEM_PER_NODE': '1', 'NCPUS': '1'},
         ALL, None, 'machine'),
    ],
    ids=['cgroup v2', 'cgroup v1', 'container', 'SLURM', 'SLURM, memory by core',
         'SLURM, all memory', 'PBS', 'LSF', 'Grid Engine', 'no job'],
)  # fmt: skip
def test_the_smallest_limit_counts(tmp_path, files, variables, cores, memory, source):
    root = make(tmp_path, files)
    assert limits.cores(variables, root).value == cores
    found = limits.memory(variables, root)
    assert found.value == (memory or found.value)
    assert source in found.source


def test_the_limit_of_the_shell_counts():
    code = 'from ssl2_bids.cli import limits; print(limits.memory())'
    words = ['sh', '-c', f'ulimit -v 4000000; exec {sys.executable} -c "{code}"']
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert 'ulimit -v' in text
    assert str(4_000_000 * 1024) in text


def test_the_log_names_the_limit_that_counts(make_dataset, tmp_path, monkeypatch):
    from ssl2_bids.cli.app import main

    monkeypatch.setenv('SLURM_JOB_ID', '7')
    monkeypatch.setenv('SLURM_CPUS_PER_TASK', '1')
    monkeypatch.setenv('SLURM_MEM_PER_NODE', '1000')
    data = make_dataset(['sub-01/anat/sub-01_T2w.nii.gz'])
    main([str(data), str(tmp_path / 'out'), 'participant', '-w', str(tmp_path / 'work')])
    (path,) = (tmp_path / 'out' / 'logs').glob('*.log')
    line = 'cores: 1 (SLURM_CPUS_PER_TASK); memory: 0.94 GB (90% of: SLURM_MEM_PER_NODE)'
    assert line in path.read_text()
