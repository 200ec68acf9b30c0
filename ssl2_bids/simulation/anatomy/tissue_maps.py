"""An anatomy from the tissue maps of a template.

The maps of MNI152 are means over 152 people. So their sulci, which lie elsewhere in each person,
are filled with grey matter, and a rim of grey matter surrounds the ventricles, whose borders
vary. No single brain has either: the sulci are opened by the thickness of the cortex, and the rim
becomes white matter.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from ssl2_bids.atlas import read_atlas
from ssl2_bids.simulation.anatomy.anatomy import Anatomy
from ssl2_bids.volume import resample
from ssl2_bids.voxel_grid import spacing_of

SHARPNESS = 2.0  # the borders of a mean over people are wide
CORTEX = 3.5  # mm from white matter to the fluid of a sulcus; a cortex has 1 to 4.5 mm
PIAL_BORDER = 0.4  # mm; width of that border
RIM = 2.0  # mm from the ventricles within which grey matter is a rim; beyond, it fades
RIM_FADE = 1.4  # mm
SMOOTH = 1.0  # mm; of the border between cortex and what keeps its grey matter
NUCLEI = 0.2  # probability of grey nuclei from which nothing is taken from grey matter
SOLID = ('cortex', 'deep-grey-matter', 'cerebellum', 'brainstem')  # regions of the atlas
RIGHT = {2: 41, 3: 42, 4: 43, 7: 46, 8: 47, 10: 49, 11: 50, 12: 51, 17: 53}


def from_mni_maps(
    white: np.ndarray, grey: np.ndarray, brain: np.ndarray, affine: np.ndarray
) -> Anatomy:
    """An anatomy from the white and grey matter maps of the MNI152 template, with open sulci.

    Parameters
    ----------
    white, grey : 0 to 1, shape (I, J, K).
    brain : mask of the brain with its fluid, which fills what the maps leave.
    affine : (4, 4) to MNI mm, voxel axes along RAS+.

    Returns
    -------
    Anatomy of wm, gm and csf. Its labels are approximate: from the atlas of regions, the grey
    nuclei separated by coordinates; accurate enough for the region of a lesion.
    """
    brain = brain > 0
    white, grey = (np.asarray(each * brain, np.float32) for each in (white, grey))
    fluid = np.clip(brain - white - grey, 0, 1).astype(np.float32)
    shape = fluid.shape
    maps = {name: resample(volume, affine, shape).data for name, volume in read_atlas().items()}
    likeliest = np.argmax([maps[name] for name in SOLID], axis=0)
    sulcal = grey * _sulci(white, maps, likeliest == 0, affine)
    rim = np.minimum(grey - sulcal, grey * _rim(fluid, maps, affine))
    white, grey, fluid = white + rim, grey - sulcal - rim, fluid + sulcal
    fractions = {'wm': white, 'gm': grey, 'csf': fluid}
    labels = np.zeros(shape, np.uint8)
    x, y, z = (
        (affine[i, i] * np.arange(shape[i]) + affine[i, 3]).reshape(np.roll((-1, 1, 1), i))
        for i in range(3)
    )
    solid = white + grey > fluid
    is_white = white > grey
    labels[solid & is_white] = 2
    labels[solid & ~is_white] = 3
    labels[(white + grey > 0) & (fluid >= 0.5)] = 24
    labels[~solid & brain] = 24
    labels[~solid & brain & (maps['ventricles'] > 0.2)] = 4
    deep = solid & ~is_white & (likeliest == 1)
    lateral = np.abs(x) + 0 * y + 0 * z
    labels[deep] = 12
    labels[deep & (lateral < 20) & (y < -4) & (z > -6)] = 10
    labels[deep & (lateral < 16) & (y >= -4) & (z > -10)] = 11
    labels[deep & (z < -8) & (lateral > 12)] = 17
    labels[solid & ~is_white & (likeliest == 0) & (maps['white-matter'] > 0.6)] = 2
    labels[solid & (likeliest == 2) & (maps['cerebellum'] > 0.3)] = 8
    labels[solid & is_white & (likeliest == 2) & (maps['cerebellum'] > 0.3)] = 7
    labels[solid & (likeliest == 3) & (maps['brainstem'] > 0.3)] = 16
    right = np.broadcast_to(x > 0, shape)
    for left_label, right_label in RIGHT.items():
        labels[right & (labels == left_label)] = right_label
    return Anatomy(fractions, np.asarray(affine, np.float64), labels, SHARPNESS)


def _sulci(
    white: np.ndarray, maps: Mapping[str, np.ndarray], cortical: np.ndarray, affine: np.ndarray
) -> np.ndarray:
    """Share of grey matter that is fluid: what lies farther from white matter than a cortex.

    The cortex is 1 to 4.5 mm thick, 2.5 mm on average (Fischl and Dale 2000, PNAS 97:11050, doi
    10.1073/pnas.200033797). White matter of a mean over people starts below that of a person, so
    the distance is larger.
    """
    spacing = spacing_of(affine)
    distance = ndimage.distance_transform_edt(white <= 0.5, sampling=spacing) - spacing.mean() / 2
    beyond = 1 / (1 + np.exp((CORTEX - distance) / PIAL_BORDER))
    where = cortical & (maps['deep-grey-matter'] < NUCLEI)
    smooth = ndimage.gaussian_filter(where.astype(np.float32), SMOOTH / spacing)
    return np.asarray(beyond * smooth, np.float32)


def _rim(fluid: np.ndarray, maps: Mapping[str, np.ndarray], affine: np.ndarray) -> np.ndarray:
    """Share of grey matter that is white: around the ventricles, but for the nuclei there."""
    inside = (fluid > 0.5) & (maps['ventricles'] > 0.2)
    if not inside.any():
        return np.zeros_like(fluid)
    distance = ndimage.distance_transform_edt(~inside, sampling=spacing_of(affine))
    near = np.exp(-((np.maximum(distance - RIM, 0) / RIM_FADE) ** 2) / 2)
    clear = maps['white-matter'] + maps['ventricles'] - sum(maps[name] for name in SOLID)
    return np.asarray(near * np.clip(2 * clear, 0, 1), np.float32)
