"""What all strategies share: schedule, averages, band, boxes, random numbers, hooks."""

import math

import pytest
import torch
from torch import nn

from ssl2_bids.networks.architectures.fast_unet import FastUNet
from ssl2_bids.networks.architectures.swin_unetr import SwinUNETR
from ssl2_bids.networks.architectures.unet import ResidualUNet
from ssl2_bids.training import strategy
from ssl2_bids.training.run import learning_of, set_training_mode
from ssl2_bids.training.strategy import Strategy, StrategySettings


def test_the_ramp_is_that_of_laine_and_aila():
    assert strategy.ramp(0, 100) == pytest.approx(math.exp(-5))
    assert strategy.ramp(50, 100) == pytest.approx(math.exp(-1.25))
    assert strategy.ramp(100, 100) == strategy.ramp(1000, 100) == strategy.ramp(0, 0) == 1


def test_the_weight_waits_grows_and_stays():
    settings = StrategySettings(steps=1000, w_max=2.0, warmup=0.1, ramp=0.25)
    weights = [settings.weight(step) for step in range(1000)]
    assert weights[:100] == [0.0] * 100
    assert weights[100] == pytest.approx(2 * math.exp(-5))
    assert weights[225] == pytest.approx(2 * math.exp(-1.25))
    assert weights[350:] == [2.0] * 650
    assert weights == sorted(weights)


class Counting(nn.Module):
    """A parameter, a buffer and a count."""

    def __init__(self, value, count):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(value))
        self.register_buffer('mean', torch.tensor(10 * value))
        self.register_buffer('seen', torch.tensor(count))


def test_the_average_takes_parameters_and_buffers_and_copies_counts():
    teacher, student = Counting(1.0, 3), Counting(2.0, 7)
    strategy.ema_(teacher, student, 0.75)
    assert teacher.weight.item() == 1.25
    assert teacher.mean.item() == 12.5
    assert teacher.seen.item() == 7
    assert student.weight.item() == 2.0


def test_the_band_has_no_target_in_between():
    q = torch.tensor([0.0, 0.04, 0.06, 0.3, 0.45, 0.59, 0.61, 1.0])
    target, weight = strategy.band(q)
    assert target.tolist() == [0, 0, 0, 0, 0, 0, 1, 1]
    assert weight.tolist() == [1, 1, 0, 0, 0, 0, 1, 1]
    assert strategy.band(q, torch.tensor(0.5))[0].tolist() == [0, 0, 0, 0, 0, 1, 1, 1]


def test_random_numbers_follow_from_seed_and_step():
    def draw(seed, step):
        return torch.rand(4, generator=strategy.generator(seed, step, torch.device('cpu')))

    assert torch.equal(draw(1, 2), draw(1, 2))
    assert not torch.equal(draw(1, 2), draw(1, 3))
    assert not torch.equal(draw(1, 2), draw(2, 2))


def test_noise_is_clipped_and_spares_missing_channels():
    image = torch.ones(1, 2, 20, 20, 20)
    image[:, 1] = 0
    random = strategy.generator(0, 0, image.device)
    drawn = strategy.noise(image, random, sigma=0.1)
    assert drawn[:, 1].abs().max() == 0
    assert drawn[:, 0].abs().max().item() == pytest.approx(0.2)
    assert drawn[:, 0].std().item() == pytest.approx(0.096, abs=0.003)


def test_partners_share_a_contrast_or_are_none():
    present = torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 0]]).bool()
    partner, shared = strategy.partners(present)
    assert partner.tolist() == [1, 2, 2, 0]
    expected = [[0, 1, 0], [0, 0, 1], [0, 0, 1], [1, 0, 0]]
    assert shared.int().view(4, 3).tolist() == expected
    assert strategy.partners(present[:1])[0].tolist() == [0]


def test_boxes_have_their_size_and_stay_inside():
    centre = torch.tensor([[0, 5, 11], [6, 6, 6]])
    box = strategy.boxes((12, 12, 12), centre, 0.5)
    assert box.shape == (2, 1, 12, 12, 12)
    assert box.sum((1, 2, 3, 4)).tolist() == [216, 216]
    assert box[0, 0, :6, 2:8, 6:].all()
    assert box[1, 0, 3:9, 3:9, 3:9].all()
    sizes = strategy.boxes((12, 8, 4), centre.float(), torch.tensor([[1.0], [0.25]]))
    assert sizes.sum((1, 2, 3, 4)).tolist() == [12 * 8 * 4, 3 * 2 * 1]


@pytest.mark.parametrize(
    ('network', 'encoder', 'decoder'),
    [
        (FastUNet(inputs=1, channels=(4, 8, 8), full=2), 4, [4, 2]),
        (ResidualUNet(inputs=1, channels=(4, 8, 8)), 3, [2]),
        (SwinUNETR(inputs=1, feature_size=12, depths=(1, 1, 1, 1)), 6, [16, 8, 4, 2]),
    ],
    ids=['fast', 'residual', 'swin'],
)
def test_stages_of_our_networks(network, encoder, decoder):
    """Levels are coarser than the image; without the encoder's outputs no image comes through."""
    shape = (32, 32, 64)
    levels = strategy.stages(network, 'decoder')
    assert len(strategy.stages(network, 'encoder')) == encoder
    sizes = []
    with strategy.forward_hooks(levels, lambda _, z: sizes.append(z.shape[-1])), torch.no_grad():
        network(torch.zeros(1, 1, *shape))
    assert sizes == [64 // coarser for coarser in decoder]

    def silence(_, output):
        return strategy.each(output, torch.zeros_like)

    first, second = torch.rand(2, 1, 1, *shape)
    with torch.no_grad():
        with strategy.forward_hooks(strategy.stages(network, 'encoder'), silence):
            assert torch.equal(network(first), network(second))
        assert not torch.equal(network(first), network(second))


def test_an_unknown_network_is_named():
    with pytest.raises(TypeError, match='Conv3d'):
        strategy.stages(nn.Conv3d(1, 1, 1), 'encoder')


class Full(Strategy):
    extra = frozenset({'teacher', 'peer'})


def test_what_is_optimised_moved_and_shipped():
    built = []

    def build(kind):
        built.append(kind)
        return FastUNet(inputs=1, channels=(4, 8), full=2)

    torch.manual_seed(0)
    made = Full(StrategySettings(steps=10), build)
    after = torch.rand(1)
    assert built == ['student', 'peer']
    assert list(made.modules()) == ['student', 'peer', 'teacher']
    trained = {id(p) for p in learning_of(made)}
    assert trained == {id(p) for n in (made.student, made.peer) for p in n.parameters()}
    assert made.predictor() is made.teacher
    first, second = made.student.state_dict(), made.peer.state_dict()
    assert not torch.equal(first['stem.weight'], second['stem.weight'])
    assert torch.equal(first['stem.weight'], made.teacher.state_dict()['stem.weight'])
    set_training_mode(made)
    assert made.student.training
    assert not made.teacher.training

    torch.manual_seed(0)
    FastUNet(inputs=1, channels=(4, 8), full=2)
    assert torch.equal(torch.rand(1), after)  # the peer left the stream alone


def test_the_teacher_starts_as_the_student_and_then_lags():
    made = Full(StrategySettings(steps=10, alpha=0.9), lambda _: nn.Linear(1, 1, bias=False))
    values = []
    for step in range(3):
        with torch.no_grad():
            made.student.weight.fill_(step + 1.0)
        made.after_step(step)
        values.append(made.teacher.weight.item())
    assert values == pytest.approx([1.0, 1.5, 2.0])  # means until alpha is reached


def test_the_teacher_remembers_what_suits_the_length_of_the_run():
    def late(steps, **given):
        return StrategySettings(steps=steps, **given).following(steps)

    assert late(5000) == pytest.approx(0.99)
    assert late(100) == pytest.approx(0.9)
    assert late(10**6) == pytest.approx(0.999)
    assert late(10**6, alpha=0.5) == 0.5
    assert StrategySettings(steps=5000).following(0) == 0
    assert StrategySettings(steps=5000).following(9) == pytest.approx(0.9)
