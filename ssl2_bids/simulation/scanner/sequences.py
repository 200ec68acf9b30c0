"""Signal equations: what a sequence measures of a tissue.

The arithmetic is that of the arrays given: float32 maps stay float32, numbers alone are float64.
Signals are signed (an inversion can leave them negative); a scanner stores their magnitude after
they were mixed in the voxel and met the noise.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import ndimage

from ssl2_bids.simulation.anatomy.tissues import Tissue, Value, lesion_tissue, read_tissues
from ssl2_bids.simulation.scanner.protocols import Protocol, read_scanner

__all__ = [
    'FULL_SCALE',
    'PROTOCOLS',
    'TISSUES',
    'Protocol',
    'Tissue',
    'lesion_tissue',
    'signals',
    'stored_uniform',
    't1_from_uniform',
    'uniform',
]

FULL_SCALE = 4095.0  # a uniform image of -0.5 to 0.5 is stored as 0 to this
# The inversion before a turbo spin echo fails where B1+ is below this share, over this width.
INVERSION_FAILS = (0.45, 0.05)
CHUNK = 1 << 15  # voxels whose intermediate arrays stay in the cache of a core
T1_RANGE = (0.05, 6.0)  # s, of the look-up table
TRANSMIT_RANGE = (0.3, 1.6)
T1_STEPS, ANGLE_STEPS, TRANSMIT_STEPS = 2400, 2048, 131


def signals(tissue: Tissue, protocol: Protocol, transmit: Value = 1.0) -> list[Any]:
    """Signed signal of a tissue, one value (or array) per image of the sequence.

    mprage, flair, tse, gre: one; mp2rage: INV1 and INV2; megre: one per echo. Off-resonance acts
    apart from this: ``fields.echo_phase``, ``artefacts.dephasing``.

    Parameters
    ----------
    tissue : numbers, or arrays of one shape (or shapes that broadcast).
    transmit : B1+ as a fraction of nominal, a number or an array.
    """
    equation = {
        'mprage': gradient_echo_trains,
        'mp2rage': gradient_echo_trains,
        'sa2rage': gradient_echo_trains,
        'flair': turbo_spin_echo,
        'tse': turbo_spin_echo,
        'gre': gradient_echoes,
        'megre': gradient_echoes,
    }[protocol.kind]
    given = (tissue.t1, tissue.t2, tissue.t2star, tissue.density, tissue.transfer, transmit)
    arrays = [value for value in given if isinstance(value, np.ndarray) and value.ndim]
    # Numbers take the arrays' precision; numpy's own float64 numbers would raise it.
    kind = np.result_type(np.float32, *arrays) if arrays else np.dtype(np.float64)
    values: list[np.ndarray] = [np.asarray(value, kind) for value in given]
    if tissue.chemical_shift:
        values[3] = values[3] * np.asarray(protocol.fat, kind)
    shape = np.broadcast_shapes(*(value.shape for value in values))
    if math.prod(shape) <= CHUNK:
        t1, t2, t2star, density, transfer, b1 = values
        return equation(Tissue(t1, t2, t2star, density, transfer), protocol, b1)
    flat = [np.broadcast_to(v, shape).reshape(-1) if v.ndim else v for v in values]
    images = [np.empty(math.prod(shape), kind) for _ in range(protocol.image_count)]
    for start in range(0, images[0].size, CHUNK):
        part = slice(start, start + CHUNK)
        t1, t2, t2star, density, transfer, b1 = (v[part] if v.ndim else v for v in flat)
        measured = equation(Tissue(t1, t2, t2star, density, transfer), protocol, b1)
        for image, signal in zip(images, measured, strict=True):
            image[part] = signal
    return [image.reshape(shape) for image in images]


def gradient_echo_trains(tissue: Tissue, protocol: Protocol, transmit: Value) -> list[Any]:
    """Steady-state signal of MPRAGE (one train), MP2RAGE or SA2RAGE (two), one per train.

    Each event maps the longitudinal magnetisation M to gain M + offset; the fixed point of one
    repetition is the steady state (Marques et al. 2010, doi 10.1016/j.neuroimage.2009.10.002).
    The adiabatic inversion is taken to be that of ``protocol.efficiency`` everywhere. SA2RAGE
    saturates instead, by a pulse of 90 degrees that follows the transmit field (Eggenschwiler et
    al. 2012, doi 10.1002/mrm.23145).
    """
    before, after = protocol.pulses
    rate = 1 / tissue.t1
    relax = np.exp(-protocol.spacing * rate)
    regained = -np.expm1(-protocol.spacing * rate)
    gain: Value = -protocol.efficiency
    if protocol.kind == 'sa2rage':
        gain = np.cos(float(np.pi / 2) * transmit)
    offset: Value = 0.0
    time, states = 0.0, []
    for ti, angle in zip(protocol.ti, protocol.angles, strict=True):
        kept = np.exp((ti - before * protocol.spacing - time) * -rate)
        gain, offset = gain * kept, 1 + (offset - 1) * kept
        flip = float(np.deg2rad(angle)) * transmit
        step = np.cos(flip) * relax
        # 1 - cos(flip) relax, written so that float32 loses no digits
        driven = regained / (regained + 2 * relax * np.sin(flip / 2) ** 2)
        kept = step**before
        gain, offset = gain * kept, driven + (offset - driven) * kept
        states.append((gain, offset, np.sin(flip)))
        if after != before:
            kept = step**after
        gain, offset = gain * kept, driven + (offset - driven) * kept
        time = ti + after * protocol.spacing
    kept = np.exp((protocol.tr - time) * -rate)
    gain, offset = gain * kept, 1 + (offset - 1) * kept
    steady = offset / (1 - gain)
    scale = tissue.density * np.exp(-protocol.te / tissue.t2star)
    return [scale * sine * (gain * steady + offset) for gain, offset, sine in states]


def turbo_spin_echo(tissue: Tissue, protocol: Protocol, transmit: Value) -> list[Any]:
    """Signal of a turbo spin echo, with inversion (FLAIR, T1w) or without (T2w, T1w).

    The train leaves no longitudinal magnetisation; excitation and refocusing both lose signal
    where the transmit field is off, and the inversion fails where it is below half. A T2
    preparation weakens what is inverted by its T2 decay; the time it takes is counted as recovery.
    """
    rate = 1 / tissue.t1
    recovery = protocol.tr - protocol.train - sum(protocol.ti)
    longitudinal = 1 - np.exp(-recovery * rate)
    for ti in protocol.ti:
        half, width = INVERSION_FAILS
        efficiency = protocol.efficiency / (1 + np.exp((half - transmit) / width))
        prepared = efficiency * longitudinal
        if protocol.preparation:
            prepared = prepared * np.exp(-protocol.preparation / tissue.t2)
        longitudinal = 1 - (1 + prepared) * np.exp(-ti * rate)
    excited = np.abs(np.sin(transmit * float(np.pi / 2)))
    refocused = excited ** (1 + 2 * protocol.refocusing)
    scale = tissue.density * tissue.transfer * refocused * np.exp(-protocol.te / tissue.t2)
    return [scale * longitudinal]


def gradient_echoes(tissue: Tissue, protocol: Protocol, transmit: Value) -> list[Any]:
    """Steady-state signal of a spoiled gradient echo, one per echo (Ernst and Anderson 1966)."""
    flip = float(np.deg2rad(protocol.angles[0])) * transmit
    relax = np.exp(-protocol.tr / tissue.t1)
    excited = tissue.density * np.sin(flip) * (1 - relax) / (1 - np.cos(flip) * relax)
    rate = 1 / tissue.t2star
    return [excited * np.exp(-te * rate) for te in protocol.echo_times]


def uniform(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """MP2RAGE combination Re(S1* S2) / (|S1|^2 + |S2|^2), -0.5 to 0.5 (Marques et al. 2010)."""
    if np.iscomplexobj(first) or np.iscomplexobj(second):
        first, second = np.asarray(first), np.asarray(second)
        power = first.real**2 + first.imag**2 + second.real**2 + second.imag**2
        product = first.real * second.real + first.imag * second.imag
    else:
        power = first**2 + second**2
        product = first * second
    # Rounding must not lead beyond the range.
    return np.clip(product / np.maximum(power, np.finfo(np.float32).tiny), -0.5, 0.5)


def stored_uniform(uni: np.ndarray) -> np.ndarray:
    """UNIT1 as a scanner stores it: int16, 0 to 4095."""
    return np.rint(np.clip((uni + 0.5) * FULL_SCALE, 0, FULL_SCALE)).astype(np.int16)


def t1_from_uniform(uni: Value, protocol: Protocol, transmit: Value = 1.0) -> Any:
    """T1 in s of a uniform image by look-up, as MP2RAGE maps it (BIDS ``T1map``).

    UNI falls with T1 between its maximum and its minimum; what lies beyond gets the T1 of the
    nearer end. Where B1+ is low the minimum lies below the T1 of fluid (2.9 s at
    0.6 and the bundled 7 T settings), so that fluid is read too short, as on a scanner.
    ``arcsin(2 UNI)`` is interpolated, not UNI, whose slope is 0 at the ends. For B1+ of 0.4 to
    1.4, from 10 % above the T1 of the maximum to 5 % below that of the minimum, the look-up is
    off by less than 0.05 %; the 4096 steps of a stored image make that 1.5 % at worst and 0.3 %
    in 99 of 100 places.

    Parameters
    ----------
    uni : -0.5 to 0.5.
    protocol : of kind mp2rage.
    transmit : B1+ that the table is made for: 1 for what a scanner gives, or the B1+ map for a
        corrected T1 (Marques and Gruetter 2013, doi 10.1371/journal.pone.0069294).
    """
    known = np.atleast_1d(np.asarray(transmit, float))
    nominal = known if known.size == 1 else np.linspace(*TRANSMIT_RANGE, TRANSMIT_STEPS)
    table = _t1_table(protocol, nominal)
    uni, transmit = np.broadcast_arrays(uni, transmit)
    shape, kind = uni.shape, np.result_type(np.float32, uni)
    uni, transmit = uni.reshape(-1), transmit.reshape(-1)
    result = np.empty(uni.size, kind)
    for start in range(0, uni.size, CHUNK):
        part = slice(start, start + CHUNK)
        at = np.zeros((2, len(uni[part])))
        at[0] = np.arcsin(np.clip(2.0 * uni[part], -1, 1)) / np.pi + 0.5
        at[0] *= ANGLE_STEPS - 1
        if len(nominal) > 1:
            at[1] = (transmit[part] - nominal[0]) / (nominal[1] - nominal[0])
        result[part] = ndimage.map_coordinates(table, at, order=1, mode='nearest')
    return result.reshape(shape)


def _t1_table(protocol: Protocol, transmit: np.ndarray) -> np.ndarray:
    """T1 by angle ``arcsin(2 UNI)`` (-90 to 90 degrees, in equal steps) and transmit field."""
    times = np.geomspace(*T1_RANGE, T1_STEPS)
    water = Tissue(t1=times[:, None], t2=1.0, t2star=np.inf, density=1.0, transfer=1.0)
    angles = np.arcsin(np.clip(2 * uniform(*signals(water, protocol, transmit[None])), -1, 1))
    steps = np.linspace(-np.pi / 2, np.pi / 2, ANGLE_STEPS)
    columns = []
    for column in angles.T:
        falling = slice(int(np.argmax(column)), int(np.argmin(column)) + 1)
        columns.append(np.interp(steps, column[falling][::-1], times[falling][::-1]))
    return np.stack(columns, axis=1)


# The two tables below serve the modules that were written before scanners came from files.
TISSUES = {
    field: {name: read_tissues(field)[name] for name in ('wm', 'gm', 'csf')} for field in (3, 7)
}
PROTOCOLS = {
    (field, suffix): protocol
    for field in (3, 7)
    for suffix, protocol in read_scanner(None, field).protocols.items()
    if suffix in ('T1w', 'T2w', 'FLAIR', 'UNIT1')
}
