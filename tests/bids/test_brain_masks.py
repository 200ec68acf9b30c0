"""Which brain mask of a person counts for a session."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ssl2_bids.bids.brain_masks import brain_masks_of, given_brain_mask, unlike_masks
from ssl2_bids.errors import DataError


def store(path: Path, spacing: float, axes: str = 'RAS') -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    image = nib.Nifti1Image(np.ones((5, 6, 7), np.uint8), affine)
    image.set_sform(affine, 1)
    target = nib.orientations.axcodes2ornt(axes)
    start = nib.orientations.axcodes2ornt('RAS')
    image.as_reoriented(nib.orientations.ornt_transform(start, target)).to_filename(path)
    return path


def test_masks_are_matched_by_participant_and_session(tmp_path):
    names = (
        'sub-01/ses-a/anat/sub-01_ses-a_desc-brain_mask.nii.gz',
        'sub-01/ses-a/anat/sub-01_ses-a_space-FLAIR_desc-brain_mask.nii.gz',
        'sub-01/anat/sub-01_acq-x_desc-brain_mask.nii.gz',
        'sub-01/anat/sub-01_label-L_mask.nii.gz',
        'sub-012/anat/sub-012_desc-brain_mask.nii.gz',
        'sub-02_desc-brain_mask.nii',
    )
    for name in names:
        store(tmp_path / name, 1.0)
    assert brain_masks_of(tmp_path, '01', 'a') == [tmp_path / name for name in names[:2]]
    assert brain_masks_of(tmp_path, '01', 'b') == [tmp_path / names[2]]
    assert brain_masks_of(tmp_path, '02', None) == [tmp_path / names[5]]
    assert brain_masks_of(tmp_path, '03', None) == []


def test_the_session_of_a_mask_is_that_of_its_folder_where_its_name_has_none(tmp_path):
    images = {'T1w': store(tmp_path / 'raw' / 'sub-01_ses-b_T1w.nii.gz', 1.0)}
    folder = tmp_path / 'masks'
    masks = {
        session: store(folder / f'sub-01/ses-{session}/anat/sub-01_desc-brain_mask.nii.gz', 1.0)
        for session in ('a', 'b')
    }
    assert brain_masks_of(folder, '01', 'a') == [masks['a']]
    for dataset in ('brainmasks', 'prep'):  # one of -d is the session's own, too
        found = given_brain_mask(folder, '01', 'b', images, dataset=dataset)
        assert found is not None
        assert found.path == masks['b']
    assert brain_masks_of(folder, '01', 'c') == []
    assert brain_masks_of(folder, '01', None) == []


def test_a_mask_in_the_folder_of_another_session_is_left_out_with_a_warning(tmp_path, caplog):
    mask = store(tmp_path / 'sub-01/ses-a/anat/sub-01_ses-b_desc-brain_mask.nii.gz', 1.0)
    assert [brain_masks_of(tmp_path, '01', session) for session in 'ab'] == [[], []]
    named = f'{mask}: left out: it is named after ses-b, but lies in the folder ses-a'
    assert caplog.text.count(named) == 1


def test_the_grid_decides_and_the_reference_goes_first(tmp_path):
    images = {
        'T1w': store(tmp_path / 'raw' / 'sub-01_T1w.nii.gz', 1.0),
        'FLAIR': store(tmp_path / 'raw' / 'sub-01_FLAIR.nii.gz', 2.0),
    }
    masks = tmp_path / 'masks'
    flair = store(masks / 'sub-01_space-FLAIR_desc-brain_mask.nii.gz', 2.0)
    found = given_brain_mask(masks, '01', None, images)
    assert found is not None
    assert (found.path, found.contrast) == (flair, 'FLAIR')
    own = store(masks / 'sub-01_desc-brain_mask.nii.gz', 1.0)
    found = given_brain_mask(masks, '01', None, images)
    assert found is not None
    assert (found.path, found.contrast) == (own, 'T1w')
    assert given_brain_mask(masks, '02', None, images) is None


def test_the_space_of_a_mask_may_have_small_letters(tmp_path):
    images = {'FLAIR': store(tmp_path / 'raw' / 'sub-01_FLAIR.nii.gz', 1.0)}
    mask = store(tmp_path / 'masks' / 'sub-01_space-flair_desc-brain_mask.nii.gz', 1.0)
    found = given_brain_mask(tmp_path / 'masks', '01', None, images)
    assert found is not None
    assert found.path == mask


def test_of_masks_on_one_grid_that_of_the_run_is_used(tmp_path):
    images = {'T1w': store(tmp_path / 'raw' / 'sub-01_run-2_T1w.nii.gz', 1.0)}
    masks = tmp_path / 'masks'
    for run in ('1', '2'):
        store(masks / f'sub-01_run-{run}_desc-brain_mask.nii.gz', 1.0)
    found = given_brain_mask(masks, '01', None, images)
    assert found is not None
    assert found.path.name == 'sub-01_run-2_desc-brain_mask.nii.gz'


@pytest.mark.parametrize('axes', ['LAS', 'PIR', 'SLP'])
def test_the_order_of_the_axes_may_differ(tmp_path, axes):
    images = {'T1w': store(tmp_path / 'raw' / 'sub-01_T1w.nii.gz', 1.0, axes)}
    mask = store(tmp_path / 'masks' / 'sub-01_desc-brain_mask.nii.gz', 1.0)
    found = given_brain_mask(tmp_path / 'masks', '01', None, images)
    assert found is not None
    assert (found.path, found.contrast) == (mask, 'T1w')


def test_a_mask_of_another_grid_is_named_with_both_grids(tmp_path):
    images = {'T1w': store(tmp_path / 'raw' / 'sub-01_T1w.nii.gz', 1.0)}
    mask = store(tmp_path / 'masks' / 'sub-01_desc-brain_mask.nii.gz', 1.5)
    with pytest.raises(DataError, match='the grid of none of the images') as caught:
        given_brain_mask(tmp_path / 'masks', '01', None, images)
    assert caught.value.path == str(mask)
    assert '1.5 x 1.5 x 1.5 mm' in caught.value.message
    assert '1 x 1 x 1 mm' in caught.value.message
    assert caught.value.exit_code == 65


def test_the_image_of_other_results_is_named_where_the_mask_has_another_grid(tmp_path):
    image = store(tmp_path / 'prep' / 'sub-01' / 'sub-01_desc-preproc_T1w.nii.gz', 1.0)
    store(tmp_path / 'prep' / 'sub-01' / 'sub-01_desc-brain_mask.nii.gz', 1.5)
    with pytest.raises(DataError) as caught:
        given_brain_mask(tmp_path / 'prep', '01', None, {'T1w': image}, dataset='prep')
    assert caught.value.advice == f'Resample it to {image.name}, or leave it out of -d prep.'


def test_a_mask_of_several_volumes_has_advice_for_masks(tmp_path):
    images = {'T1w': store(tmp_path / 'raw' / 'sub-01_T1w.nii.gz', 1.0)}
    path = tmp_path / 'masks' / 'sub-01_desc-brain_mask.nii.gz'
    path.parent.mkdir()
    nib.Nifti1Image(np.ones((5, 6, 7, 2), np.uint8), np.eye(4)).to_filename(path)
    with pytest.raises(DataError, match='has 4 axes') as caught:
        given_brain_mask(path.parent, '01', None, images)
    assert 'leave it out of --brain-mask' in caught.value.advice
    assert 'filter' not in caught.value.advice


def test_files_that_seem_to_be_masks_are_found(tmp_path):
    names = ('sub-01_brain_mask.nii.gz', 'sub-01_desc-brain_mask.nii.gz', 'sub-01_T1w.nii.gz')
    paths = [store(tmp_path / 'sub-01' / name, 1.0) for name in names]
    assert unlike_masks(tmp_path, '01') == paths[:1]
    assert unlike_masks(tmp_path, '02') == []


def test_a_folder_that_may_not_be_read_is_no_missing_mask(tmp_path, monkeypatch):
    store(tmp_path / 'sub-01/anat/sub-01_desc-brain_mask.nii.gz', 1.0)
    truly = os.scandir

    def denied(place):
        if str(place).endswith('anat'):
            raise PermissionError(errno.EACCES, 'Permission denied', str(place))
        return truly(place)

    monkeypatch.setattr('os.scandir', denied)
    with pytest.raises(PermissionError):
        brain_masks_of(tmp_path, '01', None)
