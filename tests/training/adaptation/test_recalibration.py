"""Recalibration: what is fitted to labels, and what is not where they hold little."""

from __future__ import annotations

import numpy as np
import pytest

from ssl2_bids.networks.calibration import UNCHANGED, Calibration, calibrate, expit, logit
from ssl2_bids.training.adaptation import recalibration as fitting
from ssl2_bids.training.adaptation.recalibration import Counts, Recalibration, count, fit

SHAPE = (40, 40, 40)


def labelled(
    seed: int, *, scale: float = 1.0, shift: float = 0.0, voxels: int = 12_000
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a model whose logit is ``scale`` and ``shift`` from the truth; lesions."""
    random = np.random.default_rng(seed)
    true = np.full(SHAPE, -12.0).ravel()
    true[:voxels] = random.normal(-1, 2.5, voxels)
    lesion = random.random(true.size) < expit(true)
    given = (true - shift) / scale
    return expit(given).astype(np.float32).reshape(SHAPE), lesion.reshape(SHAPE)


def counts(seed: int, name: str = '', **how) -> Counts:
    probability, lesion = labelled(seed, **how)
    brain = np.ones(SHAPE, bool)
    return count(
        probability, lesion, brain, participant=name or str(seed), voxel_volume=1.0, threshold=0.5
    )


def test_scale_and_shift_are_found_again():
    found = fit([counts(n, scale=0.7, shift=-1.2) for n in range(6)]).calibration
    assert found.scale == pytest.approx(0.7, abs=0.07)
    assert found.shift == pytest.approx(-1.2, abs=0.15)


def test_calibrated_probabilities_are_the_frequency_of_lesion_in_others():
    found = fit([counts(n, scale=0.7, shift=-1.2) for n in range(3)]).calibration
    probability, lesion = labelled(9, scale=0.7, shift=-1.2)
    for given, worst in ((probability, np.inf), (calibrate(probability, found), 0.06)):
        part = (given > 0.3) & (given < 0.7)
        error = abs(given[part].mean() - lesion[part].mean())
        assert error < worst
    part = (probability > 0.3) & (probability < 0.7)
    assert abs(probability[part].mean() - lesion[part].mean()) > 0.15


def test_the_threshold_moves_to_a_higher_dice_in_others():
    found = fit([counts(n, shift=-2.0) for n in range(3)])
    assert found.move > 0.5  # the model marks too much
    other = counts(7, shift=-2.0)
    plain, moved = other.dice(np.array([0.0, found.move]))
    assert moved > plain + 0.01


def test_dice_of_counts_is_that_of_the_mask():
    probability, lesion = labelled(1)
    brain = np.ones(SHAPE, bool)
    brain[:5] = False  # lesions outside of the brain are missed
    one = count(probability, lesion, brain, participant='a', voxel_volume=1.0, threshold=0.5)
    for move in (0.0, 1.0, -1.5):
        marked = brain & (probability >= expit(np.float64(move)))
        dice = 2 * (marked & lesion).sum() / (marked.sum() + lesion.sum())
        assert one.dice(np.array([move]))[0] == pytest.approx(dice, abs=1e-3)


def test_a_model_that_is_right_is_left_nearly_as_it_is():
    found = fit([counts(n) for n in range(4)])
    assert found.calibration.scale == pytest.approx(1, abs=0.06)
    assert found.calibration.shift == pytest.approx(0, abs=0.12)


@pytest.mark.parametrize('empty', [True, False])
def test_little_evidence_moves_little(empty):
    """One lesion of some voxels, found or not, or none at all."""
    probability, lesion = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, bool)
    probability[10:13, 10:13, 10:13] = 0.9
    if not empty:
        lesion[20:23, 20:23, 20:23] = True  # elsewhere
    brain = np.ones(SHAPE, bool)
    one = count(probability, lesion, brain, participant='a', voxel_volume=1.0, threshold=0.5)
    found = fit([one])
    assert 0.85 < found.calibration.scale < 1.15
    assert abs(found.calibration.shift) < 0.6
    assert abs(found.move) < 0.7


def test_without_labels_nothing_changes():
    assert fit([]) == Recalibration()
    nothing = count(
        np.zeros(SHAPE, np.float32), np.zeros(SHAPE, bool), np.ones(SHAPE, bool),
        participant='a', voxel_volume=1.0, threshold=0.5,
    )  # fmt: skip
    assert fit([nothing]) == Recalibration()


def test_participants_have_equal_weights_with_any_number_of_sessions():
    one, other = counts(1, 'a', shift=-2.0), counts(2, 'b', shift=1.0)
    once = fit([one, other]).calibration
    thrice = fit([one, one, one, other]).calibration
    assert thrice.shift == pytest.approx(once.shift, abs=1e-3)
    assert fitting.weights_of([one, one, other]).tolist() == [15, 15, 30]


def test_a_label_counts_the_same_in_parts_and_as_one():
    probability, lesion = labelled(1)
    brain = np.ones(SHAPE, bool)
    whole = {'participant': 'a', 'voxel_volume': 1.0, 'threshold': 0.5}
    one = count(probability, lesion, brain, **whole)
    parts = [
        count(probability[:, :, part], lesion[:, :, part], brain[:, :, part], **whole)
        for part in (slice(0, 12), slice(12, 20), slice(20, None))
    ]
    assert fit(fitting.pooled(parts)) == fit([one])
    assert fit(fitting.pooled(parts)) != fit(parts)
    assert fitting.pooled([]) == []


def test_a_label_without_lesions_moves_no_threshold_not_even_of_a_patient():
    probability, lesion = labelled(1)
    brain, whole = np.ones(SHAPE, bool), {'voxel_volume': 1.0, 'threshold': 0.5}
    ill = count(probability, lesion, brain, participant='a', **whole)
    empty = count(probability, np.zeros_like(lesion), brain, participant='a', **whole)
    assert fit([ill, empty]).move == fitting.fit_move([ill])
    assert fitting.fit_move([empty]) == 0


@pytest.mark.parametrize(('least', 'move'), [(None, 0.4), (0.0, 0.4), (1.1, 1.1)])
def test_a_least_move_is_kept(least, move):
    found = Recalibration(Calibration(0.9, -0.5), 0.4, 10.0).at_least(least)
    assert (found.move, found.least) == (move, least)
    assert found.calibration == Calibration(0.9, -0.5)
    assert found.minimum_volume == 10.0


def test_the_threshold_is_calibrated_like_the_probabilities():
    found = Recalibration(Calibration(0.8, -1.0), move=0.7)
    probability, _ = labelled(3)
    before = probability >= found.mark_from(0.4)
    after = calibrate(probability, found.calibration) >= found.threshold(0.4)
    assert (before != after).mean() < 1e-4  # rounding at the threshold itself


def test_calibrations_follow_one_another():
    first, second = Calibration(0.7, 0.4), Calibration(1.3, -1.0)
    probability = np.linspace(0.01, 0.99, 50, dtype=np.float32)
    twice = calibrate(calibrate(probability, first), second)
    np.testing.assert_allclose(calibrate(probability, second.after(first)), twice, atol=1e-5)
    assert calibrate(probability, UNCHANGED) is probability


def test_voxels_that_no_network_saw_stay_zero():
    probability = np.array([0, 1e-9, 0.5, 1], np.float32)
    found = calibrate(probability, Calibration(1.0, 2.0))
    assert found[0] == 0
    assert 0 < found[1] < 1e-5
    assert found[2] == pytest.approx(expit(np.float64(2.0)))
    assert found[3] == pytest.approx(1, abs=1e-5)
    assert logit(1.0) < 17
