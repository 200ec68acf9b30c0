"""A rater's file on the grid of an image, and on that of a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssl2_bids.bids.labels import find_labels
from ssl2_bids.errors import DataError
from ssl2_bids.steps.annotation import Annotation
from ssl2_bids.volume import Volume, read, reorient, write
from ssl2_bids.voxel_grid import same_grid
from ssl2_bids.workflows.annotations import onto_model_grid, place, ras_grid
from ssl2_bids.workflows.pretraining.sessions import drawn_label

SHAPE = (40, 44, 36)
TILT = 0.1  # radians


def oblique(spacing: float = 1.0) -> np.ndarray:
    """A tilted grid, as scanners give it."""
    cos, sin = np.cos(TILT), np.sin(TILT)
    affine = np.array([[cos, -sin, 0, -20], [sin, cos, 0, -22], [0, 0, 1, -18], [0, 0, 0, 1]])
    affine[:3, :3] *= spacing
    return affine


NAME = 'sub-01/anat/sub-01_label-L_mask.nii.gz'
IMAGE = Volume(np.zeros(SHAPE, np.float32), oblique())


def put(
    folder: Path, affine: np.ndarray, *, desc: str = '', values: int = 1, more: int | None = None
) -> None:
    """A mask of a cube, and of one voxel more in the row of this number."""
    data = np.zeros(SHAPE, np.uint8)
    data[10:14, 10:14, 10:14] = values
    if more is not None:
        data[more, 0, 0] = values
    path = folder / 'sub-01' / 'anat' / f'sub-01_label-L{desc}_mask.nii.gz'
    write(Volume(data, affine), path, dtype=np.uint8)


def moved(millimetres: float) -> np.ndarray:
    affine = oblique()
    affine[:3, 3] += millimetres * affine[:3, 0]
    return affine


def rounded() -> np.ndarray:
    return np.round(oblique(), 4)


def scaled() -> np.ndarray:
    affine = oblique()
    affine[:3, :3] *= 1 + 1e-5
    return affine


@pytest.mark.parametrize('affine', [oblique(), moved(0.002), moved(0.09), rounded(), scaled()])
def test_rounding_of_other_programs_is_accepted_silently(tmp_path, caplog, affine):
    put(tmp_path, affine)
    placed = place(find_labels(tmp_path), {'T1w': IMAGE})
    assert same_grid(placed.annotation.label, IMAGE)
    assert np.array_equal(placed.annotation.label.affine, IMAGE.affine)
    assert placed.annotation.label.data.sum() == 64
    assert not caplog.text


def test_a_third_of_a_voxel_is_accepted_with_the_distance(tmp_path, caplog):
    put(tmp_path, moved(0.33))
    placed = place(find_labels(tmp_path), {'T1w': IMAGE})
    assert placed.annotation.label.data[10:14, 10:14, 10:14].all()
    assert '0.33 voxels off T1w' in caplog.text


@pytest.mark.parametrize('distance', [0.5, 3.0])
def test_half_a_voxel_is_refused_with_the_distance(tmp_path, distance):
    put(tmp_path, moved(distance))
    text = f'up to {distance:.2g} voxels and {distance:.2g} mm away'
    with pytest.raises(DataError, match=text) as caught:
        place(find_labels(tmp_path), {'T1w': IMAGE})
    assert 'sub-01_label-L_mask.nii.gz' in caught.value.path


def test_the_distance_has_the_spacing_of_the_axis_it_lies_along(tmp_path):
    thick = np.diag([1.0, 1.0, 5.0, 1.0])
    beside = thick.copy()
    beside[0, 3] = 20
    put(tmp_path, beside)
    with pytest.raises(DataError, match='up to 20 voxels and 20 mm away'):
        place(find_labels(tmp_path), {'FLAIR': Volume(IMAGE.data, thick)})


def test_the_nearest_grid_is_that_of_the_label(tmp_path):
    put(tmp_path, moved(0.4))
    grids = {'T1w': IMAGE, 'FLAIR': Volume(IMAGE.data, moved(0.41))}
    assert place(find_labels(tmp_path), grids).image == 'FLAIR'


def test_a_rater_whose_mask_cannot_be_read_costs_that_mask(tmp_path, caplog):
    put(tmp_path, oblique(), desc='_desc-a')
    put(tmp_path, oblique(), desc='_desc-b', values=5)
    placed = place(find_labels(tmp_path), {'T1w': IMAGE})
    assert [label.desc for label in placed.labels] == ['a']
    assert 'desc-b_mask.nii.gz: label left out: the mask has the values 0, 5' in caplog.text


def test_raters_are_joined_on_the_grid_of_the_image_and_one_off_it_costs_itself(tmp_path, caplog):
    for row, (desc, distance) in enumerate((('a', 0.2), ('b', -0.2), ('c', 0.0), ('d', 2.0))):
        put(tmp_path, moved(distance), desc=f'_desc-{desc}', more=row)
    placed = place(find_labels(tmp_path), {'T1w': IMAGE})
    assert [label.desc for label in placed.labels] == ['a', 'b', 'c']
    assert placed.annotation.label.data.sum() == 64
    assert '_desc-d_mask.nii.gz: label left out' in caplog.text


def test_copies_of_a_mask_are_one_rater(tmp_path, caplog):
    """In two folders, under another name, with a header that another program rounded."""
    a, b = tmp_path / 'a', tmp_path / 'b'
    put(a, oblique())
    put(b, rounded())
    put(b, oblique(), desc='_desc-second')
    found = [*find_labels(a), *find_labels(b)]
    placed = place(found, {'T1w': IMAGE})
    assert [label.path for label in placed.labels] == [a / NAME]
    assert placed.note == f'a/sub-01/anat/{Path(NAME).name}'
    texts = [r.getMessage() for r in caplog.records if 'same voxels' in r.getMessage()]
    same = f'the same voxels as in {a / NAME}: both count as one mask'
    other = b / NAME.replace('_mask', '_desc-second_mask')
    assert texts == [f'{other}: {same}', f'{b / NAME}: {same}']
    assert len(placed.remarks) == 2
    put(b, oblique(), more=20)
    placed = place([*find_labels(a), *find_labels(b)], {'T1w': IMAGE})
    short = Path(NAME).name
    assert placed.note == (
        f'2 raters, lesion where both agree: a/sub-01/anat/{short}, b/sub-01/anat/{short}'
    )
    assert placed.annotation.label.data.sum() == 64


def test_two_raters_may_see_no_lesion(tmp_path):
    for desc in ('a', 'b'):
        put(tmp_path, oblique(), desc=f'_desc-{desc}', values=0)
    assert len(place(find_labels(tmp_path), {'T1w': IMAGE}).labels) == 2
    put(tmp_path / 'copy', oblique(), desc='_desc-a', values=0)
    found = [*find_labels(tmp_path), *find_labels(tmp_path / 'copy')]
    assert len(place(found, {'T1w': IMAGE}).labels) == 2


def test_every_mask_on_a_wrong_grid_is_named_once(tmp_path, caplog):
    for desc in ('a', 'b'):
        put(tmp_path, moved(3), desc=f'_desc-{desc}')
    with pytest.raises(DataError, match='the label fits no image') as caught:
        place(find_labels(tmp_path), {'T1w': IMAGE})
    assert 'desc-a_mask' in caught.value.path
    (other,) = [r.getMessage() for r in caplog.records if r.levelname == 'WARNING']
    assert 'desc-b_mask.nii.gz: label left out: the label fits no image' in other


def test_a_mask_on_a_wrong_grid_is_named_where_that_of_another_image_fits(tmp_path, caplog):
    put(tmp_path, moved(3))
    put(tmp_path / 'other', oblique())
    right = tmp_path / 'other' / NAME
    right = right.rename(right.with_name('sub-01_space-FLAIR_label-L_mask.nii.gz'))
    found = [*find_labels(tmp_path), *find_labels(tmp_path / 'other')]
    assert [label.path for label in place(found, {'T1w': IMAGE}).labels] == [right]
    (line,) = [r.getMessage() for r in caplog.records if r.levelname == 'WARNING']
    assert line.startswith(f'{tmp_path / NAME}: label left out: the label fits no image')


def test_a_colour_image_is_no_label(tmp_path):
    path = tmp_path / 'sub-01_label-L_mask.nii'
    colour = np.zeros(SHAPE, [(c, 'u1') for c in 'RGB'])
    import nibabel as nib

    nib.Nifti1Image(colour, oblique()).to_filename(path)
    with pytest.raises(DataError, match='colour'):
        place(find_labels(tmp_path), {'T1w': IMAGE})


def test_the_grid_of_a_header_is_that_of_the_reoriented_image(tmp_path):
    affine = oblique()[:, [2, 0, 1, 3]] * [-1, 1, -1, 1]
    write(Volume(np.zeros(SHAPE, np.float32), affine), tmp_path / 'x.nii.gz')
    grid, image = ras_grid(tmp_path / 'x.nii.gz'), reorient(read(tmp_path / 'x.nii.gz'))
    assert grid.shape == image.shape
    assert np.allclose(grid.affine, image.affine)


@pytest.mark.parametrize('another', [False, True])
def test_training_keeps_the_annotated_slices_that_adaptation_keeps(tmp_path, another):
    """Four slices of 0.7 mm, two of them half-way between voxels; perhaps of a second image."""
    fine = np.diag([0.7, 0.7, 0.7, 1.0])
    shape, slices = (40, 40, 30), [5, 10, 15, 20]
    drawn = np.zeros(shape, np.uint8)
    drawn[10:20, 10:20, slices] = 1
    folder = tmp_path / 'sub-01' / 'anat'
    write(Volume(drawn, fine), folder / 'sub-01_space-FLAIR_label-L_mask.nii.gz', dtype=np.uint8)
    (folder / 'sub-01_space-FLAIR_label-L_mask.json').write_text(
        '{"AnnotatedSlices": {"Axis": "k", "Indices": [5, 10, 15, 20]}}'
    )
    if another:
        path = folder / 'sub-01_space-A_label-L_mask.nii.gz'
        write(Volume(np.ones((5, 5, 5), np.uint8), np.eye(4)), path, dtype=np.uint8)
    images = {'FLAIR': Volume(np.zeros(shape, np.float32), fine)}
    moved = np.eye(4)
    moved[0, 3] = -2.1  # the FLAIR lies 2.1 mm to the right of where the reference sees it
    lesions, known = drawn_label(
        find_labels(tmp_path), images, {'FLAIR': moved}, np.eye(4), np.ones((30, 28, 21), bool)
    )
    assert np.flatnonzero(known.any((0, 1))).tolist() == [4, 7, 10, 14]
    assert np.array_equal(lesions.any((0, 1)), known.any((0, 1)))
    volume = lesions.sum() / 4  # mm^2 in each slice
    assert volume == pytest.approx(49, abs=8)
    assert lesions[9:16].sum() == lesions.sum()


def test_lesions_outside_the_listed_slices_are_named(tmp_path, caplog):
    put(tmp_path, oblique())  # lesion in the slices 10 to 13
    sidecar = tmp_path / 'sub-01' / 'anat' / 'sub-01_label-L_mask.json'
    sidecar.write_text('{"AnnotatedSlices": {"Axis": "k", "Indices": [11, 12, 13, 14]}}')
    for _ in range(2):  # as two models are compared
        placed = place(find_labels(tmp_path), {'T1w': IMAGE})
    assert placed.annotation.label.data.sum() == 48
    assert caplog.text.count('sub-01_label-L_mask.nii.gz: 16 of 64 lesion voxels lie out') == 1
    assert 'If the slices are right, set the mask to 0 in all others' in caplog.text
    assert [text.split(' lesion')[0] for text in placed.remarks] == [
        'sub-01_label-L_mask.nii.gz: 16 of 64'
    ]
    sidecar.write_text('{"AnnotatedSlices": {"Axis": "k", "Indices": [14]}}')
    with pytest.raises(DataError, match='sub-01_label-L_mask.nii.gz: 64 of 64 lesion voxels'):
        place(find_labels(tmp_path), {'T1w': IMAGE})


def test_beyond_the_field_of_view_a_whole_label_is_not_annotated():
    drawn = Volume(np.zeros((20, 20, 10), np.uint8), np.eye(4))
    whole = Annotation(drawn, drawn.with_data(np.ones(drawn.shape, bool)))
    moved = np.eye(4)
    moved[2, 3] = -4
    _, known = onto_model_grid(whole, np.eye(4), (20, 20, 20), transform=moved)
    assert np.flatnonzero(known.all((0, 1))).tolist() == list(range(4, 14))
    assert known.sum() == 4000


def test_thin_annotated_slices_survive_larger_voxels():
    fine = np.diag([0.7, 0.7, 0.7, 1.0])
    label = np.zeros((30, 30, 30), np.uint8)
    extent = np.zeros(label.shape, bool)
    extent[:, :, [4, 11, 17, 23]] = True
    label[10:20, 10:20] = 1
    label *= extent
    coarse = np.eye(4)
    drawn, annotated = onto_model_grid(
        Annotation(Volume(label, fine), Volume(extent, fine)), coarse, (20, 20, 20)
    )
    assert np.flatnonzero(annotated.any((0, 1))).tolist() == [3, 8, 12, 16]
    assert drawn[10, 10, [3, 8, 12, 16]].all()
    assert not drawn[~annotated.astype(bool)].any()
    # and on smaller ones nothing is missing in between
    finer = np.diag([0.35] * 3 + [1.0])
    both = Annotation(Volume(label, fine), Volume(extent, fine))
    _, annotated = onto_model_grid(both, finer, (60, 60, 60))
    assert annotated.any((0, 1)).sum() == 8


@pytest.mark.parametrize('whole', [True, False])
def test_lesions_keep_their_volume_on_larger_voxels(whole):
    fine = np.diag([0.7, 0.7, 0.7, 1.0])
    grid = np.indices((60, 60, 60))
    label = np.zeros((60, 60, 60), bool)
    for centre, radius in (((20, 22, 21), 5.3), ((42, 40, 38), 8.1), ((20, 45, 40), 3.2)):
        away = grid - np.array(centre)[:, None, None, None]
        label |= (away**2).sum(0) < radius**2
    extent = np.ones(label.shape, bool)
    extent[0, 0, 0] = whole
    both = Annotation(Volume(label.astype(np.uint8), fine), Volume(extent, fine))
    drawn, _ = onto_model_grid(both, np.eye(4), (42, 42, 42))
    assert drawn.sum() == pytest.approx(label.sum() * 0.7**3, rel=0.04)
