"""What became of each lesion from visit to visit: new, enlarging, shrinking, resolved, stable.

A lesion counts as changed only if its volume differs beyond the noise of rescans of an unchanged
brain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ssl2_bids.steps.lesions import NEIGHBOURS
from ssl2_bids.volume import Volume

STATES = ('new', 'enlarging', 'shrinking', 'resolved', 'stable')


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
