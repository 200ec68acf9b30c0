"""Each lesion has the same weight, whatever its volume; voxels of 1 mm."""

import math

import pytest
import torch

from ssl2_bids.training.instances import lesion_cross_entropy, lesion_weights
from ssl2_bids.training.losses import cross_entropy, dice

SHAPE = (2, 1, 32, 32, 32)


@pytest.fixture
def label():
    """A lesion of 20 mm^3 and one of 2 mL in one patch, one of 60 mm^3 in the other."""
    y = torch.zeros(SHAPE)
    y[0, 0, 2:4, 2:7, 2:4] = 1  # 20
    y[0, 0, 8:28, 8:18, 8:18] = 1  # 2000
    y[1, 0, 5:8, 5:9, 5:10] = 1  # 60
    return y


@pytest.fixture
def lesions(label):
    """The three lesions as masks, smallest first."""
    first, second = label.clone(), label.clone()
    first[0, 0, 8:], first[1], second[0, 0, :8], second[1] = 0, 0, 0, 0
    return first > 0, (label - first - second) > 0, second > 0


def gradients(loss, logits, lesions):
    """What the logits of each lesion are moved by altogether."""
    (gradient,) = torch.autograd.grad(loss, logits)
    return [float(gradient[one].sum()) for one in lesions]


def test_a_lesion_of_20_mm3_weighs_as_much_as_one_of_2_ml(label, lesions):
    assert [int(one.sum()) for one in lesions] == [20, 60, 2000]
    known = torch.ones_like(label)
    logits = torch.full(SHAPE, -3.0, requires_grad=True)
    weights = lesion_weights(label, known)
    small, middle, large = gradients(lesion_cross_entropy(logits, label, weights), logits, lesions)
    assert small == pytest.approx(large, rel=1e-5)
    assert middle == pytest.approx(large, rel=1e-5)
    assert small == pytest.approx((1 / (1 + math.exp(3)) - 1) / 4, rel=1e-5)
    # the usual terms give a hundredth to the small one
    for usual in (cross_entropy, dice):
        small, _, large = gradients(usual(logits, label, known), logits, lesions)
        assert small == pytest.approx(large / 100, rel=1e-3)


def test_overlooking_the_small_one_costs_as_much_as_overlooking_the_large_one(label, lesions):
    weights = lesion_weights(label, torch.ones_like(label))
    right = torch.where(label > 0, 6.0, -6.0)
    small, middle, large = (
        float(lesion_cross_entropy(torch.where(one, -6.0, right), label, weights))
        for one in lesions
    )
    assert small == pytest.approx(large, rel=1e-4)
    assert middle == pytest.approx(large, rel=1e-4)
    assert small > 100 * float(lesion_cross_entropy(right, label, weights))


def test_the_mean_of_lesions_and_background_by_hand():
    y = torch.tensor([1.0, 1, 0, 1, 0, 0]).view(1, 1, 1, 1, 6)
    p = torch.tensor([0.9, 0.8, 0.3, 0.4, 0.2, 0.1]).view(1, 1, 1, 1, 6)
    weights = lesion_weights(y, torch.ones_like(y))
    means = (
        -(math.log(0.9) + math.log(0.8)) / 2,
        -math.log(0.4),
        -(math.log(0.7) + math.log(0.8) + math.log(0.9)) / 3,
    )
    loss = lesion_cross_entropy(torch.logit(p), y, weights)
    assert float(loss) == pytest.approx(sum(means) / 3)
    assert float(weights.sum()) == pytest.approx(1)


def test_lesions_that_touch_at_a_corner_are_one():
    y = torch.zeros(1, 1, 4, 4, 4)
    y[0, 0, 1, 1, 1] = y[0, 0, 2, 2, 2] = 1
    weights = lesion_weights(y, torch.ones_like(y))
    assert float(weights[y > 0].sum()) == pytest.approx(0.5)


def test_what_is_not_known_has_no_weight_and_a_lesion_in_it_is_none(label, lesions):
    known = torch.ones_like(label)
    known[1] = 0
    known[0, 0, :, :, 10:] = 0  # cuts the large lesion
    weights = lesion_weights(label, known)
    small, unknown, cut = lesions
    assert not weights[known == 0].any()
    assert not weights[unknown].any()
    for one in (small, cut, label == 0):
        assert float(weights[one].sum()) == pytest.approx(1 / 3)


def test_without_lesion_it_is_the_usual_cross_entropy_and_unknown_costs_nothing():
    logits = torch.randn(SHAPE, requires_grad=True)
    nothing, known = torch.zeros(SHAPE), (torch.rand(SHAPE) > 0.3).float()
    loss = lesion_cross_entropy(logits, nothing, lesion_weights(nothing, known))
    torch.testing.assert_close(loss, cross_entropy(logits, nothing, known))
    loss = lesion_cross_entropy(logits, nothing, lesion_weights(nothing, 0 * known))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()
