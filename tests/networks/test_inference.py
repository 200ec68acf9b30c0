"""Sliding windows against MONAI's, and what is particular to ours."""

from functools import partial

import pytest
import torch
from monai.inferers import SlidingWindowInferer
from torch import nn
from torch.nn import functional

from ssl2_bids.errors import UnavailableError
from ssl2_bids.networks.architectures.committee import Committee, disagreement
from ssl2_bids.networks.inference import (
    average_windows,
    axis_starts,
    bfloat16_is_fast,
    gaussian_weight,
    predict,
    probability_and_disagreement,
    reproducible,
    window_starts,
)


@pytest.fixture(scope='module')
def network():
    """A small network whose answer depends on where the window's borders are."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv3d(2, 4, 3, padding=1),
            nn.InstanceNorm3d(4),
            nn.ReLU(),
            nn.Conv3d(4, 1, 5, padding=2),
        ).eval()


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def monai(network, image, window, *, overlap):
    inferer = SlidingWindowInferer(window, 1, overlap, mode='gaussian')
    with torch.inference_mode():
        return inferer(image[None], lambda x: torch.sigmoid(network(x)))[0, 0]


@pytest.mark.parametrize('shape', [(24, 32, 16), (24, 24, 24), (10, 40, 13), (7, 7, 7)])
def test_it_equals_monai_where_the_windows_are_the_same(network, shape):
    image = noise(2, *shape)
    brain = torch.ones(shape, dtype=torch.bool)
    ours = predict(network, image, brain, window=(16, 16, 16), overlap=0.5, precision='float32')
    theirs = monai(network, image, (16, 16, 16), overlap=0.5)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_a_network_that_sees_one_voxel_gives_its_sigmoid_everywhere_in_the_brain():
    image = noise(1, 41, 37, 29)
    brain = functional.max_pool3d((noise(1, 41, 37, 29, seed=1) > 3.2).float(), 7, 1, 3)[0] > 0
    result = predict(
        lambda x: 2 * x, image, brain, window=(16, 8, 16), overlap=0.3, precision='float32'
    )
    torch.testing.assert_close(result[brain], torch.sigmoid(2 * image[0][brain]))
    assert 0 < brain.float().mean() < 0.9
    assert (result[~brain] == 0).all()
    assert (result.dtype, result.device.type) == (torch.float32, 'cpu')


def test_windows_without_brain_are_skipped_and_the_others_stay(network):
    image = noise(2, 24, 24, 24)
    brain = torch.zeros(24, 24, 24, dtype=torch.bool)
    brain[:16] = True
    brain[16:, :8, :8] = True
    seen = []

    def counting(windows):
        seen.append(windows.shape[0])
        return network(windows)

    result = predict(counting, image, brain, window=(16,) * 3, overlap=0.5, precision='float32')
    assert sum(seen) == 8
    brain[16:] = False
    brain[16:, :8, :8] = True
    everywhere = predict(
        network, image, torch.ones_like(brain), window=(16,) * 3, overlap=0.5, precision='float32'
    )
    torch.testing.assert_close(result[brain], everywhere[brain])
    apart = torch.zeros_like(brain)
    apart[0, 0, 0] = apart[23, 23, 23] = True
    assert window_starts(apart, (8, 8, 8), overlap=0.5) == [(0, 0, 0), (16, 16, 16)]


def test_only_the_box_of_the_brain_is_tiled(network):
    brain = torch.zeros(64, 64, 64, dtype=torch.bool)
    brain[20:36, 30:46, 5:29] = True
    starts = window_starts(brain, (16, 16, 16), overlap=0.5)
    assert starts == [(20, 30, 5), (20, 30, 13)]


def test_no_brain_is_no_probability(network):
    result = predict(
        network, noise(2, 20, 20, 20), torch.zeros(20, 20, 20, dtype=torch.bool),
        window=(16,) * 3, overlap=0.5,
    )  # fmt: skip
    assert result.shape == (20, 20, 20)
    assert not result.any()


@pytest.mark.parametrize('overlap', [0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize(
    ('low', 'high'), [(0, 100), (3, 98), (10, 43), (40, 60), (0, 33), (95, 100)]
)
def test_windows_reach_both_ends_with_the_overlap_asked_for_and_no_more_than_needed(
    low, high, overlap
):
    starts = axis_starts(low, high, length=100, size=32, overlap=overlap)
    stride = int(32 * (1 - overlap) + 1e-9)
    assert min(starts) >= 0
    assert max(starts) + 32 <= 100
    assert starts[0] <= low
    assert starts[-1] + 32 >= high
    assert all(0 < b - a <= stride for a, b in zip(starts, starts[1:], strict=False))
    if high - low > 32:
        assert (starts[0], starts[-1]) == (low, high - 32)
        assert len(starts) == -(-(high - low - 32) // stride) + 1


def test_the_mirror_averages_both_sides(network):
    image = noise(2, 16, 16, 16)
    brain = torch.ones(16, 16, 16, dtype=torch.bool)
    settings = {'window': (16,) * 3, 'overlap': 0.5, 'precision': 'float32'}
    plain = predict(network, image, brain, **settings)
    flipped = predict(network, image.flip(1), brain, **settings).flip(0)
    both = predict(network, image, brain, mirror_axis=0, **settings)
    assert not torch.allclose(plain, flipped, atol=1e-3)
    torch.testing.assert_close(both, (plain + flipped) / 2)


@pytest.mark.parametrize('mirror_axis', [None, 1])
def test_members_are_compared_beside_the_same_probability(network, mirror_axis):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        members = [network, nn.Conv3d(2, 1, 3, padding=1), nn.Conv3d(2, 1, 1)]
    committee = Committee(members).eval()
    image = noise(2, 24, 16, 16)
    brain = noise(24, 16, 16, seed=3) > -1
    settings = {'window': (16,) * 3, 'overlap': 0.5, 'precision': 'float32'}
    measure = partial(probability_and_disagreement, committee, mirror_axis=mirror_axis)
    found, apart = average_windows(measure, image, brain, maps=2, **settings)
    assert torch.equal(
        found, predict(committee, image, brain, mirror_axis=mirror_axis, **settings)
    )
    assert not apart[~brain].any()
    assert apart.max() > 0.05
    # where the windows do not overlap, the measure is that of the members' own probabilities
    alone = torch.stack(
        [predict(m, image, brain, mirror_axis=mirror_axis, **settings) for m in members]
    )
    for edge in (slice(0, 4), slice(20, 24)):
        torch.testing.assert_close(apart[edge], disagreement(alone[:, edge]), atol=1e-5, rtol=1e-4)


def test_batches_and_progress_change_nothing(network):
    image = noise(2, 24, 24, 40)
    brain = torch.ones(24, 24, 40, dtype=torch.bool)
    settings = {'window': (16,) * 3, 'overlap': 0.5, 'precision': 'float32'}
    reports = []
    one = predict(network, image, brain, **settings)
    five = predict(
        network, image, brain, batch_size=5, progress=lambda *n: reports.append(n), **settings
    )
    torch.testing.assert_close(one, five)
    assert reports == [(5, 16), (10, 16), (15, 16), (16, 16)]
    assert torch.equal(one, predict(network, image, brain, **settings))


def hungry(limit, network):
    """A network that has memory for no more than ``limit`` windows."""

    def run(windows):
        if len(windows) > limit:
            raise torch.cuda.OutOfMemoryError('CUDA out of memory.')
        return network(windows)

    return run


def test_less_memory_means_smaller_batches_then_advice(network):
    image = noise(2, 24, 24, 40)
    brain = torch.ones(24, 24, 40, dtype=torch.bool)
    settings = {'window': (16,) * 3, 'overlap': 0.5, 'precision': 'float32', 'batch_size': 8}
    reports = []
    small = predict(
        hungry(3, network), image, brain, progress=lambda *n: reports.append(n[0]), **settings
    )
    assert reports == [2, 4, 6, 8, 10, 12, 14, 16]
    torch.testing.assert_close(small, predict(network, image, brain, **settings))
    with pytest.raises(UnavailableError, match='window of 16 x 16 x 16 voxels.*--low-mem'):
        predict(hungry(0, network), image, brain, **settings)


def test_other_errors_of_the_network_come_through(network):
    with pytest.raises(RuntimeError, match='channels'):
        predict(
            network, noise(3, 16, 16, 16), torch.ones(16, 16, 16, dtype=torch.bool),
            window=(16,) * 3, overlap=0.5,
        )  # fmt: skip


def test_the_computers_own_memory_counts_too(network):
    def greedy(windows):
        return torch.empty(2**50)

    with pytest.raises(UnavailableError, match='memory of cpu is too small'):
        predict(
            greedy, noise(2, 16, 16, 16), torch.ones(16, 16, 16, dtype=torch.bool),
            window=(16,) * 3, overlap=0.5,
        )  # fmt: skip


def test_precision():
    seen = []

    def network(windows):
        product = windows.flatten() @ windows.flatten()
        seen.append(product.dtype)
        return windows * product

    image, brain = noise(1, 8, 8, 8), torch.ones(8, 8, 8, dtype=torch.bool)
    for precision in ('float32', 'bfloat16', 'auto'):
        predict(network, image, brain, window=(8,) * 3, overlap=0, precision=precision)
    fast = bfloat16_is_fast(torch.device('cpu'))
    assert seen == [torch.float32, torch.bfloat16, torch.bfloat16 if fast else torch.float32]
    with pytest.raises(ValueError, match='precision'):
        reproducible(torch.device('cpu'), 'half')


def test_the_weight_is_a_gaussian_of_an_eighth_of_the_window():
    weight = gaussian_weight((16, 17, 32))
    assert weight[8, 8, 16] == weight[7, 8, 15] == weight.max()
    along = weight[8, 10, 16] / weight[8, 8, 16]
    assert along.item() == pytest.approx(torch.tensor(-2.0 / (17 / 8) ** 2).exp().item(), rel=1e-5)
    assert weight.min().item() == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ('brain', 'overlap'),
    [(torch.ones(4, 4, 4), 0.5), (torch.ones(3, 4, 4, dtype=torch.bool), 0.5),
     (torch.ones(4, 4, 4, dtype=torch.bool), 1.0)],
)  # fmt: skip
def test_impossible_arguments_are_refused(network, brain, overlap):
    with pytest.raises(ValueError, match='brain|overlap'):
        predict(network, noise(2, 4, 4, 4), brain, window=(4,) * 3, overlap=overlap)
