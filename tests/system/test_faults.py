"""Kills at any moment, damaged caches, clocks that jump, slow renames: the same bytes."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from running_app import command, digests
from test_interruption import dataset, kill_all, readable, undisturbed  # noqa: F401

KILLS = 20

pytestmark = pytest.mark.slow


def kill_at_random(words: tuple, seconds: float, out: Path) -> None:
    moments = random.Random(0)
    for _ in range(KILLS):
        process = subprocess.Popen(
            command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        time.sleep(moments.uniform(0, seconds))
        if process.poll() is None:
            kill_all(process)
        else:
            process.communicate()
        if out.exists():
            readable(out)


def without_leftovers(folder: Path) -> None:
    """Age what killed runs left, as a day would: a younger file could be of another run."""
    for path in folder.rglob('.tmp*'):
        os.utime(path, (0, 0))


def test_a_participant_killed_at_random(dataset, undisturbed, run_app, tmp_path):  # noqa: F811
    expected, seconds = undisturbed
    words = (dataset, tmp_path / 'out', 'participant', '--sloppy', '-w', tmp_path / 'work')
    kill_at_random(words, seconds, tmp_path / 'out')
    without_leftovers(tmp_path)
    done = run_app(*words)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / 'out') == expected


def test_a_cohort_killed_at_random(simulated, run_app, tmp_path):
    words = (simulated, tmp_path / 'out', 'participant', '-w', tmp_path / 'work', '--sloppy')
    assert run_app(*words).returncode == 0
    shutil.copytree(tmp_path / 'out', tmp_path / 'alone')
    began = time.monotonic()
    assert run_app(simulated, tmp_path / 'alone', 'group', '-w', tmp_path / 'w').returncode == 0
    seconds = time.monotonic() - began
    words = (simulated, tmp_path / 'out', 'group', '-w', tmp_path / 'work')
    kill_at_random(words, seconds, tmp_path / 'out')
    without_leftovers(tmp_path)
    done = run_app(*words)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / 'out') == digests(tmp_path / 'alone')


def forget_results(out: Path) -> None:
    """As if the run had been killed before it wrote any result."""
    for path in out.iterdir():
        if path.name != 'logs':
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    'pattern', ['*.nii', '*.npy', 'result_*.pklz', '*.json', '_inputs.pklz', '_node.pklz']
)
@pytest.mark.parametrize('damage', ['cut', 'emptied', 'garbage'])
def test_a_damaged_cache(dataset, undisturbed, run_app, tmp_path_factory, pattern, damage):  # noqa: F811
    expected, _ = undisturbed
    folder = tmp_path_factory.mktemp('damaged')
    words = (dataset, folder / 'out', 'participant', '--sloppy', '-w', folder / 'work')
    assert run_app(*words).returncode == 0
    forget_results(folder / 'out')
    for path in (folder / 'work').rglob(pattern):
        content = path.read_bytes()
        new = {'cut': content[: len(content) // 2], 'emptied': b'', 'garbage': b'x' * 99}[damage]
        times = path.stat()
        path.write_bytes(new)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    done = run_app(*words)
    if done.returncode:  # not silently, and the advice helps
        assert 'Traceback' not in done.stderr
        assert '--clean-workdir' in done.stderr, done.stderr
        done = run_app(*words, '--clean-workdir')
    assert done.returncode == 0, done.stderr
    assert digests(folder / 'out') == expected


@pytest.mark.parametrize('year', [0, 2**31 - 1])
def test_a_clock_that_jumped(dataset, undisturbed, run_app, tmp_path, year):  # noqa: F811
    expected, _ = undisturbed
    data = shutil.copytree(dataset, tmp_path / 'data')
    words = (data, tmp_path / 'out', 'participant', '--sloppy', '-w', tmp_path / 'work')
    process = subprocess.Popen(
        command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    first = tmp_path / 'work' / 'participant' / 'sub_01' / 'prepare_FLAIR' / 'resources.json'
    began = time.monotonic()
    while not first.exists() and time.monotonic() - began < 120:
        time.sleep(0.1)
    kill_all(process)
    for path in [*data.rglob('*'), *tmp_path.rglob('*')]:
        os.utime(path, (year, year), follow_symlinks=False)
    done = run_app(*words)
    assert done.returncode == 0, done.stderr
    found = digests(tmp_path / 'out')
    about = 'dataset_description.json'  # it names the folder of the copy
    assert {**found, about: expected[about]} == expected


SLOW_RENAME = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
#include <stdio.h>
static void wait_(void) { usleep(50000); }
int rename(const char *a, const char *b) {
    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "rename");
    wait_(); int code = real(a, b); wait_(); return code;
}
int renameat(int x, const char *a, int y, const char *b) {
    int (*real)(int, const char *, int, const char *) = dlsym(RTLD_NEXT, "renameat");
    wait_(); int code = real(x, a, y, b); wait_(); return code;
}
"""


def test_renames_that_take_long(simulated, run_app, tmp_path):
    """As on a network file system: 0.1 s each, two jobs in one output folder."""
    compiler = shutil.which('cc') or shutil.which('gcc')
    if compiler is None:
        pytest.skip('no C compiler')
    source, library = tmp_path / 'slow.c', tmp_path / 'slow.so'
    source.write_text(SLOW_RENAME)
    made = [compiler, '-shared', '-fPIC', '-o', library, source, '-ldl']
    subprocess.run(made, check=True, capture_output=True)

    def words(out: str, label: str) -> tuple:
        return (simulated, tmp_path / out, 'participant', '-w', tmp_path / f'w{out}{label}',
                '--participant-label', label, '--sloppy', '--nprocs', 1)  # fmt: skip

    slow = {**os.environ, 'LD_PRELOAD': str(library)}
    jobs = [subprocess.Popen(command(*words('slow', one)), env=slow) for one in ('01', '02')]
    assert [job.wait(timeout=600) for job in jobs] == [0, 0]
    for label in ('01', '02'):
        assert run_app(*words('usual', label)).returncode == 0
    assert digests(tmp_path / 'slow') == digests(tmp_path / 'usual')
    assert json.loads((tmp_path / 'slow' / 'dataset_description.json').read_text())
