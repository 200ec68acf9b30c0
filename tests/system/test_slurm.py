"""The scripts of docs/cluster on a SLURM of one machine, as a person would submit them.

Apptainer seldom runs within a test machine: tests/system/apptainer_stand_in.py takes its place, so
the binding of folders and ``--containall`` are not tested here.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running_app import command, digests
from site_phantom import head, make_model, make_site, put_label
from slurm_queue import PATIENCE, answer, wait_for

PROJECT = Path(__file__).resolve().parents[2]
SCRIPTS = PROJECT / 'docs' / 'cluster'
STAND_IN = Path(__file__).with_name('apptainer_stand_in.py')

pytestmark = pytest.mark.slow


@pytest.fixture
def home(slurm, tmp_path, monkeypatch) -> Path:
    """The folder that jobs are submitted from, with ``apptainer`` on the path."""
    program = tmp_path / 'bin' / 'apptainer'
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {shlex.quote(str(STAND_IN))} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv('PATH', f'{program.parent}:{os.environ["PATH"]}')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def submit(
    script: str, *words: object, options: tuple[str, ...] = (), memory: str = '--mem=3G'
) -> str:
    """Submit a script for the cores and the memory of this machine; the number of its job."""
    small = ('--cpus-per-task=1', memory)
    number = answer('sbatch', '--parsable', *small, *options, SCRIPTS / script, *words)
    return number.strip()


def logs(folder: Path, job: str) -> str:
    return '\n'.join(path.read_text() for path in sorted(folder.glob(f'slurm-{job}*.out')))


def state_of(job: str) -> str:
    return answer('scontrol', 'show', 'job', job)


def name_participants(folder: Path, data: Path) -> int:
    names = sorted(path.name for path in data.glob('sub-*'))
    (folder / 'participants.txt').write_text(''.join(f'{name}\n' for name in names))
    return len(names)


def test_an_array_and_then_the_group(home, simulated):
    count = name_participants(home, simulated)
    array = (f'--array=1-{count}',)
    words = (simulated, home / 'out', 'ssl2-bids.sif', '--sloppy')
    job = submit('participants.sbatch', *words, options=array)
    after = submit('group.sbatch', *words[:3], options=(f'--dependency=afterany:{job}',))
    wait_for(job)
    wait_for(after)
    assert len(list((home / 'out').glob('sub-*/anat/*_label-L_mask.nii.gz'))) == count, logs(
        home, job
    )
    assert 'exit code 0' in logs(home, after)
    assert (home / 'out' / 'group_report.html').is_file()
    # each task has removed its own work folder only
    assert [path.name for path in (home / 'work').iterdir()] == ['group']


@pytest.mark.parametrize('signal', ['USR1', 'TERM'])
def test_a_job_that_must_end_goes_to_the_queue_again(home, simulated, signal):
    name_participants(home, simulated)
    words = (simulated, home / 'out', 'ssl2-bids.sif')
    job = submit('participants.sbatch', *words, options=('--array=1',))
    begun = time.monotonic()
    while len(finished_stages(home)) < 3:
        assert time.monotonic() - begun < PATIENCE, logs(home, job)
        time.sleep(0.2)
    answer('scancel', f'--signal={signal}', '--batch', f'{job}_1')
    while 'Restarts=1' not in state_of(job):
        assert time.monotonic() - begun < PATIENCE, state_of(job) + logs(home, job)
        time.sleep(0.5)
    assert not list((home / 'out').glob('sub-*/anat/*_mask.nii.gz'))
    before = finished_stages(home)
    time.sleep(2)  # in the same second SLURM takes the next start for the one that was killed
    answer('scontrol', 'update', f'JobId={job}', 'StartTime=now')  # SLURM waits for two minutes
    while not set(now := finished_stages(home)) - set(before):
        assert time.monotonic() - begun < PATIENCE, logs(home, job)
        time.sleep(0.1)
    # a stage may have written its result and not been taken over; no other is done again
    assert len(before.items() - now.items()) <= 1 < len(before) - 1
    wait_for(job)
    text = logs(home, job)
    assert 'interrupted' in text  # the log of the first start is still there
    assert text.rstrip().endswith('(exit code 0)')
    assert list((home / 'out').glob('sub-01/anat/*_label-L_mask.nii.gz'))


def finished_stages(folder: Path) -> dict[Path, int]:
    """The results of stages of sub-01, and when each was written."""
    found = (folder / 'work').glob('sub-01/participant/**/result_*.pklz')
    return {path: path.stat().st_mtime_ns for path in found}


def test_a_job_that_is_cancelled_stays_so(home, simulated):
    name_participants(home, simulated)
    job = submit('participants.sbatch', simulated, home / 'out', 'x.sif', options=('--array=1',))
    begun = time.monotonic()
    while not finished_stages(home):
        assert time.monotonic() - begun < PATIENCE, logs(home, job)
        time.sleep(0.2)
    answer('scancel', job)
    wait_for(job)
    assert 'Restarts=0' in state_of(job)
    assert 'interrupted' in logs(home, job)


def test_a_number_without_a_participant_is_named(home, simulated):
    count = name_participants(home, simulated)
    words = (simulated, home / 'out', 'x.sif')
    job = submit('participants.sbatch', *words, options=(f'--array={count + 1}',))
    wait_for(job)
    assert f'participants.txt has no line {count + 1}' in logs(home, job)
    assert not (home / 'work').exists()


def plugin_file(folder: Path) -> Path:
    """That of docs/cluster, for the memory of this machine."""
    path = folder / 'slurm.yml'
    text = (SCRIPTS / 'slurm.yml').read_text()
    assert '--mem=8G' in text
    path.write_text(text.replace('--mem=8G', '--mem=3G').replace('--cpus-per-task=4 ', ''))
    return path


def test_stages_as_jobs_by_the_plugin(home, simulated):
    done = subprocess.run(
        command(simulated, home / 'out', 'participant', '--participant-label', '01', '-w',
                home / 'work', '--sloppy', '--use-plugin', plugin_file(home)),
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list((home / 'work').glob('sub-01/participant/**/batchscript_*.sh')) or list(
        (home / 'work').glob('**/batchscript_*.sh')
    )
    assert list((home / 'out').glob('sub-01/anat/*_label-L_mask.nii.gz'))


def test_the_words_of_a_queue_that_refuses_are_shown(home, simulated):
    path = home / 'refused.yml'
    path.write_text('plugin: SLURM\nplugin_args: {sbatch_args: --partition=nosuch}\n')
    done = subprocess.run(
        command(simulated, home / 'out', 'participant', '--participant-label', '01', '-w',
                home / 'work', '--sloppy', '--use-plugin', path),
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert 'sbatch refused the job' in done.stderr
    assert 'nvalid partition' in done.stderr
    assert 'Traceback' not in done.stderr


def test_jobs_of_the_plugin_end_with_the_run(home, simulated):
    run = subprocess.Popen(
        command(simulated, home / 'out', 'participant', '-w', home / 'work', '--sloppy',
                '--use-plugin', plugin_file(home)),
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    begun = time.monotonic()
    while not answer('squeue', '-h', '-o', '%i').split():
        assert time.monotonic() - begun < PATIENCE
        time.sleep(0.2)
    run.terminate()
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 143, errors
    while answer('squeue', '-h', '-t', 'PD,R', '-o', '%i').split():
        assert time.monotonic() - begun < 120, errors
        time.sleep(0.5)
    assert 'cancelled the jobs' in errors


def test_an_adaptation_in_two_tasks(home, tmp_path):
    model = make_model(tmp_path / 'model')
    make_site(tmp_path, model, 4)
    (tmp_path / 'labels').mkdir()
    for person in (1, 2):
        put_label(tmp_path / 'labels', f'{person:02d}', head(person).lesion)
    shutil.copytree(tmp_path / 'out', tmp_path / 'alone')
    settings = ('--model', model, '--folds', 2, '--steps', 20, '--accept', 'always')
    words = (tmp_path / 'data', tmp_path / 'out', 'x.sif', tmp_path / 'labels', *settings)
    job = submit('adapt.sbatch', *words, options=('--ntasks=2',), memory='--mem-per-cpu=3G')
    wait_for(job)
    assert 'exit code 0' in logs(home, job), logs(home, job)
    words = (tmp_path / 'data', tmp_path / 'alone', 'x.sif', tmp_path / 'labels', *settings)
    job = submit('adapt.sbatch', *words, options=('--ntasks=1',), memory='--mem-per-cpu=3G')
    wait_for(job)
    one, two = (digests(tmp_path / name / 'models') for name in ('alone', 'out'))
    assert one == two
