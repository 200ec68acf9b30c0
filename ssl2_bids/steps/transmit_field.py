"""The transmit field B1+ as a fraction of nominal, from a map or from SA2RAGE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from ssl2_bids.errors import DataError
from ssl2_bids.simulation.anatomy.tissues import Tissue
from ssl2_bids.simulation.scanner.protocols import Protocol
from ssl2_bids.simulation.scanner.sequences import signals
from ssl2_bids.steps import t1_mapping
from ssl2_bids.steps.mp2rage import phase_in_radians
from ssl2_bids.volume import Volume, resample
from ssl2_bids.voxel_grid import Grid, same_grid

FRACTION = 10.0  # a map with a median below this is a fraction; otherwise percent
PLAUSIBLE = (0.2, 2.0)  # of nominal; other values are air or failed fits
LIMITS = (0.35, 1.55)  # of nominal, of what is used
SMOOTHING = 3.0  # mm, sigma; the field is smooth, its map is not
SA2RAGE_T1 = 1.5  # s, at which the ratio is read; it hardly depends on T1
STEPS = 400
MIN_COVERED = 0.6  # of the head in the map; its lower part, neck and face, may be outside
NEAR = 15.0  # mm from a value of the map; a map of the brain alone covers the scalp too
COVERED = 0.95  # of the head in the map; less is worth a warning
AIR = 0.1  # of the brightest signal of SA2RAGE; below it is air


def as_fraction(stored: Volume) -> Volume:
    """A ``TB1map`` as a fraction of the nominal angle; 0 where it has no plausible value.

    BIDS stores percent (100 is nominal). Fractions are met too: the median of what is above 0
    decides.

    Raises
    ------
    DataError : there is no value above 0, or few are plausible.
    """
    positive = stored.data[stored.data > 0]
    if positive.size == 0:
        raise DataError('the B1+ map has no value above 0')
    scale = 1.0 if np.median(positive) < FRACTION else 100.0
    values = stored.data.astype(np.float32) / np.float32(scale)
    good = (values >= PLAUSIBLE[0]) & (values <= PLAUSIBLE[1])
    if good.sum() < 0.5 * positive.size:
        raise DataError(
            f'most values of the B1+ map are outside {PLAUSIBLE[0]:g} to {PLAUSIBLE[1]:g} of '
            'nominal',
            advice='Store it in percent of the nominal angle.',
        )
    return stored.with_data(np.where(good, values, np.float32(0)))


def sa2rage_protocol(sidecars: Sequence[Mapping[str, Any]]) -> Protocol | None:
    """The settings of SA2RAGE from the sidecars of its two images; None without usable ones."""
    return t1_mapping.protocol_of(*sidecars, kind='sa2rage')


def from_sa2rage(images: Sequence[Volume], phases: Sequence[Volume], protocol: Protocol) -> Volume:
    """B1+ as a fraction of nominal from the two images of SA2RAGE; 0 in air.

    Their ratio falls with B1+ and is read at a T1 of 1.5 s, on which it hardly depends
    (Eggenschwiler et al. 2012, doi 10.1002/mrm.23145). It changes its sign near the nominal field:
    so the phases are needed.

    Parameters
    ----------
    images, phases : of the short and the long delay, on one grid; phases as stored.

    Raises
    ------
    DataError : the grids differ, a phase is constant, or there is no signal.
    """
    first, second = images
    if not all(same_grid(second, other) for other in (first, *phases)):
        raise DataError('the images of SA2RAGE are not on one grid')
    top = float(np.percentile(second.data, 99))
    if not top > 0:
        raise DataError('the second image of SA2RAGE has no signal')
    inside = second.data > AIR * top
    between = np.cos(phase_in_radians(phases[1]) - phase_in_radians(phases[0]))
    ratio = first.data * np.sign(between) / np.where(inside, second.data, 1)
    fields = np.linspace(*PLAUSIBLE, STEPS)
    water = Tissue(t1=SA2RAGE_T1, t2=1.0, t2star=np.inf, density=1.0, transfer=1.0)
    one, two = signals(water, protocol, fields)
    table = one / two
    falling = slice(int(np.argmax(table)), int(np.argmin(table)) + 1)
    found = np.interp(ratio, table[falling][::-1], fields[falling][::-1])
    return second.with_data(np.where(inside, found, 0).astype(np.float32))


def check_coverage(field: Volume, grid: Grid, head: np.ndarray) -> list[str]:
    """Check that a B1+ map is one of this head.

    Parameters
    ----------
    head : bool, on the grid of the image that is corrected.

    Returns
    -------
    Warnings: part of the head lies outside the map, where :func:`on_grid` extends it.

    Raises
    ------
    DataError : most of the head lies outside the field of view of the map, or farther than 15 mm
        from its values above 0.
    """
    voxels = np.argwhere(head)[:: max(1, int(head.sum()) // 20_000)]
    if not len(voxels):
        return []
    mapping = np.linalg.inv(field.affine) @ grid.affine
    places = voxels @ mapping[:3, :3].T + mapping[:3, 3]
    inside = ((places > -0.5) & (places < np.array(field.shape) - 0.5)).all(axis=1)
    # where the map is masked, its nearest value is used: near by that is right
    away = ndimage.distance_transform_edt(field.data <= 0, sampling=field.spacing)
    nearest = np.clip(np.rint(places).astype(int), 0, np.array(field.shape) - 1)
    inside &= away[tuple(nearest.T)] <= NEAR
    if inside.mean() < MIN_COVERED:
        raise DataError(
            f'the B1+ map covers {inside.mean():.0%} of the head (at least {MIN_COVERED:.0%} are '
            'needed)',
            advice='It is probably of another position of the head or of another session.',
        )
    if inside.mean() < COVERED:
        return [
            f'the B1+ map covers {inside.mean():.0%} of the head; its nearest value is used '
            'elsewhere'
        ]
    return []


def on_grid(field: Volume, grid: Grid) -> np.ndarray:
    """A B1+ map, smoothed, on the grid of another image of the same session.

    Holes (0) and what lies outside the map take the nearest value.
    """
    good = field.data > 0
    _, nearest = ndimage.distance_transform_edt(~good, sampling=field.spacing, return_indices=True)
    whole = ndimage.gaussian_filter(field.data[tuple(nearest)], SMOOTHING / field.spacing)
    there = resample(field.with_data(whole), grid.affine, grid.shape, antialias=False).data
    inside = resample(
        field.with_data(np.ones(field.shape, np.float32)), grid.affine, grid.shape, antialias=False
    ).data
    there = np.where(inside > 0.5, there / np.maximum(inside, 0.5), 0)
    if (there == 0).any():
        _, nearest = ndimage.distance_transform_edt(there == 0, return_indices=True)
        there = there[tuple(nearest)]
    return np.clip(there, *LIMITS).astype(np.float32)
