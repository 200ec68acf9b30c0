"""A protocol fitted to a site: the few times and angles that give the ratios it measures.

The free numbers of a sequence are those that decide how bright grey matter, fluid and lesions are
beside white matter. They are fitted by least squares in the logarithm, each drawn to a first
value: that of the sidecar where it has one, closely, else that of a bundled scanner, loosely. So
what the site writes down is kept unless its images contradict it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ssl2_bids.errors import DataError
from ssl2_bids.simulation.anatomy.tissues import Tissue, lesion_tissue, read_tissues
from ssl2_bids.simulation.scanner.protocol_checks import fault
from ssl2_bids.simulation.scanner.protocols import Protocol
from ssl2_bids.simulation.scanner.sequences import signals

WHITE, GREY, FLUID, LESION = 'wm', 'gm', 'csf', 'lesion'
TYPICAL = 0.33  # damage of a typical lesion
# of a ratio; a fit is not asked to be closer than heads, or the lesions of people, differ
DOUBT = {GREY: 0.01, FLUID: 0.01, LESION: 0.03}
WRITTEN, ASSUMED = 0.03, 0.4  # spread of the logarithm of a number that is in the sidecar, or not
MOST = 3.0  # spreads that a number may move
LEAST_SIGNAL = 0.2  # of white matter, of that of the start values: less is no image
MAX_MISS = 0.25  # of a ratio (of 1 at least): beyond, it is another kind of scan
FREE = {
    'flair': ('ti', 'te', 'train', 'tr'),
    'tse': ('te', 'tr', 'train', 'ti'),
    'mprage': ('ti', 'angles', 'tr'),
    'gre': ('angles', 'te', 'tr'),
}  # kinds without an entry are taken as they are


@dataclass(frozen=True)
class FittedProtocol:
    """A sequence with fitted numbers.

    Attributes
    ----------
    wanted, reached : ratios to white matter by tissue, of pure tissues.
    moved : names of the numbers that were fitted.
    """

    protocol: Protocol
    wanted: dict[str, float] = field(default_factory=dict)
    reached: dict[str, float] = field(default_factory=dict)
    moved: tuple[str, ...] = ()


def white_signal(protocol: Protocol, tissues: Mapping[str, Tissue]) -> float:
    """Magnitude of white matter."""
    return abs(float(signals(tissues[WHITE], protocol)[0]))


def tissue_ratios(protocol: Protocol, tissues: Mapping[str, Tissue]) -> dict[str, float]:
    """Magnitude of tissues over that of white matter, pure, at nominal transmit.

    Of grey matter, fluid and typical lesions.
    """
    pure = {
        GREY: tissues[GREY],
        FLUID: tissues[FLUID],
        LESION: lesion_tissue(tissues[WHITE], TYPICAL),
    }
    white = max(white_signal(protocol, tissues), 1e-12)
    return {
        name: abs(float(signals(tissue, protocol)[0])) / white for name, tissue in pure.items()
    }


def fit_protocol(
    start: Protocol,
    wanted: Mapping[str, float],
    field_strength: float,
    *,
    written: Sequence[str] = (),
    miss: float = MAX_MISS,
) -> FittedProtocol:
    """Fit the free numbers of a sequence to ratios of tissues.

    Parameters
    ----------
    start : possible values of all numbers.
    wanted : ratios to white matter, of ``gm``, ``csf`` and ``lesion`` (or some of them).
    field_strength : T.
    written : names of the numbers that a sidecar gives.
    miss : share of a ratio (of 1 at least) by which the fit may miss it; that of lesions is not
        limited, because lesions differ from person to person.

    Raises
    ------
    DataError : no possible values of these numbers give ratios like the wanted ones.
    """
    from scipy.optimize import least_squares

    names = [name for name in FREE.get(start.kind, ()) if getattr(start, name)]
    if not names or not wanted:
        return FittedProtocol(start, dict(wanted))
    tissues = read_tissues(field_strength)
    spreads = np.array([WRITTEN if name in written else ASSUMED for name in names])

    def made(moves: np.ndarray) -> Protocol:
        return moved(start, dict(zip(names, np.exp(moves * spreads).tolist(), strict=True)))

    least = LEAST_SIGNAL * white_signal(start, tissues)

    def cost(moves: np.ndarray) -> np.ndarray:
        protocol = made(moves)
        if fault(protocol) or white_signal(protocol, tissues) < least:
            return np.full(len(names) + len(wanted), 1e3)
        ratios = tissue_ratios(protocol, tissues)
        misses = [
            (ratios[tissue] - value) / (DOUBT[tissue] * max(value, 1.0))
            for tissue, value in wanted.items()
        ]
        return np.array([*moves, *misses])

    begin = [np.zeros(len(names))]
    for place, name in enumerate(names):  # from other sides too: a magnitude has two valleys
        if name not in written:
            begin += [np.eye(len(names))[place] * step for step in (-0.5, 0.5)]
    best = min(
        (
            least_squares(cost, first, bounds=(-MOST, MOST), diff_step=1e-4)
            for first in begin
            if not fault(made(first))
        ),
        key=lambda found: float(found.cost),
        default=None,
    )
    protocol = None if best is None else rounded(made(best.x))
    if protocol is None or (problem := fault(protocol)):
        reason = problem[1] if protocol is not None and problem else 'the start values are not'
        raise DataError(f'no possible {start.kind} sequence was found ({reason})')
    reached = tissue_ratios(protocol, tissues)
    for tissue, value in wanted.items():
        if tissue != LESION and abs(reached[tissue] - value) > miss * max(value, 1.0):
            raise DataError(
                f'no {start.kind} sequence at {field_strength:g} T gives the brightness of '
                f'{"grey matter" if tissue == GREY else "fluid"} that was measured: '
                f'{value:.2f} of white matter, the nearest is {reached[tissue]:.2f}'
            )
    return FittedProtocol(protocol, dict(wanted), reached, tuple(names))


def moved(start: Protocol, factors: Mapping[str, float]) -> Protocol:
    """A sequence with some of its numbers multiplied; the nominal echo time stays possible."""
    changed: dict[str, object] = {}
    for name, factor in factors.items():
        value = getattr(start, name)
        changed[name] = (
            tuple(factor * one for one in value) if isinstance(value, tuple) else factor * value
        )
    found = replace(start, **changed)  # type: ignore[arg-type]
    if found.nominal_te and not found.te <= found.nominal_te <= found.train:
        found = replace(found, nominal_te=0.0)
    return found


def rounded(protocol: Protocol) -> Protocol:
    """A sequence with four significant digits in its fitted numbers."""
    changed: dict[str, object] = {}
    for name in FREE.get(protocol.kind, ()):
        value = getattr(protocol, name)
        changed[name] = (
            tuple(significant(one) for one in value)
            if isinstance(value, tuple)
            else significant(value)
        )
    return replace(protocol, **changed)  # type: ignore[arg-type]


def significant(value: float, digits: int = 4) -> float:
    """A number with some significant digits."""
    return float(f'{value:.{digits}g}') if math.isfinite(value) else value
