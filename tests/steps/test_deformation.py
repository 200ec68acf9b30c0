"""Non-linear registration to a template: a known deformation, lesions, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ssl2_bids.errors import DataError
from ssl2_bids.itk import LPS, write_composite
from ssl2_bids.steps import deformation
from ssl2_bids.steps.template import template
from ssl2_bids.volume import Volume, resample, resample_deformed, shifted

EDGE = 3.0  # mm; coarse, for speed


@pytest.fixture(scope='module')
def model() -> Volume:
    """The template's brain on coarse voxels."""
    whole = template()
    affine = np.diag([EDGE, EDGE, EDGE, 1.0])
    affine[:3, 3] = (-78, -114, -72)
    return resample(whole, affine, (52, 66, 54))


@pytest.fixture(scope='module')
def bend(model) -> np.ndarray:
    """Smooth shifts of up to some 8 mm, (I, J, K, 3)."""
    noise = np.random.default_rng(3).normal(size=(*model.shape, 3))
    smooth = np.stack([ndimage.gaussian_filter(noise[..., a], 8) for a in range(3)], axis=-1)
    return (smooth / np.abs(smooth).max() * 8).astype(np.float32)


@pytest.fixture(scope='module')
def matrix() -> np.ndarray:
    found = np.diag([0.95, 0.9, 0.97, 1.0])
    found[:3, 3] = (3, -4, 5)
    return found


@pytest.fixture(scope='module')
def head(model, bend, matrix) -> Volume:
    """A brain of another contrast that is a bent template, with a receive field."""
    bent = resample_deformed(
        model, model, transform=np.eye(4), shifts=bend, shifts_affine=model.affine
    )
    placed = resample(bent, model.affine, model.shape, transform=np.linalg.inv(matrix))
    field = np.linspace(0.7, 1.4, model.shape[0])[:, None, None]
    data = np.where(placed.data > 0.2, (1.3 - placed.data) * field, 0)
    return placed.with_data(data.astype(np.float32))


def mask_of(volume: Volume) -> Volume:
    return volume.with_data((volume.data > 0.15).astype(np.uint8))


@pytest.fixture(scope='module')
def found(model, head, matrix) -> deformation.Deformation:
    return deformation.register_deformation(
        model, head, matrix, template_mask=mask_of(model), image_mask=mask_of(head)
    )


def brain_points(model: Volume) -> np.ndarray:
    """Points well inside the brain, (3, N) RAS+ mm."""
    inside = ndimage.binary_erosion(model.data > 0.15, iterations=3)
    return model.affine[:3, :3] @ np.argwhere(inside)[::11].T + model.affine[:3, 3:]


def test_finds_a_known_deformation_of_another_contrast(found, model, bend, matrix):
    """A point of the template lies in the head where the bent template has it."""
    points = brain_points(model)
    moved = shifted(points, found.forward, found.affine)
    back = shifted(moved, bend, model.affine)  # the head shows there the template at this point
    error = np.linalg.norm(back - points, axis=0)
    undone = np.linalg.norm(shifted(points, bend, model.affine) - points, axis=0)
    assert undone.mean() > 2
    assert error.mean() < 0.4 * undone.mean()
    assert found.after > found.before + 0.15


def test_forth_and_back_is_the_identity(found, model, matrix):
    points = brain_points(model)
    there = matrix[:3, :3] @ shifted(points, found.forward, found.affine) + matrix[:3, 3:]
    again = deformation.to_template_points(there.T, found).T
    error = np.linalg.norm(again - points, axis=0)
    assert error.mean() < 0.1
    assert error.max() < 0.6


def test_nothing_folds(found):
    steps = found.affine[:3, :3].diagonal()
    slopes = [np.gradient(found.forward[..., a], *steps) for a in range(3)]
    jacobian = np.moveaxis(np.array(slopes), (0, 1), (-2, -1)) + np.eye(3)
    assert (np.linalg.det(jacobian) <= 0).mean() < 1e-4


@pytest.mark.slow
def test_equal_bytes(found, model, head, matrix):
    again = deformation.register_deformation(
        model, head, matrix, template_mask=mask_of(model), image_mask=mask_of(head)
    )
    assert again.forward.tobytes() == found.forward.tobytes()
    assert again.backward.tobytes() == found.backward.tobytes()


@pytest.mark.slow
def test_lesions_do_not_bend_the_brain(found, model, head, matrix):
    """A bright lesion changes the result less where it is filled."""
    centre = np.array([30, 36, 30])
    distance = np.linalg.norm(np.indices(head.shape).T - centre, axis=-1).T * EDGE
    lesions = head.with_data((distance < 11).astype(np.uint8))
    ill = head.with_data(np.where(lesions.data, head.data * 0 + 3.0, head.data))
    masks = {'template_mask': mask_of(model), 'image_mask': mask_of(head)}
    filled = deformation.register_deformation(model, ill, matrix, lesions=lesions, **masks)
    plain = deformation.register_deformation(model, ill, matrix, **masks)
    points = brain_points(model)
    truth = shifted(points, found.forward, found.affine)
    errors = [
        np.linalg.norm(shifted(points, one.forward, one.affine) - truth, axis=0)
        for one in (filled, plain)
    ]
    assert errors[0].mean() < 0.6 * errors[1].mean()


def test_filled_lesions_look_like_their_surroundings(head):
    data = np.full(head.shape, 5.0, np.float32)
    lesions = np.zeros(head.shape, np.uint8)
    lesions[20:30, 20:30, 20:30] = 1
    data[lesions > 0] = 90
    image = head.with_data(data)
    filled = deformation.without_lesions(
        image, head.with_data(np.ones(head.shape, np.uint8)), head.with_data(lesions)
    )
    assert np.allclose(filled.data, 5)
    assert image.data.max() == 90


def test_lesions_keep_numbers_and_fall_into_the_template(found, model, head):
    instances = np.zeros(head.shape, np.uint16)
    instances[18:24, 30:36, 26:31] = 1
    instances[32:35, 30:33, 26:29] = 2
    lesions = head.with_data(instances)
    there = deformation.lesions_to_template(lesions, found, model)
    assert set(np.unique(there.data)) == {0, 1, 2}
    rows = [
        {'index': n, **dict(zip('xyz', head.affine[:3, :3] @ c + head.affine[:3, 3], strict=True))}
        for n, c in ((1, (20.5, 32.5, 28)), (2, (33, 31, 27)))
    ]
    moved = deformation.lesions_in_template(rows, there, found)
    for row in moved:
        voxels = np.argwhere(there.data == row['index'])
        assert row['voxel_count'] == len(voxels)
        assert row['volume_mm3'] == pytest.approx(len(voxels) * EDGE**3)
        centre = there.affine[:3, :3] @ voxels.mean(axis=0) + there.affine[:3, 3]
        assert np.linalg.norm(centre - [row[axis] for axis in 'xyz']) < EDGE


@pytest.mark.parametrize('linear_first', [False, True])
def test_itk_applies_the_files(found, tmp_path, matrix, linear_first):
    import SimpleITK as sitk

    path = tmp_path / 'a_xfm.h5'
    field = found.backward if linear_first else found.forward
    write_composite(path, matrix, field, found.affine, linear_first=linear_first)
    first = path.read_bytes()
    write_composite(path, matrix, field, found.affine, linear_first=linear_first)
    assert path.read_bytes() == first
    transform = sitk.ReadTransform(str(path))
    for point in np.random.default_rng(0).uniform(-40, 40, (50, 3)):
        if linear_first:
            mapped = matrix[:3, :3] @ point + matrix[:3, 3]
            ours = shifted(mapped[:, None], field, found.affine)[:, 0]
        else:
            mapped = shifted(point[:, None], field, found.affine)[:, 0]
            ours = matrix[:3, :3] @ mapped + matrix[:3, 3]
        theirs = transform.TransformPoint((LPS[:3, :3] @ point).tolist())
        assert np.allclose(LPS[:3, :3] @ theirs, ours, atol=1e-3)


def test_an_empty_mask_is_an_error(model, head, matrix):
    empty = head.with_data(np.zeros(head.shape, np.uint8))
    with pytest.raises(DataError, match='brain mask is empty'):
        deformation.register_deformation(
            model, head, matrix, template_mask=mask_of(model), image_mask=empty
        )


def test_a_deformation_is_kept_in_a_file(found, tmp_path):
    deformation.write_deformation(found, tmp_path / 'a.npz')
    again = deformation.read_deformation(tmp_path / 'a.npz')
    assert again.forward.tobytes() == found.forward.tobytes()
    assert (again.before, again.after) == (found.before, found.after)


def test_a_deformation_is_read_from_the_composites_that_were_written(model, head, found, tmp_path):
    from ssl2_bids.itk import read_transform

    names = tmp_path / 'forth.h5', tmp_path / 'back.h5'
    write_composite(names[0], found.matrix, found.forward, found.affine, linear_first=False)
    back = np.linalg.inv(found.matrix)
    write_composite(names[1], back, found.backward, found.affine, linear_first=True)
    forth, back = (read_transform(name) for name in names)
    again = deformation.given_deformation(forth, back, model)
    assert np.allclose(again.matrix, found.matrix, atol=1e-4)
    ours, theirs = (deformation.to_template(head, one, model).data for one in (found, again))
    inside = mask_of(model).data > 0
    assert np.abs(ours - theirs)[inside].max() < 0.03 * ours.max()
    dice, apart = deformation.check_deformation(
        again, image_mask=mask_of(head), template_mask=mask_of(model)
    )
    assert dice > 0.93
    assert apart < 0.5
    for wrong, text in (
        (deformation.given_deformation(back, forth, model), 'does not fit this brain'),
        (deformation.given_deformation(forth, forth, model), 'are not inverse'),
    ):
        with pytest.raises(DataError, match=text):
            deformation.check_deformation(
                wrong, image_mask=mask_of(head), template_mask=mask_of(model)
            )


def test_a_file_that_is_no_transform(tmp_path):
    from ssl2_bids.itk import read_transform

    (tmp_path / 'x.h5').write_text('nothing')
    with pytest.raises(DataError, match='not a readable ITK transform'):
        read_transform(tmp_path / 'x.h5')
