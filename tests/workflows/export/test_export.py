"""``ssl2 export`` on real results of phantoms, by the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from phantoms import turned
from running_app import validate
from scipy import ndimage
from site_phantom import AFFINE, head, make_model

from ssl2_bids.bids.labels import look_for_labels
from ssl2_bids.bids.outputs import UnitNames
from ssl2_bids.cli.app import main as app
from ssl2_bids.cli.tools.app import main
from ssl2_bids.errors import NoInputError
from ssl2_bids.files import write_json

IGNORED = ['*_roi.nii.gz', '*_roi.json']
SCANS = {'t1': ('T1w', 'FLAIR'), 'flair': ('FLAIR',)}


def with_tissues(t1w: np.ndarray) -> np.ndarray:
    """A T1w phantom with a darker rim and a dark middle, as cortex and ventricles are."""
    depth = ndimage.distance_transform_edt(t1w > 0)
    return t1w * np.select([depth < 2, depth > 9], [0.85, 0.7], 1.0)


@pytest.fixture(scope='module')
def results(tmp_path_factory) -> Path:
    """Data of two participants, one with FLAIR alone; results on the T1w, and on the FLAIR."""
    root = tmp_path_factory.mktemp('site')
    model = make_model(root)
    for number, (subject, contrasts) in enumerate(SCANS.items()):
        one = head(number + 1, decoys=0)
        anat = root / 'data' / f'sub-{subject}' / 'anat'
        anat.mkdir(parents=True)
        for contrast, axes in (('T1w', 'LPS'), ('FLAIR', 'PIR')):
            if contrast in contrasts:
                data = with_tissues(one.t1w) if contrast == 'T1w' else one.flair
                path = anat / f'sub-{subject}_{contrast}.nii.gz'
                turned(data, AFFINE, axes, sform=2).to_filename(path)
    content = {'Name': 'phantoms', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw'}
    (root / 'data' / 'dataset_description.json').write_text(json.dumps(content))
    run = ['--model', str(model), '--device', 'cpu', '--skull-strip', 'skip']
    for out, more in (
        ('out', ['--participant-label', 't1', '--reference', 't1w']),
        ('on-flair', ['--reference', 'flair']),
    ):
        given = [str(root / 'data'), str(root / out), 'participant', *run, *more]
        assert app([*given, '-w', str(root / 'work')]) == 0
    return root


def label(results: Path) -> str:
    """The model's part of the names of the results."""
    path = next((results / 'out').glob('sub-t1/anat/*_label-L_desc-*_mask.nii.gz'))
    return path.name.partition('_desc-')[2].partition('_')[0]


def test_fmriprep_gets_masks_on_the_grid_of_the_raw_t1w(results, capsys):
    data, desc = results / 'data', label(results)
    given = ['--to', 'fmriprep', '--model', desc]
    assert main(['export', str(results / 'out'), str(data), *given]) == 0
    raw = nib.load(data / 'sub-t1' / 'anat' / 'sub-t1_T1w.nii.gz')
    path = data / 'sub-t1' / 'anat' / 'sub-t1_label-lesion_roi.nii.gz'
    mask = nib.load(path)
    assert mask.shape == raw.shape
    assert np.array_equal(mask.affine, raw.affine)
    assert mask.get_sform(coded=True)[1] == 2
    own = nib.load(results / f'out/sub-t1/anat/sub-t1_space-T1w_label-L_desc-{desc}_mask.nii.gz')
    assert np.array_equal(np.asarray(mask.dataobj), np.asarray(own.dataobj))
    assert (data / '.bidsignore').read_text().splitlines() == IGNORED

    # from results on the grid of the FLAIR the mask is resampled
    assert main(['export', str(results / 'on-flair'), str(data), *given]) == 1  # one has no T1w
    shown = capsys.readouterr()
    assert 'the result was made without T1w' in shown.out + shown.err
    again = nib.load(path)
    assert again.shape == raw.shape
    one, two = (np.asarray(m.dataobj) > 0 for m in (mask, again))
    assert 2 * (one & two).sum() / (one.sum() + two.sum()) > 0.8
    assert (data / '.bidsignore').read_text().splitlines() == IGNORED


def test_an_exported_mask_is_no_manual_label(results, tmp_path):
    data = tmp_path / 'data'
    shutil.copytree(results / 'data', data)
    given = ['--to', 'fmriprep', '--model', label(results), '--participant-label', 't1']
    assert main(['export', str(results / 'out'), str(data), *given]) == 0
    assert validate(data, kind='raw') == []
    with pytest.raises(NoInputError, match='results of ssl2-bids itself'):
        look_for_labels(data)


@pytest.mark.parametrize('name', ['sub-t1_label-lesion_roi', 'sub-t1_T1w_label-lesion_roi'])
@pytest.mark.parametrize('sidecar', [None, {'Manual': True}, {'Description': 'drawn'}])
def test_a_mask_drawn_by_hand_is_never_replaced(results, tmp_path, capsys, name, sidecar):
    data = tmp_path / 'data'
    shutil.copytree(results / 'data', data)
    for earlier in data.rglob('*_roi.*'):  # of the tests before
        earlier.unlink()
    path = data / 'sub-t1' / 'anat' / f'{name}.nii.gz'
    shutil.copy(data / 'sub-t1' / 'anat' / 'sub-t1_T1w.nii.gz', path)
    if sidecar is not None:
        path.with_name(f'{name}.json').write_text(json.dumps(sidecar))
    before = {p: p.read_bytes() for p in data.rglob('*') if p.is_file()}
    given = ['--to', 'fmriprep', '--model', label(results), '--participant-label', 't1']
    assert main(['export', str(results / 'out'), str(data), *given]) == 65
    shown = ''.join(capsys.readouterr())
    assert path.name in shown
    assert 'not made by ssl2-bids' in shown
    assert {p: p.read_bytes() for p in data.rglob('*') if p.is_file()} == before


def test_a_filled_t1w_stands_beside_the_results(results):
    given = [str(results / 'out'), str(results / 'data'), '--to', 'filled']
    given += ['--model', f'desc-{label(results)}', '--participant-label', 'sub-t1/']
    assert main(['export', *given]) == 0
    anat = results / 'out' / 'sub-t1' / 'anat'
    filled = nib.load(anat / 'sub-t1_desc-lesionfilled_T1w.nii.gz')
    before = nib.load(anat / 'sub-t1_desc-preproc_T1w.nii.gz')
    desc = label(results)
    mask = nib.load(anat / f'sub-t1_space-T1w_label-L_desc-{desc}_mask.nii.gz')
    changed = np.asarray(filled.dataobj) != np.asarray(before.dataobj)
    assert not (changed & (np.asarray(mask.dataobj) == 0)).any()
    assert changed.sum() > 0.9 * (np.asarray(mask.dataobj) > 0).sum()
    sidecar = json.loads((anat / 'sub-t1_desc-lesionfilled_T1w.json').read_text())
    assert len(sidecar['Sources']) == 2
    assert validate(results / 'out') == []


def test_another_line_of_bidsignore_may_be_in_any_encoding(results, tmp_path):
    data = tmp_path / 'data'
    shutil.copytree(results / 'data', data)
    (data / '.bidsignore').write_bytes(b'extra_caf\xe9/\n')
    given = ['--to', 'fmriprep', '--model', label(results), '--participant-label', 't1']
    assert main(['export', str(results / 'out'), str(data), *given]) == 0
    assert (data / '.bidsignore').read_text().splitlines() == ['extra_café/', *IGNORED]


def test_a_result_made_with_unit1_names_the_way_to_a_mask_on_the_t1w(results, tmp_path, capsys):
    out, data = tmp_path / 'out', str(results / 'data')
    shutil.copytree(results / 'out', out)
    (summary,) = (out / 'sub-t1' / 'figures').glob('*summary_report.json')
    summary.write_text(summary.read_text().replace('"Contrast": "T1w"', '"Contrast": "UNIT1"'))
    given = ['--to', 'fmriprep', '--model', label(results), '--participant-label', 't1']
    assert main(['export', str(out), data, *given]) == 65
    shown = capsys.readouterr()
    assert 'made with UNIT1' in shown.out + shown.err
    assert '--contrasts t1w flair' in shown.out + shown.err


@pytest.mark.parametrize(
    ('given', 'code', 'words'),
    [
        (['--to', 'filled', '--participant-label', 'flair'], 65, 'made without T1w or UNIT1'),
        (
            ['--to', 'filled', '--participant-label', 'nobody'],
            66,
            'sub-nobody: no finished result of',
        ),
        (['--to', 'spm'], 64, "invalid choice: 'spm'"),
    ],
)
def test_what_cannot_be_exported_is_named(results, capsys, given, code, words):
    out, data = str(results / 'on-flair'), str(results / 'data')
    assert main(['export', out, data, '--model', label(results), *given]) == code
    shown = capsys.readouterr()
    assert words in shown.out + shown.err


def test_a_raw_image_that_was_replaced_ends_no_other_export(results, tmp_path, capsys):
    shutil.copytree(results / 'data', tmp_path / 'data')
    path = tmp_path / 'data' / 'sub-t1' / 'anat' / 'sub-t1_T1w.nii.gz'
    image = nib.load(path)
    image.slicer[:, :, 2:].to_filename(path)
    given = ['--to', 'fmriprep', '--model', label(results)]
    assert main(['export', str(results / 'out'), str(tmp_path / 'data'), *given]) == 65
    shown = capsys.readouterr()
    assert 'the raw image was replaced' in shown.out + shown.err


def test_sessions_that_cannot_be_exported_are_named_and_end_no_other(results, tmp_path, capsys):
    shutil.copytree(results / 'on-flair', tmp_path / 'out')
    shutil.copytree(results / 'data', tmp_path / 'data')
    desc, anat = label(results), tmp_path / 'out' / 'sub-flair' / 'anat'
    damaged = anat / f'sub-flair_space-FLAIR_label-L_desc-{desc}_mask.json'
    whole = damaged.read_text()
    damaged.write_text('{')
    given = ['export', str(tmp_path / 'out'), str(tmp_path / 'data'), '--to', 'fmriprep']
    given += ['--model', desc]
    assert main([*given, '--participant-label', 't1', '99']) == 1
    shown = ''.join(capsys.readouterr())
    assert 'sub-t1: ' in shown
    assert 'sub-99: no finished result of this model' in shown
    assert 'sub-flair' not in shown  # it was not asked for
    assert main(given) == 1
    shown = ''.join(capsys.readouterr())
    assert damaged.name in shown
    assert 'sub-t1_label-lesion_roi.nii.gz' in shown
    damaged.write_text(whole)
    summary = next((tmp_path / 'out' / 'sub-flair' / 'figures').glob('*summary_report.json'))
    image = damaged.with_name(damaged.name.replace('.json', '.nii.gz'))
    image.unlink()
    assert main(given) == 1
    assert 'sub-flair: its lesion mask is missing' in ''.join(capsys.readouterr())
    content = json.loads(summary.read_text())
    failed = {'status': 'failed', 'error': {'Message': 'no brain'}}
    summary.write_text(json.dumps(content | failed))
    assert main(given) == 1
    assert 'sub-flair: the session failed: no brain' in ''.join(capsys.readouterr())
    summary.write_text(json.dumps(content))
    shutil.copy(results / 'on-flair' / 'sub-flair' / 'anat' / image.name, image)
    mask = next(anat.glob('*desc-brain_mask.json'))
    mask.write_text(json.dumps(json.loads(mask.read_text()) | {'PreprocessingHash': 'other'}))
    assert main(given) == 1
    assert 'the result is from an earlier choice' in ''.join(capsys.readouterr())


def test_a_raw_image_without_content_is_named_with_the_command(results, tmp_path, capsys):
    shutil.copytree(results / 'data', tmp_path / 'data')
    path = tmp_path / 'data' / 'sub-t1' / 'anat' / 'sub-t1_T1w.nii.gz'
    path.unlink()
    path.symlink_to(tmp_path / 'data' / '.git' / 'annex' / 'objects' / 'absent')
    given = ['--to', 'fmriprep', '--model', label(results)]
    assert main(['export', str(results / 'out'), str(tmp_path / 'data'), *given]) == 65
    assert 'datalad get' in ''.join(capsys.readouterr())


def test_resampled_images_are_not_filled(results, capsys):
    given = [str(results / 'on-flair'), str(results / 'data'), '--to', 'filled']
    given += ['--model', label(results), '--participant-label', 't1']
    assert main(['export', *given]) == 65
    assert '--reference t1w' in ''.join(capsys.readouterr())


def test_a_comparison_without_its_participant_is_named(tmp_path, caplog):
    out, data = tmp_path / 'out', tmp_path / 'data'
    data.mkdir()
    path = UnitNames(out, '01', None).path('longitudinal.summary')
    write_json(path, {'model': '', 'status': 'done', 'configurations': {}, 'visits': []})
    description = {'Name': 'x', 'BIDSVersion': '1.10.0', 'DatasetType': 'derivative'}
    made = {'GeneratedBy': [{'Name': 'ssl2-bids'}]}
    write_json(out / 'dataset_description.json', description | made)
    assert main(['export', str(out), str(data), '--to', 'lesiontrack']) == 66
    assert f'{path.name}: "subject" is missing' in caplog.text


def test_a_label_that_bids_does_not_allow_is_taken_where_there_are_results_of_it(tmp_path, capsys):
    out, data = tmp_path / 'out', tmp_path / 'data'
    for folder in (out / 'sub-05-A', data):
        folder.mkdir(parents=True)
    given = ['export', str(out), str(data), '--to', 'filled', '--participant-label']
    assert main([*given, '05-A']) == 66
    assert main([*given, '06-A']) == 64
    assert '"06-A" is not a BIDS label' in capsys.readouterr().err
