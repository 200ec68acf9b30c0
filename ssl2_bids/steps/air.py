"""The air around a head: its noise and its ghosts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ssl2_bids.metrics.image_quality import MAD
from ssl2_bids.volume import Volume, resample

STRIDE = 2.5  # mm between the voxels that are looked at; they are not averaged, for their noise
BORDER = 2  # voxels of the stride at each side, where filters and wrapping of the scanner show
AROUND = 10.0  # mm around the head that are not air: skin, hair, headphones
# the plane of MRIQC's "hat" in the template: air is above nasion and lower cerebellum
NASION, CEREBELLUM = (84.0, -43.0), (-75.0, -60.0)  # (y, z) in mm
ARTEFACT = 10.0  # robust deviations above the air that are no air, as in MRIQC
MIN_VOXELS = 1000  # of air, as in MRIQC
ONE_VALUE = 0.5  # share of one value from which on the air was overwritten
MIN_PART = 0.01  # of the largest bright part: the skull can part the scalp from the brain
MIN_GHOST = 300  # voxels of a region that is compared


@dataclass(frozen=True)
class Air:
    """What is seen around a head, in every n-th voxel of the image, negative values as 0.

    Attributes
    ----------
    values : (N,), of the air above nasion and cerebellum.
    head, outside : (N,), of the head, and of all else.
    ghosts : surplus of the air beside the head, along one axis, over that at the corners; by
        axis, in units of the image.
    missing : why there is no air to measure; empty where there is.
    """

    values: np.ndarray
    head: np.ndarray
    outside: np.ndarray
    ghosts: dict[str, float]
    missing: str = ''


def measure_air(
    image: Volume, brain: Volume, *, to_reference: np.ndarray, to_template: np.ndarray
) -> Air:
    """Find the air around a head.

    The head is what is brighter than Otsu's threshold of the smoothed image, with the brain. Of
    voxels that are 0 with all their neighbours the scanner or a program has made the value.

    Parameters
    ----------
    image : magnitudes as acquired, of a whole head, voxel axes near RAS+.
    brain : mask in the space of the reference, on any grid.
    to_reference, to_template : (4, 4), RAS+ mm of the image to RAS+ mm of reference and template.
    """
    step = np.maximum(1, np.rint(STRIDE / image.spacing)).astype(int)
    data = np.maximum(image.data[:: step[0], :: step[1], :: step[2]], 0)
    affine = image.affine @ np.diag([*step, 1.0])
    filled = ndimage.maximum_filter(data, 3) == 0
    there = resample(
        brain.with_data((brain.data > 0).astype(np.float32)),
        affine,
        data.shape,
        transform=to_reference,
        antialias=False,
    )
    head = _head(data, there.data >= 0.5)
    distance = ndimage.distance_transform_edt(~head, sampling=image.spacing * step)
    inner = np.zeros(data.shape, bool)
    inner[BORDER:-BORDER, BORDER:-BORDER, BORDER:-BORDER] = True
    air = (distance > AROUND) & inner & ~filled
    air &= _above_plane(data.shape, to_template @ affine)
    values = _without_artefacts(data[air])
    missing = _why_missing(values, overwritten=int((filled & ~head).sum()))
    ghosts = {} if missing else _ghosts(data, head, air)
    return Air(values, data[head], data[~head & ~filled], ghosts, missing)


def _why_missing(values: np.ndarray, *, overwritten: int) -> str:
    """Why air has no noise to measure; empty where it has.

    Parameters
    ----------
    overwritten : voxels outside the head that are 0 with all their neighbours.
    """
    if values.size < MIN_VOXELS:
        short = 'the field of view has too little air'
        return 'the air was set to zero' if overwritten > MIN_VOXELS else short
    most = float(np.median(values))
    if np.mean(values == most) <= ONE_VALUE:
        return ''
    return 'the air has one value' if most else 'the air was set to zero'


def _without_artefacts(values: np.ndarray) -> np.ndarray:
    """Air without voxels that are more than ten robust deviations above the others."""
    if values.size == 0:
        return values
    median = float(np.median(values))
    spread = float(np.median(np.abs(values - median))) / MAD
    return values[values <= median + ARTEFACT * spread] if spread > 0 else values


def _head(data: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """The large bright parts of an image, with the brain and without holes, bool."""
    smooth = ndimage.gaussian_filter(data.astype(np.float32), 1)
    bright = ndimage.binary_closing(smooth > _otsu(smooth)) | brain
    labels, count = ndimage.label(bright)
    if count > 1:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        bright = (sizes >= MIN_PART * sizes.max())[labels] & (labels > 0)
    return np.asarray(ndimage.binary_fill_holes(bright | brain))


def _otsu(values: np.ndarray) -> float:
    """Otsu's threshold of intensities; the few brightest count as the 99.5th percentile."""
    top = float(np.percentile(values, 99.5))
    counts, edges = np.histogram(np.minimum(values, top), bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    weight, mass = np.cumsum(counts), np.cumsum(counts * centres)
    below, above = weight[:-1], weight[-1] - weight[:-1]
    difference = mass[-1] * below - weight[-1] * mass[:-1]
    between = difference**2 / np.maximum(below * above, 1)
    return float(centres[int(between.argmax())])


def _above_plane(shape: tuple[int, ...], to_template: np.ndarray) -> np.ndarray:
    """Voxels above the plane through nasion and lower cerebellum, bool."""
    places = np.meshgrid(*[np.arange(n) for n in shape], indexing='ij', sparse=True)
    y, z = (
        sum(to_template[row, a] * places[a] for a in range(3)) + to_template[row, 3]
        for row in (1, 2)
    )
    slope = (NASION[1] - CEREBELLUM[1]) / (NASION[0] - CEREBELLUM[0])
    return np.asarray(z > NASION[1] + slope * (y - NASION[0]))


def _ghosts(data: np.ndarray, head: np.ndarray, air: np.ndarray) -> dict[str, float]:
    """Surplus of the air beside the head, along each axis, over that at the corners.

    A ghost lies along the direction of phase encoding, beside what moves or flows.
    """
    shadows = [np.broadcast_to(head.any(axis=a, keepdims=True), head.shape) for a in range(3)]
    count = np.sum(shadows, axis=0)
    corner = data[air & (count == 0)]
    found = {}
    for name, shadow in zip('xyz', shadows, strict=True):
        beside = data[air & shadow & (count == 1)]
        if min(beside.size, corner.size) >= MIN_GHOST:
            found[name] = float(np.median(beside) - np.median(corner))
    return found
