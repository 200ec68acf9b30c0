"""Where an image shows white matter, grey matter and fluid: for measures of its quality.

A mixture of normal distributions whose spatial priors are those of the atlas. The priors, not the
intensities, give a class its name, so any contrast will do, one with the wrong name too. A fourth
distribution takes the voxels that grey matter and fluid share: without it thick slices through
wide sulci give grey matter the brightness of the mixture. Enough for medians and spreads of the
tissues; no segmentation of a brain with lesions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ssl2_bids.atlas import read_atlas
from ssl2_bids.volume import Volume, resample
from ssl2_bids.voxel_grid import shift_affine

TISSUES = ('csf', 'gm', 'wm')
CEREBRUM = {'wm': ('white-matter',), 'gm': ('cortex', 'deep-grey-matter'), 'csf': ('ventricles',)}
BELOW = ('cerebellum', 'brainstem')  # left out: fine structures and mixed tissue
MAX_BELOW = 0.3  # share of these in a voxel that is compared
SAMPLE = 1_200_000  # voxels that are looked at: tens of thousands of each class are left
FITTED = 60_000  # voxels to which the distributions are fitted
STEPS = 25  # of the fit; means move by less than a hundredth of their distance after about 15
SEEN = 3  # neighbouring slices; the one in the middle is measured
MIXED = 0.5  # prior of grey matter mixed with fluid, of the geometric mean of both
PRIOR_FLOOR = 0.02  # an affine atlas is some millimetres off
MIN_SPREAD = 0.01  # of the range of intensities
CERTAIN = 0.85  # probability of a class from which a voxel counts, as in MRIQC
ERODED = 1.9  # mm; below this voxel size classes are eroded, as in MRIQC
DEEP = 0.8  # prior of white matter from which on a voxel is used whatever its intensity
COARSE = 4.0  # mm, of the copy on which the box around the brain is found


@dataclass(frozen=True)
class TissueSample:
    """Slices of an image with their classes; n slices, each with both neighbours.

    Attributes
    ----------
    start, stop : box around the brain in the first two axes of the image, voxels.
    slices : (n,), their numbers along the third axis of the image.
    inside : (n, I, J, 3) bool, brain.
    classes : (n, I, J) bool of the middle slices by name, eroded where voxels are small.
    deep : (n, I, J) bool, white matter by the atlas alone, with neighbours.
    """

    start: tuple[int, int]
    stop: tuple[int, int]
    slices: np.ndarray
    inside: np.ndarray
    classes: dict[str, np.ndarray]
    deep: np.ndarray

    def stack(self, image: Volume) -> np.ndarray:
        """The slices of an image on the same grid, with neighbours: (n, I, J, 3)."""
        (i, j), (i_end, j_end) = self.start, self.stop
        part = image.data[i:i_end, j:j_end]
        return np.stack([part[:, :, k - 1 : k + 2] for k in self.slices])

    def middle(self, image: Volume) -> np.ndarray:
        """The slices of an image on the same grid, without neighbours: (n, I, J)."""
        return self.stack(image)[..., 1]


def sample_tissues(
    image: Volume, brain: Volume, *, to_reference: np.ndarray, to_template: np.ndarray
) -> TissueSample | None:
    """Classify slices of an image that are spread over the brain.

    Parameters
    ----------
    image : corrected for inhomogeneity, voxel axes near RAS+.
    brain : mask in the space of the reference, on any grid.
    to_reference, to_template : (4, 4), RAS+ mm of the image to RAS+ mm of reference and template.

    Returns
    -------
    None where the image shows too little of the brain.
    """
    found = _slices(image, brain, to_reference)
    if found is None:
        return None
    start, stop, slices = found
    priors, inside = _priors(image, start, stop, slices, brain, (to_reference, to_template))
    seen = inside & (priors.pop('below') <= MAX_BELOW)
    sample = TissueSample(start, stop, slices, seen, {}, seen[..., 1])
    values = sample.stack(image).astype(np.float32)
    table = np.stack([priors[name] for name in TISSUES])
    middle = seen[..., 1]
    if np.count_nonzero(middle) < FITTED // 100:
        return None
    step = max(1, np.count_nonzero(middle) // FITTED)
    means, spreads = fit_classes(
        values[..., 1][middle][::step], table[..., 1][:, middle][:, ::step]
    )
    probability = posterior(values, table, means, spreads)
    small = bool((image.spacing < ERODED).all())
    mixed = 1 - probability.sum(axis=0)
    classes = {}
    for name, share in zip(TISSUES, probability, strict=True):
        # the cortex is too thin to lose a voxel on its way to fluid, too
        around = share if name == 'wm' else share + mixed
        middle = _middle(seen & (around > CERTAIN), eroded=small)
        classes[name] = middle & (share > CERTAIN)[..., 1]
    deep = _middle(seen & (table[2] >= DEEP), eroded=True)
    return TissueSample(start, stop, slices, seen, classes, deep)


def _slices(
    image: Volume, brain: Volume, to_reference: np.ndarray
) -> tuple[tuple[int, int], tuple[int, int], np.ndarray] | None:
    """The box around the brain in the first two axes, and the slices that are looked at."""
    step = np.maximum(1, np.rint(COARSE / image.spacing)).astype(int)
    coarse_shape = tuple((-(-np.array(image.shape) // step)).tolist())
    coarse = image.affine @ np.diag([*step, 1.0])
    there = resample(
        brain.with_data((brain.data > 0).astype(np.float32)),
        coarse,
        coarse_shape,
        transform=to_reference,
        antialias=False,
    ).data
    where = np.argwhere(there >= 0.5)
    if not where.size:
        return None
    low = np.maximum((where.min(axis=0) - 1) * step, 0)
    high = np.minimum((where.max(axis=0) + 2) * step, image.shape)
    first, last = max(int(low[2]), 1), min(int(high[2]), image.shape[2] - 1)
    size = int((high[0] - low[0]) * (high[1] - low[1])) * SEEN
    count = min(max(SAMPLE // size, SEEN), (last - first + SEEN - 1) // SEEN)
    if count < 1:
        return None
    gap = (last - first) / count
    slices = np.unique((first + gap * (np.arange(count) + 0.5)).astype(int))
    start, stop = (int(low[0]), int(low[1])), (int(high[0]), int(high[1]))
    return start, stop, np.clip(slices, 1, image.shape[2] - 2)


def _priors(
    image: Volume,
    start: tuple[int, int],
    stop: tuple[int, int],
    slices: np.ndarray,
    brain: Volume,
    ways: tuple[np.ndarray, np.ndarray],
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Probability of each tissue by the atlas, (n, I, J, 3), and where the brain is, bool."""
    atlas = read_atlas()
    parts = {name: sum(atlas[s].data for s in names) for name, names in CEREBRUM.items()}
    parts['below'] = sum(atlas[s].data for s in BELOW)
    model = next(iter(atlas.values()))
    volumes = {name: model.with_data(np.asarray(data)) for name, data in parts.items()}
    mask = brain.with_data((brain.data > 0).astype(np.float32))
    shape = (stop[0] - start[0], stop[1] - start[1], SEEN)
    found: dict[str, list[np.ndarray]] = {name: [] for name in (*volumes, 'brain')}
    for k in slices:
        affine = shift_affine(image.affine, (*start, int(k) - 1))
        for name, volume in volumes.items():
            there = resample(volume, affine, shape, transform=ways[1], antialias=False)
            found[name].append(there.data)
        here = resample(mask, affine, shape, transform=ways[0], antialias=False)
        found['brain'].append(here.data >= 0.5)
    stacks = {name: np.stack(arrays) for name, arrays in found.items()}
    inside = stacks.pop('brain')
    # between brain and skull, and in the sulci, is fluid
    rest = np.maximum(1 - sum(stacks[name] for name in (*TISSUES, 'below')), 0)
    raised = {name: stacks[name] + PRIOR_FLOOR for name in TISSUES}
    raised['csf'] = raised['csf'] + rest
    total = sum(raised.values())
    priors = {name: (raised[name] / total).astype(np.float32) for name in TISSUES}
    return priors | {'below': stacks['below']}, inside


def _middle(mask: np.ndarray, *, eroded: bool) -> np.ndarray:
    """The middle slices of a mask (n, I, J, 3), without voxels at its border if ``eroded``."""
    if not eroded:
        return mask[..., 1]
    structure = ndimage.generate_binary_structure(3, 2)[None]
    return np.asarray(ndimage.binary_erosion(mask, structure)[..., 1])


def fit_classes(values: np.ndarray, priors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations of tissues with known spatial priors, by EM.

    Grey and white matter have one spread, mostly that of the noise: with a spread of its own the
    fainter of the two classes grows into the mixtures at its border.

    Parameters
    ----------
    values : (N,) intensities.
    priors : (3, N) of fluid, grey and white matter, their sum is 1.

    Returns
    -------
    Two arrays (3,). Equal data give equal numbers: nothing is drawn at random.
    """
    low, high = np.percentile(values, (0.5, 99.5))
    data = np.clip(values, low, high).astype(np.float64)
    floor = max(MIN_SPREAD * float(high - low), float(np.finfo(np.float32).tiny))
    weights = priors.astype(np.float64) ** 2  # at the start the certain places alone
    for _ in range(STEPS):
        total = np.maximum(weights.sum(axis=1), 1e-12)
        means = (weights * data).sum(axis=1) / total
        variance = (weights * (data - means[:, None]) ** 2).sum(axis=1) / total
        variance[1:] = np.average(variance[1:], weights=total[1:])
        spreads = np.maximum(np.sqrt(variance), floor)
        weights = posterior(data, priors, means, spreads)
    return means, spreads


def posterior(
    values: np.ndarray, priors: np.ndarray, means: np.ndarray, spreads: np.ndarray
) -> np.ndarray:
    """Probability of each tissue, (3, ...), of values (...) with priors (3, ...).

    What is missing to 1 is the probability of a mixture of grey matter and fluid. Its prior is
    a share of the geometric mean of theirs, its distribution spans the way between their means.
    """
    fluid, grey = means[:2]
    means = np.append(means, (fluid + grey) / 2)
    spreads = np.append(spreads, max(abs(fluid - grey) / 4, spreads[1]))
    priors = np.concatenate([priors, MIXED * np.sqrt(priors[:1] * priors[1:2])])
    shape = (-1,) + (1,) * values.ndim
    score = (values[None] - means.reshape(shape)) / spreads.reshape(shape)
    # far from all means the nearest class, not none
    log = -0.5 * np.minimum(score**2, 1e4) - np.log(spreads).reshape(shape)
    log += np.log(np.maximum(priors, 1e-12))
    log -= log.max(axis=0)
    found = np.exp(log)
    return np.asarray(found[:3] / found.sum(axis=0))
