"""What is known of the lesions of patients: sizes, places, looks; drawing from it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import special

from ssl2_bids.simulation.lesions.growth import LesionAppearance
from ssl2_bids.simulation.lesions.shapes import radius_of

CONFLUENT = 500.0  # mm^3; larger ones cling to the ventricles and run into one another
DAMAGE = (0.12, 0.55)
T2_FACTOR = (1.25, 3.0)


@dataclass(frozen=True)
class Statistics:
    """Sizes and places of the lesions of a patient.

    Attributes
    ----------
    sizes : median in mm^3 and spread of the logarithm of the volumes, by place.
    shares : of the number of lesions of the cerebral white matter, by place.
    confluent : share of lesions that are large, their median and spread, and how much that share
        differs between patients (spread of its logarithm).
    infratentorial, deep_grey, cortical : ranges of the share of the number of lesions.
    scale : factor on all volumes but the confluent ones.
    real : share of lesions with shapes of real ones, where these are given.
    """

    # Measured by place (atlas of regions, 3 mm) in the consensus masks of 27 patients (Lesjak et
    # al. 2018, doi 10.1007/s12021-017-9348-7), rounded; deep grey and cortical ones are assumed.
    sizes: dict[str, tuple[float, float]] = field(
        default_factory=lambda: {
            'periventricular': (26.0, 1.65),
            'juxtacortical': (16.0, 1.35),
            'deep': (11.0, 1.4),
            'infratentorial': (24.0, 1.4),
            'deep_grey': (15.0, 1.2),
            'cortical': (12.0, 0.9),
        }
    )
    shares: dict[str, float] = field(
        default_factory=lambda: {'periventricular': 0.22, 'juxtacortical': 0.42, 'deep': 0.36}
    )
    confluent: tuple[float, float, float, float] = (0.05, 1200.0, 1.4, 0.6)
    infratentorial: tuple[float, float] = (0.05, 0.10)
    deep_grey: tuple[float, float] = (0.02, 0.05)
    cortical: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    real: float = 0.5


def statistics_for(field_strength: float) -> Statistics:
    """What can be seen at a field: at 7 T smaller lesions, and those of the cortex, too."""
    if field_strength < 5:
        return Statistics()
    return Statistics(cortical=(0.05, 0.15), scale=0.6)


def draw_form(volume: float, place: str, random: np.random.Generator) -> str:
    """Form of a procedural lesion of a volume in mm^3 in a place."""
    if volume < 4:
        return 'punctate'
    if place == 'periventricular':
        if volume > CONFLUENT:
            return 'confluent'
        return 'finger' if random.random() < 0.6 else 'ovoid'
    if place == 'juxtacortical':
        return 'band' if random.random() < 0.7 else 'ovoid'
    return 'ovoid'


def draw_appearance(
    volume: float, place: str, random: np.random.Generator, *, veins: float
) -> LesionAppearance:
    """What a lesion of a volume in mm^3 does to its tissue.

    Damage and T2 are correlated (0.7). In grey matter only the heavier damage shows.

    Parameters
    ----------
    veins : probability of a central vein in lesions above 50 mm^3.
    """
    first, second = random.standard_normal(2)
    second = 0.7 * first + np.sqrt(1 - 0.7**2) * second
    low, high = (0.35, 0.55) if place == 'deep_grey' else DAMAGE
    damage = low + (high - low) * special.ndtr(first)
    t2_factor = T2_FACTOR[0] + (T2_FACTOR[1] - T2_FACTOR[0]) * special.ndtr(second)
    reach = 1 + 4 * random.beta(1, 2.5)
    hole, ring, line = random.random(3)
    edge, halo, texture = random.uniform((0.5, 0.1, 0.05), (2.0, 0.4, 0.15))
    return LesionAppearance(
        damage=float(damage),
        t2_factor=float(t2_factor),
        edge=float(edge),
        halo=float(halo),
        reach=float(min(reach, 1 + 1.2 * radius_of(volume))),
        core=float(random.uniform(0.5, 0.62)) if volume > 50 and hole < 0.2 else 0.0,
        rim=float(random.uniform(0.6, 0.9)) if volume > 30 and ring < 0.1 else 0.0,
        vein=float(random.uniform(0.3, 0.5)) if volume > 50 and line < veins else 0.0,
        texture=float(texture * (1.2 if volume > CONFLUENT else 1.0)),
    )
