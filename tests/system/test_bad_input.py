"""Each fault that a file can have: named in plain words, the others done, the right exit code."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from phantoms import brain_image


def with_header(image: nib.Nifti1Image, **fields: object) -> bytes:
    """The bytes of an image whose header has other values than nibabel would write."""
    content = image.to_bytes()
    header = nib.Nifti1Header(content[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + content[348:]


def with_zooms(image: nib.Nifti1Image, factor: float) -> nib.Nifti1Image:
    affine = image.affine.copy()
    affine[:3] *= factor
    changed = nib.Nifti1Image(np.asarray(image.dataobj), affine)
    changed.set_sform(affine, 1)
    return changed


def with_data(data: np.ndarray) -> nib.Nifti1Image:
    return nib.Nifti1Image(data.astype(np.float32), brain_image().affine)


SHAPE = brain_image().shape
WHOLE = brain_image().to_bytes()
NAN = np.asarray(brain_image().dataobj).copy()
NAN[:, : SHAPE[1] * 2 // 3] = np.nan

# participant: (content of its FLAIR or extra files, status, words that the report must have)
FAULTS: dict[str, tuple[object, str, str]] = {
    'good': (brain_image(), 'done', ''),
    'truncated': (WHOLE[: len(WHOLE) // 2], 'failed', 'damaged'),
    'text': (b'this is no image', 'failed', 'not a readable NIfTI image'),
    'empty': (b'', 'failed', 'the file is empty'),
    'nan': (with_data(NAN), 'failed', 'not finite'),
    'fewnan': (
        with_data(
            np.where(
                np.arange(NAN.size).reshape(SHAPE) == 5, np.nan, np.asarray(brain_image().dataobj)
            )
        ),
        'done',
        'were set to 0',
    ),
    'constant': (with_data(np.full(SHAPE, 7)), 'failed', 'constant'),
    'series': (
        nib.Nifti1Image(np.zeros((*SHAPE, 3), np.float32), brain_image().affine),
        'failed',
        '4 axes',
    ),
    'noorientation': (
        with_header(brain_image(), sform_code=0, qform_code=0),
        'failed',
        'no orientation',
    ),
    'brokensform': (with_header(brain_image(), srow_x=np.nan), 'failed', 'orientation'),
    'hugevoxels': (with_zooms(brain_image(), 30), 'failed', 'absurd voxel size'),
    'tinyvoxels': (with_zooms(brain_image(), 0.005), 'failed', 'absurd voxel size'),
    'nosession': (None, 'skipped', 'no usable image'),
    'dangling': ('link', 'skipped', 'its content is absent'),
    'badjson': ('json', 'done', 'not readable JSON'),
}


@pytest.fixture(scope='module')
def finished(tmp_path_factory, run_app):
    """All faults in one dataset with spaces and unicode in its path, read-only, run once."""
    root = tmp_path_factory.mktemp('bad') / 'Dätensatz mit Leerzeichen'
    root.mkdir()
    description = {'Name': 'faults', 'BIDSVersion': '1.10.0'}
    (root / 'dataset_description.json').write_text(json.dumps(description))
    for label, (content, _, _) in FAULTS.items():
        anat = root / f'sub-{label}' / ('ses-1' if content is None else '') / 'anat'
        anat.mkdir(parents=True)
        path = anat / f'sub-{label}_FLAIR.nii'
        if isinstance(content, nib.Nifti1Image):
            path.write_bytes(content.to_bytes())
        elif isinstance(content, bytes):
            path.write_bytes(content)
        elif content == 'link':
            path.symlink_to(root / '.git' / 'annex' / 'nowhere')
        elif content == 'json':
            path.write_bytes(WHOLE)
            path.with_suffix('.json').write_text('{"EchoTime": ')
    for path in sorted(root.rglob('*'), reverse=True):
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() else 0o444)
    root.chmod(0o555)
    out = tmp_path_factory.mktemp('out') / 'Ergebnisse π'
    done = run_app(root, out, 'participant', '--sloppy', '-w', tmp_path_factory.mktemp('work'))
    yield done, out
    for path in [root, *root.rglob('*')]:
        if path.is_dir():
            path.chmod(0o755)


def test_exit_code_and_last_line_agree(finished):
    done, _ = finished
    assert done.returncode == 1, done.stderr
    assert done.stderr.strip().splitlines()[-1].endswith('(exit code 1)') or (
        'exit code 1' in done.stderr.strip().splitlines()[-1]
    )
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize('label', FAULTS)
def test_fault(finished, label):
    done, out = finished
    _, status, words = FAULTS[label]
    (path,) = (out / f'sub-{label}' / 'figures').glob('*summary_report.json')
    summary = json.loads(path.read_text())
    assert summary['status'] == status, summary['error']
    page = (out / f'sub-{label}.html').read_text()
    masks = list((out / f'sub-{label}').rglob('*_label-L_mask.nii.gz'))
    if status == 'done':
        assert len(masks) == 1
        assert words in ' '.join(summary['warnings'])
        return
    assert not masks
    assert 'Traceback' not in page  # the file is at fault, not the program
    lines = [line for line in done.stderr.splitlines() if line.startswith(f'sub-{label}')]
    assert any(status in line for line in lines), done.stderr
    assert f'sub-{label}: finished' not in lines
    if status == 'failed':
        assert words in summary['error']['Message']
        assert f'sub-{label}' in summary['error']['File']
        assert summary['error']['Message'][1:40].split('"')[0].split("'")[0] in page
    else:
        assert words in json.dumps(summary)


def test_nothing_half_written(finished):
    _, out = finished
    assert not [p for p in out.rglob('*') if p.name.startswith('.tmp')]


def test_all_unusable_is_a_data_error(tmp_path, run_app):
    anat = tmp_path / 'data' / 'sub-01' / 'anat'
    anat.mkdir(parents=True)
    (tmp_path / 'data' / 'dataset_description.json').write_text(
        '{"Name": "x", "BIDSVersion": "1.10.0"}'
    )
    (anat / 'sub-01_FLAIR.nii').write_bytes(FAULTS['constant'][0].to_bytes())
    done = run_app(
        tmp_path / 'data', tmp_path / 'out', 'participant', '--sloppy', '-w', tmp_path / 'work'
    )
    assert done.returncode == 65, done.stderr
    assert 'constant' in done.stderr
