"""Benchmarks: their commands run, and refuse with a line what they cannot do."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from running_app import PROJECT

sys.path.append(str(PROJECT / 'benchmarks'))
import accuracy
import brain_flags
import brains
import image_quality
import participant

from ssl2_bids.bids.outputs import UnitNames
from ssl2_bids.files import read_object, write_json, write_text
from ssl2_bids.networks.cards import Card
from ssl2_bids.networks.weights import find_model
from ssl2_bids.volume import Volume, read, write


def run(name: str, *words: object, folder: Path | None = None) -> subprocess.CompletedProcess:
    """A benchmark as a command, in a folder."""
    return subprocess.run(
        [sys.executable, PROJECT / 'benchmarks' / name, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )


def rows(printed: str) -> list[list[str]]:
    """The cells of a table, without its head."""
    lines = [line for line in printed.splitlines() if line.startswith('| ')]
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines][2:]


def test_start_up_is_timed_with_finished_results(tmp_path):
    done = run('startup.py', '--sessions', 2, '--work', 'new/work', folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [row[0] for row in rows(done.stdout)] == [
        'one session, nothing to do',
        '2 sessions, nothing to do, files read',
        '2 sessions, nothing to do, digests kept',
    ]


def test_planning_is_timed_in_a_new_relative_folder(tmp_path):
    done = run('planning.py', '--participants', 2, '--work', 'new/work', folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [row[-1] for row in rows(done.stdout)] == ['2', '2', '1']


def test_a_cohort_is_copied_into_a_new_relative_folder(tmp_path):
    marker = UnitNames(tmp_path / 'results', '01', None, 'T1w', '').done_marker
    words = ('cohort.py', 'results', '--participants', 2, '--work', 'new/work')
    (tmp_path / 'results').mkdir()
    done = run(*words, folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith('results: this folder has no finished participants\n')
    write_text(marker.with_name('sub-01_space-T1w_label-L_mask.nii.gz'), 'no image')
    write_json(marker, {'ConfigurationHash': 'x', 'Model': {'Name': 'm', 'Version': '1'}})
    done = run(*words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert rows(done.stdout)[0][0] == '2'


def test_regions_need_an_image_on_the_grid_of_the_truth(tmp_path):
    truth = tmp_path / 'derivatives' / 'truth' / 'sub-01' / 'anat'
    mask = Volume(np.ones((4, 4, 4), np.uint8), np.eye(4))
    for name in ('desc-brain_mask', 'seg-lesions_dseg'):
        write(mask, truth / f'sub-01_space-FLAIR_{name}.nii.gz', dtype=np.uint8)
    moved = np.eye(4)
    moved[:3, 3] = 5.0
    image = Volume(np.ones((4, 4, 4), np.float32), moved)
    write(image, tmp_path / 'sub-01' / 'anat' / 'sub-01_FLAIR.nii.gz')
    done = run('regions.py', tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith('the image does not lie on the grid of the truth\n')


def test_noise_of_spoiled_images_is_a_share_of_the_median_of_the_brain():
    random = np.random.default_rng(0)
    image = Volume(
        np.abs(random.normal(100, 1, (24, 24, 24))).astype(np.float32), np.eye(4), 'T1w'
    )
    made = dict(image_quality.spoiled(image, level=100.0))
    for ratio in image_quality.NOISY:
        noise = made[f'SNR {ratio:g}'].data.std()
        assert 0.7 * 100 / ratio < noise < 1.1 * 100 / ratio


def head(root: Path, level: float) -> Path:
    """A dataset with a small brain of one brightness on grids that agree, and its truth."""
    random = np.random.default_rng(0)
    inside = np.zeros((24, 24, 24), bool)
    inside[4:-4, 4:-4, 4:-4] = True
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    truth = root / 'derivatives' / 'truth' / 'sub-01' / 'anat'
    for contrast in ('T1w', 'FLAIR'):
        data = np.where(inside, random.normal(level, 1, inside.shape), 0).astype(np.float32)
        write(Volume(data, affine), root / 'sub-01' / 'anat' / f'sub-01_{contrast}.nii.gz')
    mask = Volume(inside.astype(np.uint8), affine)
    write(mask, truth / 'sub-01_space-T1w_label-L_mask.nii.gz', dtype=np.uint8)
    write_json(root / 'dataset_description.json', {'Name': 'x', 'BIDSVersion': '1.10.0'})
    return root


def test_prepared_brains_are_kept_by_dataset_and_model(tmp_path, monkeypatch):
    card = find_model('fast-3t', tmp_path)
    monkeypatch.chdir(tmp_path)
    first, second = head(tmp_path / 'a' / 'data', 100), head(tmp_path / 'b' / 'data', 100)
    one = second / 'derivatives/truth/sub-01/anat/sub-01_space-T1w_label-L_mask.nii.gz'
    empty = read(one, dtype=np.uint8)
    write(empty.with_data(np.zeros_like(empty.data)), one, dtype=np.uint8)

    def truth(root: Path, asked: Card = card) -> bool:
        (brain,) = brains.load_brains(root, asked, tmp_path / 'work')
        return bool(brain.truth.any())

    assert truth(first)
    assert not truth(second)
    assert truth(Path('a/data'))
    assert len(list((tmp_path / 'work').iterdir())) == 2
    coarse = {'VoxelSize': [2, 2, 2]}
    truth(first, replace(card, voxel_size=(2.0, 2.0, 2.0), content=card.content | coarse))
    assert len(list((tmp_path / 'work').iterdir())) == 3


def test_masks_are_kept_by_dataset(tmp_path):
    names = {}
    for name in ('a', 'b'):
        folder = tmp_path / name / 'data' / 'sub-01'
        names[name] = brain_flags.kept_file(tmp_path, folder, 'data sub-01 T1w', '.nii.gz')
    assert names['a'] != names['b']
    assert all(path.name.startswith('data_sub-01_T1w_') for path in names.values())


def test_accuracy_is_that_of_the_asked_people_and_models(tmp_path):
    lesion = np.zeros((8, 8, 8), np.uint8)
    lesion[2:6, 2:6, 2:6] = 1
    mask = Volume(lesion, np.eye(4))
    folder, labels = tmp_path / 'OUT' / 'flair', tmp_path / 'labels'
    for name in ('01', '02'):  # of an earlier run with both
        anat = f'sub-{name}/anat/sub-{name}_space-FLAIR_label-L'
        write(mask, folder / f'{anat}_desc-fast3t_mask.nii.gz', dtype=np.uint8)
        write(mask, folder / f'{anat}_desc-site1_mask.nii.gz', dtype=np.uint8)
        write(mask, labels / f'{anat}_mask.nii.gz', dtype=np.uint8)
    card = find_model('fast-3t', tmp_path)
    adapted = shutil.copytree(card.folder, tmp_path / 'models' / 'adapted')
    content = read_object(adapted / 'model.json') | {'Name': 'of the site', 'Label': 'site1'}
    write_json(adapted / 'model.json', content)
    given = argparse.Namespace(
        out=tmp_path / 'OUT', labels=str(labels), models=['fast-3t', str(adapted)],
        participants=['01'], figures=False,
    )  # fmt: skip
    rows = accuracy.evaluate(given, folder)
    assert [(row['participant_id'], row['model']) for row in rows] == [
        ('sub-01', 'fast3t'),
        ('sub-01', 'site1'),
    ]
    assert accuracy.label('committee-3t', folder) == 'default'


def test_accuracy_refuses_figures_without_labels_at_once(tmp_path):
    done = run('accuracy.py', tmp_path / 'nothing', 'none', tmp_path / 'OUT', '--figures')
    assert done.returncode == 2
    assert '--figures shows masks beside labels' in done.stderr
    assert not (tmp_path / 'OUT').exists()


def test_registration_names_the_cases_without_files(tmp_path):
    data = tmp_path / 'data'
    write_text(data / 'ms-stripped/sub-lj07/anat/sub-lj07_FLAIR.nii.gz', 'no image')
    done = run('registration.py', data)
    assert done.returncode == 1
    *left_out, last = done.stderr.splitlines()
    assert len(left_out) == 6
    assert left_out[0].endswith('sub-lj07_T1w.nii.gz is missing')
    assert left_out[1].endswith('sub-lj19_FLAIR.nii.gz is missing')
    assert last == f'{data}: this folder has none of the scans'
    assert not done.stdout


def test_a_head_that_was_made_in_part_is_not_taken(tmp_path, monkeypatch):
    def stopped(root: Path, **_: object) -> None:
        write_json(root / 'sub-01' / 'anat' / 'sub-01_FLAIR.json', {'SkullStripped': True})
        raise KeyboardInterrupt

    monkeypatch.setattr(participant, 'simulate', stopped)
    with pytest.raises(KeyboardInterrupt):
        participant.make_dataset(tmp_path)
    assert not (tmp_path / 'data').exists()
    # as an earlier version left it
    (tmp_path / 'data-in-part').rename(tmp_path / 'data')
    with pytest.raises(SystemExit, match='a run that was stopped left this dataset in part'):
        participant.make_dataset(tmp_path)
    write_json(tmp_path / 'data/sub-01/anat/sub-01_FLAIR.json', {'SkullStripped': False})
    assert participant.make_dataset(tmp_path) == tmp_path / 'data'


def test_a_participant_is_timed_with_the_asked_model(tmp_path):
    data = head(tmp_path / 'data', 100)
    words = ('--dataset', data, '--label', '01', '--model', 'no-such', '--work', tmp_path / 'work')
    done = run('participant.py', *words)
    assert done.returncode == 1
    assert "there is no model 'no-such'" in done.stderr


@pytest.mark.parametrize(
    'words', [('windows.py', '--statistics', 'others'), ('member_calibration.py',)]
)
def test_one_participant_without_others_is_refused(tmp_path, words):
    data = head(tmp_path / 'data', 100)
    done = run(words[0], data, *words[1:], '--work', tmp_path / 'work')
    assert done.returncode == 1
    assert done.stderr == f'{data}: 2 participants are needed, and there is 1\n'


def test_three_people_are_too_few_to_label_three_and_test_others(tmp_path):
    image = Volume(np.random.default_rng(0).random((6, 6, 6)).astype(np.float32), np.eye(4))
    lesion = image.with_data((image.data > 0.6).astype(np.uint8))
    for name in ('01', '02', '03'):
        stem = f'sub-{name}/anat/sub-{name}_space-FLAIR_label-L'
        write(image, tmp_path / 'out' / f'{stem}_probseg.nii.gz')
        write(lesion, tmp_path / 'out' / f'{stem}_mask.nii.gz', dtype=np.uint8)
        write(lesion, tmp_path / 'truth' / f'{stem}_mask.nii.gz', dtype=np.uint8)
    write_json(tmp_path / 'model' / 'model.json', {'Recalibration': {'ThresholdMove': 0.5}})
    done = run('twin_threshold.py', tmp_path / 'out', tmp_path / 'truth', tmp_path / 'model')
    assert done.returncode == 1
    assert '3 people are too few: 3 are labelled, and the others are tested' in done.stderr
