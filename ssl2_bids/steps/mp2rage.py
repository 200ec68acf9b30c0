"""MP2RAGE: the uniform image UNIT1 without its background noise."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ssl2_bids.errors import DataError
from ssl2_bids.volume import Volume
from ssl2_bids.voxel_grid import same_grid

FULL_SCALE = 4095.0  # the scanner stores -0.5 to 0.5 as 0 to 4095
SCALES = ((-0.5, 0.5), (0.0, 1.0), (0.0, 4095.0))  # tried in this order
DEGREES = (340.0, 361.0)  # range of a phase in degrees
MILLIRADIANS = 0.01  # share by which a range of 2000 pi may differ
MARGIN = 0.02  # share of a scale
NOISE_FACTOR = 6.0  # beta = (factor x noise of INV2)^2 in air; O'Brien 2014 tried 1 to 10
AIR_SIGNAL = 3.0  # times the noise: INV2, smoothed, that is neither air nor tissue
AIR_STEEPNESS = 6  # of the transition from air to tissue
AIR_SMOOTHING = 1.0  # voxels, of INV2 before it is compared with its noise
STRIPPED_SHARE = 0.3  # share of exact zeros in INV2 from which its background was set to zero


def to_signed(unit1: np.ndarray) -> np.ndarray:
    """UNIT1 in its physical range from -0.5 to 0.5, from any scale of storage.

    Programs that interpolate overshoot: 2 % beyond each end of a range is still that range.

    Raises
    ------
    DataError : neither -0.5 to 0.5, nor 0 to 1, nor 0 to 4095.
    """
    low, high = float(unit1.min()), float(unit1.max())
    for bottom, top in SCALES:
        margin = MARGIN * (top - bottom)
        # a scale that an image fills by less than a tenth is not its own
        if low >= bottom - margin and bottom + (top - bottom) / 10 < high <= top + margin:
            return (np.clip(unit1, bottom, top) - bottom) / (top - bottom) - 0.5
    raise DataError(
        f'the values of UNIT1 run from {low:g} to {high:g}, '
        'neither -0.5 to 0.5, nor 0 to 1, nor 0 to 4095',
        advice='Give the uniform image as the scanner stored it.',
    )


def on_full_scale(unit1: Volume) -> Volume:
    """UNIT1 from 0 to 4095, with its background at 0 where that was set to a constant.

    In an image from -0.5 to 0.5 that was stripped to zero, zero is background, not a value.

    Raises
    ------
    DataError : see :func:`to_signed`.
    """
    stored = (to_signed(unit1.data.astype(np.float32)) + 0.5) * np.float32(FULL_SCALE)
    return unit1.with_data(np.where(constant_background(unit1.data), np.float32(0), stored))


def constant_background(unit1: np.ndarray) -> np.ndarray:
    """Voxels that were set to zero, bool; none unless that was done to much of the image.

    Zeros that other values enclose are values.
    """
    zero = unit1 == 0
    if zero.mean() <= STRIPPED_SHARE:
        return np.zeros(unit1.shape, bool)
    return ~ndimage.binary_fill_holes(~zero)


def noise_level(inv2: np.ndarray) -> float:
    """Level of the background noise of a magnitude image: the median below Otsu's threshold."""
    values = inv2[inv2 > 0]
    if values.size == 0 or (inv2 == 0).mean() > STRIPPED_SHARE:
        return 0.0
    counts, edges = np.histogram(values, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    weight = np.cumsum(counts)
    mean = np.cumsum(counts * centres)
    with np.errstate(divide='ignore', invalid='ignore'):
        between = (mean[-1] * weight / weight[-1] - mean) ** 2 / (weight * (weight[-1] - weight))
    threshold = centres[int(np.nanargmax(between[:-1]))]
    return float(np.median(values[values <= threshold]))


def signed_inv1(uni: np.ndarray, inv1: np.ndarray, inv2: np.ndarray) -> np.ndarray:
    """The first inversion image with its sign.

    The root of ``UNI S1^2 - S2 S1 + UNI S2^2 = 0`` that is nearest to sign(UNI) |S1|
    (Marques 2010, eq. 3 solved for S1); all arrays of one shape, UNI in -0.5 to 0.5.
    """
    magnitude = np.sign(uni) * np.abs(inv1)
    root = np.sqrt(np.maximum(inv2**2 * (1 - 4 * uni**2), 0))
    safe = np.where(np.abs(uni) < 1e-6, 1e-6, uni)
    plus, minus = (inv2 + root) / (2 * safe), (inv2 - root) / (2 * safe)
    nearer = np.where(np.abs(plus - magnitude) < np.abs(minus - magnitude), plus, minus)
    return np.where(np.abs(uni) < 1e-6, 0, nearer)


def noise_removal(inv2: np.ndarray, level: float) -> np.ndarray:
    """Beta of the robust combination for each voxel.

    ``(6 level)^2 / (1 + (s / 3 level)^6)``, where ``s`` is INV2 smoothed by one voxel: all of it
    in air, where ``s`` is about 1.2 times the noise of one channel, and less than a hundredth of
    it from 7 times the noise on.

    Parameters
    ----------
    inv2 : magnitude, (I, J, K).
    level : its noise, above 0.
    """
    signal = ndimage.gaussian_filter(inv2, AIR_SMOOTHING) / (AIR_SIGNAL * level)
    return np.asarray((NOISE_FACTOR * level) ** 2 / (1 + signal**AIR_STEEPNESS), np.float32)


def head_of(inv2: Volume) -> np.ndarray:
    """Where INV2 is above its noise, bool: tissue and fluid, but neither air nor dense bone."""
    level = noise_level(inv2.data)
    if level <= 0:
        return inv2.data > 0
    smooth = ndimage.gaussian_filter(inv2.data.astype(np.float32), AIR_SMOOTHING)
    return np.asarray(smooth > AIR_SIGNAL * level)


def phase_in_radians(phase: Volume) -> np.ndarray:
    """A stored phase in radians; a constant offset is left, which cancels in the combination.

    Values within 2 pi of 0 are radians, values over a range of about 360 are degrees, over one
    of about 2000 pi milliradians (GE, and the display scale of Philips). Others are
    integers of the scanner, whose full circle is the power of two from their range up (4096 or
    8192, most often). Noise in air has all phases, so that the range is that of the full circle.

    Raises
    ------
    DataError : the image is constant.
    """
    low, high = float(phase.data.min()), float(phase.data.max())
    if not high > low:
        raise DataError(
            'the phase is constant', advice='Convert it again, or leave it out with a filter.'
        )
    if max(abs(low), abs(high)) <= 2 * np.pi + 0.01:
        return phase.data.astype(np.float32)
    circle = 2.0 ** np.ceil(np.log2(high - low))
    if DEGREES[0] <= high - low <= DEGREES[1]:
        circle = 360.0
    elif abs((high - low) / (2000 * np.pi) - 1) <= MILLIRADIANS:
        circle = 2000 * np.pi
    return (phase.data * (2 * np.pi / circle)).astype(np.float32)


def combine(inv1: Volume, inv2: Volume, phase1: Volume, phase2: Volume) -> Volume:
    """UNIT1 from the complex inversion images: ``Re(S1* S2) / (|S1|^2 + |S2|^2)``.

    Marques et al. 2010, doi 10.1016/j.neuroimage.2009.10.002, eq. 3. The magnitudes alone do not
    have the sign of S1: cortex and white matter would look alike.

    Parameters
    ----------
    inv1, inv2 : magnitudes.
    phase1, phase2 : phases as stored, see :func:`phase_in_radians`.

    Returns
    -------
    UNIT1, 0 to 4095.

    Raises
    ------
    DataError : the grids differ, or a phase is constant.
    """
    for name, volume in (('INV1', inv1), ('the phase of INV1', phase1), ('that of INV2', phase2)):
        if not same_grid(inv2, volume):
            raise DataError(f'{name} is not on the grid of INV2')
    first, second = inv1.data.astype(np.float32), inv2.data.astype(np.float32)
    between = np.cos(phase_in_radians(phase2) - phase_in_radians(phase1))
    power = np.maximum(first**2 + second**2, np.finfo(np.float32).tiny)
    uni = np.clip(first * second * between / power, -0.5, 0.5)
    # both are 0 outside a stripped brain: that is background, not a value
    stored = np.where((first == 0) & (second == 0), 0, (uni + 0.5) * FULL_SCALE)
    return Volume(stored.astype(np.float32), inv2.affine, 'UNIT1')


def remove_background_noise(unit1: Volume, inv1: Volume, inv2: Volume) -> tuple[Volume, float]:
    """Robust combination of MP2RAGE, in air alone.

    ``(S1 S2 - beta) / (S1^2 + S2^2 + 2 beta)`` (O'Brien 2014, doi 10.1371/journal.pone.0099676);
    S1 is recovered from UNIT1 and the magnitudes. One beta for all voxels restores the receive
    field, more strongly in noisier scans. So beta is (6 x noise of INV2)^2 in air, and falls to
    nothing where INV2 is far above its noise, see :func:`noise_removal`.

    Parameters
    ----------
    unit1 : as stored, -0.5 to 0.5 or 0 to 4095.
    inv1, inv2 : magnitudes on the same grid.

    Returns
    -------
    UNIT1 from 0 (background) to 4095, and the noise level found, 0 if the background of INV2 was
    zero already (then the background of INV2 is set to zero).

    Raises
    ------
    DataError : the grids differ, or the scale of UNIT1 is unknown.
    """
    for name, volume in (('INV1', inv1), ('INV2', inv2)):
        if not same_grid(unit1, volume):
            raise DataError(f'{name} is not on the grid of UNIT1')
    uni = to_signed(unit1.data.astype(np.float32))
    level = noise_level(inv2.data)
    if level > 0:
        second = inv2.data.astype(np.float32)
        beta = noise_removal(second, level)
        for slab in range(len(uni)):  # all at once take half a gigabyte
            s2, b = second[slab], beta[slab]
            s1 = signed_inv1(uni[slab], inv1.data[slab].astype(np.float32), s2)
            # a voxel's own noise makes its sign jump: nothing is smoothed, only suppressed
            uni[slab] = (s1 * s2 - b) / (s1**2 + s2**2 + 2 * b)
    stored = np.clip((uni + 0.5) * FULL_SCALE, 0, FULL_SCALE).astype(np.float32)
    background = constant_background(unit1.data)
    if level <= 0:  # the air was taken away there
        background |= constant_background(inv2.data)
    return unit1.with_data(np.where(background, np.float32(0), stored)), level


def is_noisy(unit1: Volume) -> bool:
    """Whether a UNIT1 still has the salt-and-pepper background of the plain ratio image.

    The outermost voxels of a head image are air: noise there spreads over the whole range.
    """
    shell = np.ones(unit1.shape, bool)
    shell[3:-3, 3:-3, 3:-3] = False
    values = to_signed(unit1.data.astype(np.float32))[shell]
    return bool(values.std() > 0.15)


def smooth_for_masking(unit1: Volume) -> Volume:
    """UNIT1 with a median filter of 3 voxels: for the brain extraction in a noisy one."""
    return unit1.with_data(ndimage.median_filter(unit1.data, 3))


def methods(level: float) -> str:
    """The methods sentence."""
    if level <= 0:
        return (
            'The background of the second inversion image was zero, and was set to zero in the '
            'UNIT1 image too; no noise was removed.'
        )
    return (
        'The background noise of the UNIT1 image was removed with the robust combination of '
        'the two inversion images [@obrien2014; @marques2010], applied where the second inversion '
        'image is at its noise level.'
    )


COMBINED = (
    'The UNIT1 image was computed from magnitude and phase of the two inversion images '
    '[@marques2010].'
)
