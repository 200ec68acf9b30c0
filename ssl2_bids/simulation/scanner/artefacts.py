"""What a scanner adds to an image: noise, ghosts of motion, spikes, ringing, distortion, voids.

Images are magnitudes, signed or complex, of shape (I, J, K). Everything random is drawn by the
``draw_*`` functions into plain numbers that go to JSON and back; the others are pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import fft

from ssl2_bids.simulation.smooth import draw_seed

Range = tuple[float, float]


@dataclass(frozen=True)
class NoiseDraw:
    """Noise of a scan.

    Attributes
    ----------
    snr : signal of white matter over the standard deviation of either complex component.
    seed : of the noise.
    """

    snr: float
    seed: int


@dataclass(frozen=True)
class MotionDraw:
    """Motion along the phase-encoding direction during a scan.

    Attributes
    ----------
    times : shares (0 to 1) of the scan at which the head jumps; the centre of k-space is at 0.5.
    jumps : mm, by how much, as many as times.
    sway : amplitude of a periodic motion (breathing) in mm.
    cycles : of that motion during the scan.
    phase : of that motion at the start, in radians.
    """

    times: tuple[float, ...]
    jumps: tuple[float, ...]
    sway: float
    cycles: float
    phase: float


@dataclass(frozen=True)
class SpikeDraw:
    """One spike in k-space.

    Attributes
    ----------
    place : cycles per voxel along the voxel axes, -0.5 to 0.5.
    size : amplitude of its stripes as a share of the signal of white matter.
    phase : radians.
    """

    place: tuple[float, float, float]
    size: float
    phase: float


@dataclass(frozen=True)
class Artefacts:
    """All that is added to one scan; None or empty means without.

    Attributes
    ----------
    kept : share of k-space kept along each voxel axis (below 1: ringing), or None.
    """

    noise: NoiseDraw | None = None
    motion: MotionDraw | None = None
    spikes: tuple[SpikeDraw, ...] = ()
    kept: tuple[float, float, float] | None = None

    def with_averages(self, averages: float) -> Artefacts:
        """The same artefacts with the noise of several repetitions that are averaged."""
        if self.noise is None or averages == 1:
            return self
        return replace(self, noise=replace(self.noise, snr=self.noise.snr * averages**0.5))


def draw_noise(random: np.random.Generator, snr: Range) -> NoiseDraw:
    """Draw the noise of a scan."""
    return NoiseDraw(float(random.uniform(*snr)), draw_seed(random))


def draw_motion(random: np.random.Generator, *, severity: float = 1.0) -> MotionDraw:
    """Draw motion: one to four jumps and a sway; at severity 1 they are up to about 1.5 mm."""
    count = int(random.integers(1, 5))
    return MotionDraw(
        times=tuple(sorted(map(float, random.uniform(0.05, 0.95, count)))),
        jumps=tuple(float(v) for v in severity * random.normal(0, 0.7, count)),
        sway=float(severity * random.uniform(0.05, 0.4)),
        cycles=float(random.uniform(8, 60)),
        phase=float(random.uniform(0, 2 * np.pi)),
    )


def draw_spike(random: np.random.Generator, *, size: Range = (0.02, 0.1)) -> SpikeDraw:
    """Draw a spike anywhere in k-space but its middle."""
    place = random.uniform(0.05, 0.45, 3) * random.choice([-1, 1], 3)
    x, y, z = map(float, place)
    return SpikeDraw((x, y, z), float(random.uniform(*size)), float(random.uniform(0, 2 * np.pi)))


def draw_artefacts(
    random: np.random.Generator,
    *,
    snr: Range,
    motion: float = 0.0,
    spikes: int = 0,
    ringing: bool = False,
) -> Artefacts:
    """Draw the artefacts of one scan.

    Parameters
    ----------
    snr : range of the ratio of signal to noise.
    motion : severity, 0 for none.
    spikes : how many.
    ringing : whether k-space is cut, at 70 to 95 % of each axis.
    """
    noise = draw_noise(random, snr)
    moved = draw_motion(random, severity=motion) if motion > 0 else None
    struck = tuple(draw_spike(random) for _ in range(spikes))
    x, y, z = map(float, random.uniform(0.7, 0.95, 3))
    return Artefacts(noise, moved, struck, (x, y, z) if ringing else None)


def apply(
    image: np.ndarray,
    artefacts: Artefacts,
    *,
    white: float,
    phase_axis: int,
    spacing: float,
    image_number: int = 0,
) -> np.ndarray:
    """A complex64 image with all artefacts of a scan; its magnitude is what a scanner stores.

    Parameters
    ----------
    image : real (signed) or complex, without noise.
    white : signal of white matter that the ratio of signal to noise refers to.
    phase_axis : voxel axis of the phase encoding, along which motion ghosts.
    spacing : voxel edge in mm along that axis.
    image_number : which image of the sequence: each echo or inversion has noise of its own.
    """
    if artefacts.motion:
        image = ghosts(image, artefacts.motion, axis=phase_axis, spacing=spacing)
    if artefacts.kept:
        image = ringing(image, artefacts.kept)
    image = image.astype(np.complex64)
    for spike in artefacts.spikes:
        image += stripes(image.shape, spike, white=white)
    if artefacts.noise:
        image = noisy(image, artefacts.noise, white=white, image_number=image_number)
    return image


def noisy(
    image: np.ndarray, draw: NoiseDraw, *, white: float, image_number: int = 0
) -> np.ndarray:
    """Complex64 image with Gaussian noise of ``white / snr`` in both components.

    The magnitude is then Rician.
    """
    random = np.random.default_rng([draw.seed, image_number])
    result = image.astype(np.complex64)
    level = np.float32(white / draw.snr)
    for part in (result.real, result.imag):
        part += level * random.standard_normal(image.shape, dtype=np.float32)
    return result


def ghosts(image: np.ndarray, draw: MotionDraw, *, axis: int, spacing: float) -> np.ndarray:
    """Complex64 image of a head that moved along the phase-encoding axis during the scan.

    Lines of k-space are acquired one after another from one edge to the other; a shift by d mm
    turns line k by ``exp(-2 pi i k d)``. The position at the centre of k-space is that of the
    unmoved image.
    """
    lines = image.shape[axis]
    frequency = fft.fftshift(fft.fftfreq(lines))
    time = (np.arange(lines) + 0.5) / lines

    def where(t: np.ndarray) -> np.ndarray:
        jumped = sum(
            (jump * (t >= at) for at, jump in zip(draw.times, draw.jumps, strict=True)),
            np.zeros_like(t),
        )
        return jumped + draw.sway * np.sin(2 * np.pi * draw.cycles * t + draw.phase)

    shift = (where(time) - where(np.array([0.5]))) / spacing
    turn = fft.ifftshift(np.exp(-2j * np.pi * frequency * shift)).astype(np.complex64)
    space = fft.fft(image.astype(np.complex64), axis=axis, overwrite_x=True)
    space *= turn.reshape([-1 if n == axis else 1 for n in range(image.ndim)])
    return fft.ifft(space, axis=axis, overwrite_x=True)


def stripes(shape: tuple[int, ...], draw: SpikeDraw, *, white: float) -> np.ndarray:
    """What a spike adds to an image: a plane wave, complex64."""
    waves = [
        np.exp(2j * np.pi * share * np.arange(n)).astype(np.complex64)
        for share, n in zip(draw.place, shape, strict=True)
    ]
    peak = np.complex64(draw.size * white * np.exp(1j * draw.phase))
    return (peak * waves[0])[:, None, None] * (waves[1][:, None] * waves[2])


def ringing(image: np.ndarray, kept: tuple[float, float, float]) -> np.ndarray:
    """Image whose k-space is cut beyond a share of each axis (Gibbs ringing).

    Real images stay real float32; the grid is kept (the scanner fills with zeros).
    """
    real = not np.iscomplexobj(image)
    result = image.astype(np.complex64)
    for axis, share in enumerate(kept):
        if share >= 1:
            continue
        space = fft.fft(result, axis=axis, overwrite_x=True)
        outside = np.abs(fft.fftfreq(image.shape[axis])) > share / 2
        space[tuple(outside if n == axis else slice(None) for n in range(3))] = 0
        result = fft.ifft(space, axis=axis, overwrite_x=True)
    return np.ascontiguousarray(result.real) if real else result


def dephasing(
    off_resonance: np.ndarray, te: float, steps: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> np.ndarray:
    """Share (0 to 1) of a gradient echo left by the static field's slope inside each voxel.

    ``|sinc(d df TE)|`` along each axis, with the change d df of the off-resonance (Hz) from one
    side of a voxel to the other (box-shaped voxels).

    Parameters
    ----------
    off_resonance : Hz, (I, J, K).
    te : s.
    steps : voxel edges of the image in steps of the map's grid, along the map's axes: 3 where the
        image's voxels are three times as thick.
    """
    left = np.ones(off_resonance.shape, np.float32)
    for axis, step in enumerate(steps):
        if off_resonance.shape[axis] > 1:
            slope = np.gradient(off_resonance, axis=axis)
            left *= np.abs(np.sinc(np.float32(te * step) * slope))
    return left


def distort(
    image: np.ndarray, off_resonance: np.ndarray | float, *, bandwidth: float, axis: int
) -> np.ndarray:
    """Image displaced along the readout by ``off_resonance / bandwidth`` voxels.

    Signal is kept: it piles up where voxels crowd. A number for ``off_resonance`` displaces all
    of it (the shift of fat). Bandwidth 0 changes nothing.

    Parameters
    ----------
    image : real or complex (I, J, K).
    off_resonance : Hz, on the image's grid.
    bandwidth : Hz per voxel.
    axis : voxel axis of the readout.
    """
    if bandwidth == 0:
        return image
    lines = np.moveaxis(image, axis, -1)
    shift = np.broadcast_to(np.asarray(off_resonance, np.float32), image.shape)
    shift = np.moveaxis(shift, axis, -1)
    result = np.empty(lines.shape, image.dtype)
    # Plane by plane: the arrays in between stay small.
    for plane in range(len(lines)):
        result[plane] = _displace(lines[plane], shift[plane] / np.float32(bandwidth))
    return np.ascontiguousarray(np.moveaxis(result, -1, axis))


def _displace(lines: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Lines (M, N) whose signal at n went to ``n + shift[m, n]``; zero beyond the ends."""
    count = lines.shape[1]
    goal = np.arange(count, dtype=np.float32)
    row = np.arange(len(lines))[:, None]
    source = goal - shift
    # Where a signal came from depends on the shift there: two steps of a fixed point suffice
    # because the shift changes by far less than a voxel from one voxel to the next.
    for _ in range(2):
        near = np.clip(np.rint(source), 0, count - 1).astype(np.intp)
        source = goal - shift[row, near]
    crowding = np.gradient(source, axis=1) if count > 1 else np.ones_like(source)
    low = np.floor(source)
    share = source - low
    first = low.astype(np.intp)
    inside = (source >= 0) & (source <= count - 1)
    left = lines[row, np.clip(first, 0, count - 1)]
    right = lines[row, np.clip(first + 1, 0, count - 1)]
    return (left + (right - left) * share) * (np.maximum(crowding, 0) * inside)
