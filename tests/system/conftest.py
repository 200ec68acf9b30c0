"""Running the App as a person would: the command in a process of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from running_app import command
from slurm_queue import skip_without_slurm


@pytest.fixture(scope='session')
def run_app() -> Callable[..., subprocess.CompletedProcess]:
    """A function that runs ``run.py`` to its end."""

    def run(*words: object, **options) -> subprocess.CompletedProcess:
        return subprocess.run(
            command(*words),
            capture_output=True,
            text=True,
            timeout=900,
            env={**os.environ, **options},
        )

    return run


@pytest.fixture(scope='session')
def simulated(tmp_path_factory) -> Path:
    """Two simulated participants, brain only."""
    from ssl2_bids.workflows.simulation.run import simulate

    root = tmp_path_factory.mktemp('simulated') / 'data'
    simulate(root, subjects=2, seed=11)
    return root


@pytest.fixture(scope='session')
def slurm() -> None:
    """A SLURM that takes jobs."""
    skip_without_slurm()
