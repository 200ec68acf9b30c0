"""--calibrate-from at a site of phantoms: what needs seconds, and no group level."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from running_app import digests, validate
from site_phantom import CARD, SHAPE, add_person, head, make_low_model, put_label, summarise

from ssl2_bids.bids.outputs import UnitNames, find_results, read_sidecar, sidecar_path
from ssl2_bids.bids.provenance import write_dataset_files
from ssl2_bids.errors import (
    SOME_FAILED,
    DataError,
    DeniedError,
    NoInputError,
    StorageError,
    UsageError,
)
from ssl2_bids.files import sha256, write_json, write_text
from ssl2_bids.networks.cards import Card
from ssl2_bids.networks.weights import find_model, load_network
from ssl2_bids.settings import GroupSettings, ParticipantSettings
from ssl2_bids.volume import read
from ssl2_bids.workflows.adaptation import calibrate as calibrating
from ssl2_bids.workflows.adaptation import resegment as segmenting
from ssl2_bids.workflows.adaptation import untrained
from ssl2_bids.workflows.adaptation.calibrate import calibrate, describe, plan_calibration
from ssl2_bids.workflows.adaptation.cases import FILTERED, LEFT_OUT, NAMING
from ssl2_bids.workflows.cohort.run import run_group_level
from ssl2_bids.workflows.current_results import OUT_OF_DATE, current_results
from ssl2_bids.workflows.evaluation.run import evaluate
from ssl2_bids.workflows.participant.pages import write_pages

PEOPLE = 4
SHIFT = -2.0  # of the logit of the start model


@pytest.fixture(scope='module')
def card(tmp_path_factory) -> Card:
    folder = tmp_path_factory.mktemp('model')
    return make_low_model(folder, SHIFT, {**CARD, 'Label': 'low'})


@pytest.fixture(scope='module')
def fresh(card, tmp_path_factory) -> Path:
    """A site after the participant level with this model."""
    root = tmp_path_factory.mktemp('fresh')
    description = {'Name': 'phantoms', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw'}
    write_json(root / 'data/dataset_description.json', description)
    write_text(root / 'data/README', 'Made by a test.\n')
    write_dataset_files(root / 'out', root / 'data')
    for number in range(1, PEOPLE + 1):
        add_person(root / 'data', root / 'out', f'0{number}', head(number), card,
                   load_network(card))  # fmt: skip
        summarise(root / 'out', f'0{number}', card)
    return root


@pytest.fixture
def site(fresh, card, tmp_path) -> ParticipantSettings:
    """A copy of the site; sub-01 is labelled."""
    shutil.copytree(fresh, tmp_path, dirs_exist_ok=True)
    put_label(tmp_path / 'labels', '01', head(1).lesion)
    return ParticipantSettings(
        tmp_path / 'data', tmp_path / 'out', tmp_path / 'work', model=str(card.folder),
        device='cpu', calibrate_from=(tmp_path / 'labels',),
    )  # fmt: skip


def run(settings: ParticipantSettings) -> tuple[bool, str]:
    output: list[str] = []
    complete = calibrate(plan_calibration(settings), output.append)
    return complete, '\n'.join(output)


def content_of(settings: ParticipantSettings) -> dict:
    path = settings.output_dir / 'models/calibrated/model.json'
    return json.loads(path.read_text(encoding='utf-8'))


def result_of(settings: ParticipantSettings, subject: str, desc: str = 'calibrated') -> Path:
    name = f'sub-{subject}_space-T1w_label-L_desc-{desc}_mask.nii.gz'
    return settings.output_dir / f'sub-{subject}/anat' / name


def dice_of(path: Path, truth: np.ndarray) -> float:
    found = read(path).data > 0
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


def digests_of(settings: ParticipantSettings, *patterns: str) -> dict[str, str]:
    found = [path for pattern in patterns for path in settings.output_dir.rglob(pattern)]
    return {path.name: sha256(path) for path in found if path.is_file()}


def citation_of(settings: ParticipantSettings) -> list[str]:
    return (settings.output_dir / 'logs/CITATION.md').read_text(encoding='utf-8').splitlines()


def no_network_runs(monkeypatch) -> None:
    def fail(*given, **named):
        raise AssertionError('a network ran')

    monkeypatch.setattr(segmenting, 'segment', fail)


def test_one_labelled_person_is_enough(site, monkeypatch):
    no_network_runs(monkeypatch)
    complete, output = run(site)
    assert complete
    assert 'evidence within one person' in output
    for number in (2, 3, 4):
        first = dice_of(result_of(site, f'0{number}', 'low'), head(number).lesion)
        assert dice_of(result_of(site, f'0{number}'), head(number).lesion) > first + 0.03
    content = content_of(site)
    assert content['Evidence']['Labelled'] == ['sub-01']
    assert content['Evidence']['LeftOut'] == 'slices'
    assert content['Labels'][0]['File'].endswith('sub-01_label-lesion_mask.nii.gz')
    sidecar = read_sidecar(result_of(site, '03').with_name(
        result_of(site, '03').name.replace('.nii.gz', '.json')))  # fmt: skip
    assert sidecar['Calibration'] == {**content['Calibration'], 'Participants': ['sub-01']}
    assert sidecar['Threshold'] == content['Threshold']
    page = (site.output_dir / 'sub-03.html').read_text()
    assert 'Model of the site: recalibrated, on manual masks of sub-01' in page
    assert 'This evidence is within one person' in page
    methods = (site.output_dir / 'logs/CITATION.md').read_text()
    assert 'fitted to manual lesion masks of 1 participant.' in methods
    numbers = content['Calibration']
    assert f'by {numbers["Scale"]:.2f} and changed by {numbers["Shift"]:.2f}' in methods
    moved = content['Recalibration']['ThresholdMove'] != 0
    assert ('The threshold of the first segmentation was kept.' in methods) is not moved
    now = f'recalibrated probability of at least {sidecar["Threshold"]:.2f}'
    assert (now in methods) is moved
    assert 'On calibration of modern neural networks' in methods
    assert not list(site.output_dir.glob('group_*'))
    assert validate(site.output_dir) == []


def test_several_people_are_tested_on_one_another(site):
    for number in (2, 3):
        put_label(site.calibrate_from[0], f'0{number}', head(number).lesion)
    run(site)
    evidence = content_of(site)['Evidence']
    assert evidence['LeftOut'] == 'participants'
    assert evidence['Dice'][1] > evidence['Dice'][0] + 0.03
    page = (site.output_dir / 'sub-04.html').read_text()
    assert 'Mean Dice of labelled participants left out of the fit' in page
    assert f'{evidence["Dice"][1]:.3f} by models that were fitted without them' in page
    assert 'by this model' not in page


def test_a_second_run_changes_nothing_and_another_label_everything(site):
    run(site)
    before = digests(site.output_dir)
    complete, output = run(site)
    assert complete
    assert 'the model of an earlier run, with the same labels' in output
    assert digests(site.output_dir) == before
    put_label(site.calibrate_from[0], '01', np.roll(head(1).lesion, 3, axis=0) & head(1).brain)
    # a run on one participant: results of the former calibration do not stay at the others
    complete, output = run(replace(site, participants=('02',)))
    assert complete
    assert '(4 of 4)' in output
    card = find_model('calibrated', site.output_dir)
    for number in range(1, PEOPLE + 1):
        path = result_of(site, f'0{number}')
        sidecar = read_sidecar(path.with_name(path.name.replace('.nii.gz', '.json')))
        assert sidecar['Calibration']['Shift'] == card.calibration.shift
    assert digests(site.output_dir) != before


def test_an_interruption_leaves_no_result_of_a_former_calibration_for_good(site, monkeypatch):
    run(site)
    put_label(site.calibrate_from[0], '01', np.roll(head(1).lesion, 3, axis=0) & head(1).brain)
    one = replace(site, participants=('02',))
    done: list[str] = []

    def until_the_second(case, *given, **named):
        done.append(case.name)
        if len(done) == 2:
            raise KeyboardInterrupt
        return segmenting_one(case, *given, **named)

    segmenting_one = segmenting.segment_case
    with monkeypatch.context() as patched:
        patched.setattr(segmenting, 'segment_case', until_the_second)
        with pytest.raises(KeyboardInterrupt):
            run(one)
    complete, output = run(one)
    assert complete
    assert '(3 of 3)' in output
    card = find_model('calibrated', site.output_dir)
    for number in range(1, PEOPLE + 1):
        path = result_of(site, f'0{number}')
        sidecar = read_sidecar(path.with_name(path.name.replace('.nii.gz', '.json')))
        assert sidecar['Calibration']['Shift'] == card.calibration.shift


def stopped_at_the_second(site: ParticipantSettings, monkeypatch) -> None:
    """A site where a run with other labels ended after one participant."""
    run(site)
    put_label(site.calibrate_from[0], '01', np.roll(head(1).lesion, 3, axis=0) & head(1).brain)
    one_by_one, done = segmenting.segment_case, []

    def until_the_second(case, *given, **named):
        done.append(case.name)
        if len(done) == 2:
            raise KeyboardInterrupt
        return one_by_one(case, *given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(segmenting, 'segment_case', until_the_second)
        with pytest.raises(KeyboardInterrupt):
            run(site)


def test_results_of_two_calibrations_are_not_pooled(site, monkeypatch, caplog):
    """The group level and ssl2 evaluate leave out those of the former labels, until completed."""
    stopped_at_the_second(site, monkeypatch)
    truth = site.work_dir / 'truth'
    for number in range(1, PEOPLE + 1):
        put_label(truth, f'0{number}', head(number).lesion)
    group = GroupSettings(site.bids_dir, site.output_dir, site.work_dir / 'group')
    assert run_group_level(group, show=lambda text: None) == 0
    assert calibrated_in_table(site) == ['sub-01']
    reason = (
        'the result is of a former model calibrated, not of the one in models/calibrated; '
        'run the command with --calibrate-from again'
    )
    former = [r.getMessage() for r in caplog.records if 'former model' in r.getMessage()]
    assert former == [f'left out: sub-02, sub-03, sub-04: {reason}']
    compared = evaluate(site.output_dir, truth, model='calibrated')
    assert [case.subject for case in compared.cases] == ['01']
    assert f'sub-02, sub-03, sub-04: left out: {reason}' in compared.notes
    run(site)
    assert run_group_level(group, show=lambda text: None) == 0
    assert calibrated_in_table(site) == [f'sub-0{number}' for number in range(1, PEOPLE + 1)]
    assert len(evaluate(site.output_dir, truth, model='calibrated').cases) == PEOPLE


def test_a_session_in_which_a_run_was_killed_is_named_and_does_not_count(site, caplog):
    """The JSON of the former mask is removed first, the mask is replaced later."""
    run(site)
    sidecar_path(result_of(site, '03')).unlink()
    truth = site.work_dir / 'truth'
    for number in range(1, PEOPLE + 1):
        put_label(truth, f'0{number}', head(number).lesion)
    reason = 'the last run could not finish the result; run the same command again'
    compared = evaluate(site.output_dir, truth, model='calibrated')
    assert [case.subject for case in compared.cases] == ['01', '02', '04']
    assert f'sub-03: left out: {reason}' in compared.notes
    assert len(evaluate(site.output_dir, truth, model='low').cases) == PEOPLE
    group = GroupSettings(site.bids_dir, site.output_dir, site.work_dir / 'group')
    assert run_group_level(group, show=lambda text: None) == 0
    assert calibrated_in_table(site) == ['sub-01', 'sub-02', 'sub-04']
    assert f'left out: sub-03: {reason}' in [r.getMessage() for r in caplog.records]
    page = (site.output_dir / 'group_report.html').read_text()
    assert '<h2>Results left out</h2>' in page
    assert 'sub-03: The last run could not finish the result; run the same command again.' in page


def test_a_result_of_the_participant_level_by_a_former_model_does_not_count(site):
    run(replace(site, participants=('01', '02')))
    card = find_model('calibrated', site.output_dir)
    for number in (3, 4):
        add_person(site.bids_dir, site.output_dir, f'0{number}', head(number), card,
                   load_network(card))  # fmt: skip
    path = sidecar_path(result_of(site, '04'))
    write_json(path, read_sidecar(path) | {'Threshold': 0.9})  # participant --threshold
    assert current_results(find_results(site.output_dir))[1] == []
    write_json(path, read_sidecar(path) | {'Calibration': {'Scale': 1.5, 'Shift': 0.1}})
    ((left_out, why),) = current_results(find_results(site.output_dir))[1]
    assert left_out.names.subject == '04'
    assert why.endswith('run the participant level again with --model calibrated')
    shutil.rmtree(site.output_dir / 'models')  # nothing to compare with
    assert current_results(find_results(site.output_dir))[1] == []


def test_where_no_mask_counts_the_reason_is_that_of_the_model_asked_for(site):
    """Beside results of another model that are out of date for another reason."""
    run(site)
    for number in (1, 2):
        path = UnitNames(site.output_dir, f'0{number}', None, 'T1w').path('anat.brain_mask')
        write_json(sidecar_path(path), {'PreprocessingHash': 'of other images'})
    for number in (3, 4):
        path = sidecar_path(result_of(site, f'0{number}'))
        write_json(path, read_sidecar(path) | {'Calibration': {'Scale': 1.5, 'Shift': 0.1}})
    other = (
        'sub-03, sub-04: the result is of a former model calibrated, not of the one in '
        'models/calibrated; run the command with --calibrate-from again'
    )
    for participants, wanted in ((None, other), (('03', '04'), other), (('04',), other[8:])):
        with pytest.raises(NoInputError) as raised:
            evaluate(site.output_dir, site.calibrate_from[0], model='calibrated',
                     participants=participants)  # fmt: skip
        reasons = raised.value.message.removeprefix('no mask of the model calibrated counts: ')
        assert reasons.split('. ')[-1] == wanted
        first = f'sub-01, sub-02: {OUT_OF_DATE}; run the command with --calibrate-from again'
        assert reasons.split('. ')[:-1] == ([first] if participants is None else [])
        assert raised.value.advice == ''
    group = GroupSettings(site.bids_dir, site.output_dir, site.work_dir / 'group',
                          participants=('01', '02'))  # fmt: skip
    with pytest.raises(NoInputError, match=OUT_OF_DATE) as raised:
        run_group_level(group, show=lambda text: None)
    assert raised.value.advice == ''  # the reason has it


def test_the_pages_name_labels_that_were_left_out(site):
    """Also a label that is put there later, with which no mask changes."""
    run(site)
    assert 'Labels:' not in (site.output_dir / 'sub-03.html').read_text(encoding='utf-8')
    before = digests_of(site, '*_mask.nii.gz')
    outside = np.zeros(SHAPE)
    outside[0, 0] = 1
    put_label(site.calibrate_from[0], '02', outside)
    run(site)
    assert digests_of(site, '*_mask.nii.gz') == before
    (note,) = read_sidecar(site.output_dir / 'models/calibrated/report.json')['LabelNotes']
    assert note['name'] == 'sub-02'
    text = f'<strong>Labels:</strong> sub-02: {note["note"]}.'
    assert 'its label is left out: 100% of it lies outside of the brain' in text
    for number in range(1, PEOPLE + 1):
        page = (site.output_dir / f'sub-0{number}.html').read_text(encoding='utf-8')
        assert page.count(text) == 1  # in the section of the calibrated model alone
    (site.output_dir / 'models/calibrated/report.json').unlink()
    write_pages(site.output_dir, {'03'})
    assert 'Labels:' not in (site.output_dir / 'sub-03.html').read_text(encoding='utf-8')


def calibrated_in_table(site: ParticipantSettings) -> list[str]:
    text = (site.output_dir / 'group_lesions.tsv').read_text(encoding='utf-8')
    rows = [line.split('\t') for line in text.splitlines()]
    return [row[0] for row in rows if any(cell.endswith('-calibrated') for cell in row)]


def test_an_end_within_a_session_leaves_no_result_of_a_former_calibration(site, monkeypatch):
    run(site)
    put_label(site.calibrate_from[0], '01', np.roll(head(1).lesion, 3, axis=0) & head(1).brain)
    one = replace(site, participants=('02',))
    write = segmenting.write_segmentation

    def until_the_third(segmentation):
        if segmentation.names.subject == '03':
            raise KeyboardInterrupt
        return write(segmentation)

    with monkeypatch.context() as patched:
        patched.setattr(segmenting, 'write_segmentation', until_the_third)
        with pytest.raises(KeyboardInterrupt):
            run(one)
    assert not sidecar_path(result_of(site, '03')).exists()
    complete, _ = run(one)
    assert complete
    card = find_model('calibrated', site.output_dir)
    for number in range(1, PEOPLE + 1):
        sidecar = read_sidecar(sidecar_path(result_of(site, f'0{number}')))
        assert sidecar['Calibration']['Shift'] == card.calibration.shift


def test_another_start_model_leaves_no_result_of_a_former_calibration(site, tmp_path, caplog):
    run(site)
    other = make_low_model(tmp_path / 'other', SHIFT / 2, {**CARD, 'Label': 'other'})
    for number in (1, 2):
        add_person(site.bids_dir, site.output_dir, f'0{number}', head(number), other,
                   load_network(other))  # fmt: skip
        summarise(site.output_dir, f'0{number}', other)
    mine = result_of(site, '03').with_name('sub-03_corrected_desc-calibrated_mask.nii.gz')
    shutil.copy(result_of(site, '03'), mine)
    first = digests_of(site, '*desc-low*', '*desc-preproc*', '*desc-brain*')
    complete, _ = run(replace(site, model=str(other.folder), participants=('01', '02')))
    assert complete
    for number in (1, 2):
        assert read_sidecar(sidecar_path(result_of(site, f'0{number}')))['FirstResult'] == 'other'
    assert list(site.output_dir.rglob('sub-0[34]*desc-calibrated*')) == [mine]
    assert digests_of(site, '*desc-low*', '*desc-preproc*', '*desc-brain*') == first
    (message,) = [r.getMessage() for r in caplog.records if 'removed' in r.getMessage()]
    assert 'earlier calibration of sub-03, sub-04' in message
    assert 'calibrated' not in (site.output_dir / 'sub-03.html').read_text()
    (kept,) = {one for one in citation_of(site) if 'changed by' in one}
    card = find_model('calibrated', site.output_dir)
    assert f'changed by {card.calibration.shift:.2f}' in kept


@pytest.mark.parametrize('participants', [None, ('01', '02')])
def test_a_session_that_cannot_be_segmented_again_keeps_no_former_result(
    site, participants, caplog
):
    """Selected or not: a preprocessed image is lost, or a transform that is needed for it."""
    run(site)
    put_label(site.calibrate_from[0], '01', np.roll(head(1).lesion, 3, axis=0) & head(1).brain)
    next((site.output_dir / 'sub-04/anat').glob('*desc-preproc_FLAIR.nii.gz')).unlink()
    for path in (site.output_dir / 'sub-03/anat').glob('*MNI*_xfm.*'):
        path.unlink()
    complete, _ = run(replace(site, participants=participants))
    assert not complete
    assert not list(site.output_dir.rglob('sub-0[34]*desc-calibrated*'))
    assert 'earlier calibration of sub-03, sub-04' in caplog.text
    assert len(list(site.output_dir.rglob('sub-0*_label-L_desc-calibrated_mask.json'))) == 2


@pytest.mark.parametrize('content', ['own', 'of the participant level'])
def test_results_whose_content_is_absent_stay(site, content):
    """As in a clone of DataLad: images are links without content, JSON files are there."""
    run(site)
    if content != 'own':
        card = find_model('calibrated', site.output_dir)
        add_person(site.bids_dir, site.output_dir, '03', head(3), card, load_network(card))
    for path in (site.output_dir / 'sub-03').rglob('*desc-calibrated*.nii.gz'):
        path.unlink()
        path.symlink_to('../../.git/annex/objects/x')
    before = {path: path.is_symlink() or path.read_bytes() for path in
              site.output_dir.rglob('*sub-03*') if not path.is_dir()}  # fmt: skip
    complete, _ = run(replace(site, participants=('02',)))
    assert complete
    assert before == {path: path.is_symlink() or path.read_bytes() for path in before}
    put_label(site.calibrate_from[0], '01', np.roll(head(1).lesion, 3, axis=0) & head(1).brain)
    complete, _ = run(site)
    assert not complete
    assert before == {path: path.is_symlink() or path.read_bytes() for path in before}
    complete, _ = run(replace(site, overwrite=True))
    assert complete
    assert not result_of(site, '03').is_symlink()


def test_a_page_does_not_call_a_result_out_of_date_whose_first_one_is_absent(site):
    run(site)
    result_of(site, '03', 'low').unlink()
    result_of(site, '03', 'low').symlink_to('../../.git/annex/objects/x')
    write_pages(site.output_dir, {'03'})
    assert OUT_OF_DATE not in (site.output_dir / 'sub-03.html').read_text()


def test_a_result_whose_first_one_failed_later_counts(site):
    """Its summary is not written again; that of the former calibration does not speak for it."""
    run(site)
    names = UnitNames(site.output_dir, '03', None, 'T1w', 'low')
    summary = read_sidecar(names.path('report.summary'))
    write_json(names.path('report.summary'), summary | {'status': 'failed'})
    put_label(site.calibrate_from[0], '01', np.roll(head(1).lesion, 3, axis=0) & head(1).brain)
    run(site)
    assert not (site.output_dir / 'sub-03/figures/sub-03_desc-calibratedlesions_T1w.svg').exists()
    counts, _ = current_results(find_results(site.output_dir))
    assert sorted(r.names.subject for r in counts if r.names.desc == 'calibrated') == [
        f'0{number}' for number in range(1, PEOPLE + 1)
    ]


def test_what_the_participant_level_made_with_the_calibrated_model_stays(site, caplog):
    run(replace(site, participants=('01', '02')))
    card = find_model('calibrated', site.output_dir)
    for number in (3, 4):
        add_person(site.bids_dir, site.output_dir, f'0{number}', head(number), card,
                   load_network(card))  # fmt: skip
    path = sidecar_path(result_of(site, '04'))
    write_json(path, read_sidecar(path) | {'Threshold': 0.9})  # participant --threshold
    made = digests_of(site, 'sub-0[34]*desc-calibrated*')
    complete, output = run(replace(site, participants=('03',)))
    assert complete
    assert 'sub-03: segmented by calibrated at the participant level' in output
    assert digests_of(site, 'sub-0[34]*desc-calibrated*') == made
    put_label(site.calibrate_from[0], '01', np.roll(head(1).lesion, 3, axis=0) & head(1).brain)
    for path in site.output_dir.glob('sub-04/anat/*label-L_desc-low_*'):
        path.unlink()
    complete, _ = run(replace(site, participants=('03',)))
    assert complete
    (message,) = [r.getMessage() for r in caplog.records if '--model calibrated' in r.getMessage()]
    assert 'of an earlier calibration: the results of sub-04' in message
    assert result_of(site, '04').is_file()
    assert read_sidecar(sidecar_path(result_of(site, '03')))['FirstResult'] == 'low'


def test_images_that_another_participant_lost_do_not_fail_a_run_on_one(site, caplog):
    run(site)
    lost = next((site.output_dir / 'sub-04/anat').glob('*desc-preproc_FLAIR.nii.gz'))
    lost.unlink()
    complete, _ = run(replace(site, participants=('02',)))
    assert complete
    assert [r.levelname for r in caplog.records if lost.name in r.getMessage()] == ['WARNING']
    complete, _ = run(site)
    assert not complete


def test_only_the_selected_get_a_second_result(site):
    run(replace(site, participants=('02',)))
    assert result_of(site, '02').is_file()
    assert not result_of(site, '03').is_file()


def test_a_single_slice_moves_no_threshold_and_the_page_states_that_nothing_was_tested(site):
    best = int(head(1).lesion.sum(axis=(0, 1)).argmax())
    drawn = np.zeros(SHAPE, bool)
    drawn[:, :, best] = head(1).lesion[:, :, best]
    slices = {'Axis': 'k', 'Indices': [best]}
    put_label(site.calibrate_from[0], '01', drawn, AnnotatedSlices=slices)
    run(site)
    content = content_of(site)
    assert content['Evidence'] == {
        'Labelled': ['sub-01'],
        'LeftOut': 'nothing',
        'Dice': [None, None],
        'LesionF1': [None, None],
    }
    assert 0 < content['Calibration']['Shift'] <= 4
    assert content['Recalibration']['ThresholdMove'] == 0
    assert content['Recalibration']['RefusedMove'] < 0
    page = (site.output_dir / 'sub-03.html').read_text()
    assert '<strong>Not tested:</strong>' in page
    assert 'no test shows enough of a gain' in page


def annotate_near(site: ParticipantSettings, subject: str, count: int) -> None:
    """A label of some slices side by side, where most is drawn."""
    lesion = head(int(subject)).lesion
    first = int(lesion.sum(axis=(0, 1)).argmax()) - count // 2
    near = slice(first, first + count)
    drawn = np.zeros(SHAPE, bool)
    drawn[:, :, near] = lesion[:, :, near]
    slices = {'Axis': 'k', 'Indices': list(range(near.start, near.stop))}
    put_label(site.calibrate_from[0], subject, drawn, AnnotatedSlices=slices)


def test_neighbouring_slices_of_one_person_lower_no_threshold(site):
    annotate_near(site, '01', 5)
    complete, output = run(site)
    assert complete
    assert 'labels of one participant lower the threshold only with a gain of 0.1 in' in output
    assert 'check that the labels belong' not in output
    content = content_of(site)
    assert content['Recalibration']['ThresholdMove'] == 0
    assert content['Recalibration']['RefusedMove'] < 0
    before, after = content['Evidence']['Dice']
    assert after > before + 0.1  # with the threshold that is not used, and the page states it
    page = (site.output_dir / 'sub-03.html').read_text()
    assert 'by models that were fitted without them, with the fitted threshold' in page
    assert 'lower it only if the Dice of slices left out increases by 0.1' in page
    assert 'check that the labels belong' not in page
    for number in (2, 3):
        masks = [result_of(site, f'0{number}', desc) for desc in ('low', 'calibrated')]
        assert (read(masks[0]).data == read(masks[1]).data).all()
    put_label(site.calibrate_from[0], '02', head(2).lesion)  # of two people it is lower
    run(site)
    assert content_of(site)['Recalibration']['ThresholdMove'] < 0


def test_a_model_of_another_rule_for_one_person_is_fitted_again(site, monkeypatch):
    annotate_near(site, '01', 5)
    monkeypatch.setattr(untrained, 'may_lower', lambda pairs: True)
    monkeypatch.setattr(calibrating, 'RULE_OF_ONE', (0.02,))
    run(site)
    assert content_of(site)['Recalibration']['ThresholdMove'] < 0
    monkeypatch.undo()
    run(site)
    assert content_of(site)['Recalibration']['ThresholdMove'] == 0


def test_a_participant_without_lesions_beside_one_slice_moves_no_threshold(site):
    best = int(head(1).lesion.sum(axis=(0, 1)).argmax())
    drawn = np.zeros(SHAPE, bool)
    drawn[:, :, best] = head(1).lesion[:, :, best]
    slices = {'Axis': 'k', 'Indices': [best]}
    put_label(site.calibrate_from[0], '01', drawn, AnnotatedSlices=slices)
    put_label(site.calibrate_from[0], '02', np.zeros(SHAPE), Manual=True)
    run(site)
    card = content_of(site)
    assert card['Recalibration']['ThresholdMove'] == 0
    assert 'the threshold of the start model stays' in card['Reason']


def test_two_lesions_that_the_model_misses_change_no_mask(site):
    """Each of 64 mm^3, where the model sees nothing, far from one another."""
    places = np.argwhere(head(1).brain & ~head(1).lesion & (head(1).flair < 110))
    places = places[places[:, 2].argsort()]
    drawn = np.zeros(SHAPE, bool)
    for place in places[[0, -1]]:
        drawn[tuple(place)] = True
    put_label(site.calibrate_from[0], '01', drawn)
    run(site)
    first, second = (read(result_of(site, '03', desc)).data for desc in ('low', 'calibrated'))
    np.testing.assert_array_equal(first > 0, second > 0)
    assert content_of(site)['Recalibration']['ThresholdMove'] == 0
    page = (site.output_dir / 'sub-03.html').read_text()
    assert '<strong>the threshold stays</strong>' in page
    assert 'by models that were fitted without them, with the fitted threshold' in page


def test_labels_that_belong_to_other_scans_change_no_mask(site):
    for number in (1, 2):
        one = head(number)
        places = np.argwhere(one.brain & ~one.lesion & (one.flair < 110))
        drawn = np.zeros(SHAPE, bool)
        drawn[tuple(places[10:90].T)] = True
        put_label(site.calibrate_from[0], f'0{number}', drawn)
    _, output = run(site)
    assert 'calibrated whatever the test gives: the Dice is below 0.15: check that' in output
    assert 'the threshold of the start model stays' in output
    assert 'threshold: ' not in output  # once is enough
    recalibration = content_of(site)['Recalibration']
    assert (recalibration['ThresholdMove'], recalibration['MinimumLesionVolume']) == (0, None)
    for number in (3, 4):
        masks = [result_of(site, f'0{number}', desc) for desc in ('low', 'calibrated')]
        assert (read(masks[0]).data == read(masks[1]).data).all()
    page = (site.output_dir / 'sub-03.html').read_text()
    assert 'Both are very low: check that the labels belong to these scans.' in page


def test_a_probability_of_another_model_is_not_used(site):
    run(site)
    expected = content_of(site)['Calibration']
    shutil.rmtree(site.output_dir / 'models')
    path = result_of(site, '01', 'low')
    path = path.with_name(path.name.replace('.nii.gz', '.json'))
    sidecar = read_sidecar(path)
    sidecar['Model']['Sha256'] = '1' * 64
    write_json(path, sidecar)
    _, output = run(site)
    assert (
        'sub-01: the probability in the output folder is of other weights or another version of '
        'phantom-3t' in output
    )
    assert content_of(site)['Calibration'] == pytest.approx(expected, abs=1e-2)


def test_a_result_whose_json_lacks_its_channels_is_segmented_again(site):
    path = sidecar_path(result_of(site, '03', 'low'))
    content = read_sidecar(path)
    del content['Channels']
    write_json(path, content)
    run(site)
    assert read_sidecar(sidecar_path(result_of(site, '03')))['Channels'] == ['FLAIR', 'T1w']


def of_others(site: ParticipantSettings) -> ParticipantSettings:
    shutil.rmtree(site.calibrate_from[0] / 'sub-01')
    put_label(site.calibrate_from[0], '77', head(1).lesion)
    return site


def test_a_label_that_cannot_be_used_beside_an_empty_one_is_named(site, caplog):
    drawn = np.zeros(SHAPE, bool)
    drawn[8:11, 8:11, 8:11] = True
    put_label(site.calibrate_from[0], '01', drawn, AnnotatedSlices={'Axis': 'k', 'Indices': [2]})
    put_label(site.calibrate_from[0], '02', np.zeros(SHAPE))
    message = r'all labels are empty \(1 of 2; 1 cannot be used\)'
    with pytest.raises(DataError, match=message):
        plan_calibration(site)
    assert 'sub-01_label-lesion_mask.nii.gz: 27 of 27 lesion voxels lie outside' in caplog.text


def empty(site: ParticipantSettings) -> ParticipantSettings:
    put_label(site.calibrate_from[0], '01', np.zeros(SHAPE))
    return site


def damaged_sidecar(site: ParticipantSettings) -> ParticipantSettings:
    (path,) = site.calibrate_from[0].rglob('*.nii.gz')
    path.with_name(path.name.replace('.nii.gz', '.json')).write_text('{"Manual": tru')
    return site


def of_another_grid(site: ParticipantSettings) -> ParticipantSettings:
    put_label(site.calibrate_from[0], '01', head(1).lesion, affine=np.diag([3.0, 3, 3, 1]))
    return site


def not_segmented(site: ParticipantSettings) -> ParticipantSettings:
    result_of(site, '01', 'low').with_name(
        result_of(site, '01', 'low').name.replace('.nii.gz', '.json')
    ).unlink()
    return replace(site, participants=('02', '03'))


def damaged(site: ParticipantSettings) -> ParticipantSettings:
    (path,) = site.calibrate_from[0].rglob('*.nii.gz')
    path.write_bytes(path.read_bytes()[:100])
    return site


def itself(site: ParticipantSettings) -> ParticipantSettings:
    run(site)
    return replace(site, model='calibrated')


@pytest.mark.parametrize(
    ('mistake', 'kind', 'text'),
    [
        (of_others, NoInputError, 'no label of a processed participant was found'),
        (damaged_sidecar, DataError, 'no label of a processed participant can be used'),
        (of_another_grid, DataError, 'the label fits no image of its session'),
        (empty, DataError, r'all labels are empty \(1 of 1\)'),
        (not_segmented, NoInputError, 'neither selected nor segmented before by .*: sub-01'),
        (damaged, DataError, 'sub-01_label-lesion_mask'),
        (itself, UsageError, 'which is also the start model'),
    ],
)
def test_mistakes_are_named_before_anything_is_segmented(mistake, kind, text, site, monkeypatch):
    wrong = mistake(site)

    def fail(*given, **named):
        raise AssertionError('the participant level began')

    monkeypatch.setattr(calibrating, 'run_participant_level', fail)
    with pytest.raises(kind, match=text) as raised:
        calibrating.run_calibrated(wrong)
    assert raised.value.advice


def test_labelled_participants_segmented_by_another_model_are_no_new_work(site, tmp_path):
    other = shutil.copytree(site.model, tmp_path / 'other')
    card = read_sidecar(other / 'model.json')
    write_json(other / 'model.json', card | {'Name': 'other-3t', 'Label': 'other3t'})
    asked = replace(site, model=str(other), participants=('02',))
    with pytest.raises(NoInputError, match='segmented before by other-3t: sub-01') as raised:
        plan_calibration(asked)
    assert f'results of other models: --model {card["Name"]}.' in raised.value.advice


def test_the_names_of_labels_are_advised_only_where_none_is_named_so(site, caplog):
    (path,) = site.calibrate_from[0].rglob('*.nii.gz')
    with pytest.raises(NoInputError, match='no label of a processed') as raised:
        plan_calibration(replace(site, excluded=('01',)))
    assert 'label left out: not selected' in caplog.text
    assert raised.value.advice == LEFT_OUT
    filtered = {'labels': {'desc': 'consensus'}}
    with pytest.raises(NoInputError, match='no label of a processed') as raised:
        plan_calibration(replace(site, filters=filtered))
    assert raised.value.advice == FILTERED
    path.rename(path.with_name('sub-01_lesions.nii.gz'))
    with pytest.raises(NoInputError, match='no label of a processed') as raised:
        plan_calibration(site)
    assert raised.value.advice == NAMING


def test_a_label_that_may_not_be_read_is_66(site, without_read_permission):
    (path,) = site.calibrate_from[0].rglob('*.nii.gz')
    without_read_permission(path)
    with pytest.raises(DeniedError, match='cannot be read .Permission denied.') as raised:
        plan_calibration(site)
    assert (raised.value.exit_code, raised.value.path) == (66, str(path))


def test_what_is_impossible_after_all_leaves_the_first_results(site, caplog, monkeypatch):
    """A mask beside the brain is found once there is a brain mask."""
    before = digests(site.output_dir)
    outside = np.zeros(SHAPE)
    outside[0, 0] = 1
    put_label(site.calibrate_from[0], '01', outside)
    monkeypatch.setattr(calibrating, 'run_participant_level', lambda *given, **named: (0, []))
    code, _ = calibrating.run_calibrated(site)
    assert code == DataError.exit_code
    assert 'not calibrated: ' in caplog.text
    assert 'lies outside of the brain' in caplog.text
    assert digests(site.output_dir) == before


@pytest.mark.parametrize(
    ('error', 'code'), [(StorageError('full'), 74), (DataError('a label'), SOME_FAILED)]
)
def test_a_full_disk_outweighs_a_participant_that_failed(site, monkeypatch, error, code):
    def fail(*given, **named):
        raise error

    monkeypatch.setattr(calibrating, 'run_participant_level', lambda *g, **n: (SOME_FAILED, []))
    monkeypatch.setattr(calibrating, 'calibrate', fail)
    assert calibrating.run_calibrated(site)[0] == code


def test_a_dry_run_names_labels_and_files(site):
    lines = '\n'.join(describe(plan_calibration(site)))
    assert 'label  sub-01: ' in lines
    run(site)
    listed = {line.split()[-1] for line in lines.splitlines() if 'models/calibrated/' in line}
    root = site.output_dir
    written = {p.relative_to(root).as_posix() for p in root.glob('models/calibrated/*')}
    assert written == listed
