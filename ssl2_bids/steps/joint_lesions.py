"""Lesions of several visits, decided together: masks, identities over time, changes.

A visit's own decision is noisy at the border of the threshold. Here a voxel may differ between
visits only where the evidence of the visits against one another, and the difference of their
images, outweigh the price of a change (hysteresis in time); a lesion counts as changed only if
its volume differs beyond the noise of rescans of an unchanged brain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ssl2_bids.errors import DataError
from ssl2_bids.steps.lesions import MAX_LESIONS, NEIGHBOURS
from ssl2_bids.volume import Volume

STATES = ('new', 'enlarging', 'shrinking', 'resolved', 'stable')
PART = 0.05  # of the largest component of relatives: what is smaller is no part to be followed
FAINT = 0.1  # of a lesion's largest volume: what is smaller, and within the noise, is none
FLOOR = 20.0  # a voxel below a twentieth of the threshold at every visit is no lesion


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


@dataclass(frozen=True)
class NoiseBound:
    """Change of a lesion's volume that two scans of the same brain show, mm^3.

    ``base * max(1, voxel) + factor * volume ** exponent``, of the mean volume of the two visits.
    Chosen on simulated rescans: benchmarks/longitudinal.py --noise.

    Attributes
    ----------
    voxel : volume of a voxel of the coarser reference, mm^3: a change is one of whole voxels.
    """

    base: float = 5.0
    factor: float = 0.2
    exponent: float = 0.7
    voxel: float = 1.0

    def of(self, volume: float) -> float:
        """The bound for a lesion of a volume in mm^3."""
        return self.base * max(self.voxel, 1.0) + self.factor * max(volume, 0.0) ** self.exponent


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


def number_lesions(masks: np.ndarray, *, voxel_volume: float, minimum_volume: float) -> np.ndarray:
    """Give each lesion one number over all visits, through splits and merges.

    Components of the visits (26 neighbours) that share a voxel are relatives. Relatives are
    followed as the parts they have at the visit where they are most: lesions that merge stay the
    lesions that they were, and one that splits is followed as what it becomes. A component below
    a twentieth of the largest relative is no such part. Other voxels of the relatives belong to
    the nearest part. Backwards in time the result is the same.

    Parameters
    ----------
    masks : bool (V, I, J, K).
    voxel_volume, minimum_volume : mm^3; what is smaller at every visit is removed.

    Returns
    -------
    int32 (I, J, K): the voxels of each lesion at any visit, 1..n by descending volume; 0 where
    there is none at any visit.
    """
    labels = [ndimage.label(mask, structure=NEIGHBOURS)[0] for mask in masks]
    first = np.concatenate([[0], np.cumsum([label.max() for label in labels])])
    for visit, label in enumerate(labels):
        label[label > 0] += int(first[visit])
    total = int(first[-1])
    if total == 0:
        return np.zeros(masks.shape[1:], np.int32)
    sizes = np.sum([np.bincount(x.ravel(), minlength=total + 1) for x in labels], axis=0)
    large = sizes * voxel_volume >= minimum_volume - 1e-6
    visit_of = np.concatenate([[-1], np.repeat(np.arange(len(labels)), np.diff(first))])
    family = _families(labels, total)
    largest = np.zeros(int(family.max()) + 1)
    np.maximum.at(largest, family[1:], sizes[1:])
    large &= sizes >= PART * largest[family]
    seed = _seeds(family, visit_of, large)
    families, seeds = np.zeros((2, *masks.shape[1:]), np.int32)
    for label in labels:
        families = np.maximum(families, family[label])
        seeds = np.maximum(seeds, seed[label])
    kept = np.unique(family[seed > 0])
    families[~np.isin(families, kept)] = 0
    return _by_size(_spread(seeds, families), masks)


def _families(labels: Sequence[np.ndarray], total: int) -> np.ndarray:
    """For each component its family, from 1: components that share voxels, directly or not."""
    pairs = [
        np.unique(np.stack([a[(a > 0) & (b > 0)], b[(a > 0) & (b > 0)]]), axis=1)
        for a, b in combinations(labels, 2)
    ]
    ends = np.hstack([*pairs, np.zeros((2, 0), np.int32)]).astype(int)
    graph = coo_array((np.ones(ends.shape[1]), (ends[0], ends[1])), shape=(total + 1,) * 2)
    _, family = connected_components(graph, directed=False)
    result = family.astype(np.int32) + 1
    result[0] = 0
    return result


def _seeds(family: np.ndarray, visit_of: np.ndarray, large: np.ndarray) -> np.ndarray:
    """A number from 1 for each component that a lesion is followed as; 0 for all others."""
    seed = np.zeros(len(family), np.int32)
    number = 1
    order = np.flatnonzero(large & (visit_of >= 0))
    members: dict[int, list[int]] = {}
    for component in order.tolist():
        members.setdefault(int(family[component]), []).append(component)
    for components in members.values():
        visits = [int(visit_of[c]) for c in components]
        chosen = max(sorted(set(visits)), key=visits.count)
        for component, visit in zip(components, visits, strict=True):
            if visit == chosen:
                seed[component] = number
                number += 1
    return seed


def _spread(seeds: np.ndarray, families: np.ndarray) -> np.ndarray:
    """Give all voxels of a family to the nearest seed of this family."""
    found = np.zeros_like(seeds)
    for number, box in enumerate(ndimage.find_objects(families), start=1):
        if box is None:
            continue
        inside = families[box] == number
        own = np.where(inside, seeds[box], 0)
        nearest = ndimage.distance_transform_edt(
            own == 0, return_distances=False, return_indices=True
        )
        found[box][inside] = own[tuple(nearest)][inside]
    return found


def _by_size(numbers: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The same lesions, numbered by descending volume at their largest visit."""
    count = int(numbers.max())
    sizes = np.max([np.bincount(numbers[mask], minlength=count + 1) for mask in masks], axis=0)
    order = np.argsort(-sizes[1:], kind='stable') + 1
    renumbered = np.zeros(count + 1, np.int32)
    renumbered[order] = np.arange(1, count + 1)
    return renumbered[numbers]


@dataclass(frozen=True)
class TrackedLesion:
    """One lesion over all visits.

    Attributes
    ----------
    index : its value in the instance maps of all visits.
    volumes : mm^3 at each visit; 0 where it is absent.
    parts : into how many pieces it falls at each visit.
    states : from each visit to the next, one of ``STATES``; None where it is at neither.
    bounds : mm^3, from each visit to the next: what two scans of an unchanged brain differ.
    centre : (3,), RAS+ mm, of its voxels at any visit.
    probability : mean over its voxels at the visits where it is.
    """

    index: int
    volumes: tuple[float, ...]
    parts: tuple[int, ...]
    states: tuple[str | None, ...]
    bounds: tuple[float, ...]
    centre: tuple[float, float, float]
    probability: float

    @property
    def changes(self) -> tuple[float, ...]:
        """mm^3 from each visit to the next."""
        return tuple(b - a for a, b in zip(self.volumes, self.volumes[1:], strict=False))


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
    threshold: float,
    minimum_volume: float,
    hysteresis: Hysteresis = Hysteresis(),
    noise: NoiseBound = NoiseBound(),
) -> JointLesions:
    """Decide on the lesions of all visits together.

    Parameters
    ----------
    probabilities : (V, I, J, K), 0 to 1, on one grid.
    evidence : (V - 1, I, J, K), see ``visit_matching.change_evidence``.
    grid : the brain on that grid, above 0 is inside; nothing outside it is a lesion.
    threshold : of a visit alone.
    minimum_volume : mm^3; what is smaller at a visit is no lesion there.

    Raises
    ------
    DataError : more lesions than can be numbered.
    """
    volume = grid.voxel_volume
    relevant = (grid.data > 0) & (probabilities.max(axis=0) >= threshold / FLOOR)
    odds = np.full(probabilities.shape, -hysteresis.cap, np.float32)
    odds[:, relevant] = log_odds(probabilities[:, relevant], threshold, hysteresis.cap)
    masks = np.zeros(probabilities.shape, bool)
    masks[:, relevant] = decide(odds[:, relevant], evidence[:, relevant], hysteresis)
    sizes = {'voxel_volume': volume, 'minimum_volume': minimum_volume}
    numbers = number_lesions(masks, **sizes)
    _without_noise(masks, numbers, odds, noise, volume)
    numbers = number_lesions(masks, **sizes)
    _without_specks(masks, numbers, noise, volume, minimum_volume)
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
    noise of a lesion of this size.
    """
    count = int(numbers.max()) + 1
    volumes = np.stack([np.bincount(numbers[m], minlength=count) for m in masks]) * voxel_volume
    most = volumes.max(axis=0)
    bounds = np.array(
        [[noise.of((v + m) / 2) for v, m in zip(row, most, strict=True)] for row in volumes]
    )
    kept = volumes >= minimum_volume - 1e-6
    kept &= (volumes >= FAINT * most) | (volumes > bounds)
    for mask, own in zip(masks, kept, strict=True):
        mask &= own[numbers]


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


def state_of(before: float, after: float, bound: float) -> str | None:
    """The state of a lesion from its volumes at two visits; all in mm^3."""
    if before == 0 and after == 0:
        return None
    if before == 0 or after == 0:
        return 'new' if before == 0 else 'resolved'
    if abs(after - before) <= bound:
        return 'stable'
    return 'enlarging' if after > before else 'shrinking'


def tracked(
    instances: np.ndarray,
    numbers: np.ndarray,
    probabilities: np.ndarray,
    grid: Volume,
    noise: NoiseBound,
) -> tuple[TrackedLesion, ...]:
    """Volumes and states of lesions.

    Parameters
    ----------
    instances : (V, I, J, K), one number for a lesion at all visits.
    numbers : (I, J, K), see :func:`number_lesions`.
    probabilities : (V, I, J, K).
    grid : of the volumes.
    """
    found = []
    for index, box in enumerate(ndimage.find_objects(numbers), start=1):
        own = instances[(slice(None), *box)] == index
        volumes = tuple(float(n) * grid.voxel_volume for n in own.sum(axis=(1, 2, 3)))
        pairs = list(zip(volumes, volumes[1:], strict=False))
        bounds = tuple(noise.of((a + b) / 2) for a, b in pairs)
        corner = [part.start for part in box]
        middle = np.argwhere(own.any(axis=0)).mean(axis=0) + corner
        x, y, z = (float(v) for v in (grid.affine @ [*middle, 1.0])[:3])
        found.append(
            TrackedLesion(
                index=index,
                volumes=volumes,
                parts=tuple(int(ndimage.label(one, NEIGHBOURS)[1]) for one in own),
                states=tuple(
                    state_of(a, b, bound) for (a, b), bound in zip(pairs, bounds, strict=True)
                ),
                bounds=bounds,
                centre=(x, y, z),
                probability=float(probabilities[(slice(None), *box)][own].mean()),
            )
        )
    return tuple(found)


def change_map(
    before: np.ndarray, after: np.ndarray, lesions: Sequence[TrackedLesion], gap: int
) -> np.ndarray:
    """Where lesions are at one visit or the next, by their state.

    Parameters
    ----------
    before, after : instance maps of the two visits.
    gap : the place of the earlier one.

    Returns
    -------
    uint8: place in ``STATES``, from 1; 0 elsewhere.
    """
    values = np.zeros(max([0, *(one.index for one in lesions)]) + 1, np.uint8)
    for one in lesions:
        state = one.states[gap]
        values[one.index] = STATES.index(state) + 1 if state else 0
    return values[np.maximum(before, after)]


def methods(threshold: float) -> str:
    """The methods sentence."""
    return (
        'Lesions of all visits were segmented together: at each voxel the sequence of lesion and '
        'no lesion was chosen that has the largest sum of log odds of the lesion probabilities '
        f'(against {threshold:g}), less a price for each change that the difference of the '
        'intensity-matched images lowers. A lesion counts as new, enlarging, shrinking or '
        'resolved only if its volume changes by more than the noise of simulated rescans of an '
        'unchanged brain.'
    )
