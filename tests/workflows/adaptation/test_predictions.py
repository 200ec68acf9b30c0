"""Arrays that an adaptation keeps in the work folder."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ssl2_bids.errors import DataError, NoInputError, ReadError
from ssl2_bids.training.data.participants import read_participant
from ssl2_bids.workflows.adaptation.predictions import of_files, prediction_file
from ssl2_bids.workflows.adaptation.prepare import keep, read_kept


def test_a_kept_array_comes_back(tmp_path):
    array = np.arange(24, dtype=np.float16).reshape(2, 3, 4)
    keep(tmp_path / 'a.npy', array)
    found = read_kept(tmp_path / 'a.npy')
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)
    with pytest.raises(NoInputError, match=r'b.npy: cannot be read \(No such file'):
        read_kept(tmp_path / 'b.npy')


@pytest.mark.parametrize('length', [0, 5, 100, 140])
def test_a_damaged_probability_is_named_with_what_to_do(length, tmp_path):
    work = SimpleNamespace(folder=tmp_path)
    one = SimpleNamespace(case=SimpleNamespace(name='sub-01'))
    path = prediction_file(work, one, '1', 'whole')
    keep(path, np.ones((4, 4, 4), np.float32))
    path.write_bytes(path.read_bytes()[:length])
    found = of_files(work, 'whole', [SimpleNamespace(one=one, fold='1')])
    damaged = 'probability-uncalibrated-sub-01-1-whole.npy: .* Remove this file'
    with pytest.raises(DataError, match=damaged):
        found(one, (slice(None),) * 3, None)


def test_prepared_images_that_the_disk_does_not_give_are_not_called_damaged(tmp_path):
    (tmp_path / 'participant.json').symlink_to('/proc/self/mem')  # reading it fails: EIO
    with pytest.raises(ReadError, match='reading failed'):
        read_participant(tmp_path)
