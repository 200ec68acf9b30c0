import pytest

from ssl2_bids.bids.image_names import is_denoised, motion, what_else


def named(**entities):
    return {'suffix': 'T1w', **entities}


@pytest.mark.parametrize(
    ('word', 'denoised'),
    [
        ('den', True), ('denoised', True), ('uniden', True), ('UNI-DEN', True), ('den2', True),
        ('leiden', False), ('dense', False), ('std', False), ('nodenoise', False),
    ],
)  # fmt: skip
def test_noise_removal_is_a_word_of_its_own(word, denoised):
    assert is_denoised(named(reconstruction=word)) is denoised


@pytest.mark.parametrize(
    ('word', 'moving'),
    [('nod', True), ('nodding', True), ('headmotion', True), ('nodeface', False),
     ('nodenoise', False)],
)  # fmt: skip
def test_movement_is_a_word_of_its_own(word, moving):
    assert (motion(named(acquisition=word)) == 2) is moving


@pytest.mark.parametrize(
    ('word', 'phase'),
    [('phase', True), ('phasediff', True), ('pha', True), ('swiphase', True),
     ('swi-pha', True), ('grepha', True), ('mp2ragepha', True), ('alpha', False),
     ('phasedarray', False), ('phasearray', False)],
)  # fmt: skip
def test_a_phase_is_a_word_of_its_own(word, phase):
    assert bool(what_else(named(acquisition=word))) is phase
