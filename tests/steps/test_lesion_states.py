"""What became of a lesion, by its volumes and the noise."""

from __future__ import annotations

import pytest

from ssl2_bids.steps.lesion_states import NoiseBound, state_of


def test_bound_grows_with_the_lesion():
    bound = NoiseBound(base=5, factor=2, exponent=0.5)
    assert bound.of(0) == 5
    assert bound.of(100) == pytest.approx(25)
    assert NoiseBound(base=5, factor=0, voxel=64).of(9) == 320
    assert NoiseBound(base=5, factor=0, voxel=0.3).of(9) == 5
    assert state_of(100, 124, bound.of(112)) == 'stable'
    assert state_of(100, 140, bound.of(120)) == 'enlarging'
    assert state_of(0, 0, 5) is None
