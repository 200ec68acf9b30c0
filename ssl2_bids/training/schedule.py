"""The learning rate and the weight of an average, as functions of the step alone."""

from __future__ import annotations

import math


def rate(
    step: int,
    *,
    steps: int,
    warm_up: float,
    floor: float = 0.0,
) -> float:
    """Share of the peak learning rate at a step: a linear rise, then a cosine.

    Parameters
    ----------
    step : 0 for the first.
    steps : number of all.
    warm_up : share of the steps in which the rate rises.
    floor : share of the peak that is left at the end.
    """
    rising = max(1, round(warm_up * steps))
    if step < rising:
        return (step + 1) / rising
    done = (step - rising) / max(1, steps - rising)
    return floor + (1 - floor) * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def average_weight(step: int, highest: float) -> float:
    """Weight of the past in an exponential average: min(1 - 1/(t+1), highest).

    The first steps are averaged plainly, so that the random start is forgotten (Tarvainen &
    Valpola 2017).
    """
    return min(1 - 1 / (step + 1), highest)
