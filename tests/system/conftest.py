"""Running the App as a person would: the command in a process of its own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


def command(*words: object) -> list[str]:
    """The command line of run.py."""
    return [sys.executable, str(PROJECT / 'run.py'), *map(str, words)]


@pytest.fixture(scope='session')
def run_app() -> Callable[..., subprocess.CompletedProcess]:
    """A function that runs ``run.py`` to its end."""

    def run(*words: object, **options) -> subprocess.CompletedProcess:
        return subprocess.run(
            command(*words), capture_output=True, text=True, timeout=900,
            env={**os.environ, **options},
        )

    return run


@pytest.fixture(scope='session')
def simulated(tmp_path_factory) -> Path:
    """Two simulated participants, brain only."""
    from ssl2_bids.workflows.simulate import simulate

    root = tmp_path_factory.mktemp('simulated') / 'data'
    simulate(root, subjects=2, seed=11)
    return root


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every result below an output folder; logs tell of the run, not the result."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file() and path.relative_to(folder).parts[0] != 'logs'
    }


def validate(folder: Path) -> list[dict]:
    """Errors that bids-validator finds in a derivative dataset."""
    import json

    program = Path(sys.executable).with_name('bids-validator-deno')
    done = subprocess.run(
        [str(program), str(folder), '--format', 'json', '--ignoreWarnings',
         '--datasetTypes', 'derivative'],
        capture_output=True, text=True, timeout=300, env={**os.environ, 'NO_COLOR': '1'},
    )
    issues = json.loads(done.stdout)['issues']['issues']
    return [issue for issue in issues if issue.get('severity') == 'error']
