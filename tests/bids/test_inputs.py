"""From a dataset on disk to sessions."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ssl2_bids.bids.dataset import (
    check_dataset,
    read_description,
    select_participants,
    select_sessions,
)
from ssl2_bids.bids.given_datasets import check_datasets
from ssl2_bids.bids.inputs import find_sessions
from ssl2_bids.errors import DeniedError, NotBidsError, NothingSelectedError
from ssl2_bids.files import read_object

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


def test_images_of_sessions_without_folders_are_never_mixed(make_dataset, caplog):
    root = make_dataset(
        [
            'sub-01/anat/sub-01_ses-1_T1w.nii.gz',
            'sub-01/anat/sub-01_ses-2_FLAIR.nii.gz',
            'sub-01/anat/sub-01_T2w.nii.gz',
        ]
    )
    (session,) = found(root)
    assert 'found: T2w' in session.skipped
    for number, suffix in ((1, 'T1w'), (2, 'FLAIR')):
        name = f'sub-01_ses-{number}_{suffix}.nii.gz'
        folder = f'it is named after ses-{number}, but lies in no folder ses-{number}'
        assert f'{root}/sub-01/anat/{name}: left out: {folder}' in caplog.text


def test_the_only_session_needs_no_folder(make_dataset):
    names = [f'sub-01/anat/sub-01_ses-1_{suffix}.nii.gz' for suffix in ('T1w', 'FLAIR')]
    others = ['defacemask.nii.gz', 'label-lesion_mask.nii.gz', 'T1w.nii.gz.bak']
    (session,) = found(make_dataset([*names, *(f'sub-01/anat/sub-01_{n}' for n in others)]))
    assert (session.name, sorted(session.scans)) == ('sub-01', ['FLAIR', 'T1w'])


def test_an_image_that_may_not_be_read_is_not_left_out(make_dataset, monkeypatch):
    """Else a session would get results of fewer images than others, without an error."""

    def denied(path, mode):
        if 'FLAIR' in path.name:
            raise PermissionError(errno.EACCES, 'Permission denied', str(path))
        return open(path, mode)

    monkeypatch.setattr('ssl2_bids.bids.headers.open', denied, raising=False)
    names = [f'sub-01/anat/sub-01_{suffix}.nii.gz' for suffix in ('T1w', 'FLAIR')]
    (session,) = found(make_dataset(names))
    assert isinstance(session.problem, DeniedError)
    assert session.problem.path.endswith('sub-01_FLAIR.nii.gz')


def test_a_backup_is_no_image_and_a_label_may_have_a_dot(make_dataset, caplog):
    names = ['T1w.bak', 'acq-0.8mm_T1w', 'FLAIR']
    root = make_dataset([f'sub-01/anat/sub-01_{name}.nii.gz' for name in names])
    (session,) = found(root)
    assert session.scans['T1w'].paths == (root / 'sub-01/anat/sub-01_acq-0.8mm_T1w.nii.gz',)
    assert session.warnings == ()
    assert 'sub-01_T1w.bak.nii.gz: left out: not a BIDS name' in caplog.text


def test_a_session_without_usable_images_is_skipped_with_the_reason(make_dataset):
    root = make_dataset(['sub-01/anat/sub-01_T2w.nii.gz', 'sub-02/ses-x/anat'])
    first, second = found(root)
    assert 'FLAIR or T1w' in first.skipped
    assert 'no usable image' in second.skipped


def test_a_long_search_states_how_far_it_is(make_dataset, caplog, monkeypatch):
    root = make_dataset([f'sub-0{number}/anat/sub-0{number}_T1w.nii.gz' for number in (1, 2, 3)])
    caplog.set_level('INFO')
    found(root)
    assert 'of 3' not in caplog.text
    monkeypatch.setattr('ssl2_bids.bids.inputs.REPORT_SECONDS', -1.0)
    found(root)
    assert 'looking for images: 2 of 3 participants' in caplog.text
    assert 'choosing images: 2 of 3 sessions' in caplog.text


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


def test_a_t1w_that_is_asked_for_as_reference_goes_before_unit1(make_dataset):
    names = [
        'sub-01/anat/sub-01_UNIT1.nii.gz',
        'sub-01/anat/sub-01_inv-1_MP2RAGE.nii.gz',
        'sub-01/anat/sub-01_inv-2_MP2RAGE.nii.gz',
        'sub-01/anat/sub-01_T1w.nii.gz',
        'sub-01/anat/sub-01_FLAIR.nii.gz',
        'sub-02/anat/sub-02_UNIT1.nii.gz',
        'sub-03/anat/sub-03_acq-UNI_T1w.nii.gz',
        'sub-03/anat/sub-03_acq-INV1_T1w.nii.gz',
        'sub-03/anat/sub-03_acq-INV2_T1w.nii.gz',
    ]
    root = make_dataset(names)
    first, *others = found(root, reference='t1w')
    assert (first.reference, sorted(first.scans)) == ('T1w', ['FLAIR', 'T1w'])
    assert dict(first.dropped)[root / names[0]] == 'T1w is the reference'
    assert all('no T1w image, which --reference' in other.skipped for other in others)
    assert [one.reference for one in found(root)] == ['UNIT1', 'UNIT1', 'UNIT1']
    assert found(root, reference='flair')[0].reference == 'FLAIR'
    assert 'UNIT1' in found(root, reference='flair')[0].scans


def test_a_broken_json_costs_itself_where_it_applies(make_dataset):
    root = make_dataset(
        {
            'sub-01/anat/sub-01_T1w.nii.gz': None,
            'sub-01/anat/sub-01_T1w.json': '{"a": ',
            'T1w.json': {'MagneticFieldStrength': 7},
            'sub-02/anat/sub-02_T1w.nii.gz': None,
            'sub-02/anat/sub-02_bold.json': 'nonsense',
        }
    )
    first, second = found(root)
    assert first.problem is None
    assert second.problem is None
    assert first.scans['T1w'].metadata == {'MagneticFieldStrength': 7}
    assert any('sub-01_T1w.json' in text for text in first.warnings)
    assert not second.warnings


@pytest.mark.parametrize('encoding', ['latin-1', 'utf-16', 'utf-8-sig'])
def test_sidecars_in_other_encodings_are_read(make_dataset, encoding):
    content = '{"InstitutionName": "Universität", "MagneticFieldStrength": 3}'.encode(encoding)
    root = make_dataset({'sub-01/anat/sub-01_T1w.nii.gz': None, 'T1w.json': content})
    (session,) = found(root)
    assert session.scans['T1w'].metadata['InstitutionName'] == 'Universität'


@pytest.mark.parametrize(
    'folder', ['meg', 'func', 'anat', 'sub-99', 'ses-7', 'acq-x', 'run-3', 'derivatives', 'code',
               '.hidden', 'sub-01/ses-1/func/acq-q_run-2_space-MNI']
)  # fmt: skip
def test_names_of_folders_above_the_dataset_have_no_meaning(make_dataset, folder):
    names = [
        'sub-01/ses-a/anat/sub-01_ses-a_acq-b_T1w.nii.gz',
        'sub-01/ses-a/anat/sub-01_ses-a_FLAIR.nii.gz',
    ]
    root = make_dataset(
        dict.fromkeys(names) | {'sub-01/ses-a/anat/sub-01_ses-a_FLAIR.json': {'EchoTime': 0.1}},
        name=f'{folder}/data',
    )
    (session,) = found(root)
    assert session.name == 'sub-01_ses-a'
    assert {c: s.entities for c, s in session.scans.items()} == {'T1w': {'acq': 'b'}, 'FLAIR': {}}
    assert session.scans['FLAIR'].metadata == {'EchoTime': 0.1}


def test_masks_beside_the_sessions_and_a_folder_without_a_label_are_no_session(make_dataset):
    beside = ('defacemask', 'label-L_mask', 'desc-x_dseg', 'ses-1_T2w')
    root = make_dataset(
        [
            'sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz',
            *(f'sub-01/anat/sub-01_{name}.nii.gz' for name in beside),
            'sub-02/ses-/anat/sub-02_T1w.nii.gz',
            'sub-02/anat/sub-02_FLAIR.nii.gz',
            'sub-03/ses-1/anat/sub-03_ses-1_T1w.nii.gz',
            'sub-03/anat/sub-03_desc-preproc_T1w.nii.gz',
        ]
    )
    units = select_sessions(root, select_participants(root, None), None)
    assert units == [('01', '1'), ('02', None), ('03', None), ('03', '1')]


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


def test_18_only_if_by_the_filter_nothing_usable_is_left(make_dataset, caplog):
    root = make_dataset(['sub-01/anat/sub-01_acq-a_T1w.nii.gz', 'sub-01/anat/sub-01_FLAIR.nii.gz'])
    caplog.set_level('WARNING')
    (session,) = found(root, filters={'t1w': {'acquisition': 'b'}})
    assert list(session.scans) == ['FLAIR']
    assert 'sub-01_acq-a_T1w' in caplog.text
    neither = {'t1w': {'acquisition': 'b'}, 'flair': {'run': 9}}
    with pytest.raises(NothingSelectedError, match='sub-01_acq-a_T1w') as caught:
        found(root, filters=neither)
    assert "acquisition = 'b'" in str(caught.value)


def test_a_filter_for_a_missing_contrast_is_a_note(make_dataset, caplog):
    root = make_dataset(['sub-01/anat/sub-01_T1w.nii.gz'])
    caplog.set_level('WARNING')
    assert list(found(root, filters={'t2w': {'acquisition': 'x'}})[0].scans) == ['T1w']
    assert '"t2w" selects nothing' in caplog.text


def test_a_filter_may_exclude_one_contrast_of_some_participants(make_dataset):
    root = make_dataset(
        [
            'sub-01/anat/sub-01_acq-iso_T1w.nii.gz',
            'sub-01/anat/sub-01_FLAIR.nii.gz',
            'sub-02/anat/sub-02_T1w.nii.gz',
            'sub-02/anat/sub-02_FLAIR.nii.gz',
        ]
    )
    first, second = found(root, filters={'t1w': {'acquisition': 'iso'}})
    assert (sorted(first.scans), sorted(second.scans)) == (['FLAIR', 'T1w'], ['FLAIR'])
    assert dict(second.dropped) == {
        root / 'sub-02/anat/sub-02_T1w.nii.gz': 'left out by the filter file'
    }


def test_the_images_of_a_derivative_dataset_are_those_of_their_own_space(make_dataset):
    root = make_dataset(
        {
            'dataset_description.json': {
                'Name': 'x', 'BIDSVersion': '1.10.0', 'DatasetType': 'derivative'},
            'sub-01/anat/sub-01_space-MNI152NLin2009cAsym_desc-preproc_T1w.nii.gz': None,
            'sub-01/anat/sub-01_desc-preproc_T1w.nii.gz': None,
            'sub-01/ses-1/func': None,
        }
    )  # fmt: skip
    first, second = found(root)
    assert [p.name for p in first.scans['T1w'].paths] == ['sub-01_desc-preproc_T1w.nii.gz']
    assert second.skipped


def test_only_the_last_usable_image_makes_a_session_impossible(make_dataset):
    root = make_dataset(
        {
            'sub-01/anat/sub-01_T1w.nii.gz': b'',
            'sub-01/anat/sub-01_FLAIR.nii.gz': None,
            'sub-02/anat/sub-02_T1w.nii.gz': b'',
            'sub-02/anat/sub-02_FLAIR.nii.gz': b'',
        }
    )
    first, second = found(root)
    assert (first.problem, first.reference) == (None, 'FLAIR')
    assert second.problem is not None
    assert 'empty' in second.problem.message


@pytest.mark.parametrize('module', ['volume', 'bids.inheritance'])
def test_no_image_takes_the_place_of_one_that_the_disk_does_not_give(
    make_dataset, monkeypatch, module
):
    root = make_dataset(
        {
            'sub-01/anat/sub-01_T1w.nii.gz': None,
            'sub-01/anat/sub-01_T1w.json': {'EchoTime': 0.003},
            'sub-01/anat/sub-01_FLAIR.nii.gz': None,
            'sub-02/anat/sub-02_T1w.nii.gz': None,
        }
    )
    name = {'volume': 'open', 'bids.inheritance': 'read_object'}[module]
    do = {'volume': open, 'bids.inheritance': read_object}[module]

    def fail(path, *words, **more):
        if 'sub-01_T1w' in str(path):
            raise OSError(errno.ESTALE, 'Stale file handle')
        return do(path, *words, **more)

    monkeypatch.setattr(f'ssl2_bids.{module}.{name}', fail, raising=False)
    first, second = found(root)
    assert first.problem is not None
    assert first.problem.exit_code == 74
    assert 'sub-01_T1w' in first.problem.path
    assert (first.broken, second.problem, second.reference) == ({}, None, 'T1w')


def test_unknown_filter_keys_are_ignored(make_dataset):
    root = make_dataset(['sub-01/anat/sub-01_T1w.nii.gz'])
    assert list(found(root, filters={'bold': {'task': 'rest'}})[0].scans) == ['T1w']


def test_what_contrasts_leaves_out_is_named_where_nothing_is_left(make_dataset):
    root = make_dataset(['sub-01/anat/sub-01_FLAIR.nii.gz'])
    (session,) = found(root, contrasts=('t1w',))
    assert 'found: no usable image; not among --contrasts: sub-01_FLAIR' in session.skipped


def test_spaces_and_unicode_in_paths(make_dataset):
    root = make_dataset(['sub-01/anat/sub-01_T1w.nii.gz'], name='Daten für Müller/π 1')
    assert list(found(root)[0].scans) == ['T1w']


def test_unknown_participant_and_near_ones(make_dataset):
    root = make_dataset(['sub-lj01/anat/sub-lj01_T1w.nii.gz', 'sub-xx/anat/sub-xx_T1w.nii.gz'])
    with pytest.raises(NothingSelectedError, match='There are: lj01'):
        select_participants(root, ('lj02',))


def test_an_excluded_participant_that_is_missing_is_named_once(make_dataset, caplog):
    root = make_dataset([f'sub-0{n}/anat/sub-0{n}_T1w.nii.gz' for n in range(1, 8)])
    for _ in range(2):
        assert select_participants(root, None, ('1', '02')) == ['01', '03', '04', '05', '06', '07']
    (text,) = caplog.messages
    assert f'--exclude-participant-label: no participant "1" in {root}. There are: 0' in text
    assert re.search(r'and \d others\.$', text)


@pytest.mark.parametrize('content', ['[1, 2]', '"text"', '{"Name": '])
def test_a_description_that_is_none(make_dataset, content):
    root = make_dataset({'sub-01/anat/sub-01_T1w.nii.gz': None})
    (root / 'dataset_description.json').write_text(content)
    with pytest.raises(NotBidsError, match=r'dataset_description\.json'):
        check_dataset(root)
    assert read_description(root) == {}


def test_an_image_of_another_participant_in_a_folder_is_left_out(make_dataset, caplog):
    root = make_dataset(
        [
            'sub-02/anat/sub-02_T1w.nii.gz',
            'sub-02/anat/sub-03_FLAIR.nii.gz',
            'sub-04/ses-1/anat/sub-04_ses-1_FLAIR.nii.gz',
            'sub-04/ses-1/anat/sub-04_ses-2_T1w.nii.gz',
        ]
    )
    first, second = found(root)
    assert sorted(first.scans) == ['T1w']
    assert sorted(second.scans) == ['FLAIR']
    for name in ('sub-03_FLAIR', 'sub-04_ses-2_T1w'):
        assert f'{name}.nii.gz: left out' in caplog.text


def test_nan_and_infinity_in_a_sidecar_are_unknown(make_dataset):
    text = '{"MagneticFieldStrength": NaN, "EchoTime": 1e999, "RepetitionTime": -Infinity, "A": 2}'
    root = make_dataset(
        {'sub-01/anat/sub-01_T1w.nii.gz': None, 'sub-01/anat/sub-01_T1w.json': text}
    )
    metadata = found(root)[0].scans['T1w'].metadata
    assert {name: value for name, value in metadata.items() if value is not None} == {'A': 2}


@pytest.mark.parametrize('extension', ['nii.gz', '.nii.gz', ['nii', 'nii.gz'], '*', ['*']])
def test_an_extension_in_a_filter_needs_no_dot(make_dataset, extension):
    root = make_dataset(['sub-01/anat/sub-01_T1w.nii.gz'])
    (session,) = found(root, filters={'t1w': {'extension': extension}})
    assert sorted(session.scans) == ['T1w']


def test_names_that_differ_from_bids_in_case_alone_are_named_once(make_dataset, caplog):
    root = make_dataset(
        [
            'sub-01/anat/sub-01_T1w.nii.gz',
            'sub-01/anat/sub-01_flair.nii.gz',
            'sub-02/anat/sub-02_flair.nii.gz',
            'sub-02/anat/sub-02_T2star.nii.gz',
            'sub-03/ANAT/sub-03_T1w.nii.gz',
        ]
    )
    first, second, third = found(root)
    assert (list(first.scans), list(second.scans), list(third.scans)) == (['T1w'], [], [])
    texts = [record.getMessage() for record in caplog.records]
    assert [text.partition(': ')[2] for text in texts] == [
        'left out: "flair" is not a name of BIDS; rename it to "FLAIR"',
        'left out: "T2star" is not a name of BIDS; rename it to "T2starw"',
        'left out: "ANAT" is not a name of BIDS; rename it to "anat"',
    ]
    assert 'sub-01_flair.nii.gz and 1 more' in texts[0]
    caplog.clear()
    asked = found(root, who=['01'], filters={'flair': {'suffix': 'flair'}})
    assert caplog.records == []
    assert list(asked[0].scans) == ['T1w', 'FLAIR']


@pytest.fixture
def refuse(monkeypatch):
    """A function that takes permissions of a folder away; the tests may run as root.

    ``x`` : what lies in the folder cannot be looked at. ``r`` : the folder cannot be listed.
    """

    def take(folder, permission):
        def refused(call, of):
            def instead(path='.', *arguments, **options):
                if of(Path(path)):
                    raise PermissionError(errno.EACCES, 'Permission denied', str(path))
                return call(path, *arguments, **options)

            return instead

        listings = ('scandir', 'listdir')
        for name in ('stat', 'lstat', *listings) if permission == 'x' else listings:
            is_refused = {
                'x': lambda path: folder in path.parents,
                'r': lambda path: path == folder,
            }[permission]
            monkeypatch.setattr(os, name, refused(getattr(os, name), is_refused))

    return take


@pytest.mark.parametrize('sidecar', [True, False])
def test_a_folder_whose_files_may_not_be_looked_at_fails_its_session(
    make_dataset, refuse, sidecar
):
    root = make_dataset([f'sub-{n}/anat/sub-{n}_T1w.nii.gz' for n in ('01', '02')])
    if sidecar:
        (root / 'sub-01' / 'anat' / 'sub-01_T1w.json').write_text('{}')
    refuse(root / 'sub-01' / 'anat', 'x')
    first, second = found(root)
    assert isinstance(first.problem, DeniedError)
    assert 'cannot be read (Permission denied)' in str(first.problem)
    assert str(root / 'sub-01' / 'anat') in first.problem.path
    assert second.problem is None
    assert list(second.scans) == ['T1w']


def test_a_participant_whose_folders_may_not_be_looked_at_fails_alone(make_dataset, refuse):
    root = make_dataset([f'sub-{n}/ses-1/anat/sub-{n}_ses-1_T1w.nii.gz' for n in ('01', '02')])
    refuse(root / 'sub-01', 'x')
    first, second = found(root)
    assert isinstance(first.problem, DeniedError)
    assert list(second.scans) == ['T1w']


def test_a_dataset_of_derivatives_that_may_not_be_looked_at_fails_the_session(
    make_dataset, refuse
):
    root = make_dataset([f'sub-{n}/anat/sub-{n}_T1w.nii.gz' for n in ('01', '02')])
    given = make_dataset(
        [f'sub-{n}/anat/sub-{n}_desc-preproc_T1w.nii.gz' for n in ('01', '02')], 'given'
    )
    refuse(given / 'sub-01' / 'anat', 'x')
    first, second = found(root, derivatives={'given': given})
    assert isinstance(first.problem, DeniedError)
    assert [scan.dataset for scan in second.scans.values()] == ['given']


@pytest.mark.parametrize('permission', ['x', 'r'])
def test_a_dataset_that_may_not_be_read_is_named(make_dataset, refuse, tmp_path, permission):
    root = make_dataset(['sub-01/anat/sub-01_T1w.nii.gz'])
    given = make_dataset(['sub-01/anat/sub-01_T1w.nii.gz'], 'given')
    refuse(given, permission)
    with pytest.raises(DeniedError, match=f'^{given}.*cannot be read'):
        check_datasets({'given': given}, root, tmp_path / 'out')
    with pytest.raises(DeniedError, match=f'^{given}.*cannot be read'):
        check_dataset(given)


@pytest.mark.parametrize('folder', ['sub-01', 'sub-01/anat', 'sub-01/fmap'])
def test_a_folder_that_may_not_be_listed_fails_its_session(make_dataset, refuse, folder):
    root = make_dataset([f'sub-{n}/anat/sub-{n}_T1w.nii.gz' for n in ('01', '02')])
    (root / 'sub-01' / 'fmap').mkdir()
    refuse(root / folder, 'r')
    first, second = found(root)
    assert isinstance(first.problem, DeniedError)
    assert first.problem.path == str(root / folder)
    assert list(second.scans) == ['T1w']


def test_results_of_others_that_may_not_be_listed_fail_the_session(make_dataset, refuse):
    root = make_dataset([f'sub-{n}/anat/sub-{n}_T1w.nii.gz' for n in ('01', '02')])
    names = [f'sub-{n}/anat/sub-{n}_desc-preproc_T1w.nii.gz' for n in ('01', '02')]
    given = make_dataset(names, 'given')
    refuse(given / 'sub-01' / 'anat', 'r')
    first, second = found(root, derivatives={'given': given})
    assert isinstance(first.problem, DeniedError)
    assert [scan.dataset for scan in second.scans.values()] == ['given']


def test_a_participant_whose_sessions_are_not_known_stays_selected(make_dataset, monkeypatch):
    names = [f'sub-{n}/ses-a/anat/sub-{n}_ses-a_T1w.nii.gz' for n in ('01', '02')]
    root = make_dataset(names)
    monkeypatch.setattr(
        Path,
        'glob',
        lambda self, pattern: iter(() if self.name == 'sub-01' else sorted(self.iterdir())),
    )
    monkeypatch.setattr(os, 'access', lambda path, mode: Path(path).name != 'sub-01')
    assert select_sessions(root, ['01', '02'], ('a',)) == [('01', None), ('02', 'a')]
