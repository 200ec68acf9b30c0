import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from ssl2_bids.simulation import scanner
from ssl2_bids.simulation.lesions import paint
from ssl2_bids.simulation.scanner import Geometry, make_head, place, sample, scan
from ssl2_bids.volume import reorient, same_grid


def generator(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(autouse=True)
def _small_field_of_view(monkeypatch):
    for contrast, geometry in list(scanner.GEOMETRIES.items()):
        small = Geometry(geometry.axes, geometry.edge, (90, 96, 92))
        monkeypatch.setitem(scanner.GEOMETRIES, contrast, small)


@pytest.fixture(scope='module')
def lesions(ball):
    return paint(ball, generator(1), load=3.0)


def scanned(lesions, contrast, *, field):
    head = make_head(lesions, generator(2), field=field)
    pose, grid = place(head, contrast, generator(3))
    images = scan(head, grid, generator(4), pose=pose)
    fractions = {
        name: sample(fraction, lesions.anatomy, grid, pose=pose)
        for name, fraction in lesions.anatomy.fractions.items()
    }
    return images, fractions


def medians(image, fractions):
    return {name: np.median(image[inside > 0.95]) for name, inside in fractions.items()}


@pytest.mark.parametrize(('contrast', 'shape'), [('T1w', (90, 96, 92)), ('FLAIR', (96, 92, 90))])
def test_grids_have_the_axes_and_extent_of_the_protocol(lesions, contrast, shape):
    head = make_head(lesions, generator(2), field=3)
    _, grid = place(head, contrast, generator(3))
    assert grid.shape == shape
    assert ''.join(nib.aff2axcodes(grid.affine)) == scanner.GEOMETRIES[contrast].axes
    np.testing.assert_allclose(grid.spacing, 1, atol=1e-9)
    assert np.abs(grid.affine[:3, :3] - np.rint(grid.affine[:3, :3])).max() > 1e-3  # oblique


def test_pose_moves_the_head_as_it_says(lesions):
    head = make_head(lesions, generator(2), field=3)
    pose, grid = place(head, 'FLAIR', generator(3))
    moved = sample(lesions.severity, lesions.anatomy, grid, pose=pose)
    here = np.array(ndimage.center_of_mass(lesions.severity))
    there = np.array(ndimage.center_of_mass(moved))
    expected = pose @ lesions.anatomy.affine @ np.append(here, 1)
    np.testing.assert_allclose(grid.affine @ np.append(there, 1), expected, atol=0.05)
    assert moved.sum() == pytest.approx(lesions.severity.sum(), rel=0.01)


def test_flair_shows_the_brain_only_with_bright_lesions(lesions):
    images, fractions = scanned(lesions, 'FLAIR', field=3)
    image = images['FLAIR'].data
    brain = np.sum(list(fractions.values()), axis=0) >= 0.5
    assert (image[~ndimage.binary_dilation(brain)] == 0).all()
    assert (image == np.rint(image)).all()
    value = medians(image, fractions)
    assert 1.0 < value['gm'] / value['wm'] < 1.45
    assert value['csf'] < 0.4 * value['wm']
    assert value['lesion'] > 1.25 * value['wm']


def test_t1w_shows_dark_lesions(lesions):
    images, fractions = scanned(lesions, 'T1w', field=3)
    value = medians(images['T1w'].data, fractions)
    assert value['csf'] < value['gm'] < 0.8 * value['wm']
    assert value['lesion'] < 0.9 * value['wm']


def test_mp2rage_has_noise_around_and_its_images_agree(lesions):
    images, fractions = scanned(lesions, 'UNIT1', field=7)
    uni, first, second = (images[name].data for name in ('UNIT1', 'INV1', 'INV2'))
    assert same_grid(images['UNIT1'], images['INV2'])
    assert uni.min() >= 0
    assert uni.max() <= 4095
    air = np.sum(list(fractions.values()), axis=0) == 0
    assert uni[air].std() > 0.2 * 4095
    assert 0 < second[air].mean() < 0.1 * np.median(second[fractions['wm'] > 0.95])
    clear = (fractions['wm'] > 0.95) & (first > 40)
    product = first * second / (first**2 + second**2)
    np.testing.assert_allclose(np.abs(uni / 4095 - 0.5)[clear], product[clear], atol=0.06)
    value = medians(uni, fractions)
    assert value['csf'] < value['gm'] < value['lesion'] < 0.9 * value['wm']


def test_scans_repeat_themselves(lesions):
    first, second = (scanned(lesions, 'T1w', field=3)[0]['T1w'] for _ in range(2))
    assert (first.data == second.data).all()
    assert reorient(first).data.shape == (90, 96, 92)
