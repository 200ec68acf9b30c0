"""A run that is stopped leaves nothing half-written, and the next one ends in the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from running_app import command, digests


@pytest.fixture(scope='module')
def dataset(simulated, tmp_path_factory) -> Path:
    """One simulated participant, FLAIR only: quick."""
    root = tmp_path_factory.mktemp('one') / 'data'
    anat = root / 'sub-01' / 'anat'
    anat.mkdir(parents=True)
    (root / 'dataset_description.json').write_text(
        json.dumps({'Name': 'one', 'BIDSVersion': '1.10.0'})
    )
    for path in (simulated / 'sub-01' / 'anat').glob('*_FLAIR.*'):
        shutil.copy(path, anat)
    return root


@pytest.fixture(scope='module')
def undisturbed(dataset, run_app, tmp_path_factory) -> tuple[dict[str, str], float]:
    """Bytes of a run that was not stopped, and its seconds."""
    folder = tmp_path_factory.mktemp('undisturbed')
    started = time.monotonic()
    done = run_app(dataset, folder / 'out', 'participant', '--sloppy', '-w', folder / 'work')
    assert done.returncode == 0, done.stderr
    return digests(folder / 'out'), time.monotonic() - started


def hear() -> None:
    """Let a program hear what a shell ignores for the tests if they run in its background."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(*words: object, **options) -> subprocess.Popen:
    return subprocess.Popen(
        command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=hear, **options,
    )  # fmt: skip


def kill_all(process: subprocess.Popen) -> None:
    """End a process and all that it started as a power cut would: no process can clean up."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=10)
    process.communicate()


def readable(folder: Path) -> None:
    """Every file with a final name is whole."""
    import nibabel as nib
    import numpy as np

    for path in folder.rglob('*'):
        if path.name.startswith('.tmp') or 'logs' in path.parts:
            continue
        if path.name.endswith('.nii.gz'):
            np.asarray(nib.load(path).dataobj)
        elif path.suffix == '.json':
            json.loads(path.read_text())


def test_killed_again_and_again(dataset, undisturbed, run_app, tmp_path):
    expected, seconds = undisturbed
    words = (dataset, tmp_path / 'out', 'participant', '--sloppy', '-w', tmp_path / 'work')
    for share in (0.15, 0.4, 0.65, 0.85):
        process = start(*words)
        time.sleep(share * seconds)
        if process.poll() is None:
            kill_all(process)
        if (tmp_path / 'out').exists():
            readable(tmp_path / 'out')
    for path in tmp_path.rglob('.tmp*'):  # a younger one could be of a run beside this one
        os.utime(path, (0, 0))
    done = run_app(*words)
    assert done.returncode == 0, done.stderr
    assert not [p for p in (tmp_path / 'out').rglob('*') if p.name.startswith('.tmp')]
    assert digests(tmp_path / 'out') == expected


def test_workers_end_with_a_first_process_that_was_killed(dataset, tmp_path):
    words = (dataset, tmp_path / 'out', 'participant', '--sloppy', '-w', tmp_path / 'work')
    process = start(*words, '--nprocs', 2)
    first = tmp_path / 'work' / 'participant' / 'sub_01' / 'prepare_FLAIR' / 'resources.json'
    deadline = time.monotonic() + 120
    while not first.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) > 1
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_a_session_that_another_run_processes_is_left_alone(
    dataset, undisturbed, run_app, tmp_path
):
    words = (dataset, tmp_path / 'out', 'participant', '--sloppy', '-w', tmp_path / 'work')
    process = start(*words)
    first = tmp_path / 'work' / 'participant' / 'sub_01' / 'prepare_FLAIR' / 'resources.json'
    deadline = time.monotonic() + 120
    while not first.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGSTOP)
    try:
        second = run_app(*words, '--clean-workdir', '--overwrite')
    finally:
        process.send_signal(signal.SIGCONT)
    assert second.returncode == 75, second.stderr
    assert 'another run is processing this session in this work folder' in second.stderr
    assert 'Traceback' not in second.stderr
    assert first.exists()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert digests(tmp_path / 'out') == undisturbed[0]
    third = run_app(*words)
    assert third.returncode == 0, third.stderr
    assert 'already finished' in third.stdout + third.stderr


@pytest.mark.parametrize('nprocs', [1, 2])
@pytest.mark.parametrize(
    ('number', 'code'),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGXCPU, 152)],
    ids=['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGXCPU'],
)
def test_signals_end_the_run_and_its_children(dataset, tmp_path, number, code, nprocs):
    words = (dataset, tmp_path / 'out', 'participant', '--sloppy', '-w', tmp_path / 'work')
    process = start(*words, '--nprocs', nprocs)
    first = tmp_path / 'work' / 'participant' / 'sub_01' / 'prepare_FLAIR' / 'resources.json'
    deadline = time.monotonic() + 120
    while not first.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert f'exit {code}' in errors.strip().splitlines()[-1]
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert 'interrupted before' in (tmp_path / 'out' / 'sub-01.html').read_text()


@pytest.mark.parametrize('nprocs', [1, 2])
def test_ctrl_c_meets_every_process_of_the_terminal(dataset, tmp_path, nprocs):
    words = (dataset, tmp_path / 'out', 'participant', '--sloppy', '-w', tmp_path / 'work')
    process = start(*words, '--nprocs', nprocs, start_new_session=True)
    first = tmp_path / 'work' / 'participant' / 'sub_01' / 'prepare_FLAIR' / 'resources.json'
    deadline = time.monotonic() + 120
    while not first.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert 'Traceback' not in errors
    assert 'exit 130' in errors.strip().splitlines()[-1]
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_ctrl_c_ends_a_tool_in_a_line(tmp_path):
    code = 'import sys; from ssl2_bids.cli.tools.app import main; sys.exit(main())'
    words = [sys.executable, '-c', code, 'simulate', str(tmp_path / 'data'), '--subjects', '3']
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, preexec_fn=hear)
    deadline = time.monotonic() + 120
    while not (tmp_path / 'data').exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert 'Traceback' not in errors
    assert 'interrupted' in errors


@pytest.mark.slow
def test_full_disk(dataset, tmp_path, run_app):
    """On a file system of 12 MB, mounted where that is permitted."""
    small = tmp_path / 'small'
    small.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=12m', 'tmpfs', str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip('mounting a small file system is not permitted here')
    try:
        words = (dataset, small / 'out', 'participant', '-w')
        done = run_app(*words, tmp_path / 'work')
        assert done.returncode == 74, done.stderr
        assert 'disk is full' in done.stderr
        readable(small / 'out')
        done = run_app(dataset, tmp_path / 'out', 'participant', '-w', small / 'work')
        assert done.returncode == 74, done.stderr
        assert 'Traceback' not in done.stderr
    finally:
        subprocess.run(['umount', str(small)], check=True)


@pytest.mark.slow
def test_a_disk_that_fills_under_way(dataset, tmp_path):
    """On a file system of 30 MB, mounted where that is permitted; the log is on it too."""
    small = tmp_path / 'small'
    small.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=30m', 'tmpfs', str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip('mounting a small file system is not permitted here')
    try:
        words = command(dataset, small / 'out', 'participant', '-w', tmp_path / 'work', '--sloppy')
        run = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        while not list(small.glob('out/logs/*.log')):
            assert run.poll() is None, run.stderr.read()
            time.sleep(0.05)
        with open(small / 'fill', 'wb', buffering=0) as stream, suppress(OSError):
            while stream.write(bytes(1024)):
                pass
        _, errors = run.communicate(timeout=200)
        assert run.returncode == 74, errors
        assert 'disk is full' in errors
        assert 'Traceback' not in errors
        again = subprocess.run(words, capture_output=True, text=True, check=False)  # full now
        assert again.returncode == 74, again.stderr
        assert not list(small.rglob('.tmp-*'))
        (small / 'fill').unlink()
        assert subprocess.run(words, capture_output=True, check=False).returncode == 0
        readable(small / 'out')
    finally:
        subprocess.run(['umount', str(small)], check=True)


@pytest.mark.slow
def test_two_jobs_share_an_output_folder(simulated, run_app, tmp_path):
    """Each with a participant of its own, as on a cluster; the same bytes as one after another."""
    options = (
        'participant',
        '--sloppy',
        '--contrasts',
        'flair',
        '--omp-nthreads',
        '1',
        '--nprocs',
        '1',
    )

    def words(out: str, label: str, work: str) -> tuple:
        return (
            simulated,
            tmp_path / out,
            *options,
            '-w',
            tmp_path / work,
            '--participant-label',
            label,
        )

    jobs = [start(*words('together', label, f'w{label}')) for label in ('01', '02')]
    assert [job.wait(timeout=600) for job in jobs] == [0, 0]
    for label in ('01', '02'):
        assert run_app(*words('alone', label, f'a{label}')).returncode == 0
    assert digests(tmp_path / 'together') == digests(tmp_path / 'alone')
