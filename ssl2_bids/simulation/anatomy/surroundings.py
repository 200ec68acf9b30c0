"""Where in a brain lesions can lie: distances to its parts, and what can be diseased."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from ssl2_bids.errors import DataError
from ssl2_bids.simulation.anatomy.anatomy import Anatomy, ventricles
from ssl2_bids.simulation.anatomy.template_fit import fit_template
from ssl2_bids.voxel_grid import bounding_box, shift_affine, start_of

FAR = 1e4  # mm; distance to what a head does not have
TOUCHING = 1.8  # mm between voxel centres; nearer than this a lesion touches
MARGIN = 2  # voxels around the brain
CORTEX = (3, 42)
NUCLEI = (10, 49, 11, 50, 12, 51, 13, 52, 26, 58)
CEREBELLAR_WHITE = (7, 46)
BELOW_TENTORIUM = (*CEREBELLAR_WHITE, 8, 47, 16, 15)
CEREBRAL_WHITE = (2, 41)
# What share of each tissue a lesion of a kind can take. A lesion of white matter reaches a little
# into the cortex beside it.
SHARES = {
    'white': {'wm': 1.0, 'brainstem': 1.0, 'gm': 0.4, 'hippocampus': 0.3, 'cerebellar_gm': 0.3},
    'deep_grey': {
        'wm': 1.0,
        'brainstem': 1.0,
        'caudate': 1.0,
        'putamen': 1.0,
        'pallidum': 1.0,
        'thalamus': 1.0,
        'gm': 1.0,
    },
    'cortical': {'gm': 1.0},
    'leukocortical': {'gm': 1.0, 'wm': 1.0},
}
PLACES = ('periventricular', 'juxtacortical', 'deep', 'infratentorial', 'deep_grey', 'cortical')


@dataclass(frozen=True)
class Surroundings:
    """The brain's part of an anatomy's grid.

    Attributes
    ----------
    box : this part within the anatomy; all arrays have its shape.
    affine : (4, 4), voxel indices within the part to mm.
    spacing : voxel edges in mm.
    to_ventricle, to_cortex : distances in mm between voxel centres.
    susceptible : by kind of lesion, the fraction of each voxel that it can take.
    candidates : by place, flat indices of voxels that can be the centre of a lesion.
    below, nuclei : masks of what lies below the tentorium, and of deep grey matter.
    """

    box: tuple[slice, ...]
    affine: np.ndarray
    spacing: np.ndarray
    to_ventricle: np.ndarray
    to_cortex: np.ndarray
    susceptible: dict[str, np.ndarray]
    candidates: dict[str, np.ndarray]
    below: np.ndarray
    nuclei: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        return self.to_ventricle.shape

    @cached_property
    def to_template(self) -> np.ndarray:
        """Affine (4, 4) from mm of this head to mm of the template; found when first asked for."""
        structures = (
            self.to_ventricle == 0,
            self.to_cortex == 0,
            self.nuclei,
            self.below,
        )
        return fit_template(structures, self.affine)

    def voxel(self, point: np.ndarray) -> np.ndarray:
        """The voxel nearest to a point in mm, within the grid."""
        index = np.rint((np.asarray(point) - self.affine[:3, 3]) / np.diag(self.affine)[:3])
        return np.clip(index, 0, np.array(self.shape) - 1).astype(int)

    def point(self, index: np.ndarray) -> np.ndarray:
        """Millimetres of a voxel index."""
        return np.diag(self.affine)[:3] * index + self.affine[:3, 3]


def survey(anatomy: Anatomy) -> Surroundings:
    """Find ventricles, cortex and what else decides where lesions lie.

    Without labels there are no lesions below the tentorium or in deep grey matter, and ventricles
    are the fluid deep inside.

    Raises
    ------
    DataError : the anatomy has no white matter that could hold a lesion.
    """
    brain = anatomy.brain
    if not brain.any():
        raise DataError('the anatomy is empty', advice='Give an anatomy with tissue.')
    box = bounding_box(brain, MARGIN)
    affine = shift_affine(anatomy.affine, start_of(box))
    labels = None if anatomy.labels is None else anatomy.labels[box]
    parts = {name: fraction[box] for name, fraction in anatomy.fractions.items()}
    local = Anatomy(parts, affine, labels)
    spacing = local.spacing
    to_ventricle = distance(ventricles(local), spacing)
    if labels is None:
        depth = distance(~brain[box], spacing)
        to_cortex = distance((parts['gm'] > 0.5) & (depth < 25) & (to_ventricle > 8), spacing)
        below = nuclei = np.zeros(brain[box].shape, bool)
        white = (parts['wm'] > 0.75) & (depth > 4)
    else:
        to_cortex = distance(np.isin(labels, CORTEX), spacing)
        below, nuclei = np.isin(labels, BELOW_TENTORIUM), np.isin(labels, NUCLEI)
        white = np.isin(labels, CEREBRAL_WHITE) & (parts['wm'] > 0.75)
    susceptible = {kind: share_of(parts, shares) for kind, shares in SHARES.items()}
    if labels is None:
        # Tissue maps may have a grey rim around the ventricles; lesions there reach the ventricle.
        near = to_ventricle < 4
        susceptible['white'][near] = (parts['wm'] + parts['gm'])[near]
    near_ventricle = white & (to_ventricle < 4)
    near_cortex = white & (to_cortex < 2.5) & (to_ventricle > 6)
    masks = {
        'periventricular': near_ventricle,
        'juxtacortical': near_cortex,
        'deep': white & ~near_ventricle & ~near_cortex,
        'cortical': (parts['gm'] > 0.7) & (to_ventricle > 10),
    }
    if labels is not None:
        stem = (labels == 16) & (parts.get('brainstem', parts['wm']) > 0.6)
        masks['infratentorial'] = stem | (np.isin(labels, CEREBELLAR_WHITE) & (parts['wm'] > 0.7))
        masks['deep_grey'] = nuclei & (susceptible['deep_grey'] > 0.8)
    candidates = {name: np.flatnonzero(mask) for name, mask in masks.items() if mask.any()}
    if not white.any():
        raise DataError(
            'the anatomy has no white matter that could hold a lesion',
            advice='Give an anatomy with cerebral white matter.',
        )
    return Surroundings(
        box, affine, spacing, to_ventricle, to_cortex, susceptible, candidates, below, nuclei
    )


def share_of(parts: dict[str, np.ndarray], shares: dict[str, float]) -> np.ndarray:
    """Fraction of each voxel that a kind of lesion can take."""
    total = np.zeros(next(iter(parts.values())).shape, np.float32)
    for name, share in shares.items():
        if name in parts:
            total += np.float32(share) * parts[name]
    return total


def distance(mask: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Distance in mm to a mask; far beyond any head if it is empty."""
    if not mask.any():
        return np.full(mask.shape, FAR, np.float32)
    return ndimage.distance_transform_edt(~mask, sampling=spacing).astype(np.float32)


def place_of(around: Surroundings, voxels: tuple[np.ndarray, ...], *, cortical: bool) -> str:
    """In which place a lesion lies, one of ``PLACES``, from the voxels that it fills.

    After McDonald 2017 (Thompson et al. 2018, doi 10.1016/S1474-4422(17)30470-2): infratentorial
    or deep grey by most of its voxels; periventricular if it touches the ventricles; juxtacortical
    if it touches the cortex.
    """
    if cortical:
        return 'cortical'
    if around.below[voxels].mean() > 0.5:
        return 'infratentorial'
    if around.nuclei[voxels].mean() > 0.5:
        return 'deep_grey'
    if around.to_ventricle[voxels].min() <= TOUCHING:
        return 'periventricular'
    return 'juxtacortical' if around.to_cortex[voxels].min() <= TOUCHING else 'deep'
