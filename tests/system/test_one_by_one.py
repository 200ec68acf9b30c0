"""Results come session by session: a run that is ended early leaves the first ones finished."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from running_app import command

LABELS = ('01', '02', '03', '04', '05')


@pytest.fixture(scope='module')
def dataset(simulated, tmp_path_factory) -> Path:
    """The FLAIR of one simulated participant, five times."""
    root = tmp_path_factory.mktemp('five') / 'data'
    for label in LABELS:
        anat = root / f'sub-{label}' / 'anat'
        anat.mkdir(parents=True)
        for path in (simulated / 'sub-01' / 'anat').glob('*_FLAIR.*'):
            shutil.copy(path, anat / path.name.replace('sub-01', f'sub-{label}'))
    (root / 'dataset_description.json').write_text(
        json.dumps({'Name': 'five', 'BIDSVersion': '1.10.0'})
    )
    return root


@pytest.mark.parametrize('nprocs', [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_first_session_is_finished_while_the_last_one_waits(dataset, tmp_path, nprocs):
    out, work = tmp_path / 'out', tmp_path / 'work'
    words = command(
        dataset, out, 'participant', '-w', work, '--sloppy', '--nprocs', nprocs, '--clean-workdir'
    )
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    branches = work / 'participant'
    deadline = time.monotonic() + 300
    while not (out / 'sub-01.html').exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    marks = {name: list((out / f'sub-{name}').rglob('*_label-L_mask.json')) for name in LABELS}
    begun = {path.name for path in branches.iterdir() if path.name.startswith('sub_')}
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert 'sub-01: finished' in errors
    assert marks['01']
    assert not marks['05']
    assert 'sub_05' not in begun
    # its files in the work folder are not needed any more
    assert not (branches / 'sub_01').exists()
    assert 'Lesions' in (out / 'sub-01.html').read_text()
    assert 'interrupted' in (out / 'sub-05.html').read_text()
