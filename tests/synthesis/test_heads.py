import numpy as np
import pytest
from label_phantom import label_head
from scipy import ndimage

from ssl2_bids.errors import DataError, NoInputError
from ssl2_bids.synthesis.heads import (
    DISTANCE_SCALE,
    INDEX,
    frame_of,
    load_heads,
    make_head,
    save_heads,
    tract_map,
)
from ssl2_bids.workflows.heads import healthy_labels


@pytest.fixture(scope='module')
def masks():
    """Two patients in MNI space: one beside the ventricles, one outside any head."""
    affine = np.array([[2.0, 0, 0, -90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
    near, far = np.zeros((2, 91, 109, 91), bool)
    near[30:34, 50:54, 48:52] = True
    near[60:63, 40:44, 50:53] = True
    far[0:3, 0:3, 0:3] = True
    return [near, far], affine


@pytest.fixture(scope='module')
def head(masks):
    return make_head('one', label_head(), patients=masks[0], patient_affine=masks[1])


def test_groups_and_distances_fit_the_label_map(head):
    assert head.groups.max() < len(INDEX)
    ventricle = head.groups == INDEX['ventricle']
    assert ventricle.any()
    assert (head.to_ventricle[ventricle] == 0).all()
    beside = np.roll(ventricle, 1, axis=0) & ~ventricle & (head.groups == INDEX['white'])
    assert (head.to_ventricle[beside] == DISTANCE_SCALE).all()
    assert (head.to_cortex[head.groups == INDEX['cortex']] == 0).all()


def test_tracts_lie_in_white_matter_alone(head):
    white = np.isin(head.groups, (INDEX['white'], INDEX['brainstem']))
    assert head.tract.max() > 200
    assert not head.tract[~white].any()


def test_tracts_turn_with_the_head(head):
    turned = ndimage.rotate(head.groups, 15, axes=(1, 2), order=0, reshape=False)
    found = tract_map(turned)
    expected = ndimage.rotate(head.tract, 15, axes=(1, 2), order=1, reshape=False)
    both = np.isin(turned, (INDEX['white'], INDEX['brainstem'])) & (expected + found > 0)
    assert np.corrcoef(found[both], expected[both])[0, 1] > 0.95


def test_tracts_run_where_the_atlas_has_them():
    head = make_head('large', label_head(144))
    thalamus = np.argwhere(head.groups == INDEX['thalamus'])
    stem = np.argwhere(head.groups == INDEX['brainstem'])
    middle, front, up = frame_of(thalamus, stem)
    edge = (thalamus - middle)[:, 0].max()
    places = np.argwhere(head.tract > 200) - middle
    places = places[places[:, 0] > 0]
    lateral, height, forward = places[:, 0] - edge, places @ up, places @ front
    behind = (thalamus - middle) @ front
    behind = behind.min() - forward
    for low, expected in ((0, -5), (10, -2.5), (20, 1), (30, -3)):  # inwards at the top
        here = (height >= low) & (height < low + 10)
        assert lateral[here].mean() == pytest.approx(expected, abs=2)
    for low, expected in ((0, 11), (10, 7.5)):  # medially to the back
        here = (behind >= low) & (behind < low + 10) & (height < -5)
        assert lateral[here].mean() == pytest.approx(expected, abs=2.5)


def test_a_head_without_brain_stem_has_no_tracts(head):
    assert not tract_map(np.where(head.groups == INDEX['brainstem'], 0, head.groups)).any()


def test_real_lesions_lie_on_tissue_and_those_outside_are_left_out(head):
    assert len(head.patients) == 1
    lesions = head.patients[0]
    assert len(lesions.voxels) > 20
    under = head.groups.ravel()[lesions.voxels]
    assert not np.isin(under, (INDEX['outside'], INDEX['ventricle'], INDEX['bone'])).any()
    assert set(lesions.instance) == set(range(int(lesions.instance.max()) + 1))


def test_stored_heads_come_back_equal(head, tmp_path):
    scan = (np.random.default_rng(0).random(label_head().shape) * 255).astype(np.uint8)
    other = make_head('two', label_head(skull=False), t1w=scan)
    save_heads(tmp_path / 'heads.npz', [head, other])
    for before, after in zip((head, other), load_heads(tmp_path / 'heads.npz'), strict=True):
        assert after.name == before.name
        for key in ('groups', 'to_ventricle', 'to_cortex', 'tract'):
            assert np.array_equal(getattr(after, key), getattr(before, key))
        assert len(after.patients) == len(before.patients)
        for a, b in zip(after.patients, before.patients, strict=True):
            assert np.array_equal(a.voxels, b.voxels)
            assert np.array_equal(a.instance, b.instance)
    assert np.array_equal(load_heads(tmp_path / 'heads.npz')[1].t1w, other.t1w)


def test_a_damaged_pack_is_named(tmp_path):
    path = tmp_path / 'heads.npz'
    path.write_bytes(b'not a zip')
    with pytest.raises(DataError, match='heads.npz'):
        load_heads(path)


@pytest.mark.parametrize('content', ['nothing', 'one array', 'other arrays', 'flat groups'])
def test_another_file_than_heads_is_named(content, tmp_path):
    path = tmp_path / 'heads.npz'
    with open(path, 'wb') as stream:
        if content == 'one array':
            np.save(stream, np.zeros(3))
        elif content == 'other arrays':
            np.savez(stream, names=np.array('one'))
        elif content == 'flat groups':
            np.savez(stream, **{'names': np.array(['one']), '0_groups': np.zeros(4, np.uint8)})
    with pytest.raises(DataError, match='prepared dataset of heads cannot be read'):
        load_heads(path)


def test_a_missing_file_of_heads_has_its_own_advice(tmp_path):
    with pytest.raises(NoInputError, match='No such file .* Check the key "heads"'):
        load_heads(tmp_path / 'none.npz')


@pytest.mark.parametrize('value', [2.4, np.nan, np.inf])
def test_labels_that_are_no_whole_numbers_are_refused(value):
    labels = label_head(40).astype(np.float32)
    labels[labels == 2] = value
    with pytest.raises(DataError, match='not whole numbers'):
        make_head('odd', labels)


@pytest.mark.parametrize('off', [-4e-4, 4e-4])
def test_what_a_scale_factor_leaves_of_whole_numbers_is_rounded(off):
    labels = label_head(40).astype(np.int32)
    labels[labels == 3] = 1035
    stored = labels * np.float32(1) + np.float32(off)
    assert np.array_equal(healthy_labels(stored), healthy_labels(labels))
    whole = healthy_labels(labels)
    found = make_head('off', whole + np.float32(off))
    assert np.array_equal(found.groups, make_head('whole', whole).groups)
    with pytest.raises(DataError, match='unknown labels'):  # 2 in 32 bits
        make_head('large', np.where(whole == 2, 2.0**32 + 2, whole))
    with pytest.raises(DataError, match='without a scale factor'):
        healthy_labels(labels + np.float32(50 * off))


def test_lesions_of_patients_need_a_cortex(masks):
    labels = label_head(40)
    labels[np.isin(labels, (3, 42))] = 2
    assert make_head('smooth', labels).to_cortex.min() == 255
    with pytest.raises(DataError, match='smooth has no cortex to fit lesion masks to'):
        make_head('smooth', labels, patients=masks[0], patient_affine=masks[1])


def test_unknown_labels_are_named():
    labels = label_head()
    labels[0, 0, 0] = 99
    with pytest.raises(DataError, match='unknown labels: 99'):
        make_head('odd', labels)


def test_a_map_without_white_matter_is_refused():
    with pytest.raises(DataError, match='no white matter'):
        make_head('empty', np.zeros((20, 20, 20), np.uint8))
