"""T1 from UNIT1 against reference values of the signal equations."""

from __future__ import annotations

import numpy as np
import pytest

from ssl2_bids.steps import t1_mapping

SHARED = {'RepetitionTimePreparation': 6, 'RepetitionTimeExcitation': 0.0068}
FIRST = SHARED | {'InversionTime': 0.8, 'FlipAngle': 7, 'NumberShots': [80, 80]}
SECOND = SHARED | {'InversionTime': 2.7, 'FlipAngle': 5, 'NumberShots': [80, 80]}
T1 = np.array([1.15, 1.40, 1.65, 1.85, 2.40])
UNI = np.array([0.220, 0.073, -0.062, -0.155, -0.336])


def protocol(**changes):
    found = t1_mapping.protocol_of(FIRST | changes, SECOND | changes)
    assert found is not None
    return found


def test_t1_and_uniform_image_belong_together():
    assert t1_mapping.t1_map(UNI, protocol()) == pytest.approx(T1, rel=2e-3)
    assert t1_mapping.uniform_at_nominal(T1, protocol()) == pytest.approx(UNI, abs=1e-3)


def test_without_the_transmit_field_t1_is_wrong_and_with_it_right():
    """Of 1.126 and 1.939 s, at a field of 0.7 and 1.4 of nominal."""
    uni = np.array([0.161, -0.335, 0.328, 0.048])
    field = np.array([0.7, 0.7, 1.4, 1.4])
    true = np.array([1.126, 1.939, 1.126, 1.939])
    assert t1_mapping.t1_map(uni, protocol(), field) == pytest.approx(true, rel=5e-3)
    plain = t1_mapping.t1_map(uni, protocol())
    assert (plain[:2] > true[:2] * 1.05).all()
    assert (plain[2:] < true[2:] * 0.90).all()


@pytest.mark.parametrize(
    ('shots', 'more', 'pulses'),
    [
        ([80, 80], {}, (80, 80)),
        ([60, 80], {}, (60, 80)),
        (160, {}, (80, 80)),
        ([160], {}, (80, 80)),
        (160, {'SlicePartialFourier': 0.75}, (40, 80)),
        (160, {'PartialFourier': 0.75}, (40, 80)),
    ],
)
def test_pulses_before_and_after_the_centre(shots, more, pulses):
    assert protocol(NumberShots=shots, **more).pulses == pulses


def test_a_missing_spacing_is_taken_from_other_keys():
    bare = [{k: v for k, v in one.items() if k != 'RepetitionTimeExcitation'}
            for one in (FIRST, SECOND)]  # fmt: skip
    assert t1_mapping.missing_keys(*bare) == ['RepetitionTimeExcitation']
    by_echo = t1_mapping.protocol_of(*(one | {'EchoTime': 0.0034} for one in bare))
    by_spacing = t1_mapping.protocol_of(*(one | {'EchoSpacing': 0.0068} for one in bare))
    assert by_echo == by_spacing == protocol()


@pytest.mark.parametrize(
    'key', ['InversionTime', 'FlipAngle', 'RepetitionTimePreparation', 'NumberShots']
)
def test_each_key_is_named_where_it_is_missing(key):
    sidecars = [{k: v for k, v in one.items() if k != key} for one in (FIRST, SECOND)]
    assert t1_mapping.missing_keys(*sidecars) == [key]
    assert t1_mapping.protocol_of(*sidecars) is None


def test_times_that_contradict_one_another_give_no_protocol():
    assert t1_mapping.missing_keys(FIRST | {'InversionTime': 0.3}, SECOND) == []
    assert t1_mapping.protocol_of(FIRST | {'InversionTime': 0.3}, SECOND) is None
    assert t1_mapping.protocol_of(FIRST, SECOND | {'InversionTime': 1.5}) is None
