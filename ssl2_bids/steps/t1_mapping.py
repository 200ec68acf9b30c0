"""T1 from the uniform image of MP2RAGE, and the uniform image without the transmit field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl2_bids.simulation.anatomy.tissues import Tissue
from ssl2_bids.simulation.scanner.protocols import Protocol
from ssl2_bids.simulation.scanner.sequences import signals, t1_from_uniform, uniform

EFFICIENCY = 0.96  # of the adiabatic inversion, as Marques 2010 assumes
PARTIAL_FOURIER = ('SlicePartialFourier', 'PartialFourier')


def missing_keys(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Sidecar keys of INV1 and INV2 that a T1 map needs and that are absent or no numbers.

    RepetitionTimeExcitation may be replaced by EchoSpacing, or by twice the EchoTime.
    """
    keys = [k for k in ('InversionTime', 'FlipAngle') if not _both(k, first, second)]
    keys += [k for k in ('RepetitionTimePreparation',) if _number(k, first, second) is None]
    if _spacing(first, second) is None:
        keys.append('RepetitionTimeExcitation')
    if _pulses(first, second) is None:
        keys.append('NumberShots')
    return keys


def protocol_of(first: Mapping[str, Any], second: Mapping[str, Any]) -> Protocol | None:
    """The settings of an MP2RAGE from the sidecars of INV1 and INV2.

    Returns
    -------
    Protocol of kind mp2rage, times in s, angles in degrees; None where :func:`missing_keys` finds
    some, or where the two trains overlap.
    """
    if missing_keys(first, second):
        return None
    tr, spacing = _number('RepetitionTimePreparation', first, second), _spacing(first, second)
    pulses = _pulses(first, second)
    if tr is None or spacing is None or pulses is None:
        return None
    ti = (float(first['InversionTime']), float(second['InversionTime']))
    angles = (float(first['FlipAngle']), float(second['FlipAngle']))
    before, after = pulses
    starts = (ti[0] - before * spacing, ti[1] - before * spacing)
    ends = (ti[0] + after * spacing, ti[1] + after * spacing)
    if starts[0] < 0 or ends[0] > starts[1] or ends[1] > tr:
        return None
    return Protocol(
        kind='mp2rage',
        tr=tr,
        ti=ti,
        angles=angles,
        spacing=spacing,
        pulses=pulses,
        efficiency=EFFICIENCY,
    )


def t1_map(uni: np.ndarray, protocol: Protocol, transmit: np.ndarray | float = 1.0) -> np.ndarray:
    """T1 in s by look-up (Marques et al. 2010; with B1+ Marques and Gruetter 2013).

    Parameters
    ----------
    uni : -0.5 to 0.5, without noise removal, which would shift it.
    transmit : B1+ as a fraction of nominal, of the same shape, or 1.
    """
    return np.asarray(t1_from_uniform(uni, protocol, transmit), np.float32)


def uniform_at_nominal(t1: np.ndarray, protocol: Protocol) -> np.ndarray:
    """The uniform image that tissue of these T1 (s) gives where B1+ is nominal, -0.5 to 0.5."""
    water = Tissue(t1=np.maximum(t1, 0.05), t2=1.0, t2star=np.inf, density=1.0, transfer=1.0)
    return np.asarray(uniform(*signals(water, protocol)), np.float32)


def methods(corrected_by: str) -> str:
    """The methods sentence; ``corrected_by``: suffix of the B1+ map, or empty."""
    text = 'T1 was read from the UNIT1 image by look-up [@marques2010]'
    if not corrected_by:
        return f'{text}, without correction for the transmit field.'
    return (
        f'{text}, and both images were corrected for the transmit field with the {corrected_by} '
        '[@marques2013].'
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _both(key: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    return all(_is_number(one.get(key)) for one in (first, second))


def _number(key: str, *sidecars: Mapping[str, Any]) -> float | None:
    return next((float(one[key]) for one in sidecars if _is_number(one.get(key))), None)


def _spacing(*sidecars: Mapping[str, Any]) -> float | None:
    for key, factor in (('RepetitionTimeExcitation', 1), ('EchoSpacing', 1), ('EchoTime', 2)):
        value = _number(key, *sidecars)
        if value is not None:
            return factor * value
    return None


def _pulses(*sidecars: Mapping[str, Any]) -> tuple[int, int] | None:
    """Pulses of a train before and after the centre of k-space (BIDS: NumberShots)."""
    for one in sidecars:
        shots = one.get('NumberShots')
        if isinstance(shots, list) and len(shots) == 1:
            shots = shots[0]
        if isinstance(shots, list) and len(shots) == 2 and all(map(_is_number, shots)):
            return round(shots[0]), round(shots[1])
        if _is_number(shots):
            assert isinstance(shots, int | float)
            share = next((one[k] for k in PARTIAL_FOURIER if _is_number(one.get(k))), 1.0)
            return round(shots * (min(share, 1.0) - 0.5)), round(shots / 2)
    return None
