import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ssl2_bids.errors import CannotWriteError, UsageError
from ssl2_bids.simulation import scanner
from ssl2_bids.simulation.phantom import Anatomy
from ssl2_bids.simulation.scanner import Geometry
from ssl2_bids.volume import read, reorient, same_grid
from ssl2_bids.workflows import simulate as workflow
from ssl2_bids.workflows.simulate import simulate, tissue_maps

TRUTH = Path('derivatives/truth')


def small_head() -> Anatomy:
    """An ellipsoid of white matter in grey matter, half the size of a head."""
    radius = np.linalg.norm((np.indices((61, 71, 61)).T - [30, 35, 30]) / [1, 1.2, 1], axis=-1).T
    inner, outer = (np.clip(edge + 0.5 - radius, 0, 1).astype(np.float32) for edge in (20, 25))
    affine = np.eye(4)
    affine[:3, 3] = (-30, -35, -30)
    return Anatomy({'wm': inner, 'gm': outer - inner, 'csf': np.zeros_like(inner)}, affine)


@pytest.fixture(autouse=True)
def _small(monkeypatch, request):
    if 'slow' in request.keywords:
        return
    monkeypatch.setattr(workflow, 'tissue_maps', small_head)
    monkeypatch.setattr(workflow, 'LOAD', (1.0, 0.2, 0.5, 2.0))
    for contrast, geometry in list(scanner.GEOMETRIES.items()):
        small = Geometry(geometry.axes, geometry.edge, (64, 76, 66))
        monkeypatch.setitem(scanner.GEOMETRIES, contrast, small)


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob('*.*')}


def validate(root: Path, *options: str) -> list[dict]:
    program = Path(sys.executable).with_name('bids-validator-deno')
    command = [str(program), str(root), '--format', 'json', '--ignoreWarnings', *options]
    done = subprocess.run(command, capture_output=True, text=True)
    return json.loads(done.stdout)['issues']['issues']


@pytest.mark.parametrize(
    ('field', 'names', 'reference'),
    [
        (3, {'T1w', 'FLAIR'}, 'T1w'),
        (7, {'UNIT1', 'inv-1_MP2RAGE', 'inv-2_MP2RAGE', 'FLAIR'}, 'UNIT1'),
    ],
)
def test_dataset_is_valid_and_the_truth_lies_on_the_reference(tmp_path, field, names, reference):
    simulate(tmp_path / 'raw', subjects=1, seed=4, field=field)
    anat = tmp_path / 'raw' / 'sub-01' / 'anat'
    assert {p.name[7:-7] for p in anat.glob('*.nii.gz')} == names
    truth_file = f'sub-01/anat/sub-01_space-{reference}_label-L_mask.nii.gz'
    truth = read(tmp_path / 'raw' / TRUTH / truth_file)
    image = read(anat / f'sub-01_{reference}.nii.gz')
    assert same_grid(truth, image)
    assert set(np.unique(truth.data)) == {0, 1}
    assert truth.data.sum() > 0
    assert reorient(truth).data.sum() == truth.data.sum()
    assert validate(tmp_path / 'raw') == []
    assert validate(tmp_path / 'raw' / TRUTH, '--datasetTypes', 'derivative') == []


def test_sidecars_say_what_the_app_needs(tmp_path):
    simulate(tmp_path, subjects=1, seed=4, field=7)
    anat = tmp_path / 'sub-01' / 'anat'
    second = json.loads((anat / 'sub-01_inv-2_MP2RAGE.json').read_text())
    assert second['InversionTime'] == 2.7
    assert second['NumberShots'] == [80, 80]
    assert second['MagneticFieldStrength'] == 7
    assert second['SkullStripped'] is False
    assert json.loads((anat / 'sub-01_FLAIR.json').read_text())['SkullStripped'] is True
    description = json.loads((tmp_path / 'dataset_description.json').read_text())
    assert 'SIMULATED' in description['Name']
    assert description['DatasetType'] == 'raw'


def test_killed_run_goes_on_and_finished_participants_stay(tmp_path, monkeypatch):
    simulate(tmp_path / 'whole', subjects=3, seed=1)

    def power_cut(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        real, calls = workflow.write_scan, []

        def second_participant_fails(plan, subject, name, image):
            calls.append(subject)
            (power_cut if subject == '02' and name == 'FLAIR' else real)(
                plan, subject, name, image
            )

        patch.setattr(workflow, 'write_scan', second_participant_fails)
        with pytest.raises(KeyboardInterrupt):
            simulate(tmp_path / 'killed', subjects=3, seed=1)
        assert calls[-1] == '02'
    kept = tmp_path / 'killed' / 'sub-01' / 'anat' / 'sub-01_T1w.nii.gz'
    written = kept.stat().st_mtime_ns
    done = []
    simulate(tmp_path / 'killed', subjects=3, seed=1, progress=lambda *at: done.append(at))
    assert kept.stat().st_mtime_ns == written
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert contents(tmp_path / 'killed') == contents(tmp_path / 'whole')


def test_participants_do_not_depend_on_number_or_contrasts_of_a_run(tmp_path):
    simulate(tmp_path / 'one', subjects=1, seed=1)
    simulate(tmp_path / 'more', subjects=2, seed=1, contrasts=('T2w', 'FLAIR', 'T1w'))
    name = 'sub-01/anat/sub-01_FLAIR.nii.gz'
    assert (tmp_path / 'one' / name).read_bytes() == (tmp_path / 'more' / name).read_bytes()
    other = 'sub-02/anat/sub-02_FLAIR.nii.gz'
    assert (tmp_path / 'more' / other).read_bytes() != (tmp_path / 'one' / name).read_bytes()
    table = (tmp_path / 'more' / 'participants.tsv').read_text().splitlines()
    assert [line.split('\t')[0] for line in table] == ['participant_id', 'sub-01', 'sub-02']


def test_t1w_and_flair_lie_on_different_grids_and_poses(tmp_path):
    simulate(tmp_path, subjects=1, seed=1)
    t1w, flair = (
        read(tmp_path / 'sub-01' / 'anat' / f'sub-01_{s}.nii.gz') for s in ('T1w', 'FLAIR')
    )
    assert not same_grid(reorient(t1w), reorient(flair))
    centres = [
        (v.affine @ np.append(np.argwhere(v.data > 0).mean(axis=0), 1))[:3] for v in (t1w, flair)
    ]
    assert 0.3 < np.linalg.norm(centres[0] - centres[1]) < 15


def test_foreign_folder_is_refused_and_untouched(tmp_path):
    (tmp_path / 'thesis.txt').write_text('mine')
    with pytest.raises(CannotWriteError, match='not empty'):
        simulate(tmp_path, subjects=1, seed=1)
    assert [p.name for p in tmp_path.iterdir()] == ['thesis.txt']


def test_other_dataset_and_other_settings_are_refused(tmp_path):
    (tmp_path / 'dataset_description.json').write_text('{"Name": "real patients"}')
    with pytest.raises(CannotWriteError, match='another dataset'):
        simulate(tmp_path, subjects=1, seed=1)
    simulate(tmp_path / 'mine', subjects=1, seed=1)
    before = contents(tmp_path / 'mine')
    with pytest.raises(CannotWriteError, match='other settings'):
        simulate(tmp_path / 'mine', subjects=1, seed=2)
    assert contents(tmp_path / 'mine') == before


def test_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(CannotWriteError):
        simulate(tmp_path / 'file', subjects=1, seed=1)


@pytest.mark.parametrize(
    'wrong',
    [
        {'subjects': 0},
        {'seed': -1},
        {'field': 4},
        {'contrasts': ('UNIT1',)},
        {'contrasts': ('T2w',)},
    ],
)
def test_impossible_requests_are_refused_before_writing(tmp_path, wrong):
    with pytest.raises(UsageError):
        simulate(tmp_path / 'out', **({'subjects': 1, 'seed': 0, 'field': 3} | wrong))
    assert not (tmp_path / 'out').exists()


def test_tissue_maps_are_fractions():
    maps = tissue_maps()
    total = np.sum(list(maps.fractions.values()), axis=0)
    assert total.max() <= 1 + 1e-5
    assert total[maps.brain].mean() > 0.99
    volumes = {name: f.sum() / 1e6 for name, f in maps.fractions.items()}
    assert 0.4 < volumes['wm'] < volumes['gm'] < 1.2
    assert volumes['csf'] > 0.1


@pytest.mark.slow
def test_real_heads_have_the_loads_of_patients(tmp_path):
    simulate(tmp_path, subjects=2, seed=11)
    for sidecar in (tmp_path / TRUTH).glob('sub-*/anat/*_mask.json'):
        assert 2500 < json.loads(sidecar.read_text())['LesionVolumeMm3'] < 28000
