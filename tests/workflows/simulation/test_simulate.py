import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest
from label_phantom import label_head
from scipy import ndimage

from ssl2_bids.atlas import read_atlas
from ssl2_bids.bids.dataset import read_table
from ssl2_bids.bids.labels import find_labels
from ssl2_bids.cli.tools.app import main
from ssl2_bids.errors import CannotWriteError, DataError, NoInputError, UsageError
from ssl2_bids.simulation.anatomy.anatomy import ventricles
from ssl2_bids.steps.annotation import Annotation, read_label_values
from ssl2_bids.volume import read, reorient, resample
from ssl2_bids.voxel_grid import same_grid
from ssl2_bids.workflows.simulation import run as workflow
from ssl2_bids.workflows.simulation.dataset import write_participants
from ssl2_bids.workflows.simulation.labels import labelled_numbers
from ssl2_bids.workflows.simulation.plan import tissue_maps
from ssl2_bids.workflows.simulation.replay import simulate_again
from ssl2_bids.workflows.simulation.run import simulate

TRUTH = Path('derivatives/truth')
MANUAL = Path('derivatives/manual')
GRID = 'geometry = { axes = "%s", voxel = [%s], extent = [76, 78, 76], phase = "j" }'
SEQUENCES = f"""
[sequences.UNIT1]
kind = "mp2rage"
tr = 6.0
te = 0.0027
ti = [0.8, 2.7]
angles = [7, 5]
spacing = 0.0068
pulses = [80, 80]
bandwidth = 250
{GRID % ('LAS', '1.5, 1.5, 1.5')}

[sequences.T1w]
kind = "mprage"
tr = 2.6
te = 0.0027
ti = [1.05]
angles = [6]
spacing = 0.0068
pulses = [80, 80]
{GRID % ('LAS', '1.5, 1.5, 1.5')}

[sequences.FLAIR]
kind = "flair"
tr = 8.0
te = 0.060
nominal_te = 0.270
ti = [2.08]
train = 0.8
preparation = 0.125
{GRID % ('PSR', '1.5, 1.5, 1.5')}

[sequences.T2w]
kind = "tse"
tr = 5.0
te = 0.070
train = 0.3
{GRID % ('RAS', '1, 1, 4')}

[sequences.T2starw]
kind = "gre"
tr = 0.040
te = 0.020
angles = [12]
{GRID % ('RAS', '1.5, 1.5, 1.5')}

[sequences.MEGRE]
kind = "megre"
tr = 0.045
echoes = [0.005, 0.012, 0.019]
angles = [12]
{GRID % ('RAS', '1.5, 1.5, 1.5')}
"""


@pytest.fixture(scope='session')
def site(tmp_path_factory) -> dict:
    """Small segmented heads, and a scanner of 7 T with a field of view for them."""
    folder = tmp_path_factory.mktemp('site')
    (folder / 'labels').mkdir()
    affine = np.eye(4)
    affine[:3, 3] = -35.5
    for number in (1, 2):
        labels = nib.Nifti1Image(label_head(64 + 8 * number), affine)
        nib.save(labels, folder / 'labels' / f'head{number}.nii.gz')
    (folder / 'scanner.toml').write_text(f'name = "small 7 T"\nfield = 7.0\n{SEQUENCES}')
    return {
        'labels': folder / 'labels',
        'protocol': folder / 'scanner.toml',
        'load': 1.5,
        'load_spread': 0.2,
    }


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob('*') if p.is_file()}


def validate(root: Path, *options: str) -> list[dict]:
    program = Path(sys.executable).with_name('bids-validator-deno')
    command = [str(program), str(root), '--format', 'json', '--ignoreWarnings', *options]
    done = subprocess.run(command, capture_output=True, text=True)
    return json.loads(done.stdout)['issues']['issues']


def assert_valid(root: Path) -> None:
    assert validate(root) == []
    for dataset in (TRUTH, MANUAL):
        if (root / dataset).is_dir():
            assert validate(root / dataset, '--datasetTypes', 'derivative') == []


def annotations(root: Path) -> dict[str, Annotation]:
    """Manual labels by participant and session, read as the App reads them."""
    found = {}
    for label in find_labels(root / MANUAL):
        volume = read(label.path, dtype=None)
        extent = read(label.extent_path, dtype=None) if label.extent_path else None
        found[f'{label.subject}-{label.session or ""}'] = read_label_values(
            volume, label.sidecar, table=label.dseg_table, extent=extent
        )
    return found


PAIR = {'seed': 4, 'contrasts': ('T1w', 'FLAIR')}


@pytest.fixture(scope='module')
def two_visits(site, tmp_path_factory) -> Path:
    """One participant, two visits, all contrasts with phases, skull and scalp."""
    root = tmp_path_factory.mktemp('simulated') / 'data'
    options = {'sessions': 2, 'phase': True, 'labelled': 1, 'sparse': 0.2, 'whole_head': True}
    simulate(root, subjects=1, seed=4, **options, **site)
    return root


@pytest.fixture(scope='module')
def three(site, tmp_path_factory) -> Path:
    """Three participants with two contrasts, made one after the other."""
    root = tmp_path_factory.mktemp('simulated') / 'data'
    simulate(root, subjects=3, nprocs=1, **PAIR, **site)
    return root


def copied(three: Path, tmp_path: Path) -> Path:
    """The three participants again, to be changed."""
    return Path(shutil.copytree(three, tmp_path / 'data'))


def test_dataset_with_everything_is_valid(two_visits):
    assert_valid(two_visits)
    folder = two_visits / 'sub-01' / 'ses-2' / 'anat'
    names = {p.name.removeprefix('sub-01_ses-2_')[:-7] for p in folder.glob('*.nii.gz')}
    pairs = [(f'inv-{n}', 'MP2RAGE') for n in (1, 2)] + [(f'echo-{n}', 'MEGRE') for n in (1, 2, 3)]
    parts = {f'{e}_part-{p}_{suffix}' for e, suffix in pairs for p in ('mag', 'phase')}
    assert names == parts | {'UNIT1', 'T1w', 'FLAIR', 'T2w', 'T2starw'}
    truth = two_visits / TRUTH / 'sub-01' / 'ses-2' / 'anat'
    stem = 'sub-01_ses-2_space-UNIT1_'
    kinds = {p.name.removeprefix(stem)[:-7] for p in truth.glob('*.nii.gz')}
    assert kinds - {'desc-ambiguous_mask'} == {
        'label-L_mask',
        'seg-lesions_dseg',
        'seg-tissues_dseg',
        'desc-brain_mask',
    }


def test_truth_lies_on_the_reference_and_is_consistent(two_visits):
    for visit in (1, 2):
        anat = Path('sub-01') / f'ses-{visit}' / 'anat'
        stem = f'sub-01_ses-{visit}_'
        image = read(two_visits / anat / f'{stem}UNIT1.nii.gz')
        truth = {
            kind: read(two_visits / TRUTH / anat / f'{stem}space-UNIT1_{kind}.nii.gz', dtype=None)
            for kind in ('label-L_mask', 'seg-lesions_dseg', 'seg-tissues_dseg', 'desc-brain_mask')
        }
        assert all(same_grid(volume, image) for volume in truth.values())
        mask, instances, tissues, brain = (volume.data for volume in truth.values())
        assert set(np.unique(mask)) == {0, 1}
        np.testing.assert_array_equal(instances > 0, mask > 0)
        assert (brain[mask > 0] == 1).mean() > 0.98
        table = (two_visits / TRUTH / anat / f'{stem}space-UNIT1_seg-lesions_dseg.tsv').read_text()
        rows = [line.split('\t') for line in table.splitlines()]
        counts = {int(row[0]): int(row[rows[0].index('voxel_count')]) for row in rows[1:]}
        assert {n: int((instances == n).sum()) for n in counts} == counts
        names = (two_visits / TRUTH / anat / f'{stem}space-UNIT1_seg-tissues_dseg.tsv').read_text()
        by_name = {row.split('\t')[1]: row.split('\t')[0] for row in names.splitlines()}
        uni = image.data
        white, fluid = (tissues == int(by_name[n]) for n in ('wm', 'csf'))
        healthy = ndimage.binary_erosion(white & (mask == 0), iterations=2)
        assert np.median(uni[healthy]) > np.median(uni[fluid & (brain > 0)]) + 500


def test_lesions_change_between_visits_and_heads_do_not(two_visits):
    records = []
    for visit in (1, 2):
        folder = two_visits / TRUTH / 'sub-01' / f'ses-{visit}'
        sidecar = next(folder.rglob('*label-L_mask.json'))
        records.append(json.loads(sidecar.read_text())['Simulation'])
    first, second = ({x['index']: x for x in r['Lesions']} for r in records)
    assert records[0]['Draws'] == records[1]['Draws']
    changes = {lesion['change'] for lesion in second.values()}
    assert 'stable' in changes
    assert len(changes) > 1
    for index, lesion in second.items():
        if lesion['change'] == 'stable':
            assert lesion['volume_mm3'] == first[index]['volume_mm3']
        if lesion['change'] == 'new':
            assert index not in first


def test_sidecars_have_what_the_app_needs(two_visits):
    anat = two_visits / 'sub-01' / 'ses-1' / 'anat'

    def sidecar(name):
        return json.loads((anat / f'sub-01_ses-1_{name}.json').read_text())

    second = sidecar('inv-2_part-mag_MP2RAGE')
    assert second['InversionTime'] == 2.7
    assert second['FlipAngle'] == 5
    assert second['NumberShots'] == [80, 80]
    assert second['MagneticFieldStrength'] == 7
    assert second['RepetitionTimePreparation'] == 6
    assert second['RepetitionTimeExcitation'] == 0.0068
    assert sidecar('inv-1_part-phase_MP2RAGE')['Units'] == 'rad'
    flair = sidecar('FLAIR')
    assert (flair['EchoTime'], flair['InversionTime'], flair['RepetitionTime']) == (0.27, 2.08, 8)
    assert flair['SkullStripped'] is False
    assert sidecar('echo-3_part-mag_MEGRE')['EchoTime'] == 0.019
    thick = sidecar('T2w')
    assert (thick['MRAcquisitionType'], thick['SliceThickness']) == ('2D', 4)
    description = json.loads((two_visits / 'dataset_description.json').read_text())
    assert 'SIMULATED' in description['Name']
    assert description['DatasetType'] == 'raw'


def test_phase_and_magnitude_make_the_uniform_image(two_visits):
    anat = two_visits / 'sub-01' / 'ses-1' / 'anat'
    first, second = (
        read(anat / f'sub-01_ses-1_inv-{n}_part-mag_MP2RAGE.nii.gz').data
        * np.exp(1j * read(anat / f'sub-01_ses-1_inv-{n}_part-phase_MP2RAGE.nii.gz').data)
        for n in (1, 2)
    )
    uni = read(anat / 'sub-01_ses-1_UNIT1.nii.gz').data / 4095 - 0.5
    clear = (abs(first) > 60) & (abs(second) > 60)
    made = (first * np.conj(second)).real / (abs(first) ** 2 + abs(second) ** 2)
    np.testing.assert_allclose(made[clear], uni[clear], atol=0.02)


def test_nothing_depends_on_what_else_is_made(two_visits, three, site, tmp_path):
    """Neither processes, nor people, visits or contrasts beside it change an image."""
    simulate(tmp_path / 'parallel', subjects=2, nprocs=2, **PAIR, **site)
    made, then = contents(tmp_path / 'parallel'), contents(three)
    images = [name for name in made if 'sub-' in name]
    assert len(images) > 20
    assert {name: made[name] for name in images} == {name: then[name] for name in images}
    options = site | {'whole_head': True}
    simulate(tmp_path / 'one', subjects=1, seed=4, contrasts=('FLAIR',), **options)
    alone = tmp_path / 'one' / 'sub-01' / 'anat' / 'sub-01_FLAIR.nii.gz'
    among = two_visits / 'sub-01' / 'ses-1' / 'anat' / 'sub-01_ses-1_FLAIR.nii.gz'
    assert alone.read_bytes() == among.read_bytes()


def test_everything_can_be_made_again_from_the_json(two_visits, site, tmp_path):
    record = two_visits / TRUTH / 'sub-01/ses-2/anat/sub-01_ses-2_space-UNIT1_label-L_mask.json'
    simulate_again(record, tmp_path / 'again', labels=site['labels'])
    made = contents(tmp_path / 'again')
    then = contents(two_visits)
    images = [n for n in then if 'sub-01' in n and 'manual' not in n]
    assert len(images) > 40
    assert {n for n in made if 'sub-' in n} == set(images)
    for name in images:
        assert made[name] == then[name], name
    assert made['dataset_description.json'] == then['dataset_description.json']


def test_the_json_is_what_is_used_to_make_it_again(three, site, tmp_path):
    record = three / TRUTH / 'sub-02/anat/sub-02_space-T1w_label-L_mask.json'
    content = json.loads(record.read_text())
    scan = content['Simulation']['Draws']['visits'][0]['scans']['FLAIR']
    scan['artefacts']['noise']['snr'] *= 2
    (tmp_path / 'edited.json').write_text(json.dumps(content))
    simulate_again(tmp_path / 'edited.json', tmp_path / 'again', labels=site['labels'])
    images = {
        (where, suffix): read(where / f'sub-02/anat/sub-02_{suffix}.nii.gz').data
        for where in (three, tmp_path / 'again')
        for suffix in ('FLAIR', 'T1w')
    }
    np.testing.assert_array_equal(images[three, 'T1w'], images[tmp_path / 'again', 'T1w'])
    noisy, clean = images[three, 'FLAIR'], images[tmp_path / 'again', 'FLAIR']
    inside = (noisy > 200) & (clean > 200)
    rough = [np.abs(np.diff(i, axis=1))[inside[:, 1:]].mean() for i in (noisy, clean)]
    assert (noisy != clean).any()
    assert rough[1] < 0.95 * rough[0]


def test_what_cannot_be_made_again_is_refused(two_visits, site, tmp_path):
    record = two_visits / TRUTH / 'sub-01/ses-1/anat/sub-01_ses-1_space-UNIT1_label-L_mask.json'
    with pytest.raises(NoInputError, match='--labels'):
        simulate_again(record, tmp_path / 'again')
    used = json.loads(record.read_text())['Simulation']['Settings']['Anatomy']
    other = tmp_path / 'labels'
    other.mkdir()
    (other / used).write_bytes(b'another head')
    with pytest.raises(DataError, match='differs from the file of the simulation'):
        simulate_again(record, tmp_path / 'again', labels=other)
    with pytest.raises(DataError, match='not a record'):
        simulate_again(two_visits / 'dataset_description.json', tmp_path / 'again')
    with pytest.raises(NoInputError, match='no such file'):
        simulate_again(tmp_path / 'nothing.json', tmp_path / 'again')
    old = json.loads(record.read_text())
    old['Simulation']['Version'] = '0.0.1'
    (tmp_path / 'old.json').write_text(json.dumps(old))
    with pytest.raises(DataError, match='version'):
        simulate_again(tmp_path / 'old.json', tmp_path / 'again', labels=site['labels'])
    assert not (tmp_path / 'again').exists()


@pytest.mark.parametrize('sparse', [1.0, 0.1])
def test_labels_are_read_back_with_their_extent(three, site, tmp_path, sparse):
    """In each encoding, by what the App reads them with; all mean the same."""
    (number,) = labelled_numbers(4, 3, 1)
    stem = f'sub-{number:02d}'
    image = read(three / stem / 'anat' / f'{stem}_T1w.nii.gz')
    truth = read(three / TRUTH / stem / 'anat' / f'{stem}_space-T1w_label-L_mask.nii.gz').data > 0
    found = []
    for encoding in ('mask', 'dseg', 'slices'):
        root = copied(three, tmp_path / encoding)
        options = {'labelled': 1, 'sparse': sparse, 'encoding': encoding, **PAIR, **site}
        simulate(root, subjects=3, **options)
        assert validate(root / MANUAL, '--datasetTypes', 'derivative') == []
        ((name, annotation),) = annotations(root).items()
        assert name == f'{number:02d}-'
        assert same_grid(annotation.label, image)
        assert annotation.rater == 'simulated rater'
        found.append(annotation)
    drawn, extent = found[0].label.data > 0, found[0].extent.data
    for other in found[1:]:
        np.testing.assert_array_equal(other.label.data > 0, drawn)
        np.testing.assert_array_equal(other.extent.data, extent)
    known = truth & extent
    assert 0.5 < 2 * (drawn & known).sum() / (drawn.sum() + known.sum()) < 1
    assert found[0].whole == (sparse == 1)
    if sparse < 1:
        # The file's axes are LAS: axial slices run along k.
        slices = np.flatnonzero(extent.any(axis=(0, 1)))
        np.testing.assert_array_equal(extent.all(axis=(0, 1)), extent.any(axis=(0, 1)))
        assert set(np.diff(slices)) == {10}
        assert not (drawn & ~extent).any()


def test_labelled_participants_are_drawn_and_nested():
    sets = [labelled_numbers(3, 20, n) for n in (0, 1, 4, 20)]
    assert [len(s) for s in sets] == [0, 1, 4, 20]
    assert sets[0] < sets[1] < sets[2] < sets[3]
    assert {labelled_numbers(seed, 20, 1) for seed in range(10)} != {sets[1]}


def test_shapes_of_real_lesions_are_labelled_too(three, site, tmp_path):
    root = copied(three, tmp_path)
    (number,) = labelled_numbers(4, 3, 1)
    sidecar = next((root / TRUTH / f'sub-{number:02d}').rglob('*label-L_mask.json'))
    content = json.loads(sidecar.read_text())
    content['Simulation']['Lesions'][0]['origin'] = {
        'patient': 'lj01',
        'component': 3,
        'mirrored': True,
        'scale': 1.1,
        'turn': [1.0, 2.0, 3.0],
        'cut': None,
    }
    sidecar.write_text(json.dumps(content))
    simulate(root, subjects=3, labelled=1, **PAIR, **site)
    assert len(annotations(root)) == 1


def test_more_labels_can_follow_and_fewer_are_refused(three, site, tmp_path):
    root = copied(three, tmp_path)
    options = {**PAIR, **site}
    simulate(root, subjects=3, labelled=1, **options)
    before = {name: b for name, b in contents(root).items() if 'README' not in name}
    simulate(root, subjects=3, labelled=2, **options)
    after = contents(root)
    assert {name: after[name] for name in before} == before
    assert len(annotations(root)) == 2
    with pytest.raises(CannotWriteError, match='labels of other participants'):
        simulate(root, subjects=3, labelled=1, **options)
    with pytest.raises(CannotWriteError, match='other settings'):
        simulate(root, subjects=3, labelled=2, sparse=0.1, **options)
    assert contents(root) == after


def test_killed_run_is_resumed_and_finished_participants_stay(three, site, tmp_path, monkeypatch):
    root = tmp_path / 'killed'
    with monkeypatch.context() as patch:
        real, calls = workflow.write_image, []

        def power_cut(names, image, *rest, **more):
            calls.append(names.subject)
            if names.subject == '02' and image.volume.contrast == 'FLAIR':
                raise KeyboardInterrupt
            real(names, image, *rest, **more)

        patch.setattr(workflow, 'write_image', power_cut)
        with pytest.raises(KeyboardInterrupt):
            simulate(root, subjects=2, **PAIR, **site)
        assert calls[-1] == '02'
    kept = root / 'sub-01' / 'anat' / 'sub-01_T1w.nii.gz'
    written = kept.stat().st_mtime_ns
    done = []
    simulate(root, subjects=2, progress=lambda *at: done.append(at), **PAIR, **site)
    assert kept.stat().st_mtime_ns == written
    assert done == [(1, 2), (2, 2)]
    made, whole = contents(root), contents(three)
    images = [name for name in whole if 'sub-01' in name or 'sub-02' in name]
    assert {n for n in made if 'sub-' in n} == set(images)
    assert [made[name] for name in images] == [whole[name] for name in images]


@pytest.mark.slow
def test_killed_parallel_run_is_resumed(three, site, tmp_path):
    """The command in a process of its own, killed for good when the first image is there."""
    root = tmp_path / 'killed'
    words = ['simulate', str(root), '--subjects', '3', '--nprocs', '2', '--seed', '4']
    words += ['--contrasts', 'T1w', 'FLAIR', '--load', '1.5', '--load-spread', '0.2']
    words += ['--labels', str(site['labels']), '--protocol', str(site['protocol'])]
    program = Path(sys.executable).with_name('ssl2')
    process = subprocess.Popen([str(program), *words], stderr=subprocess.DEVNULL)
    for _ in range(600):
        if list(root.rglob('*_T1w.nii.gz')) or process.poll() is not None:
            break
        time.sleep(0.1)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert len(workers) >= 2
    assert psutil.wait_procs(workers, timeout=30)[1] == []
    assert main(words) == 0
    killed = {name: b for name, b in contents(root).items() if '.tmp-' not in name}
    assert killed == contents(three)


def test_contrasts_lie_on_different_grids_and_poses(two_visits):
    t1w, flair = (
        read(two_visits / 'sub-01/ses-1/anat' / f'sub-01_ses-1_{s}.nii.gz')
        for s in ('T1w', 'FLAIR')
    )
    assert not same_grid(reorient(t1w), reorient(flair))


def test_heads_come_from_all_maps_in_turn(three):
    table = (three / 'participants.tsv').read_text().splitlines()
    assert table[0].split('\t') == ['participant_id', 'group', 'anatomy']
    used = [row.split('\t')[2] for row in table[1:]]
    assert sorted(set(used)) == ['head1', 'head2']
    assert used[0] == used[2] != used[1]


def test_foreign_folder_is_refused_and_untouched(tmp_path):
    (tmp_path / 'thesis.txt').write_text('mine')
    with pytest.raises(CannotWriteError, match='not empty'):
        simulate(tmp_path, subjects=1, seed=1)
    assert [p.name for p in tmp_path.iterdir()] == ['thesis.txt']


@pytest.mark.parametrize(
    'other',
    [
        {'seed': 2},
        {'load': 2.0},
        {'sessions': 2},
        {'whole_head': True},
        {'motion': 0.5},
        {'contrasts': ('T1w',)},
    ],
)
def test_other_settings_are_refused(site, tmp_path, other):
    usual = {'seed': 1, 'contrasts': ('FLAIR',), **site}
    (tmp_path / 'dataset_description.json').write_text('{"Name": "real patients"}')
    with pytest.raises(CannotWriteError, match='another dataset'):
        simulate(tmp_path, subjects=1, **usual)
    mine = tmp_path / 'mine'
    mine.mkdir()
    workflow.begin(_plan(mine, **usual), workflow.Labelling())
    before = contents(tmp_path)
    with pytest.raises(CannotWriteError, match='other settings'):
        simulate(mine, subjects=1, **(usual | other))
    assert contents(tmp_path) == before


def _plan(root, *, load, load_spread, **options):
    habits = workflow.Habits(load=load, spread=load_spread)
    left = {
        'field': None,
        'sessions': 1,
        'lesion_masks': None,
        'whole_head': False,
        'phase': False,
    }
    plan = workflow.make_plan(root, habits=habits, **(left | options))
    return workflow.replace(plan, settings=workflow.settings_of(plan, own_protocol=True))


def test_other_label_maps_are_other_settings(three, site, tmp_path):
    other = tmp_path / 'labels'
    shutil.copytree(site['labels'], other)
    nib.save(nib.Nifti1Image(label_head(60), np.eye(4)), other / 'head1.nii.gz')
    with pytest.raises(CannotWriteError, match='other settings'):
        simulate(three, subjects=1, **PAIR, **(site | {'labels': other}))


def test_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(CannotWriteError):
        simulate(tmp_path / 'file', subjects=1, seed=1)


@pytest.mark.parametrize(
    ('wrong', 'word'),
    [
        ({'subjects': 0}, '0 participants'),
        ({'seed': -1}, 'seed'),
        ({'field': 4}, '4 T'),
        ({'contrasts': ('UNIT1',)}, 'UNIT1'),
        ({'contrasts': ('T2w',)}, 'none of'),
        ({'sessions': 0}, 'sessions'),
        ({'load': -1.0}, 'load'),
        ({'load': 500.0}, 'load'),
        ({'load': float('nan')}, 'load'),
        ({'load_spread': 9.0}, 'spread'),
        ({'labelled': 2}, 'labelled'),
        ({'sparse': 0.0}, 'slices'),
        ({'sparse': 1.5}, 'slices'),
        ({'sparse': 0.7}, 'every n-th'),
        ({'encoding': 'drawing'}, 'drawing'),
        ({'whole_head': True}, 'skull'),
        ({'phase': True}, 'phase images'),
        ({'motion': 1.5}, 'motion'),
        ({'spikes': -0.1}, 'spikes'),
    ],
)
def test_impossible_requests_are_refused_before_writing(tmp_path, wrong, word):
    with pytest.raises(UsageError, match=word):
        simulate(tmp_path / 'out', **({'subjects': 1, 'seed': 0, 'field': 3} | wrong))
    assert not (tmp_path / 'out').exists()


def test_unusable_label_maps_are_refused_by_name_before_writing(site, tmp_path):
    good = label_head(72)
    affine = np.eye(4)
    cases = {
        'unknown.nii.gz': (np.where(good == 12, 99, good), affine, '99'),
        'empty.nii.gz': (np.zeros_like(good), affine, 'empty'),
        'thick.nii.gz': (good, np.diag([1.0, 1.0, 3.0, 1.0]), '1 x 1 x 3 mm'),
    }
    for name, (labels, where, word) in cases.items():
        folder = tmp_path / name.split('.')[0]
        folder.mkdir()
        nib.save(nib.Nifti1Image(labels.astype(np.uint8), where), folder / name)
        with pytest.raises(DataError, match=re.escape(word)) as caught:
            simulate(tmp_path / 'out', subjects=1, seed=1, **(site | {'labels': folder}))
        assert name in str(caught.value)
    with pytest.raises(NoInputError):
        simulate(tmp_path / 'out', subjects=1, seed=1, labels=tmp_path / 'nowhere')
    bare = tmp_path / 'bare'
    bare.mkdir()
    nib.save(nib.Nifti1Image(label_head(72, skull=False), affine), bare / 'brain.nii.gz')
    options = site | {'labels': bare, 'whole_head': True}
    with pytest.raises(DataError, match='nothing outside the brain'):
        simulate(tmp_path / 'out', subjects=1, seed=1, **options)
    assert not (tmp_path / 'out').exists()


def test_unusable_lesion_masks_are_refused_before_writing(site, tmp_path):
    masks = tmp_path / 'masks'
    masks.mkdir()
    with pytest.raises(NoInputError):
        simulate(tmp_path / 'out', subjects=1, seed=1, lesion_masks=masks)
    nib.save(nib.Nifti1Image(np.zeros((20, 20, 20), np.uint8), np.eye(4)), masks / 'a.nii.gz')
    with pytest.raises(DataError, match='empty'):
        simulate(tmp_path / 'out', subjects=1, seed=1, lesion_masks=masks)
    assert not (tmp_path / 'out').exists()


def test_healthy_people_have_no_lesions(site, tmp_path):
    simulate(
        tmp_path, subjects=1, seed=1, labelled=1, contrasts=('FLAIR',), **(site | {'load': 0.0})
    )
    assert_valid(tmp_path)
    sidecar = next((tmp_path / TRUTH / 'sub-01').rglob('*label-L_mask.json'))
    assert json.loads(sidecar.read_text())['LesionVolumeMm3'] == 0
    assert annotations(tmp_path)['01-'].whole


def test_the_reference_is_that_of_the_app(site, tmp_path):
    """FLAIR where the T1w has thick slices, as in a clinic."""
    text = Path(site['protocol']).read_text()
    start = text.index('[sequences.T1w]')
    thick = text[:start] + text[start:].replace('1.5, 1.5, 1.5', '1, 1, 5', 1)
    assert _plan(tmp_path, seed=1, contrasts=('T1w', 'FLAIR'), **site).reference == 'T1w'
    (tmp_path / 'thick.toml').write_text(thick)
    other = site | {'protocol': tmp_path / 'thick.toml'}
    assert _plan(tmp_path, seed=1, contrasts=('T1w', 'FLAIR'), **other).reference == 'FLAIR'
    assert _plan(tmp_path, seed=1, contrasts=('T1w',), **other).reference == 'T1w'
    assert _plan(tmp_path, seed=1, contrasts=(), **other).reference == 'UNIT1'


def test_the_command(site, tmp_path, capsys):
    words = ['simulate', str(tmp_path / 'out'), '--subjects', '1', '--contrasts', 'FLAIR']
    words += ['--labels', str(site['labels']), '--protocol', str(site['protocol'])]
    words += ['--load', '1.5', '--labelled', '1', '--sparse', '0.1', '--encoding', 'slices']
    assert main(words) == 0
    assert '1 simulated participants' in capsys.readouterr().err
    label = annotations(tmp_path / 'out')['01-']
    assert not label.whole
    record = next((tmp_path / 'out' / TRUTH).rglob('*label-L_mask.json'))
    again = ['simulate', str(tmp_path / 'again'), '--again', str(record)]
    assert main([*again, '--seed', '5']) == 64
    assert '--seed cannot be combined with --again' in capsys.readouterr().err
    assert main(again) == 66
    assert main([*again, '--labels', str(site['labels'])]) == 0
    name = 'sub-01/anat/sub-01_FLAIR.nii.gz'
    assert (tmp_path / 'again' / name).read_bytes() == (tmp_path / 'out' / name).read_bytes()
    assert main([*words[:2], '--seed', '2']) == 73
    assert main(['simulate', str(tmp_path / 'x'), '--sparse', 'few']) == 64
    assert main(['simulate', str(tmp_path / 'x'), '--sparse', '0.1']) == 64
    assert main(['simulate', str(tmp_path / 'x'), '--encoding', 'dseg']) == 64


def test_a_mistyped_option_refers_to_the_help_of_its_tool(tmp_path, capsys):
    assert main(['simulate', str(tmp_path / 'x'), '--fielld', '3']) == 64
    text = capsys.readouterr().err
    assert 'unrecognized arguments: --fielld 3. See ssl2 simulate --help.' in text


def test_help_names_groups_and_exit_codes(capsys):
    with pytest.raises(SystemExit):
        main(['simulate', '--help'])
    text = capsys.readouterr().out
    for heading in (
        'the dataset:',
        'heads and lesions:',
        'labels of the simulated rater',
        'artefacts:',
    ):
        assert heading in text
    assert 'exit codes: 0 done; 64' in text


def test_tissue_maps_are_fractions():
    maps = tissue_maps()
    total = np.sum(list(maps.fractions.values()), axis=0)
    assert total.max() <= 1 + 1e-5
    assert total[maps.brain].mean() > 0.99
    volumes = {name: f.sum() / 1e6 for name, f in maps.fractions.items()}
    assert 0.4 < volumes['wm'] < volumes['gm'] < 1.2
    assert volumes['csf'] > 0.1


def test_sulci_of_the_template_are_open_and_its_ventricles_have_no_rim_of_grey_matter():
    """No single brain has what the mean over 152 people has there."""
    maps = tissue_maps()
    white, grey, fluid = (maps.fractions[name] for name in ('wm', 'gm', 'csf'))
    regions = {n: resample(v, maps.affine, maps.shape).data for n, v in read_atlas().items()}
    far = ndimage.distance_transform_edt(white <= 0.5) > 6
    cortex = (regions['cortex'] > 0.8) & (regions['deep-grey-matter'] < 0.05)
    assert fluid[cortex & far].mean() > 0.95
    assert grey[cortex & ~far].mean() > 0.5
    nuclei = (regions['deep-grey-matter'] > 0.8) & far
    assert grey[nuclei].mean() > 0.8
    beside = ndimage.binary_dilation(ventricles(maps), iterations=3) & (fluid < 0.5)
    beside &= regions['white-matter'] + regions['ventricles'] > 0.9
    assert beside.sum() > 5000
    assert white[beside].mean() > 0.85
    assert grey[beside].mean() < 0.02  # 0.25 in the maps


@pytest.mark.slow
@pytest.mark.parametrize(
    ('field', 'names'),
    [
        (1.5, {'T1w', 'FLAIR'}),
        (3, {'T1w', 'FLAIR'}),
        (7, {'UNIT1', 'inv-1_MP2RAGE', 'inv-2_MP2RAGE', 'FLAIR'}),
    ],
)
def test_real_heads_of_each_scanner(tmp_path, field, names):
    """The bundled scanners with the template's anatomy: valid, and with the load of patients."""
    simulate(tmp_path, subjects=1, seed=11, field=field)
    assert {p.name[7:-7] for p in (tmp_path / 'sub-01' / 'anat').glob('*.nii.gz')} == names
    assert_valid(tmp_path)
    for sidecar in (tmp_path / TRUTH).glob('sub-*/anat/*label-L_mask.json'):
        assert 1000 < json.loads(sidecar.read_text())['LesionVolumeMm3'] < 40000


def test_who_is_not_made_again_keeps_the_anatomy(tmp_path):
    for name in ('sub-01', 'sub-02'):
        (tmp_path / name).mkdir()
    write_participants(tmp_path, {'sub-01': 'a', 'sub-02': 'b'})
    write_participants(tmp_path, {'sub-01': 'c'})
    rows = read_table(tmp_path / 'participants.tsv')
    assert [row['anatomy'] for row in rows] == ['c', 'b']
