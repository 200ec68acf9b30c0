"""How long a test of an installation takes: the App from start to end, as a person runs it."""

from __future__ import annotations

import os
import time

import pytest

from ssl2_bids.workflows.simulation.run import simulate

LIMIT = 20.0  # s, on two cores
QUIET = 1.0  # processes that compute at the same time; more, and the clock measures these

pytestmark = pytest.mark.slow


@pytest.mark.parametrize('field', [3.0, 7.0])
def test_a_sloppy_run_of_one_participant_takes_less_than_20_s(run_app, tmp_path, field):
    if os.getloadavg()[0] > QUIET:
        pytest.skip(f'other programs are busy (load {os.getloadavg()[0]:.1f})')
    simulate(tmp_path / 'data', subjects=1, seed=1, field=field)
    words = (tmp_path / 'data', tmp_path / 'out', 'participant', '-w', tmp_path / 'work')
    started = time.perf_counter()
    done = run_app(*words, '--sloppy', '--nprocs', 2)
    seconds = time.perf_counter() - started
    assert done.returncode == 0, done.stderr
    assert '--sloppy' in done.stderr
    assert (tmp_path / 'out' / 'sub-01.html').is_file()
    assert seconds < LIMIT, f'load {os.getloadavg()}'
