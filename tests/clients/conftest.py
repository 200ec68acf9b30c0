"""Results of the App for programs of other people."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from running_app import command
from visits_phantom import make_visits


@pytest.fixture(autouse=True)
def _installed(request: pytest.FixtureRequest) -> None:
    """Skip where the package that a test's mark names is not installed."""
    for mark in request.node.iter_markers('client'):
        for package in mark.args:
            pytest.importorskip(
                package, reason=f'{package} is not installed (pip install -e ".[clients]")'
            )


@pytest.fixture(scope='session')
def run_client() -> Callable[..., str]:
    """A function that runs a client's command and gives what it prints."""

    def run(name: str, *words: object) -> str:
        program = Path(sys.executable).with_name(name)
        done = subprocess.run(
            [str(program), *map(str, words)], capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture(scope='session')
def run_app() -> Callable[..., None]:
    """A function that runs the App as it is."""

    def run(*words: object) -> None:
        done = subprocess.run(command(*words), capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr

    return run


@pytest.fixture(scope='session')
def visits(tmp_path_factory: pytest.TempPathFactory, run_app: Callable) -> Path:
    """``data``, ``labels`` and ``out`` of a phantom at two visits, see :mod:`visits_phantom`."""
    root = tmp_path_factory.mktemp('visits')
    make_visits(root)
    run_app(
        root / 'data', root / 'out', 'participant', '-w', root / 'work', '--model',
        root / 'phantom-3t', '--output-spaces', 'MNI152NLin2009aSym',
    )  # fmt: skip
    return root
