"""Files whose content was not downloaded: the command that gets them."""

from __future__ import annotations

from ssl2_bids.bids.absent import absent_content, how_to_get, how_to_get_each


def test_few_files_are_named(tmp_path):
    found = [tmp_path / f'sub-{n}' / 'anat' / f'sub-{n}_FLAIR.nii.gz' for n in (2, 1)]
    text = how_to_get(tmp_path, found)
    assert text.startswith('The content of 2 files is absent')
    assert text.endswith(
        'datalad get sub-1/anat/sub-1_FLAIR.nii.gz sub-2/anat/sub-2_FLAIR.nii.gz"'
    )
    assert str(tmp_path) in text


def test_many_files_are_named_by_their_folders(tmp_path):
    files = [tmp_path / 'sub-1' / 'anat' / f'sub-1_run-{n}_T1w.nii.gz' for n in range(9)]
    assert how_to_get(tmp_path, files).endswith('datalad get sub-1/anat"')
    files = [tmp_path / f'sub-{n}' / 'anat' / 'x' for n in range(9)]
    assert how_to_get(tmp_path, files).endswith('datalad get sub-*/*"')
    files.append(tmp_path / 'sub-1' / 'ses-1' / 'anat' / 'x')
    assert how_to_get(tmp_path, files).endswith('datalad get sub-*/ses-*/* sub-*/*"')


def test_files_beside_the_participants_are_named_and_never_the_whole_dataset(tmp_path):
    sidecars = [tmp_path / f'{suffix}.json' for suffix in ('FLAIR', 'T1w')]
    for path in sidecars:
        path.symlink_to('x')
    assert absent_content(sidecars[0], tmp_path).advice.endswith(
        '"datalad get FLAIR.json T1w.json".'
    )
    files = [tmp_path / 'sub-1/anat' / f'sub-1_run-{n}_T1w.nii.gz' for n in range(9)]
    text = how_to_get(tmp_path, [*files, *sidecars])
    assert text.endswith('"datalad get FLAIR.json T1w.json sub-1/anat"')
    files += [tmp_path / f'sub-{n}/anat/x' for n in range(9)]
    assert how_to_get(tmp_path, [*files, *sidecars]).endswith('get FLAIR.json T1w.json sub-*/*"')
    masks = [tmp_path / f'sub-{n}_label-L_mask.nii.gz' for n in range(99)]
    assert how_to_get(tmp_path, masks).endswith('"datalad get *.nii.gz"')
    names = ['README', '.bidsignore', *(f'{n}.json' for n in range(13))]
    several = [tmp_path / name for name in names]
    assert how_to_get(tmp_path, several).endswith('"datalad get *.json .bidsignore README"')
    templates = [tmp_path / f'tpl-{n}/x' for n in range(5)]
    assert how_to_get(tmp_path, templates).endswith('get tpl-0 tpl-1 tpl-2 tpl-3 tpl-4"')


def test_git_lfs_has_its_own_command(tmp_path):
    path = tmp_path / 'a.nii.gz'
    path.write_text('version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n')
    assert how_to_get(tmp_path, [path]).endswith('"git lfs pull"')
    link = tmp_path / 'b.nii.gz'
    link.symlink_to('x')
    both = how_to_get(tmp_path, [path, link])
    assert both.endswith(f'in {tmp_path}: "git lfs pull && datalad get b.nii.gz"')
    path.write_text('/annex/objects/MD5E-s1--1.nii.gz\n')
    assert how_to_get(tmp_path, [path]).endswith('datalad get a.nii.gz"')


def test_no_file_no_text(tmp_path):
    assert how_to_get(tmp_path, []) == ''


def test_the_error_of_one_file_has_the_whole_command(tmp_path):
    path = tmp_path / 'sub-1' / 'anat' / 'sub-1_T1w.json'
    path.parent.mkdir(parents=True)
    path.symlink_to('x')
    text = str(absent_content(path, tmp_path, 'Without -d x it is not needed.'))
    assert text == (
        f'{path}: its content is absent. Get it in {tmp_path}: "datalad get '
        'sub-1/anat/sub-1_T1w.json". Without -d x it is not needed.'
    )
    path.with_name('sub-1_T1w.nii.gz').symlink_to('x')
    assert absent_content(path, tmp_path).advice.endswith('datalad get sub-1/anat".')


def test_files_of_several_datasets_come_with_a_command_for_each(tmp_path):
    raw = tmp_path / 'sub-1_T1w.nii.gz'
    inner = tmp_path / 'derivatives' / 'fmriprep'
    text = how_to_get_each([tmp_path, inner], [raw, inner / 'sub-1_desc-brain_mask.nii.gz'])
    assert f'in {tmp_path}: "datalad get sub-1_T1w.nii.gz".' in text
    assert text.endswith(f'in {inner}: "datalad get sub-1_desc-brain_mask.nii.gz"')
