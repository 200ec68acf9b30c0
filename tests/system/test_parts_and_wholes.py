"""A bad part is left out with a warning, the participant is processed; dry run and run agree."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from phantoms import brain_image

GOOD = brain_image()
CONSTANT = nib.Nifti1Image(np.full(GOOD.shape, 7, np.float32), GOOD.affine)
SERIES = nib.Nifti1Image(np.zeros((*GOOD.shape, 3), np.float32), GOOD.affine)
COLOUR = nib.Nifti1Image(np.zeros(GOOD.shape, [(c, 'u1') for c in 'RGB']), GOOD.affine)
# more than half of the brain has one value: all steps but the network take it
COARSE = nib.Nifti1Image(np.float32(1000) * np.digitize(GOOD.dataobj, (1, 65, 120)), GOOD.affine)
INV = nib.Nifti1Image(np.asarray(GOOD.dataobj) + 50, GOOD.affine)
UNI = nib.Nifti1Image(np.asarray(GOOD.dataobj) * 20, GOOD.affine)

# participant: files; the reference and the contrasts that are used; words of a warning
PARTS: dict[str, tuple[dict[str, object], str, list[str], str]] = {
    'empty': (
        {'T1w': GOOD, 'T2w': b''},
        'T1w',
        ['T1w'],
        'T2w.nii was left out: the file is empty',
    ),
    'constant': (
        {'T1w': GOOD, 'T2w': CONSTANT},
        'T1w',
        ['T1w'],
        'T2w.nii was left out: the image',
    ),
    'coarse': (
        {'UNIT1': COARSE, 'FLAIR': GOOD},
        'FLAIR',
        ['FLAIR'],
        'UNIT1: the image is constant, or nearly so',
    ),
    'series': ({'FLAIR': GOOD, 'T2w': SERIES}, 'FLAIR', ['FLAIR'], '4 axes'),
    'colour': ({'FLAIR': GOOD, 'T2w': COLOUR}, 'FLAIR', ['FLAIR'], 'colour'),
    'reference': ({'T1w': CONSTANT, 'FLAIR': GOOD}, 'FLAIR', ['FLAIR'], 'T1w.nii was left out'),
    'run': ({'run-1_T1w': CONSTANT, 'run-2_T1w': GOOD}, 'T1w', ['T1w'], 'run-1_T1w.nii was left'),
    'inversion': (
        {'UNIT1': UNI, 'inv-1_MP2RAGE': INV, 'inv-2_MP2RAGE': CONSTANT},
        'UNIT1',
        ['UNIT1'],
        'UNIT1 without INV1 and INV2',
    ),
    'sidecar': ({'FLAIR': GOOD, 'FLAIR.json': '{"EchoTime": '}, 'FLAIR', ['FLAIR'], 'FLAIR.json'),
}


def put(root: Path, subject: str, files: dict[str, object]) -> None:
    anat = root / f'sub-{subject}' / 'anat'
    anat.mkdir(parents=True)
    for name, content in files.items():
        path = anat / f'sub-{subject}_{name}'
        if isinstance(content, str):
            path.write_text(content)
        else:
            data = content if isinstance(content, bytes) else content.to_bytes()
            path.with_name(f'{path.name}.nii').write_bytes(data)


@pytest.fixture(scope='module')
def finished(tmp_path_factory, run_app):
    root = tmp_path_factory.mktemp('parts') / 'data'
    root.mkdir()
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    for subject, (files, *_) in PARTS.items():
        put(root, subject, files)
    words = (root, root.parent / 'out', 'participant', '--sloppy', '-w', root.parent / 'work')
    return run_app(*words), words


@pytest.mark.parametrize('subject', PARTS)
def test_a_bad_part_costs_itself(finished, subject):
    done, (_, out, *_) = finished
    _, reference, contrasts, warning = PARTS[subject]
    (path,) = (out / f'sub-{subject}' / 'figures').glob('*summary_report.json')
    summary = json.loads(path.read_text())
    assert summary['status'] == 'done', done.stderr
    assert summary['reference']['Contrast'] == reference
    used = {row['Contrast'] for row in summary['inputs'] if row['Use'] != 'dropped'}
    assert used == set(contrasts)
    assert any(warning in text for text in summary['warnings']), summary['warnings']


def test_the_run_succeeds_and_names_what_it_left_out(finished):
    done, _ = finished
    assert done.returncode == 0, done.stderr
    assert 'sub-constant: continuing without sub-constant_T2w.nii' in done.stderr
    assert 'Traceback' not in done.stderr


def test_what_was_left_out_is_remembered_until_the_file_is_another(finished, run_app):
    _, words = finished
    again = run_app(*words)
    assert again.stderr.count('already finished') == len(PARTS), again.stderr
    better = words[0] / 'sub-constant' / 'anat' / 'sub-constant_T2w.nii'
    better.write_bytes(brain_image(3).to_bytes())
    repaired = run_app(*words)
    assert repaired.stderr.count('already finished') == len(PARTS) - 1
    (path,) = (words[1] / 'sub-constant' / 'figures').glob('*summary_report.json')
    used = [r['Contrast'] for r in json.loads(path.read_text())['inputs'] if r['Use'] != 'dropped']
    assert sorted(used) == ['T1w', 'T2w']


@pytest.mark.parametrize(
    ('people', 'code'),
    [
        ({'1': {'T1w': b''}, '2': {'FLAIR': b''}}, 65),
        ({'1': {'T1w': b''}, '2': {'FLAIR': GOOD}}, 1),
        ({'1': {'acq-INV1_T1w': GOOD}}, 66),
    ],
)
def test_dry_run_and_run_end_with_the_same_code(tmp_path, run_app, people, code):
    root = tmp_path / 'data'
    root.mkdir()
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    for subject, files in people.items():
        put(root, subject, files)
    words = (root, tmp_path / 'out', 'participant', '--sloppy', '-w', tmp_path / 'work')
    assert [run_app(*words, '--dry-run').returncode, run_app(*words).returncode] == [code, code]
