"""The join of input, network and windows, with the real bundled weights."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from running_app import PROJECT
from scipy import ndimage

from ssl2_bids.errors import NoInputError, UnavailableError
from ssl2_bids.networks.calibration import Calibration
from ssl2_bids.networks.weights import find_model, load_network
from ssl2_bids.reports.citations import collect
from ssl2_bids.steps.segmentation import entropy, methods, segment, smaller_window
from ssl2_bids.volume import Volume, read, reorient, resample
from ssl2_bids.voxel_grid import same_grid

STRIPPED = Path(__file__).resolve().parents[2] / '../shared/data/ms-stripped'
SHAPE = (84, 92, 80)
MIDDLE = (np.array(SHAPE) - 1) / 2
LESION = MIDDLE + (16, 5, 4)


@pytest.fixture(scope='module')
def card(tmp_path_factory):
    return find_model('fast-3t', tmp_path_factory.mktemp('out'))


@pytest.fixture(scope='module')
def network(card):
    return load_network(card)


def oblique(angle=0.25):
    affine = np.eye(4)
    cos, sin = np.cos(angle), np.sin(angle)
    affine[:3, :3] = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    affine[:3, 3] = (-20.0, -33.0, 12.0)
    return affine


def little_brain(affine):
    """White matter, cortex, fluid around and in two ventricles; one lesion beside the right one.

    Returns images, brain mask and where the lesion is.
    """
    index = np.moveaxis(np.indices(SHAPE), 0, -1)

    def ellipsoid(centre, edges):
        return np.linalg.norm((index - centre) / edges, axis=-1) < 1

    tissue = np.full(SHAPE, 4)  # white, grey, fluid, lesion, outside
    for kind, less in ((2, 4), (1, 6), (0, 10)):
        tissue[ellipsoid(MIDDLE, MIDDLE - less)] = kind
    for side in (-8, 8):
        tissue[ellipsoid(MIDDLE + (side, 0, 2), (4, 16, 6))] = 2
    tissue[ellipsoid(LESION, 5) & (tissue == 0)] = 3
    rng = np.random.default_rng(0)
    images = {}
    for name, means in (('FLAIR', (100, 112, 40, 170, 0)), ('T1w', (100, 70, 30, 60, 0))):
        data = np.array(means)[tissue] + rng.normal(0, 12, SHAPE)
        data = np.maximum(ndimage.gaussian_filter(data, 0.7), 1) * (tissue < 4)
        images[name] = Volume(data.astype(np.float32), affine, name)
    return images, Volume((tissue < 4).astype(np.uint8), affine), tissue == 3


def stored(volume, *, order, flips):
    """The same image as another scanner would store it: axes permuted, then some flipped."""
    turned = np.zeros((4, 4))
    turned[3, 3] = 1
    for new, old in enumerate(order):
        turned[old, new] = -1 if new in flips else 1
        turned[old, 3] = volume.shape[old] - 1 if new in flips else 0
    data = np.flip(np.transpose(volume.data, order), flips)
    return Volume(np.ascontiguousarray(data), volume.affine @ turned, volume.contrast)


@pytest.fixture(scope='module')
def straight(card, network):
    images, mask, _ = little_brain(oblique())
    return segment(images, {}, mask, card, network, precision='float32', uncertainty=True)


def test_it_finds_the_lesion_of_a_little_brain(straight):
    _, mask, lesion = little_brain(oblique())
    found = straight.probability.data >= 0.5
    assert 2 * (found & lesion).sum() / (found.sum() + lesion.sum()) > 0.8
    assert same_grid(straight.probability, mask)
    assert not straight.probability.data[mask.data == 0].any()
    assert straight.probability.data.dtype == np.float32
    assert straight.channels == straight.contrasts == ('FLAIR', 'T1w')
    assert straight.coverage == {'FLAIR': 1.0, 'T1w': 1.0}


def test_it_repeats_itself_to_the_last_bit(straight, card, network):
    images, mask, _ = little_brain(oblique())
    again = segment(images, {}, mask, card, network, precision='float32')
    assert np.array_equal(again.probability.data, straight.probability.data)
    assert again.uncertainty is None


@pytest.mark.parametrize(
    ('order', 'flips'), [((0, 1, 2), (0,)), ((1, 2, 0), (0, 2)), ((2, 0, 1), (1,))]
)
def test_how_the_images_are_stored_does_not_matter(straight, card, network, order, flips):
    images, mask, _ = little_brain(oblique())
    images = {name: stored(image, order=order, flips=flips) for name, image in images.items()}
    mask = reorient(stored(mask, order=order, flips=flips))
    result = segment(images, {}, mask, card, network, precision='float32')
    assert same_grid(result.probability, straight.probability)
    np.testing.assert_allclose(
        result.probability.data, straight.probability.data, atol=1e-4, rtol=0
    )
    assert np.array_equal(result.probability.data >= 0.5, straight.probability.data >= 0.5)


def test_another_reference_shows_the_lesion_at_the_same_place(straight, card, network):
    images, mask, lesion = little_brain(oblique())
    steps, shape = np.array([0.8, 0.8, 2.0]), (105, 115, 40)
    affine = mask.affine @ np.diag([*steps, 1.0])
    brain = resample(mask.with_data(mask.data.astype(np.float32)), affine, shape).data >= 0.5
    reference = Volume(brain, affine)
    result = segment(images, {}, reference, card, network, precision='float32')
    assert same_grid(result.probability, reference)
    pieces, _ = ndimage.label(result.probability.data >= 0.5)
    largest = np.bincount(pieces.flat)[1:].argmax() + 1
    found = np.argwhere(pieces == largest) * steps
    assert np.linalg.norm(found.mean(axis=0) - np.argwhere(lesion).mean(axis=0)) < 1
    own = (straight.probability.data >= 0.5).sum()
    assert (pieces > 0).sum() * steps.prod() == pytest.approx(own, rel=0.25)


def test_uncertainty_is_the_entropy_of_the_probability(straight):
    p = straight.probability.data
    h = straight.uncertainty.data
    assert (h.min(), h.max()) >= (0, 0.5)
    assert h.max() <= 1
    certain = (p < 1e-4) | (p > 1 - 1e-4)
    assert h[certain].max() < 0.002
    middle = abs(p - 0.5) < 0.1
    assert h[middle].min() > 0.96
    np.testing.assert_allclose(
        entropy(np.array([0, 0.5, 1, 0.25], np.float32)), [0, 1, 0, 0.811278], atol=1e-6
    )


def test_uncertainty_of_a_committee_is_the_disagreement_of_its_members(tmp_path):
    card = find_model('committee-3t', tmp_path)
    network = load_network(card)
    images, mask, _ = little_brain(oblique())
    options = {'precision': 'float32'}
    plain = segment(images, {}, mask, card, network, **options)
    found = segment(images, {}, mask, card, network, uncertainty=True, **options)
    assert found.probability.data.tobytes() == plain.probability.data.tobytes()
    assert plain.uncertainty is None

    alone = np.stack(
        [
            segment(images, {}, mask, card, one, **options).probability.data
            for one in network.members
        ]
    )
    np.testing.assert_allclose(found.probability.data, alone.mean(axis=0), atol=1e-5)
    expected = entropy(found.probability.data) - entropy(alone).mean(axis=0)
    doubt = found.uncertainty.data
    np.testing.assert_allclose(doubt, expected, atol=2e-4)
    assert doubt.min() == 0 == doubt[mask.data == 0].max()
    assert 0.2 < doubt.max() <= 1
    agree = np.ptp(alone, axis=0) < 0.02
    both_unsettled = agree & (abs(found.probability.data - 0.5) < 0.2)
    assert both_unsettled.any()
    assert doubt[both_unsettled].max() < 0.01


def test_a_site_recalibration_leaves_the_disagreement(tmp_path):
    card = find_model('committee-3t', tmp_path)
    network = load_network(card)
    images, mask, _ = little_brain(np.eye(4))
    options = {'precision': 'float32', 'uncertainty': True}
    usual = segment(images, {}, mask, card, network, **options)
    moved = replace(card, calibration=Calibration(0.5, -1.0))
    other = segment(images, {}, mask, moved, network, **options)
    assert np.array_equal(other.uncertainty.data, usual.uncertainty.data)
    assert not np.allclose(other.probability.data, usual.probability.data, atol=0.01)


def test_the_mirror_makes_left_and_right_equal(straight, card, network):
    images, mask, _ = little_brain(oblique())
    swapped = {name: image.with_data(image.data[::-1].copy()) for name, image in images.items()}
    options = {'precision': 'float32', 'mirror': True}
    one = segment(images, {}, mask, card, network, **options)
    other = segment(swapped, {}, mask, card, network, **options)
    np.testing.assert_allclose(one.probability.data[::-1], other.probability.data, atol=1e-5)
    assert abs(one.probability.data - straight.probability.data).max() > 0.01


def test_little_memory_means_smaller_windows(card, network):
    assert smaller_window(card) == (80, 80, 80)
    seen = []

    def watched(windows):
        seen.append(tuple(windows.shape))
        return network(windows)

    images, mask, _ = little_brain(np.eye(4))
    mask = mask.with_data(mask.data * (np.indices(SHAPE)[1] < 50))
    segment(images, {}, mask, card, watched, low_memory=True, precision='float32')
    assert seen == [(1, 4, 80, 80, 80)]


def test_bfloat16_hardly_changes_the_mask(straight, card, network):
    images, mask, _ = little_brain(oblique())
    result = segment(images, {}, mask, card, network, precision='bfloat16')
    found, exact = result.probability.data >= 0.5, straight.probability.data >= 0.5
    assert 2 * (found & exact).sum() / (found.sum() + exact.sum()) > 0.97


def test_a_network_that_gives_no_numbers_finds_no_healthy_brain(card):
    images, mask, _ = little_brain(np.eye(4))
    broken = load_network(card)
    with torch.no_grad():
        next(broken.parameters()).fill_(float('inf'))
    with pytest.raises(UnavailableError, match='not finite numbers'):
        segment(images, {}, mask, card, broken, precision='float32')


def test_missing_contrasts_stop_before_the_network(card):
    images, mask, _ = little_brain(np.eye(4))
    with pytest.raises(NoInputError, match='FLAIR or T1w'):
        segment({'T2w': images['T1w']}, {}, mask, card, network=None)


def test_methods_state_what_was_done(card):
    text = methods(card, ('FLAIR',), overlap=0.5, mirror=True)
    for phrase in ('FLAIR was', 'fast-3t (version 0.2.0', '96 x 96 x 96', '50%', 'mirror'):
        assert phrase in text
    assert 'mirror' not in methods(card, ('FLAIR',))
    strange = replace(card, name='fast [v2@lab]', content={'TrainedOn': 'as in [@commowick2018]'})
    assert 'fast (v2@lab)' in methods(strange, ('FLAIR',))
    collect([methods(strange, ('FLAIR',))])
    assert '25%' in methods(card, ('FLAIR',))
    assert '80 x 80 x 80' in methods(card, ('FLAIR',), low_memory=True)
    assert '[@isensee2021]' in text


def test_methods_name_the_measure_of_uncertainty(card, tmp_path):
    assert 'ncertainty' not in methods(card, ('FLAIR',))
    assert 'entropy of the probability' in methods(card, ('FLAIR',), uncertainty=True)
    text = methods(find_model('committee-3t', tmp_path), ('FLAIR',), uncertainty=True)
    assert 'mutual information of label and member, in bits [@houlsby2011; @nair2020]' in text


def test_a_real_patient_is_segmented_as_published(card, network):
    """One real 3T patient against the expert's mask: the figure of the page on accuracy."""
    anat = STRIPPED / 'sub-lj19' / 'anat'
    if not anat.is_dir():
        pytest.skip('the real 3T patients are not there')
    images = {
        name: read(anat / f'sub-lj19_{name}.nii.gz', contrast=name) for name in ('FLAIR', 'T1w')
    }
    mask = images['FLAIR'].with_data(images['FLAIR'].data > 0)
    expert = read(
        STRIPPED / 'derivatives/manual/sub-lj19/anat/sub-lj19_label-lesion_mask.nii.gz'
    ).data
    torch.manual_seed(0)
    found = segment(images, {}, mask, card, network).probability.data >= card.threshold
    dice = 2 * (found & (expert > 0)).sum() / (found.sum() + (expert > 0).sum())
    page = (PROJECT / 'docs' / 'evidence' / 'accuracy.md').read_text(encoding='utf-8')
    (published,) = re.findall(r'\| flair,t1w \| fast-3t \| sub-lj19 \| ([\d.]+)', page)
    assert dice == pytest.approx(float(published), abs=0.02)
