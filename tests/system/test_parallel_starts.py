"""Jobs of many containers that start at once, each with process numbers of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

STARTERS = 16
START = """
import sys
from pathlib import Path
from ssl2_bids.bids.dataset import check_writable
from ssl2_bids.bids.provenance import write_dataset_files
from ssl2_bids.files import remove_leftovers

data, out, rounds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
print('ready', flush=True)
sys.stdin.readline()
for _ in range(rounds):
    check_writable(out)
    remove_leftovers(out)
    write_dataset_files(out, data, {})
"""
# as `apptainer --containall`: own process numbers, the host's name
CONTAINER = ['unshare', '--user', '--map-root-user', '--pid', '--fork']


def can_unshare() -> bool:
    """Whether this machine lets us have a namespace of process numbers."""
    return (
        bool(shutil.which('unshare'))
        and not subprocess.run([*CONTAINER, 'true'], capture_output=True, check=False).returncode
    )


@pytest.mark.parametrize('rounds', [20, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.skipif(not can_unshare(), reason='no namespaces of process numbers here')
def test_jobs_with_the_same_process_numbers_do_not_meet(make_dataset, tmp_path: Path, rounds: int):
    data = make_dataset(['sub-01/anat/sub-01_T1w.nii.gz'])
    out = tmp_path / 'out'
    words = [*CONTAINER, sys.executable, '-c', START, data, out, rounds]
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE}
    jobs = [
        subprocess.Popen([str(word) for word in words], text=True, **pipes)
        for _ in range(STARTERS)
    ]
    for job in jobs:
        assert job.stdout.readline() == 'ready\n'
    for job in jobs:
        job.stdin.write('\n')
        job.stdin.flush()
    errors = [job.communicate()[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * STARTERS, '\n'.join(errors)
    assert not list(out.glob('.tmp-*'))
    assert (out / 'dataset_description.json').is_file()
