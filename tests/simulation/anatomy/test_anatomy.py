import dataclasses
import json

import nibabel as nib
import numpy as np
import pytest
from label_phantom import label_head

from ssl2_bids.atlas import read_atlas
from ssl2_bids.errors import DataError
from ssl2_bids.simulation.anatomy.anatomy import (
    Anatomy,
    Deformation,
    deform,
    draw_deformation,
    rigid,
    sharpen,
    ventricles,
)
from ssl2_bids.simulation.anatomy.label_maps import (
    from_label_map,
    healthy_labels,
    label_table,
    read_label_map,
)
from ssl2_bids.simulation.anatomy.tissue_maps import from_mni_maps
from ssl2_bids.simulation.anatomy.tissues import read_tissues
from ssl2_bids.volume import Volume, write

STILL = Deformation((1.0, 1.0, 1.0), (0.0,) * 6, 0.0, 1.0, 0)


def generator(seed=0):
    return np.random.default_rng(seed)


def label_volume(labels=None, *, edge=1.0) -> Volume:
    labels = label_head() if labels is None else labels
    affine = np.diag([edge, edge, edge, 1.0])
    affine[:3, 3] = -edge * (np.array(labels.shape) - 1) / 2
    return Volume(labels, affine)


@pytest.fixture(scope='module')
def head() -> Anatomy:
    return from_label_map(label_volume())


@pytest.fixture(scope='module')
def whole_head() -> Anatomy:
    return from_label_map(label_volume(), skull_stripped=False)


def total(anatomy):
    return np.sum(list(anatomy.fractions.values()), axis=0)


def test_every_label_is_made_of_known_tissues():
    table = label_table()
    assert set(table.tissues) <= set(read_tissues(3.0))
    shares: dict[int, float] = {}
    for labels in table.tissues.values():
        for label, share in labels.items():
            shares[label] = shares.get(label, 0) + share
    assert all(share == pytest.approx(1) for share in shares.values())
    assert set(table.becomes.values()) | {into for *_, into in table.ranges} <= set(shares)


def test_label_map_becomes_fractions_with_partial_volume(head):
    labels = label_head()
    for name, values in (('wm', (2, 41)), ('gm', (3, 42)), ('thalamus', (10,))):
        volume = head.fractions[name].sum() * head.voxel_volume
        assert volume == pytest.approx(np.isin(labels, values).sum(), rel=0.02)
    assert total(head).max() <= 1 + 1e-5
    white = head.fractions['wm']
    assert ((white > 0.1) & (white < 0.9)).sum() > 1000
    assert white[head.labels == 2].mean() > 0.9


def test_skull_stripped_or_whole(head, whole_head):
    assert not set(head.fractions) & {'skin', 'skull'}
    assert {'skin', 'skull'} <= set(whole_head.fractions)
    assert head.labels.max() < 202 < whole_head.labels.max()
    assert whole_head.brain.sum() == pytest.approx(head.brain.sum(), rel=0.01)
    np.testing.assert_allclose(whole_head.centre, head.centre, atol=0.6)


def test_fluid_far_from_the_brain_and_stray_voxels_are_stripped():
    labels = np.pad(label_head(skull=False), ((0, 0), (0, 0), (50, 0)))
    labels[34:38, 34:38, 2:55] = 24
    labels[2, 2, 2] = 3
    stripped = from_label_map(label_volume(labels))
    assert stripped.shape[2] < 80
    assert stripped.shape[0] < 72


def test_lesions_and_parcels_become_healthy_structures():
    labels = label_head().astype(np.int32)
    expected = labels.copy()
    left, right = np.argwhere(labels == 2)[0], np.argwhere(labels == 41)[0]
    labels[tuple(left)], labels[tuple(right)] = 25, 57
    cortex = labels == 3
    labels[cortex] = 1005
    for wanted, parcels in ((2, (3005, 5001, 13105)), (41, (4005, 5002, 14105))):
        for place, parcel in zip(np.argwhere(labels == wanted), parcels, strict=False):
            labels[tuple(place)] = parcel
    found = healthy_labels(label_volume(labels))
    assert found.data.dtype == np.uint8
    np.testing.assert_array_equal(found.data, expected)


def with_label(number):
    labels = label_head().astype(np.int32)
    labels[36, 36, 36] = number
    return label_volume(labels)


@pytest.mark.parametrize(
    ('volume', 'message'),
    [
        (with_label(99), 'unknown labels in the label map: 99'),
        (with_label(-3), 'unknown labels in the label map: -3'),
        (label_volume(label_head() + 0.5), 'not whole numbers'),
        (label_volume(np.zeros((40, 40, 40))), 'is empty'),
        (label_volume(np.where(label_head() == 24, 24, 0)), 'almost no cerebral white matter'),
        (label_volume(edge=2.0), 'voxels of 2 x 2 x 2 mm'),
        (Volume(label_head(), np.diag([1.0, 1.0, 1.55, 1.0])), 'voxels of 1 x 1 x 1.55 mm'),
    ],
)
def test_label_maps_that_cannot_be_used_are_refused(volume, message):
    with pytest.raises(DataError, match=message):
        from_label_map(volume)


def test_errors_name_the_file(tmp_path):
    path = tmp_path / 'sub-01_seg.nii.gz'
    write(with_label(77_000), path, dtype=np.int32)
    with pytest.raises(DataError, match='77000') as caught:
        read_label_map(path)
    assert caught.value.path == str(path)
    with pytest.raises(DataError, match='no such file'):
        from_label_map(tmp_path / 'missing.nii.gz')


@pytest.mark.parametrize('off', [-4e-4, 4e-4])
def test_labels_that_a_scale_factor_changed_a_little_are_whole_numbers(off):
    labels = label_head()
    found = healthy_labels(label_volume(labels.astype(np.float32) + np.float32(off)))
    assert np.array_equal(found.data, healthy_labels(label_volume(labels)).data)


def test_other_axes_give_the_same_head(tmp_path):
    straight = label_volume()
    image = nib.Nifti1Image(straight.data, straight.affine)
    wanted = nib.orientations.axcodes2ornt('LIA')
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted)
    )
    path = tmp_path / 'lia.nii.gz'
    nib.save(turned, path)
    found = read_label_map(path)
    np.testing.assert_array_equal(found.data, straight.data)
    np.testing.assert_allclose(found.affine, straight.affine, atol=1e-6)


@pytest.mark.parametrize('edges', [(1.0, 1.0, 1.0), (1.0, 1.0, 1.2)])
def test_oblique_and_slightly_anisotropic_maps_are_straightened(edges):
    volume = label_volume()
    tilt = rigid(generator(3), shift=0, angle=12) if edges[2] == 1 else np.eye(4)
    oblique = dataclasses.replace(volume, affine=tilt @ volume.affine @ np.diag([*edges, 1]))
    found = healthy_labels(oblique)
    np.testing.assert_allclose(found.affine[:3, :3], np.eye(3), atol=1e-9)
    for label in (2, 3, 10, 4):
        volume_before = (volume.data == label).sum() * np.prod(edges)
        assert (found.data == label).sum() == pytest.approx(volume_before, rel=0.04)
    before = oblique.affine[:3, :3] @ np.argwhere(volume.data == 10).mean(axis=0)
    after = np.argwhere(found.data == 10).mean(axis=0) + found.affine[:3, 3]
    np.testing.assert_allclose(after, before + oblique.affine[:3, 3], atol=0.3)


def test_deforming_by_nothing_gives_the_template(head):
    same = deform(dataclasses.replace(head, sharpness=1.0), STILL)
    for name, fraction in head.fractions.items():
        assert same.fractions[name].sum() == pytest.approx(fraction.sum(), rel=1e-3)
    np.testing.assert_allclose(same.centre, head.centre, atol=0.6)


def test_deformation_scales_and_keeps_within_bounds(head):
    larger = deform(head, dataclasses.replace(STILL, scales=(1.2, 1.0, 1.0)))
    assert larger.brain.sum() == pytest.approx(1.2 * head.brain.sum(), rel=0.03)
    bent = deform(head, draw_deformation(generator(1)))
    assert total(bent).max() <= 1 + 1e-5
    assert min(fraction.min() for fraction in bent.fractions.values()) >= 0
    assert bent.labels.shape == bent.shape
    border = [bent.fractions['csf'].take([0, -1], axis=axis).max() for axis in range(3)]
    assert max(border) == 0


def test_deformation_is_the_same_at_any_voxel_size(head):
    draw = draw_deformation(generator(2), scaling=0.1, elastic=2.0)
    coarse, fine = (deform(head, draw, voxel_size=size) for size in (1.0, 0.7))
    np.testing.assert_allclose(fine.spacing, 0.7)
    for name in ('wm', 'gm', 'thalamus'):
        volumes = [a.fractions[name].sum() * a.voxel_volume for a in (coarse, fine)]
        assert volumes[1] == pytest.approx(volumes[0], rel=0.03)
        centres = [
            a.affine[:3, :3] @ np.argwhere(a.fractions[name] > 0.5).mean(axis=0) + a.affine[:3, 3]
            for a in (coarse, fine)
        ]
        np.testing.assert_allclose(centres[0], centres[1], atol=0.25)


def test_deformation_repeats_itself_from_json(head):
    draw = draw_deformation(generator(5), ventricles=(1.2, 1.6))
    stored = Deformation(**json.loads(json.dumps(dataclasses.asdict(draw))))
    first, second = deform(head, draw), deform(head, stored)
    assert all(
        first.fractions[name].tobytes() == second.fractions[name].tobytes()
        for name in first.fractions
    )
    other = deform(head, draw_deformation(generator(6)))
    assert other.shape != first.shape or (other.fractions['wm'] != first.fractions['wm']).any()


def test_ventricles_can_be_widened(head):
    wide = deform(head, dataclasses.replace(STILL, ventricles=1.6))
    before = deform(head, STILL)
    ratio = ventricles(wide).sum() / ventricles(before).sum()
    assert 1.3 < ratio < 1.9
    assert wide.brain.sum() == pytest.approx(before.brain.sum(), rel=0.06)


def test_sharpening_narrows_a_border_and_keeps_thin_layers():
    ramp = np.linspace(0, 1, 101, dtype=np.float32).reshape(-1, 1, 1)
    fractions = {'wm': ramp.copy(), 'gm': 1 - ramp}
    sharpen(fractions, 2.0)
    np.testing.assert_allclose(fractions['wm'] + fractions['gm'], 1, atol=1e-6)
    assert fractions['wm'][50, 0, 0] == pytest.approx(0.5)
    assert fractions['wm'][25, 0, 0] < 0.12
    thin = {'csf': np.full((1, 1, 1), 0.55, np.float32)}
    sharpen(thin, 2.0)
    assert thin['csf'].item() > 0.55


def test_template_maps_get_labels_on_either_side():
    atlas = read_atlas()
    maps = {name: volume.data for name, volume in atlas.items()}
    white = maps['white-matter'] + 0.6 * maps['brainstem']
    grey = maps['cortex'] + maps['deep-grey-matter'] + maps['cerebellum']
    brain = white + grey + maps['ventricles'] > 0.3
    affine = atlas['cortex'].affine
    anatomy = from_mni_maps(np.clip(white, 0, 1), np.clip(grey, 0, 1 - white), brain, affine)
    assert total(anatomy).max() <= 1 + 1e-5
    for left, right in ((2, 41), (3, 42), (4, 43), (10, 49), (8, 47)):
        count = [(anatomy.labels == label).sum() for label in (left, right)]
        assert min(count) > 50
        assert count[0] == pytest.approx(count[1], rel=0.1)
        x = affine[0, 0] * np.argwhere(anatomy.labels == left)[:, 0] + affine[0, 3]
        assert x.max() <= 0
    height = affine[2, 2] * np.argwhere(anatomy.labels == 10)[:, 2] + affine[2, 3]
    assert -8 < height.mean() < 20


def test_rigid_keeps_lengths_and_handedness():
    motion = rigid(generator(3), shift=5, angle=10)
    np.testing.assert_allclose(motion[:3, :3] @ motion[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(motion[:3, :3]) == pytest.approx(1)
    assert 0 < np.abs(motion[:3, 3]).max() <= 5
