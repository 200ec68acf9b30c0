"""FLAIR brightness by place, without any label: at the ventricles, in cortex, brain stem, tracts.

One rule for real scans and drawn training samples. The head is registered to the template
(affine), which gives the places; the ventricles are the dark fluid there. The unit is the median
of normal white matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from ssl2_bids.steps.regions import region_maps
from ssl2_bids.steps.template import register_to_template
from ssl2_bids.volume import Volume, resample

SHELLS = ((1, 2), (2, 3), (3, 4), (4, 6), (6, 8), (8, 12))  # mm from the ventricles
FLUID = 0.65  # of white matter; darker voxels are fluid in part
MIN_VENTRICLE = 300  # voxels of 1 mm
MIN_VOXELS = 100  # of a place
APART = 4.0  # mm from the ventricles where tracts are measured: nearer are the bands
EVEN = 0.5  # probability of a place from which on a voxel counts
# Juelich atlas of FSL (Buergel et al. 2006, doi 10.1016/j.neuroimage.2005.08.040): right, left
TRACTS = {'corticospinal tract': (97, 98), 'optic radiation': (107, 108)}
PERCENTILES = {'median': 50, '90th percentile': 90}


def read_tracts(path: Path) -> dict[str, Volume]:
    """Probabilities of the tracts, 0 to 1, in MNI152, from ``Juelich-prob-1mm.nii.gz`` of FSL."""
    image = nib.nifti1.load(path)
    return {
        name: Volume(
            np.max([np.asarray(image.dataobj[..., n]) for n in numbers], axis=0).astype(np.float32)
            / 100,
            np.asarray(image.affine, np.float64),
        )
        for name, numbers in TRACTS.items()
    }


def brightness(
    flair: np.ndarray, brain: np.ndarray, tracts: Mapping[str, Volume]
) -> dict[str, float]:
    """Percentiles of each place over the median of normal white matter.

    Parameters
    ----------
    flair : (I, J, K), 1 mm, axes towards right, front, top, bias field corrected, fluid near 0.
    brain : (I, J, K) bool.
    tracts : of :func:`read_tracts`.

    Returns
    -------
    By ``place, percentile``; empty where the head does not fit the template, or has no dark
    ventricles.
    """
    image = Volume(flair.astype(np.float32), np.eye(4), 'FLAIR')
    found = register_to_template(image, image.with_data(brain.astype(np.uint8)))
    if found.warning:
        return {}
    maps = {
        name: _whole(volume, flair.shape)
        for name, volume in region_maps(image, found.matrix).items()
    }
    maps |= {
        name: resample(
            volume, image.affine, flair.shape, transform=np.linalg.inv(found.matrix)
        ).data
        for name, volume in tracts.items()
    }
    inside = ndimage.binary_erosion(brain, iterations=2)
    white = normal_white(flair[inside & (maps['white-matter'] > 0.8)])
    value = flair / white
    ventricle = ventricles(value, maps['ventricles'], inside)
    if ventricle.sum() < MIN_VENTRICLE:
        return {}
    distance = ndimage.distance_transform_edt(~ventricle)
    tissue = inside & (value > FLUID)
    around = tissue & (maps['white-matter'] + maps['ventricles'] > 0.7)
    places = {
        f'{low} to {high} mm from the ventricles': around & (distance > low) & (distance <= high)
        for low, high in SHELLS
    }
    places['cortex'] = tissue & (maps['cortex'] > EVEN)
    places['brain stem'] = tissue & (maps['brainstem'] > EVEN)
    for name in tracts:
        places[name] = tissue & (maps[name] > EVEN) & (distance > APART)
        if name == 'corticospinal tract':  # above the brain stem, which has a row of its own
            places[name] &= maps['white-matter'] + maps['deep-grey-matter'] > EVEN
    return {
        f'{place}, {word}': float(np.percentile(value[where], percentile))
        for place, where in places.items()
        if where.sum() >= MIN_VOXELS
        for word, percentile in PERCENTILES.items()
    }


def normal_white(values: np.ndarray) -> float:
    """Median of what is no outlier: lesions and fluid do not count.

    Parameters
    ----------
    values : of voxels that are white matter in most heads.
    """
    for _ in range(5):
        middle = np.median(values)
        spread = 1.4826 * np.median(np.abs(values - middle))
        values = values[np.abs(values - middle) <= 2.5 * spread]
    return float(np.median(values))


def ventricles(value: np.ndarray, probability: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Dark components that the atlas has for ventricles, as wide as they are in this head."""
    dark = inside & (value < FLUID) & (probability > 0.05)
    pieces, count = ndimage.label(dark)
    core = np.bincount(pieces[dark & (probability > 0.6)], minlength=count + 1)
    kept = np.flatnonzero(core >= 20)
    return np.isin(pieces, kept[kept > 0])


def interval_rows(
    real: Mapping[str, Mapping[str, float]],
    kept_apart: Mapping[str, Mapping[str, float]],
    drawn: Sequence[Mapping[str, float]],
) -> list[list[str]]:
    """One row per statistic: real scans (least to most), those kept apart for tests, drawn samples
    (5th to 95th percentile, and least to most), and whether these percentiles enclose all real
    scans.
    """
    names = dict.fromkeys(name for one in (*real.values(), *drawn) for name in one)
    rows = []
    for name in names:
        ours, *theirs = (
            [one[name] for one in these if name in one]
            for these in (drawn, real.values(), kept_apart.values())
        )
        if not ours or not theirs[0]:
            continue
        low, high = np.percentile(ours, (5, 95))
        rows.append(
            [
                *name.rsplit(', ', 1),
                *(f'{min(one):.2f} to {max(one):.2f}' if one else '–' for one in theirs),
                f'{low:.2f} to {high:.2f}',
                f'{min(ours):.2f} to {max(ours):.2f}',
                _verdict(theirs[0], low, high) + _apart(theirs[1], low, high),
            ]
        )
    return rows


def _verdict(values: Sequence[float], low: float, high: float) -> str:
    """Whether an interval encloses values, as the table shows both to two places."""
    least, most = round(min(values), 2), round(max(values), 2)
    beyond = [
        word
        for word, is_so in (('darker', least < round(low, 2)), ('brighter', most > round(high, 2)))
        if is_so
    ]
    return f'no, {" and ".join(beyond)}' if beyond else 'yes'


def _apart(values: Sequence[float], low: float, high: float) -> str:
    return f'; {_verdict(values, low, high)}' if values else ''


def _whole(part: Volume, shape: Sequence[int]) -> np.ndarray:
    """A map on a part of a grid of identity affine, on all of it."""
    found = np.zeros(shape, np.float32)
    start = np.rint(part.affine[:3, 3]).astype(int)
    found[tuple(slice(s, s + n) for s, n in zip(start, part.shape, strict=True))] = part.data
    return found
