"""The commands of docs/how-to/datalad.md: runs recorded, results locked, and run again."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running_app import PROJECT, digests

pytestmark = [pytest.mark.slow, pytest.mark.client]


@pytest.fixture
def datalad(tmp_path, monkeypatch):
    """A function that runs DataLad, with ``ssl2-bids`` on the path."""
    folder = Path(sys.executable).parent
    if shutil.which('datalad', path=f'{folder}:{os.environ["PATH"]}') is None:
        pytest.skip('DataLad is not installed (extra clients)')
    program = tmp_path / 'bin' / 'ssl2-bids'
    program.parent.mkdir()
    words = shlex.join([sys.executable, str(PROJECT / 'run.py')])
    program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv('PATH', f'{program.parent}:{folder}:{os.environ["PATH"]}')
    for name in ('AUTHOR', 'COMMITTER'):
        monkeypatch.setenv(f'GIT_{name}_NAME', 'test')
        monkeypatch.setenv(f'GIT_{name}_EMAIL', 'test@example.org')

    def run(*words: object, cwd: Path) -> str:
        done = subprocess.run(
            ['datalad', *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_recorded_runs_with_locked_results(datalad, simulated, tmp_path):
    source, study = tmp_path / 'source', tmp_path / 'study'
    shutil.copytree(simulated, source)
    datalad('create', '--force', cwd=source)
    datalad('save', '-m', 'data', cwd=source)
    datalad('create', 'study', cwd=tmp_path)
    datalad('clone', '-d', '.', source, 'inputs/data', cwd=study)
    about = ('-i', 'inputs/data/dataset_description.json', '-o', 'outputs')
    end = f'-w {tmp_path / "work"} --sloppy --nprocs 1'
    for label in ('01', '02'):
        command = f'ssl2-bids inputs/data outputs participant --participant-label {label} {end}'
        datalad('run', '-m', label, '-i', f'inputs/data/sub-{label}', *about, command, cwd=study)
    mask = study / 'outputs/sub-01/anat/sub-01_space-T1w_label-L_mask.nii.gz'
    assert mask.is_symlink()
    assert not os.access(mask.resolve(), os.W_OK) or os.geteuid() == 0
    group = f'ssl2-bids inputs/data outputs group -w {tmp_path / "work"}'
    datalad('run', '-m', 'cohort', '-i', 'outputs', *about, group, cwd=study)
    assert (study / 'outputs/group_report.html').is_file()

    before = digests(study / 'outputs' / 'sub-01')
    shutil.rmtree(tmp_path / 'work')
    assert 'already finished' in datalad('rerun', 'HEAD~2', cwd=study)
    assert digests(study / 'outputs' / 'sub-01') == before
