"""The quality of one image in numbers, each with its reason where it is not available."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ssl2_bids.metrics import image_quality as metrics
from ssl2_bids.steps.air import STRIDE, Air, measure_air
from ssl2_bids.steps.tissue_classes import TISSUES, TissueSample, sample_tissues
from ssl2_bids.volume import Volume

WHITE = 1000.0  # the median of white matter, to which intensities are scaled, as in MRIQC
MIN_VOXELS = 200  # of a class; a median and a spread of fewer are too uncertain
BRIGHTEST = 99.95  # percentile of the whole image, as in MRIQC

BRAIN_ONLY = 'the image shows the brain only'
RATIO = 'UNIT1 is a ratio: its zero is not the absence of signal'
NO_FIELD = 'the image was not corrected for inhomogeneity'
NO_TISSUE = 'too few voxels of the tissue were found'
UNIFORM = 'the values are constant'
NO_CORNER = 'the field of view has too little air beside the head'
NO_NOISE = 'neighbouring voxels are equal: no noise can be measured'


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

    def add(self, name: str, value: float | None, why: str = UNIFORM) -> None:
        """Note a metric, or why there is none."""
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
    found = ImageQuality()
    for axis, size, edge in zip('xyz', acquired.shape, acquired.spacing, strict=True):
        found.add(f'size_{axis}', int(size))
        found.add(f'spacing_{axis}', round(float(edge), 4))
    ways = {'to_reference': to_reference, 'to_template': to_template}
    tissues = sample_tissues(corrected, brain, **ways)
    is_ratio = acquired.contrast == 'UNIT1'
    hidden = BRAIN_ONLY if brain_only else RATIO if is_ratio else ''
    air = None if hidden else measure_air(acquired, brain, **ways)
    white = _white(corrected, tissues)
    statistics = _add_statistics(found, corrected, tissues, air, white, hidden)
    _add_ratios(found, statistics, RATIO if is_ratio else '')
    _add_whole(found, acquired, statistics, air, white, hidden)
    _add_field(found, acquired, corrected, tissues, NO_FIELD if not is_corrected else '')
    _add_own(found, acquired, corrected, tissues, air, RATIO if is_ratio else '')
    if t1_map is not None:
        times = tissues.middle(t1_map)[tissues.classes['wm']] if tissues else np.empty(0)
        times = times[times > 0]
        enough = times.size >= MIN_VOXELS
        found.add('t1_wm', float(np.median(times)) if enough else None, NO_TISSUE)
    return found


def _values(image: Volume, tissues: TissueSample | None, name: str) -> np.ndarray:
    """Intensities of a class, (N,); empty where it has too few."""
    if tissues is None:
        return np.empty(0, np.float32)
    values = np.maximum(tissues.middle(image)[tissues.classes[name]], 0)
    return values if values.size >= MIN_VOXELS else values[:0]


def _white(image: Volume, tissues: TissueSample | None) -> float:
    """Median of white matter, 0 if unknown."""
    values = _values(image, tissues, 'wm')
    return float(np.median(values)) if values.size else 0.0


def _add_statistics(
    found: ImageQuality,
    image: Volume,
    tissues: TissueSample | None,
    air: Air | None,
    white: float,
    hidden: str,
) -> dict[str, dict[str, float]]:
    """Distributions of air and tissues; returned by name, with their ``n``."""
    groups = {name: (_values(image, tissues, name), NO_TISSUE) for name in TISSUES}
    without = hidden or (air.missing if air else '')
    groups['bg'] = (air.values if air and not without else np.empty(0), without or NO_TISSUE)
    statistics: dict[str, dict[str, float]] = {}
    for name in ('bg', *TISSUES):
        values, why = groups[name]
        scaled = values * np.float32(WHITE / white) if white > 0 else values[:0]
        summary = metrics.summarise(scaled)
        for key in metrics.STATISTICS:
            known = UNIFORM if summary else why if values.size == 0 else NO_TISSUE
            found.add(f'summary_{name}_{key}', summary.get(key), known)
        statistics[name] = summary | {'n': values.size} if summary else {}
    return statistics


def _add_ratios(
    found: ImageQuality, statistics: Mapping[str, Mapping[str, float]], is_ratio: str
) -> None:
    """Signal over noise, contrast over noise, joint variation."""
    tissue, air = statistics, dict(statistics['bg'])
    why_air = is_ratio or found.not_available.get('summary_bg_median', UNIFORM)
    for kind in ('snr', 'snrd'):
        values: list[float | None] = []
        for name in TISSUES:
            summary = tissue[name]
            value, why = None, is_ratio or (UNIFORM if summary else NO_TISSUE)
            if summary and not is_ratio:
                if kind == 'snr':
                    value = metrics.snr(summary['median'], summary['stdv'], int(summary['n']))
                elif air:
                    value = metrics.snr_dietrich(summary['median'], air)
                else:
                    why = why_air
            found.add(f'{kind}_{name}', value, why)
            values.append(value)
        known = [value for value in values if value is not None]
        whole = sum(known) / len(TISSUES) if len(known) == len(TISSUES) else None
        missing = next((found.not_available[f'{kind}_{name}'] for name in TISSUES
                        if f'{kind}_{name}' in found.not_available), UNIFORM)  # fmt: skip
        found.add(f'{kind}_total', whole, missing)
    white, grey = dict(tissue['wm']), dict(tissue['gm'])
    both = bool(white and grey)
    contrast = metrics.cnr(white, grey, air['stdv']) if both and air else None
    found.add('cnr', contrast, why_air if both and not air else UNIFORM if both else NO_TISSUE)
    found.add('cjv', metrics.cjv(white, grey) if both else None, UNIFORM if both else NO_TISSUE)


def _add_whole(
    found: ImageQuality,
    image: Volume,
    statistics: Mapping[str, Mapping[str, float]],
    air: Air | None,
    white: float,
    hidden: str,
) -> None:
    """Sharpness, head over background, white matter over the brightest."""
    if hidden or air is None:
        for name in ('efc', 'fber', 'wm2max'):
            found.add(name, None, hidden)
        return
    step = np.maximum(1, np.rint(STRIDE / 2 / image.spacing)).astype(int)
    sample = image.data[:: step[0], :: step[1], :: step[2]]
    found.add('efc', metrics.efc(sample, image.data.size))
    found.add('fber', metrics.fber(air.head, air.outside), air.missing or UNIFORM)
    bright = float(np.percentile(np.maximum(sample, 0), BRIGHTEST))
    known = metrics.ratio(white, bright) if statistics['wm'] else None
    found.add('wm2max', known, UNIFORM if statistics['wm'] else NO_TISSUE)


def _add_field(
    found: ImageQuality,
    acquired: Volume,
    corrected: Volume,
    tissues: TissueSample | None,
    without: str,
) -> None:
    """Median and range of the field that was corrected, within the brain."""
    values = np.empty(0)
    if tissues is not None and not without:
        inside = tissues.inside[..., 1]
        before, after = tissues.middle(acquired)[inside], tissues.middle(corrected)[inside]
        usable = (after > 0) & (before > 0)
        values = before[usable].astype(np.float64) / after[usable]
    if values.size < MIN_VOXELS:
        for name in ('inu_med', 'inu_range'):
            found.add(name, None, without or NO_TISSUE)
        return
    low, median, high = (float(v) for v in np.percentile(values, (5, 50, 95)))
    found.add('inu_med', median)
    found.add('inu_range', high - low)


def _add_own(
    found: ImageQuality,
    acquired: Volume,
    corrected: Volume,
    tissues: TissueSample | None,
    air: Air | None,
    is_ratio: str,
) -> None:
    """Measures that are not of MRIQC: noise within tissue, ratios of tissues, ghosts."""
    white = _white(corrected, tissues)
    greys = _values(corrected, tissues, 'gm')
    grey = float(np.median(greys)) if greys.size else 0.0
    noise = _noise(acquired, tissues)
    why = NO_NOISE if white and noise is not None else NO_TISSUE
    level = white * noise if noise else None
    found.add('tissue_snr', metrics.ratio(1, noise) if noise and not is_ratio else None,
              is_ratio or why)  # fmt: skip
    known = abs(white - grey) / level if level and grey else None
    found.add('tissue_cnr', known, why if grey else NO_TISSUE)
    found.add('wm2gm', metrics.ratio(white, grey) if white else None, NO_TISSUE)
    fluid = tissues.middle(corrected)[tissues.ventricles] if tissues else np.empty(0)
    enough = fluid.size >= MIN_VOXELS and white > 0
    found.add('csf2wm', float(np.median(fluid)) / white if enough else None, NO_TISSUE)
    without = is_ratio or (BRAIN_ONLY if air is None else air.missing or NO_CORNER)
    surplus = max(air.ghosts.values()) / white if air and air.ghosts and white else None
    found.add('ghosts', surplus, without)


def _noise(image: Volume, tissues: TissueSample | None) -> float | None:
    """Noise as a share of the signal, where both were measured in white matter; 0 without any."""
    if tissues is None or np.count_nonzero(tissues.deep) < MIN_VOXELS:
        return None
    stack = tissues.stack(image)
    inside = np.zeros(stack.shape, bool)
    inside[..., 1] = tissues.deep
    signal = float(np.median(stack[inside]))
    return (metrics.noise_of_residuals(stack, inside) or 0.0) / signal if signal > 0 else None
