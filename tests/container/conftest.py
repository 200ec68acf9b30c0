"""An image at work, and what it works on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from running_image import IMAGE, RUNNER, image_command


@pytest.fixture(scope='session')
def image() -> str:
    """The name of the image; tests that need one skip without it."""
    if not IMAGE:
        pytest.skip('SSL2_BIDS_IMAGE does not name an image (docs/how-to/containers.md)')
    if shutil.which(RUNNER[0]) is None:
        pytest.skip(f'{RUNNER[0]} is not there: SSL2_BIDS_RUNNER may name another')
    return IMAGE


@pytest.fixture(scope='session')
def run_image(image) -> Callable[..., subprocess.CompletedProcess]:
    """A function that runs the image to its end, with the arguments of ``image_command``."""

    def run(*words: object, **options: tuple[str, ...]) -> subprocess.CompletedProcess:
        return subprocess.run(
            image_command(*words, **options), capture_output=True, text=True, timeout=900
        )

    return run


@pytest.fixture(scope='session')
def dataset(tmp_path_factory) -> Path:
    """Two simulated participants, brain only, that all users may read; an empty folder beside."""
    from ssl2_bids.workflows.simulation.run import simulate

    root = tmp_path_factory.mktemp('mounted') / 'data'
    simulate(root, subjects=2, seed=3)
    (root.parent / 'empty').mkdir()
    root.parent.chmod(0o755)
    return root
