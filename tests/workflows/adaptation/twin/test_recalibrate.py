"""The recalibration of a trained model without labels, on people of the twin."""

from __future__ import annotations

from dataclasses import replace

from site_phantom import CARD, head, make_low_model, make_site, put_label

from ssl2_bids.bids.outputs import find_results
from ssl2_bids.settings import GroupSettings
from ssl2_bids.workflows.adaptation import ladder
from ssl2_bids.workflows.adaptation.ladder import Labelled
from ssl2_bids.workflows.adaptation.plan import plan_adaptation
from ssl2_bids.workflows.adaptation.predictions import of_network
from ssl2_bids.workflows.adaptation.state import begin
from ssl2_bids.workflows.adaptation.twin.draw import DrawnTwin
from ssl2_bids.workflows.adaptation.twin.recalibrate import recalibrated_on_twins
from ssl2_bids.workflows.adaptation.untrained import of_twin


def test_it_is_fitted_on_the_grid_of_the_reference_as_any_other(tmp_path):
    """Phantoms stand for people of a twin; the voxels of the network are not theirs."""
    card = CARD | {'Name': 'coarse', 'VoxelSize': [5.5, 4.5, 6.0]}
    model = make_low_model(tmp_path / 'model', -2.0, card)
    make_site(tmp_path, model.folder, 2)
    settings = GroupSettings(
        tmp_path / 'data', tmp_path / 'out', tmp_path / 'work', labels=(tmp_path / 'labels',),
        model=str(model.folder), device='cpu', steps=20,
    )  # fmt: skip
    for number in (1, 2):
        put_label(settings.labels[0], f'{number:02d}', head(number).lesion)
    adaptation = plan_adaptation(settings, find_results(settings.output_dir))
    work = begin(adaptation, lambda line: None)
    cases = [one.case for one in work.people]
    twin = DrawnTwin(None, None, work.people, cases, work.annotations, {}, '')
    site = replace(work, twin=twin, annotations={})
    fitted = recalibrated_on_twins(site, work.network)
    people = of_twin(site)
    tested = ladder.test(
        people, [Labelled(one, '') for one in twin.people], of_network(people, work.network), None
    )
    assert (fitted.calibration, fitted.move) == (tested.fitted.calibration, tested.fitted.move)
    assert fitted.minimum_volume is None
    assert fitted.calibration.shift > 0.5
