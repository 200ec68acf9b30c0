"""How well two images fit: mutual information."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ssl2_bids.steps.image_pair import ImagePair
from ssl2_bids.volume import Volume

BINS = 40
MIN_OVERLAP = 0.1  # share of the points inside the moving image; none is believed below it


@dataclass(frozen=True)
class Similarity:
    """How well two images fit under a transform.

    Attributes
    ----------
    mutual_information : nats, larger is better.
    normalised : normalised mutual information, 1 (unrelated) to 2 (identical).
    overlap : share of the points compared that lie inside the moving image.
    """

    mutual_information: float
    normalised: float
    overlap: float

    @property
    def score(self) -> float:
        """Normalised information about all points: those outside the moving image have none."""
        return (self.normalised - 1) * self.overlap


def compare(pair: ImagePair, matrix: np.ndarray, *, seed: int) -> Similarity:
    """Similarity of a pair under a transform (Studholme et al. 1999), linear interpolation.

    The points are jittered within their voxels, so that no transform gains or loses by putting
    voxels on voxels.
    """
    points = np.argwhere(pair.region.data).astype(np.float64)
    points += np.random.default_rng(seed).uniform(-0.5, 0.5, points.shape)
    there = np.linalg.inv(pair.moving.affine) @ matrix @ pair.fixed.affine
    mapped = sum(points[:, a, None] * there[:3, a] for a in range(3)) + there[:3, 3]
    inside = ((mapped >= -0.5) & (mapped <= np.array(pair.moving.shape) - 0.5)).all(axis=1)
    overlap = float(inside.mean())
    if overlap < MIN_OVERLAP:
        return Similarity(0.0, 1.0, overlap)
    indices = (
        histogram_bins(pair.fixed, points[inside]),
        histogram_bins(pair.moving, mapped[inside]),
    )
    joint = np.bincount(indices[0] * BINS + indices[1], minlength=BINS**2) / inside.sum()
    table = joint.reshape(BINS, BINS)
    both, one, other = (entropy(p) for p in (joint, table.sum(axis=0), table.sum(axis=1)))
    return Similarity(one + other - both, (one + other) / max(both, 1e-12), overlap)


def histogram_bins(image: Volume, points: np.ndarray) -> np.ndarray:
    """Histogram bins 0..BINS-1 of an image at voxel positions (N, 3)."""
    values = ndimage.map_coordinates(image.data, points.T, order=1, mode='nearest')
    low, high = image.data.min(), image.data.max()
    return np.minimum((values - low) / max(high - low, 1e-9) * BINS, BINS - 1).astype(int)


def entropy(shares: np.ndarray) -> float:
    """Shannon entropy in nats."""
    present = shares[shares > 0]
    return float(-(present * np.log(present)).sum())
