"""Programs that read our masks see the voxels, volumes and counts that we report."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from visits_phantom import AXES, drawn, result

MASK = 'space-FLAIR_label-L_desc-phantom3t_mask'


@pytest.mark.client('lesion_metrics')
@pytest.mark.parametrize('session', AXES)
def test_lesion_metrics_agrees_voxel_by_voxel(visits, session):
    from lesion_metrics.metrics import dice, ltpr

    from ssl2_bids.workflows.evaluation.run import evaluate

    found, true = (
        nib.load(path).get_fdata()
        for path in (result(visits, session, MASK), drawn(visits, session))
    )
    ours = {
        case.session: case.numbers()
        for case in evaluate(visits / 'out', visits / 'labels', model='phantom3t').cases
    }[session]
    print(f'lesion_metrics: Dice {dice(found, true):.4f}, LTPR {ltpr(found, true):.4f}')
    assert dice(found, true) == pytest.approx(ours['dice'], abs=1e-6)
    assert dice(found, true) > 0.6


@pytest.mark.client('msdataqc')
@pytest.mark.parametrize('session', AXES)
def test_msdataqc_counts_our_lesions(visits, session, run_client):
    output = run_client('msdataqc', 'lesioncount', result(visits, session, MASK))
    print(output)
    counts = json.loads(output.strip().splitlines()[-1])
    anat = result(visits, session, MASK).parent
    (table,) = anat.glob('*_morph.tsv')
    with open(table, newline='') as stream:
        whole = next(csv.DictReader(stream, delimiter='\t'))
    assert counts['default_26conn'] == int(whole['lesion_count'])


@pytest.mark.client('msdataqc')
def test_msdataqc_follows_sites_over_visits_on_the_template(visits, run_client):
    name = 'space-MNI152NLin2009aSym_label-L_desc-phantom3t_mask'
    masks = [result(visits, session, name) for session in AXES]
    summary = json.loads(run_client('msdataqc', 'gtdrift', *masks))
    print(summary)
    assert summary['timepoints'] == 2
    assert summary['sites'] > 0


@pytest.mark.client('bids')
def test_pybids_finds_masks_and_reads_volumes_by_name(visits):
    from bids import BIDSLayout

    layout = BIDSLayout(visits / 'out', validate=False, config=['bids', 'derivatives'])
    query = {'label': 'L', 'suffix': 'mask', 'extension': '.nii.gz'}
    for space in ('FLAIR', 'MNI152NLin2009aSym'):
        found = layout.get(space=space, **query)
        assert [one.entities['session'] for one in found] == list(AXES)
    assert len(layout.get(**query)) == 4  # no brain mask among them
    (table,) = layout.get(suffix='morph', extension='.tsv', session='1')
    row = table.get_df().query('name == "all"').iloc[0]  # a column is an attribute
    mask = nib.load(result(visits, '1', MASK))
    volume = np.asarray(mask.dataobj).sum() * abs(np.linalg.det(mask.affine[:3, :3]))
    assert row.volume_mm3 == pytest.approx(volume, rel=1e-4)


@pytest.mark.client('lesiontrack')
def test_lesiontrack_follows_lesions_on_the_template(visits):
    """Without its registration, which needs a brain's anatomy."""
    from lesiontrack.tracking import summarize, track_pair

    name = 'space-MNI152NLin2009aSym_label-L_desc-phantom3t_mask'
    masks = [np.asarray(nib.load(result(visits, session, name)).dataobj) for session in AXES]
    table, _ = track_pair(*masks, dt_years=1.0, voxel_mm3=1.0)
    summary = summarize(table, 1.0)
    print(summary)
    assert summary['n_groups'] == 5
    assert not {'new', 'resolved'} & summary['classes'].keys()
