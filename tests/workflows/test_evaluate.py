import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ssl2_bids.cli.tools import main
from ssl2_bids.errors import DataError, NoInputError
from ssl2_bids.volume import Volume, read, reorient, resample, write
from ssl2_bids.workflows.evaluate import evaluate

SHAPE = (20, 22, 24)
RAS = np.array([[1.0, 0, 0, -10], [0, 1, 0, -20], [0, 0, 1, 5], [0, 0, 0, 1]])
STRIPPED = Path(__file__).resolve().parents[2] / '../shared/data/ms-stripped'


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


def test_mask_in_the_space_of_the_label_is_chosen(datasets):
    pred, manual = datasets
    native = pred / 'sub-01/anat/sub-01_space-UNIT1_label-L_mask.nii.gz'
    other = resample(Volume(lesions(SMALL), RAS), np.diag([2.0, 2, 2, 1]), (10, 11, 12), order=0)
    write(other, native, dtype=np.uint8)
    (case,) = evaluate(pred, manual, participants=['01']).cases
    assert case.space == 'FLAIR'


def test_models_are_told_apart(datasets):
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
    (case,) = evaluate(pred, manual, participants=['05']).cases
    assert case.voxels.dice == 1
    assert len(case.labels) == 3


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
    assert 'sub-01: annotated in part' in result.notes[0]


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


def test_nobody_in_common_names_both_sides(datasets):
    pred, manual = datasets
    with pytest.raises(NoInputError) as caught:
        evaluate(pred, manual, participants=['03', '04'])
    text = str(caught.value)
    assert 'among the participants 03, 04' in text
    assert f'{pred} has masks of: sub-01, sub-02_ses-A, sub-03.' in text
    assert f'{manual} has labels of: sub-01, sub-02_ses-A, sub-04.' in text


def test_same_result_twice(datasets):
    assert evaluate(*datasets) == evaluate(*datasets)


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
        'from ssl2_bids.cli.tools import main\n'
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
