"""The quality of images whose tissues, noise and faults are known."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from known_head import known_head
from scipy import ndimage

from ssl2_bids.metrics.quality_names import METRICS
from ssl2_bids.steps.image_checks import check_image, looks_like
from ssl2_bids.steps.image_quality import ImageQuality, measure_image
from ssl2_bids.volume import Volume

TO_TEMPLATE = np.diag([1.08, 1.1, 1.06, 1.0])
TO_TEMPLATE[:3, 3] = (1, -2, 3)
# signal of white matter, grey matter and fluid
SIGNALS = {
    'T1w': (800, 560, 200),
    'FLAIR': (500, 620, 120),
    'T2w': (420, 560, 1300),
    'T2starw': (500, 600, 750),
    'UNIT1': (3400, 2500, 500),
}
SIGMA = 20.0
OF_SESSION = {
    't1_wm', 'coverage', 'brain_mask_dice', 'template_dice', 'registration_nmi',
    'registration_nmi_before', 'registration_shift', 'registration_rotation',
    'distortion_median', 'distortion_high',
}  # fmt: skip


@pytest.fixture(scope='module')
def tissues() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Shares of white matter, grey matter and fluid; the skin of a head; the affine."""
    head = known_head(TO_TEMPLATE)
    parts = head.fractions
    white = parts['wm'] + 0.8 * parts['brainstem']
    grey = parts['gm'] + parts['thalamus'] + parts['cerebellar_gm'] + 0.2 * parts['brainstem']
    brain = ndimage.binary_closing(white + grey + parts['csf'] > 0.5, iterations=4)
    brain = ndimage.binary_fill_holes(brain)
    share = ndimage.gaussian_filter(brain.astype(np.float32), 0.4)
    fluid = np.maximum(share - white - grey, 0)
    outwards = ndimage.distance_transform_edt(~brain) * 1.6
    skin = (outwards > 6) & (outwards < 10)
    return {'wm': white, 'gm': grey, 'csf': fluid, 'skin': skin}, brain, head.affine


def image_of(tissues, contrast: str, *, sigma: float = SIGMA, name: str = '') -> Volume:
    """A noisy magnitude image with the contrast of ``contrast`` and the name ``name``."""
    parts, _, affine = tissues
    white, grey, fluid = SIGNALS[contrast]
    signal = white * parts['wm'] + grey * parts['gm'] + fluid * parts['csf'] + 500 * parts['skin']
    draw = np.random.default_rng(0)
    real, other = (draw.normal(0, sigma, signal.shape) for _ in range(2))
    data = np.hypot(signal + real, other).astype(np.float32)
    return Volume(data, affine, name or contrast)


def measured(tissues, image: Volume, **options) -> ImageQuality:
    _, brain, affine = tissues
    return measure_image(
        image,
        options.pop('corrected', image),
        Volume(brain.astype(np.uint8), affine),
        to_reference=np.eye(4),
        to_template=TO_TEMPLATE,
        **options,
    )


def codes(tissues, image: Volume, **options) -> list[str]:
    found = measured(tissues, image, **options)
    return [flag.code for flag in check_image(found.metrics, image.contrast)]


def is_whole(found: ImageQuality) -> bool:
    """Whether each metric is a finite number or has a reason."""
    return all(
        (name in found.not_available) == (value is None) and (value is None or np.isfinite(value))
        for name, value in found.metrics.items()
    )


def test_numbers_of_a_head_are_those_that_it_was_made_with(tissues):
    found = measured(tissues, image_of(tissues, 'T1w'))
    number = found.metrics
    assert number['tissue_snr'] == pytest.approx(800 / SIGMA, rel=0.1)
    assert number['snrd_wm'] == pytest.approx(800 / SIGMA, rel=0.1)
    assert number['snr_wm'] == pytest.approx(800 / SIGMA, rel=0.4)  # with what varies in tissue
    assert number['wm2gm'] == pytest.approx(800 / 560, rel=0.07)
    assert number['csf2wm'] == pytest.approx(200 / 800, rel=0.3)
    assert number['tissue_cnr'] == pytest.approx(240 / SIGMA, rel=0.2)
    assert number['summary_wm_median'] == pytest.approx(1000, rel=1e-3)
    assert number['summary_bg_stdv'] == pytest.approx(0.6551 * 1000 * SIGMA / 800, rel=0.1)
    assert abs(number['ghosts']) < 0.003
    assert (number['inu_med'], number['inu_range']) == (1, 0)
    assert (number['size_x'], number['spacing_z']) == (112, 1.6)
    assert found.not_available == {}
    assert set(number) == set(METRICS) - OF_SESSION


@pytest.mark.parametrize('contrast', list(SIGNALS))
def test_good_images_have_no_flag(tissues, contrast):
    assert codes(tissues, image_of(tissues, contrast)) == []


@pytest.mark.parametrize(
    ('real', 'name'),
    [
        (real, name)
        for real in ('T1w', 'FLAIR', 'T2w')
        for name in ('T1w', 'FLAIR', 'T2w')
        if real != name
    ],
)
def test_a_misnamed_contrast_is_flagged(tissues, real, name):
    found = measured(tissues, image_of(tissues, real, name=name))
    flags = check_image(found.metrics, name)
    assert [flag.code for flag in flags] == ['contrast']
    assert f'that of a {real} image' in flags[0].text
    assert looks_like(found.metrics) == real


@pytest.mark.parametrize(
    ('name', 'metrics', 'found'),
    [
        ('FLAIR', {'wm2gm': 1.1, 'csf2wm': 0.2, 'cjv': 5.0}, []),  # tissues overlap
        ('T1w', {'wm2gm': 0.9, 'csf2wm': 0.2, 'cjv': 5.0}, []),
        ('T2w', {'wm2gm': 0.9, 'csf2wm': 0.2, 'cjv': 5.0}, ['contrast']),
        ('FLAIR', {'wm2gm': 1.1, 'csf2wm': 3.0, 'cjv': 5.0}, ['contrast']),
        ('FLAIR', {'wm2gm': 1.0, 'csf2wm': 0.2, 'cjv': 0.5}, []),
        ('FLAIR', {'wm2gm': 1.1, 'csf2wm': 1.0, 'cjv': 0.5}, []),
        ('T2starw', {'wm2gm': 0.8, 'csf2wm': 0.4, 'cjv': 0.5}, []),
        ('T2starw', {'wm2gm': 1.4, 'csf2wm': 0.4, 'cjv': 0.5}, ['contrast']),
        ('T1w', {'wm2gm': 0.8, 'csf2wm': 0.4, 'cjv': 0.5, 'tissue_snr': 3.0}, ['noise']),
        ('T1w', {'wm2gm': None, 'csf2wm': 3.0}, []),
        ('PDw', {'wm2gm': 0.8, 'csf2wm': 3.0, 'cjv': 0.5}, []),  # its order is not known here
        ('FLAIR', {'wm2gm': 0.998, 'csf2wm': 1.001, 'tissue_snr': 187.0}, ['contrast']),
        ('T1w', {'wm2gm': 1.001, 'csf2wm': 1.0, 'tissue_snr': 2.0}, ['noise']),
        ('T2w', {'wm2gm': 1.001, 'csf2wm': 1.1}, []),
        ('T1w', {'csf2wm': 1.0}, []),
    ],
)
def test_a_contrast_is_flagged_only_where_it_is_clear(name, metrics, found):
    assert [flag.code for flag in check_image(metrics, name)] == found


@pytest.mark.parametrize('contrast', ['FLAIR', 'T1w'])
def test_an_image_without_tissue_is_flagged(tissues, contrast):
    _, brain, affine = tissues
    draw = np.random.default_rng(1)
    for data in (
        draw.normal(1000, 50, brain.shape),
        np.where(brain, 1000, 0) + draw.normal(0, 5, brain.shape),
    ):
        assert 'contrast' in codes(tissues, Volume(data.astype(np.float32), affine, contrast))


@pytest.mark.slow
def test_real_heads_good_and_spoiled(shared_data):
    program = Path(__file__).resolve().parents[2] / 'benchmarks' / 'image_quality.py'
    people = [shared_data / 't1w-3t' / name for name in ('sub-cl02', 'sub-cl05')]
    done = subprocess.run(
        [sys.executable, program, *people, '--spoil'], capture_output=True, text=True, check=True
    )
    rows = [line.split(' | ') for line in done.stdout.splitlines() if line.startswith('| t1w')]
    expected = {'': 'none', 'SNR 2': 'noise', 'SNR 4': 'noise', 'named': 'contrast'}
    for row in rows:
        fault = row[1].strip()
        code = expected.get('named' if fault.startswith('named') else fault)
        assert code is None or code in row[-2], row
    assert len(rows) == 12
    assert 'flagged: 0 of 2 good images' in done.stdout


def test_noise_is_flagged(tissues):
    assert 'noise' in codes(tissues, image_of(tissues, 'T1w', sigma=400))
    assert 'noise' in codes(tissues, image_of(tissues, 'FLAIR', sigma=150))


def test_ghosts_are_flagged(tissues):
    image = image_of(tissues, 'T1w')
    shifted = np.roll(image.data, image.shape[1] // 2, axis=1)
    assert codes(tissues, image.with_data(image.data + 0.15 * shifted)) == ['ghosts']


def test_the_field_of_the_coil_is_no_noise_and_is_measured(tissues):
    even = image_of(tissues, 'T1w')
    field = np.linspace(0.7, 1.3, even.shape[1])[None, :, None].astype(np.float32)
    uneven = even.with_data(even.data * field)
    found = measured(tissues, uneven, corrected=even)
    assert found.metrics['tissue_snr'] == pytest.approx(800 / SIGMA, rel=0.15)
    assert 0.2 < found.metrics['inu_range'] < 0.6
    assert measured(tissues, uneven, is_corrected=False).metrics['inu_range'] is None


def test_of_a_stripped_image_what_needs_air_is_missing_with_the_reason(tissues):
    image = image_of(tissues, 'FLAIR')
    stripped = image.with_data(image.data * tissues[1])
    found = measured(tissues, stripped, brain_only=True)
    for name in ('snrd_wm', 'snrd_total', 'cnr', 'efc', 'fber', 'wm2max', 'ghosts',
                 'summary_bg_median'):  # fmt: skip
        assert found.metrics[name] is None
        assert 'brain only' in found.not_available[name]
    assert found.metrics['tissue_snr'] == pytest.approx(500 / SIGMA, rel=0.15)
    assert found.metrics['wm2gm'] < 1
    assert is_whole(found)


def test_of_unit1_what_needs_a_zero_of_signal_is_missing_with_the_reason(tissues):
    found = measured(tissues, image_of(tissues, 'UNIT1'), is_corrected=False)
    for name in ('snr_wm', 'snrd_wm', 'cnr', 'efc', 'ghosts', 'tissue_snr'):
        assert found.metrics[name] is None
        assert 'UNIT1 is a ratio' in found.not_available[name]
    assert found.metrics['tissue_cnr'] == pytest.approx(900 / SIGMA, rel=0.2)
    assert found.metrics['cjv'] < 0.5
    assert is_whole(found)


def test_air_that_was_overwritten_is_no_noise(tissues):
    image = image_of(tissues, 'T1w')
    near = ndimage.binary_dilation(tissues[1], iterations=5)
    found = measured(tissues, image.with_data(image.data * near))
    assert found.metrics['snrd_wm'] is None
    assert found.not_available['snrd_wm'] == 'the air was set to zero'
    assert is_whole(found)


def test_t1_of_white_matter_is_that_of_the_map(tissues):
    image = image_of(tissues, 'UNIT1')
    found = measured(tissues, image, t1_map=image.with_data(np.full(image.shape, 0.83)))
    assert found.metrics['t1_wm'] == pytest.approx(0.83)
    for field, wrong in ((3.0, False), (7.0, True)):
        flags = check_image(found.metrics, 'UNIT1', field_strength=field)
        assert ('field' in [flag.code for flag in flags]) == wrong


@pytest.mark.parametrize(('frequency', 'codes'), [(123.2, []), (297.2, ['field']), (None, [])])
def test_the_field_strength_is_compared_with_the_frequency(frequency, codes):
    flags = check_image({}, 'T1w', field_strength=3.0, frequency=frequency)
    assert [flag.code for flag in flags] == codes


def test_place_mask_and_registration_are_checked():
    metrics = {'coverage': 0.8, 'brain_mask_dice': 0.7, 'registration_nmi': 1.001}
    flags = check_image(metrics, 'FLAIR')
    assert [flag.code for flag in flags] == ['coverage', 'brain-mask', 'registration']
    assert check_image({'coverage': 0.8}, 'T1w', is_reference=True) == []
    (flag,) = check_image({'distortion_high': 2.4}, 'FLAIR')
    assert (flag.code, flag.value) == ('distortion', 2.4)
    assert '2.4 mm' in flag.text
    good = {'coverage': 0.995, 'brain_mask_dice': 0.95, 'registration_nmi': 1.1}
    good['distortion_high'] = 0.8
    assert check_image(good, 'FLAIR') == []


ODD = {
    'zero': lambda image: image.with_data(np.zeros_like(image.data)),
    'constant': lambda image: image.with_data(np.full_like(image.data, 7)),
    'negative': lambda image: image.with_data(-image.data),
    'few grey levels': lambda image: image.with_data(np.rint(image.data / 200)),
    'one slice of brain': lambda image: Volume(
        image.data[:, :, 50:53], image.affine @ translated(50), image.contrast
    ),
    'no brain in view': lambda image: replace(image, affine=image.affine @ translated(300)),
    'noise': lambda image: image.with_data(
        np.random.default_rng(2).normal(0, 1, image.shape).astype(np.float32)
    ),
    'huge': lambda image: image.with_data(image.data * np.float32(1e30)),
}


def translated(slices: int) -> np.ndarray:
    matrix = np.eye(4)
    matrix[2, 3] = slices
    return matrix


@pytest.mark.parametrize('kind', list(ODD))
@pytest.mark.parametrize('contrast', ['T1w', 'UNIT1'])
def test_an_odd_image_has_numbers_or_reasons(tissues, kind, contrast):
    found = measured(tissues, ODD[kind](image_of(tissues, contrast)))
    assert set(found.metrics) == set(METRICS) - OF_SESSION
    assert is_whole(found), found
    check_image(found.metrics, contrast)
