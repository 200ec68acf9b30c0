"""Which numbers of a raw sidecar can be meant: BIDS has s, degrees, tesla and MHz.

Times in milliseconds are the usual fault. The limits lie between what scanners have and the same
in the wrong unit.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from typing import Any

# lowest, highest, unit. MP2RAGE and SA2RAGE (7 T): inversion 0.05 to 3.5 s, repetition 2.4 to
# 8.3 s, excitations 2.9 to 8 ms apart; echoes up to 0.1 s; scanners of people 0.05 to 11.7 T
LIMITS = {
    'InversionTime': (0.005, 10.0, 'seconds'),
    'RepetitionTime': (0.001, 30.0, 'seconds'),
    'RepetitionTimePreparation': (0.1, 30.0, 'seconds'),
    'RepetitionTimeExcitation': (0.0005, 0.1, 'seconds'),
    'EchoSpacing': (0.0005, 0.1, 'seconds'),
    'EchoTime': (0.0001, 0.5, 'seconds'),
    'FlipAngle': (0.5, 180.0, 'degrees'),
    'MagneticFieldStrength': (0.01, 25.0, 'tesla'),
    'ImagingFrequency': (0.4, 1100.0, 'MHz'),
    'PartialFourier': (0.5, 1.0, 'a share'),
    'SlicePartialFourier': (0.5, 1.0, 'a share'),
}


def is_number(value: Any) -> bool:
    """Whether a value is a finite number above 0, and not true or false."""
    is_kind = isinstance(value, int | float) and not isinstance(value, bool)
    return is_kind and 0 < value < math.inf


def fault(key: str, value: Any) -> str:
    """Why a value cannot be meant, in words without the file; empty where it can."""
    low, high, unit = LIMITS[key]
    if is_number(value) and low <= value <= high:
        return ''
    return f'{key} is {shown(value)}, expected is a number in {unit} ({low:g} to {high:g})'


def shown(value: Any) -> str:
    """A value of a sidecar, short."""
    return reprlib.repr(value)


def known(sidecar: Mapping[str, Any], key: str) -> float | None:
    """The number of a key, or None where it is absent or cannot be meant."""
    value = sidecar.get(key)
    return None if value is None or fault(key, value) else float(value)


def faults(sidecar: Mapping[str, Any], *keys: str) -> list[str]:
    """What is wrong with the values of these keys, as far as they are there."""
    values = {key: sidecar[key] for key in keys if sidecar.get(key) is not None}
    return [text for key, value in values.items() if (text := fault(key, value))]
