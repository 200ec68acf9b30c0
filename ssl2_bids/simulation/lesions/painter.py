"""Lesions painted one after the other, each where there is room for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from ssl2_bids.simulation.anatomy.surroundings import Surroundings, place_of
from ssl2_bids.simulation.lesions import cortical
from ssl2_bids.simulation.lesions import real as real_lesions
from ssl2_bids.simulation.lesions.growth import (
    NEIGHBOURS,
    LesionPatch,
    PaintedLesion,
    as_point,
    grow,
    room_for,
)
from ssl2_bids.simulation.lesions.shapes import box_around, outward, radius_of, reach_of, shape
from ssl2_bids.simulation.lesions.statistics import (
    CONFLUENT,
    Statistics,
    draw_appearance,
    draw_form,
)
from ssl2_bids.simulation.smooth import draw_seed

MIN_VOLUME = 1.0  # mm^3
CENTRES = 12  # tried for one lesion before its volume is halved
MAX_LOAD_SHARE = 0.45  # the largest share of the load in one lesion


class Painter:
    """Adds lesions to a brain one after the other; remembers where there is no more room."""

    def __init__(
        self,
        around: Surroundings,
        random: np.random.Generator,
        statistics: Statistics,
        shapes: real_lesions.LesionShapes | None,
        *,
        patches: tuple[LesionPatch, ...] = (),
    ):
        self.around = around
        self.random = random
        self.statistics = statistics
        self.shapes = shapes
        self.patches: list[LesionPatch] = []
        self.blocked = np.zeros(around.shape, bool)
        self.filled = np.zeros(around.shape, bool)
        self.places = self._draw_places()
        self.veins = random.uniform(0.3, 0.6)
        share, _, _, spread = statistics.confluent
        self.large = share * np.exp(spread * random.standard_normal())
        for patch in patches:
            self.keep(patch)

    def _draw_places(self) -> dict[str, float]:
        shares = {
            name: float(self.random.uniform(*getattr(self.statistics, name)))
            for name in ('infratentorial', 'deep_grey', 'cortical')
        }
        rest = 1 - sum(shares.values())
        shares |= {name: rest * share for name, share in self.statistics.shares.items()}
        return {n: s for n, s in shares.items() if n in self.around.candidates and s > 0}

    def draw_sizes(self, load: float) -> list[tuple[float, str]]:
        """Volumes in mm^3 and places until the load (mm^3) is reached, the largest first."""
        sizes: list[tuple[float, str]] = []
        left = load
        while left > 0:
            volume, place = self.draw_size(load)
            sizes.append((min(volume, left), place))
            left -= volume
        return sorted(sizes, reverse=True)

    def draw_size(self, load: float) -> tuple[float, str]:
        """A volume in mm^3, at most a part of the load, and a place."""
        _, median, spread, _ = self.statistics.confluent
        # A small load is made of small lesions, not of a part of a large one.
        most = max(MAX_LOAD_SHARE * load * load / (load + 3000), 20.0)
        if self.random.random() < self.large and 'periventricular' in self.places:
            place, volume = 'periventricular', self.random.lognormal(np.log(median), spread)
        else:
            names = sorted(self.places)
            weights = np.array([self.places[name] for name in names])
            place = str(self.random.choice(names, p=weights / weights.sum()))
            median, spread = self.statistics.sizes[place]
            volume = self.random.lognormal(np.log(median * self.statistics.scale), spread)
        return float(np.clip(volume, MIN_VOLUME, most)), place

    def add(self, volume: float, place: str) -> LesionPatch | None:
        """Paint a lesion of a volume in mm^3 in a place, or give None if there is no room."""
        for _ in range(CENTRES):
            patch = self._try(volume, place)
            if patch is not None:
                self.keep(patch)
                return patch
        return None

    def keep(self, patch: LesionPatch) -> None:
        """Take the room of a patch."""
        self.patches.append(patch)
        wider = tuple(
            slice(max(b.start - 1, 0), min(b.stop + 1, n))
            for b, n in zip(patch.box, self.around.shape, strict=True)
        )
        self.filled[patch.box] |= patch.truth
        grown = ndimage.binary_dilation(self.filled[wider], NEIGHBOURS)
        self.blocked[wider] |= grown

    def _try(self, volume: float, place: str) -> LesionPatch | None:
        if place == 'cortical':
            lesion = cortical.draw(self.around, volume, self.random)
        else:
            lesion = self._draw_real(volume) or self._draw(volume, place)
        return self.regrow(lesion)

    def regrow(self, lesion: PaintedLesion) -> LesionPatch | None:
        """Paint what was drawn; None if there is no room. Equal draws give equal shapes."""
        lesion = replace(lesion, index=len(self.patches) + 1)
        # Large lesions run into their neighbours; small ones keep a gap.
        taken = self.filled if lesion.volume_wanted > CONFLUENT else self.blocked
        if self.shapes is not None and lesion.origin is not None:
            patch = real_lesions.transplant(self.shapes, lesion, lesion.origin, self.around, taken)
            return self._settled(patch)
        centre = np.array(lesion.centre)
        reach = reach_of(lesion.form, lesion.volume_wanted)
        box = box_around(self.around, centre, reach)
        room = room_for(lesion, box, self.around, taken)
        if room.sum() * np.prod(self.around.spacing) < lesion.volume_wanted:
            return None
        random = np.random.default_rng(lesion.seed)
        draw = cortical.shape if lesion.form in cortical.FORMS else shape
        outline = draw(lesion.form, lesion.volume_wanted, centre, box, self.around, random)
        return self._settled(grow(lesion, outline, box, room, self.around))

    def _settled(self, patch: LesionPatch | None) -> LesionPatch | None:
        """The patch with the place where it came to lie."""
        if patch is None:
            return None
        where = np.nonzero(patch.truth)
        where = tuple(w + b.start for w, b in zip(where, patch.box, strict=True))
        cortex = patch.lesion.form in cortical.FORMS
        place = place_of(self.around, where, cortical=cortex)
        return replace(patch, lesion=replace(patch.lesion, place=place))

    def _draw(self, volume: float, place: str) -> PaintedLesion:
        around, random = self.around, self.random
        chosen = random.choice(around.candidates[place])
        index = np.array(np.unravel_index(chosen, around.shape))
        centre = around.point(index)
        form = draw_form(volume, place, random)
        if form == 'finger':
            centre = moved_out(centre, volume, around)
        return PaintedLesion(
            index=0,
            place=place,
            kind='deep_grey' if place == 'deep_grey' else 'white',
            form=form,
            centre=as_point(centre),
            volume_wanted=float(volume),
            volume_mm3=0.0,
            seed=draw_seed(random),
            appearance=draw_appearance(volume, place, random, veins=self.veins),
        )

    def _draw_real(self, volume: float) -> PaintedLesion | None:
        if self.shapes is None or self.random.random() >= self.statistics.real:
            return None
        look = draw_appearance(volume, 'deep', self.random, veins=self.veins)
        return real_lesions.draw(self.shapes, volume, look, self.around, self.random)


def moved_out(centre: np.ndarray, volume: float, around: Surroundings) -> np.ndarray:
    """A centre such that a finger of this volume stands on the ventricle; in the tissue still."""
    axis = outward(around.to_ventricle, around, centre)
    near = around.to_ventricle[tuple(around.voxel(centre))]
    moved = centre + axis * max(1.2 * radius_of(volume) - near, 0)
    inside = around.susceptible['white'][tuple(around.voxel(moved))] > 0.8
    return moved if inside else centre
