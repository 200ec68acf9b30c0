"""Recalibration: the cheapest adaptation, of a few numbers that take no training.

Scale and shift of the logit are fitted by the log loss (Platt 1999; Guo et al. 2017, arXiv
1706.04599) over the voxels where the model sees at least a trace of a lesion. They make the
probabilities honest; a mask does not change by them if the threshold moves along. So the
threshold is fitted by itself, by the Dice of the masks. Participants have equal weights; those
whose labels hold little (one lesion, one slice) have less, and without evidence nothing moves:
the fits are drawn to the start model by priors.

Everything is computed from counts of voxels by logit, so that leaving each participant out in
turn takes no time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ssl2_bids.networks.calibration import UNCHANGED, Calibration, expit, logit

WIDTH = 0.05  # of a bin of the logit
LIMIT = 9.0  # highest logit of a bin of its own; p = 0.9999
CENTRES = np.arange(-LIMIT + WIDTH / 2, LIMIT, WIDTH)
TRACE = 0.01  # probability from which voxels count for the calibration: below, no map changes
VOLUME = 100.0  # mm^3 of such voxels that count as one observation: neighbours are alike
FULL = 30.0  # observations of a participant from which on more add nothing
SCALE_SPREAD, SHIFT_SPREAD = 0.5, 1.5  # standard deviations of the priors of ln(scale) and shift
MAX_LOG_SCALE, MAX_SHIFT = math.log(3), 4.0
MAX_MOVE = 3.0  # of the threshold, as a logit
MOVE_COST = 0.02  # Dice that a move of the threshold by one logit must gain in one participant


@dataclass(frozen=True)
class Counts:
    """Voxels of a label by the logit of their probability, in the annotated part of a brain.

    Attributes
    ----------
    participant : whose they are.
    lesion, other : voxels drawn as lesion and others in each bin.
    drawn : all voxels drawn, those outside of the brain mask too.
    voxel_volume : mm^3.
    threshold : of the start model.
    """

    participant: str
    lesion: np.ndarray
    other: np.ndarray
    drawn: int
    voxel_volume: float
    threshold: float

    @property
    def observations(self) -> float:
        """How much evidence the label holds, from 0 to 30."""
        seen = (self.lesion + self.other)[expit(CENTRES) >= TRACE].sum() * self.voxel_volume
        return min(float(seen) / VOLUME, FULL)

    def dice(self, moves: np.ndarray) -> np.ndarray:
        """Dice of the mask for moves of the threshold's logit; no minimum volume is applied."""
        first = np.rint((logit(self.threshold) + moves + LIMIT) / WIDTH).astype(int)
        first = np.clip(first, 0, len(CENTRES))
        true, false = (
            np.append(np.cumsum(part[::-1])[::-1], 0)[first] for part in (self.lesion, self.other)
        )
        total = true + false + self.drawn
        return np.where(total > 0, 2 * true / np.maximum(total, 1), 1.0)


def count(
    probability: np.ndarray,
    lesion: np.ndarray,
    brain: np.ndarray,
    *,
    participant: str,
    voxel_volume: float,
    threshold: float,
) -> Counts:
    """Count the voxels of a label.

    Parameters
    ----------
    probability : float32 of shape (I, J, K).
    lesion, brain : boolean, the same shape, in the annotated part alone.
    """
    edges = np.append(CENTRES - WIDTH / 2, LIMIT)
    inner = edges[1:-1]
    values, drawn = probability[brain], lesion[brain]
    bins = np.searchsorted(expit(inner).astype(np.float32), values, side='right')
    inside, outside = (np.bincount(bins[part], minlength=len(CENTRES)) for part in (drawn, ~drawn))
    return Counts(participant, inside, outside, int(lesion.sum()), voxel_volume, float(threshold))


@dataclass(frozen=True)
class Recalibration:
    """What was fitted.

    Attributes
    ----------
    calibration : of the logit.
    move : of the logit of the threshold, before the calibration.
    minimum_volume : mm^3; None is that of the start model.
    refused : a move that was fitted and is not made, because a test did not show enough of a gain.
    least : what the move was at least to be; None without such evidence.
    """

    calibration: Calibration = field(default=UNCHANGED)
    move: float = 0.0
    minimum_volume: float | None = None
    refused: float | None = None
    least: float | None = None

    def at_least(self, move: float | None) -> Recalibration:
        """With a move that is not below this one; None leaves it."""
        return self if move is None else replace(self, move=max(self.move, move), least=move)

    def with_first_masks(self) -> Recalibration:
        """With the masks of the start model: its threshold and minimum volume stay."""
        return Recalibration(self.calibration, refused=self.move)

    def mark_from(self, threshold: float) -> float:
        """The threshold of the probabilities that are not calibrated."""
        return float(expit(logit(threshold) + self.move))

    def threshold(self, threshold: float) -> float:
        """The threshold of the calibrated probabilities."""
        return self.calibration.of(self.mark_from(threshold))


def pooled(parts: Sequence[Counts]) -> list[Counts]:
    """The counts of one label that was counted in parts: as one, and none of none.

    The Dice of a part without lesions is 1 for an empty mask and else 0: counted by themselves
    a few such parts would ask for a mask that is empty in the others, too.
    """
    if not parts:
        return []
    return [
        replace(
            parts[0],
            lesion=sum((one.lesion for one in parts[1:]), parts[0].lesion),
            other=sum((one.other for one in parts[1:]), parts[0].other),
            drawn=sum(one.drawn for one in parts),
        )
    ]


def fit(parts: Sequence[Counts]) -> Recalibration:
    """Scale, shift and threshold for the labels of some participants.

    Parameters
    ----------
    parts : one for each label (see :func:`pooled`); none at all leave everything as it is.
    """
    if not parts:
        return Recalibration()
    return Recalibration(fit_calibration(parts), fit_move(parts))


def weights_of(parts: Sequence[Counts]) -> np.ndarray:
    """Observations of each label; labels of one participant share those of a participant."""
    sessions = [sum(one.participant == other.participant for other in parts) for one in parts]
    return np.array([one.observations for one in parts]) / np.array(sessions)


def fit_calibration(parts: Sequence[Counts]) -> Calibration:
    """Scale and shift of the logit with the least log loss and a prior around 1 and 0."""
    from scipy.optimize import minimize

    seen = expit(CENTRES) >= TRACE
    inside, outside = np.zeros(seen.sum()), np.zeros(seen.sum())
    for weight, one in zip(weights_of(parts), parts, strict=True):
        voxels = (one.lesion + one.other)[seen].sum()
        if voxels:
            inside += weight * one.lesion[seen] / voxels
            outside += weight * one.other[seen] / voxels
    centres = CENTRES[seen]

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        scale, shift = math.exp(values[0]), values[1]
        value = scale * centres + shift
        lost = inside @ np.logaddexp(0, -value) + outside @ np.logaddexp(0, value)
        slope = outside * expit(value) - inside * expit(-value)
        prior = (values[0] / SCALE_SPREAD) ** 2 / 2 + (shift / SHIFT_SPREAD) ** 2 / 2
        gradient = [
            scale * (slope @ centres) + values[0] / SCALE_SPREAD**2,
            slope.sum() + shift / SHIFT_SPREAD**2,
        ]
        return float(lost + prior), np.array(gradient)

    bounds = [(-MAX_LOG_SCALE, MAX_LOG_SCALE), (-MAX_SHIFT, MAX_SHIFT)]
    found = minimize(loss, np.zeros(2), jac=True, method='L-BFGS-B', bounds=bounds).x
    return Calibration(round(math.exp(found[0]), 6), round(float(found[1]), 6))


def fit_move(parts: Sequence[Counts]) -> float:
    """The move of the threshold with the highest Dice, less what a move costs.

    Labels without lesions have no part in it: their Dice is 1 for an empty mask and else 0, so a
    few of them would ask for masks that are empty in patients too.
    """
    parts = [one for one in parts if one.drawn]
    moves = np.arange(-MAX_MOVE, MAX_MOVE + WIDTH / 2, WIDTH)
    gained = -MOVE_COST * moves**2
    for weight, one in zip(weights_of(parts), parts, strict=True):
        gained += weight / FULL * one.dice(moves)
    best = np.flatnonzero(gained >= gained.max() - 1e-9)
    return round(float(moves[best[np.abs(moves[best]).argmin()]]), 6) + 0.0  # no minus zero
