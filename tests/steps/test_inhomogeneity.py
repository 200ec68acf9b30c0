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
