"""T1 from the uniform image of MP2RAGE, and the uniform image without the transmit field."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from ssl2_bids import sidecar_values
from ssl2_bids.simulation.anatomy.tissues import Tissue
from ssl2_bids.simulation.scanner.protocols import Protocol
from ssl2_bids.simulation.scanner.sequences import signals, t1_from_uniform, uniform

EFFICIENCY = 0.96  # of the adiabatic inversion, as Marques 2010 assumes
PARTIAL_FOURIER = ('SlicePartialFourier', 'PartialFourier')
OF_EACH = ('InversionTime', 'FlipAngle')  # keys that differ between the inversions
# keys of the time between excitations, and how often it has the value
SPACING = {'RepetitionTimeExcitation': 1, 'EchoSpacing': 1, 'EchoTime': 2}
MAX_SHOTS = 10_000
# s and share of nominal: usual protocols fall from below 0.6 s to above 2.3 s, 0.2 to 2
FALLS_WITH_T1, FALLS_WITH_B1 = (1.0, 1.6), (0.5, 1.4)
SAME = 1.01  # ratio up to which two repetition times are equal


def missing_keys(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Sidecar keys of INV1 and INV2 that a T1 map needs and that are absent.

    RepetitionTimeExcitation may be replaced by EchoSpacing, or by twice the EchoTime.
    """
    keys = [k for k in OF_EACH if any(one.get(k) is None for one in (first, second))]
    keys += [k for k in ('RepetitionTimePreparation',) if _value(k, first, second) is None]
    if _spacing_key(first, second) is None:
        keys.append('RepetitionTimeExcitation')
    if _value('NumberShots', first, second) is None:
        keys.append('NumberShots')
    return keys


def faults(sidecars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Why the settings of an MP2RAGE or SA2RAGE cannot be meant, with file, key and expectation.

    Parameters
    ----------
    sidecars : of the first and the second inversion, by file name; none lacks a key.

    Returns
    -------
    A sentence for each value that cannot be in the unit of BIDS; where there is none, for times
    that contradict one another.
    """
    first, second = sidecars.values()
    spacing_key = _spacing_key(first, second)
    keys = [*OF_EACH, 'RepetitionTimePreparation', *([spacing_key] if spacing_key else [])]
    found = []
    for name, one in sidecars.items():
        texts = sidecar_values.faults(one, *keys)
        shots = one.get('NumberShots')
        if shots is not None and not _is_shots(shots):
            texts.append(
                f'NumberShots is {sidecar_values.shown(shots)}, expected is a whole number, or '
                'two: of the excitations before and after the centre of k-space'
            )
        elif shots is not None and not isinstance(_single(shots), list):
            texts += sidecar_values.faults(one, *PARTIAL_FOURIER)
        found += [f'{name}: {text}' for text in texts]
    return found or _contradictions(sidecars)


def _contradictions(sidecars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Times of sound values that no sequence can have together."""
    (one, first), (two, second) = sidecars.items()
    key, repetitions = 'RepetitionTimePreparation', []
    for sidecar in (first, second):
        repetitions += [sidecar[key]] if sidecar.get(key) is not None else []
    tr, spacing, pulses = repetitions[0], _spacing(first, second), _pulses(first, second)
    if max(repetitions) > SAME * min(repetitions):
        return [f'{one} and {two}: {key} differs, {repetitions[0]:g} and {repetitions[-1]:g} s']
    before, after = (count * spacing for count in pulses)
    ti = (float(first['InversionTime']), float(second['InversionTime']))
    train = f'({pulses[0]} and {pulses[1]} excitations, {spacing:g} s apart)'
    if ti[0] - before < 0:
        return [
            f'{one}: InversionTime is {ti[0]:g} s, but its excitations before the centre of '
            f'k-space take {before:g} s {train}'
        ]
    if ti[0] + after > ti[1] - before:
        return [
            f'{one} and {two}: InversionTime is {ti[0]:g} and {ti[1]:g} s, but between them lie '
            f'excitations of {before + after:g} s {train}'
        ]
    if ti[1] + after > tr:
        return [
            f'{two}: InversionTime is {ti[1]:g} s, and excitations of {after:g} s follow {train}, '
            f'but {key} is {tr:g} s'
        ]
    return []


def why_no_protocol(sidecars: Mapping[str, Mapping[str, Any]], *, kind: str = 'mp2rage') -> str:
    """Why :func:`protocol_of` finds none, in words; empty where it does.

    Parameters
    ----------
    sidecars : of the first and the second inversion, by file name.
    kind : mp2rage or sa2rage.
    """
    if missing := missing_keys(*sidecars.values()):
        return f'{", ".join(missing)} missing'
    if found := faults(sidecars):
        return '; '.join(found)
    if _can_be_read(_protocol(*sidecars.values(), kind=kind)):
        return ''
    return (
        f'{" and ".join(sidecars)}: with these values of InversionTime, FlipAngle, NumberShots '
        f'and {_spacing_key(*sidecars.values())} the images of {kind.upper()} do not distinguish '
        'tissues'
    )


def protocol_of(
    first: Mapping[str, Any], second: Mapping[str, Any], *, kind: str = 'mp2rage'
) -> Protocol | None:
    """The settings of an MP2RAGE (or SA2RAGE) from the sidecars of its two inversions.

    Returns
    -------
    Protocol of this kind, times in s, angles in degrees; None where :func:`why_no_protocol` has a
    reason.
    """
    if why_no_protocol({'INV1': first, 'INV2': second}, kind=kind):
        return None
    return _protocol(first, second, kind=kind)


def _protocol(first: Mapping[str, Any], second: Mapping[str, Any], *, kind: str) -> Protocol:
    return Protocol(
        kind=kind,
        tr=float(_value('RepetitionTimePreparation', first, second)),
        ti=(float(first['InversionTime']), float(second['InversionTime'])),
        angles=(float(first['FlipAngle']), float(second['FlipAngle'])),
        spacing=_spacing(first, second),
        pulses=_pulses(first, second),
        efficiency=EFFICIENCY,
    )


@cache
def _can_be_read(protocol: Protocol) -> bool:
    """Whether what is measured falls where it is looked up.

    UNI with T1 from white to grey matter, the ratio of SA2RAGE with B1+ around the nominal one.
    """
    if protocol.kind == 'sa2rage':
        at, (low, high) = np.linspace(0.2, 2.0, 200), FALLS_WITH_B1
        water = Tissue(t1=1.5, t2=1.0, t2star=np.inf, density=1.0, transfer=1.0)
        one, two = signals(water, protocol, at)
        curves = [one / np.where(two == 0, np.inf, two)]
    else:
        at, (low, high) = np.geomspace(0.2, 5.0, 300), FALLS_WITH_T1
        water = Tissue(t1=at, t2=1.0, t2star=np.inf, density=1.0, transfer=1.0)
        curves = [uniform(*signals(water, protocol, field)) for field in (1.0, 0.3, 1.6)]
    ends = [(int(np.argmax(curve)), int(np.argmin(curve))) for curve in curves]
    start, end = ends[0]
    return at[start] <= low and at[end] >= high and all(first < last for first, last in ends)


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


def _value(key: str, *sidecars: Mapping[str, Any]) -> Any:
    return next((one[key] for one in sidecars if one.get(key) is not None), None)


def _spacing_key(*sidecars: Mapping[str, Any]) -> str | None:
    return next((key for key in SPACING if _value(key, *sidecars) is not None), None)


def _spacing(*sidecars: Mapping[str, Any]) -> float:
    """Time between excitations in s, of sidecars that have a key for it."""
    key = _spacing_key(*sidecars) or ''
    return SPACING[key] * float(_value(key, *sidecars))


def _single(shots: Any) -> Any:
    return shots[0] if isinstance(shots, list) and len(shots) == 1 else shots


def _is_shots(shots: Any) -> bool:
    """Whether NumberShots can be meant: one number, or those before and after the centre."""
    single = _single(shots)
    values = single if isinstance(single, list) and len(single) == 2 else [single]
    return all(sidecar_values.is_number(n) and 1 <= n <= MAX_SHOTS for n in values)


def _pulses(*sidecars: Mapping[str, Any]) -> tuple[int, int]:
    """Pulses of a train before and after the centre of k-space (BIDS: NumberShots)."""
    one = next(one for one in sidecars if one.get('NumberShots') is not None)
    shots = _single(one['NumberShots'])
    if isinstance(shots, list):
        return round(shots[0]), round(shots[1])
    share = next((one[k] for k in PARTIAL_FOURIER if one.get(k) is not None), 1.0)
    return round(shots * (share - 0.5)), round(shots / 2)
