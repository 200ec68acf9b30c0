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


MILLISECONDS = {'RepetitionTimePreparation': 6000, 'RepetitionTimeExcitation': 6.8}
ABSURD = [  # keys of both sidecars, and what is named
    ({'InversionTime': 800}, 'one.nii.gz: InversionTime is 800, expected is a number in seconds'),
    ({'InversionTime': -1}, 'InversionTime is -1, '),
    ({'InversionTime': float('nan')}, 'InversionTime is nan, '),
    ({'InversionTime': float('inf')}, 'InversionTime is inf, '),
    ({'InversionTime': 10**400}, 'InversionTime is 1000'),
    ({'InversionTime': True}, 'InversionTime is True, '),
    ({'InversionTime': '0.8'}, "InversionTime is '0.8', "),
    ({'InversionTime': [0.8, 2.7]}, 'InversionTime is [0.8, 2.7], '),
    ({'InversionTime': 0.3}, 'one.nii.gz: InversionTime is 0.3 s, but its excitations'),
    ({'InversionTime': 5.9}, 'one.nii.gz and two.nii.gz: InversionTime is 5.9 and 2.7 s'),
    (MILLISECONDS, 'RepetitionTimePreparation is 6000, expected is a number in seconds'),
    ({'RepetitionTimePreparation': 6000}, 'two.nii.gz: RepetitionTimePreparation is 6000, '),
    ({'RepetitionTimePreparation': 0}, 'RepetitionTimePreparation is 0, '),
    ({'RepetitionTimePreparation': 2}, 'but RepetitionTimePreparation is 2 s'),
    ({'RepetitionTimeExcitation': 6.8}, 'RepetitionTimeExcitation is 6.8, '),
    ({'RepetitionTimeExcitation': 0}, 'RepetitionTimeExcitation is 0, '),
    ({'RepetitionTimeExcitation': None, 'EchoSpacing': 6.8}, 'EchoSpacing is 6.8, '),
    ({'RepetitionTimeExcitation': None, 'EchoTime': 2.7}, 'EchoTime is 2.7, '),
    ({'FlipAngle': 0}, 'FlipAngle is 0, expected is a number in degrees'),
    ({'FlipAngle': 0.12}, 'FlipAngle is 0.12, '),
    ({'FlipAngle': 700}, 'FlipAngle is 700, '),
    ({'FlipAngle': [7]}, 'FlipAngle is [7], '),
    ({'FlipAngle': 90}, 'do not distinguish tissues'),
    ({'NumberShots': 0}, 'NumberShots is 0, expected is a whole number'),
    ({'NumberShots': '160'}, "NumberShots is '160', "),
    ({'NumberShots': [80, 80, 80]}, 'NumberShots is [80, 80, 80], '),
    ({'NumberShots': [-5, -5]}, 'NumberShots is [-5, -5], '),
    ({'NumberShots': {'a': 1}}, "NumberShots is {'a': 1}, "),
    ({'NumberShots': float('inf')}, 'NumberShots is inf, '),
    ({'NumberShots': 160, 'PartialFourier': 0.01}, 'PartialFourier is 0.01, '),
]


@pytest.mark.parametrize(('values', 'text'), ABSURD)
def test_values_that_cannot_be_meant_are_named_and_give_no_protocol(values, text):
    one = FIRST | values
    two = SECOND | {k: v for k, v in values.items() if k not in ('InversionTime', 'FlipAngle')}
    assert text in t1_mapping.why_no_protocol({'one.nii.gz': one, 'two.nii.gz': two})
    assert t1_mapping.protocol_of(one, two) is None


def test_repetition_times_that_differ_contradict_one_another():
    other = SECOND | {'RepetitionTimePreparation': 8}
    why = t1_mapping.why_no_protocol({'a': FIRST, 'b': other})
    assert why == 'a and b: RepetitionTimePreparation differs, 6 and 8 s'


@pytest.mark.parametrize('values', [
    {'RepetitionTimePreparation': 5, 'RepetitionTimeExcitation': 0.0071, 'NumberShots': 176},
    {'RepetitionTimePreparation': 8.25, 'NumberShots': [60, 100]},
    {'RepetitionTimePreparation': 4.3, 'NumberShots': [60, 80]},
])  # fmt: skip
def test_settings_of_published_protocols_are_taken(values):
    sidecars = {'a': FIRST | values, 'b': SECOND | values}
    assert t1_mapping.why_no_protocol(sidecars) == ''
