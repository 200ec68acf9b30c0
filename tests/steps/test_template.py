"""The template and the affine way from it to an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ssl2_bids.steps.template import implausible, methods, register_to_template, template
from ssl2_bids.volume import Volume, read, resample


@pytest.fixture(scope='module')
def model() -> Volume:
    return template()


def head_of(model: Volume, matrix: np.ndarray) -> Volume:
    """The template's brain, smaller and turned, with the contrast of a T2w image."""
    affine = np.diag([1.6, 1.6, 3.0, 1.0])
    shape = (120, 140, 64)
    affine[:3, 3] = -np.array(shape) / 2 * [1.6, 1.6, 3.0]
    moved = resample(model, affine, shape, transform=np.linalg.inv(matrix))
    inside = moved.data > 0.2
    return moved.with_data(np.where(inside, 1.2 - moved.data, 0).astype(np.float32))


def corners_error(one: np.ndarray, other: np.ndarray, model: Volume) -> float:
    """Mean distance in mm over the template's brain."""
    points = np.argwhere(model.data > 0)[::997] @ model.affine[:3, :3].T + model.affine[:3, 3]
    change = one - other
    return float(np.linalg.norm(points @ change[:3, :3].T + change[:3, 3], axis=1).mean())


def test_template_is_the_brain_alone_in_mni_space(model):
    assert model.shape == (197, 233, 189)
    assert model.contrast == 'T1w'
    assert np.allclose(model.spacing, 1)
    assert 1.7e6 < (model.data > 0).sum() < 2.0e6
    assert model.data[98, 134, 0] == 0


def test_finds_a_smaller_turned_brain_of_another_contrast(model):
    truth = np.eye(4)
    truth[:3, :3] = Rotation.from_euler('xyz', (-10, 4, 6), degrees=True).as_matrix()
    truth[:3, :3] *= [0.88, 0.84, 0.9]
    truth[:3, 3] = (4, -10, 15)
    image = head_of(model, truth)
    mask = image.with_data((image.data > 0).astype(np.uint8))
    found = register_to_template(image, mask)
    assert corners_error(found.matrix, truth, model) < 0.6
    assert found.warning == ''
    assert found.brain_dice > 0.95
    unstripped = image.with_data(np.where(mask.data, image.data, np.nan))
    again = register_to_template(unstripped, mask)
    assert again.matrix.tobytes() == found.matrix.tobytes()


def test_half_a_brain_is_warned_of(model):
    image = head_of(model, np.eye(4))
    mask = (image.data > 0).astype(np.uint8)
    mask[:, :, :40] = 0
    found = register_to_template(image, image.with_data(mask))
    assert found.warning


@pytest.mark.parametrize(
    ('matrix', 'dice', 'reason'),
    [
        (np.diag([0.9, 0.85, 0.8, 1.0]), 0.95, ''),
        (np.diag([0.6, 0.65, 0.7, 1.0]), 0.95, 'volume'),
        (np.diag([1.4, 1.4, 1.4, 1.0]), 0.95, 'volume'),
        (np.diag([-1.0, 1.0, 1.0, 1.0]), 0.95, 'volume'),
        (np.diag([1.6, 0.8, 0.8, 1.0]), 0.95, 'stretched'),
        (np.eye(4), 0.7, 'Dice 0.70'),
    ],
)
def test_what_no_head_can_be_is_warned_of(matrix, dice, reason):
    warning = implausible(matrix, dice=dice)
    assert reason in warning
    assert bool(warning) == bool(reason)


@pytest.mark.slow
def test_contrasts_of_a_patient_agree(model, shared_data: Path):
    folder = shared_data / 'ms-stripped' / 'sub-lj19' / 'anat'
    flair = read(folder / 'sub-lj19_FLAIR.nii.gz', contrast='FLAIR')
    t1w = read(folder / 'sub-lj19_T1w.nii.gz', contrast='T1w')
    mask = flair.with_data((flair.data > 0).astype(np.uint8))
    by_flair, by_t1w = register_to_template(flair, mask), register_to_template(t1w, mask)
    assert by_flair.warning == by_t1w.warning == ''
    assert corners_error(by_flair.matrix, by_t1w.matrix, model) < 1.5


def test_methods_name_the_reference():
    assert 'UNIT1' in methods('UNIT1')
    assert '[@fonov2011]' in methods('UNIT1')
