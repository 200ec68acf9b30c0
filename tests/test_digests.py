"""Digests that are kept, and when they are trusted."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from ssl2_bids import digests as module
from ssl2_bids.digests import Digests


@pytest.fixture(autouse=True)
def settled(monkeypatch) -> None:
    """Files of a test are as old as those of a study: their digests may be kept at once."""
    monkeypatch.setattr(module, 'SETTLED', -1)


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / 'data' / 'x.nii'
    path.parent.mkdir()
    path.write_bytes(b'first')
    return path


def ask(records: Path, path: Path, **options) -> tuple[str, int]:
    """The digest, and how many files were read for it."""
    made = Digests(records, **options)
    digest = made.of(path)
    made.save()
    return digest, made.read


def test_an_unchanged_file_is_read_once(tmp_path, image):
    expected = hashlib.sha256(b'first').hexdigest()
    assert ask(tmp_path / 'records', image) == (expected, 1)
    assert ask(tmp_path / 'records', image) == (expected, 0)


def test_neither_an_equal_size_nor_a_kept_time_hides_another_content(tmp_path, image):
    first, _ = ask(tmp_path / 'records', image)
    before = image.stat()
    image.write_bytes(b'other')
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = image.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert after.st_ino == before.st_ino
    second, read = ask(tmp_path / 'records', image)
    assert (second != first, read) == (True, 1)


def test_a_file_renamed_over_another_is_seen(tmp_path, image):
    ask(tmp_path / 'records', image)
    other = image.with_name('other.nii')
    other.write_bytes(b'other')
    shutil.copystat(image, other)
    os.replace(other, image)
    assert ask(tmp_path / 'records', image) == (hashlib.sha256(b'other').hexdigest(), 1)


def test_without_trust_every_file_is_read(tmp_path, image):
    ask(tmp_path / 'records', image)
    assert ask(tmp_path / 'records', image, trust=False)[1] == 1


def test_a_file_that_has_just_changed_is_not_trusted_later(tmp_path, image, monkeypatch):
    """A change within the same tick of the clock would leave no trace."""
    monkeypatch.setattr(module, 'SETTLED', 3600)
    ask(tmp_path / 'records', image)
    assert ask(tmp_path / 'records', image)[1] == 1


@pytest.mark.parametrize('content', ['{', '[]', '{"Folder": 1}', '{"Folder": "x", "Files": {}}'])
def test_a_damaged_record_is_no_record(tmp_path, image, content):
    ask(tmp_path / 'records', image)
    (record,) = (tmp_path / 'records').iterdir()
    record.write_text(content)
    assert ask(tmp_path / 'records', image)[1] == 1
    assert ask(tmp_path / 'records', image)[1] == 0


def test_a_damaged_entry_is_no_entry(tmp_path, image):
    ask(tmp_path / 'records', image)
    (record,) = (tmp_path / 'records').iterdir()
    content = json.loads(record.read_text())
    content['Files'] = {'x.nii': 'text'}
    record.write_text(json.dumps(content))
    assert ask(tmp_path / 'records', image)[1] == 1


def test_many_at_once_and_what_cannot_be_read_is_reported_when_it_is_asked(tmp_path, image):
    made = Digests(tmp_path / 'records')
    missing = image.with_name('missing.nii')
    made.of_all([image, missing, image], threads=2)
    assert (made.read, made.trusted) == (1, 0)
    with pytest.raises(FileNotFoundError):
        made.of(missing)


def test_folders_of_one_name_have_records_of_their_own(tmp_path, image):
    other = tmp_path / 'elsewhere' / 'data' / 'x.nii'
    other.parent.mkdir(parents=True)
    other.write_bytes(b'else!')
    for path in (image, other):
        ask(tmp_path / 'records', path)
    assert ask(tmp_path / 'records', image) == (hashlib.sha256(b'first').hexdigest(), 0)
    assert ask(tmp_path / 'records', other) == (hashlib.sha256(b'else!').hexdigest(), 0)
