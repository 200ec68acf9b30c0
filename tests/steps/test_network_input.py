"""The tensor a card asks for: grid, order, normalisation, what is not known, and the way back."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl2_bids.errors import DataError, NoInputError, UnavailableError
from ssl2_bids.networks.cards import channel_of
from ssl2_bids.networks.weights import find_model
from ssl2_bids.steps.network_input import (
    MARGIN,
    methods,
    network_input,
    normalise,
    to_reference,
)
from ssl2_bids.volume import Volume, reorient, resample

REFERENCE = Path(__file__).resolve().parents[2] / '../shared/weights/bootstrap-3t/network.py'


@pytest.fixture
def card(tmp_path):
    return find_model('fast-3t', tmp_path)


def grid(shape=(40, 44, 36), spacing=(1.0, 1.0, 1.0), *, turn=0.0):
    """An affine that centres a volume on the origin, turned by ``turn`` radians about z."""
    affine = np.eye(4)
    cos, sin = np.cos(turn), np.sin(turn)
    affine[:3, :3] = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ np.diag(spacing)
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    return affine


def millimetres(affine, shape):
    index = np.stack([*np.indices(shape), np.ones(shape)], -1)
    return (index @ affine.T)[..., :3]


def head(affine, shape, contrast=''):
    """A smooth image that is linear in millimetres, so that linear interpolation is exact."""
    x, y, z = np.moveaxis(millimetres(affine, shape), -1, 0)
    return Volume((500 + 3 * x - 2 * y + 5 * z).astype(np.float32), affine, contrast)


def ball(affine, shape, radius=12.0, centre=(0, 0, 0)):
    distance = np.linalg.norm(millimetres(affine, shape) - np.array(centre), axis=-1)
    return Volume((distance < radius).astype(np.uint8), affine)


def test_unit1_goes_to_the_t1w_channel_of_a_card_without_its_own(card):
    assert channel_of('UNIT1', card) == 'T1w'
    assert channel_of('T2w', card) == 'T2w'
    assert channel_of('T2starw', card) == 'T2starw'
    assert channel_of('T2starw', replace(card, channels=('FLAIR', 'T1w'))) is None
    own = replace(card, channels=('UNIT1', 'T1w'))
    assert channel_of('UNIT1', own) == 'UNIT1'
    assert channel_of('UNIT1', replace(card, channels=('FLAIR',))) is None


def test_channels_stand_in_the_order_of_the_card_and_absent_ones_are_zero(card):
    affine, shape = grid(), (40, 44, 36)
    images = {'UNIT1': head(affine, shape), 'T2starw': head(affine, shape)}
    given = network_input(images, {}, ball(affine, shape), card)
    assert given.present == (None, 'UNIT1', None, 'T2starw')
    assert given.contrasts == ('UNIT1', 'T2starw')
    assert given.coverage == {'UNIT1': 1.0, 'T2starw': 1.0}
    assert not given.tensor[[0, 2]].any()
    assert given.tensor[1].any()
    assert given.tensor[3].any()
    images = {name: head(affine, shape) for name in ('UNIT1', 'T2starw', 'T1w', 'FLAIR')}
    three = replace(card, channels=('FLAIR', 'T1w', 'T2w'))
    assert network_input(images, {}, ball(affine, shape), three).present == ('FLAIR', 'T1w', None)


def test_missing_contrasts_are_named(card):
    affine, shape = grid(), (40, 44, 36)
    with pytest.raises(NoInputError, match='needs FLAIR or T1w; given are T2w'):
        network_input({'T2w': head(affine, shape)}, {}, ball(affine, shape), card)
    both = replace(card, required=(('FLAIR', 'T1w'),))
    with pytest.raises(NoInputError, match=r'needs FLAIR\+T1w; given are FLAIR'):
        network_input({'FLAIR': head(affine, shape)}, {}, ball(affine, shape), both)


def test_equal_voxels_coincide_and_are_not_interpolated(card):
    affine, shape = grid(turn=0.3), (40, 44, 36)
    rng = np.random.default_rng(0)
    image = Volume(rng.uniform(100, 200, shape).astype(np.float32), affine, 'FLAIR')
    mask = ball(affine, shape)
    given = network_input({'FLAIR': image}, {}, mask, card)
    offset = np.linalg.inv(affine) @ given.affine
    np.testing.assert_allclose(offset[:3, :3], np.eye(3), atol=1e-9)
    np.testing.assert_allclose(offset[:3, 3], np.rint(offset[:3, 3]), atol=1e-9)
    inside = image.data[mask.data > 0]
    values = given.tensor[0][given.brain].numpy()
    median = np.sort(inside)[(inside.size - 1) // 2]
    spread = np.sort(abs(inside - median))[(inside.size - 1) // 2]
    expected = np.clip((inside - median) / (1.4826 * spread + 1e-6), -6, 8) / 3
    np.testing.assert_allclose(values, expected, atol=1e-5)
    # the brain with its margin, and nothing more
    assert given.brain.shape == (24 + 2 * int(MARGIN),) * 3


@pytest.mark.parametrize('unit', [1e-4, 1e-6, 1e-8])
def test_the_unit_of_an_image_does_not_matter(card, unit):
    affine, shape = grid(), (40, 44, 36)
    data = np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)
    mask = ball(affine, shape)
    usual, small = (
        network_input({'FLAIR': Volume(scale * data, affine, 'FLAIR')}, {}, mask, card).tensor
        for scale in (1, np.float32(unit / 100))
    )
    torch.testing.assert_close(small, usual, rtol=1e-4, atol=1e-4)


def test_normalisation_is_that_of_training(card):
    if not REFERENCE.is_file():
        pytest.skip('the reference network is not there')
    spec = importlib.util.spec_from_file_location('reference_network', REFERENCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    values = torch.rand(20, 20, 20, generator=torch.Generator().manual_seed(0)) ** 6 * 900 + 1
    brain = torch.zeros(20, 20, 20, dtype=torch.bool)
    brain[3:17, 4:18, 2:15] = True
    ours = normalise(values, brain, card)
    assert torch.equal(ours, module.normalise(values * brain, brain))
    assert ours.max() == pytest.approx(8 / 3)


@pytest.mark.parametrize('spacing', [(0.7, 0.7, 0.7), (0.5, 0.5, 3.0), (1.0, 2.0, 1.3)])
def test_another_grid_is_interpolated_in_millimetres(card, spacing):
    shape = tuple(int(40 / s) for s in spacing)
    affine = grid(shape, spacing, turn=0.2)
    given = network_input({'FLAIR': head(affine, shape)}, {}, ball(affine, shape, radius=13), card)
    np.testing.assert_allclose(np.linalg.norm(given.affine[:3, :3], axis=0), 1)
    np.testing.assert_allclose(given.affine[:3, :3] * spacing, affine[:3, :3], atol=1e-12)
    brain = given.brain.numpy()
    assert brain.sum() == pytest.approx(4 / 3 * np.pi * 13**3, rel=0.05)
    truth = head(given.affine, given.brain.shape).data
    expected = normalise(torch.from_numpy(truth), given.brain, card)
    core = torch.from_numpy(ball(given.affine, given.brain.shape, radius=10).data > 0)
    torch.testing.assert_close(given.tensor[0][core], expected[core], atol=0.02, rtol=0)


def test_transforms_lead_from_the_reference_to_the_image(card):
    affine, shape = grid(), (40, 44, 36)
    move = np.eye(4)
    move[:3, :3] = grid(turn=0.5)[:3, :3]
    move[:3, 3] = (3.0, -2.0, 1.5)
    own = grid((60, 60, 50), (0.8, 0.9, 1.0))
    # at x of the reference the moved image shows what the head has there
    x, y, z = np.moveaxis(millimetres(np.linalg.inv(move) @ own, (60, 60, 50)), -1, 0)
    moved = Volume((500 + 3 * x - 2 * y + 5 * z).astype(np.float32), own)
    images = {'FLAIR': head(affine, shape), 'T1w': moved}
    given = network_input(images, {'T1w': move}, ball(affine, shape), card)
    torch.testing.assert_close(given.tensor[1], given.tensor[0], atol=0.01, rtol=0)
    without = network_input(images, {}, ball(affine, shape), card)
    assert (without.tensor[1] - without.tensor[0]).abs().max() > 0.1


def test_brain_outside_the_field_of_view_is_zero_and_not_in_the_statistics(card):
    affine, shape = grid(), (40, 44, 36)
    whole = head(affine, shape)
    slab_affine = affine.copy()
    slab_affine[:3, 3] = (affine @ [0, 0, 20, 1])[:3]
    slab = Volume(whole.data[:, :, 20:], slab_affine)
    mask = ball(affine, shape)
    given = network_input({'FLAIR': whole, 'T1w': slab}, {}, mask, card)
    covered = given.brain.numpy() & (
        millimetres(given.affine, given.brain.shape)[..., 2] > slab_affine[2, 3] - 0.01
    )
    assert given.coverage['T1w'] == pytest.approx(covered.sum() / given.brain.sum().item())
    assert 0.3 < given.coverage['T1w'] < 0.6
    assert not given.tensor[1].numpy()[~covered].any()
    expected = normalise(
        torch.from_numpy(head(given.affine, given.brain.shape).data),
        torch.from_numpy(covered),
        card,
    )
    torch.testing.assert_close(given.tensor[1], expected, atol=1e-4, rtol=0)


def test_a_brain_that_reaches_the_last_slices_keeps_them(card):
    shape, spacing = (40, 40, 8), (1.0, 1.0, 4.0)
    affine = grid(shape, spacing)
    mask = Volume(np.zeros(shape, np.uint8), affine)
    mask.data[8:32, 8:32] = 1
    given = network_input({'FLAIR': head(affine, shape)}, {}, mask, card)
    assert int(given.brain.any(dim=0).any(dim=0).sum()) == 32
    assert given.coverage['FLAIR'] == 1
    assert (given.tensor[0][given.brain] != 0).float().mean() > 0.99
    back = to_reference(given.brain.float(), given.affine, mask)
    assert (back.data[12:28, 12:28] > 0.9).all()


def test_orientation_on_disk_does_not_matter(card):
    affine, shape = grid(turn=0.1), (40, 44, 36)
    image, mask = head(affine, shape), ball(affine, shape, centre=(2, 3, -1))
    straight = network_input({'FLAIR': image}, {}, mask, card)

    def stored(volume):
        """The same image with its voxel axes as (A, I, L): permuted and flipped."""
        turned = np.zeros((4, 4))
        turned[0] = (0, 0, -1, shape[0] - 1)
        turned[1] = (1, 0, 0, 0)
        turned[2] = (0, -1, 0, shape[2] - 1)
        turned[3, 3] = 1
        data = np.ascontiguousarray(np.transpose(volume.data, (1, 2, 0))[:, ::-1, ::-1])
        return Volume(data, volume.affine @ turned, volume.contrast)

    for mask_on_disk in (stored(mask), reorient(stored(mask))):
        turned = network_input({'FLAIR': stored(image)}, {}, mask_on_disk, card)
        np.testing.assert_allclose(turned.affine, straight.affine, atol=1e-9)
        assert torch.equal(turned.brain, straight.brain)
        torch.testing.assert_close(turned.tensor, straight.tensor, atol=1e-5, rtol=0)


def test_background_of_a_stripped_image_is_not_brain(card):
    affine, shape = grid(), (40, 44, 36)
    whole = head(affine, shape)
    stripped = whole.with_data(whole.data * (ball(affine, shape, radius=9).data > 0))
    given = network_input({'FLAIR': stripped}, {}, ball(affine, shape), card)
    assert given.coverage['FLAIR'] == pytest.approx(9**3 / 12**3, rel=0.05)
    assert given.tensor.abs().max() < 2  # the background would pull the statistics


def test_what_is_no_image_of_the_brain_is_refused(card):
    affine, shape = grid(), (40, 44, 36)
    mask = ball(affine, shape)
    image = head(affine, shape)
    with pytest.raises(DataError, match='FLAIR: the image is constant'):
        network_input({'FLAIR': image.with_data(np.full(shape, 7.0))}, {}, mask, card)
    binary = image.with_data((ball(affine, shape, radius=6).data + 1.0).astype(np.float32))
    with pytest.raises(DataError, match='constant'):
        network_input({'FLAIR': binary}, {}, mask, card)
    far = np.eye(4)
    far[0, 3] = 500
    with pytest.raises(DataError, match='T1w: no voxel of the image lies within the brain'):
        network_input({'FLAIR': image, 'T1w': image}, {'T1w': far}, mask, card)
    with pytest.raises(DataError, match='brain mask is empty'):
        network_input({'FLAIR': image}, {}, mask.with_data(np.zeros(shape)), card)


@pytest.mark.parametrize(
    'normalisation', [{'Type': 'z-score'}, {'Type': 'median-mad', 'Divide': 3, 'Background': 0},
                      {'Type': 'median-mad', 'Region': 'head'}]
)  # fmt: skip
def test_a_normalisation_that_is_not_known_is_refused(card, normalisation):
    affine, shape = grid(), (40, 44, 36)
    other = replace(card, normalisation=normalisation)
    with pytest.raises(UnavailableError, match='"Normalisation" is .* not support'):
        network_input({'FLAIR': head(affine, shape)}, {}, ball(affine, shape), other)


def test_an_orientation_that_is_not_made_is_refused(card):
    other = replace(card, content={**card.content, 'Orientation': 'LPS'})
    affine, shape = grid(), (40, 44, 36)
    with pytest.raises(UnavailableError, match='"Orientation" is LPS'):
        network_input({'FLAIR': head(affine, shape)}, {}, ball(affine, shape), other)


def test_probabilities_come_back_unchanged_where_voxels_coincide(card):
    affine, shape = grid(turn=0.3), (40, 44, 36)
    mask = ball(affine, shape)
    given = network_input({'FLAIR': head(affine, shape)}, {}, mask, card)
    rng = np.random.default_rng(0)
    probability = torch.from_numpy(rng.random(given.brain.shape).astype(np.float32)) * given.brain
    back = to_reference(probability, given.affine, mask)
    assert back.data.dtype == np.float32
    assert np.array_equal(back.data[mask.data > 0], probability[given.brain].numpy())
    assert np.array_equal(back.affine, affine)
    assert not back.data[mask.data == 0].any()


def test_probabilities_come_back_linearly_elsewhere():
    model, fine = grid((30, 30, 30)), grid((50, 50, 50), (0.5, 0.5, 0.5), turn=0.4)
    ramp = (millimetres(model, (30, 30, 30))[..., 0] + 15) / 30
    back = to_reference(ramp, model, Volume(np.zeros((50, 50, 50)), fine))
    expected = (millimetres(fine, (50, 50, 50))[..., 0] + 15) / 30
    within = (abs(millimetres(fine, (50, 50, 50))) < 14).all(axis=-1)
    np.testing.assert_allclose(back.data[within], expected[within], atol=1e-5)
    clipped = to_reference(3 * ramp - 1, model, Volume(np.zeros((50, 50, 50)), fine))
    assert (clipped.data.min(), clipped.data.max()) == (0, 1)


def test_methods_name_the_contrasts(card):
    text = methods(card, ('FLAIR', 'T1w'))
    assert text.startswith('FLAIR and T1w were each interpolated once')
    assert '1 x 1 x 1 mm' in text
    assert 'median absolute deviation' in text
    assert methods(card, ('FLAIR',)).startswith('FLAIR was ')


def test_resample_is_the_only_interpolation(card, monkeypatch):
    """One call per image and one for its field of view: never the result of another."""
    affine, shape = grid(), (40, 44, 36)
    other = grid((50, 50, 40), (0.9, 0.9, 1.1), turn=0.1)
    seen = []

    def watched(volume, *arguments, **options):
        seen.append(volume.shape)
        return resample(volume, *arguments, **options)

    monkeypatch.setattr('ssl2_bids.steps.network_input.resample', watched)
    images = {'FLAIR': head(affine, shape), 'T1w': head(other, (50, 50, 40))}
    network_input(images, {}, ball(affine, shape), card)
    assert seen == [(52, 52, 42), (52, 52, 42)]
