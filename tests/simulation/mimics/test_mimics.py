import dataclasses
import json

import numpy as np
import pytest
from known_head import known_head

from ssl2_bids.simulation.anatomy.anatomy import Anatomy
from ssl2_bids.simulation.lesions.lesions import PaintedLesions, paint
from ssl2_bids.simulation.mimics.mimics import MimicDraw, draw_mimics, with_mimics

NOTHING = MimicDraw(
    frontal_caps=(0.0, 0.0),
    occipital_caps=(0.0, 0.0),
    band=0.0,
    ependyma=0.0,
    reach=1.5,
    tracts=dict.fromkeys(('corticospinal', 'optic_radiation', 'splenium', 'cingulum'), 0.0),
    dirty=0.0,
    limbic=0.0,
    insula=0.0,
    cortex=0.0,
    septum=0.0,
    plexus=0.0,
    pools=dict.fromkeys(('monro', 'third', 'fourth', 'prepontine', 'suprasellar', 'ambient'), 0.0),
    null=0.0,
    spaces=0,
    veins=0,
    specks=0,
    damage=0.25,
    t2_factor=1.8,
    seed=3,
)


def generator(seed=0):
    return np.random.default_rng(seed)


def total(anatomy):
    return np.sum(list(anatomy.fractions.values()), axis=0)


@pytest.fixture(scope='module')
def bare() -> PaintedLesions:
    return paint(known_head(np.eye(4)), generator(), load=0)


@pytest.fixture(scope='module')
def painted() -> PaintedLesions:
    return paint(known_head(np.eye(4)), generator(1), load=6.0)


def altered(lesions, **strengths):
    """Fraction of tissue that looks like a lesion, with one mimic alone."""
    found = with_mimics(lesions, dataclasses.replace(NOTHING, **strengths))
    return found.anatomy.fractions['lesion'], found


def coordinates(anatomy):
    at = np.indices(anatomy.shape)
    return [anatomy.affine[i, i] * at[i] + anatomy.affine[i, 3] for i in range(3)]


def test_the_truth_holds_no_mimics(painted):
    for seed in range(2):
        found = with_mimics(painted, draw_mimics(generator(seed)))
        for name in ('severity', 'instances'):
            assert getattr(found, name).tobytes() == getattr(painted, name).tobytes()
        assert found.table == painted.table
        np.testing.assert_allclose(total(found.anatomy), total(painted.anatomy), atol=2e-5)
        assert min(part.min() for part in found.anatomy.fractions.values()) > -1e-6
        more = found.anatomy.fractions['lesion'] - painted.anatomy.fractions['lesion']
        assert (more > 0.05).sum() > 500
        inside = painted.severity > 0.95
        np.testing.assert_allclose(found.damage[inside], painted.damage[inside], atol=0.05)
        assert 0 <= found.pulsation.min() <= found.pulsation.max() <= 1
        assert not (found.ignore & painted.truth).any()


def test_a_draw_without_mimics_changes_nothing(painted):
    found = with_mimics(painted, NOTHING)
    for name, part in painted.anatomy.fractions.items():
        np.testing.assert_allclose(found.anatomy.fractions[name], part, atol=1e-6)
    assert not found.ignore.any()
    assert found.pulsation.max() == 0


def test_caps_lie_at_the_ends_of_the_horns(bare):
    around = bare.around
    lesion, _ = altered(bare, frontal_caps=(0.0, 0.4))
    lesion = lesion[around.box]
    near = (around.to_ventricle > 0) & (around.to_ventricle < 3)
    x, y, _ = coordinates(bare.anatomy)
    x, y = x[around.box], y[around.box]
    front = near & (y > y[around.to_ventricle == 0].max() - 8)
    assert lesion[front & (x > 4)].mean() > 0.1
    assert lesion[front & (x < -4)].mean() < 0.02
    assert lesion[near & (y < -10)].mean() < 0.02
    assert lesion[around.to_ventricle > 10].max() < 0.01
    behind, _ = altered(bare, occipital_caps=(0.4, 0.4))
    behind = behind[around.box]
    assert behind[near & (y < -30)].mean() > 5 * behind[front].mean()


def test_bands_and_lining_follow_the_ventricles(bare):
    around = bare.around
    band, _ = altered(bare, band=0.2)
    means = [
        band[around.box][(around.to_ventricle > low) & (around.to_ventricle <= low + 1.7)].mean()
        for low in (0, 3, 6)
    ]
    assert means[0] > 2 * means[1] > 0
    assert means[2] < 0.01
    lining, _ = altered(bare, ependyma=0.5)
    assert lining[around.box][around.to_ventricle > 2.5].max() < 0.01


def test_tracts_lie_on_both_sides_in_white_matter(bare):
    tracts = NOTHING.tracts | {'corticospinal': 0.3}
    lesion, _ = altered(bare, tracts=tracts)
    x, y, z = coordinates(bare.anatomy)
    capsule = (np.abs(np.abs(x) - 24) < 4) & (np.abs(y + 18) < 5) & (np.abs(z - 14) < 5)
    white = bare.anatomy.fractions['wm'] > 0.5
    assert lesion[capsule & white & (x > 0)].mean() > 0.1
    assert lesion[capsule & white & (x < 0)].mean() > 0.1
    assert lesion[(y > 25) | (y < -55)].max() < 0.01
    assert lesion[np.abs(z + 25) < 4].max() > 0.1  # in the brain stem


def test_spaces_hold_fluid_and_veins_hold_blood(painted):
    before = painted.anatomy.fractions
    _, spaces = altered(painted, spaces=40)
    gained = spaces.anatomy.fractions['csf'] - before['csf']
    assert gained.min() >= -1e-6
    assert 50 < gained.sum() * painted.anatomy.voxel_volume < 2000
    assert gained[painted.severity > 0.9].max() < 0.11
    _, veined = altered(painted, veins=30)
    share = veined.anatomy.fractions['vein'] - before.get('vein', 0)
    assert share.max() > 0.05
    assert 20 < share.sum() * painted.anatomy.voxel_volume < 600


def test_specks_are_to_be_ignored(bare):
    lesion, found = altered(bare, specks=8)
    assert found.ignore.any()
    assert not found.truth.any()
    assert lesion[found.ignore].mean() > 0.3
    assert lesion[~found.ignore].max() < 0.45


def test_pulsation_lies_in_its_pools(bare):
    _, found = altered(bare, pools=NOTHING.pools | {'fourth': 0.4}, null=0.05)
    x, y, z = coordinates(bare.anatomy)
    around_pool = (np.abs(x) < 6) & (np.abs(y + 46) < 6) & (np.abs(z + 32) < 6)
    assert found.pulsation[around_pool].mean() > 0.1
    far = found.pulsation[found.anatomy.brain & (z > 20)]
    np.testing.assert_allclose(far, 0.05, atol=1e-6)


def test_cortex_and_septum(bare):
    lesion, _ = altered(bare, insula=0.3)
    x, y, z = coordinates(bare.anatomy)
    insula = (np.abs(np.abs(x) - 38) < 4) & (np.abs(y - 4) < 8) & (np.abs(z - 2) < 6)
    grey = bare.anatomy.fractions['gm'] > 0.5
    assert lesion[insula & grey].mean() > 0.1
    assert lesion[grey & (z > 30)].max() < 0.02
    # The mean head has one ventricle; a septum needs two that meet.
    labels = bare.healthy.labels.copy()
    labels[(labels == 4) & (x > 0)] = 43
    both = dataclasses.replace(bare, healthy=dataclasses.replace(bare.healthy, labels=labels))
    _, found = altered(both, septum=0.8)
    less = bare.anatomy.fractions['csf'] - found.anatomy.fractions['csf']
    assert less.max() > 0.5
    assert np.abs(x[less > 0.1]).max() < 5


def test_draws_are_json_and_vary_as_healthy_people_do():
    draws = [draw_mimics(generator(seed)) for seed in range(400)]
    stored = json.loads(json.dumps(dataclasses.asdict(draws[0])))
    assert stored['band'] == draws[0].band
    frontal = np.mean([max(draw.frontal_caps) > 0 for draw in draws])
    occipital = np.mean([max(draw.occipital_caps) > 0 for draw in draws])
    uneven = np.mean([draw.frontal_caps[0] != draw.frontal_caps[1] for draw in draws])
    assert 0.85 < frontal < 0.95
    assert 0.70 < occipital < 0.84
    assert 0.40 < uneven < 0.57
    assert min(draw.ependyma for draw in draws) >= 0.1
    assert min(draw.tracts['corticospinal'] for draw in draws) >= 0.06
    assert 0.14 < np.mean([draw.dirty > 0 for draw in draws]) < 0.26
    assert max(max(draw.frontal_caps) for draw in draws) <= 0.75


def test_equal_draws_give_equal_bytes(painted):
    draw = draw_mimics(generator(5))
    first, second = (with_mimics(painted, draw) for _ in range(2))
    for name in ('damage', 't2_factor', 'ignore', 'pulsation'):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()
    for name, part in first.anatomy.fractions.items():
        assert part.tobytes() == second.anatomy.fractions[name].tobytes()


def test_heads_without_labels_get_what_needs_no_atlas(ball):
    plain = Anatomy(ball.fractions, ball.affine)
    lesions = paint(plain, generator(2), load=1.0)
    found = with_mimics(lesions, draw_mimics(generator(1)))
    np.testing.assert_allclose(total(found.anatomy), total(plain), atol=2e-5)
    more = found.anatomy.fractions['lesion'] - lesions.anatomy.fractions['lesion']
    assert more.max() > 0.05
