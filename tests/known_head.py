"""A head whose place in the template is known."""

import numpy as np
from scipy import ndimage

from ssl2_bids.atlas import read_atlas
from ssl2_bids.simulation.anatomy.anatomy import Anatomy
from ssl2_bids.volume import resample


def known_head(to_template: np.ndarray) -> Anatomy:
    """The mean head of the atlas, brought to another space by a known affine, 1.6 mm voxels."""
    atlas = read_atlas()
    shape, affine = (112, 128, 112), np.diag([1.6, 1.6, 1.6, 1.0])
    affine[:3, 3] = (-90, -112, -92)
    maps = {
        name: resample(volume, affine, shape, transform=to_template).data
        for name, volume in atlas.items()
    }
    numbers = {'ventricles': 4, 'cortex': 3, 'white-matter': 2, 'deep-grey-matter': 10}
    numbers |= {'cerebellum': 8, 'brainstem': 16}
    stack = np.stack([maps[name] for name in numbers])
    labels = np.array(list(numbers.values()), np.uint8)[stack.argmax(axis=0)]
    labels[stack.sum(axis=0) < 0.4] = 0
    tissues = {'wm': (2,), 'gm': (3,), 'csf': (4,), 'thalamus': (10,), 'cerebellar_gm': (8,)}
    tissues['brainstem'] = (16,)
    fractions = {
        name: ndimage.gaussian_filter(np.isin(labels, values).astype(np.float32), 0.4)
        for name, values in tissues.items()
    }
    return Anatomy(fractions, affine, labels)
