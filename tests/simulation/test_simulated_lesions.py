import numpy as np
import pytest
from scipy import ndimage

from ssl2_bids.simulation import lesions as lesion_module
from ssl2_bids.simulation.lesions import draw_size_and_place, fuzzy, paint


@pytest.fixture(scope='module')
def painted(ball):
    return paint(ball, np.random.default_rng(2), load=4.0)


def test_load_is_what_was_asked_for(painted):
    truth = painted.severity >= 0.5
    assert truth.sum() / 1000 == pytest.approx(4.0, rel=0.25)
    assert painted.count > 10


def test_lesions_take_from_the_tissue_and_leave_the_fluid(painted, ball):
    before, after = ball.fractions, painted.anatomy.fractions
    np.testing.assert_allclose(
        after['wm'] + after['gm'] + after['lesion'], before['wm'] + before['gm'], atol=1e-6
    )
    assert (after['csf'] == before['csf']).all()
    assert min(after['wm'].min(), after['gm'].min()) >= 0
    assert painted.severity[before['csf'] == 1].max() == 0


def test_truth_is_white_matter_mostly(painted, ball):
    truth = painted.severity >= 0.5
    assert (ball.fractions['gm'][truth] > 0.9).mean() < 0.02


def test_border_is_fuzzy_and_damage_covers_it(painted):
    severity = painted.severity
    partial = (severity > 0.05) & (severity < 0.5)
    assert partial.sum() > 0.5 * (severity >= 0.5).sum()
    assert (painted.damage[severity > 0] >= 0.2).all()
    assert painted.damage.max() <= 0.55


def test_lesions_lie_by_the_ventricle_more_than_white_matter_does(painted, ball):
    radius = np.linalg.norm(np.indices(ball.brain.shape) - 40, axis=0)
    near = radius < 15
    white = ball.fractions['wm'] > 0.5
    truth = painted.severity >= 0.5
    assert truth[near].sum() / truth.sum() > 2 * (white & near).sum() / white.sum()


def test_halo_never_reaches_the_truth():
    random = np.random.default_rng(0)
    distance = np.linspace(-6, 12, 400)
    for _ in range(50):
        severity = fuzzy(distance, random, volume=400)
        assert ((severity >= 0.5) == (distance <= 0)).all()
        assert (np.diff(severity) <= 1e-6).all()


def test_sizes_follow_the_masks_of_patients():
    random = np.random.default_rng(0)
    volumes = np.array([draw_size_and_place(random)[0] for _ in range(4000)])
    quartiles = np.percentile(volumes, [25, 50, 75])
    np.testing.assert_allclose(quartiles, [6.5, 17.4, 47], rtol=0.4)
    assert volumes[volumes >= 100].sum() / volumes.sum() > 0.7
    assert volumes.min() >= 3


def test_painting_repeats_itself_and_depends_on_the_seed(ball):
    first, second, other = (
        paint(ball, np.random.default_rng(seed), load=1.0).severity for seed in (7, 7, 8)
    )
    assert (first == second).all()
    assert (first != other).any()


def test_more_load_than_room_comes_to_an_end(ball, monkeypatch):
    monkeypatch.setattr(lesion_module, 'ATTEMPTS', 150)
    painted = paint(ball, np.random.default_rng(0), load=200.0)
    pieces = ndimage.label(painted.severity >= 0.5)[1]
    assert pieces > 0
    assert painted.severity.max() <= 1
