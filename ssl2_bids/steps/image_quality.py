"""The quality of one image in numbers, each with the reason where it is not available."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ssl2_bids.metrics import image_quality as metrics
from ssl2_bids.steps.air import Air, measure_air
from ssl2_bids.steps.tissue_classes import TISSUES, TissueSample, sample_tissues
from ssl2_bids.volume import Volume

WHITE = 1000.0  # the median of white matter, to which intensities are scaled, as in MRIQC
MIN_VOXELS = 200  # of a class; a median and a spread of fewer are too uncertain
BRIGHTEST = 99.95  # percentile of the whole image, as in MRIQC
SAMPLED = 1.25  # mm between the voxels from which sharpness is computed

OF_AIR = (
    *(f'summary_bg_{name}' for name in metrics.STATISTICS),
    *(f'snrd_{name}' for name in (*TISSUES, 'total')),
    'cnr', 'fber', 'ghosts',
)  # fmt: skip
OF_HEAD = (*OF_AIR, 'efc', 'wm2max')
OF_ZERO = (*OF_HEAD, *(f'snr_{name}' for name in (*TISSUES, 'total')), 'tissue_snr')
OF_FIELD = ('inu_med', 'inu_range')

BRAIN_ONLY = 'the image shows the brain only'
RATIO = 'UNIT1 is a ratio: its zero is not the absence of signal'
NO_FIELD = 'the image was not corrected for inhomogeneity'
NO_CORNER = 'the field of view has too little air beside the head'
NO_TISSUE = 'too few voxels of the tissue were found'
NO_SPREAD = 'the values are constant, or have too few levels'


@dataclass(frozen=True)
class ImageQuality:
    """Measures of an image.

    Attributes
    ----------
    metrics : by name, in the order of a sidecar; None where not available.
    not_available : by name of a metric: why.
    """

    metrics: dict[str, float | None] = field(default_factory=dict)
    not_available: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value: float | None, why: str) -> None:
        """Note a metric; ``why`` it is not available where there is no finite number."""
        known = value is not None and math.isfinite(value)
        self.metrics[name] = value if known else None
        if not known:
            self.not_available[name] = why


def measure_image(
    acquired: Volume,
    corrected: Volume,
    brain: Volume,
    *,
    to_reference: np.ndarray,
    to_template: np.ndarray,
    brain_only: bool = False,
    is_corrected: bool = True,
    t1_map: Volume | None = None,
) -> ImageQuality:
    """Measure an image: tissues without the receive field, air and sharpness as acquired.

    Parameters
    ----------
    acquired, corrected : before and after the correction for inhomogeneity, on one grid, voxel
        axes near RAS+, with their contrast.
    brain : mask in the space of the reference, on any grid.
    to_reference, to_template : (4, 4), RAS+ mm of the image to RAS+ mm of reference and template.
    brain_only : whether the image was skull-stripped.
    is_corrected : whether there was such a correction.
    t1_map : s, on the same grid, if known.
    """
    ways = {'to_reference': to_reference, 'to_template': to_template}
    is_ratio = acquired.contrast == 'UNIT1'
    tissues = sample_tissues(corrected, brain, **ways)
    air = None if brain_only or is_ratio else measure_air(acquired, brain, **ways)
    classes = {name: _intensities(corrected, tissues, name) for name in TISSUES}
    white = _median(classes['wm'])
    statistics = _statistics(classes, air, white)
    found: dict[str, float | None] = {}
    axes = list(zip('xyz', acquired.shape, acquired.spacing, strict=True))
    found |= {f'size_{axis}': int(size) for axis, size, _ in axes}
    found |= {f'spacing_{axis}': round(float(edge), 4) for axis, _, edge in axes}
    found |= {
        f'summary_{name}_{key}': statistics[name].get(key)
        for name in ('bg', *TISSUES)
        for key in metrics.STATISTICS
    }
    found |= _ratios(statistics, {name: values.size for name, values in classes.items()})
    found |= _whole_image(acquired, air, white)
    found |= _field(acquired, corrected, tissues if is_corrected else None)
    found |= _contrasts(acquired, tissues, classes)
    found['ghosts'] = _over(max(air.ghosts.values()), white) if air and air.ghosts else None
    if t1_map is not None:
        times = tissues.middle(t1_map)[tissues.classes['wm']] if tissues else np.empty(0)
        times = times[times > 0]
        found['t1_wm'] = _median(times) or None
    if is_ratio:
        found |= dict.fromkeys(OF_ZERO)
    few_tissues = not all(map(len, classes.values()))
    few_deep = tissues is None or np.count_nonzero(tissues.deep) < MIN_VOXELS
    reasons = [  # the first that holds and names the metric
        (is_ratio, OF_ZERO, RATIO),
        (brain_only, OF_HEAD, BRAIN_ONLY),
        (bool(air and air.missing), OF_AIR, air.missing if air else ''),
        (not is_corrected, OF_FIELD, NO_FIELD),
        (few_tissues, found, NO_TISSUE),
        (few_deep, ('tissue_snr', 'tissue_cnr'), NO_TISSUE),
        (True, ('t1_wm',), NO_TISSUE),
        (True, ('ghosts',), NO_CORNER),
        (True, found, NO_SPREAD),
    ]
    quality = ImageQuality()
    for name, value in found.items():
        why = next(reason for holds, names, reason in reasons if holds and name in names)
        quality.add(name, value, why)
    return quality


def _intensities(image: Volume, tissues: TissueSample | None, name: str) -> np.ndarray:
    """Intensities of a class, (N,), negative ones as 0; none where it has too few voxels."""
    if tissues is None:
        return np.empty(0, np.float32)
    values = np.maximum(tissues.middle(image)[tissues.classes[name]], 0)
    return values if values.size >= MIN_VOXELS else values[:0]


def _median(values: np.ndarray) -> float:
    """The median, 0 of too few values."""
    return float(np.median(values)) if values.size >= MIN_VOXELS else 0.0


def _over(value: float | None, under: float | None) -> float | None:
    """A quotient where both are known and the second is not 0."""
    return None if value is None or not under else metrics.ratio(value, under)


def _statistics(
    classes: Mapping[str, np.ndarray], air: Air | None, white: float
) -> dict[str, dict[str, float]]:
    """Distributions of air and tissues, scaled to white matter; empty where not available."""
    values = dict(classes)
    values['bg'] = np.empty(0) if air is None or air.missing else air.values
    if not white:
        return {name: {} for name in values}
    factor = WHITE / white
    return {n: metrics.summarise(part.astype(np.float64) * factor) for n, part in values.items()}


def _ratios(
    statistics: Mapping[str, dict[str, float]], counts: Mapping[str, int]
) -> dict[str, float | None]:
    """Signal over noise, contrast over noise, joint variation."""
    air, white, grey = (statistics[name] for name in ('bg', 'wm', 'gm'))
    found: dict[str, float | None] = {}
    for kind in ('snr', 'snrd'):
        values: list[float | None] = []
        for name in TISSUES:
            tissue, value = statistics[name], None
            if tissue and kind == 'snr':
                value = metrics.snr(tissue['median'], tissue['stdv'], counts[name])
            elif tissue and air:
                value = metrics.snr_dietrich(tissue['median'], air)
            found[f'{kind}_{name}'] = value
            values.append(value)
        known = [value for value in values if value is not None]
        whole = len(known) == len(values)
        found[f'{kind}_total'] = sum(known) / len(known) if whole else None
    found['cnr'] = metrics.cnr(white, grey, air['stdv']) if white and grey and air else None
    found['cjv'] = metrics.cjv(white, grey) if white and grey else None
    return found


def _whole_image(image: Volume, air: Air | None, white: float) -> dict[str, float | None]:
    """Sharpness, head over background, white matter over the brightest."""
    if air is None:
        return dict.fromkeys(('efc', 'fber', 'wm2max'))
    step = np.maximum(1, np.rint(SAMPLED / image.spacing)).astype(int)
    sample = np.maximum(image.data[:: step[0], :: step[1], :: step[2]], 0)
    return {
        'efc': metrics.efc(sample, image.data.size),
        'fber': None if air.missing else metrics.fber(air.head, air.outside),
        'wm2max': _over(white or None, float(np.percentile(sample, BRIGHTEST))),
    }


def _field(
    acquired: Volume, corrected: Volume, tissues: TissueSample | None
) -> dict[str, float | None]:
    """Median and range of the field that was corrected, within the brain."""
    if tissues is None:
        return dict.fromkeys(OF_FIELD)
    inside = tissues.inside[..., 1]
    before, after = (tissues.middle(image)[inside] for image in (acquired, corrected))
    usable = (after > 0) & (before > 0)
    if np.count_nonzero(usable) < MIN_VOXELS:
        return dict.fromkeys(OF_FIELD)
    values = before[usable].astype(np.float64) / after[usable]
    low, median, high = (float(v) for v in np.percentile(values, (5, 50, 95)))
    return {'inu_med': median, 'inu_range': high - low}


def _contrasts(
    acquired: Volume, tissues: TissueSample | None, classes: Mapping[str, np.ndarray]
) -> dict[str, float | None]:
    """Noise within white matter, and ratios of the tissues."""
    white, grey = _median(classes['wm']), _median(classes['gm'])
    noise = _noise(acquired, tissues) if tissues else None
    known = bool(white and grey)
    return {
        'tissue_snr': _over(1.0, noise),
        'tissue_cnr': _over(abs(white - grey), white * noise) if known and noise else None,
        'wm2gm': _over(white, grey) if known else None,
        'csf2wm': _over(_median(classes['csf']), white) if classes['csf'].size else None,
    }


def _noise(image: Volume, tissues: TissueSample) -> float | None:
    """Noise as a share of the signal, where both are measured in white matter."""
    stack = tissues.stack(image)
    inside = np.zeros(stack.shape, bool)
    inside[..., 1] = tissues.deep
    signal = _median(stack[inside])
    return _over(metrics.noise_of_residuals(stack, inside), max(signal, 0.0))
