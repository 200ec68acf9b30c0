"""An adaptation that begins with a model of a calibration of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from site_phantom import CARD, head, make_low_model, make_site, put_label

from ssl2_bids.bids.outputs import Result, find_results
from ssl2_bids.networks.calibration import Calibration
from ssl2_bids.networks.cards import Card
from ssl2_bids.networks.weights import load_network
from ssl2_bids.settings import GroupSettings
from ssl2_bids.training.adaptation.left_out import probability_of
from ssl2_bids.workflows.adaptation import ladder
from ssl2_bids.workflows.adaptation.cases import find_cases
from ssl2_bids.workflows.adaptation.first_results import stored_by_another
from ssl2_bids.workflows.adaptation.ladder import Labelled
from ssl2_bids.workflows.adaptation.plan import plan_adaptation
from ssl2_bids.workflows.adaptation.predictions import (
    first_probability,
    of_files,
    of_network,
    prediction_file,
)
from ssl2_bids.workflows.adaptation.prepare import keep
from ssl2_bids.workflows.adaptation.resegment import segment_case
from ssl2_bids.workflows.adaptation.state import begin
from ssl2_bids.workflows.segmentation_files import calibration_keys

OWN = {'Scale': 0.5, 'Shift': 1.0}


@pytest.fixture(scope='module')
def model(tmp_path_factory) -> Card:
    """A calibrated one whose voxels are not those of the scans."""
    card = CARD | {'Name': 'coarse', 'VoxelSize': [5.5, 4.5, 6.0], 'Calibration': OWN}
    return make_low_model(tmp_path_factory.mktemp('model'), -1.0, card)


@pytest.fixture
def site(model, tmp_path) -> GroupSettings:
    make_site(tmp_path, model.folder, 2)
    settings = GroupSettings(
        tmp_path / 'data', tmp_path / 'out', tmp_path / 'work', labels=(tmp_path / 'labels',),
        model=str(model.folder), device='cpu', steps=20,
    )  # fmt: skip
    for number in (1, 2):
        put_label(settings.labels[0], f'{number:02d}', head(number).lesion)
    return settings


def test_a_test_calibrates_where_the_model_in_use_does(site):
    """On the grid of the reference: stored, made again, of a network, and out of fold."""
    adaptation = plan_adaptation(site, find_results(site.output_dir))
    assert adaptation is not None
    work = begin(adaptation, lambda line: None)
    one = work.labelled[0]
    brain = ladder.scoring.brain_of(one)
    box = ladder.truth_of(work, one, brain).box
    stored = first_probability(work)(one, box, brain)
    assert work.adaptation.card.calibration == Calibration(0.5, 1.0)
    assert 0.2 < stored.max() <= 1

    elsewhere = Result(one.case.result.names, {})
    again = replace(one, case=replace(one.case, result=elsewhere))
    assert stored_by_another(elsewhere, work.adaptation.card)
    keep(
        prediction_file(work, one, '1', 'whole'),
        probability_of(work.network, one.read(), work.adaptation.card, work.device),
    )
    found = {
        'made again': first_probability(work)(again, box, brain),
        'network': of_network(work, work.network)(one, box, brain),
        'out of fold': of_files(work, 'whole', [Labelled(one, '1')])(one, box, brain),
    }
    for name, values in found.items():
        np.testing.assert_allclose(values, stored, atol=0.02, err_msg=name)  # float16


def test_the_result_of_the_start_model_goes_before_the_first_one(site, tmp_path):
    first = find_cases(site, find_results(site.output_dir))[0]
    content = CARD | {'Name': 'coarse-calibrated', 'VoxelSize': [5.5, 4.5, 6.0]}
    own = make_low_model(tmp_path / 'own', -1.0, content | {'Label': 'calibrated'})
    segment_case(first, own, load_network(own), device='cpu')
    cases = find_cases(site, find_results(site.output_dir), own)
    assert [case.result.names.desc for case in cases] == ['calibrated', first.result.names.desc]
    assert not stored_by_another(cases[0].result, own)

    # what is made from it still names the result whose preprocessed images were used
    other = replace(own, label='adapted')
    segment_case(cases[0], other, load_network(own), device='cpu')
    (made,) = [r for r in find_results(site.output_dir) if r.names.desc == 'adapted']
    assert made.sidecar['FirstResult'] == first.result.names.desc
    found = find_cases(site, find_results(site.output_dir))
    assert {case.result.names.desc for case in found} == {first.result.names.desc}


def test_labels_that_the_calibration_was_not_fitted_to_are_not_named_with_it(model):
    evidence = {'Evidence': {'Labelled': ['sub-09']}}
    trained = replace(model, content=model.content | evidence)
    assert calibration_keys(trained) == {'Calibration': OWN}
    fitted = replace(model, content=trained.content | {'Recalibration': {}})
    assert calibration_keys(fitted) == {'Calibration': OWN | {'Participants': ['sub-09']}}


def test_a_result_of_a_former_calibration_is_of_another_model(site, model, tmp_path):
    first = find_cases(site, find_results(site.output_dir))[0]
    own = replace(model, label='calibrated')
    segment_case(first, own, load_network(own), device='cpu')
    fitted = replace(own, calibration=Calibration(2.0, 0.0))
    (case, _) = find_cases(site, find_results(site.output_dir), fitted)
    assert case.result.names.desc == first.result.names.desc
    assert Path(case.brain_mask).is_file()
