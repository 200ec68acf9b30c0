"""Benchmarks: their commands run, and refuse with a line what they cannot do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from running_app import PROJECT

sys.path.append(str(PROJECT / 'benchmarks'))
import image_quality

from ssl2_bids.bids.outputs import UnitNames
from ssl2_bids.files import write_json, write_text
from ssl2_bids.volume import Volume, write


def run(name: str, *words: object, folder: Path | None = None) -> subprocess.CompletedProcess:
    """A benchmark as a command, in a folder."""
    return subprocess.run(
        [sys.executable, PROJECT / 'benchmarks' / name, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )


def rows(printed: str) -> list[list[str]]:
    """The cells of a table, without its head."""
    lines = [line for line in printed.splitlines() if line.startswith('| ')]
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines][2:]


def test_start_up_is_timed_with_finished_results(tmp_path):
    done = run('startup.py', '--sessions', 2, '--work', 'new/work', folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [row[0] for row in rows(done.stdout)] == [
        'one session, nothing to do',
        '2 sessions, nothing to do, files read',
        '2 sessions, nothing to do, digests kept',
    ]


def test_planning_is_timed_in_a_new_relative_folder(tmp_path):
    done = run('planning.py', '--participants', 2, '--work', 'new/work', folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [row[-1] for row in rows(done.stdout)] == ['2', '2', '1']


def test_a_cohort_is_copied_into_a_new_relative_folder(tmp_path):
    marker = UnitNames(tmp_path / 'results', '01', None, 'T1w', '').done_marker
    words = ('cohort.py', 'results', '--participants', 2, '--work', 'new/work')
    (tmp_path / 'results').mkdir()
    done = run(*words, folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith('results: this folder has no finished participants\n')
    write_text(marker.with_name('sub-01_space-T1w_label-L_mask.nii.gz'), 'no image')
    write_json(marker, {'ConfigurationHash': 'x', 'Model': {'Name': 'm', 'Version': '1'}})
    done = run(*words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert rows(done.stdout)[0][0] == '2'


def test_regions_need_an_image_on_the_grid_of_the_truth(tmp_path):
    truth = tmp_path / 'derivatives' / 'truth' / 'sub-01' / 'anat'
    mask = Volume(np.ones((4, 4, 4), np.uint8), np.eye(4))
    for name in ('desc-brain_mask', 'seg-lesions_dseg'):
        write(mask, truth / f'sub-01_space-FLAIR_{name}.nii.gz', dtype=np.uint8)
    moved = np.eye(4)
    moved[:3, 3] = 5.0
    image = Volume(np.ones((4, 4, 4), np.float32), moved)
    write(image, tmp_path / 'sub-01' / 'anat' / 'sub-01_FLAIR.nii.gz')
    done = run('regions.py', tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith('the image does not lie on the grid of the truth\n')


def test_noise_of_spoiled_images_is_a_share_of_the_median_of_the_brain():
    random = np.random.default_rng(0)
    image = Volume(
        np.abs(random.normal(100, 1, (24, 24, 24))).astype(np.float32), np.eye(4), 'T1w'
    )
    made = dict(image_quality.spoiled(image, level=100.0))
    for ratio in image_quality.NOISY:
        noise = made[f'SNR {ratio:g}'].data.std()
        assert 0.7 * 100 / ratio < noise < 1.1 * 100 / ratio
