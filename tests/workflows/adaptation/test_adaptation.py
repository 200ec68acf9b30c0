"""Adapting a model to a site of phantoms: better, refused, stopped and gone on with, mistaken."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest
import torch
from running_app import command, digests, validate
from site_phantom import (
    AFFINE,
    SHAPE,
    VOXEL,
    add_person,
    head,
    make_model,
    make_site,
    put_label,
)

from ssl2_bids.bids.dataset import read_description
from ssl2_bids.bids.outputs import UnitNames, find_results, read_sidecar
from ssl2_bids.bids.provenance import write_dataset_files
from ssl2_bids.cli.work_folder import clean
from ssl2_bids.errors import (
    BusyError,
    DataError,
    NoInputError,
    Ssl2Error,
    StorageError,
    UnavailableError,
    UsageError,
)
from ssl2_bids.files import write_json, write_text
from ssl2_bids.itk import to_itk
from ssl2_bids.locks import ADAPTATION_LOCK, LOCK
from ssl2_bids.networks.weights import find_model, load_network, read_card, read_weights
from ssl2_bids.settings import GroupSettings
from ssl2_bids.training.adaptation import adapt as training
from ssl2_bids.volume import Volume, read, write
from ssl2_bids.workflows.adaptation import prepare as preparing
from ssl2_bids.workflows.adaptation import torchrun as nodes
from ssl2_bids.workflows.adaptation.cases import find_cases
from ssl2_bids.workflows.adaptation.parallel import take_part
from ssl2_bids.workflows.adaptation.plan import asked_for, plan_adaptation
from ssl2_bids.workflows.adaptation.state import Work
from ssl2_bids.workflows.adaptation.state import begin as begin_work
from ssl2_bids.workflows.adaptation.timing import devices_of, fit_into_time
from ssl2_bids.workflows.annotations import MisfitError
from ssl2_bids.workflows.cohort.run import run_group_level

PEOPLE = 6


@pytest.fixture(scope='module')
def model(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp('model'))


@pytest.fixture(scope='module')
def fresh(model, tmp_path_factory) -> Path:
    """A site after the participant level, to be copied."""
    root = tmp_path_factory.mktemp('fresh')
    make_site(root, model, PEOPLE)
    return root


@pytest.fixture
def site(fresh, model, tmp_path) -> GroupSettings:
    """A copy of the site; no labels yet, in an empty folder."""
    shutil.copytree(fresh, tmp_path, dirs_exist_ok=True)
    (tmp_path / 'labels').mkdir()
    return settings_of(tmp_path, model)


def settings_of(root: Path, model: Path, **changes) -> GroupSettings:
    given = {
        'labels': (root / 'labels',),
        'model': str(model),
        'device': 'cpu',
        'folds': 2,
        'steps': 60,
        'learning_rate': 1e-2,
    }
    return GroupSettings(root / 'data', root / 'out', root / 'work', **(given | changes))


def put_labels(site: GroupSettings, *people: int, of: dict[int, int] | None = None) -> None:
    """True lesions; ``of`` names whose lesions a participant gets instead."""
    for number in people:
        put_label(site.labels[0], f'{number:02d}', head((of or {}).get(number, number)).lesion)


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline='', encoding='utf-8') as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


def run(settings: GroupSettings) -> tuple[int, str]:
    output: list[str] = []
    code = run_group_level(settings, show=output.append)
    return code, '\n'.join(output)


def card_of(settings: GroupSettings) -> dict:
    return json.loads((settings.output_dir / 'models/adapted/model.json').read_text())


@pytest.fixture(scope='module')
def adapted(fresh, model, tmp_path_factory) -> tuple[GroupSettings, str]:
    """Four of six people labelled, a model adapted and all participants segmented again."""
    root = tmp_path_factory.mktemp('adapted')
    shutil.copytree(fresh, root, dirs_exist_ok=True)
    settings = settings_of(root, model)
    put_labels(settings, 1, 2, 3, 4)
    summarise(settings, '05')
    code, output = run(settings)
    assert code == 0
    return settings, output


def summarise(site: GroupSettings, subject: str) -> None:
    """The summary that the participant level leaves of a session (the phantoms have none)."""
    names = UnitNames(site.output_dir, subject, None, 'T1w')
    content = {
        'subject': subject, 'session': None, 'status': 'done',
        'model': {'Name': 'phantom-3t', 'Label': '', 'Version': '1', 'Sha256': '0'},
        'settings': {'threshold': 0.5}, 'warnings': [], 'methods': ['Phantoms were segmented.'],
        'viewer': {'Volumes': 'none.js', 'Program': 'figures/niivue.js', 'Resampled': False},
        'reference': None,
        'figures': [], 'lesions': [], 'volumes': [], 'outputs': [], 'provenance': {},
    }  # fmt: skip
    write_json(names.path('report.summary'), content)


def test_the_adapted_model_is_better_on_people_that_it_has_not_seen(adapted):
    settings, output = adapted
    rows = rows_of(settings.output_dir / 'group_performance.tsv')
    assert sorted(row['participant_id'] for row in rows) == [f'sub-0{n}' for n in range(1, 5)]
    before, after = (
        np.mean([float(row[f'dice_{when}']) for row in rows]) for when in ('before', 'after')
    )
    assert after > before + 0.05
    card = card_of(settings)
    assert card['Accepted'] is True
    assert card['Metrics']['dice']['After'] == pytest.approx(after, abs=1e-3)
    assert card['Metrics']['dice']['P'] is None  # too few people for a p-value
    # people who were never labelled are segmented better too
    for number in (5, 6):
        truth = head(number).lesion
        dice = []
        for desc in ('', '_desc-adapted'):
            name = f'sub-0{number}/anat/sub-0{number}_space-T1w_label-L{desc}_mask.nii.gz'
            found = read(settings.output_dir / name).data > 0
            dice.append(2 * (found & truth).sum() / (found.sum() + truth.sum()))
        assert dice[1] > dice[0]
    assert 'minutes' in output.split('training 1')[0]  # the estimate comes before the training


def test_what_an_adaptation_leaves(adapted, model):
    settings, _ = adapted
    out = settings.output_dir
    names = sorted(path.name for path in (out / 'models/adapted').iterdir())
    assert names == [
        'config.toml', 'history.json', 'history.tsv', 'model.json', 'report.json', 'splits.json',
        'splits.tsv', 'weights.safetensors',
    ]  # fmt: skip
    card = card_of(settings)
    parent = json.loads((model / 'model.json').read_text())
    assert card['Parent']['Sha256'] == parent['Sha256'] != card['Sha256']
    assert [entry['File'] for entry in card['Labels']] == [
        f'bids:labels:sub-0{n}/anat/sub-0{n}_label-lesion_mask.nii.gz' for n in range(1, 5)
    ]
    links = read_description(out)['DatasetLinks']
    assert links['labels'] == settings.labels[0].as_uri()
    write_dataset_files(out, settings.bids_dir)  # as a later run of the participant level does
    assert read_description(out)['DatasetLinks'] == links
    splits = {row['participant_id']: row for row in rows_of(out / 'models/adapted/splits.tsv')}
    assert {row['fold'] for row in splits.values()} == {'1', '2', 'n/a'}
    assert splits['sub-05']['role'] == 'unlabelled'
    trainings = {row['training'] for row in rows_of(out / 'models/adapted/history.tsv')}
    folds = {'1', '2', 'last-1', 'last-2'}
    assert trainings - {'final', 'last-final'} == folds
    assert len(trainings) == 5  # and the final one of the rung that is taken
    curves = {
        name: [
            (int(row['step']), float(row['dice_left_out']))
            for row in rows_of(out / 'models/adapted/history.tsv')
            if row['training'] == name and row['dice_left_out'] != 'n/a'
        ]
        for name in ('1', '2', 'final')
    }
    assert curves['final'] == []  # no participant is left out of it
    for name in ('1', '2'):
        assert [step for step, _ in curves[name]] == [0, 12, 24, 36, 48, 60]
        assert curves[name][-1][1] > curves[name][0][1]
    lesions = rows_of(out / 'group_lesions.tsv')
    assert len(lesions) == 2 * PEOPLE
    assert {row['model'] for row in lesions} == {'phantom-3t', 'phantom-3t-adapted'}
    annotate = rows_of(out / 'group_annotate.tsv')
    assert {row['participant_id'] for row in annotate} == {'sub-05', 'sub-06'}
    gains = [float(row['expected_gain_mm3']) for row in annotate]
    assert gains == sorted(gains, reverse=True)
    for row in annotate:
        image = read(out / row['image'])
        name = row['participant_id']
        brain = read(out / f'{name}/anat/{name}_desc-brain_mask.nii.gz')
        assert brain.data[:, :, int(row['slice'])].any()
        assert image.shape == brain.shape
    page = (out / 'group_report.html').read_text()
    assert 'The adapted model is used' in page
    assert 'Quality of pseudo-labels during training' in page
    assert page.count('class="line"') == 2
    assert 'figures/group_desc-adapted_annotate.svg' in page
    assert (out / 'figures/group_desc-adapted_annotate.svg').stat().st_size > 1000
    assert validate(out) == []


def test_the_page_of_a_participant_shows_both_results(adapted):
    out = adapted[0].output_dir
    page = (out / 'sub-05.html').read_text()
    assert 'model phantom-3t<' in page
    assert 'model adapted<' in page
    assert 'was adapted to the site from phantom-3t 1 (mean_teacher, 60 steps)' in page
    for name in ('adaptedlesions_T1w.svg', 'adaptedlesions_FLAIR.svg', 'adaptedmosaic_FLAIR.svg'):
        figure = f'sub-05/figures/sub-05_desc-{name}'
        assert figure in page
        assert (out / figure).stat().st_size > 1000
    name = 'sub-05/anat/sub-05_space-T1w_seg-lesions_desc-adapted_dseg'
    summary = read_sidecar(out / 'sub-05/figures/sub-05_desc-adaptedsummary_report.json')
    assert len(summary['lesions']) == len(rows_of(out / f'{name}.tsv')) > 0
    assert f'{name}.nii.gz' in page
    assert not (out / 'sub-06.html').exists()  # it has no summary of the first result
    cited = (out / 'logs/CITATION.md').read_text()
    assert 'was adapted to the site from phantom-3t 1 (mean_teacher, 60 steps)' in cited


def test_later_scans_find_the_model(adapted):
    settings, _ = adapted
    card = find_model('adapted', settings.output_dir)
    assert card.label == 'adapted'
    assert read_weights(card)


def test_running_again_trains_nothing_and_changes_nothing(adapted):
    settings, _ = adapted
    before = digests(settings.output_dir)
    code, output = run(settings)
    assert code == 0
    assert 'already adapted' in output
    assert 'training' not in output
    assert digests(settings.output_dir) == before


def test_half_of_the_change_is_taken_where_that_is_asked_for(adapted, model, tmp_path):
    first, _ = adapted
    shutil.copytree(first.work_dir.parent, tmp_path, dirs_exist_ok=True)
    settings = settings_of(tmp_path, model, resegment=False)
    shutil.rmtree(tmp_path / 'out/models')
    whole = card_of(first)
    assert whole['WeightShare'] == 1
    assert whole['Rung'] == 'whole'
    settings = replace(settings, rung='half-way')
    code, output = run(settings)
    assert code == 0
    assert 'half-way' in output
    card = card_of(settings)
    assert card['WeightShare'] == 0.5
    assert card['Metrics']['dice']['After'] != whole['Metrics']['dice']['After']
    start, found, trained = (
        read_weights(find_model(str(folder), tmp_path))
        for folder in (model, tmp_path / 'out/models/adapted', first.output_dir / 'models/adapted')
    )
    for name, value in found.items():
        middle = (start[name] + trained[name]) / 2
        torch.testing.assert_close(value, middle, atol=1e-3, rtol=1e-3)  # halves of 16 bits
    assert card['Rung'] == 'half-way'
    page = (settings.output_dir / 'group_report.html').read_text()
    assert '50 % trained weights, the rest weights of phantom-3t' in page


def test_trainings_side_by_side_come_to_the_same_model(fresh, adapted, model, tmp_path):
    shutil.copytree(fresh, tmp_path, dirs_exist_ok=True)
    settings = settings_of(tmp_path, model, nprocs=3, memory_gb=64, resegment=False)
    put_labels(settings, 1, 2, 3, 4)
    code, output = run(settings)
    assert code == 0
    assert '5 trainings, 3 at a time' in output
    assert 'training final on cpu: step 60 of 60' in output
    models = [s.output_dir / 'models/adapted' for s in (adapted[0], settings)]
    first, second = ((folder / 'weights.safetensors').read_bytes() for folder in models)
    assert first == second
    assert rows_of(adapted[0].output_dir / 'group_performance.tsv') == rows_of(
        settings.output_dir / 'group_performance.tsv'
    )


@pytest.mark.slow
def test_processes_of_torchrun_share_the_trainings(fresh, model, tmp_path):
    settings = []
    for name in ('alone', 'shared'):
        shutil.copytree(fresh, tmp_path / name)
        settings.append(
            settings_of(tmp_path / name, model, steps=20, accept='always', resegment=False,
                        learning_rate=GroupSettings.learning_rate)
        )  # fmt: skip
        put_labels(settings[-1], 1, 2)
    alone, shared = settings
    assert run(alone)[0] == 0
    launch = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2']
    words = [
        shared.bids_dir, shared.output_dir, 'group', '--labels', shared.labels[0], '--model',
        model, '--device', 'cpu', '--folds', 2, '--steps', 20, '--accept', 'always',
        '--no-resegment', '--nprocs', 2, '--omp-nthreads', 1, '-w', shared.work_dir,
    ]  # fmt: skip
    done = subprocess.run(
        [*launch, *command(*words)[1:]], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert '5 trainings, 1 at a time in each of 2 processes' in done.stderr
    logs = [path.read_text() for path in (shared.output_dir / 'logs').glob('*.log')]
    # the first process has trained the first and the last, the other one what lies between
    trained = [[n for n in ('1', '2', 'final') if f'{n} on cpu: step 20' in log] for log in logs]
    assert sorted(trained) == [['1', 'final'], ['2']]
    models = [s.output_dir / 'models/adapted/weights.safetensors' for s in settings]
    assert models[0].read_bytes() == models[1].read_bytes()


def test_a_node_that_does_not_see_the_work_folder_reports_it(site, monkeypatch):
    monkeypatch.setattr(nodes, 'wait_for_trainings', lambda: Path('/elsewhere/trainings.json'))
    with pytest.raises(NoInputError, match='not visible') as raised:
        take_part(site, print)
    assert '-w' in str(raised.value)


def test_a_name_in_use_is_not_overwritten(adapted):
    settings, _ = adapted
    with pytest.raises(UsageError, match='another model named adapted') as raised:
        run(replace(settings, random_seed=1))
    assert '--label' in str(raised.value)


def test_tables_alone_keep_telling_of_the_adaptation(adapted):
    settings, _ = adapted
    code, output = run(replace(settings, labels=(), strategy='none'))
    assert code == 0
    assert 'adaptation' not in output
    assert 'What to label next' in (settings.output_dir / 'group_report.html').read_text()


def test_two_adaptations_do_not_share_a_work_folder(site):
    """The other one, with another output folder, is a process that holds the lock."""
    put_labels(site, 1, 2)
    held = (
        'import sys; from pathlib import Path; from ssl2_bids.locks import locked\n'
        'with locked(Path(sys.argv[1]), ["adaptation"]): print("held", flush=True); input()'
    )
    lock = site.work_dir / ADAPTATION_LOCK
    words = [sys.executable, '-c', held, str(lock)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b'held\n'
        with pytest.raises(BusyError, match='another adaptation works in this work folder'):
            run(site)
        assert not (site.work_dir / 'adaptation').exists()
        (site.work_dir / LOCK).touch()
        (site.work_dir / 'adaptation').mkdir()
        clean(site)
        assert (site.work_dir / 'adaptation').is_dir()
        other.communicate(b'\n')
    clean(site)
    assert not (site.work_dir / 'adaptation').exists()


def test_labels_of_other_people_are_no_help_and_are_refused(site, model):
    put_labels(site, 1, 2, 3, 4, of={1: 2, 2: 3, 3: 4, 4: 1})
    code, output = run(replace(site, steps=30))
    assert code == 0
    assert 'not accepted' in output
    card = card_of(site)
    assert card['Accepted'] is False
    # chance level, and which of the two it is differs between processors
    reasons = ('Dice did not increase', 'labels belong to these scans')
    assert any(reason in card['Reason'] for reason in reasons)
    parent = json.loads((model / 'model.json').read_text())
    assert card['Sha256'] == parent['Sha256']  # the first weights, to the byte
    assert not list(site.output_dir.rglob('*desc-adapted_mask*'))
    assert len(rows_of(site.output_dir / 'group_lesions.tsv')) == PEOPLE
    assert 'was not accepted' in (site.output_dir / 'group_report.html').read_text()
    assert rows_of(site.output_dir / 'group_annotate.tsv')


def test_a_refused_model_may_be_replaced(site):
    put_labels(site, 1, 2)
    few = replace(site, steps=10, learning_rate=1e-30, resegment=False)
    run(few)
    assert card_of(site)['Accepted'] is False
    trained = {p: p.stat().st_mtime_ns for p in site.work_dir.rglob('checkpoint-*')}
    run(replace(few, accept='always'))
    card = card_of(site)
    assert card['Accepted'] is True
    assert 'although' in card['Reason']
    # the folds are taken over, not trained again
    again = {p: p.stat().st_mtime_ns for p in site.work_dir.rglob('checkpoint-*')}
    assert len(trained) >= 2
    assert trained.items() <= again.items()
    folds = {'training-1', 'training-2', 'training-last-1', 'training-last-2'}
    assert {p.parent.name for p in again} == folds | {'training-last-final'}
    assert card['Rung'] == 'last-layers'  # all are alike: the lowest


def test_whoever_is_left_out_is_seen_by_no_training(site, monkeypatch):
    """Neither the labels nor the images of the people of a fold, nor those held out."""
    put_labels(site, 1, 2, 3)
    seen: dict[str, list[str]] = {}
    real = training.adapt

    def watched(network, people, settings, folder, **options):
        seen[folder.name] = [person.name for person in people]
        return real(network, people, settings, folder, **options)

    monkeypatch.setattr(training, 'adapt', watched)
    run(replace(site, steps=10, accept='always', holdout=('03',), resegment=False))
    out = {row['participant_id'][4:]: row['fold'] for row in rows_of(
        site.output_dir / 'models/adapted/splits.tsv')}  # fmt: skip
    assert out['03'] == 'holdout'
    for fold in ('1', '2'):
        left_out = {'sub-03'} | {f'sub-{p}' for p, number in out.items() if number == fold}
        assert len(left_out) == 2
        everyone = {f'sub-0{n}' for n in range(1, PEOPLE + 1)}
        assert set(seen[f'training-{fold}']) == everyone - left_out
        labelled = {'sub-01', 'sub-02'} - left_out
        assert set(seen[f'training-last-{fold}']) == labelled  # the last layers by labels alone
    assert any(name.endswith('final') for name in seen)
    assert not any('sub-03' in people for people in seen.values())
    rows = rows_of(site.output_dir / 'group_performance.tsv')
    assert [row['fold'] for row in rows if row['participant_id'] == 'sub-03'] == ['holdout']
    assert not list(site.output_dir.rglob('*desc-adapted_mask*'))  # --no-resegment
    page = (site.output_dir / 'group_report.html').read_text(encoding='utf-8')
    assert f'with {PEOPLE} scans, 3 of them labelled, of which 1 is held out and seen by' in page
    assert 'of the last layers (supervised, on labelled scans alone) and of all layers' in page


def test_sparse_labels_count_where_they_are(site):
    for number in (1, 2):
        lesion = head(number).lesion
        slices = [int(k) for k in np.argsort(-lesion.sum((0, 1)))[:6]]
        drawn = np.zeros_like(lesion)
        drawn[:, :, slices] = lesion[:, :, slices]
        put_label(
            site.labels[0],
            f'{number:02d}',
            drawn,
            AnnotationExtent='slices',
            AnnotatedSlices={'Axis': 'k', 'Indices': sorted(slices)},
        )
    sparse = replace(site, steps=10, accept='always', resegment=False)
    run(sparse)
    for row in rows_of(site.output_dir / 'group_performance.tsv'):
        assert 0.1 < float(row['annotated']) < 0.5
        assert row['lesion_f1_after'] == 'n/a'  # lesions are cut by the annotated slices
        assert 0 <= float(row['dice_before']) <= 1
    (folder,) = (site.work_dir / 'adaptation/people').iterdir()
    annotated = np.load(folder / 'sub-01/annotated.npy')
    assert annotated.any(axis=(0, 1)).sum() == 6
    # the labelled are suggested, too, in slices that no rater has looked at
    suggested = {r['participant_id'] for r in rows_of(site.output_dir / 'group_annotate.tsv')}
    assert 'sub-01' in suggested


def test_a_label_of_one_slice_that_does_not_state_it_is_doubted(site):
    put_labels(site, 1)
    marked = nib.load(site.output_dir / 'sub-02/anat/sub-02_space-T1w_label-L_mask.nii.gz')
    assert (np.asanyarray(marked.dataobj) > 0).any(axis=(0, 1)).sum() >= 8
    best = SHAPE[2] // 2
    drawn = np.zeros(SHAPE, bool)
    drawn[10:20:4, SHAPE[1] // 2, best] = head(2).brain[10:20:4, SHAPE[1] // 2, best]
    assert drawn.sum() == 3
    put_label(site.labels[0], '02', drawn)
    run(replace(site, rung='recalibrated'))
    page = (site.output_dir / 'group_report.html').read_text()
    assert 'sub-02: lesions are drawn in 1 of its slices, and the model marks some in' in page
    put_label(site.labels[0], '02', drawn, AnnotationExtent='slices',
              AnnotatedSlices={'Axis': 'k', 'Indices': [best]})  # fmt: skip
    run(replace(site, label='stated', rung='recalibrated'))
    page = (site.output_dir / 'group_report.html').read_text()
    assert page.count('lesions are drawn in 1 of its slices') == 1


def test_a_label_of_one_lesion_where_the_model_marks_many_is_doubted(site):
    put_labels(site, 1)
    grid = nib.load(site.output_dir / 'sub-02/anat/sub-02_space-T1w_label-L_mask.nii.gz')
    drawn = np.zeros(SHAPE, bool)
    drawn[12, SHAPE[1] // 2, SHAPE[2] // 2] = True
    put_label(site.labels[0], '02', drawn)
    oblique = np.zeros(SHAPE, np.uint8)
    oblique[np.arange(20), np.arange(20), 12] = 1
    for number, text in (
        (1, ''),
        (9, ''),
        (10, 'sub-02: 1 lesion drawn, and the model marks 10: if only'),
    ):
        marked = oblique * (number == 1)
        marked[2 * np.arange(number), 12, 12] = 1
        nib.save(nib.Nifti1Image(marked, grid.affine), grid.get_filename())
        run(replace(site, label=f'of{number}', rung='recalibrated', resegment=False))
        page = (site.output_dir / 'group_report.html').read_text()
        assert text in page
        assert ('1 lesion drawn' in page) == bool(text)


def test_of_many_people_those_are_asked_about_in_whom_least_is_certain(site):
    put_labels(site, 1, 2)
    few = replace(site, steps=10, accept='always', resegment=False, suggestions=1)
    _, output = run(few)
    assert 'suggestions: 2 sessions in which the start model is least certain' in output
    doubts = {}
    for number in range(3, PEOPLE + 1):
        (path,) = (site.output_dir / f'sub-{number:02d}').rglob('*T1w_label-L_probseg.nii.gz')
        found = np.asanyarray(nib.load(path).dataobj)
        doubts[f'sub-{number:02d}'] = float(np.minimum(found, 1 - found).sum())
    asked = {path.stem.split('-', 1)[1] for path in site.work_dir.rglob('doubt-*.npy')}
    assert asked == set(sorted(doubts, key=doubts.get)[-2:])
    (row,) = rows_of(site.output_dir / 'group_annotate.tsv')
    assert row['participant_id'] in asked


@pytest.mark.slow
def test_a_single_labelled_participant_is_tested_on_slices(site):
    put_labels(site, 1)
    code, output = run(replace(site, folds='slices', steps=10, accept='always', resegment=False))
    assert code == 0
    assert '6 trainings' in output
    (row,) = rows_of(site.output_dir / 'group_performance.tsv')
    assert row['fold'] == 'slices'
    assert 'Tested on slices' in (site.output_dir / 'group_report.html').read_text()


def test_trainings_on_slices_run_one_after_another(site):
    put_labels(site, 1, 2)
    assert devices_of(begin(replace(site, nprocs=2)), 6) == ['cpu', 'cpu']
    shutil.rmtree(site.labels[0])
    put_labels(site, 1)
    assert devices_of(begin(replace(site, nprocs=2, folds='slices')), 6) == ['cpu']


@pytest.mark.parametrize(
    ('name', 'value'),
    [('label', 'x'), ('accept', 'always'), ('empty_labels', 'negative'), ('resegment', False)],
)
def test_each_option_of_the_adaptation_asks_for_it(tmp_path, name, value):
    bare = GroupSettings(tmp_path, tmp_path / 'out', tmp_path / 'work', model='fast-3t')
    assert not asked_for(bare)
    assert asked_for(replace(bare, **{name: value}))


@pytest.mark.slow
def test_self_training_without_labels(site):
    shutil.rmtree(site.labels[0])
    bare = replace(site, labels=(), strategy='self_training', folds=None, steps=10)
    with pytest.raises(UsageError, match='cannot be tested'):
        run(bare)
    code, _ = run(replace(bare, accept='always'))
    assert code == 0
    assert len(list(site.output_dir.rglob('*desc-adapted_mask.nii.gz'))) == PEOPLE
    assert rows_of(site.output_dir / 'group_performance.tsv') == []


def test_a_label_drawn_on_another_raw_image(site):
    """FLAIR of half the voxel size and another origin: brought over with the transform."""
    shape = tuple(2 * n for n in SHAPE)
    affine = np.diag([VOXEL / 2] * 3 + [1.0])
    affine[:3, 3] = AFFINE[:3, 3] - VOXEL / 4
    raw = site.bids_dir / 'sub-01/anat/sub-01_FLAIR.nii.gz'
    write(Volume(np.ones(shape, np.float32), affine), raw)
    fine = head(1).lesion.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    put_label(site.labels[0], '01', fine, affine=affine)
    put_labels(site, 2)
    work = begin(site)
    moved = work.annotations['sub-01'].label.data > 0
    # nearest neighbours of halves: at most the outermost voxels are others
    truth = head(1).lesion
    assert 2 * (moved & truth).sum() / (moved.sum() + truth.sum()) > 0.99


@pytest.mark.parametrize('content', [None, 'Transform: ?'])
def test_a_label_whose_transform_is_missing_or_damaged_costs_itself(site, caplog, content):
    moved = AFFINE.copy()
    moved[0, 3] += 3
    write(Volume(head(1).flair, moved), site.bids_dir / 'sub-01/anat/sub-01_FLAIR.nii.gz')
    put_label(site.labels[0], '01', head(1).lesion, affine=moved)
    put_labels(site, 2, 3)
    xfm = UnitNames(site.output_dir, '01', None, 'T1w').path(
        'anat.transform', source='FLAIR', target='T1w'
    )
    xfm.unlink()
    if content:
        xfm.write_text(content)
    assert set(begin(site).annotations) == {'sub-02', 'sub-03'}
    assert f'{xfm.name}: not a readable transform' in caplog.text


def test_a_label_of_a_smaller_image_that_holds_the_brain_is_whole(site, caplog):
    """Else an empty mask would count as reviewed, and no lesion F1 would be known."""
    cut = AFFINE.copy()
    cut[:3, 3] += AFFINE[:3, :3] @ [1, 1, 1]
    inner = (slice(1, -1),) * 3
    for number in (1, 2, 3):
        assert not np.pad(head(number).brain[inner], 1)[~head(number).brain].any()
        raw = site.bids_dir / f'sub-0{number}/anat/sub-0{number}_FLAIR.nii.gz'
        write(Volume(head(number).flair[inner], cut), raw)
    for number, lesion in ((1, head(1).lesion), (2, np.zeros(SHAPE)), (3, head(3).lesion)):
        put_label(site.labels[0], f'0{number}', lesion[inner], affine=cut)
    work = begin(site)
    assert sorted(work.annotations) == ['sub-01', 'sub-03']
    assert all(annotation.whole for annotation in work.annotations.values())
    assert 'empty labels, ignored as not drawn: sub-02' in caplog.text


def test_of_two_images_on_one_grid_a_label_is_of_the_one_in_its_name(site):
    """The person moved between them: by two voxels."""
    moved = np.eye(4)
    moved[0, 3] = 2 * VOXEL
    names = UnitNames(site.output_dir, '01', None, 'T1w')
    write_text(names.path('anat.transform', source='FLAIR', target='T1w'), to_itk(moved))
    on_flair = np.roll(head(1).lesion, round(moved[0, 3] / AFFINE[0, 0]), axis=0)
    path = put_label(site.labels[0], '01', on_flair)
    path.rename(path.with_name('sub-01_FLAIR_label-lesion_seg.nii.gz'))
    put_labels(site, 2)
    work = begin(site)
    assert np.array_equal(work.annotations['sub-01'].label.data > 0, head(1).lesion)


@pytest.mark.parametrize('dry_run', [True, False])
def test_dry_run_and_run_check_labels_alike(site, dry_run, caplog):
    moved = AFFINE.copy()
    moved[0, 3] += 3
    put_label(site.labels[0], '01', head(1).lesion)
    put_label(site.labels[0], '02', head(2).lesion, affine=moved)
    with pytest.raises(DataError, match='sub-02.*0.75 voxels'):
        run(replace(site, dry_run=dry_run))
    assert '0.75 voxels' not in caplog.text  # once, by the error


def test_labels_that_cannot_be_used_cost_themselves_with_the_true_reason(site, caplog):
    moved = AFFINE.copy()
    moved[0, 3] += 3
    put_labels(site, 1, 2)
    put_label(site.labels[0], '03', head(3).lesion, affine=moved)
    put_label(site.labels[0], '04', head(4).lesion * 0.4 + 3)
    put_label(site.labels[0], '99', head(1).lesion)
    shutil.copytree(site.bids_dir / 'sub-01', site.bids_dir / 'sub-98')
    put_label(site.labels[0], '98', head(1).lesion)
    caplog.set_level('WARNING', 'ssl2_bids')
    work = begin(replace(site, excluded=('05',)))
    assert set(work.annotations) == {'sub-01', 'sub-02'}
    output = {name: [t for t in caplog.text.splitlines() if name in t] for name in
            ('sub-03', 'sub-04', 'sub-98', 'sub-99')}  # fmt: skip
    assert '0.75 voxels' in output['sub-03'][0]
    assert 'the mask has the values' in output['sub-04'][0]
    assert 'no result of the participant level' in output['sub-98'][0]
    assert 'not in the dataset' in output['sub-99'][0]


def test_a_label_of_an_unselected_participant_is_reported(site, caplog):
    put_labels(site, 1, 2, 3)
    caplog.set_level('WARNING', 'ssl2_bids')
    assert set(begin(replace(site, excluded=('03',))).annotations) == {'sub-01', 'sub-02'}
    assert 'sub-03_label-lesion_mask.nii.gz: label left out: not selected' in caplog.text


def test_a_line_names_the_masks_that_were_joined(site, caplog):
    put_labels(site, 1, 2)
    folder = site.labels[0] / 'sub-01/anat'
    larger = head(1).lesion | np.roll(head(1).lesion, 1, axis=0)
    for desc, lesion in (('auto', head(9).lesion), ('b', larger)):
        path = folder / f'sub-01_label-lesion_desc-{desc}_mask.nii.gz'
        write(Volume(lesion.astype(np.uint8), AFFINE), path, dtype=np.uint8)
        path.with_name(path.name.replace('.nii.gz', '.json')).write_text(
            json.dumps({'Manual': desc != 'auto'})
        )
    caplog.set_level('INFO', 'ssl2_bids')
    work = begin(site)
    assert np.array_equal(work.annotations['sub-01'].label.data > 0, head(1).lesion)
    assert 'label of sub-01: 2 raters, lesion where both agree: ' in caplog.text
    assert 'sub-01_label-lesion_desc-auto_mask.nii.gz: not used: automatic mask' in caplog.text


def begin(settings: GroupSettings) -> Work:
    from ssl2_bids.bids.outputs import find_results

    plan = plan_adaptation(settings, find_results(settings.output_dir))
    assert plan is not None
    return begin_work(plan, lambda text: None)


def test_a_preprocessed_image_of_equal_name_size_and_time_is_prepared_again(site):
    put_labels(site, 1, 2)
    first = begin(site)
    image = site.output_dir / 'sub-02/anat/sub-02_space-T1w_desc-preproc_FLAIR.nii.gz'
    before = image.stat()
    content = bytearray(image.read_bytes())
    content[9] ^= 1  # of the header of gzip: the smallest of all changes
    image.write_bytes(content)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = begin(site)
    keys = [{p.case.name: p.key for p in work.people} for work in (first, second)]
    assert [name for name in keys[0] if keys[0][name] != keys[1][name]] == ['sub-02']
    assert first.configuration != second.configuration


def test_prepared_people_are_taken_up_until_a_label_changes(site):
    put_labels(site, 1, 2)
    first = begin(site)
    times = {p.case.name: (p.folder / 'image.npy').stat().st_mtime_ns for p in first.people}
    put_label(site.labels[0], '02', np.roll(head(2).lesion, 1, axis=0))
    second = begin(site)
    changed = [
        p.case.name
        for p in second.people
        if (p.folder / 'image.npy').stat().st_mtime_ns != times[p.case.name]
    ]
    assert changed == ['sub-02']
    assert first.configuration != second.configuration


def test_time_that_is_given_decides_on_the_steps(site):
    put_labels(site, 1, 2)
    with pytest.raises(UsageError, match='10 steps'):
        run(replace(site, max_minutes=1e-6, rung='whole'))
    long = replace(site, steps=100_000, max_minutes=0.5, accept='always', resegment=False)
    code, _ = run(long)
    assert code == 0
    assert 10 <= card_of(site)['Steps'] < 5000


def test_too_little_memory_makes_batches_smaller_and_a_rerun_keeps_them(site, monkeypatch):
    put_labels(site, 1, 2)
    output: list[str] = []
    work = begin(site)
    work.show = output.append
    original = training.probe

    def small_memory(network, people, settings, **options):
        if settings.labelled > 1:
            error = UnavailableError('the memory is too small')
            raise error from torch.cuda.OutOfMemoryError('CUDA out of memory.')
        return original(network, people, settings, **options)

    monkeypatch.setattr(training, 'probe', small_memory)
    patches = work.training.labelled
    settled = fit_into_time(work, 1)
    assert (settled.labelled, settled.accumulate) == (1, patches)
    assert any('memory of cpu is too small' in text for text in output)
    again = begin(site)
    assert again.training.labelled == patches
    assert fit_into_time(again, 1) == settled


def test_trainings_of_a_batch_that_is_too_large_are_made_again(site, monkeypatch):
    """Last layers alone first; then all layers, for which the memory is too small."""
    put_labels(site, 1, 2)
    first = begin(replace(site, rung='last-layers'))
    fit_into_time(first, 3)
    made = first.folder / 'training-last-1'
    made.mkdir()
    predicted = first.folder / 'probability-uncalibrated-sub-01-1-last-layers.npy'
    predicted.touch()
    fit_into_time(begin(site), 3)
    assert made.is_dir()
    assert predicted.is_file()
    (first.folder / 'steps.json').unlink()
    fit_into_time(begin(replace(site, rung='last-layers')), 3)
    original = training.probe

    def small_memory(network, people, settings, **options):
        if settings.layers == training.ALL and settings.labelled > 1:
            error = UnavailableError('the training stopped')
            raise error from torch.cuda.OutOfMemoryError('CUDA out of memory.')
        return original(network, people, settings, **options)

    monkeypatch.setattr(training, 'probe', small_memory)
    fit_into_time(begin(site), 3)
    assert not made.exists()
    assert not predicted.exists()


def test_a_dry_run_names_labels_and_files(site):
    put_labels(site, 1, 2)
    code, output = run(replace(site, dry_run=True))
    assert code == 0
    assert 'label  sub-02' in output
    assert 'write  models/adapted/model.json' in output
    assert not (site.output_dir / 'models').exists()
    shutil.rmtree(site.labels[0])
    bare = replace(site, labels=(), strategy='self_training', folds=None, accept='always')
    assert 'rungs  half-way, whole\n' in run(replace(bare, dry_run=True))[1]


def test_a_dry_run_lists_each_file_of_the_model_and_of_the_cohort(adapted):
    settings, _ = adapted
    code, output = run(replace(settings, label='other', dry_run=True))
    assert code == 0
    listed = {
        line.removeprefix('write').strip().replace('other', 'adapted')
        for line in output.splitlines()
        if line.startswith('write') and '/sub-' not in line
    }
    root = settings.output_dir
    patterns = ('group_*', 'figures/group_*', 'models/adapted/*')
    written = {p.relative_to(root).as_posix() for pattern in patterns for p in root.glob(pattern)}
    assert written == listed
    assert 'exists: with the same' not in output
    _, output = run(replace(settings, dry_run=True))
    assert 'note  models/adapted exists: with the same labels' in output


def test_usual_folders_are_looked_into(site, caplog):
    shutil.move(site.labels[0], site.bids_dir / 'derivatives' / 'labels')
    usual = replace(site, labels=(), folds=None, steps=None)
    put_labels(replace(site, labels=(site.bids_dir / 'derivatives' / 'labels',)), 1, 2)
    code, output = run(replace(usual, strategy='supervised', dry_run=True))
    assert code == 0
    assert 'label  sub-01' in output
    # without an option that asks for it, the run does not wait for a training
    caplog.set_level('INFO', 'ssl2_bids')
    code, output = run(usual)
    assert code == 0
    assert 'give --labels' in caplog.text
    assert not (site.output_dir / 'models').exists()
    code, output = run(replace(usual, rung='recalibrated'))
    assert code == 0
    folder = site.bids_dir / 'derivatives' / 'labels'
    assert f'labels: {folder} (found by name; --labels gives another folder)' in output


def mistakes(case: str, site: GroupSettings) -> GroupSettings:
    """Do something wrong."""
    folder = site.labels[0]
    put_labels(site, 1, 2)
    if case == 'off the grid':
        moved = AFFINE.copy()
        moved[0, 3] += 3
        put_label(folder, '02', head(2).lesion, affine=moved)
    elif case == 'all empty':
        for number in ('01', '02'):
            put_label(folder, number, np.zeros(SHAPE))
    elif case == 'all free of lesions':
        for number in ('01', '02'):
            put_label(folder, number, np.zeros(SHAPE), Manual=True)
    elif case == 'too many folds':
        return replace(site, folds=3)
    elif case == 'a single one':
        shutil.rmtree(folder / 'sub-02')
    elif case == 'one left by empty labels':
        put_label(folder, '02', np.zeros(SHAPE))
    elif case == 'slices of several':
        return replace(site, folds='slices')
    elif case == 'another version':
        path = site.output_dir / 'dataset_description.json'
        content = json.loads(path.read_text())
        content['GeneratedBy'][0]['Version'] = '99.1.0'
        path.write_text(json.dumps(content))
    elif case == 'damaged model':
        copy = Path(shutil.copytree(site.model, site.work_dir / 'copy'))
        with open(copy / 'weights.safetensors', 'r+b') as stream:
            stream.seek(200)
            stream.write(b'xxxx')
        return replace(site, model=str(copy))
    elif case == 'no such model':
        return replace(site, model='nobody')
    elif case == 'no label':
        shutil.rmtree(folder)
        folder.mkdir()
    elif case == 'no label for a strategy':
        return replace(site, labels=(), strategy='bcp')
    elif case == 'strategy':
        return replace(site, strategy='magic')
    elif case == 'strategy for another network':
        return replace(site, model='committee-3t', strategy='cct')
    elif case == 'lesions held out':
        for number in ('01', '03'):
            put_label(folder, number, np.zeros(SHAPE), Manual=True)
        return replace(site, holdout=('02',))
    elif case == 'name':
        return replace(site, label='preproc')
    elif case == 'name of a bundled model':
        return replace(site, label='fast3t')
    elif case == 'name of the default model':
        return replace(site, label='default')
    elif case == 'held out without label':
        return replace(site, holdout=('05',))
    elif case == 'held out with an empty label':
        put_label(folder, '04', np.zeros(SHAPE))
        return replace(site, holdout=('04',))
    elif case == 'all held out':
        return replace(site, holdout=('01', '02'))
    elif case == 'lost image':
        (site.output_dir / 'sub-04/anat/sub-04_space-T1w_desc-preproc_FLAIR.nii.gz').unlink()
    elif case == 'cuda':
        return replace(site, device='cuda:77')
    return site


@pytest.mark.parametrize(
    ('case', 'kind', 'text'),
    [
        ('off the grid', MisfitError, r'origin \(-63.00.*origin \(-66.00'),
        ('all empty', DataError, 'all labels are empty'),
        ('all free of lesions', DataError, r'all labels are empty \(2 of 2\)'),
        ('too many folds', UsageError, '--folds 2'),
        ('a single one', UsageError, 'there is one'),
        ('one left by empty labels', UsageError, 'there is one'),
        ('slices of several', UsageError, 'single labelled'),
        ('another version', DataError, '99.1.0'),
        ('damaged model', UnavailableError, 'SHA-256'),
        ('no such model', UnavailableError, 'nobody'),
        ('no label', NoInputError, 'no label of a processed participant'),
        ('no label for a strategy', NoInputError, 'needs labels'),
        ('strategy', UsageError, 'magic'),
        ('strategy for another network', UsageError, 'a network of the type committee'),
        ('lesions held out', DataError, 'no label has a lesion but those that are held out'),
        ('name', UsageError, 'preproc'),
        ('name of a bundled model', UsageError, 'the results of the model fast-3t'),
        ('name of the default model', UsageError, 'another meaning'),
        ('held out without label', UsageError, 'Labelled are: 01, 02'),
        ('held out with an empty label', UsageError, 'names 04, which has no label that can be'),
        ('all held out', UsageError, 'held out'),
        ('lost image', DataError, 'sub-04_space-T1w_desc-preproc_FLAIR'),
        ('cuda', UnavailableError, 'cuda:77'),
    ],
)
def test_mistakes_are_named_before_anything_is_trained(case, kind, text, site):
    wrong = mistakes(case, site)
    with pytest.raises(Ssl2Error, match=text) as raised:
        run(wrong)
    assert type(raised.value) is kind
    assert raised.value.advice
    assert not list(site.work_dir.glob('adaptation/*/training-*'))
    assert not (site.output_dir / 'models').exists()


def test_empty_labels_that_a_rater_guarantees(site):
    put_labels(site, 1, 2)
    put_label(site.labels[0], '03', np.zeros(SHAPE))
    assert set(begin(site).annotations) == {'sub-01', 'sub-02'}
    negative = begin(replace(site, empty_labels='negative'))
    assert set(negative.annotations) == {'sub-01', 'sub-02', 'sub-03'}
    put_label(site.labels[0], '03', np.zeros(SHAPE), Manual=True)
    assert 'sub-03' in begin(site).annotations


def interrupted(words: list[str], until: str, number: int) -> int:
    """Run the App until it shows a text, and send it a signal."""
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    with subprocess.Popen(
        command(*words), stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if until in line:
                process.send_signal(signal.SIGSTOP)  # it waits while its children are counted
                workers = psutil.Process(process.pid).children(recursive=True)
                process.send_signal(number)
                process.send_signal(signal.SIGCONT)
                break
        else:
            pytest.fail(f'it never said "{until}"')
        process.stderr.read()
        code = process.wait(timeout=120)
    assert not psutil.wait_procs(workers, timeout=20)[1]  # no process is left behind
    return code


@pytest.mark.parametrize(
    ('until', 'nprocs', 'number', 'code'),
    [
        ('training 1: step 12', 1, signal.SIGINT, 130),
        ('training 1: step 12', 1, signal.SIGUSR1, 138),
        ('training 1: step 60', 1, signal.SIGINT, 130),  # all of its steps are done
        ('training 1 on cpu: step 12', 2, signal.SIGINT, 130),
        ('sub-01: segmented by', 1, signal.SIGINT, 130),
    ],
)
def test_the_exit_code_is_that_of_the_signal(site, model, until, nprocs, number, code):
    put_labels(site, 1, 2)
    words = [
        site.bids_dir, site.output_dir, 'group', '--labels', site.labels[0], '--model', model,
        '--device', 'cpu', '--steps', 60, '--accept', 'always', '--nprocs', nprocs,
        '--omp-nthreads', 1, '-w', site.work_dir,
    ]  # fmt: skip
    assert interrupted([str(w) for w in words], until, number) == code


@pytest.mark.slow
@pytest.mark.parametrize(('nprocs', 'place'), [(1, ''), (2, ' on cpu')])
def test_stopped_and_killed_it_resumes_to_the_same_model(nprocs, place, site, model, tmp_path):
    put_labels(site, 1, 2)

    def words(out: str, work: str) -> list[str]:
        return [
            str(w)
            for w in (
                site.bids_dir, tmp_path / out, 'group', '--labels', site.labels[0], '--model',
                model, '--device', 'cpu', '--steps', 60, '--accept', 'always', '--no-resegment',
                '--nprocs', nprocs, '--omp-nthreads', 1, '-w', tmp_path / work,
            )
        ]  # fmt: skip

    shutil.copytree(site.output_dir, tmp_path / 'straight')
    first = words('out', 'work')
    assert interrupted(first, f'training 1{place}: step 12', signal.SIGTERM) == 143
    assert interrupted(first, f'training 2{place}: step 48', signal.SIGKILL) == -signal.SIGKILL
    done = subprocess.run(command(*first), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'resuming' in done.stderr
    assert f'training 1{place}: step 12 ' not in done.stderr  # that one was further
    straight = subprocess.run(command(*words('straight', 'other')), capture_output=True, text=True)
    assert straight.returncode == 0, straight.stderr
    weights = [
        (tmp_path / out / 'models/adapted/weights.safetensors').read_bytes()
        for out in ('out', 'straight')
    ]
    assert weights[0] == weights[1]
    tables = [(tmp_path / o / 'group_performance.tsv').read_bytes() for o in ('out', 'straight')]
    assert tables[0] == tables[1]


def test_labels_are_those_of_the_last_run_even_if_one_before_it_was_killed(site, monkeypatch):
    put_labels(site, 1, 2)
    first = {one.case.name: np.array(one.read().label) for one in begin(site).labelled}
    put_label(site.labels[0], '02', head(3).lesion & head(2).brain)
    with monkeypatch.context() as patched:
        patched.setattr(preparing, 'write_json', killed)
        with pytest.raises(KeyboardInterrupt):
            begin(site)
    put_labels(site, 1, 2)
    for one in begin(site).labelled:
        assert np.array_equal(one.read().label, first[one.case.name])


def killed(*given, **named):
    """Ends the run where a file would be written."""
    raise KeyboardInterrupt


def test_what_is_prepared_needs_no_more_space(site, monkeypatch):
    put_labels(site, 1, 2)
    full = shutil.disk_usage(site.output_dir)._replace(free=0)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: full)
    with pytest.raises(StorageError, match='GB for prepared images'):
        begin(site)
    monkeypatch.undo()
    begin(site)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: full)
    begin(site)


def test_of_several_first_results_that_of_the_start_model_is_taken(site):
    other = replace(read_card(Path(site.model)), name='other', label='other')
    add_person(site.bids_dir, site.output_dir, '01', head(1), other, load_network(other))
    results = find_results(site.output_dir)
    for card, expected in ((None, ''), (read_card(Path(site.model)), ''), (other, 'other')):
        cases = find_cases(replace(site, labels=()), results, card)
        assert [case.result.names.desc for case in cases] == [expected, *[''] * (PEOPLE - 1)]
