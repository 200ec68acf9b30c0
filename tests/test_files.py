"""Files that are whole or not there."""

from __future__ import annotations

import errno
import os
import time

import pytest

from ssl2_bids.errors import CannotWriteError, DataError, StorageError
from ssl2_bids.files import (
    ABANDONED,
    PREFIX,
    as_ssl2_error,
    files_below,
    finished_files,
    read_object,
    read_text,
    remove_leftovers,
    unforeseen,
    whole_file,
    write_json,
    write_text,
)


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / 'folder' / 'x.txt'
    write_text(path, 'old')

    def fail() -> None:
        with whole_file(path) as temporary:
            temporary.write_text('half')
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == 'old'
    assert os.listdir(path.parent) == ['x.txt']


def test_the_final_name_is_not_seen_before_the_end(tmp_path):
    path = tmp_path / 'x.nii.gz'
    with whole_file(path) as temporary:
        temporary.write_bytes(b'1')
        assert not path.exists()
        assert temporary.name.endswith('.nii.gz')
    assert path.exists()


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match='JSON'):
        write_json(tmp_path / 'x.json', {'a': float('nan')})


@pytest.mark.parametrize(
    ('number', 'kind'),
    [(errno.ENOSPC, StorageError), (errno.EROFS, CannotWriteError), (errno.EIO, StorageError)],
)
def test_errors_of_the_system_in_our_words(number, kind):
    assert type(as_ssl2_error(OSError(number, 'text'), 'file')) is kind


def test_leftovers_go_by_their_age_alone(tmp_path, monkeypatch):
    fresh, old = (tmp_path / f'{PREFIX}0123456789ab-{name}.json' for name in 'ab')
    for path, age in ((fresh, ABANDONED - 60), (old, ABANDONED + 60)):
        path.touch()
        os.utime(path, (0, path.stat().st_mtime - age))
    monkeypatch.setattr(time, 'time', lambda: 1e10)  # a clock that jumped
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [fresh]


def test_errors_survive_the_way_between_processes():
    import pickle

    error = pickle.loads(pickle.dumps(DataError('bad', advice='Do so.', path='/a b/ü.nii')))
    assert str(error) == '/a b/ü.nii: bad. Do so.'
    assert error.exit_code == 65


@pytest.mark.parametrize(
    ('content', 'text', 'warned'),
    [
        ('Köln'.encode(), 'Köln', ''),
        ('Köln'.encode('utf-8-sig'), 'Köln', ''),
        ('Köln'.encode('utf-16'), 'Köln', 'UTF-16'),
        (b'\xfe\xff' + 'Köln'.encode('utf-16-be'), 'Köln', 'UTF-16'),
        ('Köln'.encode('latin-1'), 'Köln', 'Latin-1'),
        (b'\xff\xfeK\x00\xf6', 'ÿþK\x00ö', 'Latin-1'),  # cut off within a character
        (b'', '', ''),
    ],
)
def test_text_of_other_programs_is_read_with_one_warning(tmp_path, caplog, content, text, warned):
    path = tmp_path / 'x.tsv'
    path.write_bytes(content)
    assert [read_text(path), read_text(path)] == [text, text]
    assert caplog.text.count('not in UTF-8') == bool(warned)
    assert warned in caplog.text


@pytest.mark.parametrize(
    ('content', 'fault'),
    [
        ('[1]', 'not an object'),
        ('5', 'not an object'),
        ('', 'Expecting value'),
        ('[' * 100_000, 'nested too deeply'),
    ],
)
def test_json_that_is_no_object_is_refused(tmp_path, content, fault):
    path = tmp_path / 'x.json'
    path.write_text('{"Name": "Köln"}')
    assert read_object(path) == {'Name': 'Köln'}
    path.write_text(content)
    with pytest.raises(ValueError, match=fault):
        read_object(path)


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / 'file').touch()
    for path in (tmp_path / 'file' / 'x.tsv', tmp_path / 'file' / 'folder' / 'x.tsv'):
        with pytest.raises(CannotWriteError, match=f'^{tmp_path}/file: .* Move away'):
            write_text(path, '')
    with pytest.raises(CannotWriteError, match='File name too long'):
        write_text(tmp_path / ('x' * 300), '')


def test_half_of_a_surrogate_pair_can_be_written(tmp_path):
    write_text(tmp_path / 'x', 'a\ud800')
    assert (tmp_path / 'x').read_text() == 'a\\ud800'


def test_what_nothing_caught_has_one_line_and_a_code(tmp_path):
    text, code = unforeseen(OSError(errno.ENOSPC, 'no space', str(tmp_path)))
    assert ('the disk is full' in text, code) == (True, 74)
    text, code = unforeseen(PermissionError(errno.EACCES, 'Permission denied', str(tmp_path)))
    assert text.startswith(f'error: {tmp_path}: cannot be read or written (Permission denied)')
    assert code == 73
    text, code = unforeseen(KeyError('x'))
    assert (text.startswith("internal error: KeyError: 'x'"), code) == (True, 70)


def test_a_listing_sees_finished_names_alone(tmp_path):
    for name in ('a.json', f'{PREFIX}node-1-b.json', '._a.json', '.hidden/c.json', 'd/e.json'):
        write_text(tmp_path / name, '')
    assert [p.name for p in finished_files(tmp_path, '*.json')] == ['a.json']
    assert [p.name for p in finished_files(tmp_path, '**/*.json')] == ['a.json', 'e.json']


def test_files_below_linked_folders_are_found_once(tmp_path):
    folder = tmp_path / 'sub-01'
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'elsewhere' / 'a.nii').touch()
    folder.mkdir()
    (folder / 'anat').symlink_to(tmp_path / 'elsewhere')
    (folder / 'loop').symlink_to(folder)
    (folder / 'b.nii').touch()
    found = files_below(folder, '*.nii')
    assert [path.relative_to(folder).as_posix() for path in found] == ['anat/a.nii', 'b.nii']
    assert files_below(tmp_path / 'nowhere', '*') == []
