"""What a session takes from outputs of fMRIPrep and sMRIPrep (``-d``): the plan of a run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nipreps_outputs import anat, write_outputs
from phantoms import brain_image, turned

from ssl2_bids.errors import DataError
from ssl2_bids.settings import ParticipantSettings
from ssl2_bids.workflows.participant.plan import Plan
from ssl2_bids.workflows.participant.planning import (
    describe_plans,
    plan_sessions,
    unused_folders,
)

PREPROC, MASK = 'desc-preproc_T1w.nii.gz', 'desc-brain_mask.nii.gz'
LISTS = ('smriprep_ds005', 'smriprep_ds054', 'fmriprep_ds005_partial', 'fmriprep_ds054',
         'fmriprep_ds210')  # fmt: skip


SPACING = {'T1w': 3.0, 'FLAIR': 4.0}  # mm; a T1w with the thicker slices is no reference


def raw(spacing: float = 3.0, seed: int = 0) -> nib.Nifti1Image:
    """A T1w as a scanner stores it: voxel axes LAS."""
    image = brain_image(spacing, seed=seed)
    return turned(np.asarray(image.dataobj), image.affine, 'LAS')


def mask_of(image: nib.Nifti1Image) -> nib.Nifti1Image:
    return nib.Nifti1Image((np.asarray(image.dataobj) > 0).astype(np.uint8), image.affine)


def give(root: Path, subject: str, list_name: str = 'fmriprep_ds210', **more) -> Path:
    """Outputs whose T1w has RAS axes, as both programs store it."""
    t1w = brain_image(SPACING['T1w'], seed=3)
    return write_outputs(root, list_name, subject, t1w=t1w, mask=mask_of(t1w), **more)


@pytest.fixture
def settings(make_dataset, tmp_path) -> ParticipantSettings:
    """One participant with T1w and FLAIR, the T1w preprocessed by fMRIPrep."""
    files: dict[str, object] = {
        f'sub-01/anat/sub-01_{c}.nii.gz': raw(SPACING[c]) for c in ('T1w', 'FLAIR')
    }
    files |= {'sub-01/anat/sub-01_T1w.json': {'MagneticFieldStrength': 3, 'EchoTime': 0.003}}
    given = give(tmp_path / 'fmriprep', '01')
    return ParticipantSettings(
        make_dataset(files),
        tmp_path / 'out',
        tmp_path / 'work',
        device='cpu',
        derivatives={'fmriprep': given},
    )


def plan_of(settings: ParticipantSettings) -> Plan:
    (plan,) = plan_sessions(settings)
    return plan


def root_of(settings: ParticipantSettings) -> Path:
    return settings.derivatives['fmriprep']


@pytest.mark.parametrize('list_name', LISTS)
def test_t1w_and_mask_of_every_published_list_are_taken(settings, tmp_path, list_name):
    name = list_name.partition('_')[0]
    given = give(tmp_path / list_name, '01', list_name)
    plan = plan_of(replace(settings, derivatives={name: given}))
    scan = plan.session.scans['T1w']
    assert plan.session.problem is None
    assert scan.paths == (anat(given, '01', PREPROC),)
    assert (scan.dataset, scan.corrected, scan.within, scan.channel) == (name, True, False, True)
    assert plan.session.reference == 'T1w'
    assert plan.brain_mask.path == anat(given, '01', MASK)
    assert plan.brain_mask.contrast == 'T1w'
    assert plan.session.warnings == ()


def test_metadata_that_the_output_lacks_are_those_of_the_raw_image(settings):
    metadata = plan_of(settings).session.scans['T1w'].metadata
    assert metadata == {'MagneticFieldStrength': 3, 'EchoTime': 0.003, 'SkullStripped': False}


def test_the_lines_of_a_dry_run_name_dataset_and_what_is_left(settings):
    settings = replace(settings, dry_run=True)
    text = describe_plans([plan_of(settings)], settings)
    uri = 'bids:fmriprep:sub-01/anat/sub-01_desc-preproc_T1w.nii.gz'
    assert f'use    T1w (reference): {uri}' in text
    assert f'use    brain mask on the grid of T1w: {anat(root_of(settings), "01", MASK)}' in text
    left = 'leave  sub-01/anat/sub-01_T1w.nii.gz: sub-01_desc-preproc_T1w.nii.gz of fmriprep is'
    assert left in text


def test_name_and_content_decide_the_result(settings):
    first = plan_of(settings)
    without = plan_of(replace(settings, derivatives={}))
    assert first.preprocessing != without.preprocessing
    brain_image(3.0, seed=8).to_filename(anat(root_of(settings), '01', PREPROC))
    second = plan_of(settings)
    assert second.preprocessing != first.preprocessing
    mask = mask_of(brain_image(3.0))
    mask.dataobj[20, 20, 20] = 0
    mask.to_filename(anat(root_of(settings), '01', MASK))
    assert plan_of(settings).preprocessing != second.preprocessing


def test_another_participant_s_results_are_not_taken(settings, make_dataset, caplog):
    name = 'sub-01_desc-preproc_T1w.nii.gz'
    folder = root_of(settings) / 'sub-01/anat'
    (folder / name).rename(folder / name.replace('01', '02'))
    (folder / 'sub-01_desc-brain_mask.nii.gz').unlink()
    plan = plan_of(settings)
    assert plan.session.scans['T1w'].dataset == ''
    (note,) = plan.session.warnings
    assert note.startswith('nothing for this session in -d fmriprep')
    assert 'the grid of the raw reference' in note
    assert 'the file name belongs to another participant' in caplog.text


def test_a_folder_of_which_nothing_is_used_is_named(settings, tmp_path):
    assert unused_folders(plan_sessions(settings), settings) == []
    empty = tmp_path / 'empty'
    asked = replace(settings, derivatives={'other': empty}, brain_mask=empty)
    first, second = unused_folders([plan_of(settings)], asked)
    assert f'-d other={empty}: nothing in this folder fits' in first
    assert f'--brain-mask {empty}: nothing' in second


def test_a_mask_of_another_name_is_named_with_the_whole_pattern(settings, tmp_path):
    masks = tmp_path / 'masks'
    masks.mkdir()
    mask_of(brain_image(3.0)).to_filename(masks / 'sub-01_FLAIR_desc-brain_mask.nii.gz')
    note = plan_of(replace(settings, derivatives={}, brain_mask=masks)).session.warnings[-1]
    assert note.endswith(
        '(sub-01_FLAIR_desc-brain_mask.nii.gz is not named '
        'sub-*[_ses-*][_space-*]_desc-brain_mask.nii[.gz])'
    )


def test_a_folder_of_masks_leaves_those_of_a_dataset_to_the_others(settings, make_dataset):
    files = {
        f'sub-{n}/anat/sub-{n}_{c}.nii.gz': raw(SPACING[c]) for n in ('01', '02') for c in SPACING
    }
    give(root_of(settings), '02')
    corrected = make_dataset(
        {'sub-01_desc-brain_mask.nii.gz': mask_of(brain_image(SPACING['T1w'], seed=3))},
        name='corrected',
    )
    asked = replace(settings, bids_dir=make_dataset(files, name='two'), brain_mask=corrected)
    first, second = plan_sessions(asked)
    assert first.brain_mask.path == corrected / 'sub-01_desc-brain_mask.nii.gz'
    assert second.brain_mask.path == anat(root_of(settings), '02', MASK)
    assert (first.session.warnings, second.session.warnings) == ((), ())


def test_a_t1w_from_two_runs_of_the_only_session_is_that_of_the_session(settings, make_dataset):
    names = [f'sub-01/ses-a/anat/sub-01_ses-a_{n}.nii.gz' for n in ('run-1_T1w', 'run-2_T1w')]
    files = dict.fromkeys(names, raw(SPACING['T1w']))
    plan = plan_of(replace(settings, bids_dir=make_dataset(files, name='runs')))
    assert plan.session.scans['T1w'].paths == (anat(root_of(settings), '01', PREPROC),)
    assert plan.brain_mask.path == anat(root_of(settings), '01', MASK)
    assert plan.session.skipped == ''
    assert plan.session.warnings == ()


def test_a_mask_of_another_grid_is_an_error_with_both_grids(settings):
    path = anat(root_of(settings), '01', MASK)
    mask_of(brain_image(5.0)).to_filename(path)
    plan = plan_of(settings)
    assert isinstance(plan.session.problem, DataError)
    assert plan.session.problem.path == str(path)
    assert 'the grid of none of the images' in plan.session.problem.message
    assert '5 x 5 x 5 mm' in plan.session.problem.message
    assert '-d fmriprep' in plan.session.problem.advice


@pytest.mark.parametrize(
    ('content', 'words'),
    [('link', 'datalad get'), (b'', 'empty'), (b'/annex/objects/x', 'datalad get')],
)
@pytest.mark.parametrize('name', [PREPROC, MASK])
def test_content_that_is_absent_or_damaged_is_an_error(settings, name, content, words):
    path = anat(root_of(settings), '01', name)
    path.unlink()
    if content == 'link':
        path.symlink_to('../../.git/annex/objects/x')
    else:
        path.write_bytes(content)
    problem = plan_of(settings).session.problem
    assert problem is not None
    assert problem.path == str(path)
    assert words in str(problem).lower()
    assert problem.exit_code == 65


@pytest.mark.parametrize('content', ['link', b'no image'])
def test_a_t1w_that_is_not_needed_may_be_absent_or_damaged(settings, content):
    path = anat(root_of(settings), '01', PREPROC)
    path.unlink()
    if content == 'link':
        path.symlink_to('../../.git/annex/objects/x')
    else:
        path.write_bytes(content)
    flair = replace(settings, contrasts=('flair',))
    problem = plan_of(flair).session.problem  # the mask lies on its grid
    assert problem is not None
    assert problem.path == str(path)
    anat(root_of(settings), '01', MASK).unlink()
    session = plan_of(flair).session
    assert session.problem is None
    assert sorted(session.scans) == ['FLAIR']
    assert dict(session.dropped)[path] == 'not among --contrasts'
    assert session.absent == ()


def test_a_backup_beside_a_given_t1w_is_no_image(settings):
    path = anat(root_of(settings), '01', PREPROC)
    path.rename(path.with_name(f'{path.name}.bak'))
    assert plan_of(settings).session.scans['T1w'].dataset == ''


def test_one_session_has_the_names_of_its_session(settings, make_dataset, tmp_path):
    names = [f'sub-01/ses-a/anat/sub-01_ses-a_{c}.nii.gz' for c in ('T1w', 'FLAIR')]
    images = [raw(SPACING['T1w']), raw(SPACING['FLAIR'])]
    root = make_dataset(dict(zip(names, images, strict=True)), name='one')
    given = give(tmp_path / 'other', '01', session='a')
    plan = plan_of(replace(settings, bids_dir=root, derivatives={'fmriprep': given}))
    scan = plan.session.scans['T1w']
    assert scan.paths == (anat(given, '01', PREPROC, 'a'),)
    assert not scan.within
    assert plan.brain_mask.path == anat(given, '01', MASK, 'a')


@pytest.fixture
def sessions(settings, make_dataset) -> ParticipantSettings:
    """Three sessions, the last without images; fMRIPrep has put the anatomy beside them."""
    files: dict[str, object] = {
        f'sub-01/ses-{s}/anat/sub-01_ses-{s}_{c}.nii.gz': raw(spacing, seed=ord(s))
        for s in 'ab'
        for c, spacing in SPACING.items()
    }
    files['sub-01/ses-c/func'] = None
    return replace(settings, bids_dir=make_dataset(files, name='several'))


def test_several_sessions_have_one_reference_in_the_within_subject_space(sessions):
    first, second, empty = plan_sessions(sessions)
    path = anat(root_of(sessions), '01', PREPROC)
    for plan in (first, second):
        assert plan.session.scans['T1w'].paths == (path,)
        assert plan.session.scans['T1w'].within
        assert plan.session.reference == 'T1w'
        assert plan.brain_mask.path == anat(root_of(sessions), '01', MASK)
        assert plan.session.warnings == (
            'the T1w of fmriprep is one image of all sessions: changes between sessions are '
            'averaged in it',
        )
    assert empty.session.skipped == 'the session has no images of its own'
    assert first.preprocessing != second.preprocessing


def test_a_thick_t1w_of_all_sessions_is_the_reference_all_the_same(sessions):
    path = sessions.bids_dir / 'sub-01/ses-a/anat/sub-01_ses-a_FLAIR.nii.gz'
    raw(SPACING['T1w']).to_filename(path)
    assert plan_sessions(replace(sessions, derivatives={}))[0].session.reference == 'FLAIR'
    assert plan_sessions(sessions)[0].session.reference == 'T1w'


def test_the_mask_of_all_sessions_fits_no_raw_image_even_on_an_equal_grid(sessions):
    """It lies in another space, whatever the header has."""
    anat(root_of(sessions), '01', PREPROC).unlink()
    brain_image(3.0).to_filename(sessions.bids_dir / 'sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz')
    plan = plan_sessions(sessions)[0]
    assert plan.brain_mask is None
    assert plan.session.problem is None
    assert 'the brain is extracted' in plan.session.warnings[-1]


def test_flair_alone_gets_the_mask_by_way_of_the_t1w(settings):
    plan = plan_of(replace(settings, contrasts=('flair',)))
    assert plan.session.reference == 'FLAIR'
    assert [(c, s.channel) for c, s in plan.session.scans.items()] == [
        ('T1w', False),
        ('FLAIR', True),
    ]
    assert plan.brain_mask.contrast == 'T1w'
    text = describe_plans([plan], settings)
    assert 'T1w (for the brain mask only)' in text
    anat(root_of(settings), '01', MASK).unlink()
    assert list(plan_of(replace(settings, contrasts=('flair',))).session.scans) == ['FLAIR']


def test_the_threshold_is_that_of_the_channels(settings):
    both, alone = (
        plan_of(replace(settings, contrasts=keys)).settings.threshold
        for keys in (None, ('flair',))
    )
    raw_alone = replace(settings, contrasts=('flair',), derivatives={})
    assert alone == plan_of(raw_alone).settings.threshold
    assert both == plan_of(replace(settings, derivatives={})).settings.threshold


def test_a_t1w_of_fmriprep_goes_before_a_raw_unit1_unless_that_is_asked_for(
    settings, make_dataset
):
    make_dataset({'sub-01/anat/sub-01_UNIT1.nii.gz': raw(seed=4)})
    plan = plan_of(settings)
    assert list(plan.session.scans) == ['T1w', 'FLAIR']
    left = dict(plan.session.dropped)
    assert 'of fmriprep is the T1w-like image' in left[
        settings.bids_dir / 'sub-01/anat/sub-01_UNIT1.nii.gz'
    ]  # fmt: skip
    for more in ({'reference': 'unit1'}, {'contrasts': ('unit1', 'flair')}):
        plan = plan_of(replace(settings, **more))
        assert plan.session.reference == 'UNIT1'
        assert not plan.session.scans['T1w'].channel
        assert plan.brain_mask.contrast == 'T1w'


def test_filters_are_for_raw_images(settings):
    filters = {'t1w': {'acquisition': 'x'}, 'flair': {'run': None}}
    assert plan_of(replace(settings, filters=filters)).session.scans['T1w'].dataset == 'fmriprep'


def test_of_two_datasets_the_first_goes_before(settings, tmp_path):
    other = give(tmp_path / 'smriprep', '01', 'smriprep_ds054')
    both = {'smriprep': other, **settings.derivatives}
    plan = plan_of(replace(settings, derivatives=both))
    assert plan.session.scans['T1w'].dataset == 'smriprep'
    assert plan.brain_mask.dataset == 'smriprep'


def test_a_dataset_inside_the_raw_one_has_names_of_its_own(settings):
    inside = settings.bids_dir / 'derivatives' / 'fmriprep'
    inside.parent.mkdir()
    root_of(settings).rename(inside)
    plan = plan_of(replace(settings, derivatives={'fmriprep': inside}))
    ((name, _),) = plan.sources['T1w']
    assert name == 'bids:fmriprep:sub-01/anat/sub-01_desc-preproc_T1w.nii.gz'


def test_raw_data_inside_the_given_dataset_keep_theirs(settings):
    inside = root_of(settings) / 'sourcedata' / 'raw'
    inside.parent.mkdir()
    settings.bids_dir.rename(inside)
    plan = plan_of(replace(settings, bids_dir=inside))
    assert plan.sources['FLAIR'][0][0] == 'sub-01/anat/sub-01_FLAIR.nii.gz'
    assert plan.sources['T1w'][0][0].startswith('bids:fmriprep:')
    assert unused_folders([plan], settings) == []
    shutil.rmtree(root_of(settings) / 'sub-01')
    settings = replace(settings, bids_dir=inside)
    plan = plan_of(settings)
    (note,) = plan.session.warnings
    assert note.startswith('nothing for this session in -d fmriprep: its raw images are used')
    (line,) = unused_folders([plan], settings)
    assert 'nothing in this folder fits' in line


@pytest.fixture
def mp2rage(make_dataset, tmp_path) -> ParticipantSettings:
    """UNIT1 with its inversions and their settings; a dataset with nothing of it yet."""
    names = ('UNIT1', 'inv-1_MP2RAGE', 'inv-2_MP2RAGE')
    files: dict[str, object] = {f'sub-01/anat/sub-01_{n}.nii.gz': raw() for n in names}
    for number, (time, angle) in enumerate(((0.8, 4), (2.7, 5)), start=1):
        files[f'sub-01/anat/sub-01_inv-{number}_MP2RAGE.json'] = {
            'InversionTime': time,
            'FlipAngle': angle,
            'RepetitionTimePreparation': 5.0,
            'RepetitionTimeExcitation': 0.007,
            'NumberShots': 160,
            'MagneticFieldStrength': 7,
        }
    given = tmp_path / 'denoising'
    for folder in ('anat', 'fmap'):
        (given / 'sub-01' / folder).mkdir(parents=True)
    return ParticipantSettings(
        make_dataset(files, name='mp2rage'),
        tmp_path / 'out',
        tmp_path / 'work',
        device='cpu',
        derivatives={'denoising': given},
    )


def test_a_denoised_unit1_goes_before_the_raw_one_and_its_inversions(mp2rage):
    assert len(plan_of(mp2rage).session.scans['UNIT1'].companions) == 2
    path = mp2rage.derivatives['denoising'] / 'sub-01/anat/sub-01_desc-denoised_UNIT1.nii.gz'
    brain_image(3.0).to_filename(path)
    scan = plan_of(mp2rage).session.scans['UNIT1']
    assert scan.paths == (path,)
    assert scan.companions == ()
    assert not scan.corrected  # at 7 T N4 is for UNIT1 too


@pytest.mark.parametrize('folder', ['fmap', 'anat'])
def test_a_b1_map_of_another_program_goes_before_the_raw_one(mp2rage, make_dataset, folder):
    make_dataset({'sub-01/fmap/sub-01_TB1map.nii.gz': raw(4.0)}, name='mp2rage')
    first = plan_of(mp2rage)
    path = mp2rage.derivatives['denoising'] / f'sub-01/{folder}/sub-01_desc-smooth_TB1map.nii.gz'
    brain_image(4.0).to_filename(path)
    second = plan_of(mp2rage)
    scan = second.session.scans['UNIT1']
    assert scan.companions[-1].role == 'TB1map'
    assert scan.companions[-1].path == path
    assert scan.maps == {'T1map': 'B1corr'}
    assert first.preprocessing != second.preprocessing
    assert second.sources['UNIT1'][-1][0] == f'bids:denoising:sub-01/{folder}/{path.name}'
    path.write_bytes(b'')
    assert plan_of(mp2rage).session.problem.path == str(path)
