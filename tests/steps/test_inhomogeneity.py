"""N4 takes a known smooth field away, and the same one every time."""

from __future__ import annotations

import numpy as np
from phantoms import brain_image

from ssl2_bids.steps.inhomogeneity import correct_inhomogeneity
from ssl2_bids.volume import Volume


def shaded() -> tuple[Volume, Volume, np.ndarray]:
    image = brain_image(3.0)
    data = np.asarray(image.dataobj)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in data.shape], indexing='ij')
    field = np.exp(0.35 * x - 0.25 * y * z + 0.2 * z)
    mask = (data > 0).astype(np.uint8)
    return Volume(data * field, image.affine), Volume(mask, image.affine), data


def spread(data: np.ndarray, inside: np.ndarray) -> float:
    return float(data[inside].std() / data[inside].mean())


def test_a_known_field_is_taken_away():
    image, mask, truth = shaded()
    core = (truth > 85) & (truth < 115)
    found = correct_inhomogeneity(image, mask)
    assert spread(found.data, core) < 0.5 * spread(image.data, core)
    assert abs(np.log(found.data[core].mean() / image.data[core].mean())) < 0.1


def test_twice_the_same_bytes():
    image, mask, _ = shaded()
    first, second = (correct_inhomogeneity(image, mask).data for _ in range(2))
    assert first.tobytes() == second.tobytes()


def fine_field() -> tuple[Volume, Volume, np.ndarray]:
    """As :func:`shaded`, with a field whose waves are as short as at 7T, and two lesions."""
    image, mask, truth = shaded()
    truth = truth.copy()
    axes = [np.arange(n) for n in truth.shape]
    for centre in ((22, 30, 20), (16, 20, 24)):
        distance = sum((a - c) ** 2 for a, c in zip(np.ix_(*axes), centre, strict=True))
        truth[(distance < 6) & (truth > 0)] = 160
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in truth.shape], indexing='ij')
    field = np.exp(0.3 * np.cos(9 * x) * np.cos(8 * y) + 0.3 * np.sin(7 * z))
    return image.with_data(truth * field), mask, truth


def test_a_fourth_level_takes_away_the_finer_fields_of_7t_and_not_the_lesions():
    image, mask, truth = fine_field()
    core = (truth > 85) & (truth < 115)
    coarse, fine = (
        correct_inhomogeneity(image, mask, field_strength=tesla).data for tesla in (3.0, 7.0)
    )
    assert spread(fine, core) < 0.6 * spread(coarse, core)
    contrast = truth[truth == 160].mean() / truth[core].mean()
    assert fine[truth == 160].mean() / fine[core].mean() > 0.93 * contrast
