"""How easily simple features distinguish simulated from real T1w images of healthy people.

Each person gives some axial slabs; each slab some numbers, all from inside the brain (4 mm below
its surface, so that how a brain was stripped does not count). Logistic regression is tested on
people whom it has not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from evidence.heads import Scans
from ssl2_bids.steps.network_input import median_mad
from ssl2_bids.synthesis.healthy import class_means

SLABS, THICKNESS = 6, 12  # slabs per person, slices of 1 mm
BELOW_SURFACE = 4  # mm
WINDOW = 64  # voxels of the square in which the power spectrum is taken
NORMALISATION = {'Clip': (-6, 8), 'Divide': 3, 'Background': 0}  # that of the bundled networks
QUANTILES = (2, 10, 25, 75, 90, 98)
LOW, HIGH = (0.03, 0.15), (0.25, 0.45)  # cycles per mm
FOLDS = 6
STRENGTH = 0.1  # inverse of the penalty: more features than people
MIN_VOXELS = 200  # voxels

GROUPS = {
    'histogram': tuple(f'intensity, percentile {q}' for q in QUANTILES),
    'contrast': ('grey/white', 'CSF/white', 'spread of grey'),
    'sharpness': ('steepest border', 'mean gradient', 'spectrum slope, coarse',
                  'spectrum slope, fine'),
    'noise': ('noise in white matter', 'noise front-back/left-right', 'noise up-down/left-right',
              'correlation of noise'),
    'evenness': ('white matter, 1 to 3 mm', 'white matter, over 3 mm'),
}  # fmt: skip
FEATURES = tuple(name for names in GROUPS.values() for name in names)


@dataclass(frozen=True)
class Verdict:
    """How well two kinds of images are distinguished, on people who were not trained on.

    Attributes
    ----------
    accuracy : of slabs, both kinds weighted alike.
    auc : of slabs.
    auc_people : of people, by their mean score.
    """

    accuracy: float
    auc: float
    auc_people: float


def features(scans: Scans) -> list[list[float]]:
    """Features of each slab of a T1w image, in the order of ``FEATURES``."""
    image, brain = scans.images['T1w'], scans.brain
    scaled = median_mad(torch.from_numpy(image), torch.from_numpy(brain), NORMALISATION).numpy()
    core = ndimage.distance_transform_edt(brain) > BELOW_SURFACE
    fluid, grey, white = class_means(ndimage.gaussian_filter(image, 0.5)[brain])
    level = (image - grey) / (white - grey)
    gradient = ndimage.gaussian_gradient_magnitude(level, 0.7)
    fine = level - ndimage.gaussian_filter(level, 1.0)
    # White matter far from any border: a ball of 2 mm around is white, too.
    smooth = ndimage.gaussian_filter(level, 1.0)
    inner = core & (ndimage.distance_transform_edt((smooth > 0.5) & brain) > 2)
    classes = smooth[..., None] > np.array([(fluid - grey) / (white - grey) / 2, 0.5])
    kind = classes.sum(axis=-1)
    filled = np.flatnonzero(core.any(axis=(0, 1)))
    low, high = np.percentile(filled, (25, 80))
    rows = []
    for middle in np.linspace(low, high, SLABS):
        slab = slice(int(middle) - THICKNESS // 2, int(middle) + THICKNESS // 2)
        part = {
            name: values[..., slab]
            for name, values in (
                ('scaled', scaled), ('core', core), ('level', level), ('gradient', gradient),
                ('fine', fine), ('inner', inner), ('kind', kind),
                ('image', image),
            )
        }  # fmt: skip
        if part['inner'].sum() >= MIN_VOXELS:
            rows.append(slab_features(part))
    return rows


def slab_features(part: Mapping[str, np.ndarray]) -> list[float]:
    """Features of one slab."""
    core, inner = part['core'], part['inner']
    values = part['image'][core]
    kinds = part['kind'][core]
    means = [float(np.median(values[kinds == k])) if (kinds == k).any() else np.nan
             for k in range(3)]  # fmt: skip
    steps = [difference_noise(part['level'], inner, axis) for axis in range(3)]
    fine = part['fine']
    neighbours = inner[:-1] & inner[1:]
    pairs = fine[:-1][neighbours], fine[1:][neighbours]
    upper = part['level'][core][kinds == 1]
    coarse, slow = (smoothed_within(part['level'], inner, sigma)[inner] for sigma in (1.0, 3.0))
    slope = spectrum_slopes(part['scaled'], core)
    return [
        *np.percentile(part['scaled'][core], QUANTILES),
        means[1] / means[2],
        means[0] / means[2] if np.isfinite(means[0]) else 0.0,
        float(np.percentile(upper, 75) - np.percentile(upper, 25)),
        float(np.percentile(part['gradient'][core], 95)),
        float(part['gradient'][core].mean()),
        *slope,
        float(np.mean(steps)),
        float(np.log(steps[1] / steps[0])),
        float(np.log(steps[2] / steps[0])),
        float(np.corrcoef(*pairs)[0, 1]),
        float((coarse - slow).std()),
        float(slow.std()),
    ]


def smoothed_within(level: np.ndarray, inner: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian mean of the voxels inside a region alone."""
    inside = inner.astype(np.float32)
    weights = ndimage.gaussian_filter(inside, sigma)
    return ndimage.gaussian_filter(level * inside, sigma) / np.maximum(weights, 1e-6)


def difference_noise(level: np.ndarray, inner: np.ndarray, axis: int) -> float:
    """Noise from second differences along an axis inside white matter, robustly."""
    ahead, here, behind = (
        np.take(level, np.arange(1 + step, level.shape[axis] - 1 + step), axis)
        for step in (1, 0, -1)
    )
    inside = np.take(inner, np.arange(1, level.shape[axis] - 1), axis)
    differences = np.abs(2 * here - ahead - behind)[inside]
    return float(1.4826 * np.median(differences) / np.sqrt(6)) + 1e-6


def spectrum_slopes(scaled: np.ndarray, core: np.ndarray) -> list[float]:
    """Slopes of the log power against the log frequency, of axial slices, coarse and fine."""
    middle = [int(np.median(np.flatnonzero(core.any(axis=axes)))) for axes in ((1, 2), (0, 2))]
    box = tuple(slice(max(m - WINDOW // 2, 0), m + WINDOW // 2) for m in middle)
    part = scaled[box]
    window = np.multiply.outer(*(np.hanning(n) for n in part.shape[:2]))
    part = (part - part.mean(axis=(0, 1))) * window[..., None]
    power = (np.abs(np.fft.fft2(part, axes=(0, 1))) ** 2).mean(axis=2)
    at = np.meshgrid(*(np.fft.fftfreq(n) for n in part.shape[:2]), indexing='ij')
    frequency = np.hypot(*at)
    slopes = []
    for low, high in (LOW, HIGH):
        inside = (frequency > low) & (frequency < high)
        slopes.append(
            float(np.polyfit(np.log(frequency[inside]), np.log(power[inside] + 1e-12), 1)[0])
        )
    return slopes


def separability(
    one: Mapping[str, Sequence[Sequence[float]]],
    other: Mapping[str, Sequence[Sequence[float]]],
    *,
    chosen: Sequence[str] = FEATURES,
    seed: int = 0,
) -> Verdict:
    """Logistic regression between two kinds of people, tested on people left out."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    columns = [FEATURES.index(name) for name in chosen]
    values, kinds, people = [], [], []
    for kind, group in enumerate((one, other)):
        for name, rows in group.items():
            values += [[row[column] for column in columns] for row in rows]
            kinds += [kind] * len(rows)
            people += [name] * len(rows)
    x, y, who = np.array(values), np.array(kinds), np.array(people)
    folds = min(FOLDS, len(one), len(other))
    scores = np.zeros(len(y))
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for train, test in split.split(x, y, who):
        model = make_pipeline(
            StandardScaler(),
            LogisticRegression(C=STRENGTH, class_weight='balanced', max_iter=1000),
        )
        scores[test] = model.fit(x[train], y[train]).decision_function(x[test])
    names = np.unique(who)
    mean = [scores[who == name].mean() for name in names]
    truth = [y[who == name][0] for name in names]
    return Verdict(
        float(balanced_accuracy_score(y, scores > 0)),
        float(roc_auc_score(y, scores)),
        float(roc_auc_score(truth, mean)),
    )


def single_features(
    one: Mapping[str, Sequence[Sequence[float]]], other: Mapping[str, Sequence[Sequence[float]]]
) -> dict[str, tuple[float, float, float]]:
    """Of each feature: how well it alone distinguishes people (AUC of medians, 0.5 to 1), and
    the medians of both kinds.
    """
    from sklearn.metrics import roc_auc_score

    result = {}
    for column, name in enumerate(FEATURES):
        medians = [
            [float(np.median([row[column] for row in rows])) for rows in group.values()]
            for group in (one, other)
        ]
        kinds = [0] * len(medians[0]) + [1] * len(medians[1])
        auc = float(roc_auc_score(kinds, medians[0] + medians[1]))
        result[name] = (
            max(auc, 1 - auc),
            float(np.median(medians[0])),
            float(np.median(medians[1])),
        )
    return result
