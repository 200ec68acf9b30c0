"""Measures of a site's scans beside those of the participant level."""

from dataclasses import replace

import numpy as np
import pytest
from site_phantom import CARD, make_site

from ssl2_bids.bids.outputs import find_results
from ssl2_bids.networks.architectures.fast_unet import FastUNet
from ssl2_bids.networks.weights import read_card, write_model
from ssl2_bids.settings import GroupSettings
from ssl2_bids.volume import Volume, read, write
from ssl2_bids.workflows.adaptation.cases import find_cases
from ssl2_bids.workflows.adaptation.twin import measure


def test_the_brightness_of_what_the_start_model_marks_with_confidence(tmp_path):
    model = tmp_path / 'phantom-3t'
    write_model(model, FastUNet(inputs=2, channels=(4, 8), full=2), CARD)
    make_site(tmp_path, model, 1)
    settings = GroupSettings(tmp_path / 'data', tmp_path / 'out', tmp_path / 'work')
    case = find_cases(settings, find_results(settings.output_dir))[0]
    card, brain = read_card(model), read(case.brain_mask)
    inside = tuple(np.argwhere(brain.data > 0).T)
    kinds = np.zeros(len(inside[0]), int)
    kinds[:5] = 1  # marked with confidence
    kinds[5:15] = 2  # neither confident nor normal
    probability, image = (np.zeros(brain.data.shape, np.float32) for _ in range(2))
    probability[inside] = np.array([0.01, 0.97, 0.6])[kinds]
    image[inside] = np.array([100, 160, 130])[kinds]
    path = case.result.names.path('anat.probability')
    write(Volume(image, brain.affine), case.images['FLAIR'])
    write(Volume(probability, brain.affine), path)
    found = measure.lesion_brightness(case, card)
    assert found['FLAIR'] == pytest.approx(1.6)
    assert set(found) == set(case.images)
    assert measure.lesion_brightness(case, replace(card, name='other')) == {}
    write(Volume(np.minimum(probability, np.float32(0.6)), brain.affine), path)
    assert measure.lesion_brightness(case, card) == {}
    case.images['FLAIR'].write_bytes(b'no image')
    write(Volume(probability, brain.affine), path)
    assert measure.lesion_brightness(case, card) == {}
    case.brain_mask.unlink()
    assert measure.lesion_brightness(case, card) == {}


@pytest.mark.parametrize(
    'value', ['GR_IR', 'GR\\IR', 'GR, IR', 'GR/IR', ['GR', 'IR'], ['GR\\IR'], [' GR ', 'IR', '']]
)
def test_words_of_the_sequence_stand_in_a_list_or_in_one_string(value):
    assert measure.words_of(value) == ('GR', 'IR')


@pytest.mark.parametrize('value', [None, '', [], 3, [None]])
def test_no_words_of_the_sequence(value):
    assert measure.words_of(value) == ()
