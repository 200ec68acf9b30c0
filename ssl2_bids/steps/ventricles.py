"""The lateral and third ventricles of a person, found from where an atlas has them."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ssl2_bids.volume import Volume

VOXEL = 1.5  # mm; a finer grid takes long and gives no other region
CORE = 0.9  # probability of the atlas from which on the fluid is measured
EVEN = 0.5
FLUID = 20  # percentile in the core: choroid plexus and walls are brighter
REACH = 15.0  # mm; wider than this no ventricle is beyond those of the atlas
SULCUS = 1.5  # mm; half the width of fluid that does not count, as sulci and cisterns have it
SEEN = 1.5  # times as much fluid in the core as in the cortex; less: it is noise


def find_ventricles(
    image: Volume, brain_mask: Volume, lesions: Volume, maps: dict[str, Volume]
) -> Volume | None:
    """Find the ventricles as the fluid that is connected to those of an atlas.

    Fluid is what is nearer in intensity to the core of the atlas' ventricles than to its cortex,
    and no lesion. It counts where it is nearer to the ventricles of the atlas than to the cortex
    of the atlas, at most 15 mm away from the former, above cerebellum and brain stem, and wider
    than 3 mm: so wide ventricles are found, and sulci are not.

    Parameters
    ----------
    image : any contrast in which fluid differs from cortex.
    brain_mask, lesions : the same grid, above 0 is inside.
    maps : probabilities of the atlas on the same grid, see :func:`ssl2_bids.steps.regions`.

    Returns
    -------
    1 in the ventricles, else 0, float32; None where the image does not show them.
    """
    brain, lesion = brain_mask.data > 0, lesions.data > 0
    ventricles, cortex = maps['ventricles'].data, maps['cortex'].data
    core, grey = (ventricles >= CORE) & brain & ~lesion, (cortex >= EVEN) & brain & ~lesion
    if not core.any() or not grey.any():
        return None
    fluid, middle = np.percentile(image.data[core], FLUID), np.median(image.data[grey])
    half = (fluid + middle) / 2
    is_fluid = (image.data < half) == (fluid < middle)
    if is_fluid[core].mean() < SEEN * is_fluid[grey].mean():
        return None
    spacing = image.spacing
    to_ventricles = ndimage.distance_transform_edt(ventricles < EVEN, sampling=spacing)
    to_cortex = ndimage.distance_transform_edt(cortex < EVEN, sampling=spacing)
    below = maps['cerebellum'].data + maps['brainstem'].data > EVEN
    near = (to_ventricles < to_cortex) & (to_ventricles <= REACH) & ~below
    candidates = is_fluid & near & brain & ~lesion
    inner = ndimage.distance_transform_edt(candidates, sampling=spacing) > SULCUS
    wide = ndimage.distance_transform_edt(~inner, sampling=spacing) <= SULCUS
    inside = ventricles >= EVEN
    labels, _ = ndimage.label(candidates & (wide | inside))
    found = np.isin(labels, np.setdiff1d(labels[inside], [0]))
    return image.with_data(found.astype(np.float32))
