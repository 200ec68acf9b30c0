"""Methods sentences on results of an adapted model."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from site_phantom import make_low_model, make_site, summarise

from ssl2_bids.bids.outputs import find_results, read_sidecar
from ssl2_bids.networks.cards import Card
from ssl2_bids.networks.weights import load_network
from ssl2_bids.settings import GroupSettings
from ssl2_bids.workflows.adaptation.cases import find_cases
from ssl2_bids.workflows.adaptation.resegment import segment_case
from ssl2_bids.workflows.adaptation.resegmented_summary import _sentences

CONTENT = {
    'Rung': 'whole',
    'Parent': {'Name': 'committee-3t', 'Version': '1'},
    'Strategy': 'twin',
    'Steps': 200,
    'WeightShare': 1.0,
    'Twin': {'People': 16, 'Measured': 8, 'Trained': 14, 'Fitted': 2},
    'Recalibration': {'Scale': 1.2, 'Shift': -0.4, 'ThresholdMove': 0.3},
}


def text_of(**more: object) -> str:
    card = SimpleNamespace(name='committee-3t-adapted', content=CONTENT | more)
    return ' '.join(_sentences(card, 0.6))


def test_people_of_the_twin_train_or_calibrate_without_labels():
    text = text_of(Evidence={'Labelled': []})
    assert 'trained with 14 simulated people' in text
    assert 'fitted to the lesions of 2 other simulated people of this scanner' in text
    assert 'same labels' not in text


def test_a_training_of_the_last_layers_is_called_so():
    more = {'Rung': 'last-layers', 'Strategy': 'supervised', 'Twin': None, 'Evidence': {}}
    assert '(supervised, 200 steps, normalisations and last layers alone)' in text_of(**more)
    assert 'last layers' not in text_of(**more | {'Rung': 'whole'})


def test_with_labels_all_people_of_the_twin_train():
    twin = CONTENT['Twin'] | {'Trained': 16, 'Fitted': 0}
    text = text_of(Evidence={'Labelled': ['sub-01']}, Twin=twin)
    assert 'trained with 16 simulated people' in text
    assert 'fitted to the same labels' in text


def test_a_former_card_does_not_count_people_of_the_twin_who_are_kept_apart():
    """It has no number of those who train; how many were kept apart without labels has changed."""
    former = {'People': 16, 'Measured': 8}
    text = text_of(Evidence={'Labelled': []}, Twin=former)
    assert 'trained with most of 16 simulated people of a scanner' in text
    assert 'fitted to the lesions of a few other simulated people of this scanner' in text
    labelled = text_of(Evidence={'Labelled': ['sub-01']}, Twin=former)
    assert 'trained with 16 simulated people' in labelled


@pytest.mark.parametrize('moved', [0.0, 0.3])
def test_the_first_result_of_another_model_is_no_result_of_the_start_model(moved):
    fitted = CONTENT['Recalibration'] | {'ThresholdMove': moved}
    more = {'Rung': 'recalibrated', 'Evidence': {'Labelled': ['sub-01']}, 'Twin': None}
    card = SimpleNamespace(name='c', content=CONTENT | more | {'Recalibration': fitted})
    same, other = (' '.join(_sentences(card, 0.6, n)) for n in ('committee-3t', 'fast-3t'))
    assert 'The probabilities of committee-3t 1 were then recalibrated' in same
    assert 'segmented again with committee-3t 1, and its probabilities were recalib' in other
    assert 'of at least 0.60 were classified as lesion' in other
    assert 'first segmentation' not in other


def recalibrated(parent: Card, label: str, least: float) -> Card:
    """A model with the parent's network and a minimum lesion volume in mm^3 of a site."""
    fitted = {'Scale': 1.0, 'Shift': 0.5, 'ThresholdMove': 0.2, 'MinimumLesionVolume': least}
    content = {
        'Rung': 'recalibrated', 'Parent': {'Name': parent.name, 'Version': '1'},
        'Recalibration': fitted, 'Evidence': {'Labelled': ['sub-01']},
        'SiteMinimumLesionVolume': least,
    }  # fmt: skip
    named = {'name': f'{parent.name}-{label}', 'label': label}
    return replace(parent, **named, content=parent.content | content)


@pytest.mark.parametrize('least', [200, 300])
def test_the_minimum_volume_stands_once_where_the_start_model_has_one_too(tmp_path, least):
    model = make_low_model(tmp_path / 'model', -1.0)
    make_site(tmp_path, model.folder, 1)
    summarise(tmp_path / 'out', '01', replace(model, label=''))
    settings = GroupSettings(
        tmp_path / 'data', tmp_path / 'out', tmp_path / 'work', model=str(model.folder)
    )
    start = recalibrated(model, 'calibrated', 200)
    again = recalibrated(start, 'again', least)
    for card, known in ((start, None), (again, start)):
        case = find_cases(settings, find_results(settings.output_dir), known)[0]
        segment_case(case, card, load_network(model), device='cpu')
        (path,) = settings.output_dir.rglob(f'*{card.label}summary_report.json')
        found = [s for s in read_sidecar(path)['methods'] if s.startswith('Lesions below')]
        volume = 200 if card is start else least
        assert found == [f'Lesions below {volume} mm³ were left out.']
    assert 'Phantoms were segmented.' in read_sidecar(path)['methods']
    assert sum('then recalibrated' in s for s in read_sidecar(path)['methods']) == 2
