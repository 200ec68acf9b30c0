"""Signal equations of the sequences, with the tissues and protocols that they are fed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Value = float | np.ndarray

INVERSION_EFFICIENCY = 0.96


@dataclass(frozen=True)
class Tissue:
    """Relaxation and density: numbers, or one value per voxel.

    Attributes
    ----------
    t1, t2, t2star : s.
    density : proton density, CSF = 1.
    transfer : signal left in a turbo spin echo by magnetisation transfer, 0 to 1.
    """

    t1: Value
    t2: Value
    t2star: Value
    density: Value
    transfer: Value


# Effective values for these equations. Those measured one property at a time (Wright 2008, Cox
# and Gowland 2010) give a FLAIR whose cortex is darker than white matter, unlike any scan; so T1
# is that of MP2RAGE, T2 that of multi-echo spin echo (Stanisz 2005), with magnetisation transfer.
TISSUES = {
    3: {
        'wm': Tissue(0.85, 0.069, 0.053, 0.70, 0.85),
        'gm': Tissue(1.35, 0.099, 0.060, 0.81, 0.93),
        'csf': Tissue(4.3, 1.600, 0.200, 1.00, 1.00),
    },
    7: {
        'wm': Tissue(1.15, 0.046, 0.026, 0.70, 0.85),
        'gm': Tissue(1.85, 0.055, 0.032, 0.81, 0.93),
        'csf': Tissue(4.3, 1.000, 0.150, 1.00, 1.00),
    },
}


def lesion_tissue(white: Tissue, damage: Value) -> Tissue:
    """Lesion of white matter, from slight to a black hole.

    Parameters
    ----------
    damage : loss of R1, 0 to 0.55; T2, density and the loss of myelin's magnetisation transfer
        grow with it.
    """
    grade = np.clip(damage / 0.55, 0, 1)
    return Tissue(
        t1=white.t1 / (1 - damage),
        t2=white.t2 * (1.15 + 1.35 * grade),
        t2star=white.t2star * (1.1 + 1.1 * grade),
        density=white.density + 0.22 * grade,
        transfer=white.transfer + (1 - white.transfer) * 0.8 * grade,
    )


@dataclass(frozen=True)
class Protocol:
    """Times in s, angles in degrees.

    Attributes
    ----------
    tr : one repetition, from inversion to inversion or from excitation to excitation.
    te : echo time that acts on the signal (effective, for a turbo spin echo).
    ti : inversion times to each k-space centre; empty without inversion.
    angles : excitation angle of each gradient-echo train; empty for a turbo spin echo.
    spacing, pulses : of a gradient-echo train: time between excitations, their number before
        and after the k-space centre.
    train : duration of the spin-echo train.
    preparation : echo time of the T2 preparation, 0 without.
    """

    tr: float
    te: float
    ti: tuple[float, ...] = ()
    angles: tuple[float, ...] = ()
    spacing: float = 0.0
    pulses: tuple[int, int] = (0, 0)
    train: float = 0.0
    preparation: float = 0.0


PROTOCOLS = {
    (3, 'T1w'): Protocol(2.3, 0.003, (0.9,), (9,), 0.0072, (80, 80)),
    (3, 'T2w'): Protocol(4.0, 0.1, train=0.3),
    (3, 'FLAIR'): Protocol(5.0, 0.1, (1.65,), train=0.65),
    (7, 'UNIT1'): Protocol(6.0, 0.0027, (0.8, 2.7), (7, 5), 0.0068, (80, 80)),
    (7, 'T1w'): Protocol(2.6, 0.0027, (1.05,), (6,), 0.0068, (80, 80)),
    (7, 'T2w'): Protocol(5.0, 0.07, train=0.3),
    (7, 'FLAIR'): Protocol(8.0, 0.06, (2.08,), train=0.8, preparation=0.125),
}


def gradient_echo_trains(tissue: Tissue, protocol: Protocol, transmit: Value) -> list[Value]:
    """Signed steady-state signal of MPRAGE (one train) or MP2RAGE (two), one per train.

    Each event maps the longitudinal magnetisation M to gain M + offset; the fixed point of one
    repetition is the steady state (Marques et al. 2010, doi 10.1016/j.neuroimage.2009.10.002).
    """
    before, after = protocol.pulses
    relax = np.exp(-protocol.spacing / tissue.t1)
    gain: Value = -INVERSION_EFFICIENCY
    offset: Value = 0.0
    time, states = 0.0, []
    for ti, angle in zip(protocol.ti, protocol.angles, strict=True):
        kept = np.exp(-(ti - before * protocol.spacing - time) / tissue.t1)
        gain, offset = gain * kept, 1 + (offset - 1) * kept
        flip = np.deg2rad(angle) * transmit
        kept = np.cos(flip) * relax
        driven = (1 - relax) / (1 - kept)
        gain, offset = gain * kept**before, driven + (offset - driven) * kept**before
        states.append((gain, offset, np.sin(flip)))
        gain, offset = gain * kept**after, driven + (offset - driven) * kept**after
        time = ti + after * protocol.spacing
    kept = np.exp(-(protocol.tr - time) / tissue.t1)
    gain, offset = gain * kept, 1 + (offset - 1) * kept
    steady = offset / (1 - gain)
    scale = tissue.density * np.exp(-protocol.te / tissue.t2star)
    return [scale * sine * (gain * steady + offset) for gain, offset, sine in states]


def turbo_spin_echo(tissue: Tissue, protocol: Protocol, transmit: Value) -> Value:
    """Signal of a turbo spin echo, with inversion (FLAIR) or without (T2w).

    The train leaves no longitudinal magnetisation; excitation and refocusing both lose signal
    where the transmit field is off, and the inversion fails where it is below half.
    """
    longitudinal = 1 - np.exp(-(protocol.tr - protocol.train - sum(protocol.ti)) / tissue.t1)
    for ti in protocol.ti:
        efficiency = INVERSION_EFFICIENCY / (1 + np.exp(-(transmit - 0.45) / 0.05))
        prepared = efficiency * longitudinal * np.exp(-protocol.preparation / tissue.t2)
        longitudinal = 1 - (1 + prepared) * np.exp(-ti / tissue.t1)
    refocused = np.sin(transmit * np.pi / 2) ** 2.5
    scale = tissue.density * tissue.transfer * refocused * np.exp(-protocol.te / tissue.t2)
    return np.abs(scale * longitudinal)


def signals(tissue: Tissue, protocol: Protocol, transmit: Value = 1.0) -> list[Value]:
    """Signal of a tissue, one value (or array) per image that the protocol gives.

    Parameters
    ----------
    transmit : B1+ as a fraction of nominal.
    """
    if protocol.angles:
        return gradient_echo_trains(tissue, protocol, transmit)
    return [turbo_spin_echo(tissue, protocol, transmit)]


def uniform(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """MP2RAGE combination Re(S1* S2) / (|S1|^2 + |S2|^2), -0.5 to 0.5 (Marques et al. 2010)."""
    power = np.maximum(np.abs(first) ** 2 + np.abs(second) ** 2, np.finfo(np.float32).tiny)
    return (np.conj(first) * second).real / power
