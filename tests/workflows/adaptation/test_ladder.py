"""The ladder at a site of phantoms whose start model marks too little: what needs no training."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from running_app import validate
from site_phantom import SHAPE, add_person, head, make_low_model, make_site, put_label, summarise

from ssl2_bids.bids.outputs import find_results, read_sidecar
from ssl2_bids.errors import DataError, ReadError, StorageError, UnavailableError, UsageError
from ssl2_bids.files import write_json
from ssl2_bids.networks.calibration import UNCHANGED, Calibration
from ssl2_bids.networks.weights import (
    find_model,
    load_network,
    read_card,
    read_weights,
)
from ssl2_bids.reports.adaptation import rung_chart
from ssl2_bids.settings import GroupSettings
from ssl2_bids.steps.segmentation import segment
from ssl2_bids.training.adaptation import adapt as training
from ssl2_bids.training.adaptation.recalibration import Counts, count, fit
from ssl2_bids.volume import read
from ssl2_bids.workflows.adaptation import ladder
from ssl2_bids.workflows.adaptation import resegment as segmenting
from ssl2_bids.workflows.adaptation import run as running
from ssl2_bids.workflows.adaptation import scores as scoring
from ssl2_bids.workflows.adaptation.cases import images_of
from ssl2_bids.workflows.adaptation.plan import plan_adaptation
from ssl2_bids.workflows.adaptation.predictions import first_probability
from ssl2_bids.workflows.adaptation.state import begin
from ssl2_bids.workflows.cohort.run import run_group_level

PEOPLE = 4
SHIFT = -3.0  # of the logit of the start model


@pytest.fixture(scope='module')
def model(tmp_path_factory) -> Path:
    return make_low_model(tmp_path_factory.mktemp('model'), SHIFT).folder


@pytest.fixture(scope='module')
def fresh(model, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('fresh')
    make_site(root, model, PEOPLE)
    return root


@pytest.fixture
def site(fresh, model, tmp_path) -> GroupSettings:
    """A copy of the site, with two labelled people."""
    shutil.copytree(fresh, tmp_path, dirs_exist_ok=True)
    settings = GroupSettings(
        tmp_path / 'data', tmp_path / 'out', tmp_path / 'work', labels=(tmp_path / 'labels',),
        model=str(model), device='cpu', steps=20, rung='recalibrated',
    )  # fmt: skip
    for number in (1, 2):
        put_label(settings.labels[0], f'{number:02d}', head(number).lesion)
    return settings


def run(settings: GroupSettings) -> tuple[int, str]:
    output: list[str] = []
    code = run_group_level(settings, show=output.append)
    return code, '\n'.join(output)


def card_of(settings: GroupSettings) -> dict:
    return json.loads((settings.output_dir / 'models/adapted/model.json').read_text())


def mask_path(settings: GroupSettings, number: int, desc: str = '_desc-adapted') -> Path:
    name = f'sub-0{number}/anat/sub-0{number}_space-T1w_label-L{desc}_mask.nii.gz'
    return settings.output_dir / name


def mask_of(settings: GroupSettings, number: int, desc: str = '_desc-adapted') -> np.ndarray:
    return read(mask_path(settings, number, desc)).data > 0


def dice_of(found: np.ndarray, truth: np.ndarray) -> float:
    return 2 * (found & truth).sum() / max(found.sum() + truth.sum(), 1)


def nothing_is_trained(monkeypatch) -> None:
    def fail(*given, **named):
        raise AssertionError('a training or a network ran')

    monkeypatch.setattr(training, 'adapt', fail)
    monkeypatch.setattr(segmenting, 'segment', fail)


def test_a_recalibrated_model_needs_neither_training_nor_network(site, monkeypatch):
    nothing_is_trained(monkeypatch)
    code, output = run(site)
    assert code == 0
    assert 'recalibrated without this participant' in output
    assert not list(site.work_dir.rglob('image.npy'))  # no participant is prepared
    card = card_of(site)
    assert (card['Accepted'], card['Rung'], card['Steps']) == (True, 'recalibrated', 0)
    settled = read_sidecar(site.output_dir / 'models/adapted/report.json')
    assert [settled[key] for key in ('Strategy', 'Steps', 'Trainings')] == ['none', 0, []]
    assert 'strategy = "none"' in (site.output_dir / 'models/adapted/config.toml').read_text()
    assert card['Sha256'] == json.loads(Path(site.model, 'model.json').read_text())['Sha256']
    for number in (3, 4):  # who has no label
        truth = head(number).lesion
        before = dice_of(mask_of(site, number, ''), truth)
        assert dice_of(mask_of(site, number), truth) > before + 0.05
    assert [rung['Rung'] for rung in card['Rungs']] == ['bundled', 'recalibrated']
    assert [rung['Taken'] for rung in card['Rungs']] == [False, True]
    assert card['Rungs'][1]['Dice'] > card['Rungs'][0]['Dice'] + 0.05
    with open(site.output_dir / 'group_performance.tsv', newline='') as stream:
        rows = list(csv.DictReader(stream, delimiter='\t'))
    after = np.mean([float(row['dice_after']) for row in rows])
    assert card['Rungs'][1]['Dice'] == pytest.approx(after, abs=1e-3)
    page = (site.output_dir / 'group_report.html').read_text()
    assert 'Recalibrated: the logit is multiplied by' in page
    assert 'aria-label="Mean Dice of 2 rungs"' in page
    assert validate(site.output_dir) == []


def test_the_site_s_model_gives_later_scans_what_the_run_gave(site):
    run(site)
    card = find_model('adapted', site.output_dir)
    assert card.calibration != UNCHANGED
    assert card.identity != read_card(Path(site.model)).identity
    (result,) = [
        r for r in find_results(site.output_dir) if r.names.subject == '03' and not r.names.desc
    ]
    images = {c: read(path, contrast=c) for c, path in images_of(result).items()}
    brain = read(result.names.path('anat.brain_mask'), dtype=np.uint8)
    made = segment(images, {}, brain, card, load_network(card)).probability.data
    name = 'sub-03/anat/sub-03_space-T1w_label-L_desc-adapted_probseg'
    stored = read(site.output_dir / f'{name}.nii.gz').data
    np.testing.assert_allclose(made, stored, atol=1e-5)
    sidecar = read_sidecar(site.output_dir / f'{name}.json')
    assert sidecar['Threshold'] == card.threshold
    first = read(result.names.path('anat.probability')).data
    assert np.abs(first - stored).max() > 0.1


def test_probabilities_of_another_model_are_named_and_the_network_runs(site):
    expected = run(site)[0], mask_of(site, 1), mask_of(site, 3)
    shutil.rmtree(site.output_dir / 'models')
    for number in (1, 3):
        path = next(site.output_dir.glob(f'sub-0{number}/anat/*_label-L_mask.json'))
        content = read_sidecar(path)
        content['Model']['Name'] = 'elsewhere'
        content['Model']['Sha256'] = '1' * 64
        write_json(path, content)
    code, output = run(replace(site, label='second'))
    assert code == expected[0] == 0
    again = (
        '; before that phantom-3t segments 1 of them again, in the time of the participant level'
    )
    assert again in output
    assert 'sub-01: the probability in the output folder is of elsewhere' in output
    assert 'sub-03: segmented by second (3 of 4): the probability in the output' in output
    for number, mask in ((1, expected[1]), (3, expected[2])):
        assert (mask_of(site, number, '_desc-second') == mask).mean() > 0.999


def test_results_of_another_model_than_the_default_are_named_before_anything_is_done(
    site, caplog, tmp_path
):
    """The masks that the user has are those of another start model than ``group`` would take."""
    assert run(replace(site, label='of2', dry_run=True))[0] == 0
    assert 'the start model is' not in caplog.text  # --model was given
    assert run(replace(site, resegment=False))[0] == 0
    other = shutil.copytree(site.model, tmp_path / 'other')
    content = read_sidecar(other / 'model.json') | {'Name': 'other-3t'}
    write_json(other / 'model.json', content)
    with pytest.raises(UsageError, match='of another start model, phantom-3t and not other-3t'):
        run(replace(site, model=str(other)))
    run(replace(site, model=None, label='of3', dry_run=True))
    assert (
        'the start model is committee-3t, the default, and the output folder has no result of it: '
        'its results are of phantom-3t (4 sessions). With --model phantom-3t that model is adapted'
    ) in caplog.text


def test_without_time_for_a_training_the_recalibration_is_taken(site, monkeypatch):
    nothing_is_trained(monkeypatch)
    code, output = run(replace(site, rung=None, max_minutes=1e-6))
    assert code == 0
    assert 'no training: ' in output
    assert 'The recalibration needs none' in output
    card = card_of(site)
    assert (card['Accepted'], card['Rung']) == (True, 'recalibrated')
    page = (site.output_dir / 'group_report.html').read_text()
    assert 'without training (--max-time 1e-06 is too short for 6 trainings' in page


def test_all_rungs_are_in_the_table(site):
    run(replace(site, rung=None, resegment=False))
    card = card_of(site)
    rungs = [rung['Rung'] for rung in card['Rungs']]
    assert rungs == ['bundled', 'recalibrated', 'last-layers', 'half-way', 'whole']
    assert sum(rung['Taken'] for rung in card['Rungs']) == 1
    minutes = [rung['Minutes'] for rung in card['Rungs']]
    assert minutes[0] == 0 < minutes[2]
    assert minutes[3] == minutes[4]
    page = (site.output_dir / 'group_report.html').read_text()
    assert 'aria-label="Mean Dice of 5 rungs"' in page


def test_the_last_layers_alone_can_be_asked_for(site):
    code, output = run(replace(site, rung='last-layers', learning_rate=1e-2, accept='always'))
    assert code == 0
    assert '3 trainings of 20 steps by supervised of the last layers alone' in output
    card = card_of(site)
    assert (card['Rung'], card['Strategy'], card['Steps']) == ('last-layers', 'supervised', 20)
    settled = read_sidecar(site.output_dir / 'models/adapted/report.json')
    assert (settled['Strategy'], settled['Steps']) == ('supervised', 20)
    assert [one['Layers'] for one in settled['Trainings']] == ['last']
    config = (site.output_dir / 'models/adapted/config.toml').read_text()
    assert 'strategy = "supervised"' in config
    assert 'layers = "last"' in config
    page = (site.output_dir / 'group_report.html').read_text()
    assert 'of the last layers (supervised, on labelled scans alone): 20 steps' in page
    assert 'mean teacher' not in page
    labelled = len(card['Labels'])
    assert card['TrainedOn'].endswith(
        f'then adapted to {labelled} scans of a site, {labelled} of them labelled'
    )
    assert [rung['Rung'] for rung in card['Rungs']] == ['bundled', 'recalibrated', 'last-layers']
    start = read_weights(read_card(Path(site.model)))
    trained = read_weights(find_model('adapted', site.output_dir))
    changed = {name for name, value in start.items() if not torch.equal(value, trained[name])}
    free = {'n1', 'n2', 'head', 'f1', 'f2', 'out', 'sk'}
    assert {name.split('.')[-2] for name in changed} <= free
    assert {'n1', 'out'} <= {name.split('.')[-2] for name in changed}
    assert not any(name.startswith(('stem', 'up')) or '.c1.' in name for name in changed)
    rows = (site.output_dir / 'models/adapted/history.tsv').read_text()
    assert 'last-final' in rows
    assert card['Rungs'][2]['Dice'] > card['Rungs'][0]['Dice']
    # the trainings of another rung are not those of a resumed run: their time is estimated
    _, output = run(replace(site, learning_rate=1e-2, rung='whole', label='w', resegment=False))
    assert '3 trainings of 20 steps by mean_teacher, patches' in output
    assert 'resuming' not in output
    _, output = run(replace(site, learning_rate=1e-2, rung='whole', label='v', resegment=False))
    assert 'resuming an adaptation of 3 trainings of 20 steps' in output
    for path in site.work_dir.rglob('steps.json'):
        path.write_text('[1]')
    code, output = run(replace(site, learning_rate=1e-2, rung='whole', label='u', resegment=False))
    assert (code, 'resuming' in output) == (0, False)


def test_a_case_read_once_near_its_lesions_has_the_scores_of_all_its_voxels(site):
    """The same as by each threshold on whole images, of a whole label and of a sparse one."""
    put_label(site.labels[0], '03', head(3).lesion)
    sparse(site, 2, [8, 12, 14, 15, 16, 19])
    results = [r for r in find_results(site.output_dir) if not r.names.desc]
    work = begin(plan_adaptation(site, results), lambda line: None)
    folds = running.make_folds(work)
    cases = running.labelled_cases(work, folds)
    probability = first_probability(work)
    tested = ladder.test(work, cases, probability, None)
    whole = {}
    for case in cases:
        brain = scoring.brain_of(case.one)
        truth = ladder.truth_of(work, case.one, brain)
        whole[case.one.case.name] = truth, probability(case.one, truth.box, brain)
    sizes = ladder.minimum_volumes(work)

    def counts_of(name: str) -> Counts:
        truth, found = whole[name]
        return count(found, truth.drawn & truth.extent, truth.brain & truth.extent,
                     participant=name, voxel_volume=truth.voxel_volume, threshold=0.5)  # fmt: skip

    for name, (truth, found) in whole.items():
        plain = scoring.score(truth.brain & (found >= 0.5), truth, sizes)
        assert tested.plain[name] == plain[sizes[0]]
        fitted = fit([counts_of(other) for other in whole if other != name])
        marked = truth.brain & (found >= fitted.mark_from(0.5))
        tables = scoring.score(marked, truth, sizes)
        assert tested.recalibrated[name] in list(tables.values())
        case = next(c for c in cases if c.one.case.name == name)
        near = ladder.read_near(work, case, probability)
        assert len(near.places) < 0.2 * truth.brain.sum()
        for threshold in (fitted.mark_from(0.5), 0.5, 0.06):
            found_near = np.zeros(truth.brain.shape, bool)
            found_near[near.truth.box] = near.marked(threshold)
            assert (found_near == (truth.brain & (found >= threshold))).all()
    assert tested.fitted.calibration == fit([counts_of(name) for name in whole]).calibration


def test_the_start_model_can_be_asked_for(site):
    code, output = run(replace(site, rung='bundled'))
    assert code == 0
    assert 'the start model was asked for' in output
    card = card_of(site)
    assert (card['Accepted'], card['Rung']) == (False, 'bundled')
    assert 'Calibration' not in card
    assert not list(site.output_dir.rglob('*desc-adapted_mask*'))
    weights = site.output_dir / 'models/adapted/weights.safetensors'
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UnavailableError, match='the file is damaged') as raised:
        run(replace(site, rung='bundled'))
    assert raised.value.path == str(weights)


def sparse(site: GroupSettings, number: int, slices: list[int]) -> None:
    drawn = np.zeros(SHAPE, bool)
    drawn[:, :, slices] = head(number).lesion[:, :, slices]
    put_label(
        site.labels[0],
        f'{number:02d}',
        drawn,
        AnnotatedSlices={'Axis': 'k', 'Indices': slices},
    )


def test_one_slice_is_enough_for_a_label(site):
    for number in (1, 2):
        best = int(head(number).lesion.sum(axis=(0, 1)).argmax())
        sparse(site, number, [best])
    code, _ = run(replace(site, resegment=False))
    assert code == 0
    scale, shift = card_of(site)['Recalibration']['Scale'], card_of(site)['Recalibration']['Shift']
    assert 1 / 3 <= scale <= 3
    assert 0 < shift <= 4


def test_one_lesion_that_the_model_misses_changes_little(site):
    """Of 64 mm^3, where the model sees nothing."""
    brain = head(1).brain & ~head(1).lesion
    place = np.argwhere(brain & (head(1).flair < 110))[0]
    for number in (1, 2):
        drawn = np.zeros(SHAPE, bool)
        drawn[tuple(place)] = True
        put_label(site.labels[0], f'{number:02d}', drawn)
    code, _ = run(site)
    assert code == 0
    card = card_of(site)
    assert card['Accepted'] is False
    assert 'Calibration' not in card


def test_masks_that_are_not_of_lesions_are_left_out_and_the_page_names_them(site):
    brain = read(site.output_dir / 'sub-03/anat/sub-03_desc-brain_mask.nii.gz').data > 0
    put_label(site.labels[0], '03', brain)
    outside = np.zeros_like(brain)
    outside[:, :, -2:] = ~brain[:, :, -2:]
    put_label(site.labels[0], '04', outside)
    code, output = run(site)
    assert code == 0
    assert card_of(site)['Evidence']['Labelled'] == ['sub-01', 'sub-02']
    page = (site.output_dir / 'group_report.html').read_text()
    assert 'sub-03: its label is left out: it marks 100% of the brain' in page
    assert 'sub-04: its label is left out: 100% of it lies outside of the brain' in page


def test_all_empty_labels_are_named(site):
    for number in (1, 2):
        put_label(site.labels[0], f'{number:02d}', np.zeros(SHAPE))
    with pytest.raises(DataError, match=r'all labels are empty \(2 of 2\)') as found:
        run(site)
    assert found.value.advice == 'Label at least one participant with lesions.'
    put_label(site.labels[0], '01', np.ones(SHAPE))
    with pytest.raises(DataError, match=r'empty \(1 of 2; 1 cannot be used\)'):
        run(site)


def test_a_single_labelled_participant_is_recalibrated_by_slices(site, monkeypatch, caplog):
    nothing_is_trained(monkeypatch)
    shutil.rmtree(site.labels[0] / 'sub-02')
    with pytest.raises(UsageError, match='Leave --folds out'):
        run(replace(site, folds=2))
    code, output = run(replace(site, rung=None, steps=None))
    assert code == 0
    assert 'one labelled participant: no training; --folds slices' in output
    assert 'recalibrated on other slices' in output
    card = card_of(site)
    assert card['Rung'] == 'recalibrated'
    assert [rung['Rung'] for rung in card['Rungs']] == ['bundled', 'recalibrated']
    assert 'evidence within one person' in card['Reason']
    page = (site.output_dir / 'group_report.html').read_text()
    assert 'this evidence is within one person' in page
    put_label(site.labels[0], '02', np.zeros(SHAPE, bool), Manual=True)
    run(replace(site, label='dry', dry_run=True))
    assert 'sub-01: the only labelled participant with lesions' in caplog.text
    shutil.rmtree(site.labels[0] / 'sub-02')
    asked = run(replace(site, rung=None, steps=None, label='dry', dry_run=True))[1]
    assert 'rungs  bundled, recalibrated\n' in asked
    truth = head(3).lesion
    before = dice_of(mask_of(site, 3, ''), truth)
    assert dice_of(mask_of(site, 3), truth) > before + 0.05


def test_a_single_slice_leaves_nothing_for_a_test(site, monkeypatch):
    nothing_is_trained(monkeypatch)
    shutil.rmtree(site.labels[0] / 'sub-02')
    sparse(site, 1, [int(head(1).lesion.sum(axis=(0, 1)).argmax())])
    code, output = run(site)
    assert code == 0
    assert 'not tested: lesions in a single slice' in output
    assert (card_of(site)['Accepted'], card_of(site)['Rungs']) == (False, [])
    code, _ = run(replace(site, accept='always', resegment=False))
    assert code == 0
    assert card_of(site)['Recalibration']['Shift'] > 0
    untested = 'Not tested: lesions in a single slice'
    assert untested in (site.output_dir / 'group_report.html').read_text()
    put_label(site.labels[0], '02', head(2).lesion)
    held = replace(site, accept='always', resegment=False, holdout=('02',), label='held')
    assert run(held)[0] == 0
    evidence = read_sidecar(site.output_dir / 'models/held/model.json')['Evidence']
    assert (evidence['Labelled'], evidence['LeftOut']) == (['sub-01'], 'nothing')
    page = (site.output_dir / 'group_report.html').read_text()
    assert page.count(untested) == 2
    assert 'Tested on slices' not in page
    hurried = replace(site, rung=None, steps=None, max_minutes=1e-6, label='hurried')
    assert run(hurried)[0] == 0

    def fail(*given, **named):
        raise AssertionError('the time of a training was settled')

    monkeypatch.setattr(running, 'settle_time', fail)
    for accept in ('always', 'auto'):
        label = f'slices{accept}'
        asked = replace(site, rung=None, folds='slices', accept=accept, label=label)
        code, output = run(replace(asked, resegment=False, holdout=('02',)))
        assert (code, 'training of' in output) == (0, False)
        card = read_sidecar(site.output_dir / f'models/{label}/model.json')
        assert card['Accepted'] is (accept == 'always')
        assert card['Rung'] == ('recalibrated' if card['Accepted'] else 'bundled')


def test_what_the_participant_level_made_with_the_adapted_model_stays(site):
    assert run(site)[0] == 0
    card = read_card(site.output_dir / 'models/adapted')
    add_person(site.bids_dir, site.output_dir, '03', head(3), card, load_network(card))
    elsewhere = site.output_dir / 'sub-03/anat/sub-03_space-X_label-L_desc-adapted_mask.nii.gz'
    elsewhere.write_bytes(b'of participant --output-spaces')
    made = {path: path.read_bytes() for path in site.output_dir.glob('sub-03/anat/*adapted*')}
    code, output = run(site)
    assert code == 0
    assert 'already adapted with the same labels' in output
    assert 'sub-03: segmented by adapted at the participant level' in output
    assert {path: path.read_bytes() for path in made} == made


def test_a_disk_that_is_full_ends_the_segmentation_before_it_costs_more_results(site, monkeypatch):
    assert run(replace(site, resegment=False))[0] == 0
    begun = []

    def full(segmentation):
        begun.append(segmentation.names.subject)
        raise StorageError('there is no space left', path=segmentation.names.root)

    monkeypatch.setattr(segmenting, 'write_segmentation', full)
    with pytest.raises(StorageError, match='no space left'):
        run(site)
    assert len(begun) == 1

    def unread(path, **_):
        raise ReadError('reading failed', path=path)

    monkeypatch.undo()
    truly = segmenting.segment_case
    monkeypatch.setattr(
        segmenting,
        'segment_case',
        lambda case, *given, **named: (
            unread(case.brain_mask) if case.name == 'sub-03' else truly(case, *given, **named)
        ),
    )
    assert run(site)[0] == 1  # a scan that the disk does not give fails alone
    assert mask_of(site, 4).any()
    assert not mask_path(site, 3).exists()


def test_a_lesion_in_few_slices_is_not_tested_by_tissue_without_lesions(site):
    """A higher threshold would gain in all slices but those of the lesion, and remove it."""
    shutil.rmtree(site.labels[0] / 'sub-02')
    drawn = head(1).lesion
    best = int(drawn.sum(axis=(0, 1)).argmax())
    few = np.zeros_like(drawn)
    few[:, :, best - 1 : best + 1] = drawn[:, :, best - 1 : best + 1]
    put_label(site.labels[0], '01', few)
    code, output = run(replace(site, accept='always'))
    assert code == 0
    assert 'not tested: lesions in a single slice, or in its neighbours alone' in output
    assert card_of(site)['Rungs'] == []
    assert (mask_of(site, 1) & few).any()


@pytest.mark.parametrize('first', range(3))
def test_pieces_of_one_lesion_are_no_test_of_each_other(site, first):
    """Wherever the border of two parts lies within the lesion."""
    shutil.rmtree(site.labels[0] / 'sub-02')
    one = np.zeros(SHAPE, bool)
    one[8:12, 8:12, 6 + first : 14 + first] = True
    put_label(site.labels[0], '01', one)
    code, output = run(replace(site, resegment=False))
    assert code == 0
    assert 'leave nothing for a test, nor does a single lesion' in output
    assert (card_of(site)['Accepted'], card_of(site)['Rungs']) == (False, [])


def test_a_slice_of_another_axis_is_not_tested_on_pieces_of_itself(site):
    shutil.rmtree(site.labels[0] / 'sub-02')
    drawn = head(1).lesion
    best = int(drawn.sum(axis=(1, 2)).argmax())
    only = np.zeros_like(drawn)
    only[best] = drawn[best]
    slices = {'Axis': 'i', 'Indices': [best]}
    put_label(site.labels[0], '01', only, AnnotationExtent='slices', AnnotatedSlices=slices)
    code, output = run(replace(site, resegment=False))
    assert code == 0
    assert 'not tested: lesions in a single slice' in output


def test_two_sessions_of_a_single_participant_are_both_used(site):
    """Each is tested on its own slices."""
    for subject in ('01', '02'):
        shutil.rmtree(site.labels[0] / f'sub-{subject}')
    card = replace(read_card(Path(site.model)), label='')
    for session in ('a', 'b'):
        add_person(site.bids_dir, site.output_dir, '09', head(9), card, load_network(card),
                   session=session)  # fmt: skip
        put_label(site.labels[0], '09', head(9).lesion, session=session)
    code, output = run(site)
    assert code == 0
    assert output.count('recalibrated on other slices') == 2
    assert card_of(site)['Rungs'][1]['Participants'] == 1
    with pytest.raises(UsageError, match='2 sessions of the only labelled participant'):
        run(replace(site, rung='whole', label='trained'))


def test_a_recalibrated_model_is_a_start_like_any_other(site):
    """Its own calibration and the new one follow one another."""
    run(site)
    first = find_model('adapted', site.output_dir)
    again = replace(site, model='adapted', label='again', accept='always')
    code, output = run(again)
    assert code == 0
    assert 'the network segments' not in output  # its own results stand there
    second = find_model('again', site.output_dir)
    fitted = Calibration(*(second.content['Recalibration'][key] for key in ('Scale', 'Shift')))
    assert second.calibration == pytest.approx(fitted.after(first.calibration))
    assert abs(fitted.shift) < abs(first.calibration.shift) / 2  # it is right already
    changed = (mask_of(site, 3) != mask_of(site, 3, '_desc-again')).sum()
    assert changed < 0.2 * head(3).lesion.sum()


def test_who_is_held_out_is_in_no_fit(site):
    put_label(site.labels[0], '03', head(3).lesion)
    run(site)
    with_it = card_of(site)['Recalibration']
    code, output = run(replace(site, holdout=('03',), label='held'))
    assert code == 0
    assert '(held out)' in output
    shutil.rmtree(site.labels[0] / 'sub-03')
    run(replace(site, label='two'))
    cards = [
        json.loads((site.output_dir / f'models/{name}/model.json').read_text())['Recalibration']
        for name in ('held', 'two')
    ]
    assert cards[0] == cards[1] != with_it


def test_a_dry_run_lists_each_file_of_a_recalibration(site):
    run(site)
    code, output = run(replace(site, label='other', dry_run=True))
    assert code == 0
    assert 'rungs  recalibrated' in output
    listed = {
        line.removeprefix('write').strip().replace('other', 'adapted')
        for line in output.splitlines()
        if line.startswith('write') and '/sub-' not in line
    }
    root = site.output_dir
    patterns = ('group_*', 'figures/group_*', 'models/adapted/*')
    written = {p.relative_to(root).as_posix() for pattern in patterns for p in root.glob(pattern)}
    assert written == listed


def test_the_table_and_the_plot_of_rungs():
    rungs = [
        {'Rung': 'bundled', 'Dice': 0.5, 'StandardError': 0.0, 'Taken': False},
        {'Rung': 'recalibrated', 'Dice': 0.62, 'StandardError': 0.03, 'Taken': True},
        {'Rung': 'whole', 'Dice': None, 'StandardError': None, 'Taken': False},
    ]
    chart = str(rung_chart(rungs))
    assert 'aria-label="Mean Dice of 2 rungs"' in chart
    assert '<title>recalibrated: 0.620</title>' in chart
    assert chart.count('font-weight="bold"') == 1
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', chart)]
    assert heights[1] < heights[0]
    assert rung_chart(rungs[:1]) == ''


def test_a_model_of_an_adapted_model_has_its_minimum_volume_and_not_its_twin(site):
    always = replace(site, accept='always')
    summarise(site.output_dir, '03', replace(read_card(Path(always.model)), label=''))
    run(always)
    first = site.output_dir / 'models' / 'adapted' / 'model.json'
    content = json.loads(first.read_text(encoding='utf-8'))
    content |= {'Twin': {'People': 16, 'Measured': 8}, 'MinimumLesionVolume': 200.0}
    content['SiteMinimumLesionVolume'] = 200.0
    write_json(first, content)
    run(replace(always, model=str(first.parent), label='two'))
    second = read_card(site.output_dir / 'models' / 'two')
    assert second.adapted_to == ['sub-01', 'sub-02']
    assert second.content['Evidence']['SeenBefore'] == ['sub-01', 'sub-02']
    later = {'Labelled': ['sub-03'], 'SeenBefore': ['sub-01']}
    for accepted, seen in ((True, ['sub-01', 'sub-03']), (False, ['sub-01'])):
        content = second.content | {'Evidence': later, 'Accepted': accepted}
        assert replace(second, content=content).adapted_to == seen
    page = (site.output_dir / 'group_report.html').read_text(encoding='utf-8')
    assert 'was adapted to labels of this participant: its scores are too high' in page
    assert 'of a participant of this name' not in page
    shutil.copytree(site.labels[0], site.labels[0].with_name('others'))
    put_label(site.labels[0].with_name('others'), '01', head(7).lesion)
    other = replace(always, model=str(first.parent), label='three', resegment=False)
    run(replace(other, labels=(site.labels[0].with_name('others'),)))
    notes = {one['name']: one['note'] for one in read_sidecar(
        site.output_dir / 'models/three/report.json')['LabelNotes']}  # fmt: skip
    assert 'labels of a participant of this name. If it is the same person' in notes['sub-01']
    assert 'was adapted to labels of this participant: its scores' in notes['sub-02']
    card = read_card(site.output_dir / 'models' / 'two')
    assert 'Twin' not in card.content
    assert card.fitted_minimum_volume == card.minimum_lesion_volume == 200
    sidecar = read_sidecar(site.output_dir / (
        'sub-03/anat/sub-03_space-T1w_label-L_desc-two_mask.json'))  # fmt: skip
    assert sidecar['MinimumLesionVolume'] == 200
    path = site.output_dir / 'sub-03' / 'figures' / 'sub-03_desc-twosummary_report.json'
    summary = json.loads(path.read_text(encoding='utf-8'))
    assert summary['settings']['minimum lesion volume (mm^3)'] == 200
    assert 'Lesions below 200 mm³ were left out.' in summary['methods']


def test_the_report_counts_labelled_sessions_held_out_and_names_what_was_asked_for(site):
    card = replace(read_card(Path(site.model)), label='')
    network = load_network(card)
    for session in ('a', 'b'):
        add_person(site.bids_dir, site.output_dir, '05', head(5), card, network, session=session)
    put_label(site.labels[0], '05', head(5).lesion, session='a')
    code, output = run(replace(site, holdout=('05',), resegment=False))
    assert code == 0, output
    facts = read_sidecar(site.output_dir / 'models/adapted/report.json')
    assert (facts['Sessions'], facts['Labelled'], facts['HeldOut']) == (6, 3, 1)
    assert (facts['AskedRung'], facts['Accept']) == ('recalibrated', 'auto')
    assert 'Final' not in facts


def test_what_is_held_out_does_not_choose_the_strategy(site):
    """An unlabelled session of a participant who is in no training gives it no unlabelled part."""
    card = replace(read_card(Path(site.model)), label='')
    network = load_network(card)
    for session in ('a', 'b'):
        add_person(site.bids_dir, site.output_dir, '05', head(5), card, network, session=session)
    put_label(site.labels[0], '05', head(5).lesion, session='a')
    for number in (3, 4):
        put_label(site.labels[0], f'{number:02d}', head(number).lesion)
    for holdout, strategy in ((('05',), 'supervised'), ((), 'mean_teacher')):
        settings = replace(site, rung='whole', holdout=holdout)
        planned = plan_adaptation(settings, find_results(site.output_dir))
        assert begin(planned, lambda line: None).training.strategy == strategy


def test_people_without_lesions_ask_for_no_empty_masks(site, caplog):
    """A few of them have Dice 1 with empty masks: this is no reason to lose patients' lesions."""
    for number in (3, 4):
        put_label(site.labels[0], f'{number:02d}', np.zeros(SHAPE, bool), Manual=True)
    code, output = run(replace(site, accept='always'))
    assert code == 0, output
    assert 'the only labelled participant with lesions' not in caplog.text
    for number in (1, 2):
        folder = site.output_dir / f'sub-0{number}' / 'anat'
        (path,) = folder.glob('*_label-L_desc-adapted_mask.nii.gz')
        assert read(path).data.any()


def test_neighbouring_slices_of_one_participant_lower_no_threshold_unless_asked(site):
    shutil.rmtree(site.labels[0] / 'sub-02')
    best = int(head(1).lesion.sum(axis=(0, 1)).argmax())
    sparse(site, 1, list(range(best - 2, best + 3)))
    for accept, used in (('auto', False), ('always', True)):
        code, output = run(replace(site, steps=None, accept=accept, resegment=False))
        assert code == 0
        assert 'lower the threshold only with a gain of 0.1 in slices over at least' in output
        assert 'check that the labels belong' not in output
        card = card_of(site)
        assert card['Accepted'] is used
        assert (card.get('Recalibration', {}).get('ThresholdMove', 0) < 0) is used


@pytest.mark.parametrize(('axis', 'first', 'last', 'span'), [(2, 3, 7, 25.0), (0, 5, 9, 4.0)])
def test_the_span_of_annotated_slices_is_their_least_extent(axis, first, last, span):
    annotated = np.zeros((40, 50, 12), bool)
    box = [slice(2, 38), slice(2, 48), slice(1, 11)]
    box[axis] = [first, last]  # only the ends: slices that lie apart
    annotated[tuple(box)] = True
    assert scoring.span_of(annotated, (0.8, 0.8, 5.0)) == pytest.approx(span)
    assert scoring.span_of(np.zeros((4, 4, 4), bool), (1, 1, 1)) == 0
