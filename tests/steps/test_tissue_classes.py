"""The mixture of white matter, grey matter, fluid, and what the last two share."""

import numpy as np
import pytest

from ssl2_bids.steps.tissue_classes import fit_classes, posterior

FLAIR = {'csf': 20.0, 'gm': 130.0, 'wm': 100.0}
T1W = {'csf': 30.0, 'gm': 70.0, 'wm': 100.0}
T2W = {'csf': 250.0, 'gm': 120.0, 'wm': 80.0}
REGIONS = (  # prior of fluid, grey and white matter; what is there: the same, and their mixture
    ((0.05, 0.20, 0.75), (0.02, 0.15, 0.80, 0.03)),
    ((0.35, 0.50, 0.15), (0.20, 0.20, 0.15, 0.45)),
    ((0.70, 0.20, 0.10), (0.75, 0.05, 0.05, 0.15)),
)


def thick_slices(signals, noise, seed=0, size=20_000):
    """Values and priors of voxels in and around wide sulci."""
    draw = np.random.default_rng(seed)
    fluid, grey, white = (signals[name] for name in ('csf', 'gm', 'wm'))
    values, priors = [], []
    for prior, shares in REGIONS:
        kind = draw.choice(4, size, p=shares)
        mixed = fluid + draw.uniform(0, 1, size) * (grey - fluid)
        pure = np.choose(kind, [fluid, grey, white, 0.0])
        values.append(np.where(kind == 3, mixed, pure) + draw.normal(0, noise, size))
        priors.append(np.tile(prior, (size, 1)))
    return np.concatenate(values), np.concatenate(priors).T


@pytest.mark.parametrize('noise', [3.0, 8.0])
@pytest.mark.parametrize('signals', [FLAIR, T1W, T2W], ids=['FLAIR', 'T1w', 'T2w'])
def test_grey_matter_beside_wide_sulci_keeps_its_brightness(signals, noise):
    values, priors = thick_slices(signals, noise)
    means, _ = fit_classes(values, priors)
    truth = np.array(list(signals.values()))
    assert means == pytest.approx(truth, abs=0.15 * np.ptp(truth[1:]) + 0.02 * np.ptp(truth))


def test_what_grey_matter_and_fluid_share_is_neither():
    values = np.array([20.0, 75.0, 130.0, 100.0])
    priors = np.tile([[0.4], [0.4], [0.2]], 4)
    found = posterior(values, priors, np.array([20.0, 130.0, 100.0]), np.array([8.0, 6.0, 6.0]))
    assert found.argmax(axis=0)[[0, 2, 3]].tolist() == [0, 1, 2]
    assert found[:, 1].sum() < 0.05
