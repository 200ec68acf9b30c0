"""The list of images in a database of pybids is that of the folders."""

from __future__ import annotations

import errno
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ssl2_bids.bids.database import listed_images
from ssl2_bids.bids.inputs import _images, find_sessions
from ssl2_bids.errors import DataError, UsageError

FILES = [
    'sub-01/anat/sub-01_T1w.nii.gz',
    'sub-01/anat/sub-01_acq-a_run-02_FLAIR.nii.gz',
    'sub-01/fmap/sub-01_TB1map.nii.gz',
    'sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz',
    'sub-02/ses-a/anat/sub-03_ses-a_T1w.nii.gz',  # of another participant
    'sub-02/ses-b/anat/sub-02_ses-b_MPRAGE.nii.gz',  # not a name of BIDS
    'sub-02/ses-b/func/sub-02_ses-b_task-rest_bold.nii.gz',
    'derivatives/x/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz',
]


@pytest.fixture
def dataset(make_dataset) -> Path:
    return make_dataset(FILES)


def test_the_list_is_that_of_the_folders(dataset, tmp_path):
    database = tmp_path / 'database'
    participants = ['01', '02']
    plain = _images(dataset, participants, {})
    assert {f['path'].name for files in plain.values() for f in files} == {
        Path(name).name for name in (*FILES[:4], FILES[5])
    }
    for _ in range(2):  # made, then read
        assert _images(dataset, participants, {}, listed_images(dataset, database)) == plain
    assert (database / 'layout_index.sqlite').is_file()


def test_what_is_added_later_is_not_in_it(dataset, tmp_path):
    before = listed_images(dataset, tmp_path / 'database')
    shutil.copy(dataset / FILES[0], dataset / 'sub-01/anat/sub-01_T2w.nii.gz')
    assert listed_images(dataset, tmp_path / 'database') == before
    assert listed_images(dataset, tmp_path / 'other') != before


def test_what_is_removed_later_is_no_absent_content(dataset, tmp_path, caplog):
    database = tmp_path / 'database'
    listed_images(dataset, database)
    (dataset / FILES[0]).unlink()
    shutil.rmtree(dataset / 'sub-02/ses-a')
    options = {'accepted': ('T1w', 'FLAIR'), 'required': (('T1w',), ('FLAIR',))}
    first, second = find_sessions(
        dataset, [('01', None), ('02', 'a')], **options, database_dir=database
    )
    assert (sorted(first.scans), first.absent) == (['FLAIR'], ())
    assert 'absent' not in str(first.dropped)
    assert 'remove it to index the dataset again' in second.skipped
    assert f'{dataset / FILES[0]}: removed since the database was made' in caplog.text
    assert f'{dataset / FILES[3]} and 1 more: removed since' in caplog.text


def test_a_folder_that_cannot_be_read_is_not_called_removed(dataset, tmp_path, monkeypatch):
    database = tmp_path / 'database'
    listed_images(dataset, database)

    def denied(path):
        raise PermissionError(errno.EACCES, 'Permission denied', str(path))

    monkeypatch.setattr('ssl2_bids.bids.database.os.lstat', denied)
    options = {'accepted': ('T1w', 'FLAIR'), 'required': (('T1w',), ('FLAIR',))}
    (session,) = find_sessions(dataset, [('01', None)], **options, database_dir=database)
    assert 'Permission denied' in str(session.problem)


def test_no_database_is_made_inside_the_dataset(dataset):
    (dataset / 'index').mkdir()
    (dataset / 'index' / 'layout_index.sqlite').touch()
    with pytest.raises(UsageError, match='inside the dataset'):
        listed_images(dataset, dataset / 'index')
    assert not (dataset / 'index' / 'layout_index.sqlite').stat().st_size


def test_a_database_that_an_interrupted_run_left_is_made_again(dataset, tmp_path, monkeypatch):
    database = tmp_path / 'database'
    full = listed_images(dataset, database)
    file = database / 'layout_index.sqlite'
    with sqlite3.connect(file) as opened:
        opened.execute('delete from tags')
        opened.execute('delete from files')
    opened.close()
    assert listed_images(dataset, database) == full
    file.write_bytes(b'')
    assert listed_images(dataset, database) == full
    file.unlink()
    monkeypatch.setattr('bids.layout.index.BIDSLayoutIndexer._index_dir', interrupt)
    with pytest.raises(KeyboardInterrupt):
        listed_images(dataset, database)
    assert list(database.iterdir()) == []


def interrupt(*given, **named):
    raise KeyboardInterrupt


def test_of_two_runs_that_make_it_at_the_same_time_both_have_all_images(dataset, tmp_path):
    script = (
        'import sys; from pathlib import Path; from ssl2_bids.bids.database import listed_images; '
        'print(len(listed_images(Path(sys.argv[1]), Path(sys.argv[2]))))'
    )
    words = [sys.executable, '-c', script, str(dataset), str(tmp_path / 'database')]
    runs = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [run.communicate(timeout=120)[0].strip() for run in runs] == ['2', '2']


def test_a_participant_that_is_not_in_it_is_named_so(dataset, tmp_path, capsys):
    from ssl2_bids.cli.app import main

    listed_images(dataset, tmp_path / 'database')
    shutil.copytree(dataset / 'sub-01', dataset / 'sub-new')
    words = [str(dataset), str(tmp_path / 'out'), 'participant', '--dry-run']
    main([*words, '--participant-label', 'new', '--bids-database-dir', str(tmp_path / 'database')])
    assert f'in the database {tmp_path}/database (remove it' in capsys.readouterr().out


def test_a_database_of_another_dataset_or_none(dataset, make_dataset, tmp_path):
    listed_images(dataset, tmp_path / 'database')
    other = make_dataset(FILES[:1], name='other')
    with pytest.raises(UsageError, match='of another dataset') as caught:
        listed_images(other, tmp_path / 'database')
    assert str(dataset) in caught.value.message
    moved = dataset.rename(tmp_path / 'moved')
    with pytest.raises(UsageError, match='of another dataset') as caught:
        listed_images(moved, tmp_path / 'database')
    assert str(dataset) in caught.value.message
    moved.rename(dataset)
    (tmp_path / 'database/layout_index.sqlite').write_text('nothing')
    with pytest.raises(DataError, match='not a readable database'):
        listed_images(dataset, tmp_path / 'database')
