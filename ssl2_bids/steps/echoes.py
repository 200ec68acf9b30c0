"""Several echoes of a gradient echo image to one magnitude image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssl2_bids.errors import DataError
from ssl2_bids.volume import Volume
from ssl2_bids.voxel_grid import same_grid

AIR = 0.05  # of the brightest signal of the first echo; below it is air


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


T2STAR_RANGE = (0.002, 0.2)  # s; beyond, a fit has seen noise or no decay


def fit_t2star(echoes: Sequence[Volume], times: Sequence[float]) -> Volume:
    """T2* in s from three echoes or more, 0 in air.

    Straight line through the logarithm of the magnitudes, each weighted by its square, which is
    its inverse variance there.

    Parameters
    ----------
    echoes : magnitudes on one grid.
    times : echo times in s, all different.

    Raises
    ------
    DataError : the echoes do not share their grid.
    """
    mean_of_echoes(echoes)  # checks the grids
    at = np.asarray(times, np.float64)
    tiny = 1e-6 * min(1.0, float(echoes[0].data.max()))  # scans are stored in any unit
    tiny = max(tiny, float(np.finfo(np.float32).tiny))
    sums = [np.zeros(echoes[0].shape) for _ in range(5)]  # w, w t, w t t, w y, w t y
    for echo, time in zip(echoes, at, strict=True):
        value = np.maximum(echo.data.astype(np.float64), 0)
        weight = value**2
        y = np.log(np.maximum(value, tiny))
        for total, term in zip(sums, (1.0, time, time**2, y, time * y), strict=True):
            total += weight * term
    w, wt, wtt, wy, wty = sums
    spread = w * wtt - wt**2
    slope = (w * wty - wt * wy) / np.where(spread > 0, spread, 1)
    first = echoes[0].data
    inside = (first > AIR * np.percentile(first, 99)) & (spread > 0)
    low, high = T2STAR_RANGE
    rate = np.clip(-slope, 1 / high, 1 / low)
    return echoes[0].with_data(np.where(inside, 1 / rate, 0).astype(np.float32))


def map_methods(count: int) -> str:
    """The methods sentence of the T2* map."""
    return (
        f'T2* was fitted to {count} echoes by a weighted straight line through the logarithm of '
        'the magnitudes.'
    )


def methods(count: int) -> str:
    """The methods sentence."""
    return f'The magnitudes of {count} echoes of the T2*-weighted image were averaged.'
