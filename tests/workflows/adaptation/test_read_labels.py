"""Labels of a site on the grid of the reference image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssl2_bids.bids.labels import find_labels
from ssl2_bids.bids.outputs import Result, UnitNames, sidecar_path
from ssl2_bids.bids.provenance import bids_uri
from ssl2_bids.errors import DataError
from ssl2_bids.files import write_json, write_text
from ssl2_bids.itk import to_itk
from ssl2_bids.settings import GroupSettings
from ssl2_bids.volume import Volume, write
from ssl2_bids.workflows.adaptation.cases import Case
from ssl2_bids.workflows.adaptation.read_labels import annotation_of, read_labels

EDGE = 12  # voxels of a slice


def grid_of(step: float, count: int) -> np.ndarray:
    affine = np.diag([1, 1, step, 1.0])
    affine[:3, 3] = [-EDGE / 2, -EDGE / 2, -count * step / 2]
    return affine


class Site:
    """A session whose reference has other slices than its FLAIR."""

    def __init__(self, root: Path, *, reference: float, flair: float) -> None:
        self.root, self.raw, self.flair = root, root / 'raw', flair
        self.counts = {'T1w': int(60 // reference), 'FLAIR': int(60 // flair)}
        self.names = UnitNames(root / 'out', '01', None, 'T1w', '')
        write_json(self.raw / 'dataset_description.json', {'Name': 'x', 'BIDSVersion': '1.10.0'})
        self.grid = grid_of(reference, self.counts['T1w'])
        self.images = {}
        for contrast, step in (('T1w', reference), ('FLAIR', flair)):
            raw = self.raw / f'sub-01/anat/sub-01_{contrast}.nii.gz'
            shape = (EDGE, EDGE, self.counts[contrast])
            write(Volume(np.ones(shape, np.float32), grid_of(step, shape[2])), raw)
            kind = 'anat.preproc_reference' if contrast == 'T1w' else 'anat.preproc'
            path = self.names.path(kind, contrast=contrast)
            write(Volume(np.ones((EDGE, EDGE, self.counts['T1w']), np.float32), self.grid), path)
            write_json(sidecar_path(path), {'Sources': [bids_uri(raw, self.raw, 'raw')]})
            self.images[contrast] = path
        ones = np.ones((EDGE, EDGE, self.counts['T1w']), np.uint8)
        write(Volume(ones, self.grid), self.names.path('anat.brain_mask'), dtype=np.uint8)
        xfm = self.names.path('anat.transform', source='FLAIR', target='T1w')
        write_text(xfm, to_itk(np.eye(4)))

    def labelled(self, drawn: np.ndarray, name: str, contrast: str, **keys: object) -> Case:
        path = self.root / name / f'sub-01/anat/sub-01_{contrast}_desc-lesion_mask.nii.gz'
        step = self.flair if contrast == 'FLAIR' else float(self.grid[2, 2])
        volume = Volume(drawn.astype(np.uint8), grid_of(step, drawn.shape[2]))
        write(volume, path, dtype=np.uint8)
        write_json(sidecar_path(path), keys)
        labels = tuple(find_labels(self.root / name))
        return Case(Result(self.names, {}), self.images, labels)


def test_no_annotated_slice_of_a_finer_image_is_lost(tmp_path):
    site = Site(tmp_path, reference=1.2, flair=1.0)
    for k in range(5, 55):
        drawn = np.zeros((EDGE, EDGE, site.counts['FLAIR']))
        drawn[3:8, 3:8, k] = 1
        slices = {'Axis': 'k', 'Indices': [k]}
        case = site.labelled(drawn, f'labels{k}', 'FLAIR', AnnotatedSlices=slices)
        found, _, whole = annotation_of(case, site.raw)
        assert found.extent.data.any(axis=(0, 1)).sum() == 1, k
        assert (found.label.data > 0).sum() == 25, k
        assert found.label.data.dtype == np.uint8
        assert found.extent.data.dtype == bool
        assert not whole


def test_smaller_voxels_of_the_reference_have_the_value_around_their_centre(tmp_path):
    site = Site(tmp_path, reference=1.0, flair=3.0)
    drawn = np.zeros((EDGE, EDGE, site.counts['FLAIR']))
    drawn[3:8, 3:8, 10] = 1
    slices = {'Axis': 'k', 'Indices': [10]}
    found, _, _ = annotation_of(
        site.labelled(drawn, 'labels', 'FLAIR', AnnotatedSlices=slices), site.raw
    )
    assert found.extent.data.any(axis=(0, 1)).sum() == 3
    assert found.label.data.sum() == 3 * 25


def test_a_label_on_the_grid_of_the_reference_stays_as_it_is(tmp_path):
    site = Site(tmp_path, reference=1.2, flair=1.0)
    drawn = np.random.default_rng(0).random((EDGE, EDGE, site.counts['T1w'])) < 0.05
    keys = {'AnnotatedSlices': {'Axis': 'k', 'Indices': [7, 8, 20]}}
    listed = np.zeros_like(drawn)
    listed[:, :, [7, 8, 20]] = True
    found, _, _ = annotation_of(site.labelled(drawn, 'sparse', 'T1w', **keys), site.raw)
    np.testing.assert_array_equal(found.label.data, drawn & listed)
    np.testing.assert_array_equal(found.extent.data, listed)


@pytest.mark.parametrize('keys', [{}, {'AnnotatedSlices': {'Axis': 'k', 'Indices': [20]}}])
def test_a_label_of_an_image_that_was_registered_moves_with_it(tmp_path, keys):
    site = Site(tmp_path, reference=1.0, flair=1.0)
    moved = np.eye(4)
    moved[:3, 3] = [0, 2, 4]  # reference to FLAIR
    xfm = site.names.path('anat.transform', source='FLAIR', target='T1w')
    xfm.unlink()
    write_text(xfm, to_itk(moved))
    drawn = np.zeros((EDGE, EDGE, site.counts['FLAIR']))
    drawn[3:8, 3:8, 20] = 1
    found, _, whole = annotation_of(site.labelled(drawn, 'labels', 'FLAIR', **keys), site.raw)
    expected = np.zeros(drawn.shape, np.uint8)
    expected[3:8, 1:6, 16] = 1
    np.testing.assert_array_equal(found.label.data, expected)
    assert whole is not bool(keys)
    if keys:
        assert np.flatnonzero(found.extent.data.any(axis=(0, 1))).tolist() == [16]


@pytest.mark.parametrize(
    ('keys', 'cause'),
    [
        ({}, 'no voxel of the reference has its centre in one drawn on FLAIR'),
        (
            # all in one slice of the reference, where four of five have no lesion
            {'AnnotatedSlices': {'Axis': 'k', 'Indices': [30, 31, 32, 33, 34]}},
            'in each voxel of the reference at least half of what is annotated on FLAIR is no',
        ),
    ],
)
def test_a_label_whose_lesions_are_lost_in_thick_slices_is_refused(tmp_path, keys, cause):
    site = Site(tmp_path, reference=5.0, flair=1.0)
    drawn = np.zeros((EDGE, EDGE, site.counts['FLAIR']))
    drawn[3:8, 3:8, 31] = 1
    case = site.labelled(drawn, 'labels', 'FLAIR', **keys)
    with pytest.raises(DataError, match='no lesion is left') as caught:
        annotation_of(case, site.raw)
    assert cause in caught.value.message
    assert caught.value.path == str(case.labels[0].path)
    assert caught.value.advice


def test_a_label_without_lesions_on_another_image_is_kept(tmp_path):
    site = Site(tmp_path, reference=5.0, flair=1.0)
    case = site.labelled(np.zeros((EDGE, EDGE, site.counts['FLAIR'])), 'labels', 'FLAIR')
    found, _, whole = annotation_of(case, site.raw)
    assert whole
    assert not found.label.data.any()


def test_every_label_on_a_wrong_grid_is_named_once_with_its_reason(tmp_path, caplog):
    """The first by the error that ends the run, the others by a line each."""
    site = Site(tmp_path, reference=1.0, flair=1.0)
    drawn = np.ones((EDGE, EDGE, 3))
    cases = [site.labelled(drawn, f'labels{n}', 'FLAIR') for n in range(3)]
    settings = GroupSettings(site.raw, tmp_path / 'out', tmp_path / 'work')
    with pytest.raises(DataError, match='the label fits no image of its session') as caught:
        read_labels(cases, settings)
    lines = [r.getMessage() for r in caplog.records if r.levelname == 'WARNING']
    assert [line.count('fits no image') for line in lines] == [1, 1]
    for number, text in enumerate([str(caught.value), *lines]):
        assert text.count(f'labels{number}/sub-01') == 1
    caplog.clear()
    whole = site.labelled(np.pad(drawn, ((0, 0), (0, 0), (0, 57))), 'good', 'FLAIR', Manual=True)
    found = read_labels([whole, *cases], settings)
    assert len(found.refused) == 3
    warned = [r for r in caplog.records if r.levelname == 'WARNING']
    assert not warned  # the caller knows whether one of them ends the run
