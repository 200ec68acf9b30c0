"""Whole runs on images whose voxel axes are not RAS: results lie on the raw grid, to the bit.

One head with LAS axes, oblique, sform code 2 and qform code 1; one acquired sagittally (PIR).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from phantoms import turned
from running_app import validate
from site_phantom import AFFINE, head, make_model

pytestmark = pytest.mark.slow  # two participants, group level and adaptation: minutes

OBLIQUE = (0.1, -0.06, 0.03)
# participant: of FLAIR (the reference) and T1w, axes and codes of sform and qform
STORED = {
    'las': {'FLAIR': ('LAS', 2, 1), 'T1w': ('LPS', 1, 1)},
    'pir': {'FLAIR': ('PIR', 1, 1), 'T1w': ('PSR', 2, 1)},
}
FIELDS = ('pixdim', 'srow_x', 'srow_y', 'srow_z', 'quatern_b', 'quatern_c', 'quatern_d',
          'qoffset_x', 'qoffset_y', 'qoffset_z', 'sform_code', 'qform_code')  # fmt: skip


def as_stored(data: np.ndarray, subject: str, contrast: str) -> nib.Nifti1Image:
    axes, sform, qform = STORED[subject][contrast]
    angles = OBLIQUE if subject == 'las' else (0.0, 0.0, 0.0)
    return turned(data, AFFINE, axes, sform=sform, qform=qform, angles=angles)


def write(image: nib.Nifti1Image, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    image.to_filename(folder / f'{name}.nii.gz')


@pytest.fixture(scope='module')
def site(tmp_path_factory) -> Path:
    """A folder with data, labels on the raw grid of the FLAIR, and a model."""
    root = tmp_path_factory.mktemp('site')
    make_model(root)
    for number, subject in enumerate(STORED):
        one = head(number + 1, decoys=0)
        anat = root / 'data' / f'sub-{subject}' / 'anat'
        write(as_stored(one.t1w, subject, 'T1w'), anat, f'sub-{subject}_T1w')
        write(as_stored(one.flair, subject, 'FLAIR'), anat, f'sub-{subject}_FLAIR')
        drawn = as_stored(one.lesion.astype(np.uint8), subject, 'FLAIR')
        labels = root / 'labels' / f'sub-{subject}' / 'anat'
        write(drawn, labels, f'sub-{subject}_label-lesion_mask')
    for folder, kind in (('data', 'raw'), ('labels', 'derivative')):
        content = {'Name': 'phantoms', 'BIDSVersion': '1.10.0', 'DatasetType': kind}
        path = root / folder / 'dataset_description.json'
        content |= {'GeneratedBy': [{'Name': 'a rater'}], 'Authors': ['A', 'B']}
        path.write_text(json.dumps(content))
    return root


@pytest.fixture(scope='module')
def finished(site, run_app) -> Path:
    """Both participants after the participant level, and a model adapted to their labels."""
    done = run_app(
        site / 'data', site / 'out', 'participant', '-w', site / 'work', '--output-spaces',
        'FLAIR', 'T1w', 'MNI152NLin2009aSym', '--model', site / 'phantom-3t', '--uncertainty',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = run_app(
        site / 'data', site / 'out', 'group', '-w', site / 'work', '--model', site / 'phantom-3t',
        '--labels', site / 'labels', '--accept', 'always', '--steps', 20, '--folds', 2,
        '--device', 'cpu', '--nprocs', 1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return site / 'out'


def images(out: Path, subject: str) -> Iterator[Path]:
    yield from sorted((out / f'sub-{subject}' / 'anat').glob('*.nii.gz'))


@pytest.mark.parametrize('subject', STORED)
def test_every_image_lies_on_the_grid_of_its_space(site, finished, subject):
    raw = {
        contrast: nib.load(site / f'data/sub-{subject}/anat/sub-{subject}_{contrast}.nii.gz')
        for contrast in ('FLAIR', 'T1w')
    }
    seen = {'FLAIR': 0, 'T1w': 0}
    for path in images(finished, subject):
        if 'space-MNI' in path.name:
            continue
        space = 'T1w' if 'space-T1w' in path.name else 'FLAIR'
        image = nib.load(path)
        assert image.shape == raw[space].shape, path.name
        assert np.array_equal(image.affine, raw[space].affine), path.name
        for field in FIELDS:
            found, expected = (np.asarray(i.header[field]) for i in (image, raw[space]))
            part = slice(0, 4) if field == 'pixdim' else ...
            assert np.array_equal(found[part], expected[part]), (path.name, field)
        seen[space] += 1
    # two preprocessed, brain; mask, probability, lesions of both models, uncertainty of one
    assert seen == {'FLAIR': 10, 'T1w': 1}


@pytest.mark.parametrize('subject', STORED)
def test_masks_meet_the_lesions_voxel_by_voxel(site, finished, subject):
    anat = finished / f'sub-{subject}' / 'anat'
    name = f'sub-{subject}_label-lesion_mask.nii.gz'
    drawn = np.asarray(nib.load(site / f'labels/sub-{subject}/anat/{name}').dataobj) > 0
    masks = sorted(anat.glob('*space-FLAIR*label-L*_mask.nii.gz'))
    assert len(masks) == 2  # the first model's and the adapted one's
    for path in masks:
        found = np.asarray(nib.load(path).dataobj) > 0
        assert 2 * (found & drawn).sum() > 0.6 * (found.sum() + drawn.sum()), path.name


@pytest.mark.parametrize('subject', STORED)
def test_programs_that_use_qform_or_sform_see_one_place(finished, subject):
    import SimpleITK as sitk

    for path in images(finished, subject):
        image = nib.load(path)
        assert np.allclose(image.get_qform(), image.get_sform(), atol=1e-4), path.name
        last = np.array(image.shape) - 1
        seen = sitk.ReadImage(str(path)).TransformIndexToPhysicalPoint(last.tolist())
        there = nib.affines.apply_affine(image.get_sform(), last) * (-1, -1, 1)
        assert np.allclose(seen, there, atol=1e-3), path.name


def test_evaluation_against_masks_on_the_raw_grid(site, finished):
    from ssl2_bids.workflows.evaluation.run import evaluate

    result = evaluate(finished, site / 'labels', model=('phantom3t', 'adapted'))
    assert not result.failures
    assert len(result.cases) == 2 * len(STORED)
    assert min(case.numbers()['dice'] for case in result.cases) > 0.6


def test_the_cohort_has_a_row_for_each_participant_and_model(finished):
    with open(finished / 'group_lesions.tsv', newline='') as stream:
        rows = list(csv.DictReader(stream, delimiter='\t'))
    assert len(rows) == 2 * len(STORED)
    assert all(float(row['volume_mm3']) > 0 for row in rows)


def test_bids_validator_finds_neither_error_nor_warning(finished):
    assert validate(finished, ('error', 'warning')) == []
