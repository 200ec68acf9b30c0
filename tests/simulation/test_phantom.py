import numpy as np
import pytest

from ssl2_bids.simulation.phantom import (
    Anatomy,
    deform,
    individual,
    render,
    rigid,
    smooth_field,
    transmit_field,
)
from ssl2_bids.simulation.sequences import PROTOCOLS, TISSUES, signals


def generator(seed=0):
    return np.random.default_rng(seed)


def test_smooth_field_is_standardised_and_smooth():
    field = smooth_field((60, 50, 40), generator(), scale=15)
    assert field.shape == (60, 50, 40)
    assert field.mean() == pytest.approx(0, abs=1e-5)
    assert field.std() == pytest.approx(1, abs=1e-5)
    assert max(np.diff(field, axis=axis).std() for axis in range(3)) < 3 / 15


def test_rigid_keeps_lengths_and_handedness():
    motion = rigid(generator(3), shift=5, angle=10)
    np.testing.assert_allclose(motion[:3, :3] @ motion[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(motion[:3, :3]) == pytest.approx(1)
    assert 0 < np.abs(motion[:3, 3]).max() <= 5


def test_deform_scales_and_bends_within_bounds(ball):
    volumes = []
    for seed in range(3):
        head = deform(ball, generator(seed))
        total = np.sum(list(head.fractions.values()), axis=0)
        assert total.max() <= 1 + 1e-5
        assert total[[0, -1]].max() == total[:, [0, -1]].max() == total[:, :, [0, -1]].max() == 0
        volumes.append(head.brain.sum() / ball.brain.sum())
        assert np.linalg.norm(head.centre) < 8
    assert 0.94**3 * 0.75 < min(volumes) < max(volumes) < 0.94**3 * 1.3
    assert max(volumes) - min(volumes) > 0.01


def test_deform_without_change_gives_the_template(ball):
    head = deform(ball, generator(), size=1, scaling=0, elastic=0)
    sheared = head.fractions['wm'].sum() / ball.fractions['wm'].sum()
    assert sheared == pytest.approx(1, abs=0.01)


def test_deform_repeats_itself(ball):
    first, second = (deform(ball, generator(5)) for _ in range(2))
    assert all((first.fractions[k] == second.fractions[k]).all() for k in first.fractions)


def test_voxels_hold_the_mean_of_their_tissues_signals():
    fractions = {'wm': np.float32([[[1, 0.25]]]), 'csf': np.float32([[[0, 0.75]]])}
    protocol = PROTOCOLS[3, 'T1w']
    (image,) = render(
        Anatomy(fractions, np.eye(4)), TISSUES[3], protocol, np.ones((1, 1, 2), np.float32)
    )
    white, fluid = (signals(TISSUES[3][name], protocol)[0] for name in ('wm', 'csf'))
    np.testing.assert_allclose(image.ravel(), [white, 0.25 * white + 0.75 * fluid], rtol=1e-5)


def test_one_heads_tissues_vary_around_the_centre():
    tissues = individual(TISSUES[7], generator(), (30, 30, 30))
    for name, tissue in tissues.items():
        assert tissue.t1.mean() == pytest.approx(TISSUES[7][name].t1, rel=0.12)
        assert 0.01 < tissue.t1.std() / tissue.t1.mean() < 0.06
        assert tissue.t2 != TISSUES[7][name].t2


def test_transmit_field_is_flat_at_3t_and_bright_in_the_centre_at_7t(ball):
    flat, domed = (
        np.mean([transmit_field(ball, generator(s), field=field) for s in range(5)], axis=0)
        for field in (3, 7)
    )
    assert flat[ball.brain].std() < 0.06
    assert domed[ball.brain].mean() == pytest.approx(1, abs=0.02)
    radius = np.linalg.norm(np.indices(ball.brain.shape) - 40, axis=0)
    assert domed[radius < 8].mean() > domed[(radius > 30) & (radius < 36)].mean() + 0.02
    assert domed.min() >= 0.5
    assert domed.max() <= 1.4
