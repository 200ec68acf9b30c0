"""Which folders of a dataset hold labels."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from ssl2_bids.workflows.adaptation.cases import labelled_in


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
