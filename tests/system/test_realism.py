"""The benchmark of FLAIR by place: its rule on simple heads, and the whole on one real scan."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from running_app import PROJECT

sys.path.append(str(PROJECT / 'benchmarks'))
from evidence import places

DATA = PROJECT / '../shared/data'


def test_lesions_and_fluid_do_not_move_normal_white_matter():
    random = np.random.default_rng(0)
    white = random.normal(100, 5, 8000)
    mixed = np.concatenate([white, random.uniform(130, 200, 1500), random.uniform(10, 60, 500)])
    assert places.normal_white(mixed) == pytest.approx(100, abs=0.5)
    assert np.median(mixed) > 100.7


def test_ventricles_are_the_dark_fluid_where_the_atlas_has_them():
    value, probability = np.ones((40, 40, 40)), np.zeros((40, 40, 40))
    probability[10:30, 10:30, 15:25] = 0.3
    probability[14:26, 14:26, 18:22] = 0.8
    value[12:28, 12:28, 16:24] = 0.2  # wider than the certain part of the atlas
    value[2:6, 2:6, 2:6] = 0.2  # fluid elsewhere
    value[10:12, 29:30, 15:17] = 0.3  # a sulcus at the edge of the atlas
    found = places.ventricles(value, probability, np.ones_like(value, bool))
    expected = np.zeros_like(found)
    expected[12:28, 12:28, 16:24] = True
    assert np.array_equal(found, expected)


def test_a_row_states_whether_the_drawn_enclose_the_real():
    drawn = [{'cortex, median': value} for value in np.linspace(1.0, 1.2, 21)]
    real = {'one': {'cortex, median': 1.05}, 'two': {'cortex, median': 1.19}}
    apart = {'three': {'cortex, median': 1.3}, 'four': {'cortex, median': 0.9}}
    (row,) = places.interval_rows(real, apart, drawn)
    assert row == [
        'cortex', 'median', '1.05 to 1.19', '0.90 to 1.30', '1.01 to 1.19', '1.00 to 1.20',
        'yes; no, darker and brighter',
    ]  # fmt: skip
    (row,) = places.interval_rows(real, {}, drawn)
    assert row[3] == '–'
    assert row[-1] == 'yes'


def realism(*words: object) -> subprocess.CompletedProcess:
    """The benchmark as a command."""
    return subprocess.run(
        [sys.executable, PROJECT / 'benchmarks/realism.py', *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )


def test_parts_without_their_scans_are_left_out_and_named(tmp_path):
    (tmp_path / 'labels').mkdir()
    (tmp_path / 'labels' / 'sub-01_seg.nii.gz').touch()
    (tmp_path / 'flair-3t' / 'sub-sr01' / 'anat').mkdir(parents=True)
    (tmp_path / 'flair-3t' / 'sub-sr01' / 'anat' / 'sub-sr01_FLAIR.nii.gz').touch()
    parts = ('looks', 'places', 'pictures')
    done = realism('--real', tmp_path, '--only', *parts, '--pictures', tmp_path / 'pictures')
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        f'looks: left out, for {tmp_path}/t1w-3t has fewer than 2 people of sub-cl*',
        f'places: left out, for {tmp_path} has too few FLAIR scans',
        f'pictures: left out, for {tmp_path}/t1w-3t has fewer than 1 people of sub-cl*',
    ]
    assert not done.stdout


def test_pictures_alone_need_a_folder(tmp_path):
    done = realism('--real', tmp_path, '--only', 'pictures')
    assert done.returncode == 2
    assert '--only pictures needs --pictures FOLDER' in done.stderr


@pytest.mark.slow
def test_a_real_scan_beside_a_sample_that_training_draws(tmp_path):
    scan, labels = 'flair-3t/sub-sr01', 'labels/sub-01_seg.nii.gz'
    if not (DATA / scan).is_dir():
        pytest.skip('the open scans are not there')
    for part in (scan, 'flair-3t/sub-st01', labels):
        (tmp_path / 'data' / part).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'data' / part).symlink_to((DATA / part).resolve())
    done = subprocess.run(
        [
            sys.executable, PROJECT / 'benchmarks/realism.py', '--real', tmp_path / 'data',
            '--only', 'places', '--samples', '2',
        ],
        capture_output=True,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '2 of 2 real scans could be measured' in done.stdout
    rows = [
        [cell.strip() for cell in line.strip('|').split('|')]
        for line in done.stdout.splitlines()
        if line.startswith('| ')
    ]
    assert len(rows) == 2 + 2 * (len(places.SHELLS) + 2)  # without an atlas there is no tract
    values = {(row[0], row[1]): row for row in rows[2:]}
    cortex = values['cortex', 'median']
    assert cortex[3].startswith('1.1')  # sub-sr01, kept apart: brighter than white matter
    assert cortex[2].startswith('1.0')
