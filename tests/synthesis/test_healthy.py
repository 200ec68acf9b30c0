import numpy as np
import pytest
from label_phantom import label_head
from scipy import ndimage

from ssl2_bids.errors import DataError
from ssl2_bids.synthesis.healthy import CORTEX, FLUID, VENTRICLE, WHITE, label_t1w


@pytest.fixture(scope='module')
def scan():
    """A T1w of an ellipsoid head with large ventricles; its truth."""
    truth = label_head(144, skull=False)
    means = np.full(256, 100.0)
    means[[2, 41]], means[[3, 42]], means[[4, 24]], means[0] = 100, 65, 20, 0
    image = ndimage.gaussian_filter(means[truth], 0.6)
    image += np.random.default_rng(0).normal(0, 2, image.shape)
    return image.astype(np.float32), truth


def test_tissues_are_found_where_they_are(scan):
    image, truth = scan
    labels, scaled = label_t1w(image, truth > 0)
    for found, true in ((WHITE, (2, 41)), (CORTEX, (3, 42)), (VENTRICLE, (4,)), (FLUID, (24,))):
        a, b = labels == found, np.isin(truth, true)
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.85
    assert np.median(scaled[truth == 2]) == pytest.approx(160, abs=6)


def test_too_small_a_brain_and_a_flat_image_are_refused(scan):
    image, truth = scan
    with pytest.raises(DataError, match='mL only'):
        label_t1w(image[::2, ::2, ::2], truth[::2, ::2, ::2] > 0)
    flat = np.random.default_rng(0).normal(100, 1, image.shape).astype(np.float32)
    with pytest.raises(DataError, match='cannot be separated by intensity'):
        label_t1w(flat, truth > 0)
