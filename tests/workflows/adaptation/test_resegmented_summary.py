"""Methods sentences on results of an adapted model."""

from __future__ import annotations

from types import SimpleNamespace

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


def test_with_labels_all_people_of_the_twin_train():
    twin = CONTENT['Twin'] | {'Trained': 16, 'Fitted': 0}
    text = text_of(Evidence={'Labelled': ['sub-01']}, Twin=twin)
    assert 'trained with 16 simulated people' in text
    assert 'fitted to the same labels' in text
