"""Sessions of which fMRIPrep made one T1w, compared."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nipreps_outputs import write_outputs
from site_phantom import AFFINE, make_model
from visits_phantom import FREE, ball, rescan

from ssl2_bids.settings import ParticipantSettings
from ssl2_bids.workflows.longitudinal.plan import make_plan
from ssl2_bids.workflows.longitudinal.run import compare
from ssl2_bids.workflows.participant.planning import plan_sessions
from ssl2_bids.workflows.participant.run import run_participant_level


@pytest.mark.slow
def test_the_one_t1w_of_all_sessions_is_no_evidence_of_change(tmp_path: Path):
    model = make_model(tmp_path)
    data, given = tmp_path / 'data', tmp_path / 'fmriprep'
    for session, new in (('1', None), ('2', ball(FREE, 2.3))):
        anat = data / 'sub-01' / f'ses-{session}' / 'anat'
        anat.mkdir(parents=True)
        one = rescan(1, int(session), new)
        for contrast, values in (('T1w', one.t1w), ('FLAIR', one.flair)):
            path = anat / f'sub-01_ses-{session}_{contrast}.nii.gz'
            nib.Nifti1Image(values, AFFINE).to_filename(path)
    content = {'Name': 'x', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw'}
    (data / 'dataset_description.json').write_text(json.dumps(content))
    mean = rescan(1, 3)
    t1w = nib.Nifti1Image(mean.t1w, AFFINE)
    mask = nib.Nifti1Image(mean.brain.astype(np.uint8), AFFINE)
    write_outputs(given, 'fmriprep_ds210', '01', t1w=t1w, mask=mask)
    settings = ParticipantSettings(
        data,
        tmp_path / 'out',
        tmp_path / 'work',
        model=str(model),
        device='cpu',
        min_lesion_volume=300.0,
        derivatives={'fmriprep': given},
    )
    code, outcomes = run_participant_level(settings)
    assert code == 0, outcomes
    plan = make_plan('01', plan_sessions(settings), {})
    assert [visit.reference for visit in plan.visits] == ['T1w', 'T1w']
    assert compare(plan) is None
    with open(plan.table, newline='') as stream:
        rows = list(csv.DictReader(stream, delimiter='\t'))
    states = sorted(row['state'] for row in rows if row['session_id'] == 'ses-2')
    assert states == ['new'] + ['stable'] * (len(states) - 1)
    assert len(states) >= 3
    warnings = json.loads(plan.summary.read_text())['warnings']
    assert warnings == [
        'ses-1 and ses-2 have one T1w image, made from both: the other contrasts show changes'
    ]
