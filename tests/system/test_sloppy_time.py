"""How long a test of an installation takes: the App from start to end, as a person runs it."""

from __future__ import annotations

import os
import time

import pytest

from ssl2_bids.workflows.simulation.run import simulate

LIMIT = 20.0  # s, on two cores that do nothing else
QUIET = 1.0  # load; above, the clock measures other programs

pytestmark = pytest.mark.slow


def test_a_sloppy_run_at_3t_takes_less_than_20_s(run_app, tmp_path):
    if os.getloadavg()[0] > QUIET:
        pytest.skip(f'other programs are busy (load {os.getloadavg()[0]:.1f})')
    simulate(tmp_path / 'data', subjects=1, seed=1)
    times = []
    for number in (1, 2):
        out = tmp_path / f'out{number}'
        started = time.perf_counter()
        done = run_app(
            tmp_path / 'data', out, 'participant', '-w', tmp_path / f'work{number}', '--sloppy',
            '--nprocs', 2,
        )  # fmt: skip
        times.append(time.perf_counter() - started)
        assert done.returncode == 0, done.stderr
        assert '--sloppy' in done.stderr
        assert (out / 'sub-01.html').is_file()
    assert min(times) < LIMIT, f'{times}, load {os.getloadavg()}'
