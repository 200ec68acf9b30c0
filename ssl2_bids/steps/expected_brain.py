"""Where an image itself shows the brain: the template fitted to its intensities, without a mask.

A registration of the mask rescales a wrong one. Here a mask gives no more than the point where the
search begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import permutations, product

import numpy as np
from scipy import ndimage

from ssl2_bids.atlas import read_atlas
from ssl2_bids.steps import registration
from ssl2_bids.steps.image_pair import (
    ImagePair,
    RegistrationStage,
    checked_mask,
    clip_brightest,
    cubic,
)
from ssl2_bids.steps.similarity import compare
from ssl2_bids.steps.template import template
from ssl2_bids.volume import Volume, resample
from ssl2_bids.voxel_grid import Grid

STAGE = RegistrationStage(4.0, 15_000, 4.0)
SEARCH = replace(STAGE, points=5_000)  # to compare starts
SCALE = 0.9  # a brain over MNI152, along an axis: the cube root of 0.6 to 0.8
OFFSET = 24.0  # mm between starts: a mask of one hemisphere has its centre 30 mm off
FOLLOWED = 3  # starts that are followed up
STEP = 2  # mm of the template's copy on which a mask is compared
CORE = 4.0  # mm below the template's surface: what lies deeper is brain in every head
LOCAL = 20.0  # mm of the local mean
TISSUE = 0.2  # of the brightest; above is no air
BRIGHT = 2.5  # times the local mean; where it is clipped
# 0.06 to 0.1 in T1w, UNIT1 and FLAIR; a fit below is chance, as in T2w of 7T (0.02)
MIN_SCORE = 0.03
THIN = 2  # voxels of 4 mm between the points at which starts are compared


@dataclass(frozen=True)
class ExpectedBrain:
    """Where an image shows the brain, by an affine fit of the template.

    Attributes
    ----------
    matrix : (4, 4), RAS+ mm of the template to RAS+ mm of the image.
    score : similarity of template and image; ``turned``: with the best exchange of axes.
    seen : share of each voxel of the template's copy that lies in the field of view.
    contrast : BIDS suffix of the image; empty where it is unknown.
    """

    matrix: np.ndarray
    score: float
    turned: float
    seen: np.ndarray
    contrast: str = ''

    @property
    def scale(self) -> float:
        """Mean stretch from template to image."""
        return float(np.abs(np.linalg.det(self.matrix[:3, :3])) ** (1 / 3))

    def moved(self, way: np.ndarray, grid: Grid) -> ExpectedBrain:
        """The same in another image of the head.

        Parameters
        ----------
        way : (4, 4), RAS+ mm of this image to RAS+ mm of the other, whose ``grid`` it is.
        """
        matrix = way @ self.matrix
        seen = inside_grid(grid, template_parts().grid, matrix)
        return replace(self, matrix=matrix, seen=seen)

    @property
    def is_reliable(self) -> bool:
        """Whether template and image are similar at all."""
        return max(self.score, self.turned) >= MIN_SCORE

    @property
    def missing(self) -> float:
        """Share of the brain beyond the field of view."""
        return float(1 - self.seen[template_parts().brain].mean())


@dataclass(frozen=True)
class TemplateParts:
    """The brain of the template on a grid of 2 mm, and its parts, all (I, J, K).

    Attributes
    ----------
    above : mm above the brain's surface, negative below it.
    x : mm to the right of the mid-plane.
    parts : bool, by name.
    """

    grid: Volume
    brain: np.ndarray
    above: np.ndarray
    x: np.ndarray
    parts: dict[str, np.ndarray]


@cache
def template_parts() -> TemplateParts:
    """The parts of the brain whose lack is looked for.

    Cerebellum: of the atlas. Temporal lobes: from 30 mm behind to 25 mm before the anterior
    commissure, 28 mm and more to the side, 12 to 40 mm below. Vertex: 50 mm and more above.
    """
    model = template()
    affine = model.affine @ np.diag([STEP, STEP, STEP, 1.0])
    grid = Volume(model.data[::STEP, ::STEP, ::STEP] > 0, affine)
    brain = grid.data
    above = ndimage.distance_transform_edt(~brain) - ndimage.distance_transform_edt(brain)
    axes = [affine[a, a] * np.arange(brain.shape[a]) + affine[a, 3] for a in range(3)]
    x, y, z = np.meshgrid(*axes, indexing='ij', sparse=True)
    cerebellum = resample(read_atlas()['cerebellum'], affine, grid.shape).data >= 0.5
    low = (z <= -12) & (z >= -40) & (y >= -30) & (y <= 25)
    parts = {
        'cerebellum': cerebellum,
        'left temporal lobe': low & (x <= -28),
        'right temporal lobe': low & (x >= 28),
        'vertex': z >= 50,
        'left hemisphere': x <= -4,
        'right hemisphere': x >= 4,
    }
    core = above * STEP <= -CORE
    whole = np.broadcast_to(x, brain.shape)
    return TemplateParts(
        grid, brain, above * STEP, whole, {name: part & core for name, part in parts.items()}
    )


def expect_brain(image: Volume, mask: Volume, *, seed: int = 0) -> ExpectedBrain:
    """Fit the template to the intensities of an image, upright and with exchanged axes.

    Parameters
    ----------
    image : any contrast, voxel axes near RAS+.
    mask : brain, the same grid; where the search begins, and where intensities are clipped.
    seed : of the choice of the points that are compared.

    Raises
    ------
    DataError : the mask is empty, or the image is constant within it.
    """
    inside = checked_mask(image, mask)
    pair = coarse_pair(image, inside)
    centre = registration.centre_of(inside)
    upright, _ = best_fit(pair, starts(pair, centre, [np.eye(3)]), seed=seed)
    upright = registration.optimise(pair, upright, stage=STAGE, seed=seed + 1, affine=True)
    score = compare(pair, upright, seed=seed).score
    _, turned = best_fit(pair, starts(pair, centre, turned_axes()), seed=seed)
    return expected_in(image, upright, score, turned)


def expected_in(image: Volume, matrix: np.ndarray, score: float, turned: float) -> ExpectedBrain:
    """What is expected in an image by a fit that was found before: see its attributes."""
    seen = inside_grid(image, template_parts().grid, matrix)
    return ExpectedBrain(matrix, score, turned, seen, image.contrast)


def inside_grid(field_of_view: Grid, grid: Grid, matrix: np.ndarray) -> np.ndarray:
    """Which voxels of a grid lie in the field of view of another, bool.

    Parameters
    ----------
    matrix : (4, 4), RAS+ mm of ``grid`` to RAS+ mm of ``field_of_view``.
    """
    there = np.linalg.inv(field_of_view.affine) @ matrix @ grid.affine
    places = np.meshgrid(*[np.arange(n) for n in grid.shape], indexing='ij', sparse=True)
    seen = np.ones(grid.shape, bool)
    for axis in range(3):
        place = sum(there[axis, a] * places[a] for a in range(3)) + there[axis, 3]
        seen &= (place >= -0.5) & (place <= field_of_view.shape[axis] - 0.5)
    return seen


@cache
def coarse_template() -> tuple[Volume, Volume]:
    """A copy of 4 mm of the template, and the region in and around its brain, 0 or 1."""
    model = template()
    brain = model.with_data(model.data > 0)
    fixed, share = (
        cubic(v, brain, spacing=STAGE.spacing, margin=STAGE.shell) for v in (model, brain)
    )
    distance = ndimage.distance_transform_edt(share.data < 0.5) * STAGE.spacing
    return fixed, share.with_data((distance <= STAGE.shell).astype(np.uint8))


def coarse_pair(image: Volume, inside: Volume) -> ImagePair:
    """Copies of 4 mm of the template and the whole image; compared in and around the brain."""
    everything = image.with_data(np.ones(image.shape, bool))
    clipped = clip_brightest(image, inside)
    moving = cubic(clipped, everything, spacing=STAGE.spacing, margin=0.0)
    return ImagePair(*coarse_template(), without_local_mean(moving))


def without_local_mean(image: Volume) -> Volume:
    """The image over its local mean in tissue: at 7T a search is lost in the receive field."""
    tissue = (image.data > TISSUE * np.percentile(image.data, 99)).astype(np.float32)
    sigma = LOCAL / image.spacing
    mean = ndimage.gaussian_filter(image.data * tissue, sigma)
    mean /= np.maximum(ndimage.gaussian_filter(tissue, sigma), 0.02)
    ratio = image.data / np.maximum(mean, 1e-3 * max(float(image.data.max()), 1e-6))
    return image.with_data(np.clip(ratio, 0, BRIGHT).astype(np.float32))


def starts(
    pair: ImagePair, centre: np.ndarray, axes: Sequence[np.ndarray]
) -> Iterator[np.ndarray]:
    """Where a search begins: with the template's centre at and around a point, (4, 4) each."""
    middle = registration.centre_of(pair.region)
    steps = (-OFFSET, 0.0, OFFSET)
    for turn, offset in product(axes, product(steps, steps, steps)):
        if len(axes) > 1 and np.count_nonzero(offset) > 1:
            continue
        matrix = np.eye(4)
        matrix[:3, :3] = turn * SCALE
        matrix[:3, 3] = centre + offset - matrix[:3, :3] @ middle
        yield matrix


def turned_axes() -> list[np.ndarray]:
    """The 23 exchanges of axes that differ from none; the template is symmetric, left to right."""
    found = []
    for order in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            turn = np.eye(3)[list(order)] * np.array(signs)[:, None]
            if np.linalg.det(turn) > 0 and not np.allclose(turn, np.eye(3)):
                found.append(turn)
    return found


def best_fit(
    pair: ImagePair, begins: Iterable[np.ndarray], *, seed: int
) -> tuple[np.ndarray, float]:
    """The best affine fit from the most similar of several starts, and its score."""
    some = np.zeros(pair.region.shape, bool)
    some[::THIN, ::THIN, ::THIN] = True
    thin = replace(pair, region=pair.region.with_data(pair.region.data * some))

    def score(matrix: np.ndarray, where: ImagePair = pair) -> float:
        return compare(where, matrix, seed=seed).score

    first = sorted(begins, key=lambda start: -score(start, thin))[:FOLLOWED]
    ends = [
        registration.optimise(pair, matrix, stage=SEARCH, seed=seed, affine=True)
        for matrix in first
    ]
    scores = [score(matrix) for matrix in ends]
    place = int(np.argmax(scores))
    return ends[place], scores[place]
