"""The joint brain mask of a session: which contrast counts where, and what is flagged."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from ssl2_bids.steps import brain_vote
from ssl2_bids.steps.brain_check import check_image, check_mask
from ssl2_bids.steps.expected_brain import expect_brain, expected_in
from ssl2_bids.steps.template import overlap, template
from ssl2_bids.volume import Volume

TRUE = np.diag([0.9, 0.9, 0.9, 1.0])  # a smaller head than the template


@pytest.fixture(scope='module')
def head() -> tuple[Volume, Volume]:
    """The template as a participant of 3 mm voxels in grey surroundings, and its brain."""
    model = template()
    affine = TRUE @ model.affine @ np.diag([3.0, 3.0, 3.0, 1.0])
    data = model.data[::3, ::3, ::3].astype(np.float32)
    brain = data > 0
    around = np.random.default_rng(0).normal(0.08, 0.02, data.shape) * data.max()
    image = Volume(np.where(brain, data, around).astype(np.float32), affine, 'T1w')
    return image, Volume(brain.astype(np.uint8), affine)


def changed(mask: Volume, keep: np.ndarray) -> Volume:
    return mask.with_data((mask.data * keep).astype(np.uint8))


def at(mask: Volume, axis: int) -> np.ndarray:
    """Coordinates in the template along an axis, mm."""
    place = np.linalg.inv(TRUE) @ mask.affine
    shape = [1, 1, 1]
    shape[axis] = mask.shape[axis]
    return (place[axis, axis] * np.arange(mask.shape[axis]) + place[axis, 3]).reshape(shape)


def test_a_right_mask_has_no_flag(head):
    image, mask = head
    expected = expect_brain(image, mask)
    assert check_mask(mask, expected) == []
    assert check_image(expected) == []
    assert np.abs(expected.matrix[:3, :3] - TRUE[:3, :3]).max() < 0.03


@pytest.mark.parametrize(
    ('code', 'spoil'),
    [
        ('cerebellum', lambda m: changed(m, ~((at(m, 2) < -20) & (at(m, 1) < -40)))),
        ('vertex', lambda m: changed(m, at(m, 2) < 40)),
        (
            'left-temporal-lobe',
            lambda m: changed(m, ~((at(m, 2) < -8) & (at(m, 0) < -25) & (at(m, 1) > -35))),
        ),
        ('asymmetric', lambda m: changed(m, at(m, 0) > 0)),
        ('large', lambda m: m.with_data(ndimage.binary_dilation(m.data, iterations=3))),
        ('small', lambda m: m.with_data(ndimage.binary_erosion(m.data, iterations=3))),
        ('outside', lambda m: m.with_data(np.ones_like(m.data))),
    ],
)
def test_a_spoiled_mask_is_flagged(head, code, spoil):
    image, mask = head
    wrong = spoil(mask)
    flags = {flag.code: flag for flag in check_mask(wrong, expect_brain(image, wrong))}
    assert code in flags, flags
    written = flags[code].as_json()
    assert set(written) == {'Code', 'Value', 'Threshold', 'Text'}


@pytest.mark.parametrize('axis', [1, 2])
def test_a_head_that_is_upside_down_is_flagged(head, axis):
    image, mask = (one.with_data(np.flip(one.data, axis)) for one in head)
    assert 'turned' in [flag.code for flag in check_image(expect_brain(image, mask))]


def test_an_exchange_of_left_and_right_is_not_seen(head):
    image, mask = (one.with_data(np.flip(one.data, 0)) for one in head)
    assert check_image(expect_brain(image, mask)) == []


def test_the_part_beyond_the_field_of_view_is_measured(head):
    image, mask = head
    top = int(np.flatnonzero(mask.data.any((0, 1))).max()) - 8
    short, cut = (Volume(v.data[:, :, :top], v.affine, v.contrast) for v in head)
    flags = check_image(expect_brain(short, cut))
    assert [flag.code for flag in flags] == ['cut']
    missing = mask.data[:, :, top:].sum() / mask.data.sum()
    assert flags[0].value == pytest.approx(missing, abs=0.03)
    assert f'{flags[0].value:.0%}' in flags[0].text


def test_a_single_mask_stays_as_it_is(head):
    image, mask = head
    found = brain_vote.vote(image, {'T1w': mask}, {})
    assert np.array_equal(found.mask.data, mask.data)
    assert found.agreement == {}
    assert found.flags == []
    assert brain_vote.methods(['T1w']) == ''
    # a fit that was found before gives the same
    before = found.expected
    again = expected_in(image, before.matrix, before.score, before.turned)
    given = brain_vote.vote(image, {'T1w': mask}, {}, expected=again)
    assert given.coverage == found.coverage
    assert np.array_equal(given.mask.data, mask.data)


def test_the_mask_of_the_user_on_another_image_is_whole(head):
    """A head with much around the brain, a mask that reaches down the cord, and a moved image."""
    image, mask = (v.with_data(np.pad(v.data, 12)) for v in head)
    cord = np.zeros(mask.shape, bool)
    middle = [n // 2 for n in mask.shape]
    cord[middle[0] - 1 : middle[0] + 2, middle[1] - 1 : middle[1] + 2, 2 : middle[2]] = True
    of_user = mask.with_data(((mask.data > 0) | cord).astype(np.uint8))
    way = np.eye(4)
    way[:3, 3] = (6, -9, 12)
    moved = Volume(of_user.data, way @ of_user.affine)
    found = brain_vote.vote(image, {'T1w': mask, 'FLAIR': moved}, {'FLAIR': way}, given='FLAIR')
    assert np.array_equal(found.mask.data > 0, of_user.data > 0)


def test_a_spoiled_mask_has_no_vote(head):
    image, mask = head
    wrong = changed(mask, at(mask, 2) < 40)
    ways = {'FLAIR': np.eye(4), 'T2w': np.eye(4)}
    for order in (('T1w', 'FLAIR', 'T2w'), ('FLAIR', 'T1w', 'T2w')):
        masks = {c: wrong if c == 'T1w' else mask for c in order}
        found = brain_vote.vote(image, masks, {**ways, 'T1w': np.eye(4)})
        assert list(found.without_vote) == ['T1w']
        assert 'vertex' in found.without_vote['T1w']
        assert found.flags == []
        assert overlap(found.mask.data > 0, mask.data > 0) > 0.98
        assert found.agreement['T1w'] < 0.95


def test_where_all_masks_are_spoiled_the_session_is_flagged(head):
    image, mask = head
    wrong = changed(mask, at(mask, 2) < 40)
    found = brain_vote.vote(image, {'T1w': wrong, 'FLAIR': wrong}, {'FLAIR': np.eye(4)})
    assert found.without_vote == {}
    assert 'vertex' in [flag.code for flag in found.flags]


def test_a_contrast_has_no_vote_where_it_has_no_view(head):
    image, mask = head
    half = mask.shape[2] // 2
    lower = Volume(mask.data[:, :, :half], mask.affine)
    found = brain_vote.vote(image, {'T1w': mask, 'FLAIR': lower}, {'FLAIR': np.eye(4)})
    assert found.without_vote == {}
    assert found.agreement['FLAIR'] > 0.97
    seen = mask.data[:, :, :half].sum() / mask.data.sum()
    assert found.coverage['FLAIR'] == pytest.approx(seen, abs=0.03)
    assert found.coverage['T1w'] == 1
    assert overlap(found.mask.data > 0, mask.data > 0) > 0.98


def test_two_surfaces_meet_in_the_middle(head):
    image, mask = head
    moved = mask.with_data(np.roll(mask.data, 2, axis=1))
    found = brain_vote.vote(image, {'T1w': mask, 'FLAIR': moved}, {'FLAIR': np.eye(4)})
    middle = np.roll(mask.data, 1, axis=1) > 0
    assert overlap(found.mask.data > 0, middle) > overlap(mask.data > 0, middle)


@pytest.mark.slow
def test_real_heads_good_and_spoiled(shared_data):
    program = Path(__file__).resolve().parents[2] / 'benchmarks' / 'brain_flags.py'
    people = [shared_data / 't1w-3t' / name for name in ('sub-cl02', 'sub-cl05')]
    done = subprocess.run(
        [sys.executable, program, *people, '--spoil'], capture_output=True, text=True, check=True
    )
    assert 'flagged: 0 of 2 good masks' in done.stdout
    assert 'flagged: 24 of 24 spoiled masks' in done.stdout, done.stdout


def test_of_an_image_unlike_the_template_only_volume_and_contrast_are_checked(head):
    image, mask = head
    noise = np.random.default_rng(1).normal(100, 10, image.shape)
    noisy = image.with_data(noise.astype(np.float32))
    expected = expect_brain(replace(noisy, contrast='T2w'), mask)
    assert not expected.is_reliable
    assert check_image(expected) == []
    flags = check_image(replace(expected, contrast='FLAIR'))
    assert [flag.code for flag in flags] == ['unlike']
    assert check_mask(mask, expected) == []
    half = changed(mask, at(mask, 0) > 20)
    assert [flag.code for flag in check_mask(half, expected)] == ['volume']
