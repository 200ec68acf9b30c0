"""What the image promises to those who run it: strange homes, signals, jobs beside each other."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from running_app import digests, validate
from running_image import engine, image_command, mounted, users_folder

from ssl2_bids import __version__
from ssl2_bids.bids.outputs import output_name

SECONDS = 30  # to end, on a busy machine too; the App alone takes one CPU second

pytestmark = pytest.mark.container


def folders(dataset: Path, place: Path, *, work: str = 'work') -> tuple[str, ...]:
    """Options that mount the dataset, ``place/out`` and a work folder; both are made."""
    for name in ('out', work):
        if not (place / name).is_dir():
            users_folder(place / name)
    return (
        *mounted(dataset, '/data'),
        *mounted(place / 'out', '/out', 'rw'),
        *mounted(place / work, '/work', 'rw'),
    )


def job(*words: object, level: str = 'participant') -> tuple[object, ...]:
    quick = ('--sloppy',) if level == 'participant' else ()
    return '/data', '/out', level, '-w', '/work', *quick, '--nprocs', 1, *words


@pytest.fixture(scope='module')
def usual(run_image, dataset, tmp_path_factory) -> dict[str, str]:
    """Digests of two participants and the cohort, one container after another."""
    place = tmp_path_factory.mktemp('usual')
    options = folders(dataset, place)
    only = '--participant-label'
    for words in (job(only, '01'), job(only, '02'), job(level='group')):
        done = run_image(*words, options=options)
        assert done.returncode == 0, done.stderr
    return digests(place / 'out')


def of_participant(found: dict[str, str], label: str) -> dict[str, str]:
    """Images and tables; the page states the command too."""
    found = {name: digest for name, digest in found.items() if f'sub-{label}/anat/' in name}
    assert len(found) >= 20
    return found


def test_two_participants_at_once_then_the_cohort(image, run_image, dataset, usual, tmp_path):
    jobs = []
    for label in ('01', '02'):
        options = folders(dataset, tmp_path, work=f'work-{label}')
        command = image_command(*job('--participant-label', label), options=options)
        jobs.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    errors = [process.communicate(timeout=900)[1] for process in jobs]
    assert [process.returncode for process in jobs] == [0, 0], errors
    done = run_image(*job(level='group'), options=folders(dataset, tmp_path))
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / 'out') == usual
    assert validate(tmp_path / 'out') == []


def test_process_numbers_and_the_small_shared_memory_are_real(run_image):
    """Else the tests beside this one would show nothing."""
    code = (
        'import os, shutil; print(os.getpid(), os.getuid(), shutil.disk_usage("/dev/shm").total)'
    )
    done = run_image('-c', code, options=('--entrypoint', 'python'))
    number, user, shared = map(int, done.stdout.split())
    assert number == 1
    assert user > 0
    assert shared == 64 * 2**20


@pytest.mark.parametrize('home', ['/root', '/version', '', '/dev/null/ä b', '/out'])
def test_any_home_gives_the_same_bytes_and_takes_no_file(
    run_image, dataset, usual, tmp_path, home
):
    options = (*folders(dataset, tmp_path), '--env', f'HOME={home}')
    done = run_image(*job('--participant-label', '01'), options=options)
    assert done.returncode == 0, done.stderr
    found = digests(tmp_path / 'out')
    assert of_participant(found, '01') == of_participant(usual, '01')
    assert set(found) <= set(usual)


def test_nothing_is_needed_but_the_two_folders(run_image, dataset, usual, tmp_path):
    """No /tmp, nearly no shared memory, and an empty folder in the place of the templates."""
    empty = dataset.parent / 'empty'
    options = (
        *folders(dataset, tmp_path),
        *mounted(empty, '/opt/templateflow'),
        *('--shm-size', '256k', '--workdir', '/data'),
    )
    nowhere = (*mounted(empty, '/tmp'), *mounted(empty, '/var/tmp'))
    done = run_image(
        *job('--participant-label', '01', '--nprocs', 2), options=options, temporary=nowhere
    )
    assert done.returncode == 0, done.stderr
    found = digests(tmp_path / 'out')
    assert of_participant(found, '01') == of_participant(usual, '01')
    assert set(found) <= set(usual)


def wait_until(ready: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ready(), process.communicate()


@pytest.mark.parametrize(
    ('number', 'code', 'nprocs'),
    [(signal.SIGTERM, 143, 1), (signal.SIGINT, 130, 2), (signal.SIGUSR1, 138, 2)],
)
def test_signals_end_a_participant_and_it_resumes(
    image, run_image, dataset, usual, tmp_path, number, code, nprocs
):
    options = folders(dataset, tmp_path)
    words = job('--participant-label', '01', '--nprocs', nprocs)
    command = image_command(*words, options=options)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: any((tmp_path / 'work').rglob('prepare_*/resources.json')), process)
    asked = time.monotonic()
    process.send_signal(number)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == code, errors
    assert time.monotonic() - asked < SECONDS
    assert 'Traceback' not in errors
    assert f'exit {code}' in errors.strip().splitlines()[-1]
    done = run_image(*words, options=options)
    assert done.returncode == 0, done.stderr
    found = digests(tmp_path / 'out')
    assert of_participant(found, '01') == of_participant(usual, '01')


def test_a_signal_before_the_first_stage_ends_the_container(image, dataset, tmp_path):
    """The first process of a container ignores signals until it asks for them: it asks early."""
    options = folders(dataset, tmp_path)
    process = subprocess.Popen(
        image_command(*job(), options=options), stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: any((tmp_path / 'out').glob('logs/*.log')), process)
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=300)[1]
    assert time.monotonic() - asked < SECONDS
    assert process.returncode == 143, errors
    assert 'Traceback' not in errors


def broken(dataset: Path, place: Path) -> Path:
    """A copy of the names of the dataset whose second participant is damaged."""
    for path in dataset.rglob('*'):
        target = place / path.relative_to(dataset)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif 'sub-02' in path.name and path.name.endswith('.nii.gz'):
            target.write_bytes(path.read_bytes()[:5000])
        elif 'derivatives' not in path.parts:
            os.link(path, target)
    return place


def test_one_damaged_participant_of_two(run_image, dataset, usual, tmp_path):
    data = broken(dataset, tmp_path / 'data')
    options = folders(data, tmp_path)
    done = run_image(*job(), options=options)
    assert done.returncode == 1, done.stderr
    assert 'sub-02' in done.stderr
    assert 'Traceback' not in done.stderr
    found = digests(tmp_path / 'out')
    assert of_participant(found, '01') == of_participant(usual, '01')
    done = run_image(*job(level='group'), options=options)
    assert done.returncode == 0, done.stderr
    assert 'without result (1): sub-02' in done.stderr


@pytest.mark.parametrize(
    ('words', 'mode', 'code'),
    [
        (('participant', '--participant-label', '99'), 'rw', 18),
        (('group',), 'rw', 66),
        (('participant', '--device', 'cuda'), 'rw', 69),
        (('participant',), 'ro', 73),
        (('participant', '--nprocs', 'many'), 'rw', 64),
    ],
)
def test_mistakes_of_the_command_line(run_image, dataset, tmp_path, words, mode, code):
    out = users_folder(tmp_path / 'out')
    options = (*mounted(dataset, '/data'), *mounted(out, '/out', mode))
    done = run_image('/data', '/out', *words, options=options)
    assert done.returncode == code, done.stderr
    assert 'Traceback' not in done.stderr


def test_a_full_work_folder(run_image, dataset, tmp_path):
    out = users_folder(tmp_path / 'out')
    options = (
        *mounted(dataset, '/data'),
        *mounted(out, '/out', 'rw'),
        *('--tmpfs', '/work:size=8m,mode=1777'),
    )
    done = run_image(*job('--participant-label', '01'), options=options)
    assert done.returncode == 74, done.stderr
    assert 'disk is full' in done.stderr
    assert 'Traceback' not in done.stderr


def test_the_lock_of_the_cohort_holds_across_containers(run_image, dataset, usual, tmp_path):
    options = folders(dataset, tmp_path)
    done = run_image(*job('--participant-label', '01'), options=options)
    assert done.returncode == 0, done.stderr
    lock = tmp_path / 'out' / output_name('group.lock')
    with lock.open('w') as stream:
        lock.chmod(0o666)
        fcntl.lockf(stream, fcntl.LOCK_EX)
        done = run_image(*job(level='group'), options=options)
        assert done.returncode == 75, done.stderr
    done = run_image(*job(level='group'), options=options)
    assert done.returncode == 0, done.stderr


def test_the_limits_of_the_container_are_in_the_log(run_image, dataset, tmp_path):
    options = (*folders(dataset, tmp_path), '--memory', '3g')
    done = run_image(*job('--participant-label', '01'), options=options)
    assert done.returncode == 0, done.stderr
    (log,) = (tmp_path / 'out' / 'logs').glob('*.log')
    assert 'cgroup /sys/fs/cgroup' in log.read_text()


def test_labels_of_the_image(image):
    words = ['image', 'inspect', '--format', '{{json .Config.Labels}}', image]
    done = subprocess.run([*engine(), *words], capture_output=True, text=True, check=True)
    labels = json.loads(done.stdout)
    assert labels['org.opencontainers.image.version'] == __version__
    assert labels['org.opencontainers.image.licenses'] == 'MIT'
