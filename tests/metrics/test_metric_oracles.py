"""Our scores beside those of MONAI, surface-distance and panoptica, on random lesions.

MONAI is installed anyway. The other two are not; where they are, their tests run:
``pip install surface-distance panoptica``.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import (
    CalibrationErrorMetric,
    compute_dice,
    compute_hausdorff_distance,
    compute_surface_dice,
    get_confusion_matrix,
)
from scipy import ndimage

from ssl2_bids.metrics.calibration import expected_calibration_error
from ssl2_bids.metrics.lesionwise import any_overlap
from ssl2_bids.metrics.voxelwise import (
    compare,
    dice,
    hausdorff_95,
    ppv,
    sensitivity,
    surface_dice,
    surface_distances,
)

SPACINGS = [(1.0, 1.0, 1.0), (0.7, 0.7, 0.7), (0.5, 0.5, 3.0)]
NOT_INSTALLED = 'an optional oracle: pip install surface-distance panoptica'


def blobs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Reference and prediction: smooth blobs that overlap in part, clear of the border."""
    random = np.random.default_rng(seed)
    common = ndimage.gaussian_filter(random.normal(size=(30, 28, 26)), 2)
    masks = []
    for _ in range(2):
        own = ndimage.gaussian_filter(random.normal(size=common.shape), 2)
        field = common + 0.5 * own
        mask = np.zeros(common.shape, bool)
        inner = (slice(3, -3),) * 3
        mask[inner] = field[inner] > np.quantile(field, 0.9)
        masks.append(mask)
    return masks[0], masks[1]


def batch(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(mask)[None, None].float()


@pytest.mark.parametrize('seed', range(4))
def test_overlap_as_monai_has_it(seed):
    reference, prediction = blobs(seed)
    theirs = float(compute_dice(batch(prediction), batch(reference)))
    assert dice(reference, prediction) == pytest.approx(theirs)
    counts = get_confusion_matrix(batch(prediction), batch(reference))[0, 0].numpy()
    true, false, _, missed = counts
    assert sensitivity(reference, prediction) == pytest.approx(true / (true + missed))
    assert ppv(reference, prediction) == pytest.approx(true / (true + false))


@pytest.mark.parametrize('spacing', SPACINGS)
@pytest.mark.parametrize('seed', range(3))
def test_surfaces_as_monai_has_them(seed, spacing):
    reference, prediction = blobs(seed)
    pair = batch(prediction), batch(reference)
    theirs = float(compute_hausdorff_distance(*pair, True, percentile=95, spacing=spacing))
    assert hausdorff_95(reference, prediction, spacing) == pytest.approx(theirs, rel=1e-5)
    theirs = float(compute_surface_dice(*pair, [1.0], True, spacing=spacing))
    assert surface_dice(reference, prediction, spacing) == pytest.approx(theirs, rel=1e-5)


def test_where_one_mask_is_empty_we_have_numbers_and_monai_has_none():
    reference, _ = blobs(0)
    nothing = np.zeros_like(reference)
    assert dice(reference, nothing) == float(compute_dice(batch(nothing), batch(reference))) == 0
    assert np.isnan(float(compute_dice(batch(nothing), batch(nothing))))
    ours = compare(nothing, nothing, spacing=(1, 1, 1))
    assert (ours.dice, ours.hausdorff_95, ours.surface_dice) == (1, 0, 1)


@pytest.mark.parametrize('seed', range(3))
def test_calibration_as_monai_has_it(seed):
    random = np.random.default_rng(seed)
    probability = random.uniform(0.001, 0.999, (12, 12, 12))
    truth = random.uniform(size=probability.shape) < probability**2
    metric = CalibrationErrorMetric(num_bins=10, calibration_reduction='expected')
    metric(torch.from_numpy(probability)[None, None], torch.from_numpy(truth)[None, None].float())
    theirs = float(metric.aggregate())
    assert expected_calibration_error(probability, truth) == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize('spacing', SPACINGS)
@pytest.mark.parametrize('seed', range(3))
def test_surfaces_as_surface_distance_has_them(seed, spacing):
    """Its surface elements lie between voxels and weigh by area: near, never equal.

    Elements between voxels are up to one and a half edges from the voxels of the surface.
    """
    theirs = pytest.importorskip('surface_distance', reason=NOT_INSTALLED)
    reference, prediction = blobs(seed)
    found = theirs.compute_surface_distances(reference, prediction, spacing)
    edge = max(spacing)
    robust = theirs.compute_robust_hausdorff(found, 95)
    assert hausdorff_95(reference, prediction, spacing) == pytest.approx(robust, abs=1.5 * edge)
    within = theirs.compute_surface_dice_at_tolerance(found, 2 * edge)
    ours = surface_dice(reference, prediction, spacing, tolerance=2 * edge)
    assert ours == pytest.approx(within, abs=0.06)
    mean = [np.mean(part) for part in surface_distances(reference, prediction, spacing)]
    assert mean == pytest.approx(theirs.compute_average_surface_distance(found), abs=edge / 2)


@pytest.mark.parametrize('seed', range(3))
def test_lesions_as_panoptica_has_them(seed):
    """Where each lesion meets one other at most, any overlap is its recognition quality."""
    panoptica = pytest.importorskip('panoptica', reason=NOT_INSTALLED)
    random = np.random.default_rng(seed)
    reference, prediction = np.zeros((2, 48, 48, 12), np.uint8)
    corners = random.permutation([(i, j) for i in range(2, 44, 8) for j in range(2, 44, 8)])
    for number, (i, j) in enumerate(corners[:24], start=1):
        moved = random.integers(0, 3)
        if number > 5:  # five are predicted alone
            reference[i : i + 4, j : j + 4, 3:7] = number
        if number <= 17:  # seven are missed
            prediction[i + moved : i + 4 + moved, j : j + 4, 3:7] = number
    evaluator = panoptica.Panoptica_Evaluator(
        expected_input=panoptica.InputType.UNMATCHED_INSTANCE,
        instance_matcher=panoptica.NaiveThresholdMatching(matching_threshold=1e-6),
    )
    theirs = evaluator.evaluate(prediction, reference)['ungrouped']
    ours = any_overlap(reference, prediction)
    assert (ours.detected, ours.reference_count, ours.prediction_count) == (12, 19, 17)
    assert (theirs.tp, theirs.fn, theirs.fp) == (12, 7, 5)
    assert ours.f1 == pytest.approx(theirs.rq)
