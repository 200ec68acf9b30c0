"""Whether a brain mask can be right: it is compared with where the image itself shows the brain.

The volume of a mask is no test, and a registration of the mask rescales a wrong one. So the
template is fitted to the intensities of the image without the mask's help, and the mask is
compared with the parts of the template's brain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import permutations, product
from typing import Any

import numpy as np
from scipy import ndimage

from ssl2_bids.atlas import read_atlas
from ssl2_bids.steps import registration
from ssl2_bids.steps.quality import BRAIN_VOLUMES
from ssl2_bids.steps.registration import ImagePair, RegistrationStage
from ssl2_bids.steps.template import template
from ssl2_bids.volume import Grid, Volume, resample

STAGE = RegistrationStage(4.0, 15_000, 4.0)
SCALE = 0.9  # a brain over MNI152, along an axis: the cube root of 0.6 to 0.8
OFFSET = 24.0  # mm between starts: a mask of one hemisphere has its centre 30 mm off
FOLLOWED = 3  # starts that are followed up
STEP = 2  # mm of the template's copy on which a mask is compared
CORE = 4.0  # mm below the template's surface: what lies deeper is brain in every head
FAR = 8.0  # mm above the template's surface: more than a fitted brain reaches

LOCAL = 20.0  # mm of the local mean
TISSUE = 0.2  # of the brightest; above is no air
BRIGHT = 2.5  # times the local mean; where it is clipped
# 0.06 to 0.1 in T1w, UNIT1 and FLAIR; a fit below is chance, as in T2w of 7T (0.02)
MIN_SCORE = 0.03
THIN = 2  # voxels of 4 mm between the points at which starts are compared

# ``python benchmarks/brain_flags.py`` prints the numbers of good and spoiled masks; each threshold
# lies between both on t1w-3t and simulated heads
MIN_COVERED = {
    'cerebellum': 0.8,  # good from 0.98; 0 where it is cut off
    'left temporal lobe': 0.8,  # good from 0.97; 0
    'right temporal lobe': 0.8,
    'vertex': 0.8,  # good from 0.97; 0.2 without the upper 40 mm
    'left hemisphere': 0.85,  # good from 0.97; 0
    'right hemisphere': 0.85,
}
MIN_INNER = 0.945  # of both hemispheres; good from 0.97, shrunk by 6 mm up to 0.94
ABOVE = (-4.0, 5.0)  # mm; good -1.8 to 3.5; shrunk by 6 mm -3 to -5, grown by 8 mm 9.4
MAX_OUTSIDE = 0.05  # good up to 0.03; grown 0.09, a whole head 0.3
MAX_ASYMMETRY = 0.06  # good up to 0.011; one hemisphere 1
MAX_TURNED = 1.1  # good 0.35 to 0.5; exchanged or flipped axes from 2.3
MAX_CUT = 0.02  # good up to 0.002; a slab of 25 mm that is missing 0.05 to 0.1
MIN_AGREEMENT = 0.9  # good contrasts of one head from 0.93; shrunk 0.86, grown 0.83


@dataclass(frozen=True)
class Flag:
    """A reason to look at a brain mask.

    Attributes
    ----------
    code : short name.
    value, threshold : what was measured, and from where on it is flagged.
    text : the same in plain words.
    """

    code: str
    value: float
    threshold: float
    text: str

    def as_json(self) -> dict[str, Any]:
        """With the keys of a sidecar."""
        return {
            'Code': self.code,
            'Value': round(self.value, 3),
            'Threshold': self.threshold,
            'Text': self.text,
        }


@dataclass(frozen=True)
class ExpectedBrain:
    """Where an image shows the brain, by an affine fit of the template.

    Attributes
    ----------
    matrix : (4, 4), RAS+ mm of the template to RAS+ mm of the image.
    score : similarity of template and image; ``turned``: with the best exchange of axes.
    seen : share of each voxel of the template's copy that lies in the field of view.
    """

    matrix: np.ndarray
    score: float
    turned: float
    seen: np.ndarray

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
    inside = registration.checked_mask(image, mask)
    pair = coarse_pair(image, inside)
    centre = registration.centre_of(inside)
    upright, _ = best_fit(pair, starts(pair, centre, [np.eye(3)]), seed=seed)
    # a noisy image ends the first descent early
    upright = registration.optimise(pair, upright, stage=STAGE, seed=seed + 1, affine=True)
    score = registration.compare(pair, upright, seed=seed).score
    _, turned = best_fit(pair, starts(pair, centre, turned_axes()), seed=seed)
    return ExpectedBrain(
        upright, score, turned, inside_grid(image, template_parts().grid, upright)
    )


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


def coarse_pair(image: Volume, inside: Volume) -> ImagePair:
    """Copies of 4 mm of the template and the whole image; compared in and around the brain."""
    model = template()
    brain = model.with_data(model.data > 0)
    fixed, share = (
        registration.cubic(v, brain, spacing=STAGE.spacing, margin=STAGE.shell)
        for v in (model, brain)
    )
    distance = ndimage.distance_transform_edt(share.data < 0.5) * STAGE.spacing
    everything = image.with_data(np.ones(image.shape, bool))
    clipped = registration.clip_brightest(image, inside)
    moving = registration.cubic(clipped, everything, spacing=STAGE.spacing, margin=0.0)
    region = share.with_data((distance <= STAGE.shell).astype(np.uint8))
    return ImagePair(fixed, region, evened(moving))


def evened(image: Volume) -> Volume:
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
        return registration.compare(where, matrix, seed=seed).score

    first = sorted(begins, key=lambda start: -score(start, thin))[:FOLLOWED]
    ends = [
        registration.optimise(pair, matrix, stage=STAGE, seed=seed, affine=True)
        for matrix in first
    ]
    scores = [score(matrix) for matrix in ends]
    place = int(np.argmax(scores))
    return ends[place], scores[place]


def measure(mask: Volume, expected: ExpectedBrain) -> dict[str, float]:
    """Numbers of a brain mask, by the codes of the flags.

    Parameters
    ----------
    mask : on any grid in the space of the image of ``expected``.

    Returns
    -------
    For each part the share that the mask covers, of what is in the field of view; ``above``: mean
    distance in mm of the mask's surface above that of the template's brain; ``outside``: share of
    the mask more than 8 mm above; ``asymmetric``: volume at the right less that at the left, over
    both; ``volume``: mL.
    """
    parts = template_parts()
    there = resample(
        mask.with_data((mask.data > 0).astype(np.float32)),
        parts.grid.affine,
        parts.grid.shape,
        transform=expected.matrix,
        antialias=False,
    )
    found = there.data >= 0.5
    seen = expected.seen
    numbers = {'volume': float(np.count_nonzero(mask.data)) * mask.voxel_volume / 1000}
    for name, part in parts.parts.items():
        visible = part & seen
        if visible.sum() >= part.sum() / 2:
            numbers[name] = float(found[visible].mean())
    rim = found & ~ndimage.binary_erosion(found, border_value=1)
    rim &= ndimage.binary_erosion(seen)
    above = parts.above * expected.scale
    numbers['above'] = float(above[rim].mean()) if rim.any() else 0.0
    numbers['outside'] = float((above[found] > FAR).mean()) if found.any() else 1.0
    both = found & seen & seen[::-1]
    right, left = both[parts.x > 0].sum(), both[parts.x < 0].sum()
    numbers['asymmetric'] = float((right - left) / max(right + left, 1))
    return numbers


def check_mask(mask: Volume, expected: ExpectedBrain) -> list[Flag]:
    """Why a brain mask cannot be right; nothing where it can.

    Parameters
    ----------
    mask : on any grid in the space of the image of ``expected``.
    """
    numbers = measure(mask, expected)
    if not expected.is_reliable:
        return _check_volume(numbers['volume'])
    flags = [
        Flag(
            name.replace(' ', '-'),
            numbers[name],
            low,
            f'the brain mask covers only {numbers[name]:.0%} of the {name}',
        )
        for name, low in MIN_COVERED.items()
        if name in numbers and numbers[name] < low
    ]
    above = numbers['above']
    halves = [numbers[f'{side} hemisphere'] for side in ('left', 'right')
              if f'{side} hemisphere' in numbers]  # fmt: skip
    inner = float(np.mean(halves or [1.0]))
    if above < ABOVE[0]:
        text = f'the brain mask ends {-above:.1f} mm below the surface of the brain on average'
        flags.append(Flag('small', above, ABOVE[0], text))
    elif not flags and inner < MIN_INNER:
        text = f'the brain mask covers only {inner:.0%} of the inner brain'
        flags.append(Flag('small', inner, MIN_INNER, text))
    if above > ABOVE[1]:
        text = f'the brain mask ends {above:.1f} mm above the surface of the brain on average'
        flags.append(Flag('large', above, ABOVE[1], text))
    if numbers['outside'] > MAX_OUTSIDE:
        text = f'{numbers["outside"]:.0%} of the brain mask lie outside the brain'
        flags.append(Flag('outside', numbers['outside'], MAX_OUTSIDE, text))
    if abs(numbers['asymmetric']) > MAX_ASYMMETRY:
        side, other = ('right', 'left') if numbers['asymmetric'] > 0 else ('left', 'right')
        text = f'the brain mask is larger at the {side} than at the {other}'
        flags.append(Flag('asymmetric', numbers['asymmetric'], MAX_ASYMMETRY, text))
    return flags + _check_volume(numbers['volume'])


def _check_volume(millilitres: float) -> list[Flag]:
    low, high = BRAIN_VOLUMES
    if low <= millilitres <= high:
        return []
    text = f'the brain mask has {millilitres:.0f} mL, outside {low:.0f} to {high:.0f} mL'
    return [Flag('volume', millilitres, low if millilitres < low else high, text)]


def check_image(expected: ExpectedBrain) -> list[Flag]:
    """Why an image cannot show a whole brain upright, whatever its mask is."""
    flags: list[Flag] = []
    if not expected.is_reliable:
        return flags
    ratio = expected.turned / max(expected.score, 1e-6)
    if ratio > MAX_TURNED:
        text = 'the axes of the image are probably exchanged or flipped in its header'
        flags.append(Flag('turned', ratio, MAX_TURNED, text))
    missing = expected.missing
    if missing > MAX_CUT:
        text = f'the field of view cuts the brain: about {missing:.0%} of it are missing'
        flags.append(Flag('cut', missing, MAX_CUT, text))
    return flags
