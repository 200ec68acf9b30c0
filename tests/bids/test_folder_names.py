"""Folders of participants and sessions that are not named as in BIDS."""

from __future__ import annotations

import pytest

from ssl2_bids.bids.dataset import select_participants, select_sessions
from ssl2_bids.bids.folder_names import warn_of_folders, warn_of_labels
from ssl2_bids.errors import NothingSelectedError


def test_labels_that_other_programs_cannot_read_are_named_once(make_dataset, caplog):
    names = [
        'sub-un_der/anat/sub-un_der_T1w.nii.gz',
        'sub-a b/ses-1/anat/sub-a b_ses-1_T1w.nii.gz',
    ]
    root = make_dataset([*names, 'sub-a b/ses-x-2/anat/sub-a b_ses-x-2_T1w.nii.gz'])
    with pytest.raises(NothingSelectedError, match='There are: "a b", "un_der"'):
        select_participants(root, ('zz',))
    warn_of_labels(select_sessions(root, select_participants(root, None), None))
    (text,) = caplog.messages
    assert '"sub-a b", "sub-un_der", "sub-a b/ses-x-2": BIDS allows only letters' in text
    caplog.clear()
    warn_of_labels([('01', None), ('x+y', 'a1')])
    assert not caplog.messages


def test_folders_with_names_that_hide_their_images_are_named(make_dataset, caplog):
    names = [
        'sub-01/ses-/anat/sub-01_T1w.nii.gz',
        'sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz',
        'sub-02/Ses01/anat/sub-02_T1w.nii.gz',
        'sub-03/anat/sub-03_T1w.nii.gz',
        'Sub-04/anat/sub-04_T1w.nii.gz',
        'sub05/ses-1/anat/sub05_ses-1_T1w.nii.gz',
    ]
    root = make_dataset(names)
    (root / 'sub-03' / 'extra' / 'anat').mkdir(parents=True)  # no images
    (root / 'subcode').mkdir()
    warn_of_folders(root, ['01', '02', '03'])
    people, sessions = caplog.messages
    assert people.startswith(f'{root}/Sub-04, {root}/sub05: left out: the name of a participant')
    assert sessions.startswith(f'{root}/sub-01/ses-, {root}/sub-02/Ses01: left out: the name of a')
    for name in ('Sub-04', 'sub05'):
        (root / name).rename(root / f'x{name}')
    caplog.clear()
    warn_of_folders(root, ['03'])
    assert not caplog.messages
