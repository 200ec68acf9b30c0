"""From a dataset on disk to sessions."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from ssl2_bids.bids.dataset import select_participants, select_sessions
from ssl2_bids.bids.inputs import find_sessions
from ssl2_bids.errors import NothingSelectedError

REQUIRED = (('FLAIR',), ('T1w',))
ACCEPTED = ('FLAIR', 'T1w', 'T2w')


def found(root, **options):
    units = select_sessions(root, select_participants(root, options.pop('who', None)), None)
    return find_sessions(root, units, accepted=ACCEPTED, required=REQUIRED, **options)


def image(spacing):
    shape = [max(4, round(100 / s)) for s in spacing]
    return nib.Nifti1Image(
        np.random.default_rng(0).random(shape, np.float32), np.diag([*spacing, 1.0])
    )


def test_sessions_are_units_and_lend_nothing_to_each_other(make_dataset):
    root = make_dataset(
        [
            'sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz',
            'sub-01/ses-a/anat/sub-01_ses-a_FLAIR.nii.gz',
            'sub-01/ses-b/anat/sub-01_ses-b_FLAIR.nii.gz',
        ]
    )
    first, second = found(root)
    assert (first.name, sorted(first.scans)) == ('sub-01_ses-a', ['FLAIR', 'T1w'])
    assert (second.name, sorted(second.scans)) == ('sub-01_ses-b', ['FLAIR'])


def test_a_session_without_usable_images_is_skipped_with_the_reason(make_dataset):
    root = make_dataset(['sub-01/anat/sub-01_T2w.nii.gz', 'sub-02/ses-x/anat'])
    first, second = found(root)
    assert 'FLAIR or T1w' in first.skipped
    assert 'no usable image' in second.skipped


def test_inherited_metadata(make_dataset):
    root = make_dataset(
        {
            'sub-01/anat/sub-01_T1w.nii.gz': None,
            'T1w.json': {'MagneticFieldStrength': 7, 'A': 1},
            'sub-01/anat/sub-01_T1w.json': {'A': 2},
        }
    )
    assert found(root)[0].scans['T1w'].metadata == {'MagneticFieldStrength': 7, 'A': 2}


@pytest.mark.parametrize(
    ('t1w', 'flair', 'reference'),
    [
        ((1, 1, 1), (1, 1, 1), 'T1w'),
        ((0.5, 0.5, 3.3), (1, 1, 1), 'FLAIR'),
        ((0.5, 0.5, 3.0), (0.5, 0.5, 3.0), 'FLAIR'),
        ((0.5, 0.5, 3.0), (0.5, 0.5, 4.0), 'T1w'),
    ],
)
def test_reference(make_dataset, t1w, flair, reference):
    root = make_dataset(
        {
            'sub-01/anat/sub-01_T1w.nii.gz': image(t1w),
            'sub-01/anat/sub-01_FLAIR.nii.gz': image(flair),
        }
    )
    assert found(root)[0].reference == reference


def test_broken_json_touches_only_those_it_applies_to(make_dataset):
    root = make_dataset(
        {
            'sub-01/anat/sub-01_T1w.nii.gz': None,
            'sub-01/anat/sub-01_T1w.json': '{"a": ',
            'sub-02/anat/sub-02_T1w.nii.gz': None,
            'sub-02/anat/sub-02_bold.json': 'nonsense',
        }
    )
    first, second = found(root)
    assert first.problem is not None
    assert 'sub-01_T1w.json' in first.problem.path
    assert second.problem is None


def test_only_the_asked_participants_are_looked_at(make_dataset):
    root = make_dataset(['sub-01/anat/sub-01_T1w.nii.gz', 'sub-011/anat/sub-011_T1w.nii.gz'])
    (root / 'sub-011' / 'anat' / 'sub-011_T1w.json').write_text('broken')
    (only,) = found(root, who=('01',))
    assert only.problem is None


def test_derivatives_inside_the_dataset_are_not_indexed(make_dataset):
    root = make_dataset(
        ['sub-01/anat/sub-01_T1w.nii.gz', 'derivatives/x/sub-01/anat/sub-01_FLAIR.nii.gz']
    )
    assert list(found(root)[0].scans) == ['T1w']


def test_a_filter_that_selects_nothing_names_the_near_misses(make_dataset):
    root = make_dataset(['sub-01/anat/sub-01_acq-a_T1w.nii.gz', 'sub-01/anat/sub-01_FLAIR.nii.gz'])
    with pytest.raises(NothingSelectedError, match='sub-01_acq-a_T1w') as caught:
        found(root, filters={'t1w': {'acquisition': 'b'}})
    assert "acquisition = 'b'" in str(caught.value)


def test_unknown_filter_keys_are_ignored(make_dataset):
    root = make_dataset(['sub-01/anat/sub-01_T1w.nii.gz'])
    assert list(found(root, filters={'bold': {'task': 'rest'}})[0].scans) == ['T1w']


def test_spaces_and_unicode_in_paths(make_dataset):
    root = make_dataset(['sub-01/anat/sub-01_T1w.nii.gz'], name='Daten für Müller/π 1')
    assert list(found(root)[0].scans) == ['T1w']


def test_unknown_participant_and_near_ones(make_dataset):
    root = make_dataset(['sub-lj01/anat/sub-lj01_T1w.nii.gz', 'sub-xx/anat/sub-xx_T1w.nii.gz'])
    with pytest.raises(NothingSelectedError, match='There are: lj01'):
        select_participants(root, ('lj02',))
