"""The benchmarks of networks, on two small simulated heads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from label_phantom import label_head
from running_app import PROJECT

from ssl2_bids.workflows.simulation.run import simulate

SCANNER = """
name = "3 T, small field of view"
field = 3.0

[sequences.T1w]
kind = "mprage"
tr = 2.3
te = 0.003
ti = [0.9]
angles = [9]
spacing = 0.0072
pulses = [80, 80]
geometry = { axes = "RAS", voxel = [1.2, 1.2, 1.2], extent = [80, 80, 80], phase = "j", \
readout = "k" }

[sequences.FLAIR]
kind = "flair"
tr = 5.0
te = 0.100
nominal_te = 0.390
ti = [1.65]
train = 0.65
geometry = { axes = "RAS", voxel = [1.2, 1.2, 1.2], extent = [80, 80, 80], phase = "i", \
readout = "j" }
"""


@pytest.fixture(scope='module')
def dataset(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('heads')
    (root / 'maps').mkdir()
    head = nib.Nifti1Image(label_head(72), np.diag([1.0, 1, 1, 1]))
    nib.save(head, root / 'maps' / 'sub-01_dseg.nii.gz')
    (root / 'scanner.toml').write_text(SCANNER)
    simulate(
        root / 'data',
        subjects=2,
        seed=3,
        labels=root / 'maps',
        protocol=root / 'scanner.toml',
        contrasts=('T1w', 'FLAIR'),
    )
    return root / 'data'


def rows_of(name: str, *words: object) -> list[list[str]]:
    """The cells of the table that a benchmark prints, without the two lines of its head."""
    done = subprocess.run(
        [sys.executable, str(PROJECT / 'benchmarks' / name), *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith('| ')]
    cells = [[cell.strip() for cell in line.strip('| ').split(' | ')] for line in lines]
    return [row for row in cells[1:] if not set(row[0]) <= {'-', ' ', '|'}]


@pytest.mark.slow
def test_seconds_and_memory_of_networks(dataset, tmp_path):
    fast, swin = rows_of(
        'networks.py', '--networks', 'fast_unet', 'swin_unet', '--patches', 32, '--batch', 1,
        '--repeats', 0, '--dataset', dataset, '--work', tmp_path,
    )  # fmt: skip
    assert fast[:2] == ['fast_unet', '2.46']
    assert swin[:2] == ['swin_unet', '5.80']
    for row in (fast, swin):
        step, step_memory, brain, brain_memory = map(float, row[2:])
        assert min(step, brain) > 0
        assert min(step_memory, brain_memory) > 100  # torch alone needs more


@pytest.mark.slow
def test_only_norms_of_the_window_gain_from_fixed_statistics(dataset, tmp_path):
    rows = rows_of(
        'windows.py', dataset, '--models', 'committee-3t', '--windows', 64, 96,
        '--statistics', 'others', '--precision', 'float32', '--work', tmp_path,
    )  # fmt: skip
    names = [(row[0], row[1], row[2]) for row in rows]
    usual = '96 (usual)'
    assert names == [
        ('committee-3t, member 0', 'of the voxel', '64'),
        ('committee-3t, member 0', 'of the voxel', usual),
        ('committee-3t, member 1', 'of the window', '64'),
        ('committee-3t, member 1', 'of the window', usual),
        ('committee-3t, member 1', 'others', '64'),
        ('committee-3t, member 1', 'others', usual),
        ('committee-3t', 'of both', '64'),
        ('committee-3t', 'of both', usual),
    ]
    change = {name: float(row[5]) for name, row in zip(names, rows, strict=True)}
    assert all(value == 0 for name, value in change.items() if name[2] == usual)
    member = 'committee-3t, member 1'
    assert 0 <= change[member, 'others', '64'] < change[member, 'of the window', '64']


@pytest.mark.slow
def test_members_calibrated_on_others(dataset, tmp_path):
    rows = rows_of('member_calibration.py', dataset, '--work', tmp_path)
    loss = {(row[0], row[1]): float(row[5]) for row in rows if row[2:3] == ['all']}
    assert loss.keys() == {
        (name, way)
        for name in ('member 0', 'member 1', 'mean')
        for way in ('as trained', 'calibrated')
    }
    assert all(np.isfinite(list(loss.values())))
    assert any(loss[n, 'as trained'] != loss[n, 'calibrated'] for n in ('member 0', 'member 1'))
