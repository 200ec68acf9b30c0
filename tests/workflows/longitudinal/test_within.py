"""What differs between two visits apart from the patient, by their sidecars."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ssl2_bids.workflows.longitudinal.within import _differences


def visit(label: str, **metadata: Any) -> SimpleNamespace:
    """A visit with a FLAIR alone, as far as its differences from another are concerned."""
    scan = SimpleNamespace(
        metadata=metadata, paths=(f'{label}.nii',), spacing=(1.0, 1.0, 1.0), echo_times=()
    )
    session = SimpleNamespace(scans={'FLAIR': scan})
    return SimpleNamespace(
        label=label, contrasts=('FLAIR',), plan=SimpleNamespace(session=session)
    )


@pytest.mark.parametrize(
    ('key', 'value', 'other'),
    [
        ('ManufacturersModelName', ['Prisma'], 'Skyra'),
        ('ManufacturersModelName', {'a': 1}, ['Skyra']),
        ('MagneticFieldStrength', [3], 7),
        ('MagneticFieldStrength', 30000, 3),  # gauss
        ('MagneticFieldStrength', 3, 2.89362),
        ('RepetitionTime', 9, 9000),  # seconds and milliseconds
        ('InversionTime', [2.5], 2.8),
        ('EchoTime', True, 0.1),
    ],
)
def test_a_value_that_cannot_be_meant_is_no_difference(key, value, other):
    one, two = visit('1', **{key: value}), visit('2', **{key: other})
    assert _differences(one, two, 'a and b') == []
    assert _differences(two, one, 'a and b') == []


def test_values_that_can_be_meant_are_compared():
    texts = _differences(
        visit('1', ManufacturersModelName='Prisma', MagneticFieldStrength=3, RepetitionTime=9),
        visit('2', ManufacturersModelName='Skyra', MagneticFieldStrength=1.5, RepetitionTime=5),
        'a and b',
    )
    assert 'a and b have different scanners' in texts[0]
    assert 'a and b have different field strengths' in texts[1]
    assert 'RepetitionTime 9 and 5 s' in texts[2]
