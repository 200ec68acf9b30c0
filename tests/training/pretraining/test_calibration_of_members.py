"""Scale and shift of members whose faults are known."""

import pytest
import torch

from ssl2_bids.synthesis.randomised import Patches
from ssl2_bids.training.pretraining.calibration import (
    SCALES,
    UNCHANGED,
    calibrate_members,
    fit_scale_and_shift,
    looked_at,
)


def drawn(voxels, seed):
    """Probabilities and lesions drawn from them."""
    generator = torch.Generator().manual_seed(seed)
    probability = torch.sigmoid(3 * torch.randn(voxels, generator=generator))
    return probability, torch.rand(voxels, generator=generator) < probability


def moved(probability, scale, shift):
    return torch.sigmoid(scale * torch.logit(probability) + shift)


@pytest.mark.parametrize(('scale', 'shift'), [(1.0, 0.0), (0.5, 1.0), (2.0, -1.5)])
def test_a_known_fault_is_undone(scale, shift):
    volumes = [drawn(40_000, seed) for seed in (0, 1)]
    spoilt = [moved(p, 1 / scale, -shift / scale) for p, _ in volumes]
    found = fit_scale_and_shift(spoilt, [lesion for _, lesion in volumes])
    assert found == pytest.approx((scale, shift), abs=0.08)


def test_volumes_count_the_same_whatever_their_size():
    small, large = drawn(2_000, 0), drawn(80_000, 1)
    spoilt = moved(large[0], 1, -2)  # a shift of 2 would undo it
    alone, _ = (fit_scale_and_shift([p], [t]) for p, t in ((spoilt, large[1]), small))
    both = fit_scale_and_shift([small[0], spoilt], [small[1], large[1]])
    assert alone[1] == pytest.approx(2, abs=0.1)
    assert 0.5 < both[1] < 1.5


@pytest.mark.parametrize('lesion', [False, True])
def test_nothing_to_distinguish_changes_nothing(lesion):
    probability = torch.rand(100)
    assert fit_scale_and_shift([probability], [torch.full((100,), lesion)]) == UNCHANGED
    assert fit_scale_and_shift([probability[:0]], [torch.zeros(0, dtype=torch.bool)]) == UNCHANGED


def test_a_perfect_member_stays_within_bounds():
    lesion = torch.arange(100) < 20
    scale, shift = fit_scale_and_shift([torch.where(lesion, 0.9, 0.1)], [lesion])
    assert SCALES[0] <= scale <= SCALES[1]
    assert abs(shift) <= 5


def scan():
    """A brain with a lesion, half of it annotated."""
    shape = (1, 1, 24, 24, 24)
    brain, known, label = (torch.zeros(shape, dtype=torch.bool) for _ in range(3))
    brain[..., 2:22, 2:22, 2:22] = True
    known[..., :18, :, :] = True
    label[..., 8:11, 8:11, 8:11] = True
    return Patches(torch.zeros(1, 4, 24, 24, 24), torch.ones(1, 4), brain, label, known)


def test_only_known_voxels_near_a_lesion_or_a_mark_are_looked_at():
    volume = scan()
    marks = torch.zeros(24, 24, 24)
    marks[4, 20, 4] = 0.9
    place = looked_at([torch.zeros(24, 24, 24), marks], volume)
    assert place[9, 9, 9]
    assert place[4, 20, 7]
    assert not place[12, 20, 20]
    assert not (place & ~((volume.brain & volume.known)[0, 0])).any()


def test_each_member_gets_its_own():
    volume = scan()
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(24, 24, 24, generator=generator)
    good = torch.where(volume.label[0, 0], 0.3 + 0.7 * noise, 0.7 * noise)
    unsure = moved(good, 0.5, 0.0)
    first, second = calibrate_members([[good], [unsure]], [volume])
    assert second[0] == pytest.approx(2 * first[0], rel=0.05)
