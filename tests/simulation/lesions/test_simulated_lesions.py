import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from label_phantom import label_head
from scipy import ndimage

from ssl2_bids.errors import DataError
from ssl2_bids.simulation.anatomy.anatomy import Anatomy, Deformation, deform
from ssl2_bids.simulation.anatomy.label_maps import from_label_map
from ssl2_bids.simulation.anatomy.surroundings import PLACES, survey
from ssl2_bids.simulation.lesions.growth import LesionAppearance, core_of, steepness
from ssl2_bids.simulation.lesions.lesions import (
    PaintedLesions,
    Statistics,
    paint,
    statistics_for,
    truth_on,
)
from ssl2_bids.simulation.lesions.painter import Painter
from ssl2_bids.simulation.lesions.statistics import draw_appearance
from ssl2_bids.volume import Volume

STILL = Deformation((1.0, 1.0, 1.0), (0.0,) * 6, 0.0, 1.0, 0)


def generator(seed=0):
    return np.random.default_rng(seed)


def total(anatomy):
    return np.sum(list(anatomy.fractions.values()), axis=0)


@pytest.fixture(scope='module')
def head() -> Anatomy:
    """72 mm from side to side, with labels."""
    affine = np.eye(4)
    affine[:3, 3] = -35.5
    return deform(from_label_map(Volume(label_head(skull=False), affine)), STILL)


@pytest.fixture(scope='module')
def plain(head) -> Anatomy:
    """White matter, grey matter and fluid only."""
    parts = head.fractions
    grey = parts['gm'] + parts['thalamus'] + parts['putamen']
    return Anatomy(
        {'wm': parts['wm'] + parts['brainstem'], 'gm': grey, 'csf': parts['csf']}, head.affine
    )


@pytest.fixture(scope='module')
def painted(head) -> PaintedLesions:
    return paint(head, generator(2), load=4.0)


@pytest.mark.parametrize('load', [0.1, 1.0, 6.0])
@pytest.mark.parametrize('kind', ['head', 'plain'])
def test_load_is_what_was_asked_for(load, kind, request):
    anatomy = request.getfixturevalue(kind)
    lesions = paint(anatomy, generator(1), load=load)
    assert lesions.volume_ml == pytest.approx(load, rel=0.03)
    assert lesions.count == len(lesions.table) > 3


def test_a_head_without_lesions(head):
    lesions = paint(head, generator(), load=0)
    assert lesions.count == 0
    assert lesions.table == ()
    assert not lesions.truth.any()
    assert not lesions.instances.any()
    for name, fraction in head.fractions.items():
        np.testing.assert_array_equal(lesions.anatomy.fractions[name], fraction)
    assert lesions.anatomy.fractions['lesion'].max() == 0


def test_lesions_take_from_tissue_and_leave_the_fluid(painted, head):
    after = painted.anatomy.fractions
    np.testing.assert_allclose(total(painted.anatomy), total(head), atol=1e-5)
    assert min(fraction.min() for fraction in after.values()) >= 0
    np.testing.assert_array_equal(after['csf'], head.fractions['csf'])
    assert painted.severity[head.fractions['csf'] > 0.99].max() < 0.01
    around = painted.around
    for patch in painted.patches:
        share = around.susceptible[patch.lesion.kind][patch.box]
        assert share[patch.truth].min() >= 0.5


def test_truth_instances_and_table_agree(painted):
    np.testing.assert_array_equal(painted.instances > 0, painted.truth)
    volumes = np.bincount(painted.instances.ravel())[1:] * painted.anatomy.voxel_volume
    assert [lesion.index for lesion in painted.table] == list(range(1, painted.count + 1))
    np.testing.assert_allclose([lesion.volume_mm3 for lesion in painted.table], volumes)
    wanted = np.array([lesion.volume_wanted for lesion in painted.table])
    assert np.abs(volumes - wanted).max() <= 1.0
    for lesion in painted.table[:40]:
        where = np.argwhere(painted.instances == lesion.index)
        centre = where.mean(axis=0) + painted.anatomy.affine[:3, 3]
        away = np.linalg.norm(centre - np.array(lesion.centre))
        assert away < 3 + 1.6 * np.cbrt(lesion.volume_mm3)


def test_each_lesion_is_in_one_piece_and_small_ones_keep_apart(painted):
    pieces = 0
    for index, box in enumerate(ndimage.find_objects(painted.instances), start=1):
        pieces += ndimage.label(painted.instances[box] == index, np.ones((3, 3, 3)))[1]
    assert pieces <= 1.25 * painted.count
    joined = ndimage.label(painted.truth, np.ones((3, 3, 3)))[1]
    assert joined >= 0.8 * painted.count


def test_borders_are_fuzzy_and_halos_stay_out_of_the_truth(painted):
    taken = painted.anatomy.fractions['lesion']
    faint = (painted.severity > 0.03) & ~painted.truth
    assert faint.sum() > 0.7 * painted.truth.sum()
    assert painted.severity[~painted.truth].max() < 0.5
    assert (taken[faint] > 0).mean() > 0.95
    assert (painted.damage[taken > 0] >= 0.03).all()
    assert painted.damage.max() <= 0.62
    assert painted.t2_factor.min() >= 1
    assert painted.t2_factor[painted.truth].min() >= 1.25


def test_severity_is_one_half_on_the_border():
    look = LesionAppearance(0.3, 1.8, edge=2.0, halo=0.2, reach=2.0)
    outline = np.linspace(-6, 6, 401)
    for volume in (2.0, 50.0, 5000.0):
        severity = core_of(outline, steepness(look, volume))
        assert ((severity >= 0.5) == (outline <= 0)).all()
        assert severity[0] > 0.95
    # Severity falls from 90 to 10 % within the edge.
    inside = (severity > 0.1) & (severity < 0.9)
    assert np.ptp(outline[inside]) == pytest.approx(2.0, abs=0.1)


def test_lesions_lie_by_the_ventricles_more_than_white_matter_does(head):
    around = survey(head)
    near, white, truth = 0, 0, 0
    for seed in range(3):
        lesions = paint(head, generator(seed), load=2.5)
        inside = lesions.truth[around.box]
        near += (inside & (around.to_ventricle < 6)).sum()
        truth += inside.sum()
    part = head.fractions['wm'][around.box] > 0.5
    white = (part & (around.to_ventricle < 6)).sum() / part.sum()
    assert near / truth > 1.3 * white


def sizes_of(load, seeds, statistics):
    # Sizes depend on which places there are, not on their voxels.
    around = SimpleNamespace(candidates=dict.fromkeys(PLACES, True), shape=(2, 2, 2))
    drawn = []
    for seed in range(seeds):
        painter = Painter(around, generator(seed), statistics, None)
        drawn += painter.draw_sizes(load * 1000)
    volumes = np.array([volume for volume, _ in drawn])
    return volumes, [place for _, place in drawn]


def test_sizes_and_places_follow_the_masks_of_patients():
    # 5th to 95th percentile of 3286 lesions of 30 patients: 1.2, 6.5, 17.4, 47, 251 mm^3;
    # of the number 12.4 % have 100 mm^3 or more, and these hold 88 % of the volume.
    volumes, places = sizes_of(14.1, 40, Statistics())
    quartiles = np.percentile(volumes, [25, 50, 75])
    np.testing.assert_allclose(quartiles, [6.5, 17.4, 47], rtol=0.25)
    assert 1.0 <= np.percentile(volumes, 5) < 3
    assert 180 < np.percentile(volumes, 95) < 500
    assert 0.10 < (volumes >= 100).mean() < 0.17
    assert 0.8 < volumes[volumes >= 100].sum() / volumes.sum() < 0.93
    assert 50 < len(volumes) / 40 < 160
    share = {name: places.count(name) / len(places) for name in PLACES}
    assert 0.05 < share['infratentorial'] < 0.10
    assert 0.02 < share['deep_grey'] < 0.05
    assert share['cortical'] == 0
    assert 0.15 < share['periventricular'] < 0.30


def test_seven_tesla_shows_smaller_lesions_and_the_cortex():
    volumes, places = sizes_of(10.0, 40, statistics_for(7.0))
    assert 7 < np.median(volumes) < 13
    assert 0.05 < places.count('cortical') / len(places) < 0.15
    assert statistics_for(3.0).cortical == (0.0, 0.0)


def test_a_small_load_is_made_of_small_lesions():
    volumes, _ = sizes_of(0.5, 30, Statistics())
    assert volumes.max() < 150
    assert 8 < len(volumes) / 30 < 40


def test_places_are_named_as_they_are(head):
    lesions = paint(head, generator(4), load=5.0)
    around = lesions.around
    instances = lesions.instances[around.box]
    for lesion in lesions.table:
        where = instances == lesion.index
        assert lesion.place in PLACES
        if lesion.place == 'periventricular':
            assert around.to_ventricle[where].min() <= 1.8
        elif lesion.place == 'deep':
            assert around.to_ventricle[where].min() > 1.8 < around.to_cortex[where].min()
        elif lesion.place == 'deep_grey':
            assert around.nuclei[where].mean() > 0.5
    found = {lesion.place for lesion in lesions.table}
    assert {'periventricular', 'juxtacortical', 'infratentorial'} <= found


def test_cortical_lesions_are_faint_and_lie_in_the_cortex(head):
    statistics = dataclasses.replace(statistics_for(7), cortical=(0.5, 0.5))
    lesions = paint(head, generator(1), load=2.0, statistics=statistics)
    cortical = [lesion for lesion in lesions.table if lesion.place == 'cortical']
    assert 0.3 < len(cortical) / lesions.count < 0.65
    assert {lesion.form for lesion in cortical} == {'subpial', 'intracortical', 'leukocortical'}
    for lesion in cortical:
        where = lesions.instances == lesion.index
        if lesion.form != 'leukocortical':
            assert head.fractions['gm'][where].min() >= 0.5
        else:
            assert head.fractions['gm'][where].mean() > 0.1
        assert lesions.anatomy.fractions['lesion'][where].max() <= 0.66


def test_appearance_is_drawn_within_its_ranges():
    looks = [draw_appearance(200.0, 'deep', generator(seed), veins=0.5) for seed in range(800)]
    damage = np.array([look.damage for look in looks])
    factor = np.array([look.t2_factor for look in looks])
    assert 0.12 <= damage.min() < 0.2 < 0.5 < damage.max() <= 0.55
    assert 1.25 <= factor.min() < 1.4 < 2.8 < factor.max() <= 3.0
    assert 0.6 < np.corrcoef(damage, factor)[0, 1] < 0.78
    assert 0.07 < np.mean([look.rim > 0 for look in looks]) < 0.13
    assert 0.44 < np.mean([look.vein > 0 for look in looks]) < 0.56
    assert 0.15 < np.mean([look.core > 0 for look in looks]) < 0.25
    assert all(0.1 <= look.halo <= 0.4 and 1 <= look.reach <= 5 for look in looks)
    small = [draw_appearance(20.0, 'deep', generator(seed), veins=0.5) for seed in range(50)]
    assert not any(look.rim or look.vein or look.core for look in small)


def test_rims_and_veins_are_fractions_of_their_own(head):
    lesions = paint(head, generator(8), load=8.0)
    drawn = {
        name: {p.lesion.index for p in lesions.patches if getattr(p.lesion.appearance, name)}
        for name in ('rim', 'vein')
    }
    for name, indices in drawn.items():
        share = lesions.anatomy.fractions[name]
        touched = set(np.unique(lesions.instances[share > 0.2])) - {0}
        # A vein is longer than its lesion and may reach another one.
        assert len(touched & indices) > 0.8 * len(indices) > 0
        assert name == 'vein' or touched <= indices
    np.testing.assert_allclose(total(lesions.anatomy), total(head), atol=1e-5)


def test_painting_repeats_itself_and_depends_on_the_seed(head):
    first, second, other = (paint(head, generator(seed), load=1.0) for seed in (7, 7, 8))
    for name in ('severity', 'damage', 't2_factor', 'instances'):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()
    assert all(
        first.anatomy.fractions[n].tobytes() == second.anatomy.fractions[n].tobytes()
        for n in first.anatomy.fractions
    )
    assert first.table == second.table
    assert first.severity.tobytes() != other.severity.tobytes()


def test_what_was_drawn_repaints_the_same_shape(painted):
    painter = Painter(painted.around, generator(), Statistics(), None)
    for patch in painted.patches[:15]:
        again = painter.regrow(patch.lesion)
        painter.keep(again)
        assert again.severity.tobytes() == patch.severity.tobytes()
        assert again.truth.tobytes() == patch.truth.tobytes()


def test_the_table_is_json(painted):
    stored = json.loads(json.dumps([dataclasses.asdict(lesion) for lesion in painted.table]))
    assert stored[0]['volume_mm3'] == painted.table[0].volume_mm3
    assert stored[0]['appearance']['damage'] == painted.table[0].appearance.damage


def test_more_load_than_room_comes_to_an_end():
    labels = label_head(48, skull=False)
    small = deform(from_label_map(Volume(labels, np.eye(4))), STILL)
    lesions = paint(small, generator(), load=60.0)
    room = small.fractions['wm'].sum() / 1000
    assert 0.1 * room < lesions.volume_ml < room


def test_an_anatomy_without_white_matter_is_refused(head):
    fractions = {name: part for name, part in head.fractions.items() if name != 'wm'}
    bare = Anatomy(fractions | {'wm': np.zeros(head.shape, np.float32)}, head.affine)
    with pytest.raises(DataError, match='no white matter'):
        paint(bare, generator(), load=1.0)
    empty = Anatomy({'wm': np.zeros((5, 5, 5), np.float32)}, np.eye(4))
    with pytest.raises(DataError, match='empty'):
        paint(empty, generator(), load=1.0)


def test_finer_voxels_hold_the_same_load(head):
    affine = np.eye(4)
    affine[:3, 3] = -35.5
    template = from_label_map(Volume(label_head(skull=False), affine))
    fine = deform(template, STILL, voxel_size=0.8)
    lesions = paint(fine, generator(3), load=2.0, statistics=statistics_for(7))
    assert lesions.volume_ml == pytest.approx(2.0, rel=0.03)
    voxels = np.array([lesion.volume_mm3 for lesion in lesions.table]) / 0.8**3
    np.testing.assert_allclose(voxels, np.rint(voxels), atol=1e-6)


def test_truth_on_another_grid(painted):
    anatomy = painted.anatomy
    same = truth_on(painted, anatomy.affine, anatomy.shape)
    np.testing.assert_array_equal(same.mask, painted.truth)
    np.testing.assert_array_equal(same.instances, painted.instances)
    assert not same.ignore.any()
    affine = anatomy.affine @ np.diag([0.8, 0.8, 0.8, 1.0])
    shape = tuple(int(n / 0.8) for n in anatomy.shape)
    finer = truth_on(painted, affine, shape)
    assert finer.mask.sum() * 0.8**3 / 1000 == pytest.approx(painted.volume_ml, rel=0.12)
    np.testing.assert_array_equal(finer.instances > 0, finer.mask)
    moved = np.eye(4)
    moved[0, 3] = 3.0
    shifted = truth_on(painted, anatomy.affine, anatomy.shape, transform=moved)
    np.testing.assert_array_equal(shifted.mask[:-3], painted.truth[3:])
