"""Measures of a site's scans beside those of the participant level."""

from dataclasses import replace

import numpy as np
import pytest
from site_phantom import CARD, make_site

from ssl2_bids.bids.outputs import find_results
from ssl2_bids.bids.provenance import bids_uri
from ssl2_bids.files import write_json
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


@pytest.mark.parametrize('where', ['measures', 'sidecar'])
def test_of_two_scanners_the_one_of_the_commonest_field_is_measured(where, tmp_path, caplog):
    model = tmp_path / 'phantom-3t'
    write_model(model, FastUNet(inputs=2, channels=(4, 8), full=2), CARD)
    raw, out = make_site(tmp_path, model, 4)
    settings = GroupSettings(raw, out, tmp_path / 'work')
    cases = find_cases(settings, find_results(out))
    for case, field in zip(cases, (1.5, 3.0, 2.89, None), strict=True):
        source = raw / f'sub-{case.participant}/anat/sub-{case.participant}_FLAIR.nii.gz'
        facts = {} if field is None else {'MagneticFieldStrength': field}
        quality = {'Sources': [bids_uri(source, raw, 'raw')], 'tissue_snr': 20 + (field or 3)}
        quality |= facts if where == 'measures' else {}
        write_json(case.result.names.path('anat.quality', contrast='FLAIR'), quality)
        if where == 'sidecar':
            write_json(source.with_name(source.name.replace('.nii.gz', '.json')), facts)
    site = measure.measure_site(cases, raw, read_card(model))
    assert site.field == pytest.approx(2.945)
    assert site.people == 3
    assert site.sequences['FLAIR'].measured['snr'][0] > 22
    assert f'not those of sub-{cases[0].participant} (1.5 T)' in caplog.text
