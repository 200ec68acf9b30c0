"""bidsgate puts lesions of known truth into two real scans and scores the App, unchanged."""

from __future__ import annotations

import json

import pytest

SCANS = (('ms-stripped', 'lj07'), ('flair-3t', 'st01'))


@pytest.mark.client('bidsgate')
def test_injected_lesions_are_found(shared_data, tmp_path, run_client, run_app):
    truth, out = tmp_path / 'injected', tmp_path / 'out'
    for dataset, subject in SCANS:
        run_client(
            'bidsgate', 'inject-lesions', shared_data / dataset, '--subject', subject,
            '--out', truth,
        )  # fmt: skip
    run_app(truth, out, 'participant', '-w', tmp_path / 'work', '--output-spaces', 'T1w')
    pattern = out / '{subject}' / 'anat' / '{base}_space-T1w_label-L_mask.nii.gz'
    output = run_client(
        'bidsgate', 'score-lesions', '--truth', truth, '--pred', pattern, '--pipeline',
        'ssl2-bids', '--out', tmp_path / 'card',
    )  # fmt: skip
    print(output)
    scores = json.loads((tmp_path / 'card' / 'scores_lesions.json').read_text())['results']
    assert [one['subject'] for one in scores] == ['sub-lj07', 'sub-st01']
    assert sum(one['score']['lesions'] for one in scores) == 24
    assert sum(one['score']['detected'] for one in scores) >= 20
