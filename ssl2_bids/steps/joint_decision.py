"""Lesion or not, at each voxel of several visits: a change has its price.

A visit's own decision is noisy at the border of the threshold. Here a voxel may differ between
visits only where the evidence of the visits against one another, and the difference of their
images, outweigh the price of a change (hysteresis in time).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Hysteresis:
    """What a change has to outweigh, chosen on simulated pairs: benchmarks/longitudinal.py.

    Attributes
    ----------
    price : of a change between neighbouring visits, in natural log odds.
    support : log odds that a standard deviation of the difference images counts.
    bonus : log odds that the difference images can add to the probabilities at most.
    cap : log odds of one visit, at most: a network is too certain.
    """

    price: float = 2.0
    support: float = 1.0
    bonus: float = 2.0
    cap: float = 3.0


def log_odds(probability: np.ndarray, threshold: float, cap: float) -> np.ndarray:
    """Natural log odds of a probability against a threshold, cut at ``cap``; float32."""
    inside = np.clip(np.nan_to_num(probability), 1e-4, 1 - 1e-4)
    level = np.log(threshold / (1 - threshold))
    return np.clip(np.log(inside / (1 - inside)) - level, -cap, cap).astype(np.float32)


def decide(
    odds: np.ndarray, evidence: np.ndarray, hysteresis: Hysteresis = Hysteresis()
) -> np.ndarray:
    """The most probable sequence of lesion and no lesion over the visits, for each voxel.

    A sequence has the sum of the log odds of its lesion visits, less the price of each change.
    The price is lower where the difference of the images speaks for the change. Time backwards
    gives the same, backwards.

    Parameters
    ----------
    odds : (V, N), see :func:`log_odds`.
    evidence : (V - 1, N), see ``visit_matching.change_evidence``, of neighbouring visits.

    Returns
    -------
    bool (V, N).
    """
    absent, present = np.zeros(odds.shape[1], np.float32), odds[0].copy()
    appeared = np.zeros(odds.shape, bool)  # whether the best way to a lesion came from none
    stayed = np.zeros(odds.shape, bool)  # whether the best way to no lesion came from one
    for visit in range(1, len(odds)):
        up, down = (_price(way * evidence[visit - 1], hysteresis) for way in (1, -1))
        appeared[visit] = absent - up > present
        stayed[visit] = present - down > absent
        absent, present = (
            np.maximum(absent, present - down),
            np.maximum(present, absent - up) + odds[visit],
        )
    chosen = np.zeros(odds.shape, bool)
    chosen[-1] = present > absent
    for visit in range(len(odds) - 1, 0, -1):
        chosen[visit - 1] = np.where(chosen[visit], ~appeared[visit], stayed[visit])
    return chosen


def _price(evidence: np.ndarray, hysteresis: Hysteresis) -> np.ndarray:
    """The price of a change for which the difference of the images speaks so much."""
    most = hysteresis.price + hysteresis.bonus
    return hysteresis.price - np.minimum(hysteresis.support * evidence, most)
