import numpy as np
import pytest

from ssl2_bids.errors import DataError
from ssl2_bids.steps.annotation import (
    Annotation,
    majority,
    meaning,
    read_label_values,
    reorient_annotation,
)
from ssl2_bids.volume import Volume

SHAPE = (4, 5, 6)
LAS = np.diag([-1.0, 1, 1, 1]) + np.outer([1, 0, 0, 0], [0, 0, 0, 3])
TABLE = [
    {'index': '0', 'name': 'not annotated', 'mapping': 'n/a'},
    {'index': '1', 'name': 'lesion', 'mapping': '7'},
    {'index': '2', 'name': 'not lesion', 'mapping': 'n/a'},
]


def volume(values: dict[tuple[int, int, int], float], dtype=np.uint8, affine=None) -> Volume:
    data = np.zeros(SHAPE, dtype)
    for index, value in values.items():
        data[index] = value
    return Volume(data, np.eye(4) if affine is None else affine)


@pytest.mark.parametrize(
    ('value', 'dtype'), [(1, np.uint8), (255, np.uint8), (1.0, np.float32), (True, bool)]
)
def test_binary_encodings(value, dtype):
    annotation = read_label_values(volume({(1, 2, 3): value}, dtype), {})
    assert annotation.label.data.dtype == np.uint8
    assert annotation.label.data.sum() == annotation.label.data[1, 2, 3] == 1
    assert annotation.whole


def test_scaled_integers_are_whole_numbers():
    scaled = volume({(0, 0, 0): 255 * (1 / 255 + 1e-7)}, np.float64)
    assert read_label_values(scaled, {}).label.data[0, 0, 0] == 1


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({(0, 0, 0): 2}, 'values 0, 2'),
        ({(0, 0, 0): 1, (0, 0, 1): 255}, 'values 0, 1, 255'),
        ({(0, 0, 0): 0.4}, 'fractional'),
        ({(0, 0, 0): -1}, 'values 0, -1'),
        ({(0, 0, 0): np.nan}, 'not finite'),
    ],
)
def test_values_that_mean_nothing(values, message):
    with pytest.raises(DataError, match=message):
        read_label_values(volume(values, np.float32), {})


def test_empty_mask_is_whole_and_empty():
    annotation = read_label_values(volume({}), {})
    assert annotation.whole
    assert not annotation.label.data.any()


def test_three_values():
    drawn = volume({(0, 0, 0): 1, (0, 0, 1): 2})
    annotation = read_label_values(drawn, {'AnnotationExtent': 'dseg'}, table=TABLE)
    assert np.argwhere(annotation.label.data).tolist() == [[0, 0, 0]]
    assert np.argwhere(annotation.extent.data).tolist() == [[0, 0, 0], [0, 0, 1]]
    assert not annotation.whole


def test_encoding_in_the_sidecar():
    sidecar = {'AnnotationEncoding': {'0': 'not lesion', '3': 'lesion', '9': 'not annotated'}}
    annotation = read_label_values(volume({(0, 0, 0): 3, (0, 0, 1): 9}), sidecar)
    assert annotation.label.data.sum() == 1
    assert np.argwhere(~annotation.extent.data).tolist() == [[0, 0, 1]]


def test_value_without_a_row():
    with pytest.raises(DataError, match='does not define the label values 3'):
        read_label_values(volume({(0, 0, 0): 3}), {}, table=TABLE)


def test_zero_is_not_guessed_where_the_table_names_what_is_not_lesion():
    with pytest.raises(DataError, match='does not define the label values 0'):
        read_label_values(volume({(0, 0, 0): 1}), {}, table=TABLE[1:])
    background = [{'index': '0', 'name': 'Background'}, *TABLE[1:]]
    with pytest.raises(DataError, match='does not define the label values 0'):
        read_label_values(volume({(0, 0, 0): 1}), {}, table=background)


def test_instances_of_a_plain_dseg_are_lesions_on_background():
    table = [{'index': str(n), 'name': f'lesion {n}', 'mapping': '7'} for n in (1, 2)]
    annotation = read_label_values(volume({(0, 0, 0): 1, (3, 3, 3): 2}), {}, table=table)
    assert annotation.label.data.sum() == 2
    assert annotation.whole


@pytest.mark.parametrize(
    ('row', 'word'),
    [
        ({'name': 'Not_Annotated'}, 'not annotated'),
        ({'name': 'Lesion'}, 'lesion'),
        ({'name': 'WM hyperintensity', 'mapping': '7'}, 'lesion'),
        ({'name': 'not lesion', 'mapping': '7'}, 'not lesion'),
        ({'name': 'grey matter', 'mapping': '1'}, ''),
        ({'name': None, 'mapping': None}, ''),
    ],
)
def test_meaning_of_a_row(row, word):
    assert meaning(row) == word


def test_extent_mask_and_a_lesion_outside_of_it():
    extent = volume({(0, 0, 0): 1, (0, 0, 1): 1})
    drawn = volume({(0, 0, 0): 1, (3, 3, 3): 1})
    annotation = read_label_values(drawn, {'AnnotationExtent': 'mask'}, extent=extent)
    assert annotation.label.data.sum() == 2
    assert np.argwhere(annotation.extent.data).tolist() == [[0, 0, 0], [0, 0, 1], [3, 3, 3]]


def test_extent_on_another_grid():
    extent = volume({(0, 0, 0): 1}, affine=LAS)
    with pytest.raises(DataError, match='extent is on another grid.*axes LAS.*axes RAS'):
        read_label_values(volume({}), {}, extent=extent)


def test_slices_of_each_axis():
    for axis, number in (('i', 0), ('j', 1), ('k', 2)):
        sidecar = {'AnnotatedSlices': {'Axis': axis, 'Indices': [0, 3]}}
        annotation = read_label_values(volume({}), sidecar)
        annotated = np.moveaxis(annotation.extent.data, number, 0)
        assert [n for n in range(len(annotated)) if annotated[n].all()] == [0, 3]
        assert annotated.sum() == 2 * annotated[0].size


def test_slices_are_counted_as_stored_before_reorientation():
    sidecar = {'AnnotatedSlices': {'Axis': 'i', 'Indices': [0]}}
    annotation = read_label_values(volume({(0, 1, 1): 1}, affine=LAS), sidecar)
    turned = reorient_annotation(annotation)
    assert turned.extent.data[3].all()
    assert turned.extent.data.sum() == 30
    assert turned.label.data[3, 1, 1] == 1
    assert np.allclose(turned.label.affine, np.eye(4))


def test_what_is_drawn_beside_the_slices_is_not_used():
    sidecar = {'AnnotatedSlices': {'Axis': 'k', 'Indices': [1]}}
    annotation = read_label_values(volume({(0, 0, 1): 1, (0, 0, 2): 1}), sidecar)
    assert np.argwhere(annotation.label.data).tolist() == [[0, 0, 1]]
    assert annotation.unused == 1


def test_slices_that_leave_out_all_lesions_are_an_error():
    """Slices counted from 1, or along another axis."""
    drawn = volume({(0, 0, 2): 1, (1, 1, 3): 1})
    for slices in ({'Axis': 'k', 'Indices': [4, 5]}, {'Axis': 'j', 'Indices': [2, 3]}):
        with pytest.raises(DataError, match='2 of 2 lesion voxels lie outside AnnotatedSlices'):
            read_label_values(drawn, {'AnnotatedSlices': slices})
    message = r'slices 0, 1\); slices count from 0 along axis j'
    with pytest.raises(DataError, match=message):
        read_label_values(drawn, {'AnnotatedSlices': slices})
    nothing = read_label_values(volume({}), {'AnnotatedSlices': slices})
    assert (nothing.unused, nothing.whole) == (0, False)


def test_empty_slices_are_never_taken_for_unannotated():
    annotation = read_label_values(volume({(0, 0, 1): 1}), {})
    assert annotation.whole


@pytest.mark.parametrize(
    'slices',
    [
        {'Axis': 'k', 'Indices': [6]},
        {'Axis': 'k', 'Indices': [-1]},
        {'Axis': 'i', 'Indices': [0, 4]},
        {'Axis': 'k', 'Indices': [1.5]},
        {'Axis': 'k', 'Indices': [True]},
        {'Axis': 'k', 'Indices': []},
        {'Axis': 'z', 'Indices': [1]},
        {'Axis': 'k'},
        [1, 2],
    ],
)
def test_slices_that_make_no_sense(slices):
    with pytest.raises(DataError, match='AnnotatedSlices'):
        read_label_values(volume({}), {'AnnotatedSlices': slices})


def test_priority_of_three_values_over_mask_over_slices():
    slices = {'AnnotatedSlices': {'Axis': 'k', 'Indices': [5]}}
    extent = volume({(2, 2, 2): 1})
    by_mask = read_label_values(volume({}), slices, extent=extent)
    assert np.argwhere(by_mask.extent.data).tolist() == [[2, 2, 2]]
    by_value = read_label_values(volume({(1, 1, 1): 2}), slices, extent=extent, table=TABLE)
    assert np.argwhere(by_value.extent.data).tolist() == [[1, 1, 1]]


@pytest.mark.parametrize('declared', ['mask', 'dseg', 'slices', 'everywhere'])
def test_a_promise_that_is_not_kept(declared):
    with pytest.raises(DataError, match=f'AnnotationExtent is "{declared}"'):
        read_label_values(volume({}), {'AnnotationExtent': declared})


def test_rater_from_sidecar_or_name():
    assert read_label_values(volume({}), {'Rater': ['AB', 'CD']}).rater == 'AB, CD'
    assert read_label_values(volume({}), {}, rater='rater1').rater == 'rater1'


def _rater(*lesions, extent=None, rater='') -> Annotation:
    annotated = np.ones(SHAPE, bool) if extent is None else extent
    return Annotation(volume(dict.fromkeys(lesions, 1)), Volume(annotated, np.eye(4)), rater)


def test_majority_of_three_and_of_two():
    a, b, c = (0, 0, 0), (0, 0, 1), (0, 0, 2)
    joined = majority([_rater(a, b, rater='x'), _rater(a, b), _rater(a, c, rater='y')])
    assert np.argwhere(joined.label.data).tolist() == [list(a), list(b)]
    assert joined.rater == 'x, y'
    assert joined.whole
    # half is no majority
    assert majority([_rater(a, b), _rater(a, c)]).label.data.sum() == 1


def test_majority_counts_only_who_looked():
    extent = np.zeros(SHAPE, bool)
    extent[1] = True
    joined = majority([_rater((0, 0, 0)), _rater(extent=extent), _rater(extent=extent)])
    assert joined.label.data[0, 0, 0] == 1
    assert joined.whole
    empty = majority([_rater(extent=extent), _rater(extent=extent)])
    assert (empty.extent.data == extent).all()


def test_raters_on_different_grids():
    other = Annotation(volume({}, affine=LAS), volume({}, bool, affine=LAS))
    with pytest.raises(DataError, match='different grids'):
        majority([_rater(), other])
