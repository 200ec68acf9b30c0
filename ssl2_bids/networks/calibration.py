"""Calibration of a network's answer: scale and shift of the logit (Platt 1999; Guo et al. 2017).

The calibration acts on the probability that a brain has in the end, after windows were averaged
and brought to the grid of the image. So a stored probability, calibrated, is what the calibrated
model would have given.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

TINY = 1e-7  # smallest probability in a logarithm: single precision has no more near 1


class Calibration(NamedTuple):
    """A calibrated logit is ``scale * logit + shift``."""

    scale: float = 1.0
    shift: float = 0.0

    def after(self, first: Calibration) -> Calibration:
        """The one that does what ``first`` and then this one do."""
        return Calibration(self.scale * first.scale, self.scale * first.shift + self.shift)

    def of(self, probability: float) -> float:
        """The calibrated value of one probability between 0 and 1."""
        return float(expit(self.scale * logit(probability) + self.shift))


UNCHANGED = Calibration()


def calibrate(probability: np.ndarray, calibration: Calibration) -> np.ndarray:
    """Calibrated probabilities; zeros, which stand for voxels that no network saw, stay.

    Parameters
    ----------
    probability : float32, any shape.
    """
    if calibration == UNCHANGED:
        return probability
    seen = probability > 0
    found = np.zeros(probability.shape, np.float32)
    found[seen] = expit(calibration.scale * logit(probability[seen]) + calibration.shift)
    return found


def logit(probability: np.ndarray | float) -> np.ndarray:
    """ln(p / (1 - p)) in double precision, of p not nearer than 1e-7 to 0 and 1."""
    clipped = np.clip(np.asarray(probability, np.float64), TINY, 1 - TINY)
    return np.log(clipped) - np.log1p(-clipped)


def expit(value: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), the inverse of :func:`logit`."""
    return 1 / (1 + np.exp(-np.clip(value, -700, 700)))  # beyond, the exponential overflows
