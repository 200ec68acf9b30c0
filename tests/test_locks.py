"""Names that one process holds are busy for another, until it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from ssl2_bids.locks import locked

HOLD = """
import sys
import threading
import time
from pathlib import Path
from ssl2_bids.locks import locked
with locked(Path(sys.argv[1]), sys.argv[2:]) as busy:
    print(sorted(busy), flush=True)
    sys.stdin.read()
"""


def hold(path: Path, *names: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, '-c', HOLD, path, *names],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_names_are_busy_until_their_process_ends(tmp_path):
    path = tmp_path / 'new' / 'lock'
    with hold(path, 'a', 'b') as first:
        assert first.stdout.readline() == '[]\n'
        with locked(path, ['b', 'c', 'ä']) as busy:
            assert busy == {'b'}
            with hold(path, 'a', 'c', 'ä', 'd') as other:
                other.stdin.close()
                assert other.stdout.read() == "['a', 'c', 'ä']\n"
        first.kill()
        first.wait()
        with locked(path, ['a', 'b']) as busy:
            assert busy == set()


def test_names_that_are_waited_for_are_held_when_the_other_process_lets_go(tmp_path):
    with hold(tmp_path / 'lock', 'a', 'b') as first:
        assert first.stdout.readline() == '[]\n'
        threading.Timer(0.5, first.kill).start()
        began = time.monotonic()
        with locked(tmp_path / 'lock', ['b', 'c'], waited_for=['a']) as busy:
            assert time.monotonic() - began > 0.3
            assert busy == set()  # the process has ended, with both of its names


def test_thousands_of_names_need_one_open_file(tmp_path):
    names = [f'sub_{n:04d}' for n in range(3000)]
    before = len(os.listdir('/proc/self/fd'))
    with locked(tmp_path / 'lock', names) as busy:
        assert busy == set()
        assert len(os.listdir('/proc/self/fd')) == before + 1
        with hold(tmp_path / 'lock', *names) as other:
            other.stdin.close()
            assert other.stdout.read().count('sub_') == 3000


def test_where_the_file_system_has_no_locks_nothing_is_busy(tmp_path, monkeypatch):
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(fcntl, 'lockf', refuse)
    with locked(tmp_path / 'lock', ['a']) as busy:
        assert busy == set()


def test_a_lock_file_that_another_run_removes_meanwhile_is_not_held(tmp_path, monkeypatch):
    """Else this process and one that comes later hold two files of one path."""
    path = tmp_path / 'lock'
    truly, removed = os.open, []

    def opened(*given):
        stream = truly(*given)
        if not removed:
            removed.append(path.unlink())
        return stream

    monkeypatch.setattr('ssl2_bids.locks.os.open', opened)
    with locked(path, ['a']) as busy:
        assert busy == set()
        monkeypatch.undo()
        with hold(path, 'a') as other:
            assert other.stdout.readline() == "['a']\n"
            other.stdin.close()
