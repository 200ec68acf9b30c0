"""--calibrate-from as a user runs it: segmented, calibrated, run again, another label."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from running_app import digests, validate


def label_of(simulated: Path, folder: Path, subject: str) -> None:
    """The truth of a simulated participant as a label."""
    target = folder / f'sub-{subject}' / 'anat'
    target.mkdir(parents=True)
    truth = simulated / 'derivatives' / 'truth' / f'sub-{subject}' / 'anat'
    for path in truth.glob('*_label-L_mask.*'):
        shutil.copy(path, target / path.name)


@pytest.mark.slow
def test_a_run_with_one_labelled_participant(run_app, simulated, tmp_path):
    out, labels = tmp_path / 'out', tmp_path / 'labels'
    label_of(simulated, labels, '01')
    words = [
        simulated, out, 'participant', '-w', tmp_path / 'work', '--contrasts', 't1w', 'flair',
        '--calibrate-from', labels,
    ]  # fmt: skip
    refused = run_app(*words, '--participant-label', '02')
    assert refused.returncode == 66
    assert 'neither selected nor segmented before by committee-3t: sub-01' in refused.stderr
    done = run_app(*words)
    assert done.returncode == 0, done.stderr
    card = json.loads((out / 'models/calibrated/model.json').read_text())
    (marker,) = (out / 'sub-02/anat').glob('*_label-L_desc-calibrated_mask.json')
    sidecar = json.loads(marker.read_text())
    assert sidecar['Calibration'] == {**card['Calibration'], 'Participants': ['sub-01']}
    page = (out / 'sub-02.html').read_text()
    assert 'Model of the site: recalibrated, on manual masks of sub-01' in page
    assert validate(out) == []
    before = digests(out)
    again = run_app(*words, '--participant-label', '02')  # sub-01 counts, selected or not
    assert again.returncode == 0
    assert 'the model of an earlier run' in again.stdout + again.stderr
    assert digests(out) == before
    shutil.rmtree(labels / 'sub-01')
    label_of(simulated, labels, '02')
    other = run_app(*words)
    assert other.returncode == 0
    assert '2 finished before' in other.stdout + other.stderr
    now = json.loads(marker.read_text())['Calibration']
    assert now['Participants'] == ['sub-02']
    assert now != sidecar['Calibration']
