"""Processes are started in one piece, whatever signal comes."""

import signal
import subprocess
import sys
import threading

import pytest

from ssl2_bids.processes import whole_start


@pytest.fixture
def usual_ctrl_c():
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


def test_ctrl_c_is_heard_after_the_start(usual_ctrl_c):
    done = []

    def start():
        with whole_start():
            signal.raise_signal(signal.SIGINT)
            done.append('whole')

    with pytest.raises(KeyboardInterrupt):
        start()
    assert done == ['whole']
    with pytest.raises(KeyboardInterrupt):  # and at once from then on
        signal.raise_signal(signal.SIGINT)


def test_other_signals_are_handled_after_the_start():
    order = []
    former = signal.signal(signal.SIGTERM, lambda number, _: order.append(number))
    try:
        with whole_start():
            signal.raise_signal(signal.SIGTERM)
            order.append('whole')
        assert order == ['whole', signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, former)


def test_what_is_started_does_not_hear_ctrl_c_and_can_be_ended():
    code = 'print(1, flush=True); import time; time.sleep(30)'
    with whole_start():
        child = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b'1\n'
    child.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.5)
    child.terminate()
    assert child.wait(5) == -signal.SIGTERM


def test_a_thread_that_hears_no_signals_may_start_processes():
    found = []

    def start():
        with whole_start():
            found.append(subprocess.run([sys.executable, '-c', ''], check=False).returncode)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert found == [0]
