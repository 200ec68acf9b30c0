"""Lesions of several visits, decided together: masks, identities over time, changes.

The joint decision by voxel, the identities of lesions and their states, joined; what appears or
disappears within the noise is taken back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import ndimage

from ssl2_bids.errors import DataError
from ssl2_bids.steps.joint_decision import Hysteresis, decide, log_odds
from ssl2_bids.steps.lesion_identities import by_size, number_lesions
from ssl2_bids.steps.lesion_states import NoiseBound, TrackedLesion, tracked
from ssl2_bids.steps.lesions import MAX_LESIONS
from ssl2_bids.volume import Volume

RULE = 2  # increased when other lesions come of the same visits: comparisons are made again
USUAL, USUAL_NOISE = Hysteresis(), NoiseBound()
FAINT = 0.1  # of a lesion's largest volume: what is smaller, and within the noise, is none
FLOOR = 20.0  # a voxel below a twentieth of the threshold at every visit is no lesion


@dataclass(frozen=True, eq=False)
class JointLesions:
    """The lesions of all visits on one grid.

    Attributes
    ----------
    instances : uint16 (V, I, J, K); a lesion has one number at all visits.
    lesions : in the order of their numbers.
    """

    instances: np.ndarray
    lesions: tuple[TrackedLesion, ...]


def segment_jointly(
    probabilities: np.ndarray,
    evidence: np.ndarray,
    grid: Volume,
    *,
    threshold: float | Sequence[float],
    minimum_volume: float,
    hysteresis: Hysteresis = USUAL,
    noise: NoiseBound = USUAL_NOISE,
) -> JointLesions:
    """Decide on the lesions of all visits together.

    Parameters
    ----------
    probabilities : (V, I, J, K), 0 to 1, on one grid.
    evidence : (V - 1, I, J, K), see ``visit_matching.change_evidence``.
    grid : the brain on that grid, above 0 is inside; nothing outside it is a lesion.
    threshold : of a visit alone; one for all, or one for each.
    minimum_volume : mm^3; what is smaller at every visit is no lesion. Visits that differ within
        the noise, each from the next, share one decision: with 4, 8 and 12 mm^3 and a minimum of
        10 mm^3 the lesion stays at all three. From a chain that is below the minimum at each of
        its visits it is removed, unless a change within the noise would be left.

    Returns
    -------
    A lesion is new or resolved only where its volume changes by more than the noise bound.

    Raises
    ------
    DataError : more lesions than can be numbered.
    """
    volume = grid.voxel_volume
    levels = np.broadcast_to(np.asarray(threshold, float), len(probabilities))
    relevant = np.zeros(probabilities.shape[1:], bool)
    for probability, level in zip(probabilities, levels, strict=True):
        relevant |= probability >= level / FLOOR
    relevant &= grid.data > 0
    odds = np.full(probabilities.shape, -hysteresis.cap, np.float32)
    for row, probability, level in zip(odds, probabilities, levels, strict=True):
        row[relevant] = log_odds(probability[relevant], float(level), hysteresis.cap)
    masks = np.zeros(probabilities.shape, bool)
    masks[:, relevant] = decide(odds[:, relevant], evidence[:, relevant], hysteresis)
    sizes = {'voxel_volume': volume, 'minimum_volume': minimum_volume}
    numbers = number_lesions(masks, **sizes)
    _without_noise(masks, numbers, odds, noise, volume)
    numbers = number_lesions(masks, **sizes)
    _without_noise(masks, numbers, odds, noise, volume)  # of lesions that are divided otherwise
    _without_specks(masks, numbers, noise, volume, minimum_volume)
    numbers = by_size(numbers, masks)
    if numbers.max() > MAX_LESIONS:
        raise DataError(
            f'{numbers.max()} lesions were found, more than can be numbered',
            advice='Look at the input images, or raise --threshold or --min-lesion-volume.',
        )
    instances = np.where(masks, numbers, 0).astype(np.uint16)
    return JointLesions(instances, tracked(instances, numbers, probabilities, grid, noise))


def _without_specks(
    masks: np.ndarray,
    numbers: np.ndarray,
    noise: NoiseBound,
    voxel_volume: float,
    minimum_volume: float,
) -> None:
    """Remove a lesion from the visits at which it is hardly there, in place.

    There it is below the minimum volume, or below a tenth of its largest volume and within the
    noise of a lesion of this size. Visits that differ within the noise, each from the next, share
    one decision: the lesion stays at all of them if it stays at one. So a lesion that goes from
    just below the minimum to just above it is not new; with a minimum of 10 mm^3, one of 4, 8
    and 12 mm^3 stays at all three visits.
    """
    count = int(numbers.max()) + 1
    volumes = np.stack([np.bincount(numbers[m], minlength=count) for m in masks]) * voxel_volume
    most = volumes.max(axis=0)
    bounds = np.array(
        [[noise.of((v + m) / 2) for v, m in zip(row, most, strict=True)] for row in volumes]
    )
    small = volumes < minimum_volume - 1e-6
    small |= (volumes < FAINT * most) & (volumes <= bounds)
    kept = np.ones(volumes.shape, bool)
    for number in np.flatnonzero((small & (volumes > 0)).any(axis=0)):
        kept[:, number] = _kept_visits(volumes[:, number].tolist(), small[:, number], noise)
    for mask, own in zip(masks, kept, strict=True):
        mask &= own[numbers]


def _kept_visits(volumes: Sequence[float], small: np.ndarray, noise: NoiseBound) -> np.ndarray:
    """The visits at which a lesion stays, bool (V,).

    Visits that differ within the noise, one from the next, share one decision.

    Parameters
    ----------
    volumes : mm^3 at each visit; no step from or to 0 is within the noise.
    small : (V,), where the lesion is hardly there.
    """
    steps = list(pairwise(volumes))
    apart = [abs(b - a) > noise.of((a + b) / 2) for a, b in steps]
    run = np.cumsum([0, *apart])
    kept = np.array([not small[run == one].all() for one in run])
    while True:
        # a removal is taken back where what stays beside it is within the noise of nothing
        for place, (a, b) in enumerate(steps):
            stays = a if kept[place] else b
            if kept[place] != kept[place + 1] and 0 < stays <= noise.of(stays / 2):
                kept[(run == run[place]) | (run == run[place + 1])] = True
                break
        else:
            return kept


def _without_noise(
    masks: np.ndarray,
    numbers: np.ndarray,
    odds: np.ndarray,
    noise: NoiseBound,
    voxel_volume: float,
) -> None:
    """Take back that a lesion appears or disappears within the noise, in place.

    The visits before and after then share one decision, by the sum of their log odds.
    """
    for index, box in enumerate(ndimage.find_objects(numbers), start=1):
        inside = numbers[box] == index
        parts = masks[(slice(None), *box)]
        own = parts[:, inside]
        runs = [[visit] for visit in range(len(masks))]
        while (place := _small_step(own, runs, noise, voxel_volume)) is not None:
            runs[place : place + 2] = [runs[place] + runs[place + 1]]
            together = odds[(runs[place], *box)][:, inside].sum(axis=0) > 0
            own[runs[place]] = together
        parts[:, inside] = own


def _small_step(
    own: np.ndarray, runs: Sequence[Sequence[int]], noise: NoiseBound, voxel_volume: float
) -> int | None:
    """The first run after which a lesion appears or disappears within the noise."""
    volumes = [float(own[run[0]].sum()) * voxel_volume for run in runs]
    for place, (a, b) in enumerate(zip(volumes, volumes[1:], strict=False)):
        if (a == 0) != (b == 0) and abs(b - a) <= noise.of((a + b) / 2):
            return place
    return None


def methods(thresholds: Sequence[float]) -> str:
    """The methods sentence; thresholds by visit."""
    named = ' and '.join(f'{value:g}' for value in sorted(set(thresholds)))
    of_each = ', depending on the contrasts of the visit' if len(set(thresholds)) > 1 else ''
    return (
        'Lesions of all visits were segmented together: at each voxel the sequence of lesion and '
        'no lesion was chosen that has the largest sum of log odds of the lesion probabilities '
        f'(against {named}{of_each}), less a price for each change that the difference of the '
        'intensity-matched images lowers. A lesion counts as new, enlarging, shrinking or '
        'resolved only if its volume changes by more than the noise of simulated rescans of an '
        'unchanged brain.'
    )
