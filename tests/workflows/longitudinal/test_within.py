"""What differs between two visits apart from the patient, by their sidecars."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ssl2_bids.workflows.longitudinal.within import _differences


def visit(label: str, **metadata: Any) -> SimpleNamespace:
    """A visit with a FLAIR alone, as far as its differences from another are concerned."""
    return visit_with(label, FLAIR=metadata)


def visit_with(label: str, **sidecars: dict[str, Any]) -> SimpleNamespace:
    """A visit with the sidecar of each of its contrasts."""
    scans = {
        contrast: SimpleNamespace(
            metadata=metadata, paths=(f'{label}_{contrast}.nii',), spacing=(1.0, 1.0, 1.0),
            echo_times=(),
        )
        for contrast, metadata in sidecars.items()
    }  # fmt: skip
    session = SimpleNamespace(scans=scans)
    return SimpleNamespace(
        label=label, contrasts=tuple(sidecars), plan=SimpleNamespace(session=session)
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


@pytest.mark.parametrize(
    ('fields', 'others', 'apart'),
    [
        ((3, 7), (3, 7), False),
        ((3, 7), (2.89, 6.98), False),
        ((3, 7), (3, 3), True),
        ((3, 3), (3, 7), True),
        ((3, 7), (1.5, 7), True),
    ],
)
def test_contrasts_of_two_scanners_at_each_visit_are_no_difference(fields, others, apart):
    def of(label, values):
        flair, t1w = ({'MagneticFieldStrength': value} for value in values)
        return visit_with(label, FLAIR=flair, T1w=t1w)

    texts = _differences(of('1', fields), of('2', others), 'a and b')
    assert any('different field strengths' in text for text in texts) == apart
