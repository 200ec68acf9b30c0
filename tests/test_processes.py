"""Work side by side in processes: all results come, a lost process is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from ssl2_bids.errors import Ssl2Error
from ssl2_bids.processes import side_by_side


def square(number):
    return number * number, os.getpid()


def die(number):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def divide(number):
    return 1 / number


@pytest.mark.parametrize(('nprocs', 'parts'), [(1, 1), (2, 1), (2, 4), (3, 100)])
def test_every_job_is_done_once(nprocs, parts):
    found = dict(side_by_side(square, range(10), nprocs=nprocs, parts=parts))
    assert {place: made for place, (made, _) in found.items()} == {n: n * n for n in range(10)}
    elsewhere = os.getpid() not in {process for _, process in found.values()}
    assert elsewhere == (nprocs > 1 and parts < 10)


def test_nothing_to_do():
    assert list(side_by_side(square, [], nprocs=2)) == []


def test_a_process_that_is_killed_is_named():
    with pytest.raises(Ssl2Error, match='a process was killed') as caught:
        list(side_by_side(die, range(4), nprocs=2))
    assert 'fewer --nprocs' in str(caught.value)


@pytest.mark.parametrize('nprocs', [1, 2])
def test_an_error_of_a_job_comes_through(nprocs):
    with pytest.raises(ZeroDivisionError):
        list(side_by_side(divide, [1, 0, 2], nprocs=nprocs))


INTERRUPTED = """
import signal, sys, time
from ssl2_bids.cli.app import _interrupt
from ssl2_bids.processes import side_by_side

if __name__ == '__main__':
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    print('begun', flush=True)
    list(side_by_side(time.sleep, [60] * 4, nprocs=2))
"""


@pytest.mark.parametrize('times', [1, 2])
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_processes_and_a_second_one_hangs_nothing(tmp_path, number, times):
    script = tmp_path / 'script.py'
    script.write_text(INTERRUPTED)
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        process.stdout.readline()
        time.sleep(3)  # the workers have begun
        for _ in range(times):
            process.send_signal(number)
            time.sleep(0.05)
        try:
            process.wait(timeout=40)
        finally:
            process.kill()
    assert process.returncode not in (0, -signal.SIGKILL)
