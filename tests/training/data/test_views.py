"""Where patches lie, what is done to them, and that a batch follows from its step alone."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ssl2_bids.errors import DataError
from ssl2_bids.networks.architectures.fast_unet import FastUNet
from ssl2_bids.training import strategies
from ssl2_bids.training.data import participants, views
from ssl2_bids.training.data.participants import Participant
from ssl2_bids.training.data.views import Views, ViewSettings

SHAPE = (40, 44, 36)
SMALL = ViewSettings(patch=(16, 16, 16), labelled=3, unlabelled=2)
STILL = replace(SMALL, mirror=0.0, moved=0.0, drop=0.0)
LARGE = (slice(8, 18), slice(8, 18), slice(8, 15))
TINY = (slice(30, 31), slice(30, 31), slice(24, 25))


def participant(name='a', *, every=None, lesions=(LARGE, TINY), channels=2):
    """An ellipsoid of a brain; annotated in every n-th axial slice, or not at all.

    The image codes where a voxel was: its channels hold (i, j, k) / 100 + 0.1, as many as wanted.
    """
    grid = np.indices(SHAPE)
    middle = (np.array(SHAPE) - 1) / 2
    distance = ((grid - middle[:, None, None, None]) / (middle - 1)[:, None, None, None]) ** 2
    brain = distance.sum(0) < 1
    image = (grid[:channels] / 100 + 0.1) * brain
    label, annotated = None, None
    if every is not None:
        label = np.zeros(SHAPE, np.uint8)
        for lesion in lesions:
            label[lesion] = 1
        annotated = np.zeros(SHAPE, np.uint8)
        annotated[:, :, ::every] = 1
        label *= annotated
    return Participant(name, image.astype(np.float32), (True,) * channels, brain, label, annotated)


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_batch_follows_from_seed_rank_and_step():
    people = [participant('a', every=1), participant('b', every=4), participant('c')]
    first, second = (Views(people, SMALL, seed=3, rank=1) for _ in range(2))
    later = [second[step] for step in (5, 2, 0)]
    torch.manual_seed(1)
    assert same(first[0], later[2])
    assert same(first[5], later[0])
    assert not same(first[0], first[1])
    assert not same(first[0], Views(people, SMALL, seed=4, rank=1)[0])
    assert not same(first[0], Views(people, SMALL, seed=3, rank=0)[0])


def test_the_labelled_part_is_the_same_however_many_are_unlabelled():
    people = [participant('a', every=2), participant('b')]
    few, many = (Views(people, replace(SMALL, unlabelled=n), seed=0)[7] for n in (0, 3))
    for field in ('xl', 'yl', 'ml', 'bl', 'cl'):
        assert torch.equal(getattr(few, field), getattr(many, field))
    assert few.xu.shape == (0, 2, 16, 16, 16)


def test_shapes_and_types_and_zeros_outside():
    absent = participant('b')
    absent = replace(absent, present=(True, False), image=absent.image * [[[[1.0]]], [[[0.0]]]])
    made = Views([participant('a', every=3), absent], SMALL, seed=0)
    for step in range(10):
        b = made[step]
        for image in (b.xl, b.xu, b.xs):
            assert image.shape[1:] == (2, 16, 16, 16)
            assert image.dtype == torch.float32
            assert image.isfinite().all()
        for mask in (b.yl, b.ml, b.bl, b.bu):
            assert mask.shape[1:] == (1, 16, 16, 16)
            assert mask.dtype == torch.float32
            assert set(mask.unique().tolist()) <= {0.0, 1.0}
        assert b.cl.dtype == b.cu.dtype == torch.bool
        assert (b.xl * (1 - b.bl)).abs().max() == 0
        assert (b.yl * (1 - b.ml)).max() == 0
        assert (b.xl * ~b.cl[:, :, None, None, None]).abs().max() == 0
        for image in (b.xu, b.xs):
            assert (image * ~b.cu[:, :, None, None, None]).abs().max() == 0
        assert b.cl.any(1).all()
        assert (b.xs != 0).flatten(2).any(2).any(1).all()


def coordinates(image):
    """Where the voxels of a patch of :func:`participant` came from."""
    return 100 * (image - 0.1)


@pytest.mark.parametrize('settings', [{'moved': 1.0}, {'mirror': 1.0}, {}])
def test_image_and_masks_go_through_the_same_geometry(settings):
    """The values show where each voxel was: there the annotated extent must be as here."""
    person = participant(every=4, channels=3)
    made = Views([person], replace(STILL, **settings), seed=0)
    rng = np.random.default_rng(0)
    for _ in range(5):
        patch = made.cut(person, np.array([20, 22, 18]), rng)
        was = coordinates(patch.image)
        inside = patch.brain[0] > 0
        # away from the brain's border, where interpolation meets zeros, and from ties
        deep = torch.zeros_like(inside)
        eroded = -torch.nn.functional.max_pool3d(-patch.brain[None], 5, 1)[0, 0] > 0
        deep[2:-2, 2:-2, 2:-2] = eroded
        clear = ((was - was.round()).abs() < 0.45).all(0) & deep
        assert clear.sum() > 500
        i, j, k = was.round().long()[:, clear]
        assert torch.equal(patch.annotated[0][clear], (k % 4 == 0).float())
        label = torch.from_numpy(person.label)[i, j, k].float()
        assert torch.equal(patch.label[0][clear], label)


def test_mirroring_exchanges_left_and_right_alone():
    person = participant(every=1, channels=3)
    mirrored, plain = (
        Views([person], replace(STILL, mirror=share), seed=0).cut(
            person, np.array([20, 22, 18]), np.random.default_rng(0)
        )
        for share in (1.0, 0.0)
    )
    assert torch.equal(mirrored.image, plain.image.flip(1))
    assert torch.equal(mirrored.label, plain.label.flip(1))


def test_unmoved_patches_are_copies():
    person = participant(channels=3)
    patch = Views([person], STILL, seed=0).cut(
        person, np.array([20, 22, 18]), np.random.default_rng(0)
    )
    start = coordinates(patch.image)[:, 0, 0, 0].round().long().tolist()
    box = tuple(slice(a, a + 16) for a in start)
    assert np.array_equal(patch.image.numpy(), person.image[(slice(None), *box)])


def test_turns_and_scales_stay_within_their_limits():
    rng = np.random.default_rng(0)
    angles, scales = [], []
    for _ in range(300):
        matrix = views.motion(rng, SMALL)
        lengths = np.linalg.norm(matrix, axis=0)
        scales.append(lengths)
        angles.append(np.rad2deg(Rotation.from_matrix(matrix / lengths).magnitude()))
    assert 13 < max(angles) <= 15
    assert np.min(scales) >= 0.9
    assert np.max(scales) <= 1.1
    assert np.ptp(scales) > 0.15


def test_labelled_patches_lie_around_lesions_two_times_in_three_small_ones_as_often():
    made = Views([participant(every=1)], STILL, seed=0)
    drawn = Counter()
    spots = {'large': np.array([13, 13, 11]), 'tiny': np.array([30, 30, 24])}
    asked = []
    cut = made.cut
    made.cut = lambda who, voxel, random: asked.append(voxel) or cut(who, voxel, random)
    for step in range(100):
        made[step]
    for voxel in asked:
        on = made.participants[0].label[tuple(voxel)]
        near = min(spots, key=lambda name: np.abs(spots[name] - voxel).sum())
        drawn[near if on else 'free'] += 1
    assert sum(drawn.values()) == 300
    assert drawn['large'] == pytest.approx(100, abs=25)
    assert drawn['tiny'] == pytest.approx(100, abs=25)
    assert drawn['free'] == pytest.approx(100, abs=25)


def test_lesion_patches_have_an_annotated_voxel_in_their_central_half():
    made = Views([participant(every=7)], replace(STILL, on_lesion=1.0), seed=0)
    assert made.places[0].lesions
    for step in range(20):
        b = made[step]
        assert (b.ml * b.yl)[..., 4:13, 4:13, 4:13].flatten(1).any(1).all()


def test_lesion_free_patches_are_centred_in_annotated_slices_without_lesions():
    person = participant(every=3, lesions=(LARGE,))
    places = views.places_of(person)
    slices = np.flatnonzero(places.free)
    assert set(slices % 3) == {0}
    assert not set(slices) & {9, 12}  # annotated, and the lesion is in them
    rng = np.random.default_rng(0)
    for _ in range(50):
        i, j, k = views.voxel_of(person, places.free, rng, annotated=True)
        assert places.free[k]
        assert person.brain[i, j, k]
        assert person.annotated[i, j, k]


def test_where_each_annotated_slice_has_a_lesion_patches_lie_beside_it():
    column = (slice(18, 22), slice(18, 22), slice(0, 36))
    places = views.places_of(participant(every=3, lesions=(column,)))
    assert places.free.sum() > 0
    made = Views([participant(every=3, lesions=(column,))], STILL, seed=0)
    assert made[0].ml.sum() > 0


def test_lesions_of_a_sparse_annotation_count_by_what_is_annotated():
    assert len(views.places_of(participant(every=1)).lesions) == 2
    assert len(views.places_of(participant(every=3)).lesions) == 3  # cut in two, and the tiny one
    assert len(views.places_of(participant(every=5)).lesions) == 1  # only slice 10 is annotated


def test_unannotated_brain_of_labelled_participants_joins_the_unlabelled_part():
    person = participant(every=4, channels=3)
    made = Views([person], STILL, seed=0)
    for step in range(5):
        b = made[step]
        assert b.bu.sum() > 0
        k = coordinates(b.xu)[:, 2:].round()
        brain = b.xu[:, :1] != 0
        assert torch.equal(b.bu, (brain & (k % 4 != 0)).float())


def test_all_that_is_not_annotated_is_drawn_and_nothing_that_is():
    whole, sparse, none = participant('w', every=1), participant('s', every=4), participant('n')
    made = Views([whole, sparse, none], SMALL, seed=0)
    assert made.annotated == [0, 1]
    assert made.unannotated == [1, 2]
    rng = np.random.default_rng(0)
    voxels = [
        views.voxel_of(sparse, made.places[1].unannotated, rng, annotated=False)
        for _ in range(300)
    ]
    assert all(sparse.brain[tuple(v)] and v[2] % 4 for v in voxels)
    spread = np.std(voxels, axis=0) / np.std(np.argwhere(sparse.brain), axis=0)
    assert spread == pytest.approx([1, 1, 1], abs=0.15)


def test_without_labels_or_with_nothing_else():
    without = Views([participant('n')], SMALL, seed=0)[0]
    assert without.xl.shape == (0, 2, 16, 16, 16)
    assert without.yl.shape == without.ml.shape == without.bl.shape == (0, 1, 16, 16, 16)
    assert without.cl.shape == (0, 2)
    assert len(without.xu) == 2
    annotated = Views([participant('w', every=1)], SMALL, seed=0)[0]
    assert len(annotated.xl) == 3
    assert annotated.xu.shape == annotated.xs.shape == (0, 2, 16, 16, 16)
    assert annotated.bu.shape == (0, 1, 16, 16, 16)
    healthy = Views([participant('h', every=2, lesions=())], SMALL, seed=0)[0]
    assert healthy.yl.max() == 0
    assert healthy.ml.max() == 1


def test_the_strong_view_changes_intensities_and_leaves_out_contrasts_but_moves_nothing():
    person = participant(channels=3)
    made = Views([person], replace(SMALL, unlabelled=2, drop=0.5), seed=0)
    dropped, changed = 0, 0
    for step in range(10):
        b = made[step]
        for weak, strong, brain in zip(b.xu, b.xs, b.bu, strict=True):
            assert brain.sum() > 0
            kept = [c for c in range(3) if strong[c].abs().max() > 0]
            assert kept
            dropped += 3 - len(kept)
            changed += not torch.equal(weak[kept], strong[kept])
            assert ((strong[kept] != 0) <= (weak[kept] != 0)).float().mean() > 0.99
    assert 10 < dropped < 50
    assert changed > 15


def test_a_scan_smaller_than_the_patch_is_padded_with_zeros():
    settings = replace(STILL, patch=(48, 48, 48))
    b = Views([participant(every=1, channels=3)], settings, seed=0)[0]
    assert b.bl[0].sum() == participant().brain.sum()
    assert b.bl[0, 0, :4].max() == 0
    moved = Views([participant(every=1, channels=3)], replace(settings, moved=1.0), seed=0)[0]
    assert moved.bl.sum() > 0


def test_a_participant_is_read_back_without_reading_its_arrays(tmp_path):
    written = participant(every=3)
    participants.write_participant(written, tmp_path / 'a')
    read = participants.read_participant(tmp_path / 'a')
    assert isinstance(read.image, np.memmap)
    assert read.image.dtype == np.float16
    assert read.present == written.present
    np.testing.assert_allclose(read.image, written.image, atol=1e-3)
    for name in participants.MASKS:
        assert np.array_equal(getattr(read, name), getattr(written, name))
    participants.write_participant(participant('b'), tmp_path / 'b')
    assert participants.read_participant(tmp_path / 'b').label is None
    stored = replace(written, image=np.asarray(written.image, np.float16))
    assert same(Views([read], SMALL, seed=0)[3], Views([stored], SMALL, seed=0)[3])


def test_errors_name_the_folder_or_the_participant(tmp_path):
    with pytest.raises(DataError, match='nobody'):
        participants.read_participant(tmp_path / 'nobody')
    participants.write_participant(participant(every=1), tmp_path / 'a')
    np.save(tmp_path / 'a' / 'label.npy', np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(DataError, match='do not match'):
        participants.read_participant(tmp_path / 'a')
    (tmp_path / 'a' / 'brain.npy').write_bytes(b'damaged')
    with pytest.raises(DataError, match='cannot be read'):
        participants.read_participant(tmp_path / 'a')
    with pytest.raises(DataError, match='no participant'):
        Views([], SMALL, seed=0)
    with pytest.raises(DataError, match='channels'):
        Views([participant(), participant(channels=1)], SMALL, seed=0)
    with pytest.raises(DataError, match='without extent'):
        Views([replace(participant('x', every=1), annotated=None)], SMALL, seed=0)


@pytest.mark.parametrize('name', ['supervised', 'fixmatch', 'bcp'])
def test_a_strategy_takes_the_batch(name):
    kind = strategies.find(name)
    strategy = kind(
        kind.Settings(steps=10, warmup=0.0, ramp=0.0),
        lambda _: FastUNet(inputs=2, channels=(4, 8), full=2),
    )
    made = Views([participant('a', every=4), participant('b')], SMALL, seed=0)
    loss, _ = strategy.loss(made[0], 5)
    loss.backward()
    assert loss.isfinite()


def test_real_and_simulated_people_share_the_labelled_patches():
    real, twins = participant('real', every=2), [participant(f't{n}', every=2) for n in range(4)]
    people = [real, *(replace(one, simulated=True) for one in twins)]
    for share, expected in ((0.5, 0.5), (None, 0.2)):
        made = Views(people, replace(SMALL, simulated=share), seed=0)
        found = [made.among(made.with_lesions, made.random(step, 0, 0)) for step in range(200)]
        drawn = np.mean([1 / len(numbers) if 0 in numbers else 0 for numbers in found])
        assert drawn == pytest.approx(expected, abs=0.1)
    alone = Views(people[:1], replace(SMALL, simulated=0.5), seed=0)
    plain = Views(people[:1], SMALL, seed=0)
    assert torch.equal(alone[3].xl, plain[3].xl)
