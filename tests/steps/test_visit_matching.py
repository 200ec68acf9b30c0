"""Images of visits: one scale, one field, and differences with the sign of lesions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ssl2_bids.steps.visit_matching import agreement, change_evidence, match_intensities


@pytest.fixture
def brain() -> tuple[np.ndarray, np.ndarray]:
    """An image with texture, and where the brain is; 2 mm voxels."""
    random = np.random.default_rng(0)
    shape = (48, 48, 40)
    where = np.indices(shape) - np.array(shape)[:, None, None, None] / 2
    inside = np.linalg.norm(where, axis=0) < 18
    texture = ndimage.gaussian_filter(random.normal(size=shape), 1.5)
    return np.where(inside, 500 + 600 * texture, 0).astype(np.float32), inside


def rescan(image: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 6, image.shape)
    return np.maximum(image + noise, 0).astype(np.float32)


def test_scale_and_field_between_visits_vanish(brain):
    image, inside = brain
    across = np.linspace(0.85, 1.15, image.shape[0])[:, None, None]
    one, other = rescan(image, 1), rescan(image, 2) * across * 3.0
    matched = match_intensities([one, other], inside, spacing=2.0)
    before = np.abs(other - one)[inside].mean() / one[inside].mean()
    difference = np.abs(matched[1] - matched[0])[inside].mean() / matched[0][inside].mean()
    assert before > 1
    assert difference < 0.04
    swapped = match_intensities([other, one], inside, spacing=2.0)
    assert np.allclose(swapped[1], matched[0], rtol=1e-4)


def test_evidence_has_the_sign_of_lesions_and_turns_with_time(brain):
    image, inside = brain
    spot = np.zeros(image.shape, bool)
    spot[24:28, 24:28, 18:22] = True
    outside = inside & ~ndimage.binary_dilation(spot, iterations=2)
    before = {'FLAIR': rescan(image, 1), 'T1w': rescan(image, 2)}
    after = {
        'FLAIR': rescan(image + 150 * spot, 3),
        'T1w': rescan(image - 150 * spot, 4),
        'T2w': rescan(image, 5),
    }
    found = change_evidence(before, after, outside, spacing=2.0)
    assert found[spot].mean() > 3
    assert abs(found[outside].mean()) < 0.1
    assert found[outside].std() < 1.2
    assert np.allclose(change_evidence(after, before, outside, spacing=2.0), -found)


def test_the_unit_of_the_images_does_not_matter(brain):
    image, inside = brain
    visits = [rescan(image, 1), rescan(image, 3) * np.float32(1.5)]
    tiny = [visit * np.float32(1e-9) for visit in visits]
    usual, small = (match_intensities(each, inside, spacing=2.0) for each in (visits, tiny))
    assert np.allclose(np.array(small) * 1e9, usual, rtol=1e-3, atol=1)
    found, expected = (
        change_evidence({'FLAIR': one}, {'FLAIR': other}, inside, spacing=2.0)
        for one, other in (small, usual)
    )
    assert np.allclose(found, expected, atol=0.05)
    assert agreement(*small, inside) == pytest.approx(agreement(*usual, inside), abs=1e-3)


def test_no_common_contrast_is_no_evidence(brain):
    image, inside = brain
    assert not change_evidence({'T1w': image}, {'FLAIR': image}, inside, spacing=2.0).any()


def test_agreement_distinguishes_heads(brain):
    image, inside = brain
    assert agreement(rescan(image, 1), rescan(image, 2), inside) > 0.9
    assert agreement(image, np.roll(image, 9, axis=0), inside) < 0.5
