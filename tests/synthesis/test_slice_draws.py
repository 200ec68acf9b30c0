import numpy as np
import pytest
import torch

from ssl2_bids.synthesis.appearance import CHANNELS
from ssl2_bids.synthesis.slices import Slices, average_slices, draw_slices, drawn_in_slices

SHARES = {'clinical': 0.3, 'mixed': 0.2, 'reformatted': 0.1}


def drawn(count=400, **shares):
    random = np.random.default_rng(0)
    return [draw_slices(CHANNELS, random, **{**SHARES, **shares}) for _ in range(count)]


def test_whole_slices_keep_what_changes_evenly_along_them():
    ramp = torch.arange(24.0).reshape(1, 24, 1).expand(4, 24, 5)
    for spacing, thickness, first in ((4, 4.0, 0), (4, 2.5, 3), (5, 5.0, 2)):
        found = average_slices(ramp, Slices(1, spacing, thickness, first))
        assert found.shape == ramp.shape
        assert torch.allclose(found[:, 8:16], ramp[:, 8:16], atol=1e-4)


def test_a_gap_is_not_seen():
    image = torch.zeros(3, 3, 10)
    image[1, 1, 0] = 1  # the first voxel of a slice of five
    assert float(average_slices(image, Slices(2, 5, 5.0, 0)).max()) == pytest.approx(0.2)
    assert not average_slices(image, Slices(2, 5, 3.0, 0)).any()


def test_a_profile_is_a_mean():
    for thickness in (1.0, 2.2, 3.5, 4.0):
        profile = Slices(0, 4, thickness, 0).profile()
        assert profile.sum() == pytest.approx(1)
        assert np.allclose(profile, profile[::-1])


def test_the_gain_of_a_slice_is_that_of_its_voxels():
    image = torch.ones(4, 4, 12)
    gains = torch.tensor([1.0, 2.0, 1.0, 9.0])
    found = average_slices(image, Slices(2, 4, 4.0, 0), gains)
    assert float(found[0, 0].max()) == pytest.approx(1.875)  # half a voxel beside the centre
    assert float(found[0, 0, 0]) == 1


def test_clinical_samples_have_slices_across_one_axis_in_all_channels():
    for one in drawn(60, clinical=1):
        assert all(slices is not None for slices in one.values())
        assert len({slices.axis for slices in one.values()}) == 1
        assert 3 <= one['FLAIR'].spacing <= 8
        assert all(0 < s.thickness <= s.spacing and 0 <= s.first < s.spacing for s in one.values())


def test_mixed_samples_have_a_flair_of_small_voxels():
    for one in drawn(60, clinical=0, mixed=1):
        assert one['FLAIR'] is None
        assert all(one[channel] is not None for channel in CHANNELS if channel != 'FLAIR')


def test_shares_are_those_asked_for():
    found = drawn(2000)
    clinical = np.mean([all(s is not None for s in one.values()) for one in found])
    assert clinical == pytest.approx(SHARES['clinical'], abs=0.04)


def test_a_rater_draws_what_fills_a_slice_and_is_not_asked_about_the_rest():
    label = torch.zeros(8, 8, 12)
    label[2:5, 2:5, 0:6] = 1  # fills the first slice
    label[6, 6, 6:8] = 1  # a third of the second: drawn by some raters
    label[0, 7, 6] = 1  # a sixth: by none
    for seed in range(8):
        drawn, known = drawn_in_slices(
            label, Slices(2, 6, 6.0, 0), np.random.default_rng(seed), least=0.3
        )
        assert drawn[3, 3, :6].all()
        assert not drawn[0, 7].any()
        assert not known[0, 7, 6:].all()
        assert (drawn[6, 6, 8] == 1) or (known[6, 6, 8] == 0)
        assert known[1, 0].all()


def slab(*, first, last):
    """A lesion of 3 x 3 voxels that reaches through some voxels of 1 mm along the last axis."""
    label = torch.zeros(8, 8, 24)
    label[3:6, 3:6, first:last] = 1
    return label


@pytest.mark.parametrize('spacing', [3, 4, 6, 8])
def test_the_usual_rater_draws_what_fills_half_of_a_slice(spacing):
    slices, half = Slices(2, spacing, float(spacing), 0), -(-spacing // 2)
    random = np.random.default_rng(0)
    drawn, known = drawn_in_slices(slab(first=0, last=half), slices, random)
    assert drawn[4, 4, : spacing // 2].all()  # and as thick as the slice is read
    assert known.all()
    drawn, known = drawn_in_slices(slab(first=0, last=half - 1), slices, random)
    assert not drawn.any()
    share = (half - 1) / spacing
    assert known.all() == (share < 0.15)  # one that is hardly there is background
    drawn, _ = drawn_in_slices(slab(first=spacing, last=2 * spacing), slices, random)
    assert drawn.sum() == 9 * spacing  # a lesion that fills a slice keeps its volume


def test_what_lies_in_a_gap_is_neither_seen_nor_drawn():
    slices = Slices(2, 8, 4.0, 0)  # voxels 0, 1, 6 and 7 of each slice are gap
    drawn, known = drawn_in_slices(slab(first=6, last=10), slices, np.random.default_rng(0))
    assert not drawn.any()
    assert known.all()
    inside = slab(first=2, last=5)  # three of the four that are seen, three of the eight there
    drawn, _ = drawn_in_slices(inside, slices, np.random.default_rng(0))
    assert drawn[4, 4, 3]


def test_half_keeps_the_volume_of_lesions_on_average_and_less_enlarges_it():
    random = np.random.default_rng(1)
    volumes = {0.5: 0.0, 0.3: 0.0, 'true': 0.0}
    grid = np.moveaxis(np.indices((40, 40, 48)), 0, -1)
    for number in range(40):
        centre, radius = random.uniform(12, 28, 3) + (0, 0, 4), random.uniform(3, 8)
        ball = torch.from_numpy((np.linalg.norm(grid - centre, axis=-1) < radius) * 1.0).float()
        slices = Slices(2, 5, 5.0, number % 5)
        volumes['true'] += float(ball.sum())
        for least in (0.5, 0.3):
            draws = np.random.default_rng(number)
            drawn, _ = drawn_in_slices(ball, slices, draws, least=least)
            volumes[least] += float(drawn.sum())
    assert volumes[0.5] / volumes['true'] == pytest.approx(1, abs=0.03)
    assert volumes[0.3] / volumes['true'] > 1.05
