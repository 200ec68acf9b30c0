"""From simulated scans without labels to a model trained on people of their twin."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from running_app import validate
from site_phantom import make_model

from ssl2_bids.files import write_text
from ssl2_bids.settings import GroupSettings, ParticipantSettings
from ssl2_bids.simulation.scanner.protocols import read_scanner
from ssl2_bids.workflows.adaptation.twin import draw, recalibrate
from ssl2_bids.workflows.cohort.run import run_group_level
from ssl2_bids.workflows.participant.run import run_participant_level
from ssl2_bids.workflows.simulation.run import simulate

PROTOCOL = """\
name = "Hidden"
field = 1.5
snr = [18, 22]

[sequences.FLAIR]
kind = "flair"
tr = 7.0
te = 0.12
ti = [2.1]
train = 0.3
geometry = { axes = "LAS", voxel = [2.0, 2.0, 5.0], extent = [190, 230, 165], thickness = 4.0, \
phase = "i", readout = "j" }
"""


@pytest.fixture
def site(tmp_path, monkeypatch) -> GroupSettings:
    """Two people of a scanner that no protocol describes, segmented, without labels."""
    monkeypatch.setattr(draw, 'PILOTS', 1)
    monkeypatch.setattr(draw, 'DRAWN', 4)
    monkeypatch.setattr(draw, 'LEAST', 2)
    monkeypatch.setattr(recalibrate, 'KEPT_APART', 1)
    model = make_model(tmp_path)
    card = json.loads((model / 'model.json').read_text())
    card['Required'] = [['FLAIR']]
    (model / 'model.json').write_text(json.dumps(card))
    write_text(tmp_path / 'hidden.toml', PROTOCOL)
    raw, out, work = (tmp_path / name for name in ('raw', 'out', 'work'))
    simulate(raw, subjects=2, seed=5, protocol=tmp_path / 'hidden.toml')
    participant = ParticipantSettings(raw, out, work, model=str(model), device='cpu')
    code, _ = run_participant_level(participant)
    assert code == 0
    return GroupSettings(
        raw, out, work, model=str(model), device='cpu', strategy='twin', accept='always'
    )


def test_a_site_without_labels_is_recalibrated_on_its_twin(site, monkeypatch, caplog):
    caplog.set_level(logging.INFO, 'ssl2_bids')
    monkeypatch.setattr(draw, 'DRAWN', 2)
    monkeypatch.setattr(draw, 'LEAST', 2)
    shown: list[str] = []
    settings = replace(site, rung='recalibrated')
    out = site.output_dir
    assert run_group_level(settings, show=shown.append) == 0
    assert not any(line.startswith('training') for line in shown)
    assert 'not used' not in caplog.text  # of the simulated people's own files
    card = json.loads((out / 'models/adapted/model.json').read_text())
    assert (card['Rung'], card['Strategy'], card['WeightShare']) == ('recalibrated', 'none', 0)
    assert card['Recalibration']['Scale'] > 0
    assert card['Evidence']['Labelled'] == []
    assert card['Evidence']['LeftOut'] == 'nothing'
    assert 'recalibrated on 2 simulated people of a scanner fitted to 2 scans' in card['TrainedOn']
    assert 'without a test on real scans; on simulated people' in card['Reason']
    first = (Path(site.model) / 'weights.safetensors').read_bytes()
    assert (out / 'models/adapted/weights.safetensors').read_bytes() == first
    assert read_scanner(out / 'models/adapted/twin.toml').field == 1.5
    page = (out / 'group_report.html').read_text()
    assert 'the recalibration was fitted to their lesions' in page
    assert 'No real label took part' in page
    page = (out / 'sub-01.html').read_text()
    assert 'no label of the site took part' in page
    assert 'fitted to the lesions of 2 simulated people of a scanner' in page
    assert len(list(out.rglob('*desc-adapted_mask.nii.gz'))) == 2
    assert validate(out) == []
    # with labels the twin of before gives the least move of the threshold
    shown.clear()
    truth = settings.bids_dir / 'derivatives/truth'
    labelled = replace(settings, labels=(truth,), label='both')
    assert run_group_level(labelled, show=shown.append) == 0
    assert any('asks for' in line and line.startswith('the scanner twin') for line in shown)
    card = json.loads((out / 'models/both/model.json').read_text())
    found = card['Recalibration']
    assert found['ThresholdMove'] >= found['LeastMove'] >= 0
    assert len(card['Evidence']['Labelled']) == 2
    assert 'labelled scans of a site and 2 simulated people of a scanner' in card['TrainedOn']
    page = (out / 'group_report.html').read_text()
    assert 'moves the threshold at least as far up as they ask for' in page
    # an adaptation without labels has no scores, and keeps those of before
    table = (out / 'group_performance.tsv').read_bytes()
    assert b'sub-01' in table
    assert run_group_level(replace(settings, label='bare'), show=shown.append) == 0
    assert (out / 'group_performance.tsv').read_bytes() == table


@pytest.mark.slow
def test_a_site_without_labels_is_adapted_by_its_twin(site):
    out, work = site.output_dir, site.work_dir
    shown = []
    settings = replace(site, steps=12)
    assert run_group_level(settings, show=shown.append) == 0
    scanner = read_scanner(out / 'models/adapted/twin.toml')
    geometry = scanner.geometries['FLAIR']
    assert geometry.voxel == (2.0, 2.0, 5.0)
    assert geometry.thickness == 4.0
    assert scanner.field == 1.5
    card = json.loads((out / 'models/adapted/model.json').read_text())
    assert card['Strategy'] == 'twin'
    uses = {key: card['Twin'][key] for key in ('People', 'Trained', 'Fitted')}
    assert uses == {'People': 4, 'Trained': 3, 'Fitted': 1}
    assert '3 simulated people' in card['TrainedOn']
    assert 'and recalibrated on 1 more' in card['TrainedOn']
    assert card['Evidence']['LeftOut'] == 'nothing'
    assert 'Recalibration' in card
    page = (out / 'group_report.html').read_text()
    assert 'The scanner twin' in page
    assert 'No real label took part' in page
    assert (out / 'figures/group_desc-adapted_twin.svg').is_file()
    assert len(list(out.rglob('*desc-adapted_mask.nii.gz'))) == 2
    weights = (out / 'models/adapted/weights.safetensors').read_bytes()
    # the same command takes everything up; another label trains and draws nothing again
    drawn = {path: path.stat().st_mtime_ns for path in work.rglob('twin/**/*_FLAIR.nii.gz')}
    assert len(drawn) > 5
    shown.clear()
    assert run_group_level(settings, show=shown.append) == 0
    assert any('already adapted' in line for line in shown)
    assert run_group_level(replace(settings, label='again'), show=shown.append) == 0
    assert (out / 'models/again/weights.safetensors').read_bytes() == weights
    assert drawn == {path: path.stat().st_mtime_ns for path in drawn}
