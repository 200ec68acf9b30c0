"""When a session was scanned, from the tables of a dataset."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from ssl2_bids.bids.dates import acquisition_time, as_date


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / 'sub-01' / 'ses-1'
    folder.mkdir(parents=True)
    (folder / 'sub-01_ses-1_scans.tsv').write_text(
        'filename\tacq_time\nanat/sub-01_ses-1_FLAIR.nii.gz\t2021-05-31T10:00:00\n'
    )
    return tmp_path


@pytest.mark.parametrize(
    ('stated', 'expected'),
    [
        ('2020-01-01', '2020-01-01'),
        ('n/a', '2021-05-31T10:00:00'),
        ('soon', '2021-05-31T10:00:00'),
    ],
)
def test_sessions_tsv_goes_first_if_it_has_a_date(dataset, stated, expected):
    table = dataset / 'sub-01' / 'sub-01_sessions.tsv'
    table.write_text(f'session_id\tacq_time\nses-1\t{stated}\n')
    assert acquisition_time(dataset, '01', '1', 'FLAIR') == expected


def test_what_cannot_be_read_is_kept_for_the_message(dataset):
    (dataset / 'sub-01' / 'sub-01_sessions.tsv').write_text('session_id\tacq_time\nses-1\tsoon\n')
    (dataset / 'sub-01' / 'ses-1' / 'sub-01_ses-1_scans.tsv').unlink()
    found = acquisition_time(dataset, '01', '1', 'T1w')
    assert found == 'soon'
    assert as_date(found) is None
    assert acquisition_time(dataset, '01', '2', 'T1w') is None


def test_the_time_of_a_computed_image_is_that_of_another_one_of_its_session(dataset):
    assert acquisition_time(dataset, '01', '1', 'UNIT1') == '2021-05-31T10:00:00'


@pytest.mark.parametrize('digits', [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize('end', ['', 'Z'])
def test_fractions_of_seconds_may_have_any_number_of_digits(monkeypatch, digits, end):
    fraction = '1234567'[:digits]
    micro = int(fraction[:6].ljust(6, '0'))
    seen: list[str] = []

    class Strict(datetime):
        """As in Python 3.10: three or six digits alone."""

        @classmethod
        def fromisoformat(cls, text: str) -> datetime:
            seen.append(text)
            assert len(text.partition('.')[2]) in (3, 6)
            return datetime.fromisoformat(text)

    monkeypatch.setattr('ssl2_bids.bids.dates.datetime', Strict)
    found = as_date(f'2021-05-31T10:00:07.{fraction}{end}')
    assert found == datetime(2021, 5, 31, 10, 0, 7, micro)
    assert seen
