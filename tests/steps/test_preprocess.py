"""From a raw scan to what a network is shown: which rule holds for which image."""

from __future__ import annotations

import numpy as np
import pytest
from phantoms import brain_image

from ssl2_bids.errors import DataError
from ssl2_bids.steps import preprocess
from ssl2_bids.volume import Volume


def phantom(contrast: str = 'FLAIR', scale: float = 1.0) -> Volume:
    image = brain_image()
    return Volume(np.asarray(image.dataobj) * np.float32(scale), image.affine, contrast)


@pytest.mark.parametrize(
    ('mode', 'stripped', 'brain_only'),
    [('skip', False, True), ('auto', True, True), ('auto', None, True)],
)
def test_the_mask_of_a_stripped_image_is_its_foreground(mode, stripped, brain_only):
    image = phantom()
    mask, found, *_ = preprocess.brain_mask(image, mode=mode, stripped=stripped)
    assert found is brain_only
    assert np.array_equal(mask.data > 0, image.data > 0)


@pytest.mark.parametrize(('mode', 'stripped'), [('force', True), ('auto', False)])
def test_the_brain_is_extracted_where_that_is_asked_for(mode, stripped):
    nothing = Volume(np.zeros((40, 40, 40), np.float32), np.eye(4) * 4)
    with pytest.raises(DataError, match='no brain was found'):
        preprocess.brain_mask(nothing, mode=mode, stripped=stripped)


def test_n4_is_for_unit1_at_7t_only():
    mask = phantom().with_data((phantom().data > 0).astype(np.uint8))
    ramp = np.linspace(0.7, 1.3, mask.shape[0], dtype=np.float32)[:, None, None]
    for contrast, tesla, changed in (
        ('UNIT1', None, False),
        ('UNIT1', 3.0, False),
        ('UNIT1', 7.0, True),
        ('FLAIR', None, True),
    ):
        image = phantom(contrast)
        shaded = image.with_data(image.data * ramp)
        flat = preprocess.without_inhomogeneity(shaded, mask, field_strength=tesla)
        assert np.array_equal(flat.data, shaded.data) is not changed
        assert preprocess.needs_n4(contrast, tesla) is changed


@pytest.mark.parametrize('noise', [0.0, 1.0])
def test_the_description_of_unit1_is_what_was_done(noise):
    rng = np.random.default_rng(0)
    inside = phantom().data > 0
    parts = [
        phantom('UNIT1').with_data(np.where(inside, value, noise * rng.random(inside.shape)))
        for value in (3000.0, 100.0, 200.0)
    ]
    made = preprocess.prepare_contrast(parts[:1], parts[1:])
    words = 'without background noise' if noise else 'with the zero background of INV2, no noise'
    assert made.description.startswith(f'UNIT1 {words}')
    assert 'B1+' not in made.description


def test_echoes_are_averaged_and_unit1_is_brought_to_scale():
    echoes = [phantom('T2starw', 1.0), phantom('T2starw', 3.0)]
    made = preprocess.prepare_contrast(echoes)
    assert np.allclose(made.image.data, phantom(scale=2.0).data)
    assert len(made.methods) == 1
    unit1 = preprocess.prepare_contrast([phantom('UNIT1', 1 / phantom().data.max())])
    assert unit1.image.data.max() == pytest.approx(4095)
