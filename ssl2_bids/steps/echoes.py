"""Several echoes of a gradient echo image to one magnitude image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssl2_bids.errors import DataError
from ssl2_bids.volume import Volume, same_grid


def mean_of_echoes(echoes: Sequence[Volume]) -> Volume:
    """Mean magnitude over echoes on one grid, each of shape (I, J, K).

    Raises
    ------
    DataError : the echoes do not share their grid.
    """
    first = echoes[0]
    for number, echo in enumerate(echoes[1:], start=2):
        if not same_grid(first, echo):
            raise DataError(f'echo {number} is not on the grid of the first echo')
    stack = np.stack([echo.data for echo in echoes])
    return first.with_data(np.asarray(stack.mean(axis=0, dtype=np.float32)))


def methods(count: int) -> str:
    """The methods sentence."""
    return f'The magnitudes of {count} echoes of the T2*-weighted image were averaged.'
