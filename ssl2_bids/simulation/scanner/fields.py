"""Fields of a scanner over a head: transmit (B1+), static (B0) and receive, on any grid.

Everything random is drawn by the ``draw_*`` functions into plain numbers that go to JSON and
back (``tables.to_table``, ``tables.from_table``); the ``*_map`` functions are pure: equal
draws give equal bytes, and on a finer grid nearly the same field in finer steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssl2_bids.simulation.smooth import brain_box, draw_seed, positions, smooth_noise

Range = tuple[float, float]
Point = tuple[float, float, float]

HYDROGEN = 42.577  # MHz per T, gyromagnetic ratio over 2 pi (CODATA)
TRANSMIT_LIMITS = (0.35, 1.5)
TRANSMIT_KNOTS = 40.0  # mm
OFF_RESONANCE_KNOTS = 40.0  # mm
PHASE_KNOTS = 60.0  # mm
COMMISSURES = -5.0  # mm; plane of the commissures above the middle of the brain's box
DROP_DEPTH = 40.0  # mm below that plane where half of the loss is reached
DROP_WIDTH = 12.0  # mm
SIDE_WIDTH = 30.0  # mm from the midplane over which the loss goes from one side's to the other's
HEAD_RADIUS = 80.0  # mm
# Air cavities, as shares of half the brain's box from its middle to the right, front and top.
CAVITIES = ((0.0, 0.65, -0.40), (-0.78, 0.05, -0.55), (0.78, 0.05, -0.55))


@dataclass(frozen=True)
class TransmitRanges:
    """Ranges (least, most) of the transmit field B1+, a fraction of nominal.

    Attributes
    ----------
    mean : over the brain.
    dome : how much brighter the centre is than far away.
    width : of that dome along each axis, in mm (standard deviation of a Gaussian).
    drop : loss far below the plane of the commissures.
    asymmetry : most by which the loss of a side differs from the mean of both.
    noise : standard deviation of the smooth rest, knots 40 mm apart.
    """

    mean: Range
    dome: Range
    width: Range
    drop: Range
    asymmetry: float
    noise: float


@dataclass(frozen=True)
class OffResonanceRanges:
    """Ranges (least, most) of the static field's error, in parts per million.

    Attributes
    ----------
    background : standard deviation of the smooth rest that shimming leaves.
    cavity : peak above the frontal sinus and above each ear canal.
    """

    background: Range
    cavity: Range


@dataclass(frozen=True)
class ReceiveRanges:
    """Ranges (least, most) of the receive gain.

    Attributes
    ----------
    spread : standard deviation of its log over the head.
    rim : share of it that is a bright rim around a dark centre, 0 to 1; the rest is smooth noise.
    scale : distance in mm between the knots of that noise.
    phase : standard deviation of the coil's phase in radians.
    """

    spread: Range
    rim: Range
    scale: float
    phase: float


@dataclass(frozen=True)
class TransmitDraw:
    """One transmit field.

    Attributes
    ----------
    mean : over the brain, as a fraction of nominal.
    dome : how much brighter its middle is than far away.
    centre, widths : of the dome in mm: middle from that of the brain, standard deviations.
    left, right : loss far below the plane of the commissures.
    noise : standard deviation of the smooth rest.
    seed : of the smooth rest.
    """

    mean: float
    dome: float
    centre: Point
    widths: Point
    left: float
    right: float
    noise: float
    seed: int


@dataclass(frozen=True)
class Cavity:
    """Error of the static field above an air cavity.

    Attributes
    ----------
    centre : shares of half the brain's box from its middle, to the right, front and top.
    width : standard deviation of the Gaussian in mm.
    peak : parts per million.
    """

    centre: Point
    width: float
    peak: float


@dataclass(frozen=True)
class OffResonanceDraw:
    """One error of the static field: smooth rest (standard deviation in ppm) and cavities."""

    background: float
    cavities: tuple[Cavity, ...]
    seed: int


@dataclass(frozen=True)
class ReceiveDraw:
    """One receive field.

    Attributes
    ----------
    spread : standard deviation of the log of the gain over a head.
    rim : share of it that is a bright rim around a dark centre.
    scale : distance in mm between the knots of the rest.
    phase : standard deviation of the coil's phase in radians.
    offset : phase in radians that the whole image has.
    seed : of the smooth rest and the phase.
    """

    spread: float
    rim: float
    scale: float
    phase: float
    offset: float
    seed: int


def draw_transmit(random: np.random.Generator, ranges: TransmitRanges) -> TransmitDraw:
    """Draw a transmit field: bright dome, loss at the bottom, smooth rest."""
    side = random.uniform(-ranges.asymmetry, ranges.asymmetry)
    drop = random.uniform(*ranges.drop)
    return TransmitDraw(
        mean=random.uniform(*ranges.mean),
        dome=random.uniform(*ranges.dome),
        centre=_point(random.uniform(-15, 15, 3)),
        widths=_point(random.uniform(*ranges.width, 3)),
        left=max(drop + side, 0.0),
        right=max(drop - side, 0.0),
        noise=ranges.noise,
        seed=draw_seed(random),
    )


def draw_off_resonance(
    random: np.random.Generator, ranges: OffResonanceRanges
) -> OffResonanceDraw:
    """Draw an error of the static field: smooth rest, frontal sinus, ear canals."""
    cavities = tuple(
        Cavity(
            _point(np.array(centre) + random.uniform(-0.06, 0.06, 3)),
            float(random.uniform(9, 15)),
            float(random.uniform(*ranges.cavity)),
        )
        for centre in CAVITIES
    )
    return OffResonanceDraw(random.uniform(*ranges.background), cavities, draw_seed(random))


def draw_receive(random: np.random.Generator, ranges: ReceiveRanges) -> ReceiveDraw:
    """Draw a receive field: bright rim, smooth rest, coil phase."""
    return ReceiveDraw(
        spread=random.uniform(*ranges.spread),
        rim=random.uniform(*ranges.rim),
        scale=ranges.scale,
        phase=ranges.phase,
        offset=random.uniform(-np.pi, np.pi),
        seed=draw_seed(random),
    )


def transmit_map(draw: TransmitDraw, brain: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """B1+ as a fraction of nominal, float32 of the brain mask's shape, within 0.35 to 1.5.

    ``b = b0 [1 + A exp(-r' S^-1 r / 2) - G s(z) + e]``: a dome whose middle lies near that of the
    brain, a loss G (of each side) below the plane of the commissures, and a smooth rest; b0 makes
    the mean over the brain that of the draw before the limits are applied.

    Parameters
    ----------
    brain : bool (I, J, K), True somewhere.
    affine : (4, 4), voxels to RAS+ mm.
    """
    middle, _ = brain_box(brain, affine)
    x, y, z = positions(brain.shape, affine, middle)
    away = ((x - draw.centre[0]) / draw.widths[0]) ** 2
    away = away + ((y - draw.centre[1]) / draw.widths[1]) ** 2
    away = away + ((z - draw.centre[2]) / draw.widths[2]) ** 2
    field = np.float32(draw.dome) * np.exp(-away / 2)
    # All that is known is that the sides differ; how one goes over to the other is a choice.
    side = np.tanh(x / SIDE_WIDTH)
    loss = (draw.left + draw.right) / 2 + (draw.right - draw.left) / 2 * side
    field -= loss / (1 + np.exp((z - COMMISSURES + DROP_DEPTH) / DROP_WIDTH))
    noise = smooth_noise(brain.shape, affine, middle, seed=draw.seed, scale=TRANSMIT_KNOTS)
    field += np.float32(draw.noise) * noise
    field += 1
    field *= np.float32(draw.mean / field[brain].mean(dtype=np.float64))
    return np.clip(field, *TRANSMIT_LIMITS, out=field)


def off_resonance_map(
    draw: OffResonanceDraw, brain: np.ndarray, affine: np.ndarray, *, field: float
) -> np.ndarray:
    """Error of the static field in Hz, float32 of the brain mask's shape, mean 0 in the brain.

    Parameters
    ----------
    brain : bool (I, J, K), True somewhere.
    affine : (4, 4), voxels to RAS+ mm.
    field : T.
    """
    middle, half = brain_box(brain, affine)
    x, y, z = positions(brain.shape, affine, middle)
    error = smooth_noise(brain.shape, affine, middle, seed=draw.seed, scale=OFF_RESONANCE_KNOTS)
    error *= np.float32(draw.background)
    for cavity in draw.cavities:
        centre = [float(c * h) for c, h in zip(cavity.centre, half, strict=True)]
        away = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2
        error += np.float32(cavity.peak) * np.exp(-away / (2 * cavity.width**2))
    error -= np.float32(error[brain].mean(dtype=np.float64))
    error *= np.float32(HYDROGEN * field)
    return error


def receive_map(
    draw: ReceiveDraw, shape: tuple[int, ...], affine: np.ndarray, centre: np.ndarray
) -> np.ndarray:
    """Receive gain, float32, near 1 on average over a head around ``centre`` (RAS+ mm)."""
    x, y, z = positions(shape, affine, centre)
    # (r/R)^2 over a ball has mean 3/5 and variance 12/175.
    rim = np.minimum((x**2 + y**2 + z**2) / HEAD_RADIUS**2, 1.5)
    rim = (rim - 0.6) / 0.262
    noise = smooth_noise(shape, affine, centre, seed=draw.seed, scale=draw.scale)
    log = np.float32(draw.rim) * rim + np.float32(np.sqrt(1 - draw.rim**2)) * noise
    return np.exp(np.float32(draw.spread) * log)


def receive_phase(
    draw: ReceiveDraw, shape: tuple[int, ...], affine: np.ndarray, centre: np.ndarray
) -> np.ndarray:
    """Phase of the coil in radians, float32, smooth, not wrapped."""
    noise = smooth_noise(shape, affine, centre, seed=draw.seed + 1, scale=PHASE_KNOTS)
    return np.float32(draw.phase) * noise + np.float32(draw.offset)


def echo_phase(off_resonance: np.ndarray, te: float, coil: np.ndarray | float = 0.0) -> np.ndarray:
    """Phase of a gradient echo in radians, -pi to pi: ``2 pi df TE`` and that of the coil."""
    phase = off_resonance * np.float32(2 * np.pi * te) + coil
    phase -= np.float32(2 * np.pi) * np.rint(phase / np.float32(2 * np.pi))
    return phase


def _point(values: np.ndarray) -> Point:
    x, y, z = map(float, values)
    return x, y, z
