"""Which folders of a dataset hold labels."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from ssl2_bids.settings import GroupSettings
from ssl2_bids.workflows.adaptation.cases import label_folders, labelled_in


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('sub-01_space-T1w_label-L_mask', True),
        ('sub-01_space-T1w_desc-brain_mask', False),
        ('sub-01_space-common_desc-change_mask', False),
    ],
)
def test_brain_and_change_masks_are_no_labels(tmp_path, name, expected):
    anat = tmp_path / 'sub-01' / 'anat'
    anat.mkdir(parents=True)
    image = nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4))
    image.to_filename(anat / f'{name}.nii.gz')
    assert labelled_in(tmp_path) == (['01'] if expected else [])
    assert labelled_in(tmp_path / 'elsewhere') == []


def test_a_usual_folder_that_is_a_link_to_another_one_counts_once(tmp_path):
    (tmp_path / 'data/derivatives/manual_masks').mkdir(parents=True)
    (tmp_path / 'data/derivatives/labels').symlink_to('manual_masks')
    settings = GroupSettings(tmp_path / 'data', tmp_path / 'out', tmp_path / 'work')
    assert label_folders(settings) == (tmp_path / 'data/derivatives/manual_masks',)
