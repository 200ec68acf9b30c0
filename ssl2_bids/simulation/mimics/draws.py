"""How strong what resembles lesions is in one healthy brain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssl2_bids.simulation.smooth import draw_seed

TRACTS = ('corticospinal', 'optic_radiation', 'splenium', 'cingulum')
POOLS = ('monro', 'third', 'fourth', 'prepontine', 'suprasellar', 'ambient')


@dataclass(frozen=True)
class MimicDraw:
    """Strengths of what resembles lesions; ``dataclasses.asdict`` makes it JSON.

    An amount is the share of the tissue that looks like a faint lesion (0.1 raises FLAIR by about
    5 to 10 %), 0 for none.

    Attributes
    ----------
    frontal_caps, occipital_caps : amount on the left and on the right, where the horns end.
    band, ependyma : amount along the lateral ventricles, and in the layer that lines all of them.
    reach : mm over which bands and caps fade.
    tracts : amount in each of ``TRACTS``.
    dirty : amount in patches of deep white matter, without borders.
    limbic, insula, cortex : amount in limbic grey matter, in the insula, and its smooth variation
        over the cortex.
    septum : share of the septum pellucidum's voxels that is tissue, where the ventricles meet.
    plexus : share of the plexus' voxels, in heads whose plexus is not known.
    pools : share of the fluid's signal that escapes the inversion, in each of ``POOLS``.
    null : the same in all fluid.
    spaces, veins, specks : how many perivascular spaces, veins of white matter, and spots like
        those of ageing.
    damage, t2_factor : of what is altered, as of a lesion.
    seed : of places and shapes.
    """

    frontal_caps: tuple[float, float]
    occipital_caps: tuple[float, float]
    band: float
    ependyma: float
    reach: float
    tracts: dict[str, float]
    dirty: float
    limbic: float
    insula: float
    cortex: float
    septum: float
    plexus: float
    pools: dict[str, float]
    null: float
    spaces: int
    veins: int
    specks: int
    damage: float
    t2_factor: float
    seed: int


def draw_mimics(random: np.random.Generator) -> MimicDraw:
    """Draw a healthy brain's variation.

    How often: frontal caps in 90 %, occipital ones in 77 % of healthy people of 16 to 55 years,
    often asymmetric, and the line around the ventricles and the corticospinal tract in all
    (Neuroradiology 1997;39:243, doi 10.1007/s002340050402). How strong is assumed.
    """

    def amount(low: float, high: float, often: float = 1.0) -> float:
        drawn = float(random.uniform(low, high))
        return drawn if random.random() < often else 0.0

    def sides(low: float, high: float, often: float) -> tuple[float, float]:
        both = amount(low, high, often)
        # Slightly more than half of all people have one side brighter.
        tilt = float(random.uniform(-0.6, 0.6)) if random.random() < 0.54 else 0.0
        return both * (1 + tilt), both * (1 - tilt)

    return MimicDraw(
        frontal_caps=sides(0.08, 0.45, 0.9),
        occipital_caps=sides(0.06, 0.40, 0.77),
        band=amount(0.02, 0.25, 0.8),
        ependyma=amount(0.1, 0.5),
        reach=amount(0.8, 2.2),
        tracts={
            name: amount(*span, often)
            for name, span, often in zip(
                TRACTS,
                ((0.06, 0.28), (0.04, 0.18), (0.03, 0.15), (0.03, 0.15)),
                (1.0, 0.8, 0.5, 0.5),
                strict=True,
            )
        },
        dirty=amount(0.08, 0.22, 0.2),
        limbic=amount(0.0, 0.35),
        insula=amount(0.0, 0.35),
        cortex=amount(0.03, 0.2),
        septum=amount(0.2, 0.8, 0.8),
        plexus=amount(0.3, 0.9, 0.8),
        pools={name: amount(0.05, 0.45, 0.35) for name in POOLS},
        null=amount(0.0, 0.06),
        spaces=int(random.poisson(random.choice([6, 15, 40]))),
        veins=int(random.integers(10, 40)),
        specks=int(random.integers(0, 11)) if random.random() < 0.4 else 0,
        damage=float(random.uniform(0.15, 0.4)),
        t2_factor=float(random.uniform(1.5, 2.2)),
        seed=draw_seed(random),
    )
