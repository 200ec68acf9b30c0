"""Whole runs that take results of fMRIPrep: what is used, and what the results state of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nipreps_outputs import anat, write_outputs
from phantoms import brain_image, turned
from running_app import validate

from ssl2_bids.settings import ParticipantSettings
from ssl2_bids.workflows.export.run import export
from ssl2_bids.workflows.participant.run import run_participant_level

PREPROC, MASK = 'desc-preproc_T1w', 'desc-brain_mask'
URI = 'bids:fmriprep:sub-01/anat/sub-01_'
ANGLES = (0.1, -0.06, 0.03)  # radians; between the sessions' FLAIR and the T1w of all sessions


def smaller(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """A brain mask that no extraction would find: without a corner of the brain."""
    mask = (np.asarray(image.dataobj) > 0).astype(np.uint8)
    mask[: mask.shape[0] // 3, : mask.shape[1] // 3] = 0
    return nib.Nifti1Image(mask, image.affine)


@pytest.fixture(scope='module')
def finished(tmp_path_factory) -> ParticipantSettings:
    """Participant 01 with a session, and 02 whose mask is damaged behind its header."""
    root = tmp_path_factory.mktemp('run')
    data, given = root / 'data', root / 'fmriprep'
    t1w = brain_image(seed=3)
    for name in ('01/ses-a', '02'):
        anatomy = data / f'sub-{name}' / 'anat'
        anatomy.mkdir(parents=True)
        label = name.replace('/', '_')
        raw = np.asarray(brain_image(seed=len(label)).dataobj)
        for contrast, angles in (('T1w', (0.0, 0.0, 0.0)), ('FLAIR', ANGLES)):
            image = turned(raw, t1w.affine, 'LPS', angles=angles)
            image.to_filename(anatomy / f'sub-{label}_{contrast}.nii.gz')
    for subject in ('01', '02'):
        write_outputs(given, 'fmriprep_ds210', subject, t1w=t1w, mask=smaller(t1w))
    damaged = anat(given, '02', f'{MASK}.nii.gz')
    damaged.write_bytes(damaged.read_bytes()[:-200])
    description = {'Name': 'x', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw'}
    (data / 'dataset_description.json').write_text(json.dumps(description))
    settings = ParticipantSettings(
        data,
        root / 'out',
        root / 'work',
        device='cpu',
        derivatives={'fmriprep': given},
        reference='t1w',
    )
    code, outcomes = run_participant_level(settings)
    assert code == 1
    assert [one.status for one in outcomes] == ['done', 'failed'], outcomes
    assert 'sub-02_desc-brain_mask.nii.gz' in outcomes[1].reason
    return settings


def result(settings: ParticipantSettings, session: str, name: str) -> Path:
    return anat(settings.output_dir, '01', name, session)


def values(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_results_of_a_session_lie_on_the_grid_of_the_one_t1w(finished):
    given = nib.load(anat(finished.derivatives['fmriprep'], '01', f'{PREPROC}.nii.gz'))
    for name in (PREPROC, MASK, 'space-T1w_desc-preproc_FLAIR', 'space-T1w_label-L_mask'):
        image = nib.load(result(finished, 'a', f'{name}.nii.gz'))
        assert image.shape == given.shape
        assert np.allclose(image.affine, given.affine)
    matrix = result(finished, 'a', 'from-FLAIR_to-T1w_mode-image_xfm.txt').read_text()
    assert 'AffineTransform_double_3_3' in matrix


def test_the_t1w_is_not_corrected_again_and_the_mask_is_taken_as_it_is(finished):
    given = finished.derivatives['fmriprep']
    for name in (PREPROC, MASK):
        path = anat(given, '01', f'{name}.nii.gz')
        assert np.array_equal(values(result(finished, 'a', f'{name}.nii.gz')), values(path))


def test_sidecars_and_description_name_what_was_used(finished):
    def sidecar(name: str) -> dict:
        return json.loads(result(finished, 'a', f'{name}.json').read_text())

    assert sidecar(PREPROC)['Sources'] == [f'{URI}{PREPROC}.nii.gz']
    assert sidecar(PREPROC)['Description'] == (
        'T1w image, corrected for inhomogeneity by fMRIPrep 25.2.3.'
    )
    assert sidecar(MASK)['Sources'] == [f'{URI}{MASK}.nii.gz']
    assert sidecar('space-T1w_desc-preproc_FLAIR')['Sources'] == [
        'bids:raw:sub-01/ses-a/anat/sub-01_ses-a_FLAIR.nii.gz'
    ]
    content = json.loads((finished.output_dir / 'dataset_description.json').read_text())
    assert content['DatasetLinks']['fmriprep'] == finished.derivatives['fmriprep'].as_uri()
    summary = finished.output_dir / 'sub-01/figures/sub-01_ses-a_desc-summary_report.json'
    methods = json.loads(summary.read_text())['methods']
    assert methods[1] == (
        'Results of fMRIPrep 25.2.3 [@esteban2019] were used: the bias-corrected T1w image, '
        'the brain mask.'
    )
    (sentence,) = [text for text in methods if 'N4' in text]
    assert 'T1w' not in sentence
    assert validate(finished.output_dir) == []


def test_the_page_states_where_an_image_is_from(finished):
    page = (finished.output_dir / 'sub-01.html').read_text()
    assert 'from fMRIPrep 25.2.3' in page
    assert f'{URI}{PREPROC}.nii.gz' in page
    assert 'one image of all sessions' not in page  # there is one session


def test_the_methods_name_the_program_as_origin_of_the_mask(finished):
    summary = finished.output_dir / 'sub-01/figures/sub-01_ses-a_desc-summary_report.json'
    methods = ' '.join(json.loads(summary.read_text())['methods'])
    assert 'the brain mask.' in methods
    assert 'given by the user' not in methods


@pytest.mark.parametrize('size', [8, -200])  # the header is damaged, or the voxels behind it
@pytest.mark.parametrize('name', [MASK, PREPROC])
def test_a_result_stays_while_a_file_it_was_made_with_cannot_be_used(finished, name, size):
    path = anat(finished.derivatives['fmriprep'], '01', f'{name}.nii.gz')
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    try:
        code, (outcome,) = run_participant_level(replace(finished, participants=('01',)))
    finally:
        path.write_bytes(whole)
    assert code == 66
    assert 'was made with what cannot be used now' in outcome.reason
    assert path.name in outcome.reason
    (outcome,) = run_participant_level(replace(finished, participants=('01',)))[1]
    assert outcome.status == 'finished before'


def test_a_run_again_has_nothing_to_do(finished):
    outcomes = run_participant_level(replace(finished, participants=('01',)))[1]
    assert [one.status for one in outcomes] == ['finished before']


def test_masks_for_fmriprep_need_a_raw_t1w(finished):
    first, second = export(finished.output_dir, finished.bids_dir, 'fmriprep')
    assert (second.name, 'the session failed' in str(second.error)) == ('sub-02', True)
    assert 'T1w of another program (bids:fmriprep:sub-01/anat/' in str(first.error)
    first, _ = export(finished.output_dir, finished.bids_dir, 'filled')
    assert first.error is None


def test_flair_alone_is_masked_by_way_of_the_t1w(finished, tmp_path):
    settings = replace(
        finished,
        output_dir=tmp_path / 'out',
        participants=('01',),
        reference=None,
        sessions=('a',),
        contrasts=('flair',),
    )
    code, outcomes = run_participant_level(settings)
    assert code == 0, outcomes
    raw = nib.load(finished.bids_dir / 'sub-01/ses-a/anat/sub-01_ses-a_FLAIR.nii.gz')
    mask = nib.load(result(settings, 'a', f'{MASK}.nii.gz'))
    assert mask.shape == raw.shape
    assert np.allclose(mask.affine, raw.affine)
    given = values(anat(finished.derivatives['fmriprep'], '01', f'{MASK}.nii.gz'))
    share = np.count_nonzero(values(result(settings, 'a', f'{MASK}.nii.gz'))) / given.sum()
    assert share == pytest.approx(1, abs=0.02)
    sidecar = json.loads(result(settings, 'a', 'space-FLAIR_label-L_mask.json').read_text())
    assert sidecar['Channels'] == ['FLAIR']
    probability = json.loads(result(settings, 'a', 'space-FLAIR_label-L_probseg.json').read_text())
    assert not any('T1w' in uri for uri in probability['Sources'])
