"""The stated time of an adaptation: the brains that it counts are those that a run segments."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from site_phantom import head, make_model, make_site, put_label

from ssl2_bids.networks import inference
from ssl2_bids.settings import GroupSettings
from ssl2_bids.steps import segmentation
from ssl2_bids.workflows.adaptation import run as running
from ssl2_bids.workflows.adaptation.expected import (
    brains_of,
    measurements,
    most_steps,
    training_seconds,
    windows_of,
)
from ssl2_bids.workflows.cohort.run import run_group_level

PEOPLE = 4


@pytest.fixture(scope='module')
def model(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp('model'))


@pytest.fixture(scope='module')
def fresh(model, tmp_path_factory) -> Path:
    """Four people after the participant level; the label of the second one is in part."""
    root = tmp_path_factory.mktemp('fresh')
    make_site(root, model, PEOPLE)
    for number in (1, 2, 3):
        lesion = head(number).lesion
        slices = np.flatnonzero(lesion.any((0, 1))).tolist()
        part = {'AnnotatedSlices': {'Axis': 'k', 'Indices': slices}} if number == 2 else {}
        put_label(root / 'labels', f'{number:02d}', lesion, **part)
    return root


@pytest.mark.parametrize(
    ('options', 'labelled', 'count'),
    [
        ({'rung': 'last-layers'}, 3, (0, 3, 6, 4)),  # slices of two sessions are open
        ({'rung': 'half-way', 'folds': 3}, 3, (3, 6, 6, 4)),  # both rungs of one training
        ({'rung': 'whole', 'holdout': ('03',), 'resegment': False}, 3, (2, 5, 6, 0)),
        ({}, 3, (3, 9, 6, 4)),
        ({'suggestions': 1, 'folds': 2}, 3, (3, 9, 6, 4)),
        ({'rung': 'last-layers', 'folds': 'slices'}, 1, (0, 5, 9, 4)),
        ({'folds': 'slices', 'resegment': False}, 1, (0, 15, 9, 0)),
    ],
)
def test_the_brains_that_are_counted_are_those_that_a_run_segments(
    options, labelled, count, fresh, model, tmp_path, monkeypatch
):
    shutil.copytree(fresh, tmp_path, dirs_exist_ok=True)
    for number in range(labelled + 1, 4):
        shutil.rmtree(tmp_path / 'labels' / f'sub-{number:02d}')
    given = {'folds': 2, 'steps': 11, 'accept': 'always'} | options
    folder = tmp_path / 'labels'
    settings = GroupSettings(
        tmp_path / 'data', tmp_path / 'out', tmp_path / 'work',
        labels=(folder,), model=str(model), device='cpu', **given,
    )  # fmt: skip
    original, settled = inference.average_windows, running.fit_into_time
    windows, expected = [], []

    def counted(measure, image, brain, **named):
        windows.append(0)

        def progress(done: int, total: int) -> None:
            windows[-1] = total

        return original(measure, image, brain, **named | {'progress': progress})

    def settle(work, trainings):
        windows.clear()
        expected.append((brains_of(work, trainings - 1), windows_of(work)))
        return settled(work, trainings)

    for module in (inference, segmentation):
        monkeypatch.setattr(module, 'average_windows', counted)
    monkeypatch.setattr(running, 'fit_into_time', settle)
    assert run_group_level(settings, show=lambda line: None) == 0
    ((brains, each),) = expected
    assert (brains.curves, brains.tested, brains.asked, brains.results) == count
    assert len(windows) == brains.after + brains.curves * measurements(11)
    assert each == pytest.approx(np.mean(windows), rel=0.2)


def test_windows_of_a_brain_are_those_that_it_is_cut_into():
    brain = torch.zeros(30, 20, 40, dtype=torch.bool)
    brain[3:28, 5:15, 2:37] = True
    seen = []
    inference.average_windows(
        lambda windows: torch.zeros_like(windows),
        torch.zeros(1, *brain.shape),
        brain,
        window=(16, 24, 16),
        overlap=0.25,
        progress=lambda done, total: seen.append(total),
    )
    assert inference.count_windows(brain, window=(16, 24, 16), overlap=0.25) == seen[-1] > 1


@pytest.mark.parametrize(
    ('kinds', 'folds', 'at_a_time', 'seconds'),
    [
        ([(5, 5)], 3, 1, 20),
        ([(2, 2), (7, 5)], 2, 1, 23),  # one of two final trainings: the longer one
        ([(2, 2), (7, 5)], 2, 5, 9),  # all at a time, and then that of the other kind
        ([(7, 5)], 2, 2, 12),
        ([(7, 5)], 0, 2, 5),
    ],
)
def test_time_of_trainings_by_how_many_run_at_a_time(kinds, folds, at_a_time, seconds):
    assert training_seconds(kinds, folds, at_a_time) == seconds


def test_the_most_steps_that_fit():
    assert most_steps(lambda steps: 3.0 * steps + 5, 65, 10, 100) == 20
    assert most_steps(lambda steps: 3.0 * steps + 5, 34, 10, 100) == 0
    assert most_steps(lambda steps: 3.0 * steps + 5, 1000, 10, 100) == 100
    assert most_steps(lambda steps: 3.0 * steps + 5, 18, 10, 4) == 4


@pytest.mark.parametrize('brain', [0.0, 0.5, 3.0, 10.0, 40.0])
def test_the_most_steps_are_those_found_by_trying_all(brain):
    """Trainings of few steps are measured more or less often: 10 take more time than 12."""

    def seconds(steps):
        return steps + brain * measurements(steps)

    assert (seconds(10) > seconds(12)) is (brain > 2)
    for least, asked in ((10, 60), (3, 60), (20, 60), (7, 7), (10, 14), (1, 1)):
        for limit in np.arange(0.25, 310, 1.5):
            fitting = [n for n in range(least, asked + 1) if seconds(n) <= limit]
            assert most_steps(seconds, limit, least, asked) == max(fitting, default=0)
