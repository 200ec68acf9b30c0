"""A worker that the system kills: its node has failed, what ran beside it has not."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from ssl2_bids.settings import ParticipantSettings
from ssl2_bids.workflows.participant.engine import running
from ssl2_bids.workflows.participant.engine.task import make_node

from nipype import Workflow  # isort: skip  after task.py has settled nipype's ways

SECONDS = 60  # until a test gives up


def step(name: str, folder: str, deaths: int) -> dict[str, str]:
    """A stage that waits for the two beside it, and is killed at its first starts."""
    starts = len(list(Path(folder).glob(f'{name}-*')))
    Path(folder, f'{name}-{starts}').touch()
    until = time.monotonic() + SECONDS
    while len({p.name[0] for p in Path(folder).iterdir()}) < 3 and time.monotonic() < until:
        time.sleep(0.05)
    if starts < deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0 if starts else 2)
    return {'made': name}


def failed(tmp_path: Path, deaths: int) -> dict[str, list[str]]:
    """Which nodes of three sessions fail where that of the second dies some times."""
    settings = ParticipantSettings(
        tmp_path / 'in', tmp_path / 'out', tmp_path / 'work', nprocs=3, memory_gb=8.0
    )
    notes = tmp_path / 'notes'
    notes.mkdir()
    workflow = Workflow('participant', base_dir=str(settings.work_dir))
    for name in 'abc':
        inputs = {'name': name, 'folder': str(notes), 'deaths': deaths * (name == 'b')}
        branch = Workflow(name)
        branch.add_nodes([make_node('step', step, inputs, outputs=['made'])])
        workflow.add_nodes([branch])
    running.run(workflow, settings, gpus=0, progress=None)
    folders = {name: settings.work_dir / 'participant' / name for name in 'abc'}
    return {
        name: [failure['Message'] for failure in running.failures(folder)]
        for name, folder in folders.items()
    }


def test_a_node_that_dies_again_fails_alone(tmp_path):
    found = failed(tmp_path, deaths=2)
    assert (found['a'], found['c']) == ([], [])
    (message,) = found['b']
    assert 'the process was killed' in message


def test_a_node_that_finds_enough_memory_alone_is_done(tmp_path):
    assert failed(tmp_path, deaths=1) == {'a': [], 'b': [], 'c': []}
