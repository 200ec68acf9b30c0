from dataclasses import replace
from functools import partial

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from small_scanner import small_scanner

from ssl2_bids.simulation.anatomy.anatomy import Anatomy
from ssl2_bids.simulation.anatomy.tissues import draw_individual, read_tissues
from ssl2_bids.simulation.lesions.lesions import paint
from ssl2_bids.simulation.scanner.artefacts import Artefacts
from ssl2_bids.simulation.scanner.grids import (
    displace,
    draw_placement,
    place,
    sample,
    slice_profile,
    truth_in,
)
from ssl2_bids.simulation.scanner.protocols import Geometry
from ssl2_bids.simulation.scanner.rendering import draw_head, make_head, render, split
from ssl2_bids.simulation.scanner.scan import draw_scan, grid_of, scan
from ssl2_bids.simulation.scanner.sequences import signals
from ssl2_bids.volume import Volume

UNMOVED = tuple(map(tuple, np.eye(4)))


def generator(seed=0):
    return np.random.default_rng(seed)


small = partial(small_scanner, extent=(90.0, 96.0, 92.0))


def head_of(lesions, field, *, surround=None):
    scanner = small(field)
    tissues = draw_individual(generator(2), scanner.tissues, read_tissues(field))
    if surround is None:
        _, surround = split(lesions.healthy)
    return make_head(lesions, surround, draw_head(generator(3), scanner, tissues), field=field)


@pytest.fixture(scope='module')
def lesions(ball):
    brain, _ = split(ball)
    return paint(brain, generator(1), load=3.0)


@pytest.fixture(scope='module')
def heads(lesions, ball):
    _, surround = split(ball)
    return {field: head_of(lesions, field, surround=surround) for field in (1.5, 3.0, 7.0)}


def scanned(heads, lesions, suffix, field, *, clean=True, **options):
    """Images by kind and number, and the fractions of tissues on their grid."""
    head, scanner = heads[field], small(field)
    draw = draw_scan(generator(4), scanner)
    if clean:
        draw = replace(draw, artefacts=replace(draw.artefacts, kept=None))
    images = {
        (i.volume.contrast, i.inversion or i.echo, i.phase): i.volume
        for i in scan(head, scanner, suffix, draw, **options)
    }
    grid = grid_of(head, scanner, suffix, draw)
    fractions = {
        name: sample(fraction, lesions.anatomy.affine, grid, draw.placement.pose)
        for name, fraction in lesions.anatomy.fractions.items()
    }
    return images, fractions


def medians(image, fractions):
    return {
        name: np.median(image[inside > 0.95])
        for name, inside in fractions.items()
        if (inside > 0.95).any()
    }


def test_grids_have_the_axes_and_shape_of_the_protocol():
    geometry = Geometry('PSR', (0.9, 0.8, 4.0), (88.0, 90.0, 96.0))
    centre = np.array([10.0, -5.0, 20.0])
    placement = draw_placement(generator(3))
    grid = place(placement, geometry, centre, 'FLAIR')
    assert grid.shape == geometry.shape == (100, 120, 22)
    assert ''.join(nib.aff2axcodes(grid.affine)) == 'PSR'
    np.testing.assert_allclose(grid.spacing, geometry.voxel, atol=1e-9)
    axes = grid.affine[:3, :3] / grid.spacing
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    assert 1e-3 < np.abs(axes - np.rint(axes)).max() < 0.1  # oblique
    middle = grid.affine @ [*(np.array(grid.shape) - 1) / 2, 1]
    moved = np.array(placement.pose) @ [*centre, 1]
    assert 0 < np.abs(middle - moved).max() <= 2


def test_pose_moves_the_head_by_its_values(lesions, heads):
    scanner = small(3)
    draw = draw_scan(generator(3), scanner)
    grid = grid_of(heads[3], scanner, 'FLAIR', draw)
    pose = np.array(draw.placement.pose)
    moved = sample(lesions.severity, lesions.anatomy.affine, grid, draw.placement.pose)
    here = np.array(ndimage.center_of_mass(lesions.severity))
    there = np.array(ndimage.center_of_mass(moved))
    expected = pose @ lesions.anatomy.affine @ np.append(here, 1)
    np.testing.assert_allclose(grid.affine @ np.append(there, 1), expected, atol=0.05)
    assert moved.sum() == pytest.approx(lesions.severity.sum(), rel=0.01)


def test_truth_lies_where_the_lesions_were_moved_to(lesions, heads):
    scanner = small(3)
    draw = draw_scan(generator(3), scanner)
    grid = grid_of(heads[3], scanner, 'FLAIR', draw)
    truth = truth_in(lesions, grid, draw.placement.pose)
    severity = sample(lesions.severity, lesions.anatomy.affine, grid, draw.placement.pose)
    np.testing.assert_array_equal(truth.mask, severity >= 0.5)
    np.testing.assert_array_equal(truth.instances > 0, truth.mask)
    volume = lesions.truth.sum() * lesions.anatomy.voxel_volume
    assert truth.mask.sum() * grid.voxel_volume == pytest.approx(volume, rel=0.15)


def test_slice_profile_is_a_box_with_ramps():
    for steps in (2, 3, 5, 40):
        weights = slice_profile(steps)
        assert weights.sum() == pytest.approx(1)
        np.testing.assert_allclose(weights, weights[::-1], rtol=1e-6)
    away = (np.arange(len(weights)) + 0.5 - len(weights) / 2) / 40
    half = np.abs(away[weights >= weights.max() / 2])
    assert half.max() == pytest.approx(0.5, abs=0.02)
    assert np.abs(away).max() == pytest.approx(0.6, abs=0.02)


def test_thick_slices_average_what_lies_within_them():
    """A plate of 1 mm in a slice of 4 mm leaves a quarter, wherever it lies in the slice."""
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    shape = (12, 12, 48)
    thick = Volume(np.zeros((12, 12, 12), np.uint8), np.diag([1.0, 1.0, 4.0, 1.0]))
    thick.affine[2, 3] = 1.5
    seen = []
    for level in range(20, 24):
        plate = np.zeros(shape, np.float32)
        plate[:, :, level] = 1
        image = sample(
            plate, affine, thick, UNMOVED, box=(slice(0, 12), slice(0, 12), slice(0, 48))
        )
        assert image[6, 6].sum() == pytest.approx(0.25, abs=0.02)
        seen.append(image[6, 6, 5])
    np.testing.assert_allclose(seen[1:3], 0.25, atol=0.03)
    assert min(seen) > 0.15
    ramp = np.broadcast_to(np.arange(48, dtype=np.float32), shape)
    image = sample(ramp, affine, thick, UNMOVED)
    np.testing.assert_allclose(image[6, 6, 1:-1], 4 * np.arange(1, 11) + 1.5, atol=1e-3)
    middle = sample(ramp**2, affine, thick, UNMOVED, thin=True)
    np.testing.assert_allclose(middle[6, 6, 2:-1], (4 * np.arange(2, 11) + 1.5) ** 2, rtol=0.02)


def test_thin_slices_of_thick_ones_sum_up():
    values = generator().random((20, 20, 60)).astype(np.float32)
    values = ndimage.gaussian_filter(values, 1)
    grids = [
        Volume(np.zeros((20, 20, int(60 / edge)), np.uint8), np.diag([1.0, 1.0, edge, 1.0]))
        for edge in (1.0, 3.0)
    ]
    grids[1].affine[2, 3] = 1.0
    box = (slice(0, 20), slice(0, 20), slice(0, 60))
    thin, thick = (sample(values, np.eye(4), grid, UNMOVED, box=box) for grid in grids)
    mean = thin.reshape(20, 20, 20, 3).mean(axis=-1)
    inner = (slice(2, -2),) * 3
    assert np.abs(thick - mean)[inner].max() < 0.25 * np.abs(mean - 0.5)[inner].max()


def test_voxels_hold_the_mean_of_their_tissues_signals():
    ones = np.ones((6, 6, 6), np.float32)
    fractions = {'wm': 0.25 * ones, 'csf': 0.75 * ones}
    lesions = paint_nothing(Anatomy(fractions, np.eye(4)))
    head = replace(
        head_of(lesions, 3.0),
        transmit=ones,
        texture=ones,
    )
    protocol = small(3).protocols['T1w']
    (image,) = render(head, protocol)
    tissues = {part.name: part.tissue for part in head.parts}
    white, fluid = (float(signals(tissues[name], protocol)[0]) for name in ('wm', 'csf'))
    np.testing.assert_allclose(image, 0.25 * white + 0.75 * fluid, rtol=1e-4)


def paint_nothing(anatomy):
    """Lesions without any, of an anatomy too small to hold one."""
    from ssl2_bids.simulation.lesions.lesions import PaintedLesions

    nothing = np.zeros(anatomy.shape, np.float32)
    return PaintedLesions(
        anatomy=anatomy,
        severity=nothing,
        damage=nothing,
        t2_factor=nothing + 1,
        instances=nothing.astype(np.uint16),
        table=(),
        healthy=anatomy,
        around=None,
        patches=(),
    )


def test_a_split_head_is_the_whole_head(ball):
    """Tissue around the brain, apart or not, gives the same parts."""
    padded = {name: np.pad(fraction, 6) for name, fraction in ball.fractions.items()}
    shell = np.linalg.norm(np.indices(padded['wm'].shape) - 46, axis=0)
    skin = ((shell > 38) & (shell < 45)).astype(np.float32)
    affine = ball.affine.copy()
    affine[:3, 3] -= 6
    whole = Anatomy(padded | {'skin': skin}, affine)
    brain, surround = split(whole)
    assert 'skin' not in brain.fractions
    assert np.prod(brain.shape) < np.prod(whole.shape)
    head = head_of(paint_nothing(brain), 3.0, surround=surround)
    assert head.shape == whole.shape
    for part in head.parts:
        np.testing.assert_array_equal(
            part.where, np.flatnonzero(whole.fractions[part.name] > 1e-3)
        )
        fraction = whole.fractions[part.name].reshape(-1)
        np.testing.assert_array_equal(part.amount, fraction[part.where])
    np.testing.assert_array_equal(head.brain, whole.brain)
    assert all((b.stop - b.start) >= 89 for b in head.box)


def test_flair_shows_the_brain_only_with_bright_lesions(lesions, heads):
    images, fractions = scanned(heads, lesions, 'FLAIR', 3.0)
    image = images['FLAIR', 0, False].data
    brain = np.sum(list(fractions.values()), axis=0) >= 0.5
    assert (image[~ndimage.binary_dilation(brain, iterations=2)] == 0).all()
    assert image.dtype == np.int16
    value = medians(image, fractions)
    assert 1.0 < value['gm'] / value['wm'] < 1.45
    assert value['csf'] < 0.4 * value['wm']
    assert value['lesion'] > 1.15 * value['wm']


def test_t1w_shows_dark_lesions(lesions, heads):
    images, fractions = scanned(heads, lesions, 'T1w', 3.0)
    value = medians(images['T1w', 0, False].data, fractions)
    assert value['csf'] < value['gm'] < 0.8 * value['wm']
    assert value['lesion'] < 0.95 * value['wm']


def test_mp2rage_has_noise_around_and_its_images_agree(lesions, heads):
    images, fractions = scanned(heads, lesions, 'UNIT1', 7.0, phase=True)
    uni = images['UNIT1', 0, False].data
    first, second = (images['MP2RAGE', n, False].data.astype(float) for n in (1, 2))
    assert set(images) == {
        ('UNIT1', 0, False),
        *(('MP2RAGE', n, p) for n in (1, 2) for p in (True, False)),
    }
    assert uni.min() >= 0
    assert uni.max() <= 4095
    air = np.sum(list(fractions.values()), axis=0) == 0
    assert uni[air].std() > 0.2 * 4095
    assert 0 < second[air].mean() < 0.1 * np.median(second[fractions['wm'] > 0.95])
    clear = (fractions['wm'] > 0.95) & (first > 40)
    product = first * second / (first**2 + second**2)
    apart = np.abs(np.abs(uni / 4095 - 0.5) - product)[clear]
    assert np.quantile(apart, 0.98) < 0.06
    value = medians(uni, fractions)
    assert value['csf'] < value['gm'] < value['wm']
    # The phases have the sign that magnitudes lack: UNI is the cosine of their difference.
    turned = images['MP2RAGE', 2, True].data - images['MP2RAGE', 1, True].data
    assert np.abs(images['MP2RAGE', 1, True].data).max() <= np.pi + 1e-5
    sign = np.sign(uni / 4095 - 0.5)
    certain = np.abs(uni / 4095 - 0.5) > 0.05
    assert (np.sign(np.cos(turned)) == sign)[certain].mean() > 0.999


def test_echoes_fade_and_their_phase_follows_the_field(lesions, heads):
    images, fractions = scanned(heads, lesions, 'MEGRE', 3.0, phase=True)
    times = small(3).protocols['MEGRE'].echoes
    assert len(images) == 2 * len(times)
    white = fractions['wm'] > 0.95
    levels = [np.median(images['MEGRE', n + 1, False].data[white]) for n in range(len(times))]
    assert sorted(levels, reverse=True) == levels
    rate = -np.polyfit(times, np.log(levels), 1)[0]
    assert rate == pytest.approx(1 / read_tissues(3)['wm'].t2star, rel=0.3)
    # Field times echo time: three echoes on one line, wherever the phase does not wrap.
    one, two, three = (images['MEGRE', n, True].data[white] for n in (1, 2, 3))
    bend = np.angle(np.exp(1j * (one - 2 * two + three)))
    assert np.median(np.abs(bend)) < 0.15


def test_whole_head_keeps_what_lies_outside(ball, lesions):
    radius = np.linalg.norm(np.indices(ball.shape) - 40, axis=0)
    fat = np.clip(39.5 - radius, 0, 1) - np.clip(37 - radius, 0, 1)
    whole = Anatomy(ball.fractions | {'fat': np.maximum(fat, 0).astype(np.float32)}, ball.affine)
    _, surround = split(whole)
    heads = {3.0: head_of(lesions, 3.0, surround=surround)}
    stripped, fractions = scanned(heads, lesions, 'T2w', 3.0)
    kept, _ = scanned(heads, lesions, 'T2w', 3.0, whole_head=True)
    image, bare = kept['T2w', 0, False].data, stripped['T2w', 0, False].data
    inside = bare > 0
    np.testing.assert_array_equal(image[inside], bare[inside])
    brain = np.sum(list(fractions.values()), axis=0) > 0.01
    near = ndimage.binary_dilation(brain, iterations=3) & ~ndimage.binary_dilation(brain)
    assert np.median(image[near]) > 100
    assert (bare[near] == 0).all()
    assert (image > 0).mean() > 0.9  # noise of the air


def test_labels_are_displaced_as_the_image_is(lesions, heads):
    """Truth and image must stay together where the field is off."""
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[8:12, 8:12, 8:12] = 1
    field = np.full(labels.shape, 300.0, np.float32)
    moved = displace(labels, field, bandwidth=150, axis=1)
    np.testing.assert_array_equal(moved, np.roll(labels, 2, axis=1))
    np.testing.assert_array_equal(displace(labels, field, bandwidth=0, axis=1), labels)
    both = displace(np.stack([labels, 2 * labels]), field, bandwidth=-150, axis=0)
    np.testing.assert_array_equal(both[1], 2 * np.roll(labels, -2, axis=0))
    scanner = small(7.0)
    draw = draw_scan(generator(4), scanner)
    draw = replace(draw, artefacts=Artefacts())
    head = replace(heads[7.0], off_resonance=np.full(heads[7.0].shape, 500.0, np.float32))
    (image,) = scan(head, scanner, 'T1w', draw)
    still = replace(head, off_resonance=np.zeros(head.shape, np.float32))
    (unmoved,) = scan(still, scanner, 'T1w', draw)
    axis = scanner.geometries['T1w'].readout_axis
    inner = [slice(30, -30)] * 3
    steps = round(500 / scanner.protocols['T1w'].bandwidth)
    shifted = np.roll(unmoved.volume.data, steps, axis=axis)
    difference = np.abs(image.volume.data.astype(float) - shifted)[tuple(inner)]
    assert np.median(difference) < 10
    wrong = np.abs(image.volume.data.astype(float) - unmoved.volume.data)[tuple(inner)]
    assert np.mean(difference) < 0.2 * np.mean(wrong)


def test_fat_is_displaced_against_water(heads):
    scanner = small(7.0)
    shape = heads[7.0].shape
    draw = replace(draw_scan(generator(4), scanner), artefacts=Artefacts())
    still = replace(heads[7.0], off_resonance=np.zeros(shape, np.float32))
    fatty = replace(still, parts=tuple(replace(p, name='fat') for p in still.parts))
    suffix = 'T1w'
    (water,), (fat,) = (
        list(scan(h, scanner, suffix, draw, whole_head=True)) for h in (still, fatty)
    )
    axis = scanner.geometries[suffix].readout_axis
    centres = [ndimage.center_of_mass(i.volume.data.astype(float))[axis] for i in (water, fat)]
    expected = -3.4 * 42.577 * 7 / scanner.protocols[suffix].bandwidth
    assert centres[1] - centres[0] == pytest.approx(expected, abs=0.5)


def test_scans_repeat_themselves_and_differ_by_draw(lesions, heads):
    first, second = (
        scanned(heads, lesions, 'T1w', 3.0)[0]['T1w', 0, False].data for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    scanner = small(3.0)
    (other,) = scan(heads[3.0], scanner, 'T1w', draw_scan(generator(9), scanner))
    assert (other.volume.data != first).any()


def test_averages_lower_the_noise_by_their_root(heads):
    scanner = small(3.0)
    draw = draw_scan(generator(4), scanner)
    quiet = replace(draw, artefacts=replace(draw.artefacts, noise=None))
    images = {}
    for averages in (1.0, 4.0):
        protocols = {'T1w': replace(scanner.protocols['T1w'], averages=averages)}
        (one,) = scan(heads[3.0], replace(scanner, protocols=protocols), 'T1w', draw)
        images[averages] = one.volume.data.astype(float)
    (clean,) = scan(heads[3.0], scanner, 'T1w', quiet)
    bright = clean.volume.data > 300
    noise = [(image - clean.volume.data)[bright].std() for image in images.values()]
    assert noise[0] == pytest.approx(2 * noise[1], rel=0.03)


def test_shares_of_faults_are_those_asked_for():
    scanner = small(3.0)
    draws = [draw_scan(generator(n), scanner, motion=0.25, spikes=0.5) for n in range(200)]
    assert 0.15 < np.mean([d.artefacts.motion is not None for d in draws]) < 0.35
    assert 0.4 < np.mean([bool(d.artefacts.spikes) for d in draws]) < 0.6
    plain = [draw_scan(generator(n), scanner) for n in range(200)]
    assert not any(d.artefacts.motion or d.artefacts.spikes for d in plain)
    # What is common to both stays as it was.
    assert [d.placement for d in draws] == [d.placement for d in plain]
    assert [d.artefacts.noise for d in draws] == [d.artefacts.noise for d in plain]


def test_thick_slices_of_a_clinical_scanner(lesions, heads):
    images, fractions = scanned(heads, lesions, 'FLAIR', 1.5)
    image = images['FLAIR', 0, False]
    np.testing.assert_allclose(image.spacing, (0.9, 0.9, 4.0))
    value = medians(image.data, fractions)
    assert value['csf'] < 0.5 * value['wm'] < value['gm']


def test_gaps_between_slices_are_not_seen():
    weights, whole = slice_profile(40, 0.5), slice_profile(40)
    assert weights.sum() == pytest.approx(1)
    assert (weights > weights.max() / 2).sum() == pytest.approx(20, abs=1)
    assert (whole > whole.max() / 2).sum() == pytest.approx(40, abs=1)
    # a thin sheet of signal: within a slice it is brighter with a gap, in the gap it is lost
    grid = Volume(np.broadcast_to(np.uint8(0), (3, 3, 4)), np.diag([1.0, 1.0, 5.0, 1.0]))
    identity = tuple(map(tuple, np.eye(4).tolist()))
    box = (slice(0, 3), slice(0, 3), slice(0, 20))
    for height, kept in ((5, True), (7, False)):
        sheet = np.zeros((3, 3, 20), np.float32)
        sheet[:, :, height] = 1
        full, part = (
            sample(sheet, np.eye(4), grid, identity, box=box, share=share)[1, 1].max()
            for share in (1.0, 0.6)
        )
        assert (part > 1.3 * full) == kept
        assert (part < 0.5 * full) != kept
