"""The App with output spaces of TemplateFlow, as a person would run it."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from running_app import digests, validate
from template_home import make_home

from ssl2_bids.volume import Volume, read, resample

pytestmark = pytest.mark.slow

ADULT, CHILD = 'MNI152NLin2009cAsym', 'MNIPediatricAsym'
SPACES = ('FLAIR', 'MNI152NLin2009aSym', ADULT, f'{ADULT}:res-2', f'{CHILD}:res-2:cohort-1')
OPTIONS = ('--output-spaces', *SPACES, '--omp-nthreads', '1', '--participant-label', '01')


@pytest.fixture(scope='module')
def home(tmp_path_factory) -> Path:
    return make_home(tmp_path_factory.mktemp('templateflow'))


@pytest.fixture(scope='module')
def finished(simulated, home, run_app, tmp_path_factory) -> Path:
    """One participant in three spaces of two templates; the templates cannot be written."""
    folder = tmp_path_factory.mktemp('finished')
    before = digests(home)
    done = run_app(
        simulated,
        folder / 'out',
        'participant',
        '-w',
        folder / 'work',
        *OPTIONS,
        TEMPLATEFLOW_HOME=str(home),
    )
    assert done.returncode == 0, done.stderr
    assert digests(home) == before
    return folder / 'out'


def anat(finished: Path, name: str) -> Path:
    return finished / 'sub-01' / 'anat' / f'sub-01_{name}'


def test_names_grids_and_sidecars(finished, home):
    for entities, seg, folder, name, text in (
        (f'space-{ADULT}', '', f'tpl-{ADULT}', f'tpl-{ADULT}_res-01', None),
        (f'space-{ADULT}_res-2', '_res-2', f'tpl-{ADULT}', f'tpl-{ADULT}_res-02', '3 x 3 x 3'),
        (
            f'space-{CHILD}_cohort-1_res-2',
            '_res-2',
            f'tpl-{CHILD}/cohort-1',
            f'tpl-{CHILD}_cohort-1_res-2',
            '3 x 3 x 3',
        ),
    ):
        template = nib.load(home / folder / f'{name}_T1w.nii.gz')
        for part in (
            f'{entities}_label-L_mask',
            f'{entities}_label-L_probseg',
            f'{entities.removesuffix("_res-2")}_seg-lesions{seg}_dseg',
        ):
            image = nib.load(anat(finished, f'{part}.nii.gz'))
            assert image.shape == template.shape
            assert np.allclose(image.affine, template.affine)
            assert int(image.header['sform_code']) == 4
            sidecar = json.loads(anat(finished, f'{part}.json').read_text())
            assert sidecar['SpatialReference'] == (
                f'https://templateflow.s3.amazonaws.com/{folder}/{name}_T1w.nii.gz'
            )
            assert ('Resolution' in sidecar) == (text is not None)
            assert (text or '') in sidecar.get('Resolution', '')


def test_masks_probabilities_and_lesions_agree(finished):
    probability = read(anat(finished, f'space-{ADULT}_label-L_probseg.nii.gz'))
    mask = read(anat(finished, f'space-{ADULT}_label-L_mask.nii.gz'))
    lesions = read(anat(finished, f'space-{ADULT}_seg-lesions_dseg.nii.gz'))
    assert np.array_equal(mask.data > 0, lesions.data > 0)
    assert mask.data.sum() > 50
    assert probability.data.max() <= 1
    assert probability.data[mask.data > 0].mean() > 5 * probability.data[mask.data == 0].mean()
    with open(anat(finished, f'space-{ADULT}_seg-lesions_dseg.tsv'), newline='') as stream:
        rows = list(csv.DictReader(stream, delimiter='\t'))
    with open(anat(finished, 'space-T1w_seg-lesions_dseg.tsv'), newline='') as stream:
        assert len(rows) == len(list(csv.DictReader(stream, delimiter='\t')))
    counts = np.bincount(lesions.data.astype(int).ravel(), minlength=len(rows) + 1)
    assert [int(row['voxel_count']) for row in rows] == counts[1:].tolist()
    largest = np.argwhere(lesions.data == 1).mean(axis=0)
    centre = lesions.affine[:3, :3] @ largest + lesions.affine[:3, 3]
    assert np.linalg.norm(centre - [float(rows[0][axis]) for axis in 'xyz']) < 3


def test_nitransforms_apply_the_transforms(finished):
    """The image that another program resamples is the one that ours does."""
    from nitransforms.manip import load
    from nitransforms.resampling import apply

    transform = load(anat(finished, f'from-T1w_to-{ADULT}_mode-image_xfm.h5'), fmt='itk')
    moving = nib.load(anat(finished, 'space-T1w_label-L_probseg.nii.gz'))
    grid = nib.load(anat(finished, f'space-{ADULT}_label-L_probseg.nii.gz'))
    theirs = np.asarray(apply(transform, moving, reference=grid, order=1).dataobj)
    ours = np.asarray(grid.dataobj)
    inside = ours > 0.02
    assert np.corrcoef(ours[inside], theirs[inside])[0, 1] > 0.98
    still = Volume(np.asarray(moving.dataobj, np.float32), moving.affine)
    unmoved = resample(still, grid.affine, grid.shape).data
    assert np.corrcoef(ours[inside], unmoved[inside])[0, 1] < 0.7


def test_nitransforms_go_there_and_back(finished):
    from nitransforms.manip import load

    there = load(anat(finished, f'from-{ADULT}_to-T1w_mode-image_xfm.h5'), fmt='itk')
    back = load(anat(finished, f'from-T1w_to-{ADULT}_mode-image_xfm.h5'), fmt='itk')
    lesions = nib.load(anat(finished, 'space-T1w_seg-lesions_dseg.nii.gz'))
    points = nib.affines.apply_affine(lesions.affine, np.argwhere(lesions.dataobj)[::7])
    again = back.map(there.map(points))
    assert np.linalg.norm(again - points, axis=1).max() < 0.5
    with open(anat(finished, f'space-{ADULT}_seg-lesions_dseg.tsv'), newline='') as stream:
        template = [[float(r[a]) for a in 'xyz'] for r in csv.DictReader(stream, delimiter='\t')]
    with open(anat(finished, 'space-T1w_seg-lesions_dseg.tsv'), newline='') as stream:
        centres = [[float(r[a]) for a in 'xyz'] for r in csv.DictReader(stream, delimiter='\t')]
    assert np.abs(there.map(np.array(centres)) - template).max() < 0.3


def test_bids_validator_finds_no_error(finished):
    assert validate(finished) == []


def test_the_report_and_its_methods(finished):
    page = (finished / 'sub-01.html').read_text()
    for label in (ADULT, f'{CHILD}cohort1'):
        figure = f'sub-01/figures/sub-01_desc-template{label}_T1w.svg'
        assert (finished / figure).is_file()
        assert figure in page
    summary = json.loads(
        (finished / 'sub-01' / 'figures' / 'sub-01_desc-summary_report.json').read_text()
    )
    assert f'the {ADULT} template of TemplateFlow' in ' '.join(summary['methods'])
    assert f'sub-01/anat/sub-01_from-{ADULT}_to-T1w_mode-image_xfm.h5' in summary['outputs']
    for label in (ADULT, f'{CHILD}+1'):
        before, after = (
            summary['quality'][f'{label}, local correlation with the {kind} transform']
            for kind in ('affine', 'non-linear')
        )
        assert after > before + 0.1


def test_running_again_changes_nothing(simulated, finished, home, run_app):
    before = digests(finished)
    work = finished.parent / 'work'
    words = (simulated, finished, 'participant', '-w', work, *OPTIONS)
    done = run_app(*words, TEMPLATEFLOW_HOME=str(home))
    assert 'already finished with the same inputs and settings' in done.stderr
    assert digests(finished) == before


@pytest.mark.parametrize('read_only', [False, True])
def test_an_empty_home_ends_the_run_before_any_work_and_stays_empty(
    simulated, run_app, tmp_path, read_only
):
    home = tmp_path / 'empty'
    home.mkdir(mode=0o555 if read_only else 0o755)
    done = run_app(
        simulated,
        tmp_path / 'out',
        'participant',
        '-w',
        tmp_path / 'work',
        *OPTIONS,
        TEMPLATEFLOW_HOME=str(home),
    )
    assert done.returncode == 69
    assert f'TEMPLATEFLOW_HOME={home} python -c' in done.stderr
    assert not list(home.iterdir())
    assert not (tmp_path / 'out' / 'sub-01').exists()


def test_the_command_of_the_message_gets_the_files(tmp_path):
    """The download itself is replaced: it writes the name of what it was asked for."""
    import sys

    from ssl2_bids.bids.template_spaces import command_that_gets, parse_space

    home = tmp_path / 'home'
    (home / 'tpl-MNI152NLin2009cAsym').mkdir(parents=True)  # one without names of other files
    for text, files in (
        (f'{ADULT}:res-2', [f'tpl-{ADULT}/tpl-{ADULT}_res-02']),
        (f'{CHILD}:cohort-1', [f'tpl-{CHILD}/cohort-1/tpl-{CHILD}_cohort-1_res-1']),
    ):
        command = command_that_gets([parse_space(text)], home)
        code = command.partition('python -c "')[2].removesuffix('"')
        replaced = (
            'import templateflow.client as client; '
            'client._s3_get = lambda config, path: path.write_text(str(path)); ' + code
        )
        subprocess.run(
            [sys.executable, '-c', replaced],
            check=True,
            env={'TEMPLATEFLOW_HOME': str(home), 'PYTHONPATH': ':'.join(sys.path)},
        )
        for file in files:
            assert (home / f'{file}_T1w.nii.gz').stat().st_size
            assert (home / f'{file}_desc-brain_mask.nii.gz').stat().st_size


def test_fewer_spaces_leave_nothing_of_the_others(simulated, finished, home, run_app):
    """The last test with these results; registered again from the coarser grid."""
    before = digests(finished)
    words = (simulated, finished, 'participant', '-w', finished.parent / 'work')
    words += ('--output-spaces', f'{ADULT}:res-2', '--participant-label', '01')
    done = run_app(*words, '--omp-nthreads', '1', TEMPLATEFLOW_HOME=str(home))
    assert done.returncode == 0, done.stderr
    after = digests(finished)
    assert [name for name in after if CHILD in name or 'space-FLAIR' in name] == []
    assert [name for name in after if f'space-{ADULT}_label' in name] == []
    mask = 'sub-01/anat/sub-01_space-T1w_label-L_mask.nii.gz'
    assert after[mask] == before[mask]
    assert f'sub-01/anat/sub-01_space-{ADULT}_res-2_label-L_mask.nii.gz' in after
