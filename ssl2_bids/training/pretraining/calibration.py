"""Calibration of a committee's members before their probabilities are averaged.

An overconfident member outvotes the others. The logit of each gets a scale and a shift (Platt
scaling), of smallest log loss on scans that the training has not seen; only voxels near lesions
count, as nearly all others are obvious background (:mod:`ssl2_bids.metrics.calibration`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from ssl2_bids.metrics.calibration import near_lesions
from ssl2_bids.networks.architectures.committee import UNCHANGED
from ssl2_bids.synthesis.randomised import Patches

SCALES, SHIFTS = (0.2, 5.0), (-5.0, 5.0)  # the scans are too few to show more
TINY = 1e-6  # smallest probability in a logarithm
SUSPECTED = 0.5  # probability from which a member's mark is a lesion to look around


def calibrate_members(
    probabilities: Sequence[Sequence[Tensor]], volumes: Sequence[Patches]
) -> list[tuple[float, float]]:
    """Scale and shift of each member's logit, fitted to the same voxels.

    Parameters
    ----------
    probabilities : for each member, for each volume: (D, H, W), 0 outside the brain.
    volumes : batches of one with their truth; each volume counts the same.
    """
    places = [
        looked_at([member[number] for member in probabilities], volume)
        for number, volume in enumerate(volumes)
    ]
    truths = [volume.label[0, 0][place] > 0 for volume, place in zip(volumes, places, strict=True)]
    return [
        fit_scale_and_shift(
            [one[place] for one, place in zip(member, places, strict=True)], truths
        )
        for member in probabilities
    ]


def looked_at(probabilities: Sequence[Tensor], volume: Patches) -> Tensor:
    """(D, H, W) bool: brain with a known label, within 5 mm of the truth or of a mark."""
    inside = (volume.brain * volume.known)[0, 0] > 0
    marked = torch.stack([p > SUSPECTED for p in probabilities]).any(dim=0) & inside
    truth = (volume.label[0, 0] > 0) & inside
    near = near_lesions(truth.numpy(), marked.numpy(), (1.0, 1.0, 1.0), inside=inside.numpy())
    return torch.from_numpy(near)


def fit_scale_and_shift(
    probabilities: Sequence[Tensor], truths: Sequence[Tensor]
) -> tuple[float, float]:
    """The scale and the shift of the logit with the smallest mean log loss.

    Parameters
    ----------
    probabilities, truths : for each volume (voxels,), of 0 to 1 and bool; a volume without
        voxels does not count.

    Returns
    -------
    (1, 0) where there is no lesion voxel, or nothing but lesion.
    """
    used = [(p, t) for p, t in zip(probabilities, truths, strict=True) if p.numel()]
    if not used:
        return UNCHANGED
    logit = np.concatenate([torch.logit(p.double(), eps=TINY).numpy() for p, _ in used])
    lesion = np.concatenate([t.numpy() for _, t in used]).astype(float)
    weight = np.concatenate([np.full(p.numel(), 1 / (p.numel() * len(used))) for p, _ in used])
    if not 0 < lesion.mean() < 1:
        return UNCHANGED

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        moved = point[0] * logit + point[1]
        value = weight @ (np.logaddexp(0, moved) - lesion * moved)
        slope = weight * (1 / (1 + np.exp(-moved)) - lesion)
        return value, np.array([slope @ logit, slope.sum()])

    found = optimize.minimize(
        loss, np.array(UNCHANGED), jac=True, method='L-BFGS-B', bounds=(SCALES, SHIFTS)
    )
    return float(found.x[0]), float(found.x[1])
