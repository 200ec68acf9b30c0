"""Ranges of values that scanners and programs leave, through a whole run: the brain is the brain.

In a locale without UTF-8, below a folder with umlauts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from phantoms import brain_image

PLAIN = {'LC_ALL': 'C', 'PYTHONCOERCECLOCALE': '0', 'PYTHONUTF8': '0'}
PHANTOM = brain_image()
DATA = np.asarray(PHANTOM.dataobj)
BRAIN = DATA > 0
SHARE = DATA / DATA.max()  # 0 to 1


def image(data: np.ndarray) -> nib.Nifti1Image:
    return nib.Nifti1Image(data.astype(np.float32), PHANTOM.affine)


def scaled(data: np.ndarray, slope: float, inter: float) -> nib.Nifti1Image:
    """Integers on disk that the header's slope and intercept turn into values."""
    stored = nib.Nifti1Image(np.round(data).astype(np.uint16), PHANTOM.affine)
    stored.header.set_slope_inter(slope, inter)
    return stored


# each stripped; how its background and its scale are stored
UNIFORM: dict[str, nib.Nifti1Image] = {
    'signed': image(np.where(BRAIN, SHARE - 0.5, 0)),  # background in the middle of the range
    'one': image(SHARE),
    'overshot': image(np.where(BRAIN, SHARE * 4104, 0)),
    'integers': scaled(SHARE * 4095, 1 / 4095, -0.5),
    'nan': image(np.where(BRAIN, SHARE - 0.5, np.nan)),
    'tiny': image(np.where(BRAIN, SHARE - 0.5, 1e-7)),
}
NOISE = np.random.default_rng(0).normal(0, 1e-7, DATA.shape)
PLAINLY: dict[str, nib.Nifti1Image] = {
    'plain': image(DATA),
    'hollow': image(np.where(BRAIN, DATA, np.nan)),
    'negativezero': image(np.where(BRAIN, DATA, -0.0)),
    'rounding': image(np.where(BRAIN, DATA, NOISE)),
    'intercept': scaled(DATA * 20, 0.05, -20),
    'zscores': image((DATA - 80) / 25),
}


def write(root: Path, images: dict[str, nib.Nifti1Image], suffix: str) -> None:
    for label, content in images.items():
        folder = root / f'sub-{label}' / 'anat'
        folder.mkdir(parents=True)
        content.to_filename(folder / f'sub-{label}_{suffix}.nii.gz')


@pytest.fixture(scope='module')
def finished(tmp_path_factory, run_app: Callable) -> Path:
    root = tmp_path_factory.mktemp('werte') / 'Größe'
    root.mkdir()
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    write(root, UNIFORM, 'UNIT1')
    write(root, PLAINLY, 'FLAIR')
    out = root.parent / 'Köln'
    done = run_app(root, out, 'participant', '-w', root.parent / 'work', **PLAIN)
    assert done.returncode == 0, done.stderr
    return out


def result(out: Path, label: str, name: str) -> np.ndarray:
    (path,) = (out / f'sub-{label}' / 'anat').glob(f'sub-{label}_{name}.nii.gz')
    return np.asarray(nib.load(path).dataobj)


@pytest.mark.slow
@pytest.mark.parametrize('label', [*UNIFORM, *PLAINLY])
def test_the_mask_is_the_brain(finished, label):
    assert np.array_equal(result(finished, label, 'desc-brain_mask') > 0, BRAIN)
    (path,) = (finished / f'sub-{label}' / 'figures').glob('*summary_report.json')
    assert not [w for w in json.loads(path.read_text())['warnings'] if 'not finite' in w]


@pytest.mark.slow
@pytest.mark.parametrize('label', UNIFORM)
def test_unit1_runs_from_0_to_4095(finished, label):
    found = result(finished, label, 'desc-preproc_UNIT1')
    assert np.abs(found[BRAIN] - SHARE[BRAIN] * 4095).max() < 10  # 4104 for 4095
    assert not found[~BRAIN].any()


@pytest.mark.slow
@pytest.mark.parametrize('label', PLAINLY)
def test_the_lesions_do_not_depend_on_how_values_are_stored(finished, label):
    found, expected = (
        result(finished, name, 'space-FLAIR_label-L_mask') > 0 for name in (label, 'plain')
    )
    assert expected.any()
    assert 2 * (found & expected).sum() >= 0.95 * (found.sum() + expected.sum())


def test_a_colour_image_is_a_data_error_with_its_reason(tmp_path, run_app):
    colour = nib.Nifti1Image(np.zeros(DATA.shape, [(c, 'u1') for c in 'RGB']), PHANTOM.affine)
    write(tmp_path / 'data', {'01': colour}, 'T1w')
    path = tmp_path / 'data' / 'dataset_description.json'
    path.write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    words = (tmp_path / 'data', tmp_path / 'out', 'participant', '-w', tmp_path / 'work')
    for more in ([], ['--dry-run']):
        done = run_app(*words, *more)
        assert done.returncode == 65, done.stderr
        assert 'colour image' in done.stdout + done.stderr
