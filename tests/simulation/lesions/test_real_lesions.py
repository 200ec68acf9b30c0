import shutil

import numpy as np
import pytest
from known_head import known_head

from ssl2_bids.errors import DataError, NoInputError
from ssl2_bids.simulation.anatomy.surroundings import survey
from ssl2_bids.simulation.lesions.growth import LesionAppearance, Origin
from ssl2_bids.simulation.lesions.lesions import Statistics, paint
from ssl2_bids.simulation.lesions.real import draw, read_shapes, transplant
from ssl2_bids.volume import Volume, read, write

LOOK = LesionAppearance(damage=0.3, t2_factor=1.8, edge=1.0, halo=0.2, reach=2.0)
# mm to the right, front and top of MNI space, and half axes in mm; all in deep white matter.
ELLIPSOIDS = {
    'p01': [((26, -20, 32), (5, 9, 4)), ((-26, 18, 26), (3, 3, 3)), ((24, 30, 16), (2, 4, 2))],
    'p02': [((-27, -30, 32), (4, 14, 5)), ((28, 8, 30), (2, 2, 2)), ((-25, -55, 24), (3, 5, 3))],
}


def generator(seed=0):
    return np.random.default_rng(seed)


def mask_of(ellipsoids) -> Volume:
    affine = np.eye(4)
    affine[:3, 3] = (-80, -110, -60)
    shape = (161, 190, 150)
    at = np.indices(shape).astype(np.float32) + affine[:3, 3].reshape(3, 1, 1, 1)
    data = np.zeros(shape, np.uint8)
    for centre, half in ellipsoids:
        offset = at - np.reshape(centre, (3, 1, 1, 1))
        data[((offset / np.reshape(half, (3, 1, 1, 1))) ** 2).sum(axis=0) <= 1] = 1
    return Volume(data, affine)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('masks')
    for patient, ellipsoids in ELLIPSOIDS.items():
        mask = mask_of(ellipsoids)
        if patient == 'p02':  # stored with another axis first to the left
            flip = np.diag([-1.0, 1, 1, 1])
            flip[0, 3] = mask.shape[0] - 1
            mask = Volume(mask.data[::-1], mask.affine @ flip)
        path = folder / f'{patient}_space-MNI152_label-lesion_mask.nii.gz'
        write(mask, path, dtype=np.uint8)
    return folder


@pytest.fixture(scope='module')
def shapes(folder):
    return read_shapes(folder)


def test_masks_that_are_not_compressed_are_used_too(folder, shapes, tmp_path):
    for path in folder.iterdir():
        end = '.nii' if path.name.startswith('p02') else '.nii.gz'
        write(read(path), tmp_path / (path.name.split('_')[0] + end), dtype=np.uint8)
    found = read_shapes(tmp_path)
    assert {one.patient for one in found.components} == {'p01', 'p02'}
    assert np.array_equal(found.volumes, shapes.volumes)
    shutil.copy(tmp_path / 'p02.nii', tmp_path / 'p01.nii')
    assert len({(c.patient, c.number) for c in read_shapes(tmp_path).components}) == 9


@pytest.fixture(scope='module')
def to_template():
    angle = np.deg2rad(8)
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1.08, 0.03, 0],
        [0, 1.05 * np.cos(angle), -1.05 * np.sin(angle)],
        [0, 1.1 * np.sin(angle), 1.1 * np.cos(angle)],
    ]
    matrix[:3, 3] = (1.5, -6.0, 4.0)
    return matrix


@pytest.fixture(scope='module')
def head(to_template):
    return known_head(to_template)


@pytest.fixture(scope='module')
def around(head):
    return survey(head)


def test_masks_are_split_into_lesions(shapes):
    assert len(shapes.components) == 6
    assert (np.diff(shapes.volumes) >= 0).all()
    largest = shapes.components[-1]
    assert (largest.patient, largest.number) == ('p02', 1)
    np.testing.assert_allclose(largest.centre, (-27, -30, 32), atol=0.3)
    assert largest.volume == pytest.approx(4 / 3 * np.pi * 4 * 14 * 5, rel=0.05)


def test_masks_whose_names_begin_alike_are_of_different_patients(folder, tmp_path):
    for number, path in enumerate(sorted(folder.glob('*.nii.gz')), start=1):
        shutil.copy(path, tmp_path / f'patient_{number:02d}.nii.gz')
    found = read_shapes(tmp_path).components
    assert {one.patient for one in found} == {'patient_01', 'patient_02'}
    assert len({(one.patient, one.number) for one in found}) == len(found) == 6


def test_folders_without_usable_masks_are_refused(tmp_path):
    with pytest.raises(NoInputError, match='no lesion masks'):
        read_shapes(tmp_path)
    path = tmp_path / 'p03_mask.nii.gz'
    write(Volume(np.full((9, 9, 9), 3), np.eye(4)), path, dtype=np.uint8)
    with pytest.raises(DataError, match='other values than 0 and 1') as caught:
        read_shapes(tmp_path)
    assert caught.value.path == str(path)


def test_template_is_found(around, to_template):
    found = around.to_template
    corners = np.array(np.meshgrid((-50, 50), (-80, 50), (-40, 60), [1.0])).reshape(4, -1)
    off = np.linalg.norm(((found - to_template) @ corners)[:3], axis=0)
    assert off.mean() < 3.0
    assert off.max() < 4.0


def test_a_lesion_comes_to_the_corresponding_place(shapes, around, to_template):
    component = next(c for c in shapes.components if (c.patient, c.number) == ('p01', 1))
    expected = (np.linalg.inv(to_template) @ [*component.centre, 1])[:3]
    free = np.zeros(around.shape, bool)
    volume = component.volume / np.linalg.det(to_template[:3, :3])
    for mirrored in (False, True):
        origin = Origin('p01', 1, mirrored, 1.0, (0.0, 0.0, 0.0))
        centre = component.centre * ([-1, 1, 1] if mirrored else [1, 1, 1])
        centre = (np.linalg.inv(to_template) @ [*centre, 1])[:3]
        lesion = draw(shapes, volume, LOOK, around, generator(0))
        lesion = type(lesion)(
            **{**vars(lesion), 'origin': origin, 'centre': tuple(map(float, centre))}
        )
        patch = transplant(shapes, lesion, origin, around, free)
        where = np.argwhere(patch.truth) + [b.start for b in patch.box]
        middle = np.array([around.point(w) for w in where]).mean(axis=0)
        np.testing.assert_allclose(middle, centre, atol=1.5)
        assert np.sign(middle[0]) == (-1 if mirrored else 1)
        assert patch.lesion.volume_mm3 == pytest.approx(volume, rel=0.15)
        if not mirrored:
            np.testing.assert_allclose(middle, expected, atol=1.5)
            # The longest axis of the shape is still the one from back to front.
            spread = where.std(axis=0)
            assert spread[1] > 1.3 * max(spread[0], spread[2])


def test_a_lesion_is_cut_to_tissue_or_given_up(shapes, around):
    free = np.zeros(around.shape, bool)
    origin = Origin('p01', 1, False, 1.0, (0.0, 0.0, 0.0))
    lesion = draw(shapes, 600.0, LOOK, around, generator(0))

    def at(centre):
        moved = type(lesion)(**{**vars(lesion), 'origin': origin, 'centre': centre})
        return transplant(shapes, moved, origin, around, free)

    ventricle = around.point(np.argwhere(around.to_ventricle == 0).mean(axis=0))
    for offset in (0, 12, 60, 300):
        patch = at(tuple(ventricle + [0, 0, offset]))
        if patch is not None:
            share = around.susceptible[patch.lesion.kind][patch.box]
            assert share[patch.truth].min() >= 0.5
    assert at(tuple(ventricle + [0, 0, 300])) is None
    assert at(tuple(map(float, lesion.centre))) is not None
    full = np.ones(around.shape, bool)
    assert transplant(shapes, lesion, lesion.origin, around, full) is None


def test_scale_turn_and_cut_are_drawn_within_bounds(shapes, around):
    drawn = [draw(shapes, 400.0, LOOK, around, generator(seed)) for seed in range(60)]
    found = [lesion for lesion in drawn if lesion is not None]
    assert len(found) > 40
    assert all(0.69 <= lesion.origin.scale <= 1.41 for lesion in found)
    assert {lesion.origin.mirrored for lesion in found} == {True, False}
    assert any(lesion.origin.cut for lesion in found)
    assert draw(shapes, 1e6, LOOK, around, generator()) is None


def test_painting_with_real_shapes(head, shapes):
    lesions = paint(head, generator(1), load=4.0, shapes=shapes, statistics=Statistics(real=1.0))
    real = [lesion for lesion in lesions.table if lesion.form == 'real']
    assert len(real) > 3
    assert all(lesion.origin.patient in ELLIPSOIDS for lesion in real)
    assert lesions.volume_ml == pytest.approx(4.0, rel=0.05)
    again = paint(head, generator(1), load=4.0, shapes=shapes, statistics=Statistics(real=1.0))
    assert again.severity.tobytes() == lesions.severity.tobytes()
    assert again.table == lesions.table
    none = paint(head, generator(1), load=1.0, shapes=shapes, statistics=Statistics(real=0.0))
    assert not any(lesion.form == 'real' for lesion in none.table)
