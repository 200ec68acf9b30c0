"""Template spaces in the plan of a run: hashes, names, and files that cannot be used."""

from __future__ import annotations

import gzip
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from phantoms import brain_image
from template_home import make_home

from ssl2_bids.errors import DataError, UsageError
from ssl2_bids.settings import ParticipantSettings
from ssl2_bids.workflows.participant.planned_outputs import (
    all_paths,
    planned_figures,
)
from ssl2_bids.workflows.participant.planning import plan_sessions
from ssl2_bids.workflows.participant.templates import by_template, output_templates

ADULT, CHILD = 'MNI152NLin2009cAsym', 'MNIPediatricAsym:cohort-1:res-2'
IMAGE = f'tpl-{ADULT}/tpl-{ADULT}_res-01_T1w.nii.gz'
MASK = f'tpl-{ADULT}/tpl-{ADULT}_res-01_desc-brain_mask.nii.gz'


@pytest.fixture(scope='module')
def templates(tmp_path_factory) -> Path:
    return make_home(tmp_path_factory.mktemp('templateflow'))


@pytest.fixture
def home(templates, tmp_path, monkeypatch) -> Path:
    """A home of one's own, to be damaged."""
    folder = tmp_path / 'home'
    shutil.copytree(templates, folder)
    monkeypatch.setenv('TEMPLATEFLOW_HOME', str(folder))
    return folder


@pytest.fixture
def settings(make_dataset, tmp_path, home) -> ParticipantSettings:
    root = make_dataset({f'sub-01/anat/sub-01_{c}.nii': brain_image() for c in ('FLAIR', 'T1w')})
    return ParticipantSettings(
        root, tmp_path / 'out', tmp_path / 'work', device='cpu', output_spaces=(ADULT,)
    )


def configuration(settings: ParticipantSettings) -> str:
    (plan,) = plan_sessions(settings)
    return plan.configuration


def test_space_and_content_of_a_template_decide_the_result(settings, home):
    first = configuration(settings)
    assert configuration(settings) == first
    others = {
        configuration(replace(settings, output_spaces=spaces))
        for spaces in ((), (f'{ADULT}:res-2',), (ADULT, CHILD), ('T1w', ADULT))
    }
    assert len(others | {first}) == 5
    image = nib.load(home / IMAGE)
    data = np.asarray(image.dataobj).copy()
    data[20, 20, 20] += 1
    nib.Nifti1Image(data, image.affine, image.header).to_filename(home / IMAGE)
    assert configuration(settings) != first


def test_preprocessing_does_not_depend_on_templates(settings):
    (one,) = plan_sessions(settings)
    (other,) = plan_sessions(replace(settings, output_spaces=()))
    assert one.preprocessing == other.preprocessing


def test_names_of_all_files(settings):
    (plan,) = plan_sessions(replace(settings, output_spaces=(ADULT, f'{ADULT}:res-2', CHILD)))
    names = {path.name for path in all_paths(plan)}
    assert {
        f'sub-01_space-{ADULT}_label-L_mask.nii.gz',
        f'sub-01_space-{ADULT}_label-L_mask.json',
        f'sub-01_space-{ADULT}_res-2_label-L_probseg.nii.gz',
        f'sub-01_space-{ADULT}_seg-lesions_res-2_dseg.tsv',
        'sub-01_space-MNIPediatricAsym_cohort-1_res-2_label-L_mask.nii.gz',
        'sub-01_from-FLAIR_to-MNIPediatricAsym+1_mode-image_xfm.h5',
        'sub-01_from-MNIPediatricAsym+1_to-FLAIR_mode-image_xfm.json',
    } <= names
    figures = [figure.path.name for figure in planned_figures(plan) if figure.kind == 'template']
    assert figures == [
        f'sub-01_desc-template{ADULT}_FLAIR.svg',
        'sub-01_desc-templateMNIPediatricAsymcohort1_FLAIR.svg',
    ]


def test_a_template_is_registered_once_with_its_finest_grid(home):
    found = by_template(output_templates([f'{ADULT}:res-2', CHILD, ADULT]))
    assert {label: str(template.space) for label, template in found.items()} == {
        ADULT: ADULT,
        'MNIPediatricAsym+1': CHILD,
    }


def test_the_affine_atlas_needs_no_client(monkeypatch, tmp_path):
    monkeypatch.setenv('TEMPLATEFLOW_HOME', str(tmp_path / 'nowhere'))
    assert (
        output_templates(['anat', 'FLAIR', 'MNI152NLin2009aSym', 'MNI152NLin2009aSym:res-1']) == ()
    )
    assert not (tmp_path / 'nowhere').exists()
    with pytest.raises(UsageError, match='unknown modifier'):
        output_templates(['FLAIR:res-1'])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def no_image(path: Path) -> None:
    path.write_bytes(gzip.compress(b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>' * 40))


def make_empty(path: Path) -> None:
    image = nib.load(path)
    nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine).to_filename(path)


def crop(path: Path) -> None:
    image = nib.load(path)
    image.slicer[:, :, :-3].to_filename(path)


@pytest.mark.parametrize(
    ('damage', 'file', 'text'),
    [
        (truncate, IMAGE, 'truncated or damaged'),
        (truncate, MASK, 'truncated or damaged'),
        (no_image, IMAGE, 'not a readable NIfTI image'),
        (make_empty, MASK, 'constant'),
        (crop, MASK, 'not on the grid'),
    ],
)
def test_a_damaged_template_is_named_before_any_work(settings, home, damage, file, text):
    damage(home / file)
    with pytest.raises(DataError, match=text) as caught:
        plan_sessions(settings)
    assert caught.value.path == str(home / file)
    assert 'Remove the file, then: TEMPLATEFLOW_HOME=' in str(caught.value)
    assert not (settings.output_dir / 'sub-01').exists()
