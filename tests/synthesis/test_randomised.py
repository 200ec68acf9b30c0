import numpy as np
import pytest
import torch
from label_phantom import label_head

from ssl2_bids.synthesis.appearance import CHANNELS, CONTRAST_SETS, draw_appearances
from ssl2_bids.synthesis.heads import INDEX, make_head
from ssl2_bids.synthesis.intensities import weighted_median
from ssl2_bids.synthesis.lesions import confluent_lesions, fade
from ssl2_bids.synthesis.patch_tensors import Fields, blur, shift
from ssl2_bids.synthesis.randomised import draw
from ssl2_bids.synthesis.ranges import Randomisation

PATCH = (48, 48, 48)


@pytest.fixture(scope='module')
def heads():
    return [make_head('one', label_head())]


@pytest.fixture(scope='module')
def many(heads):
    return draw(heads, Randomisation(), seed=(1,), batch=24, patch=PATCH)


def test_shapes_types_and_zeros(many):
    assert many.image.shape == (24, 4, *PATCH)
    assert many.image.dtype == torch.float32
    assert many.present.shape == (24, 4)
    assert many.present.any(dim=1).all()
    for mask in (many.brain, many.label, many.known):
        assert mask.shape == (24, 1, *PATCH)
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
    absent = many.image[~many.present]
    assert not absent.any()
    outside = many.image * (1 - many.brain)
    assert not outside.any()
    assert not (many.label * (1 - many.brain)).any()
    assert torch.isfinite(many.image).all()


def test_same_seed_same_batch_and_another_seed_another(heads, many):
    again = draw(heads, Randomisation(), seed=(1,), batch=24, patch=PATCH)
    assert all(torch.equal(a, b) for a, b in zip(many, again, strict=True))
    other = draw(heads, Randomisation(), seed=(2,), batch=1, patch=PATCH)
    assert not torch.equal(many.image[:1], other.image)


def test_a_sample_does_not_depend_on_the_batch(heads, many):
    fewer = draw(heads, Randomisation(), seed=(1,), batch=2, patch=PATCH)
    assert torch.equal(fewer.image, many.image[:2])


@pytest.mark.parametrize('scale', [5.0, 16.0, 24.0, 60.0])
def test_fields_have_the_deviation_that_is_stated(scale):
    edge = 97
    found = torch.stack(
        [
            Fields((edge,) * 3, torch.Generator().manual_seed(seed), 'cpu')(scale)
            for seed in range(30)
        ]
    )
    corners = found[:, :: edge - 1, :: edge - 1, :: edge - 1]  # there are knots in every corner
    assert float(found.std()) == pytest.approx(0.8, abs=0.05)
    assert float(corners.std()) == pytest.approx(1.5, abs=0.25)
    assert abs(float(found.mean())) < 0.1
    stated = Fields.__doc__
    assert 'about 0.8, 1.5 at knots' in stated


def test_all_contrast_sets_occur(heads):
    weights = [weight for _, weight in CONTRAST_SETS]
    assert sum(weights) == pytest.approx(1)
    chosen = draw(heads, Randomisation(), seed=(3,), batch=1, patch=PATCH, contrasts=('T2w',))
    assert chosen.present[0].tolist() == [False, False, True, False]


def test_a_channel_does_not_depend_on_which_others_are_there(heads):
    alone, both = (
        draw(heads, Randomisation(), seed=(4,), batch=1, patch=PATCH, contrasts=contrasts)
        for contrasts in (('FLAIR',), ('FLAIR', 'T1w'))
    )
    assert torch.equal(alone.label, both.label)
    assert torch.equal(alone.brain, both.brain)


def test_lesions_are_brighter_than_white_matter_in_flair_and_darker_in_t1w(heads):
    differences = {'FLAIR': [], 'T1w': []}
    calm = Randomisation(
        misregistration=0, clinical=0, mixed=0, thick_slices=0, noise=0.01, bias=0.02
    )
    for number in range(24):
        patch = draw(
            heads, calm, seed=(5, number), batch=1, patch=(64, 64, 64), contrasts=CHANNELS
        )
        label = patch.label[0, 0] > 0
        if label.sum() < 15:
            continue
        rest = (patch.brain[0, 0] > 0) & ~label
        for channel in differences:
            image = patch.image[0, CHANNELS.index(channel)]
            white = image[rest].quantile(0.75 if channel == 'T1w' else 0.5)
            differences[channel].append(float(image[label].median() - white))
    assert len(differences['FLAIR']) >= 5
    assert np.median(differences['FLAIR']) > 0.2
    assert np.median(differences['T1w']) < 0


def test_whole_brains_are_normalised_as_real_ones(heads):
    """Patches weigh tissues so that the statistics are those of the whole brain."""
    middles, spreads = [], []
    for number in range(12):
        whole = draw(
            heads, Randomisation(), seed=(6, number), batch=1, patch=(72, 72, 72),
            contrasts=('FLAIR',),
        )  # fmt: skip
        values = whole.image[0, 0][whole.brain[0, 0] > 0] * 3
        middles.append(float(values.median()))
        spreads.append(1.4826 * float((values - values.median()).abs().median()))
    assert abs(np.median(middles)) < 0.3
    assert 0.7 < np.median(spreads) < 1.4


def test_mimics_are_as_bright_as_faint_lesions():
    drawn = [draw_appearances(np.random.default_rng(n)) for n in range(300)]
    mimic = np.array([look['FLAIR'].mimic for look in drawn])
    lesion = np.array([look['FLAIR'].lesion for look in drawn])
    assert (mimic > np.percentile(lesion, 20)).mean() > 0.2
    for look in drawn:
        assert look['FLAIR'].means.shape == (2, len(INDEX))
        assert (look['FLAIR'].means[:, 0] == 0).all()


def test_the_labelled_border_of_a_lesion_may_be_fainter_than_its_core():
    strength = torch.zeros((24, 24, 24))
    strength[6:18, 6:18, 6:18] = 1
    made = [fade(strength, np.random.default_rng(n)) for n in range(20)]
    assert any(torch.equal(one, strength) for one in made)
    faded = [one for one in made if not torch.equal(one, strength)]
    assert len(faded) >= 5
    for one in faded:
        assert torch.equal(one > 0, strength > 0)  # nothing of the label is lost
        assert one[6, 6, 6] < one[12, 12, 12] <= 1


def test_confluent_lesions_lie_in_white_matter_mostly_near_ventricles_and_fade():
    groups = torch.full((48, 48, 48), INDEX['white'], dtype=torch.int32)
    groups[:, :, :8] = INDEX['cortex']
    to_ventricle = (4 * torch.arange(48)).expand(48, 48, 48).permute(2, 0, 1)  # along the first
    near, far = 0.0, 0.0
    for number in range(12):
        fields = Fields((48, 48, 48), torch.Generator().manual_seed(number), 'cpu')
        made = confluent_lesions(groups, to_ventricle, np.random.default_rng(number), fields)
        assert not made[:, :, :8].any()
        shown = made[made > 0]
        assert len(shown) == 0 or (shown.min() >= 0.3 and shown.max() <= 1)
        near, far = near + float(made[:12].sum()), far + float(made[36:].sum())
    assert near > 3 * far
    assert ((made > 0) & (made < 0.6)).any()


def test_a_real_t1w_shows_through():
    scan = np.zeros(label_head().shape, np.uint8)
    scan[::2] = 160
    striped = make_head('striped', label_head(), t1w=scan)
    calm = Randomisation(
        rotation=0,
        scaling=0,
        elastic=0,
        misregistration=0,
        clinical=0,
        mixed=0,
        thick_slices=0,
        real_t1w=1,
    )
    patch = draw([striped], calm, seed=(0,), batch=1, patch=(72, 72, 72), contrasts=('T1w',))
    inner = patch.image[0, 1, 30:42, 30:42, 30:42]
    contrast = (inner[::2].mean() - inner[1::2].mean()).abs()
    assert contrast > 3 * (inner[:, ::2].mean() - inner[:, 1::2].mean()).abs()


def test_blur_and_shift():
    image = torch.zeros((15, 15, 15))
    image[7, 7, 7] = 1
    soft = blur(image, 1.0)
    assert float(soft.sum()) == pytest.approx(1, abs=1e-4)
    steps = torch.arange(15.0) - 7
    assert float((soft.sum(dim=(1, 2)) * steps**2).sum()) == pytest.approx(1, abs=0.1)
    moved = shift(image, np.array([1.0, -1.0, 0.5]))
    assert float(moved[8, 6, 7]) == pytest.approx(0.5)
    assert float(moved[8, 6, 8]) == pytest.approx(0.5)


def test_weighted_median():
    assert weighted_median(np.array([3.0, 1, 2]), np.array([1.0, 1, 1])) == 2
    assert weighted_median(np.array([3.0, 1, 2]), np.array([5.0, 1, 1])) == 3
