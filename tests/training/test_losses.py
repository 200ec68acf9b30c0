"""Losses against the formulas written out by hand, and where a formula would be 0 / 0."""

import math

import pytest
import torch

from ssl2_bids.training import losses


def maps(*values):
    """One patch (1, 1, 1, 1, n) of the values given."""
    return torch.tensor([float(value) for value in values]).view(1, 1, 1, 1, -1)


def logit(*probabilities):
    return torch.logit(maps(*probabilities))


def test_the_labelled_loss_is_half_of_cross_entropy_and_dice_where_it_may_look():
    logits, y, m = logit(0.9, 0.4, 0.2, 0.99), maps(1, 1, 0, 0), maps(1, 1, 1, 0)
    cross_entropy = -(math.log(0.9) + math.log(0.4) + math.log(0.8)) / 3
    dice = 1 - (2 * 1.3 + 1) / (1.5 + 2 + 1)
    assert losses.sup_loss(logits, y, m).item() == pytest.approx((cross_entropy + dice) / 2)


def test_what_is_not_known_has_no_influence():
    m = maps(1, 1, 0)
    first = losses.sup_loss(logit(0.7, 0.2, 0.1), maps(1, 0, 0), m, focal_tversky=0.3)
    second = losses.sup_loss(logit(0.7, 0.2, 0.8), maps(1, 0, 1), m, focal_tversky=0.3)
    assert first == second


def test_patches_are_pooled_so_that_an_empty_one_does_not_decide():
    logits = torch.cat([logit(0.9, 0.1), logit(0.1, 0.1)])
    y, m = torch.cat([maps(1, 0), maps(0, 0)]), torch.ones(2, 1, 1, 1, 2)
    assert losses.dice(logits, y, m).item() == pytest.approx(1 - (1.8 + 1) / (1.2 + 1 + 1))


def test_without_lesion_the_mean_false_probability_stands_for_dice():
    logits, nothing, m = logit(0.3, 0.1, 0.9), maps(0, 0, 0), maps(1, 1, 0)
    assert losses.dice(logits, nothing, m).item() == pytest.approx(0.2)
    assert losses.focal_tversky_loss(logits, nothing, m).item() == 0


def test_nothing_annotated_costs_nothing_and_has_no_gradient():
    logits = logit(0.3, 0.6).requires_grad_()
    loss = losses.sup_loss(logits, maps(1, 0), maps(0, 0), focal_tversky=0.3, weigh_positives=True)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_focal_tversky_by_hand():
    logits, y, m = logit(0.9, 0.4, 0.2), maps(1, 1, 0), maps(1, 1, 1)
    true, false = 1.3 + 1, 0.3 * 0.2 + 0.7 * (0.1 + 0.6)
    expected = (1 - true / (true + false)) ** 0.75
    assert losses.focal_tversky_loss(logits, y, m).item() == pytest.approx(expected)
    plain = losses.sup_loss(logits, y, m)
    both = losses.sup_loss(logits, y, m, focal_tversky=0.3)
    assert (both - plain).item() == pytest.approx(0.3 * expected, rel=1e-5)


def test_an_overlooked_lesion_costs_more_than_one_too_many():
    y, m = maps(1, 1, 0, 0), maps(1, 1, 1, 1)
    overlooked = losses.focal_tversky_loss(logit(0.9, 0.1, 0.1, 0.1), y, m)
    invented = losses.focal_tversky_loss(logit(0.9, 0.9, 0.9, 0.1), y, m)
    assert overlooked > invented


def test_a_perfect_overlap_leaves_finite_gradients():
    logits = maps(60, -60).requires_grad_()
    losses.sup_loss(logits, maps(1, 0), maps(1, 1), focal_tversky=0.3).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(('background', 'weight'), [(3, 3), (50, 20), (0, 1)])
def test_lesion_voxels_weigh_as_much_as_the_background_but_20_at_most(background, weight):
    y = maps(1, *[0] * background)
    m, logits = torch.ones_like(y), logit(0.5, *[0.5] * background)
    loss = losses.cross_entropy(logits, y, m, weigh_positives=True)
    expected = math.log(2) * (weight + background) / (1 + background)
    assert loss.item() == pytest.approx(expected)


def test_half_precision_logits_are_summed_in_single():
    logits = logit(0.9, 0.4).to(torch.bfloat16)
    loss = losses.sup_loss(logits, maps(1, 0), maps(1, 1))
    assert loss.dtype == torch.float32
    assert losses.cross_entropy_map(logits, maps(1, 0)).dtype == torch.float32


def test_suspected_voxels_reach_two_voxels_around_either_prediction_within_the_brain():
    p, q = torch.zeros(2, 1, 1, 9, 9, 9)
    p[0, 0, 2, 2] = 0.0
    p[..., 2, 4, 4], q[..., 6, 4, 4] = 0.2, 0.3
    p[..., 0, 0, 0] = 0.9  # outside the brain: not suspected
    brain = torch.ones_like(p)
    brain[..., 0, :, :] = 0
    brain[..., 8, :, :] = 0
    lesion, rest = losses.split_brain(p, q, brain)
    expected = torch.zeros_like(p)
    expected[..., 1:8, 2:7, 2:7] = 1
    assert torch.equal(lesion, expected)
    assert torch.equal(rest, brain - expected)


def test_the_balanced_mean_by_hand():
    p = torch.zeros(1, 1, 1, 1, 20)
    p[..., 3] = 0.5
    d = torch.arange(20.0).view_as(p)
    brain = torch.ones_like(p)
    brain[..., 15:] = 0
    lesion, rest = torch.arange(1.0, 6), torch.tensor([0.0, *range(6, 15)])
    expected = (lesion.mean() + rest.mean()) / 2
    assert losses.balanced_mean(d, p, 0 * p, brain) == pytest.approx(expected.item())
    assert losses.balanced_mean(d, 0 * p, p, brain) == pytest.approx(expected.item())


def test_a_lesion_of_one_voxel_weighs_as_much_as_the_rest_of_the_brain():
    p = torch.zeros(1, 1, 32, 32, 32)
    p[0, 0, 16, 16, 16] = 0.9
    d, brain = (p > 0).float(), torch.ones_like(p)
    assert losses.balanced_mean(d, p, 0 * p, brain).item() == pytest.approx(0.5 / 5**3)
    assert d.mean() < 1e-4


def test_without_suspicion_half_of_the_plain_mean_is_left():
    p = torch.full((1, 1, 4, 4, 4), 0.05)
    assert losses.balanced_mean(p, p, p, torch.ones_like(p)).item() == pytest.approx(0.025)


def test_a_balanced_mean_of_no_voxel_is_zero_with_gradients_of_zero():
    p = torch.rand(1, 1, 4, 4, 4, requires_grad=True)
    loss = losses.balanced_mean(p**2, p, p, torch.zeros(1, 1, 4, 4, 4))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(p.grad, torch.zeros_like(p))


def test_weights_of_the_balanced_mean_leave_out_voxels_in_each_half():
    p = torch.zeros(1, 1, 1, 1, 20)
    p[..., 3] = 0.5
    d = torch.arange(20.0).view_as(p)
    weight = torch.zeros_like(p)
    weight[..., [2, 4, 10]] = 1
    expected = (3 + 10) / 2
    assert losses.balanced_mean(d, p, p, torch.ones_like(p), weight=weight).item() == expected


def test_relative_entropy_and_entropy_by_hand_and_at_the_ends():
    p, q = torch.tensor([0.3, 1.0, 0.0]), torch.tensor([0.6, 0.0, 0.0])
    divergence = losses.relative_entropy(p, q)
    assert divergence[0].item() == pytest.approx(
        0.3 * math.log(0.3 / 0.6) + 0.7 * math.log(0.7 / 0.4)
    )
    assert divergence[1] > 10
    assert divergence.isfinite().all()
    assert divergence[2].item() == 0
    assert losses.entropy(torch.tensor(0.5)).item() == pytest.approx(math.log(2))
    assert losses.entropy(torch.tensor([0.0, 1.0])).max() < 2e-5
