"""Several echoes become one image."""

from __future__ import annotations

import numpy as np
import pytest

from ssl2_bids.errors import DataError
from ssl2_bids.steps.echoes import mean_of_echoes
from ssl2_bids.volume import Volume


def test_mean_and_grid():
    echoes = [Volume(np.full((3, 4, 5), v, np.float32), np.eye(4)) for v in (1, 2, 6)]
    assert np.array_equal(mean_of_echoes(echoes).data, np.full((3, 4, 5), 3, np.float32))
    with pytest.raises(DataError, match='echo 2'):
        mean_of_echoes([echoes[0], Volume(echoes[1].data, np.diag([2, 2, 2, 1.0]))])
