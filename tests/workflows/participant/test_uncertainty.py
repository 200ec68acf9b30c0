"""``--uncertainty``: which measure the map holds, and where that is stated."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from phantoms import brain_image

from ssl2_bids.settings import ParticipantSettings
from ssl2_bids.workflows.participant.run import run_participant_level


@pytest.mark.parametrize(
    ('model', 'prefix', 'measure', 'cited'),
    [
        (None, '', 'disagreement of the members', True),
        ('fast-3t', 'fast3t', 'binary entropy', False),
    ],
)
def test_sidecar_and_methods_state_the_measure(
    make_dataset, tmp_path, model, prefix, measure, cited
):
    root = make_dataset(
        {
            'sub-01/anat/sub-01_FLAIR.nii.gz': brain_image(),
            'sub-01/anat/sub-01_FLAIR.json': {'SkullStripped': True},
        }
    )
    settings = ParticipantSettings(
        root,
        tmp_path / 'out',
        tmp_path / 'work',
        device='cpu',
        model=model,
        uncertainty=True,
        sloppy=True,
    )
    code, (outcome,) = run_participant_level(settings)
    assert code == 0, outcome.reason
    anat = tmp_path / 'out/sub-01/anat'
    start = f'sub-01_space-FLAIR_label-L_desc-{prefix}'
    path = anat / f'{start}uncertainty_probseg.nii.gz'
    image = np.asarray(nib.load(path).dataobj)
    assert image.min() == 0 < image.max() <= 1
    sidecar = json.loads(path.with_suffix('').with_suffix('.json').read_text())
    assert measure in sidecar['Description']
    assert ('mutual information' in sidecar['Description']) is cited
    text = (tmp_path / 'out/logs/CITATION.bib').read_text()
    assert ('houlsby2011' in text and 'nair2020' in text) is cited
