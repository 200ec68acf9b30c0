"""From a head to the space of the template: an affine that lays structures over the atlas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from ssl2_bids.atlas import read_atlas

COARSE = 3.0  # mm; voxels in which structures are compared
STEPS = ((8.0, 15), (4.0, 15))  # blur in mm, and number of Gauss-Newton steps with it
DAMPING = 1e-3
SETTLED = 1e-2  # mm; smaller steps end the search


def fit_template(structures: Sequence[np.ndarray], affine: np.ndarray) -> np.ndarray:
    """Affine (4, 4) from mm of this head to mm of the template (MNI152).

    Least squares between the blurred structures of the head and their probabilities in the atlas
    of regions, by Gauss-Newton from equal centres and extents.

    Parameters
    ----------
    structures : masks of ventricles, cortex, deep grey matter, and what lies below the tentorium;
        one that is empty does not count.
    affine : (4, 4) of the masks, voxel axes along RAS+.
    """
    head, coarse_affine = coarse(structures, affine)
    atlas = read_atlas()
    below = atlas['cerebellum'].data + atlas['brainstem'].data
    maps = [atlas[name].data for name in ('ventricles', 'cortex', 'deep-grey-matter')] + [below]
    template_affine = atlas['cortex'].affine
    pairs = [pair for pair in zip(head, maps, strict=True) if pair[0].any()]
    matrix = first_guess(pairs, coarse_affine, template_affine)
    for blur, steps in STEPS:
        matrix = refine(matrix, pairs, coarse_affine, template_affine, blur=blur, steps=steps)
    return np.linalg.inv(matrix)


def coarse(masks: Sequence[np.ndarray], affine: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Masks as shares of larger voxels, and the affine of these."""
    factor = np.maximum(np.rint(COARSE / np.diag(affine)[:3]), 1).astype(int)
    shape = masks[0].shape
    counts = [int(np.ceil(n / f)) for n, f in zip(shape, factor, strict=True)]
    padding = [(0, c * f - n) for c, f, n in zip(counts, factor, shape, strict=True)]
    blocks = (counts[0], factor[0], counts[1], factor[1], counts[2], factor[2])
    shares = [
        np.pad(mask, padding).reshape(blocks).mean(axis=(1, 3, 5), dtype=np.float32)
        for mask in masks
    ]
    larger = affine @ np.diag([*factor, 1])
    larger[:3, 3] = affine[:3, :3] @ ((factor - 1) / 2) + affine[:3, 3]
    return shares, larger


def first_guess(
    pairs: list[tuple[np.ndarray, np.ndarray]], affine: np.ndarray, template_affine: np.ndarray
) -> np.ndarray:
    """Template to head: equal centre and spread of all structures together, axis by axis."""
    moments = []
    for index, space in ((0, affine), (1, template_affine)):
        total = np.sum([pair[index] for pair in pairs], axis=0)
        at = np.argwhere(total > 0.25)
        points = at @ space[:3, :3].T + space[:3, 3]
        moments.append((points.mean(axis=0), points.std(axis=0)))
    (head_mean, head_spread), (mean, spread) = moments
    matrix = np.diag([*(head_spread / spread), 1.0])
    matrix[:3, 3] = head_mean - matrix[:3, :3] @ mean
    return matrix


def refine(
    matrix: np.ndarray,
    pairs: list[tuple[np.ndarray, np.ndarray]],
    affine: np.ndarray,
    template_affine: np.ndarray,
    *,
    blur: float,
    steps: int,
) -> np.ndarray:
    """Gauss-Newton steps from ``matrix`` (template to head, mm)."""
    head_edge, template_edge = (np.abs(np.diag(a)[:3]) for a in (affine, template_affine))
    stride = max(int(blur // template_edge.min()), 1)
    heads = [ndimage.gaussian_filter(h, blur / head_edge) for h, _ in pairs]
    slopes = [[g / edge for g, edge in zip(np.gradient(h), head_edge, strict=True)] for h in heads]
    atlas = [ndimage.gaussian_filter(m, blur / template_edge) for _, m in pairs]
    at = np.indices(atlas[0].shape)[:, ::stride, ::stride, ::stride].reshape(3, -1)
    points = template_affine[:3, :3] @ at + template_affine[:3, 3:]
    middle = points.mean(axis=1, keepdims=True)
    design = np.vstack([(points - middle) / 50, np.ones((1, points.shape[1]))])
    to_voxels = np.linalg.inv(affine)
    for _ in range(steps):
        there = to_voxels[:3, :3] @ (matrix[:3, :3] @ points + matrix[:3, 3:]) + to_voxels[:3, 3:]
        normal, right = np.zeros((12, 12)), np.zeros(12)
        for values, slope, wanted in zip(heads, slopes, atlas, strict=True):
            residual = wanted[tuple(at)] - ndimage.map_coordinates(values, there, order=1)
            parts = [ndimage.map_coordinates(s, there, order=1) for s in slope]
            jacobian = np.vstack([part * design for part in parts])
            normal += jacobian @ jacobian.T
            right += jacobian @ residual
        normal += DAMPING * np.trace(normal) / 12 * np.eye(12)
        step = np.linalg.solve(normal, right).reshape(3, 4)
        matrix = matrix.copy()
        matrix[:3, :3] += step[:, :3] / 50
        matrix[:3, 3] += step[:, 3] - step[:, :3] @ middle[:, 0] / 50
        if np.abs(step).max() < SETTLED:
            break
    return matrix
