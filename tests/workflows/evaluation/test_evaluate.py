import csv
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ssl2_bids.bids.outputs import UnitNames, sidecar_path
from ssl2_bids.cli.tools.app import main
from ssl2_bids.errors import DataError, NoInputError, StorageError
from ssl2_bids.files import write_json
from ssl2_bids.networks.weights import find_model
from ssl2_bids.volume import Volume, read, reorient, resample, write
from ssl2_bids.workflows.evaluation.lesion_free import look_for_false_lesions
from ssl2_bids.workflows.evaluation.run import evaluate
from ssl2_bids.workflows.evaluation.segmented import OTHER_GRID, SHIFTED

SHAPE = (20, 22, 24)
RAS = np.array([[1.0, 0, 0, -10], [0, 1, 0, -20], [0, 0, 1, 5], [0, 0, 0, 1]])
STRIPPED = Path(__file__).resolve().parents[3] / '../shared/data/ms-stripped'


def lesions(*boxes) -> np.ndarray:
    data = np.zeros(SHAPE, np.uint8)
    for box in boxes:
        data[tuple(slice(a, b) for a, b in box)] = 1
    return data


LARGE = ((2, 7), (2, 7), (2, 7))
SMALL = ((12, 14), (12, 14), (12, 14))
STRAY = ((16, 18), (3, 5), (18, 20))


def as_las(volume: Volume) -> Volume:
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, 0] * (volume.shape[0] - 1)
    affine[:3, 0] *= -1
    return Volume(volume.data[::-1], affine)


def put_mask(root: Path, unit: str, data: np.ndarray, *, space='FLAIR', desc='') -> None:
    folder = root / unit.replace('_', '/') / 'anat'
    write(Volume(data, RAS), folder / f'{unit}_space-{space}_label-L{desc}_mask.nii.gz',
          dtype=np.uint8)  # fmt: skip


def put_label(root: Path, unit: str, data: np.ndarray, *, desc='', **sidecar) -> None:
    """A label as stored by another tool: LAS voxel order."""
    stem = root / unit.replace('_', '/') / 'anat' / f'{unit}_label-lesion{desc}_mask'
    write(as_las(Volume(data, RAS)), stem.with_suffix('.nii.gz'), dtype=np.uint8)
    if sidecar:
        stem.with_suffix('.json').write_text(json.dumps(sidecar))


@pytest.fixture
def datasets(tmp_path) -> tuple[Path, Path]:
    """Three participants: two in both datasets, one in each alone."""
    pred, manual = tmp_path / 'out', tmp_path / 'my labels'
    put_mask(pred, 'sub-01', lesions(LARGE, STRAY))
    put_label(manual, 'sub-01', lesions(LARGE, SMALL))
    put_mask(pred, 'sub-02_ses-A', lesions(LARGE))
    put_label(manual, 'sub-02_ses-A', lesions(LARGE))
    put_mask(pred, 'sub-03', lesions(LARGE))
    put_label(manual, 'sub-04', lesions(LARGE))
    return pred, manual


def test_scores_of_each_case(datasets):
    result = evaluate(*datasets)
    first, second = result.cases
    assert (first.subject, first.session, first.space) == ('01', None, 'FLAIR')
    assert first.voxels.dice == pytest.approx(2 * 125 / (133 + 133))
    assert first.voxels.reference_volume == 133
    assert (first.overlap.sensitivity, first.overlap.precision, first.overlap.f1) == (0.5,) * 3
    assert first.msseg.f1 == 0.5
    assert [b.count for b in first.by_size] == [1, 0, 0, 1]
    assert (second.subject, second.session) == ('02', 'A')
    assert (second.voxels.dice, second.voxels.hausdorff_95, second.msseg.f1) == (1, 0, 1)
    assert result.failures == ()
    assert result.notes == ('labelled, but without a mask: sub-04',)


def as_output_folder(pred: Path) -> None:
    """Make a folder one that ssl2-bids wrote."""
    made = {'Name': 'x', 'DatasetType': 'derivative', 'GeneratedBy': [{'Name': 'ssl2-bids'}]}
    write_json(pred / 'dataset_description.json', made)


def test_a_result_of_former_images_is_not_compared_and_named(datasets):
    pred, manual = datasets
    as_output_folder(pred)
    names = UnitNames(pred, '01', None, 'FLAIR')
    write_json(names.done_marker, {'ConfigurationHash': 'a', 'PreprocessingHash': 'of one'})
    mask = sidecar_path(names.path('anat.brain_mask'))
    write_json(mask, {'PreprocessingHash': 'of one'})
    assert [case.subject for case in evaluate(pred, manual).cases] == ['01', '02']
    write_json(mask, {'PreprocessingHash': 'of another'})
    result = evaluate(pred, manual)
    assert [case.subject for case in result.cases] == ['02']
    with pytest.raises(NoInputError, match='sub-01: left out: the result is from an earlier'):
        evaluate(pred, manual, participants=['01'])
    with pytest.raises(NoInputError, match='sub-01: left out: the result is from an earlier'):
        look_for_false_lesions(pred, participants=['01'])
    left_out = 'sub-01: left out: the result is from an earlier choice'
    assert any(note.startswith(left_out) for note in result.notes)
    (brain,) = look_for_false_lesions(pred, participants=['01', '03']).brains
    assert brain.subject == '03'
    notes = look_for_false_lesions(pred, participants=['01', '03', '99']).notes
    assert notes[0].startswith(left_out)
    assert notes[1] == 'no mask of the participants 01, 99'
    others = evaluate(pred, manual, participants=['02', '99']).notes
    assert others == ('no label of the participants 99',)
    put_mask(pred, 'sub-02_ses-A', lesions(LARGE), desc='_desc-mine')
    assert not [note for note in evaluate(pred, manual, model='mine').notes if left_out in note]
    notes = evaluate(pred, manual, model=(None, 'mine')).notes
    assert any('sub-01, the default model: left out: ' in note for note in notes)


def test_an_old_result_on_another_grid_leaves_the_new_one_alone(datasets):
    pred, manual = datasets
    as_output_folder(pred)
    for space, configuration in (('T1w', 'old'), ('FLAIR', 'new')):
        put_mask(pred, 'sub-01', lesions(LARGE, STRAY), space=space)
        write_json(
            UnitNames(pred, '01', None, space).done_marker,
            {'ConfigurationHash': configuration, 'PreprocessingHash': configuration},
        )
    os.utime(UnitNames(pred, '01', None, 'T1w').done_marker, (1, 1))
    result = evaluate(pred, manual, participants=['01'])
    assert [case.space for case in result.cases] == ['FLAIR']
    assert result.notes == ()


def test_masks_of_names_with_and_without_the_session_are_ranked_together(datasets):
    pred, manual = datasets
    put_label(manual, 'sub-02', lesions(SMALL), Manual=False)
    result = evaluate(pred, manual, participants=['02'])
    (case,) = result.cases
    assert case.voxels.dice == 1
    assert [path.name for path in case.labels] == ['sub-02_ses-A_label-lesion_mask.nii.gz']
    assert any('automatic mask' in note for note in result.notes)


@pytest.mark.parametrize('size', [8, -60])  # the header is damaged, or the voxels behind it
@pytest.mark.parametrize('space', ['AAA', 'MNI152NLin2009cAsym', 'within'])
def test_a_damaged_mask_on_another_grid_does_not_matter(datasets, space, size):
    pred, manual = datasets
    other = np.random.default_rng(0).integers(0, 2, (30, 30, 30), np.uint8)
    put_beside(pred, 'sub-01')
    put_mask(pred, 'sub-01', other, space=space)
    path = pred / f'sub-01/anat/sub-01_space-{space}_label-L_mask.nii.gz'
    path.write_bytes(path.read_bytes()[:size])
    result = evaluate(pred, manual, participants=['01'])
    assert [case.space for case in result.cases] == ['FLAIR']
    assert [one.space for one in look_for_false_lesions(pred, participants=['01']).brains] == [
        'FLAIR'
    ]


def test_a_damaged_brain_mask_costs_the_scores_that_need_it(datasets):
    pred, manual = datasets
    put_beside(pred, 'sub-01', probability=lesions(LARGE).astype(float))
    whole = evaluate(pred, manual, participants=['01']).cases[0]
    assert whole.calibration is not None
    path = pred / 'sub-01/anat/sub-01_desc-brain_mask.nii.gz'
    path.write_bytes(path.read_bytes()[:-40])
    result = evaluate(pred, manual, participants=['01'])
    (case,) = result.cases
    assert case.voxels.dice == whole.voxels.dice
    assert case.calibration is None
    assert math.isnan(case.ndsc)
    (note,) = [note for note in result.notes if 'without the scores that need it' in note]
    assert path.name in note


def test_no_other_mask_takes_the_place_of_a_damaged_one(datasets):
    pred, _ = datasets
    put_beside(pred, 'sub-01')
    put_mask(pred, 'sub-01', np.ones((9, 9, 9), np.uint8), space='MNI152NLin2009cAsym')
    brain = pred / 'sub-01/anat/sub-01_desc-brain_mask.nii.gz'
    whole = brain.read_bytes()
    brain.write_bytes(whole[:-40])
    found = look_for_false_lesions(pred, participants=['01'])
    assert [one.space for one in found.brains] == ['FLAIR']
    assert math.isnan(found.brains[0].brain_volume)
    assert [brain.name in note for note in found.notes] == [True]
    brain.write_bytes(whole)
    path = pred / 'sub-01/anat/sub-01_space-FLAIR_label-L_mask.nii.gz'
    path.write_bytes(path.read_bytes()[:-20])
    found = look_for_false_lesions(pred, participants=['01'])
    assert found.brains == ()
    assert path.name in str(found.failures[0].error)


def test_a_mask_without_content_is_named_with_the_command(datasets):
    pred, manual = datasets
    path = pred / 'sub-01/anat/sub-01_space-FLAIR_label-L_mask.nii.gz'
    path.unlink()
    path.symlink_to(pred / '.git/annex/objects/absent')
    result = evaluate(pred, manual)
    assert [case.subject for case in result.cases] == ['02']
    (failure,) = result.failures
    assert 'its content is absent' in str(failure.error)
    assert 'datalad get' in str(failure.error)


def test_a_figure_that_cannot_be_made_costs_no_score(datasets, tmp_path, capsys, monkeypatch):
    pred, manual = datasets
    path = pred / 'sub-01/anat/sub-01_desc-preproc_FLAIR.nii.gz'
    path.write_bytes(b'no image')
    figures = ['--figures', str(tmp_path / 'figures')]
    assert main(['evaluate', str(pred), str(manual), *figures]) == 1
    printed, said = capsys.readouterr()
    assert 'mean of 2' in printed
    assert 'sub-01: compared, without a figure: ' in said
    assert path.name in said

    def full(*given, **named):
        raise StorageError('the disk is full', path=tmp_path)

    monkeypatch.setattr('ssl2_bids.reports.figures.evaluation.draw_case', full)
    assert main(['evaluate', str(pred), str(manual), *figures]) == StorageError.exit_code
    assert 'mean of 2' in capsys.readouterr().out


def test_small_lesions_are_left_out_of_lesion_scores_alone(datasets):
    (case,) = evaluate(*datasets, participants=['01'], minimum_volume=9).cases
    assert case.overlap.f1 == 1
    assert case.voxels.dice < 1


def test_label_on_another_grid_is_refused_with_both_grids(datasets):
    pred, manual = datasets
    path = manual / 'sub-01/anat/sub-01_label-lesion_mask.nii.gz'
    label = read(path)
    moved = label.affine.copy()
    moved[2, 3] += 0.5
    write(Volume(label.data, moved), path, dtype=np.uint8)
    result = evaluate(pred, manual)
    assert [case.subject for case in result.cases] == ['02']
    (failure,) = result.failures
    assert isinstance(failure.error, DataError)
    text = str(failure.error)
    assert str(path) in text
    assert 'sub-01_space-FLAIR_label-L_mask.nii.gz' in text
    assert 'origin (-10.00, -20.00, 5.50)' in text
    assert 'origin (-10.00, -20.00, 5.00)' in text
    assert failure.error.advice == SHIFTED
    write(Volume(label.data[:-1], label.affine), path, dtype=np.uint8)
    (failure,) = evaluate(pred, manual).failures
    assert failure.error.advice == OTHER_GRID


def test_mask_in_the_space_of_the_label_is_chosen(datasets):
    pred, manual = datasets
    native = pred / 'sub-01/anat/sub-01_space-UNIT1_label-L_mask.nii.gz'
    other = resample(Volume(lesions(SMALL), RAS), np.diag([2.0, 2, 2, 1]), (10, 11, 12), order=0)
    write(other, native, dtype=np.uint8)
    (case,) = evaluate(pred, manual, participants=['01']).cases
    assert case.space == 'FLAIR'


def test_models_are_distinguished(datasets):
    pred, manual = datasets
    put_mask(pred, 'sub-01', lesions(LARGE, SMALL), desc='_desc-adapted')
    (case,) = evaluate(pred, manual, model='adapted').cases
    assert case.voxels.dice == 1
    assert evaluate(pred, manual).cases[0].voxels.dice < 1


def test_raters_vote(datasets):
    pred, manual = datasets
    put_label(manual, 'sub-05', lesions(LARGE, SMALL), desc='_desc-rater1')
    put_label(manual, 'sub-05', lesions(LARGE, SMALL, STRAY), desc='_desc-rater2')
    put_label(manual, 'sub-05', lesions(SMALL), desc='_desc-rater3')
    put_mask(pred, 'sub-05', lesions(LARGE, SMALL))
    result = evaluate(pred, manual, participants=['05'])
    (case,) = result.cases
    assert case.voxels.dice == 1
    assert len(case.labels) == 3
    several = 'masks of several raters, combined by majority vote (of two: where both agree)'
    assert f'sub-05: {several}' in result.notes
    assert not any('raters' in note for note in evaluate(pred, manual, participants=['01']).notes)


def test_the_same_masks_count_as_for_an_adaptation(datasets):
    pred, manual = datasets
    put_mask(pred, 'sub-05', lesions(LARGE))
    put_label(manual, 'sub-05', lesions(LARGE, STRAY), desc='_desc-auto', Manual=False)
    put_label(manual, 'sub-05', lesions(LARGE), desc='_desc-b', Manual=True)
    result = evaluate(pred, manual, participants=['05'])
    assert [path.name for path in result.cases[0].labels] == [
        'sub-05_label-lesion_desc-b_mask.nii.gz'
    ]
    assert result.cases[0].voxels.dice == 1
    assert any('desc-auto' in note and 'automatic' in note for note in result.notes)
    put_label(manual, 'sub-05', lesions(SMALL), desc='_desc-consensus')
    assert evaluate(pred, manual, participants=['05']).cases[0].voxels.dice == 0


def test_own_results_are_no_reference(datasets):
    pred, _ = datasets
    description = {'Name': 'x', 'GeneratedBy': [{'Name': 'ssl2-bids'}]}
    (pred / 'dataset_description.json').write_text(json.dumps(description))
    with pytest.raises(NoInputError, match='results of ssl2-bids itself'):
        evaluate(pred, pred)


def test_rounded_grids_are_one_and_the_true_reason_is_given(datasets):
    pred, manual = datasets
    path = manual / 'sub-01/anat/sub-01_label-lesion_mask.nii.gz'
    label = read(path)
    affine = label.affine.copy()
    affine[:3] += 1e-4
    write(Volume(label.data, affine), path, dtype=np.uint8)
    put_label(manual, 'sub-02_ses-B', lesions(LARGE))
    (manual / 'sub-01/anat/sub-01_lesions.nii.gz').write_bytes(path.read_bytes())
    result = evaluate(pred, manual, participants=['01', '02'])
    assert [case.subject for case in result.cases] == ['01', '02']
    assert any('sub-02 has no session B; there are: A' in note for note in result.notes)
    assert any('sub-01_lesions.nii.gz: not recognised' in note for note in result.notes)


def test_annotated_slices_limit_voxels_and_forbid_lesion_scores(datasets):
    pred, manual = datasets
    # only slices 2 to 5 were looked at: the small and the stray lesion lie outside of them
    slices = {'Axis': 'k', 'Indices': [2, 3, 4, 5]}
    put_label(manual, 'sub-01', lesions(LARGE), AnnotatedSlices=slices)
    result = evaluate(pred, manual, participants=['01'])
    (case,) = result.cases
    assert case.voxels.dice == 1
    assert case.voxels.reference_volume == 100
    assert (case.overlap, case.msseg, case.by_size) == (None, None, None)
    assert math.isnan(case.voxels.hausdorff_95)
    assert case.annotated == pytest.approx(4 / 24)
    assert 'sub-01: partly annotated' in result.notes[0]


def test_a_partly_annotated_case_without_lesions_has_no_note_on_empty_labels(datasets):
    pred, manual = datasets
    slices = {'Axis': 'k', 'Indices': [2, 3, 4, 5]}
    put_label(manual, 'sub-01', lesions(), AnnotatedSlices=slices)
    result = evaluate(pred, manual, participants=['01'])
    assert math.isnan(result.cases[0].voxels.hausdorff_95)
    assert len(result.notes) == 1
    assert 'partly annotated' in result.notes[0]


def test_lesions_outside_the_listed_slices_fail_the_case(datasets):
    pred, manual = datasets
    slices = {'Axis': 'k', 'Indices': [15, 16]}
    put_label(manual, 'sub-01', lesions(LARGE), AnnotatedSlices=slices)
    result = evaluate(pred, manual, participants=['01'])
    assert not result.cases
    assert '125 of 125 lesion voxels lie outside' in str(result.failures[0].error)


def test_lesions_partly_outside_the_listed_slices_are_a_note_of_the_label(datasets, caplog):
    pred, manual = datasets
    put_mask(pred, 'sub-01', lesions(LARGE), desc='_desc-m')
    slices = {'Axis': 'k', 'Indices': [2, 3, 4, 5]}
    put_label(manual, 'sub-01', lesions(LARGE), AnnotatedSlices=slices)
    result = evaluate(pred, manual, model=(None, 'm'), participants=['01'])
    assert len(result.cases) == 2
    notes = [note for note in result.notes if 'outside AnnotatedSlices' in note]
    assert len(notes) == 1
    assert re.match(r'sub-01: sub-01_\S+\.nii\.gz: 25 of 125 lesion voxels lie', notes[0])
    assert caplog.text.count('outside AnnotatedSlices') == 1


def test_a_mask_in_a_template_with_a_cohort_is_found(datasets):
    pred, manual = datasets
    put_mask(pred, 'sub-04', lesions(LARGE), space='MNIPediatricAsym_cohort-1')
    put_mask(
        pred, 'sub-04', lesions(LARGE), space='MNIPediatricAsym_cohort-1_res-2', desc='_desc-m'
    )
    for model in (None, 'm'):
        (case,) = evaluate(pred, manual, model=model, participants=['04']).cases
        assert (case.space, case.voxels.dice) == ('MNIPediatricAsym', 1)


def test_slices_are_those_of_the_stored_file(datasets):
    pred, manual = datasets
    # stored as LAS: index 17 is RAS index 2, where the large lesion begins
    put_label(manual, 'sub-01', lesions(LARGE), AnnotatedSlices={'Axis': 'i', 'Indices': [17]})
    (case,) = evaluate(pred, manual, participants=['01']).cases
    assert case.voxels.reference_volume == 25


def test_empty_label_counts_as_free_of_lesions_with_a_note(datasets):
    pred, manual = datasets
    put_label(manual, 'sub-03', lesions())
    result = evaluate(pred, manual, participants=['03'])
    (case,) = result.cases
    assert (case.voxels.dice, case.overlap.f1) == (0, 0)
    assert case.voxels.hausdorff_95 == pytest.approx(math.hypot(*SHAPE))
    assert any('"Manual": true' in note for note in result.notes)
    put_label(manual, 'sub-03', lesions(), Manual=True)
    notes = evaluate(pred, manual, participants=['03']).notes
    assert not any('"Manual": true' in note for note in notes)


def test_value_errors_name_the_file(datasets):
    pred, manual = datasets
    put_label(manual, 'sub-01', lesions(LARGE) * 3)
    (failure,) = evaluate(pred, manual).failures
    assert 'sub-01_label-lesion_mask.nii.gz: the mask has the values 0, 3' in str(failure.error)


def test_no_participant_in_common_names_both_sides(datasets):
    pred, manual = datasets
    with pytest.raises(NoInputError) as caught:
        evaluate(pred, manual, participants=['03', '04'])
    text = str(caught.value)
    assert 'among the participants 03, 04' in text
    assert f'{pred} has masks of: sub-01, sub-02_ses-A, sub-03.' in text
    assert f'{manual} has labels of: sub-01, sub-02_ses-A, sub-04.' in text


def test_same_result_twice(datasets):
    assert evaluate(*datasets) == evaluate(*datasets)


# probabilities, brains and images beside the mask


BRAIN = np.zeros(SHAPE, np.uint8)
BRAIN[1:19, 1:21, 1:23] = 1


def put_beside(root: Path, unit: str, *, probability=None, brain=BRAIN, desc='') -> None:
    """What the App writes beside a mask: probability, brain mask, image."""
    folder = root / unit.replace('_', '/') / 'anat'
    if probability is not None:
        name = f'{unit}_space-FLAIR_label-L{desc}_probseg.nii.gz'
        write(Volume(probability.astype(np.float32), RAS), folder / name)
    if brain is not None:
        name = f'{unit}_desc-brain_mask.nii.gz'
        write(Volume(brain, RAS), folder / name, dtype=np.uint8)
    image = np.random.default_rng(0).normal(100, 10, SHAPE) * (BRAIN > 0)
    write(
        Volume(image.astype(np.float32), RAS), folder / f'{unit}_acq-x_desc-preproc_FLAIR.nii.gz'
    )


def test_calibration_is_that_of_the_brain_near_lesions(datasets):
    pred, manual = datasets
    probability = np.full(SHAPE, 0.1)
    probability[lesions(LARGE, STRAY) > 0] = 0.9
    put_beside(pred, 'sub-01', probability=probability)
    (case,) = evaluate(pred, manual, participants=['01']).cases
    # by hand, from coordinates
    grid = np.argwhere(BRAIN > 0)
    lesion = np.argwhere(lesions(LARGE, STRAY, SMALL) > 0)
    near = (((grid[:, None] - lesion[None]) ** 2).sum(-1).min(1)) <= 25
    predicted = probability[tuple(grid[near].T)]
    true = lesions(LARGE, SMALL)[tuple(grid[near].T)]
    assert case.calibration.brier == pytest.approx(((predicted - true) ** 2).mean())
    gaps = [(predicted == p).sum() * abs(p - true[predicted == p].mean()) for p in (0.1, 0.9)]
    assert case.calibration.ece == pytest.approx(sum(gaps) / near.sum())
    assert case.numbers()['ece'] == case.calibration.ece
    k = 0.999 * 133 / (0.001 * (BRAIN.sum() - 133))
    assert case.ndsc == pytest.approx(2 * 125 / (2 * 125 + k * 8 + 8))


def test_calibration_needs_a_probability_and_a_brain_on_the_grid(datasets):
    pred, manual = datasets
    put_beside(pred, 'sub-01', probability=np.zeros(SHAPE), brain=None)
    put_beside(pred, 'sub-02_ses-A', brain=BRAIN[1:])
    for case in evaluate(pred, manual).cases:
        assert case.calibration is None
        assert math.isnan(case.ndsc)
        assert 'ece' not in case.numbers()


def test_a_probability_that_is_none_is_named(datasets):
    pred, manual = datasets
    put_beside(pred, 'sub-01', probability=np.full(SHAPE, 80.0))
    result = evaluate(pred, manual)
    assert len(result.cases) == 2
    (note,) = [note for note in result.notes if 'not a probability: values from 80' in note]
    assert note.startswith('sub-01: without the scores that need it: ')
    assert 'label-L_probseg.nii.gz' in note


def test_false_lesions_are_those_that_touch_nothing(datasets):
    pred, manual = datasets
    first, second = evaluate(pred, manual).cases
    assert first.false_volume == 8
    assert first.numbers()['false_lesions'] == 1
    assert (second.false_volume, second.numbers()['false_lesions']) == (0, 0)
    assert [first.numbers()[f'lesions_{edge}'] for edge in (3, 10, 30, 100)] == [1, 0, 0, 1]


# several models


@pytest.fixture
def two_models(tmp_path) -> tuple[Path, Path]:
    """Eight participants; the model "better" finds one lesion more."""
    pred, manual = tmp_path / 'out', tmp_path / 'labels'
    for number in range(1, 9):
        unit = f'sub-{number:02d}'
        larger = (LARGE[0], LARGE[1], (2, 7 + number % 3))
        put_label(manual, unit, lesions(larger, SMALL))
        put_mask(pred, unit, lesions(LARGE))
        put_mask(pred, unit, lesions(LARGE, SMALL), desc='_desc-better')
    put_mask(pred, 'sub-09', lesions(LARGE))
    put_label(manual, 'sub-09', lesions(LARGE))
    return pred, manual


def test_cases_of_several_models_follow_one_another(two_models):
    result = evaluate(*two_models, model=('better', None))
    assert [case.model for case in result.cases] == ['better'] * 8 + [None] * 9
    assert result.notes == ('labelled, but without a mask of better: sub-09',)


def test_whom_a_model_was_adapted_to_is_noted(two_models):
    pred, manual = two_models
    card = dict(find_model('fast-3t', pred).content)
    card |= {'Name': 'better', 'Label': 'better', 'Evidence': {'Labelled': ['sub-02', 'sub-10']}}
    folder = pred / 'models' / 'better'
    folder.mkdir(parents=True)
    write_json(folder / 'model.json', card)
    text = 'sub-02: the model better was adapted to labels of a participant of this name: if'
    assert sum(text in note for note in evaluate(pred, manual, model=(None, 'better')).notes) == 1
    assert not any('adapted' in note for note in evaluate(pred, manual).notes)
    free = look_for_false_lesions(pred, models=['better'])
    assert sum(text in note for note in free.notes) == 1
    (folder / 'model.json').write_text('{')
    assert not any('adapted' in note for note in evaluate(pred, manual, model='better').notes)


def test_a_missing_model_is_refused(two_models):
    with pytest.raises(NoInputError, match='no lesion mask of the model best'):
        evaluate(*two_models, model=(None, 'best'))


def test_figures_show_both_outlines(datasets, tmp_path):
    pred, manual = datasets
    put_beside(pred, 'sub-01', probability=np.zeros(SHAPE))
    put_mask(pred, 'sub-01', lesions(LARGE, STRAY), desc='_desc-mine')
    folder = tmp_path / 'pictures'
    evaluate(pred, manual, model=(None, 'mine'), figures=folder)
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        'sub-01_space-FLAIR_label-L_desc-mine_mask.svg',
        'sub-01_space-FLAIR_label-L_mask.svg',
        'sub-02_ses-A_space-FLAIR_label-L_mask.svg',
    ]
    first, other = ((folder / names[n]).read_text() for n in (1, 2))
    assert '<title>manual</title>' in first
    assert '<title>predicted</title>' in first
    assert 'Most disagreement' in first
    assert 'acq-x_desc-preproc_FLAIR.nii.gz' in first
    assert first.count('data:image/jpeg') == 8
    assert 'sub-01, mine: Dice 0.940' in (folder / names[0]).read_text()
    # no disagreement, no image
    assert 'Most disagreement' not in other
    assert 'no image on this grid' in other
    again = tmp_path / 'again'
    evaluate(pred, manual, figures=again)
    assert (again / names[1]).read_text() == first


def test_figures_of_empty_masks_and_of_partly_annotated_images(datasets, tmp_path):
    pred, manual = datasets
    put_mask(pred, 'sub-03', lesions())
    put_label(manual, 'sub-03', lesions(), Manual=True)
    put_label(manual, 'sub-01', lesions(LARGE), AnnotatedSlices={'Axis': 'k', 'Indices': [4]})
    evaluate(pred, manual, figures=tmp_path / 'pictures')
    texts = [path.read_text() for path in sorted((tmp_path / 'pictures').iterdir())]
    assert 'annotated by a rater' in texts[0]
    assert 'No lesion' in texts[2]
    assert 'annotated by a rater' not in texts[2]


# people without lesions


def test_all_that_is_found_in_the_healthy_is_false(datasets, tmp_path):
    pred, _ = datasets
    put_beside(pred, 'sub-01')
    put_mask(pred, 'sub-03', lesions())
    first, second, third = look_for_false_lesions(pred).brains
    assert (first.subject, first.volume, first.count, first.largest) == ('01', 133, 2, 125)
    assert first.brain_volume == BRAIN.sum()
    assert (second.subject, second.session) == ('02', 'A')
    assert math.isnan(second.brain_volume)
    assert (third.volume, third.count, third.largest) == (0, 0, 0)
    (only,) = look_for_false_lesions(pred, participants=['01'], minimum_volume=9).brains
    assert (only.volume, only.count) == (125, 1)
    with pytest.raises(NoInputError, match='There are masks of: sub-01, sub-02_ses-A, sub-03'):
        look_for_false_lesions(pred, participants=['99'])


def test_the_grid_of_the_brain_mask_is_measured_not_the_template(datasets):
    pred, _ = datasets
    put_beside(pred, 'sub-01')
    doubled = resample(Volume(lesions(LARGE), RAS), np.diag([2.0, 2, 2, 1]), (10, 11, 12), order=0)
    for space in ('AAA', 'MNI152NLin2009cAsym'):
        write(doubled, pred / f'sub-01/anat/sub-01_space-{space}_label-L_mask.nii.gz',
              dtype=np.uint8)  # fmt: skip
    (brain,) = look_for_false_lesions(pred, participants=['01']).brains
    assert (brain.space, brain.volume) == ('FLAIR', 133)


# through the command line


def test_prints_cases_and_mean(datasets, capsys):
    assert main(['evaluate', *map(str, datasets)]) == 0
    out, err = capsys.readouterr()
    heading, first, second, mean = out.splitlines()
    assert heading.split()[:6] == ['Participant', 'Session', 'Space', 'Dice', 'PPV', 'Sens']
    assert first.split()[:4] == ['sub-01', 'n/a', 'FLAIR', '0.940']
    assert second.split()[:4] == ['sub-02', 'ses-A', 'FLAIR', '1.000']
    assert mean.startswith('mean of 2')
    assert mean.split()[3] == '0.970'
    assert len({line.rindex(line.split()[-1]) + len(line.split()[-1])
                for line in (heading, first, second, mean)}) == 1  # fmt: skip
    assert 'sub-04' in err


def test_a_label_that_bids_does_not_allow_is_taken_as_it_is_listed(datasets, capsys):
    pred, manual = datasets
    put_mask(pred, 'sub-05-A', lesions(LARGE))
    put_label(manual, 'sub-05-A', lesions(LARGE))
    for words in ([manual], ['--lesion-free']):
        arguments = ['evaluate', pred, *words, '--participant-label', 'sub-05-A']
        assert main([str(word) for word in arguments]) == 0
        out = capsys.readouterr().out
        assert '05-A' in out
        assert '01' not in out.split()


@pytest.mark.parametrize(('width', 'ruled'), [(140, True), (80, False)])
def test_ruled_table_on_a_terminal_wide_enough(datasets, capsys, monkeypatch, width, ruled):
    monkeypatch.setenv('FORCE_COLOR', '1')
    monkeypatch.setenv('COLUMNS', str(width))
    assert main(['evaluate', *map(str, datasets)]) == 0
    out = capsys.readouterr().out
    assert ('┃' in out) == ruled
    assert '…' not in out
    assert 'mean of 2' in out
    assert '0.970' in out


def test_writes_a_table(datasets, tmp_path):
    output = tmp_path / 'results' / 'scores.tsv'
    put_label(datasets[1], 'sub-03', lesions())
    command = ['evaluate', *map(str, datasets), '--output', str(output)]
    assert main(command) == 0
    with open(output, newline='') as stream:
        rows = list(csv.DictReader(stream, delimiter='\t'))
    assert [row['participant_id'] for row in rows] == ['sub-01', 'sub-02', 'sub-03']
    assert [row['session_id'] for row in rows] == ['n/a', 'ses-A', 'n/a']
    assert float(rows[0]['dice']) == pytest.approx(0.93985, abs=1e-5)
    assert float(rows[0]['volume_reference']) == pytest.approx(0.133)
    assert rows[2]['sensitivity'] == 'n/a'
    assert rows[2]['detected_100'] == 'n/a'
    described = json.loads(output.with_suffix('.json').read_text())
    assert list(described) == list(rows[0])
    assert all(entry['Description'] for entry in described.values())
    first = output.read_bytes()
    assert main(command) == 0
    assert output.read_bytes() == first


def test_prints_calibration_where_there_is_a_probability(datasets, capsys):
    pred, manual = datasets
    put_beside(pred, 'sub-01', probability=lesions(LARGE) * 0.8)
    assert main(['evaluate', str(pred), str(manual)]) == 0
    out, err = capsys.readouterr()
    heading, first, second, _ = out.splitlines()
    assert heading.split()[-2:] == ['ECE', 'Brier']
    assert 0 < float(first.split()[-2]) < 1
    assert second.split()[-2:] == ['n/a', 'n/a']
    assert 'lesions detected: 3 to 10 mm^3 0 of 1, ' in err
    assert 'from 100 mm^3 2 of 2; false: 1 lesion, 0.01 mL in all' in err


def test_compares_models(two_models, tmp_path, capsys):
    output = tmp_path / 'scores.tsv'
    command = ['evaluate', *map(str, two_models), '--compare', 'default', 'desc-better']
    assert main([*command, '--output', str(output)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split()[:4] == ['Participant', 'Session', 'Model', 'Space']
    assert 'mean of 9' in out
    assert 'mean of 8' in out
    line = next(line for line in out.splitlines() if line.startswith('lesion_f1 ')).split()
    # one lesion more of two: 2/3 and 1, in eight participants; sub-09 has no mask of "better"
    assert line[:6] == ['lesion_f1', 'better', 'default', '1.000', '0.667', '0.333']
    assert line[-4:] == ['0.0078', '0.0078', '8', '0']
    with open(tmp_path / 'scores_comparison.tsv', newline='') as stream:
        rows = {row['score']: row for row in csv.DictReader(stream, delimiter='\t')}
    assert float(rows['lesion_f1']['difference']) == pytest.approx(1 / 3)
    assert float(rows['dice']['low']) > 0
    assert rows['ece']['difference'] == 'n/a'
    described = json.loads((tmp_path / 'scores_comparison.json').read_text())
    assert set(described) == set(rows['dice'])
    with open(output, newline='') as stream:
        models = [row['model'] for row in csv.DictReader(stream, delimiter='\t')]
    assert models == ['default'] * 9 + ['better'] * 8
    first = (tmp_path / 'scores_comparison.tsv').read_bytes()
    assert main([*command, '--output', str(output)]) == 0
    assert (tmp_path / 'scores_comparison.tsv').read_bytes() == first


def test_one_of_several_models_can_be_the_default(two_models, capsys):
    for name in ('default', ''):
        assert main(['evaluate', *map(str, two_models), '--model', 'better', name]) == 0
        out = capsys.readouterr().out
        assert [line.split()[2] for line in out.splitlines()[1:3]] == ['better', 'better']
        assert out.count(' default ') == 10
    assert main(['evaluate', *map(str, two_models), '--model', 'default']) == 0
    assert 'Model' not in capsys.readouterr().out


def test_lesion_free_brains_on_the_command_line(datasets, tmp_path, capsys):
    pred, _ = datasets
    output = tmp_path / 'false.tsv'
    assert main(['evaluate', str(pred), '--lesion-free', '--output', str(output)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        'Participant', 'sub-01', 'sub-02', 'sub-03', 'median', 'smallest', 'largest',
    ]  # fmt: skip
    assert lines[1].split()[3:] == ['0.133', '2', '0.125', 'n/a']
    assert lines[4].split()[:5] == ['median', 'of', '3', '0.125', '1']
    assert lines[6].split()[1] == '0.133'
    with open(output, newline='') as stream:
        rows = list(csv.DictReader(stream, delimiter='\t'))
    assert [row['false_volume'] for row in rows] == ['0.133', '0.125', '0.125']
    assert list(json.loads(output.with_suffix('.json').read_text())) == list(rows[0])


def test_some_failed_is_1_and_all_failed_is_65(datasets, capsys):
    pred, manual = datasets
    put_label(manual, 'sub-01', lesions(LARGE) * 3)
    assert main(['evaluate', str(pred), str(manual)]) == 1
    out, err = capsys.readouterr()
    assert 'sub-02' in out
    assert err.splitlines()[-1] == 'ssl2: 1 of 2 cases failed: sub-01'
    command = ['evaluate', str(pred), str(manual), '--participant-label', 'sub-01']
    assert main(command) == 65
    assert capsys.readouterr().out == ''


def test_a_label_that_may_not_be_read_is_66(datasets, capsys, without_read_permission):
    pred, manual = datasets
    path = manual / 'sub-01/anat/sub-01_label-lesion_mask.nii.gz'
    without_read_permission(path)
    command = ['evaluate', str(pred), str(manual)]
    assert main(command) == 1
    assert f'ssl2: sub-01: {path}: cannot be read (Permission denied). Check the permissions' in (
        capsys.readouterr().err
    )
    assert main([*command, '--participant-label', '01']) == 66


def test_a_brain_mask_that_may_not_be_read_costs_the_scores_that_need_it(
    datasets, without_read_permission
):
    put_beside(datasets[0], 'sub-01')
    without_read_permission(datasets[0] / 'sub-01/anat/sub-01_desc-brain_mask.nii.gz')
    result = evaluate(*datasets, participants=['01'])
    assert [case.subject for case in result.cases] == ['01']
    assert any('cannot be read (Permission denied)' in note for note in result.notes)


def test_the_advice_on_a_series_of_masks_holds_for_a_label(datasets, capsys):
    """Options of ssl2-bids are none of ``ssl2 evaluate``."""
    pred, manual = datasets
    path = manual / 'sub-01/anat/sub-01_label-lesion_mask.nii.gz'
    nib.Nifti1Image(np.zeros((*SHAPE, 2), np.uint8), RAS).to_filename(path)
    assert main(['evaluate', str(pred), str(manual)]) == 1
    error = capsys.readouterr().err
    assert 'the image has 4 axes' in error
    assert 'split the series, or leave the file out.' in error
    assert '--' not in error


def test_nothing_to_compare_is_66(datasets, tmp_path, capsys):
    pred, manual = map(str, datasets)
    assert main(['evaluate', pred, manual, '--participant-label', '03']) == 66
    assert main(['evaluate', pred, str(tmp_path / 'nowhere')]) == 66
    assert main(['evaluate', str(tmp_path / 'nowhere'), manual]) == 66
    assert main(['evaluate', pred, manual, '--model', 'other']) == 66
    err = capsys.readouterr().err
    assert err.count('ssl2: error: ') == 4
    assert 'There are masks of: the default model.' in err


@pytest.mark.parametrize(
    'arguments',
    [
        [],
        ['evaluate'],
        ['evaluate', 'a'],
        ['unknown'],
        ['evaluate', 'a', 'b', '--min-lesion', '3'],
        ['evaluate', 'a', 'b', '--min-lesion-volume', 'small'],
        ['evaluate', 'a', 'b', '--min-lesion-volume', '-1'],
        ['evaluate', 'a', 'b', '--output', 'scores.csv'],
        ['evaluate', 'a', 'b', '--participant-label', 'no/label'],
        ['evaluate', 'a', 'b', '--compare', 'mine'],
        ['evaluate', 'a', 'b', '--compare', 'default', ''],
        ['evaluate', 'a', 'b', '--lesion-free'],
        ['evaluate', 'a', '--lesion-free', '--compare', 'x', 'y'],
    ],
)
def test_usage_errors_are_64(arguments, capsys):
    assert main(arguments) == 64
    assert capsys.readouterr().err.startswith('ssl2: error: ')


@pytest.mark.parametrize('argument', ['--help', '--version'])
def test_help_and_version(argument, capsys):
    with pytest.raises(SystemExit) as caught:
        main([argument])
    assert caught.value.code == 0
    assert 'ssl2' in capsys.readouterr().out


def test_help_of_evaluate_has_an_example(capsys):
    with pytest.raises(SystemExit):
        main(['evaluate', '--help'])
    assert 'ssl2 evaluate /out' in capsys.readouterr().out


@pytest.mark.parametrize('arguments', [['evaluate', '--help'], ['evaluate']])
def test_help_and_usage_errors_import_nothing_heavy(arguments):
    script = (
        'import sys\n'
        'from ssl2_bids.cli.tools.app import main\n'
        'try: code = main(sys.argv[1:])\n'
        'except SystemExit as end: code = end.code\n'
        "heavy = {'numpy', 'scipy', 'nibabel', 'torch', 'rich', 'bids'} & set(sys.modules)\n"
        'sys.exit(f"imported {heavy}" if heavy else code)\n'
    )
    run = subprocess.run(
        [sys.executable, '-c', script, *arguments], capture_output=True, text=True
    )
    assert 'imported' not in run.stderr
    assert run.returncode == (0 if '--help' in arguments else 64)


def test_real_labels_against_their_own_copies(tmp_path):
    """Real LAS label files: a RAS copy scores 1, one shifted by a voxel scores less."""
    manual = STRIPPED / 'derivatives/manual'
    if not manual.is_dir():
        pytest.skip('the data set ms-stripped is not here')
    drawn = reorient(read(manual / 'sub-lj07/anat/sub-lj07_label-lesion_mask.nii.gz'))
    for desc, data in (('', drawn.data), ('_desc-moved', np.roll(drawn.data, 1, axis=0))):
        name = f'sub-lj07/anat/sub-lj07_space-FLAIR_label-L{desc}_mask.nii.gz'
        write(drawn.with_data(data), tmp_path / name, dtype=np.uint8)
    (case,) = evaluate(tmp_path, manual).cases
    assert (case.voxels.dice, case.voxels.hausdorff_95, case.overlap.f1) == (1, 0, 1)
    assert case.voxels.reference_volume == pytest.approx(1300, abs=5)
    assert evaluate(tmp_path, manual, minimum_volume=0).cases[0].overlap.reference_count == 37
    (moved,) = evaluate(tmp_path, manual, model='moved').cases
    assert 0.4 < moved.voxels.dice < 0.9
    assert moved.voxels.hausdorff_95 == pytest.approx(1)
