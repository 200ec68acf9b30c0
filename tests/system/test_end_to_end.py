"""The App on simulated participants, from raw images to tables, as a person would run it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from running_app import digests, validate

ANAT = """\
desc-brain_mask.json desc-brain_mask.nii.gz desc-preproc_T1w.json desc-preproc_T1w.nii.gz
from-FLAIR_to-T1w_mode-image_xfm.txt from-MNI152NLin2009aSym_to-T1w_mode-image_xfm.txt
from-T1w_to-MNI152NLin2009aSym_mode-image_xfm.txt mod-FLAIR_quality.json mod-T1w_quality.json
space-FLAIR_label-L_mask.json space-FLAIR_label-L_mask.nii.gz
space-MNI152NLin2009aSym_label-L_mask.json space-MNI152NLin2009aSym_label-L_mask.nii.gz
space-T1w_desc-preproc_FLAIR.json space-T1w_desc-preproc_FLAIR.nii.gz
space-T1w_label-L_desc-uncertainty_probseg.json
space-T1w_label-L_desc-uncertainty_probseg.nii.gz space-T1w_label-L_mask.json
space-T1w_label-L_mask.nii.gz space-T1w_label-L_morph.json space-T1w_label-L_morph.tsv
space-T1w_label-L_probseg.json space-T1w_label-L_probseg.nii.gz space-T1w_seg-lesions_dseg.json
space-T1w_seg-lesions_dseg.nii.gz space-T1w_seg-lesions_dseg.tsv"""
OPTIONS = [
    '--uncertainty',
    '--output-spaces',
    'anat',
    'FLAIR',
    'MNI152NLin2009aSym',
    '--omp-nthreads',
    '1',
]


@pytest.fixture(scope='module')
def finished(simulated, run_app, tmp_path_factory):
    """Both simulated participants processed, with every kind of output."""
    folder = tmp_path_factory.mktemp('finished')
    done = run_app(simulated, folder / 'out', 'participant', '-w', folder / 'work', *OPTIONS)
    assert done.returncode == 0, done.stderr
    return folder / 'out'


def test_exactly_the_promised_files(finished):
    for subject in ('sub-01', 'sub-02'):
        names = sorted(p.name for p in (finished / subject / 'anat').iterdir())
        assert names == sorted(f'{subject}_{name}' for name in ANAT.split())


def test_bids_validator_finds_no_error(finished):
    assert validate(finished) == []


def test_pybids_finds_the_mask(finished):
    from bids import BIDSLayout

    layout = BIDSLayout(finished, validate=False, config=['bids', 'derivatives'])
    found = layout.get(label='L', suffix='mask', space='T1w', extension='.nii.gz')
    assert len(found) == 2


def test_masks_agree_with_the_truth(simulated, finished):
    from ssl2_bids.workflows.evaluation.run import evaluate

    result = evaluate(finished, simulated / 'derivatives' / 'truth')
    assert len(result.cases) == 2
    assert not result.failures
    assert np.mean([case.numbers()['dice'] for case in result.cases]) > 0.5


def test_images_of_a_participant_share_their_grid_and_numbers_agree(finished):
    anat = finished / 'sub-01' / 'anat'
    mask = nib.load(anat / 'sub-01_space-T1w_label-L_mask.nii.gz')
    probability = nib.load(anat / 'sub-01_space-T1w_label-L_probseg.nii.gz')
    instances = nib.load(anat / 'sub-01_space-T1w_seg-lesions_dseg.nii.gz')
    for image in (probability, instances, nib.load(anat / 'sub-01_desc-preproc_T1w.nii.gz')):
        assert image.shape == mask.shape
        assert np.allclose(image.affine, mask.affine)
    inside = np.asarray(mask.dataobj) > 0
    assert np.array_equal(inside, np.asarray(instances.dataobj) > 0)
    sidecar = json.loads((anat / 'sub-01_space-T1w_label-L_mask.json').read_text())
    assert np.asarray(probability.dataobj)[inside].min() >= sidecar['Threshold']
    with open(anat / 'sub-01_space-T1w_label-L_morph.tsv', newline='') as stream:
        whole = next(csv.DictReader(stream, delimiter='\t'))
    voxel = abs(np.linalg.det(mask.affine[:3, :3]))
    assert whole['name'] == 'all'
    assert float(whole['volume_mm3']) == pytest.approx(inside.sum() * voxel, rel=1e-4)
    assert int(whole['lesion_count']) == np.asarray(instances.dataobj).max()


def test_the_mask_on_the_raw_grid_of_flair(simulated, finished):
    raw = nib.load(simulated / 'sub-01' / 'anat' / 'sub-01_FLAIR.nii.gz')
    anat = finished / 'sub-01' / 'anat'
    there = nib.load(anat / 'sub-01_space-FLAIR_label-L_mask.nii.gz')
    assert there.shape == raw.shape
    assert np.allclose(there.affine, raw.affine)
    volumes = [
        np.asarray(image.dataobj).sum() * abs(np.linalg.det(image.affine[:3, :3]))
        for image in (there, nib.load(anat / 'sub-01_space-T1w_label-L_mask.nii.gz'))
    ]
    assert volumes[0] == pytest.approx(volumes[1], rel=0.15)


def test_the_quality_of_each_image(finished):
    for contrast in ('T1w', 'FLAIR'):
        path = finished / 'sub-01' / 'anat' / f'sub-01_mod-{contrast}_quality.json'
        content = json.loads(path.read_text())
        assert content['Flags'] == []
        assert content['Sources'] == [f'bids:raw:sub-01/anat/sub-01_{contrast}.nii.gz']
        assert content['tissue_snr'] > 10
        assert content['coverage'] == 1
        assert content['brain_mask_dice'] > 0.9
        assert (content['wm2gm'] > 1) == (contrast == 'T1w')
        assert content['csf2wm'] < 0.7
        missing = [name for name, value in content.items() if value is None]
        assert set(missing) == set(content['NotAvailable'])
        assert 'brain only' in content['NotAvailable']['snrd_wm']
        registered = content['registration_nmi'] is not None
        assert registered == (contrast == 'FLAIR')


def test_the_page_has_all_its_figures(finished):
    page = (finished / 'sub-01.html').read_text()
    figures = sorted((finished / 'sub-01' / 'figures').glob('*.svg'))
    assert len(figures) == 6  # lesions of both, mosaic, brain of both, registration
    for figure in figures:
        assert f'sub-01/figures/{figure.name}' in page
    assert 'Research use only' in page


def test_running_again_changes_nothing_and_is_quick(simulated, finished, run_app):
    before = digests(finished)
    done = run_app(simulated, finished, 'participant', *OPTIONS)
    assert done.returncode == 0
    assert 'already finished with the same inputs and settings' in done.stderr
    assert digests(finished) == before


def test_another_threshold_is_another_result_from_the_same_cache(simulated, finished, run_app):
    done = run_app(simulated, finished, 'participant', *OPTIONS, '--dry-run', '--threshold', '0.4')
    assert 'finished by an earlier run' not in done.stdout


def test_group_level(simulated, finished, run_app):
    done = run_app(simulated, finished, 'group')
    assert done.returncode == 0, done.stderr
    with open(finished / 'group_lesions.tsv', newline='') as stream:
        rows = list(csv.DictReader(stream, delimiter='\t'))
    assert [row['participant_id'] for row in rows] == ['sub-01', 'sub-02']
    assert all(float(row['volume_mm3']) > 0 for row in rows)
    assert all(float(row['FLAIR_tissue_snr']) > 10 for row in rows)
    assert 'SNR in tissue: 4 images' in (finished / 'group_report.html').read_text()
    frequency = nib.load(finished / 'group_space-MNI152NLin2009aSym_lesion-frequency.nii.gz')
    assert set(np.unique(np.asarray(frequency.dataobj))) <= {0, 0.5, 1}
    assert 'sub-02.html' in (finished / 'group_report.html').read_text()
    assert not (finished / '.ssl2-bids-group.lock').exists()
    assert validate(finished) == []


def test_group_needs_no_answer(simulated, finished, run_app):
    import fcntl

    with open(finished / '.ssl2-bids-group.lock', 'w') as stream:
        fcntl.lockf(stream, fcntl.LOCK_EX)
        done = run_app(simulated, finished, 'group')
    assert done.returncode == 75
    (finished / '.ssl2-bids-group.lock').unlink(missing_ok=True)


@pytest.mark.slow
def test_7t_with_mp2rage(run_app, tmp_path):
    from ssl2_bids.workflows.simulation.run import simulate

    simulate(tmp_path / 'data', subjects=1, seed=5, field=7)
    done = run_app(tmp_path / 'data', tmp_path / 'out', 'participant', '-w', tmp_path / 'work')
    assert done.returncode == 0, done.stderr
    anat = tmp_path / 'out' / 'sub-01' / 'anat'
    assert (anat / 'sub-01_desc-denoised_UNIT1.nii.gz').is_file()
    assert (anat / 'sub-01_space-UNIT1_label-L_mask.nii.gz').is_file()
    sidecar = json.loads((anat / 'sub-01_desc-preproc_UNIT1.json').read_text())
    assert [source.rsplit('_', 2)[-2] for source in sidecar['Sources'][1:]] == ['inv-1', 'inv-2']
    assert validate(tmp_path / 'out') == []


def test_version():
    project = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, str(project / 'run.py'), '--version'], capture_output=True, text=True
    )
    assert done.stdout.startswith('ssl2-bids v')
