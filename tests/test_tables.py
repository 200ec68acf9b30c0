"""Tables of TOML and JSON as dataclasses and back."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from ssl2_bids.errors import DataError, NoInputError, UsageError
from ssl2_bids.tables import BESIDE, Source, bundled_table, fits, from_table, read_toml, to_table


@dataclass(frozen=True)
class Pace:
    steps: int = 10
    rate: float = 0.5


@dataclass(frozen=True)
class Trip:
    name: str
    places: tuple[Path, ...] = ()
    size: tuple[int, int] = (1, 2)
    start: Path | None = None
    fast: bool = False
    notes: dict[str, float] = field(default_factory=dict)
    pace: Pace = field(default=Pace(), metadata=BESIDE)
    back: Pace | None = None


TRIP = Trip(
    'there', (Path('/a'), Path('/b')), (3, 4), None, True, {'x': 1.5}, Pace(7), Pace(rate=0.1)
)


def test_a_dataclass_comes_back_from_json_as_it_was():
    table = json.loads(json.dumps(to_table(TRIP)))
    table |= table.pop('pace')  # its keys stand beside the others in a file
    assert from_table(Trip, table) == TRIP


def test_missing_keys_keep_the_default_of_the_instance_or_of_the_field():
    assert from_table(Trip, {'name': 'x'}).pace == Pace()
    found = from_table(Trip, {'rate': 1, 'back': {'steps': 3}}, default=TRIP)
    assert found == replace(TRIP, pace=Pace(7, 1.0), back=Pace(3, 0.1))
    assert isinstance(found.pace.rate, float)


def test_relative_paths_start_at_the_folder_of_the_file():
    source = Source(folder=Path('/data'))
    found = from_table(Trip, {'name': 'x', 'places': ['a', '/b'], 'start': 'c'}, source)
    assert found.places == (Path('/data/a'), Path('/b'))
    assert found.start == Path('/data/c')


@pytest.mark.parametrize(
    ('table', 'message'),
    [
        ({}, 'the key "name" is missing'),
        ({'name': 'x', 'stps': 1}, '"stps" is unknown. Perhaps steps is meant'),
        ({'name': 'x', 'pace': {}}, '"pace" is unknown'),
        ({'name': 'x', 'back': {'z': 1}}, '"back.z" is unknown. Known are: rate, steps'),
        ({'name': 1}, '"name" is 1. It must be a text. In words'),
        ({'name': 'x', 'steps': True}, '"steps" is True. It must be a whole number'),
        ({'name': 'x', 'rate': float('nan')}, '"rate" is nan. It must be a finite number'),
        ({'name': 'x', 'size': [1]}, r'"size" is \[1\]. It must be a list of 2'),
        ({'name': 'x', 'fast': 1}, '"fast" is 1. It must be true or false'),
        ({'name': 'x', 'notes': {'y': 'z'}}, '"notes.y" is \'z\''),
        (7, '7 is not a table'),
    ],
)
def test_faults_name_the_file_and_the_key(table, message):
    source = Source('trip.toml', UsageError, 'In words.')
    with pytest.raises(UsageError, match=message) as caught:
        from_table(Trip, table, source)
    assert caught.value.path == 'trip.toml'
    assert caught.value.advice


def test_files_that_cannot_be_read(tmp_path):
    path = tmp_path / 'trip.toml'
    with pytest.raises(NoInputError, match='no such trip'):
        read_toml(path, 'trip', UsageError)
    with pytest.raises(NoInputError, match='the trip cannot be read'):
        read_toml(tmp_path, 'trip', UsageError)
    for content in (b'\xff = 1', b'a = ' + b'[' * 5000):
        path.write_bytes(content)
        with pytest.raises(DataError, match='the trip is not TOML'):
            read_toml(path, 'trip', DataError)
    path.write_bytes(b'\xef\xbb\xbfa = 1')  # as Notepad saves it
    assert read_toml(path, 'trip', DataError) == {'a': 1}
    assert 'anat' in bundled_table('outputs.toml')


def test_what_fits():
    assert not any(fits(kind, 10**400) for kind in (int, float))
    assert not any(fits(float, value) for value in (math.nan, math.inf))
    assert fits(tuple[int, int, int], [1, 2, 3])
    assert not fits(tuple[int, int, int], [1, 2, 3.0])
    assert not fits(float, True)
