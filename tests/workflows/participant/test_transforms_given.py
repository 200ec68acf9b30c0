"""Transforms to templates that fMRIPrep found: which are used, and whose they are."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nipreps_outputs import anat, write_outputs
from phantoms import turned
from scipy import ndimage
from template_home import make_home

from ssl2_bids import itk
from ssl2_bids.errors import UnavailableError
from ssl2_bids.settings import ParticipantSettings
from ssl2_bids.steps import deformation
from ssl2_bids.steps.template import template
from ssl2_bids.volume import Volume, read, resample, resample_deformed
from ssl2_bids.workflows.participant.earlier import KeptResultError
from ssl2_bids.workflows.participant.expected_methods import expected_methods
from ssl2_bids.workflows.participant.plan import Plan
from ssl2_bids.workflows.participant.planning import (
    describe_plans,
    plan_sessions,
    with_checked_transforms,
)
from ssl2_bids.workflows.participant.run import run_participant_level

ADULT, OTHER = 'MNI152NLin2009cAsym', 'MNIPediatricAsym'
URI = 'bids:fmriprep:sub-01/anat/sub-01_'
FORTH, BACK = (f'from-{ways}_mode-image_xfm' for ways in (f'T1w_to-{ADULT}', f'{ADULT}_to-T1w'))


def transforms_of(shift: float, seed: int) -> tuple[sitk.Transform, sitk.Transform]:
    """T1w to template and back, as ANTs stores them: an affine and a field in doubles."""
    model = template()
    random = np.random.default_rng(seed)
    part = np.stack(
        [ndimage.gaussian_filter(random.normal(size=(25, 30, 24)), 2.5) for _ in 'xyz'], -1
    )
    part *= 6 / np.abs(part).max()
    affine = itk.LPS @ model.affine @ np.diag([8.0, 8.0, 8.0, 1.0])
    image = sitk.GetImageFromArray(part.transpose(2, 1, 0, 3).astype(np.float64), isVector=True)
    image.SetSpacing([8.0] * 3)
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / 8).ravel().tolist())
    field = sitk.Resample(image, [99, 117, 95], sitk.Transform(), sitk.sitkBSpline,
                          image.GetOrigin(), [2.0] * 3, image.GetDirection())  # fmt: skip
    linear = sitk.AffineTransform(3)
    linear.SetMatrix([1.05, 0.05, 0, -0.04, 0.95, 0.1, 0, -0.08, 1.02])
    linear.SetTranslation((5.0, -20.0, shift))
    back = sitk.InvertDisplacementField(field, maximumNumberOfIterations=30)
    return (
        sitk.CompositeTransform([linear, sitk.DisplacementFieldTransform(field)]),
        sitk.CompositeTransform([sitk.DisplacementFieldTransform(back), linear.GetInverse()]),
    )


def head_of(backward: sitk.Transform) -> nib.Nifti1Image:
    """The head of the template where the transforms put it, 3 mm voxels."""
    model = template()
    grid = Volume(np.empty((72, 84, 70), bool), np.diag([3.0, 3.0, 3.0, 1.0]))
    grid.affine[:3, 3] = (-108, -118, -95)
    shifts = itk.shifts_of([backward], grid)
    found = resample_deformed(
        model, grid, transform=np.eye(4), shifts=shifts, shifts_affine=grid.affine
    )
    image = nib.Nifti1Image((found.data * 100).astype(np.float32), grid.affine)
    image.set_sform(grid.affine, 1)
    return image


@pytest.fixture(scope='module')
def home(tmp_path_factory) -> Path:
    return make_home(tmp_path_factory.mktemp('templateflow'))


@pytest.fixture(scope='module')
def site(tmp_path_factory) -> Path:
    """Two participants as raw images and as outputs of fMRIPrep, each with its own transforms."""
    root = tmp_path_factory.mktemp('site')
    for number, shift in ((1, 12.0), (2, -28.0)):
        subject = f'{number:02}'
        ways = transforms_of(shift, number)
        image = head_of(ways[1])
        anatomy = root / 'data' / f'sub-{subject}' / 'anat'
        anatomy.mkdir(parents=True)
        for contrast in ('T1w', 'FLAIR'):
            raw = turned(np.asarray(image.dataobj), image.affine, 'LAS')
            raw.to_filename(anatomy / f'sub-{subject}_{contrast}.nii.gz')
        mask = nib.Nifti1Image((np.asarray(image.dataobj) > 5).astype(np.uint8), image.affine)
        write_outputs(
            root / 'fmriprep',
            'fmriprep_ds210',
            subject,
            t1w=image,
            mask=mask,
            transforms={ADULT: ways},
        )
    description = {'Name': 'x', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw'}
    (root / 'data' / 'dataset_description.json').write_text(json.dumps(description))
    return root


@pytest.fixture
def settings(site, home, tmp_path, monkeypatch) -> ParticipantSettings:
    """A copy of one's own of the outputs, to be damaged."""
    monkeypatch.setenv('TEMPLATEFLOW_HOME', str(home))
    shutil.copytree(site / 'fmriprep', tmp_path / 'fmriprep')
    return ParticipantSettings(
        site / 'data',
        tmp_path / 'out',
        tmp_path / 'work',
        device='cpu',
        participants=('01',),
        contrasts=('t1w',),
        reference='t1w',
        derivatives={'fmriprep': tmp_path / 'fmriprep'},
        output_spaces=(ADULT, f'{ADULT}:res-2'),
    )


def plan_of(settings: ParticipantSettings) -> Plan:
    (plan,) = plan_sessions(settings)
    return with_checked_transforms(plan, settings)


def file_of(settings: ParticipantSettings, name: str, subject: str = '01') -> Path:
    return anat(settings.derivatives['fmriprep'], subject, name)


def test_the_transform_of_the_reference_is_used_for_all_its_resolutions(settings):
    plan = plan_of(settings)
    assert plan.session.problem is None
    assert plan.session.warnings == ()
    given = plan.transforms[ADULT]
    assert (given.forward, given.backward) == tuple(
        file_of(settings, f'{name}.h5') for name in (FORTH, BACK)
    )
    text = describe_plans([plan], settings)
    assert f'use    transforms to {ADULT}: {URI}{FORTH}.h5, {URI}{BACK}.h5' in text
    assert plan_of(replace(settings, output_spaces=())).transforms == {}


def test_content_of_both_transforms_decides_the_result(settings):
    first = plan_of(settings)
    shutil.copy(file_of(settings, f'{BACK}.h5', '02'), file_of(settings, f'{BACK}.h5'))
    (second,) = plan_sessions(settings)
    assert first.preprocessing == second.preprocessing
    assert first.configuration != second.configuration


def test_another_reference_gets_a_transform_of_its_own(settings):
    plan = plan_of(replace(settings, contrasts=None, reference='flair'))
    assert plan.transforms == {}
    assert plan.session.warnings[-1] == (
        f'the transform to {ADULT} of fmriprep is not used: it is one of the T1w of fmriprep, '
        'and the reference is another image'
    )


def test_a_template_without_transform_is_registered(settings):
    plan = plan_of(replace(settings, output_spaces=(f'{OTHER}:cohort-1:res-2', ADULT)))
    assert list(plan.transforms) == [ADULT]


def problem_of(settings: ParticipantSettings) -> str:
    problem = plan_of(settings).session.problem
    assert problem is not None
    assert problem.exit_code == 65
    return str(problem)


def test_the_transform_of_another_participant_is_named_before_any_work(settings):
    for name in (FORTH, BACK):
        shutil.copy(file_of(settings, f'{name}.h5', '02'), file_of(settings, f'{name}.h5'))
    code, (outcome,) = run_participant_level(settings)
    assert code == 65
    assert 'the transform does not fit this brain' in outcome.reason
    assert f'{FORTH}.h5' in outcome.reason
    assert not list(settings.work_dir.glob('participant/*'))


def test_a_way_back_of_another_participant_is_no_inverse(settings):
    shutil.copy(file_of(settings, f'{BACK}.h5', '02'), file_of(settings, f'{BACK}.h5'))
    assert 'are not inverse' in problem_of(settings)


def test_a_way_that_is_missing_or_absent(settings):
    path = file_of(settings, f'{BACK}.h5')
    path.unlink()
    assert f'the transform from-{ADULT}_to-T1w is missing' in problem_of(settings)
    path.symlink_to('../.git/annex/objects/x')
    assert 'datalad get' in problem_of(settings)


@pytest.mark.parametrize('content', [b'', b'no transform', None])
def test_a_damaged_transform_is_named(settings, content):
    path = file_of(settings, f'{FORTH}.h5')
    path.write_bytes(path.read_bytes()[:5000] if content is None else content)
    assert 'not a readable ITK transform' in problem_of(settings)
    assert str(path) in problem_of(settings)


def test_results_lie_where_the_given_transform_takes_them(settings, home):
    """Another program resamples with the file of fMRIPrep; ours is the same image."""
    code, outcomes = run_participant_level(replace(settings, output_spaces=(ADULT,)))
    assert code == 0, outcomes
    out = settings.output_dir
    moving = anat(out, '01', 'space-T1w_label-L_probseg.nii.gz')
    ours = read(anat(out, '01', f'space-{ADULT}_label-L_probseg.nii.gz'))
    fixed = itk.itk_image(ours)
    there = sitk.Resample(
        itk.itk_image(read(moving)),
        fixed,
        sitk.ReadTransform(str(file_of(settings, f'{FORTH}.h5'))),
        sitk.sitkLinear,
    )
    theirs = sitk.GetArrayFromImage(there).T
    assert theirs.max() > 0.01
    assert np.abs(theirs - ours.data).max() < 0.02 * theirs.max()
    sidecar = json.loads(anat(out, '01', f'{FORTH}.json').read_text())
    assert sidecar['Sources'] == [f'{URI}{FORTH}.h5']
    sidecar = json.loads(anat(out, '01', f'{BACK}.json').read_text())
    assert sidecar['Sources'] == [f'{URI}{BACK}.h5']
    summary = json.loads((out / 'sub-01/figures/sub-01_desc-summary_report.json').read_text())
    assert any('with the transform of fMRIPrep 25.2.3' in text for text in summary['methods'])
    plan = plan_of(replace(settings, output_spaces=(ADULT,)))
    assert expected_methods(plan) == summary['methods']
    given = summary['quality'][f'{ADULT}, Dice of the masks with the given transform']
    assert given > 0.95
    assert 0.8 < summary['quality'][f'{ADULT}, Dice of the masks with an affine transform'] < 1
    assert not any('fits the brain less well' in text for text in summary['warnings'])


def test_a_transform_that_an_affine_one_surpasses_is_doubted():
    model = template()
    brain = model.with_data((model.data > 0).astype(np.uint8))
    shift = np.eye(4)
    assert deformation.overlap_by_affine(brain, brain, shift) == 1
    shift[1, 3] = 12
    moved = deformation.overlap_by_affine(brain, brain, shift)
    assert 0.8 < moved < 0.95
    (text,) = deformation.doubts(ADULT, moved, 1.0)
    assert 'check that it is of this participant' in text
    assert deformation.doubts(ADULT, 0.97, 0.98) == []


def test_the_transform_of_all_sessions_is_not_one_of_a_session(settings, tmp_path):
    """T1w and mask have the names of a session, the transforms have none."""
    raw, given = tmp_path / 'raw', settings.derivatives['fmriprep']
    for root, names in (
        (settings.bids_dir, ('T1w.nii.gz', 'FLAIR.nii.gz')),
        (given, ('desc-preproc_T1w.nii.gz', 'desc-brain_mask.nii.gz')),
    ):
        for name in names:
            path = anat(raw if root != given else given, '01', name, 'a')
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(anat(root, '01', name), path)
    shutil.copy(settings.bids_dir / 'dataset_description.json', raw)
    plan = plan_of(replace(settings, bids_dir=raw))
    assert plan.session.scans['T1w'].paths == (anat(given, '01', 'desc-preproc_T1w.nii.gz', 'a'),)
    assert plan.transforms == {}
    assert 'the reference is another image' in plan.session.warnings[-1]


def test_a_template_that_is_not_here_has_the_grid_of_the_given_images(
    settings, tmp_path, monkeypatch
):
    monkeypatch.setenv('TEMPLATEFLOW_HOME', str(tmp_path / 'nowhere'))
    settings = replace(settings, output_spaces=(ADULT,))
    model = template()
    grid = np.diag([2.0, 2.0, 2.0, 1.0])
    grid[:3, 3] = model.affine[:3, 3]
    small = resample(model, grid, (99, 117, 95))
    for name, data in (('T1w', small.data), ('mask', (small.data > 0.2).astype(np.uint8))):
        desc = 'preproc' if name == 'T1w' else 'brain'
        path = file_of(settings, f'space-{ADULT}_desc-{desc}_{name}.nii.gz')
        nib.Nifti1Image(data, grid).to_filename(path)
    plan = plan_of(settings)
    assert plan.session.problem is None
    (found,) = plan.templates
    assert found.uri == f'{URI}space-{ADULT}_desc-preproc_T1w.nii.gz'
    assert all(found.digests)
    for spaces in ((f'{ADULT}:res-2',), ('moon',)):  # not among the outputs
        with pytest.raises(UnavailableError, match='is not available'):
            plan_sessions(replace(settings, output_spaces=spaces))
    with pytest.raises(UnavailableError):
        plan_sessions(replace(settings, derivatives={}))
    two = replace(settings, participants=('01', '02'))
    file_of(settings, f'{FORTH}.h5', '02').unlink()
    file_of(settings, f'{BACK}.h5', '02').unlink()
    first, second = plan_sessions(two)
    assert first.session.problem is None
    assert isinstance(second.session.problem, UnavailableError)
    code, outcomes = run_participant_level(settings)
    assert code == 0, outcomes
    mask = nib.load(anat(settings.output_dir, '01', f'space-{ADULT}_label-L_mask.nii.gz'))
    assert mask.shape == small.shape
    sidecar = json.loads(
        anat(settings.output_dir, '01', f'space-{ADULT}_label-L_mask.json').read_text()
    )
    assert sidecar['SpatialReference'] == found.uri
    path = file_of(settings, f'space-{ADULT}_desc-brain_mask.nii.gz')
    path.unlink()
    path.symlink_to('../.git/annex/objects/x')
    problem = plan_of(settings).session.problem
    assert isinstance(problem, KeptResultError)  # the finished result was made with it
    assert f'datalad get sub-01/anat/{path.name}' in str(problem)
    again = replace(settings, overwrite=True)
    assert f'datalad get sub-01/anat/{path.name}' in problem_of(again)
