"""Heads prepared for training: small arrays from which the randomised engine draws.

A head is a label map of tissue groups with a few maps of place. Packed, one takes about 1 MB.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from ssl2_bids.errors import DataError, NoInputError
from ssl2_bids.files import read_arrays, whole_file
from ssl2_bids.processes import end_with_parent, whole_start
from ssl2_bids.voxel_grid import whole_labels

# Groups of tissue that share one mean intensity, with their labels in FreeSurfer's numbering and,
# from 200, the extracerebral labels of the SynthSeg maps minus 300. Lesions of ageing (25, 57)
# and unsegmented hypointensities (77) are healthy white matter here.
GROUPS: dict[str, tuple[int, ...]] = {
    'outside': (0,),
    'white': (2, 41, 25, 57, 77),
    'cortex': (3, 42),
    'striatum': (11, 50, 12, 51, 26, 58),
    'pallidum': (13, 52),
    'thalamus': (10, 49),
    'limbic': (17, 53, 18, 54),
    'cerebellar_cortex': (8, 47),
    'cerebellar_white': (7, 46),
    'brainstem': (16, 28, 60),
    'ventricle': (4, 43, 5, 44, 14, 15, 72),
    'outer_csf': (24,),
    'plexus': (31, 63, 136, 137, 163, 164),
    'vessel': (30, 62, 202, 214),
    'nerve': (85, 230),
    'bone': (215, 216),
    'extracerebral': (206, 207, 208, 209, 211, 212),
}
GROUP_NAMES = tuple(GROUPS)
INDEX = {name: index for index, name in enumerate(GROUP_NAMES)}
BRAIN = tuple(INDEX[n] for n in GROUP_NAMES[1:13])  # what is left when the skull is stripped
TISSUE = tuple(INDEX[n] for n in GROUP_NAMES[1:10])
DISTANCE_SCALE = 8  # steps per mm in the packed distances
MAX_DISTANCE = 31.0  # mm
CROP = 8  # voxels kept around the tissue
# Lines of two tracts, mm: means of ten heads by benchmarks/tracts.py. Columns: height above the
# centre of the thalami (or distance behind their end), lateral of the outermost voxel of the
# thalamus, forward of its centre (or height above it), standard deviations of the last two.
CORTICOSPINAL = np.array(
    [
        (-25.0, -13.4, 5.4, 1.2, 1.8),
        (-15.0, -10.7, 6.1, 2.0, 2.3),
        (-5.0, -7.2, 3.3, 2.3, 3.1),
        (5.0, -5.2, 1.0, 2.3, 4.8),
        (15.0, -2.5, -1.6, 2.3, 5.9),
        (25.0, 1.2, -4.7, 5.4, 6.6),
        (35.0, -2.6, -12.9, 7.7, 6.9),
        (45.0, -10.2, -21.1, 8.9, 4.5),
        (55.0, -17.4, -24.1, 5.9, 3.2),
    ]
)
OPTIC = np.array(
    [
        (-15.0, 7.7, -13.9, 5.7, 3.7),
        (-5.0, 10.6, -13.9, 4.3, 4.9),
        (5.0, 10.9, -13.4, 2.8, 6.0),
        (15.0, 7.6, -12.7, 4.1, 6.9),
        (25.0, 1.8, -13.3, 6.3, 6.9),
        (35.0, -3.4, -16.0, 6.0, 5.1),
        (45.0, -9.0, -19.0, 4.9, 4.7),
        (55.0, -11.6, -24.4, 3.5, 4.6),
    ]
)
# Extent in mm of the cerebral cortex of a head rigidly aligned to MNI152: 0.5th and 99.5th
# percentile of coordinates to the right, front and top.
MNI_CEREBRUM = ((-65.0, 65.0), (-99.0, 66.0), (-38.0, 75.0))


@dataclass(frozen=True, eq=False)
class RealLesions:
    """Voxels of one patient's lesions in a head.

    Attributes
    ----------
    voxels : (V,) int32, flat indices into the head's grid.
    instance : (V,) int16, which lesion, from 0.
    """

    voxels: np.ndarray
    instance: np.ndarray


@dataclass(frozen=True, eq=False)
class Head:
    """One anatomy of 1 mm voxels, axes towards right, front, top.

    Attributes
    ----------
    name : of the person.
    groups : (I, J, K) uint8, indices into ``GROUP_NAMES``.
    to_ventricle, to_cortex : (I, J, K) uint8, distances in steps of 1/8 mm.
    tract : (I, J, K) uint8, 0 to 255: likeness to tracts that are bright in healthy FLAIR.
    patients : real lesions that fit into this head, one item per patient.
    t1w : None, or a real T1w of this head (I, J, K) uint8, healthy white matter at 160.
    """

    name: str
    groups: np.ndarray
    to_ventricle: np.ndarray
    to_cortex: np.ndarray
    tract: np.ndarray
    patients: tuple[RealLesions, ...] = ()
    t1w: np.ndarray | None = None


def make_head(
    name: str,
    labels: np.ndarray,
    *,
    patients: Sequence[np.ndarray] = (),
    patient_affine: np.ndarray | None = None,
    t1w: np.ndarray | None = None,
) -> Head:
    """Pack a label map.

    Parameters
    ----------
    labels : (I, J, K) integers in FreeSurfer's numbering, 1 mm, axes towards right, front, top.
    patients : lesion masks of real patients, rigidly aligned to MNI152.
    patient_affine : (4, 4), voxels of the masks to mm.
    t1w : real image on the same grid, white matter at 160.

    Raises
    ------
    DataError : labels that are unknown or no whole numbers, a head without white matter, or,
        with masks of patients, without cortex.
    """
    groups = group_map(name, labels)
    inside = np.argwhere(np.isin(groups, TISSUE))
    if not (groups == INDEX['white']).any() or not len(inside):
        raise DataError(f'the label map of {name} has no white matter', advice='Leave it out.')
    box = tuple(
        slice(max(int(low) - CROP, 0), int(high) + CROP + 1)
        for low, high in zip(inside.min(axis=0), inside.max(axis=0), strict=True)
    )
    groups = np.ascontiguousarray(groups[box])
    head = with_places(name, groups, None if t1w is None else np.ascontiguousarray(t1w[box]))
    if patient_affine is None:
        return head
    return with_patients(head, patients, patient_affine)


def with_places(
    name: str,
    groups: np.ndarray,
    t1w: np.ndarray | None,
    patients: tuple[RealLesions, ...] = (),
) -> Head:
    """A head from its groups: the maps of place follow from them."""
    return Head(
        name,
        groups,
        packed_distance(np.isin(groups, (INDEX['ventricle'], INDEX['plexus']))),
        packed_distance(groups == INDEX['cortex']),
        tract_map(groups),
        patients,
        t1w,
    )


def group_map(name: str, labels: np.ndarray) -> np.ndarray:
    """Tissue groups (uint8) of FreeSurfer's labels.

    Raises
    ------
    DataError : values that are no whole numbers; unknown labels, which are named.
    """
    table = np.full(256, 255, np.uint8)
    for group, numbers in GROUPS.items():
        table[list(numbers)] = INDEX[group]
    labels = whole_labels(labels)
    unknown = [int(n) for n in np.unique(labels) if not 0 <= n < 256 or table[int(n)] == 255]
    if unknown:
        shown = ', '.join(map(str, unknown[:10]))
        raise DataError(
            f'the label map of {name} has unknown labels: {shown}',
            advice="Use FreeSurfer's numbering of whole-brain segmentations (aseg).",
        )
    return table[labels.astype(np.uint8)]


def packed_distance(mask: np.ndarray) -> np.ndarray:
    """Distance to a mask in steps of 1/8 mm, 0 inside, at most 31 mm."""
    if not mask.any():
        return np.full(mask.shape, 255, np.uint8)
    distance = np.minimum(ndimage.distance_transform_edt(~mask), MAX_DISTANCE)
    return (distance * DISTANCE_SCALE).astype(np.uint8)


def tract_map(groups: np.ndarray) -> np.ndarray:
    """Where healthy FLAIR has bright tracts: corticospinal tract and optic radiation.

    Each is a Gaussian around a line, in the coordinates of the head: up is from brain stem to
    thalamus, so that the pitch of a head does not matter. Lines and widths are the means of ten
    heads to which the Juelich atlas was registered (Buergel et al. 2006, doi
    10.1016/j.neuroimage.2005.08.040); a head's own tracts differ by some millimetres.

    Returns
    -------
    uint8 (I, J, K), 0 to 255; 0 outside cerebral white matter and brain stem, and everywhere
    in a head without thalamus, lentiform nucleus or brain stem.
    """
    likeness = np.zeros(groups.shape, np.uint8)
    thalamus = np.argwhere(groups == INDEX['thalamus'])
    stem = np.argwhere(groups == INDEX['brainstem'])
    lentiform = np.isin(groups, (INDEX['pallidum'], INDEX['striatum']))
    if not len(thalamus) or not len(stem) or not lentiform.any():
        return likeness
    middle, front, up = frame_of(thalamus, stem)
    voxels = np.argwhere(np.isin(groups, (INDEX['white'], INDEX['brainstem'])))
    found = np.zeros(len(voxels), np.float32)
    for side in (-1, 1):
        nucleus = (thalamus - middle)[(thalamus[:, 0] - middle[0]) * side > 0]
        here = (voxels[:, 0] - middle[0]) * side > 0
        if not len(nucleus) or not here.any():
            continue
        place = voxels[here] - middle
        lateral = place[:, 0] * side - (nucleus[:, 0] * side).max()
        height, forward = place @ up, place @ front
        behind = (nucleus @ front).min() - forward
        found[here] = np.maximum(
            _tube(CORTICOSPINAL, height, lateral, forward),
            _tube(OPTIC, behind, lateral, height),
        )
    likeness[tuple(voxels.T)] = 255 * found
    return likeness


def frame_of(thalamus: np.ndarray, stem: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre of both thalami, and the directions to front and up, from brain stem to thalamus.

    Parameters
    ----------
    thalamus, stem : (V, 3), their voxels.
    """
    middle = thalamus.mean(axis=0)
    up = middle - stem.mean(axis=0)
    up[0] = 0
    up /= max(float(np.linalg.norm(up)), 1e-6)
    return middle, np.array([0, up[2], -up[1]]), up


def _tube(
    line: np.ndarray, along: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """Gaussian around a line, 0 to 1; 5 mm beyond its ends it stops."""
    at, *columns = line.T
    x, y, wide, high = (np.interp(along, at, column) for column in columns)
    tube = np.exp(-(((first - x) / wide) ** 2 + ((second - y) / high) ** 2) / 2)
    return np.asarray(tube * (along > at[0] - 5) * (along < at[-1] + 5))


def with_patients(head: Head, masks: Sequence[np.ndarray], affine: np.ndarray) -> Head:
    """A head with the lesions of real patients brought to it.

    Each axis of MNI space is stretched so that the cerebrum fits; single lesions of which less
    than half then falls on tissue that can hold them are left out, the rest is cut.

    Parameters
    ----------
    masks : (I, J, K), lesions above 0, rigidly aligned to MNI152.
    affine : (4, 4), voxels of the masks to mm.

    Raises
    ------
    DataError : the cortex of the head has no extent.
    """
    cortex = np.argwhere(head.groups == INDEX['cortex'])
    low, high = np.percentile(cortex, (0.5, 99.5), axis=0) if len(cortex) else np.zeros((2, 3))
    if (high <= low).any():
        raise DataError(
            f'the label map of {head.name} has no cortex to fit lesion masks to',
            advice='Leave it out, or give no lesion masks.',
        )
    mni_low, mni_high = np.array(MNI_CEREBRUM).T
    to_mni = np.eye(4)
    to_mni[:3, :3] = np.diag((mni_high - mni_low) / (high - low))
    to_mni[:3, 3] = mni_low - to_mni[:3, :3] @ low
    matrix = np.linalg.inv(affine) @ to_mni
    allowed = np.isin(head.groups, TISSUE)
    allowed &= (head.groups != INDEX['cortex']) | (head.to_ventricle < 6 * DISTANCE_SCALE)
    patients = []
    shape = head.groups.shape
    for mask in masks:
        pieces, _ = ndimage.label(mask > 0, np.ones((3, 3, 3)))
        placed = ndimage.affine_transform(pieces, matrix[:3, :3], matrix[:3, 3], shape, order=0)
        voxels = np.flatnonzero(placed)
        number = placed.ravel()[voxels]
        kept = allowed.ravel()[voxels]
        whole = np.bincount(number)
        fits = np.bincount(number, weights=kept) >= 0.5 * np.maximum(whole, 1)
        kept &= fits[number]
        _, instance = np.unique(number[kept], return_inverse=True)
        patients.append(RealLesions(voxels[kept].astype(np.int32), instance.astype(np.int16)))
    return replace(head, patients=tuple(p for p in patients if len(p.voxels)))


def save_heads(path: str | Path, heads: Sequence[Head]) -> None:
    """Write heads into one compressed ``.npz``, whole or not at all."""
    arrays: dict[str, np.ndarray] = {'names': np.array([head.name for head in heads])}
    for number, head in enumerate(heads):
        arrays[f'{number}_groups'] = head.groups
        if head.t1w is not None:
            arrays[f'{number}_t1w'] = head.t1w
        for patient, lesions in enumerate(head.patients):
            # Steps between sorted voxels are mostly 1: they pack into a tenth of the size.
            arrays[f'{number}_steps_{patient}'] = np.diff(lesions.voxels, prepend=0)
            arrays[f'{number}_instance_{patient}'] = lesions.instance
    with whole_file(path) as temporary, open(temporary, 'wb') as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def load_heads(path: str | Path) -> tuple[Head, ...]:
    """Read what :func:`save_heads` wrote.

    Raises
    ------
    NoInputError : there is no such file, or it may not be read.
    DataError : the file is damaged, or holds no heads.
    ReadError : the disk failed.
    """
    try:
        arrays = read_arrays(path)
        names = [str(name) for name in arrays['names']]
        heads = [_unpack(arrays, number, name) for number, name in enumerate(names)]
    except NoInputError as error:
        if not Path(path).exists():
            error.advice = 'Check the key "heads" in the table "data".'
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f'this prepared dataset of heads cannot be read ({error})',
            advice='Remove the file, and prepare the heads again.',
            path=path,
        ) from None
    processes = min(len(heads), len(os.sched_getaffinity(0)))
    if processes < 2:
        return tuple(with_places(*head) for head in heads)
    with ProcessPoolExecutor(
        processes, initializer=end_with_parent
    ) as pool:  # seconds of distance maps for each head
        with whole_start():
            placed = pool.map(with_places, *zip(*heads, strict=True))
        return tuple(placed)


def _unpack(
    arrays: dict[str, np.ndarray], number: int, name: str
) -> tuple[str, np.ndarray, np.ndarray | None, tuple[RealLesions, ...]]:
    """The arguments of :func:`with_places` for one of the stored heads."""
    groups = arrays[f'{number}_groups']
    if groups.ndim != 3 or groups.dtype != np.uint8:
        raise ValueError(f'the groups of {name} are no map')
    count = sum(key.startswith(f'{number}_steps_') for key in arrays)
    patients = tuple(
        RealLesions(
            np.cumsum(arrays[f'{number}_steps_{i}'], dtype=np.int32),
            arrays[f'{number}_instance_{i}'],
        )
        for i in range(count)
    )
    return name, groups, arrays.get(f'{number}_t1w'), patients
