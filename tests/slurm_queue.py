"""Asking a SLURM, and waiting for its jobs; SLURM_CONF names one that is not the usual one."""

from __future__ import annotations

import shutil
import subprocess
import time

import pytest

PATIENCE = 900  # s


def answer(*words: object) -> str:
    return subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=True, timeout=60
    ).stdout


def skip_without_slurm() -> None:
    if shutil.which('sbatch') is None or shutil.which('sinfo') is None:
        pytest.skip('SLURM is not installed')
    try:
        states = answer('sinfo', '-h', '-o', '%T').split()
    except (subprocess.SubprocessError, OSError):
        states = []
    if not {'idle', 'mixed', 'allocated'} & set(states):
        pytest.skip(f'SLURM takes no jobs ({states})')


def wait_for(job: str) -> None:
    started = time.monotonic()
    while answer('squeue', '-h', '-j', job).strip():
        assert time.monotonic() - started < PATIENCE, answer('squeue', '-l')
        time.sleep(1)
