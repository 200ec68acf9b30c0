"""Lesions of the cortex: leukocortical, intracortical and subpial, of low contrast."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ssl2_bids.simulation.anatomy.surroundings import Surroundings
from ssl2_bids.simulation.lesions.growth import LesionAppearance, PaintedLesion, as_point
from ssl2_bids.simulation.lesions.shapes import (
    axes_of,
    from_centre,
    noise,
    radius_of,
    roughen,
    union,
)
from ssl2_bids.simulation.smooth import draw_seed

FORMS = ('leukocortical', 'intracortical', 'subpial')
# Of 720 lesions seen at 7 T in 20 patients 273 were subpial; the others here in equal parts.
FORM_SHARES = (0.31, 0.31, 0.38)
STRENGTH = (0.35, 0.65)  # share of the cortex in a lesion that is diseased: faint
DAMAGE = (0.4, 0.58)  # against white matter; cortex itself has 0.37
T2_FACTOR = (1.5, 2.2)


def draw(around: Surroundings, volume: float, random: np.random.Generator) -> PaintedLesion:
    """Draw a cortical lesion of about ``volume`` mm^3."""
    form = str(random.choice(FORMS, p=FORM_SHARES))
    if form == 'subpial':
        volume *= 2.0  # they spread along the surface
    candidates = around.candidates['cortical']
    centre = around.point(np.array(np.unravel_index(random.choice(candidates), around.shape)))
    damage, factor, strength, edge = random.uniform(
        (DAMAGE[0], T2_FACTOR[0], STRENGTH[0], 0.5), (DAMAGE[1], T2_FACTOR[1], STRENGTH[1], 1.2)
    )
    return PaintedLesion(
        index=0,
        place='cortical',
        kind='leukocortical' if form == 'leukocortical' else 'cortical',
        form=form,
        centre=as_point(centre),
        volume_wanted=float(volume),
        volume_mm3=0.0,
        seed=draw_seed(random),
        appearance=LesionAppearance(
            damage=float(damage),
            t2_factor=float(factor),
            edge=float(edge),
            halo=0.1,
            reach=1.0,
            texture=0.05,
            strength=float(strength),
        ),
    )


def shape(
    form: str,
    volume: float,
    centre: np.ndarray,
    box: tuple[slice, ...],
    around: Surroundings,
    random: np.random.Generator,
) -> np.ndarray:
    """The shape of a cortical lesion; as :func:`shapes.shape`.

    Parameters
    ----------
    form : ``leukocortical`` on the border to white matter; ``intracortical`` between the borders;
        ``subpial`` a band along the outer surface.
    """
    at = axes_of(around, box, centre)
    size = radius_of(volume)
    grey = around.susceptible['cortical'][box]
    if form == 'intracortical':
        return union(at, size, random, volume=volume)
    both = around.susceptible['leukocortical'][box]
    # Leukocortical lesions straddle the inner border; subpial ones cling to the outer one.
    border = np.abs(grey - 0.5 * both) > 0.3 * both if form == 'leukocortical' else both >= 0.5
    field = ndimage.distance_transform_edt(border, sampling=around.spacing).astype(np.float32)
    cling = 0.8 if form == 'leukocortical' else random.uniform(1.5, 3.0)
    outline = np.sqrt((cling * field) ** 2 + from_centre(at) ** 2)
    if form == 'subpial':
        return outline + 0.15 * size * noise(at, random, scale=4.0)
    return roughen(outline - size, at, size, random)
