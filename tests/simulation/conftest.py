"""A head made of balls: cortex, white matter with a ventricle, fluid around."""

import numpy as np
import pytest

from ssl2_bids.simulation.anatomy.anatomy import Anatomy


@pytest.fixture(scope='session')
def ball() -> Anatomy:
    """Radii in mm on 1 mm voxels: ventricle 8, white matter 30, cortex 34, fluid 36."""
    size = 81
    affine = np.eye(4)
    affine[:3, 3] = -40
    radius = np.linalg.norm(np.indices((size,) * 3) - 40, axis=0)

    def within(edge: float) -> np.ndarray:
        return np.clip(edge + 0.5 - radius, 0, 1).astype(np.float32)

    return Anatomy(
        {
            'wm': within(30) - within(8),
            'gm': within(34) - within(30),
            'csf': within(36) - within(34) + within(8),
        },
        affine,
    )
