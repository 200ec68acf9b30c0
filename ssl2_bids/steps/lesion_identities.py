"""One number for a lesion at all visits, through splits and merges."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ssl2_bids.steps.lesions import NEIGHBOURS

PART = 0.05  # of the largest component of relatives: what is smaller is no part to be followed


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
    return by_size(_spread(seeds, families), masks)


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


def by_size(numbers: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The same lesions, numbered by descending volume at their largest visit.

    Parameters
    ----------
    numbers : integers (I, J, K), 0 outside lesions.
    masks : bool (V, I, J, K).

    Returns
    -------
    int32 (I, J, K), 1..n; 0 also for a lesion that no mask has a voxel of.
    """
    count = int(numbers.max())
    sizes = np.max([np.bincount(numbers[mask], minlength=count + 1) for mask in masks], axis=0)
    order = np.argsort(-sizes[1:], kind='stable') + 1
    renumbered = np.zeros(count + 1, np.int32)
    renumbered[order] = np.arange(1, count + 1)
    renumbered[sizes == 0] = 0
    return renumbered[numbers]
