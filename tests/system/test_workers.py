"""One process or several: the same results, and workers that find everything imported."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running_app import command

from ssl2_bids.workflows.participant.engine import task

WRITTEN = ('.nii.gz', '.tsv', '.svg', '.txt')
ASKS_A_WORKER = """
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from ssl2_bids.settings import ParticipantSettings
from ssl2_bids.workflows.participant.engine.server import start_server

def main():
    start_server(ParticipantSettings(Path('in'), Path('out'), Path('work'), nprocs=2))
    assert 'torch' not in sys.modules
    with ProcessPoolExecutor(1, mp_context=get_context('forkserver')) as pool:
        found = pool.submit(eval, "sorted(__import__('sys').modules)").result()
    print(*found)

if __name__ == '__main__':
    main()
"""


def test_several_processes_write_what_one_process_writes(simulated, tmp_path):
    data = tmp_path / 'data'
    shutil.copytree(simulated / 'sub-01', data / 'sub-01')
    shutil.copy(simulated / 'dataset_description.json', data)
    written = []
    for nprocs in (1, 2):
        out = tmp_path / f'out-{nprocs}'
        words = command(
            data, out, 'participant', '-w', tmp_path / f'work-{nprocs}', '--sloppy',
            '--nprocs', nprocs, '--omp-nthreads', 1,
        )  # fmt: skip
        subprocess.run(words, check=True, capture_output=True)
        files = (p for p in (out / 'sub-01').rglob('*') if p.name.endswith(WRITTEN))
        written.append({p.relative_to(out): p.read_bytes() for p in files})
    assert len(written[0]) > 10
    assert written[0] == written[1]


@pytest.mark.parametrize(
    'error', [MemoryError(), RuntimeError('std::bad_alloc'), RuntimeError("can't allocate memory")]
)
def test_what_libraries_write_of_memory_is_no_bug(error):
    found = task.describe_failure(error, 'prepare')
    assert found['Message'] == 'there is not enough memory'
    assert not found['Unexpected']


def test_a_network_file_system_that_fails_is_no_bug():
    found = task.describe_failure(OSError(errno.ESTALE, 'Stale file handle'), 'prepare')
    assert (found['ExitCode'], found['Unexpected']) == (74, False)


def test_a_worker_finds_the_slow_modules_imported(tmp_path):
    script = tmp_path / 'ask.py'
    script.write_text(ASKS_A_WORKER)
    made = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert {'torch', 'deepbet', 'nilearn.datasets', 'SimpleITK'} <= set(made.stdout.split())
