"""Anatomies from segmented heads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy import ndimage

from ssl2_bids.errors import DataError
from ssl2_bids.simulation.anatomy.anatomy import FIRST_EXTRACEREBRAL, Anatomy
from ssl2_bids.tables import bundled_table
from ssl2_bids.volume import Volume, read, reorient, resample
from ssl2_bids.voxel_grid import bounding_box, shift_affine, start_of, whole_labels

MAX_VOXEL_EDGE = 1.6  # mm; thicker voxels miss the sulci
MAX_ANISOTROPY = 1.5  # longest over shortest voxel edge
OBLIQUE = 1e-3  # largest cosine between a voxel axis and another axis of the room that is ignored
BLUR = 0.6  # voxels; standard deviation that turns steps between labels into partial volume
SHARPNESS = 2.0  # undoes most of that blur after the head was resampled
FLUID = 24  # around the brain
SULCI = 8.0  # mm; wider gaps between parts of the brain are not closed
LAYER = 3.0  # mm of fluid around the brain that stay
MIN_WHITE_MATTER = 0.05  # of the brain; a healthy brain has about 0.4


@dataclass(frozen=True)
class LabelTable:
    """What is known of labels.

    Attributes
    ----------
    tissues : labels of each tissue, with the share that the tissue has in them.
    becomes : labels that are replaced by others when a map is read.
    ranges : first and last label of parcellations, and what they become.
    """

    tissues: dict[str, dict[int, float]]
    becomes: dict[int, int]
    ranges: tuple[tuple[int, int, int], ...]

    def healthy(self, label: int) -> int:
        """The structure that a parcel is part of, or that something ill lies in, else itself."""
        spans = [into for first, last, into in self.ranges if first <= label <= last]
        return spans[0] if spans else self.becomes.get(label, label)


@cache
def label_table() -> LabelTable:
    """The table in ``resources/label_map.toml``."""
    content = bundled_table('label_map.toml')
    tissues = {name: dict.fromkeys(labels, 1.0) for name, labels in content['tissues'].items()}
    for label, shares in content['mixtures'].items():
        for name, share in shares.items():
            tissues.setdefault(name, {})[int(label)] = float(share)
    ranges = tuple(
        (int(span.split('-')[0]), int(span.split('-')[1]), label)
        for span, label in content['ranges'].items()
    )
    becomes = {int(label): other for label, other in content['becomes'].items()}
    return LabelTable(tissues, becomes, ranges)


def read_label_map(path: str | Path) -> Volume:
    """Read a segmented head, checked, with healthy labels and isotropic voxels along RAS+.

    Raises
    ------
    DataError : as in :func:`healthy_labels`, or a file that cannot be read.
    """
    return healthy_labels(read(path, dtype=None), path=path)


def healthy_labels(labels: Volume, *, path: str | Path | None = None) -> Volume:
    """Check a label map and bring it to what the simulation needs.

    Lesions become the tissue that they lie in, parcels the structure that they are part of. Flips
    and permutations of the voxel axes are undone; an oblique or slightly anisotropic map is
    resampled by nearest neighbour.

    Parameters
    ----------
    labels : FreeSurfer's numbers, extracerebral ones as in ``resources/label_map.toml``.
    path : for messages.

    Returns
    -------
    Volume of uint8 with isotropic voxels along RAS+.

    Raises
    ------
    DataError : values that are not whole numbers, labels that are unknown (named), voxels too
        large or too anisotropic, an empty map, or one without cerebral white matter.
    """
    data = _known(labels.data, path)
    spacing = labels.spacing
    if spacing.max() > MAX_VOXEL_EDGE or spacing.max() / spacing.min() > MAX_ANISOTROPY:
        raise DataError(
            f'the label map has voxels of {" x ".join(f"{s:.3g}" for s in spacing)} mm; '
            f'at most {MAX_VOXEL_EDGE:g} mm, with a ratio of at most {MAX_ANISOTROPY:g} between '
            'edges, are allowed',
            advice='Segment an image with smaller, nearly isotropic voxels.',
            path=path,
        )
    volume = reorient(labels.with_data(data))
    rotation = volume.affine[:3, :3] / volume.spacing
    oblique = np.abs(rotation - np.diag(np.diag(rotation))).max() > OBLIQUE
    if oblique or np.ptp(volume.spacing) > OBLIQUE:
        volume = _straighten(volume)
    else:
        # Below the tolerance the axes count as straight, in the affine too.
        straight = np.diag([*volume.spacing, 1.0])
        straight[:3, 3] = volume.affine[:3, 3]
        volume = Volume(volume.data, straight)
    brain = (volume.data > 0) & (volume.data < FIRST_EXTRACEREBRAL)
    white = np.isin(volume.data, (2, 41))
    if white.sum() <= MIN_WHITE_MATTER * brain.sum():
        raise DataError(
            'the label map is empty'
            if not brain.any()
            else 'the label map has almost no cerebral white matter (labels 2 and 41)',
            advice='Give a segmentation of a whole brain with the numbers of FreeSurfer.',
            path=path,
        )
    return volume


def _known(data: np.ndarray, path: str | Path | None) -> np.ndarray:
    """The labels as uint8, all of them known; lesions and parcels replaced."""
    data = whole_labels(data, path)
    found = np.unique(data)
    table = label_table()
    known = {label for labels in table.tissues.values() for label in labels} | {0}
    targets, unknown = [], []
    for label in map(int, found):
        target = table.healthy(label)
        targets.append(target)
        if target not in known:
            unknown.append(label)
    if unknown:
        more = f' and {len(unknown) - 10} more' if len(unknown) > 10 else ''
        raise DataError(
            f'unknown labels in the label map: {", ".join(map(str, unknown[:10]))}{more}',
            advice='Use the numbers of FreeSurfer (aseg), and 202 to 230 outside the brain, as '
            'listed in ssl2_bids/resources/label_map.toml.',
            path=path,
        )
    return np.array(targets, np.uint8)[np.searchsorted(found, data)]


def _straighten(volume: Volume) -> Volume:
    """Nearest neighbours on an isotropic grid along RAS+ that holds all of the volume."""
    edge = float(volume.spacing.min())
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in volume.shape], [1.0])).reshape(4, -1)
    reached = (volume.affine @ corners)[:3]
    low, high = reached.min(axis=1), reached.max(axis=1)
    i, j, k = (int(n) for n in np.ceil((high - low) / edge - 1e-6) + 1)
    affine = np.diag([edge, edge, edge, 1.0])
    affine[:3, 3] = low
    return resample(volume, affine, (i, j, k), order=0)


def from_label_map(labels: Volume | str | Path, *, skull_stripped: bool = True) -> Anatomy:
    """An anatomy from a segmented head.

    The steps between labels become partial volume: each tissue's indicator is blurred a little.

    Parameters
    ----------
    labels : a file, or labels that are checked as in :func:`healthy_labels`.
    skull_stripped : without what lies outside the brain and its fluid, cropped to the brain.

    Raises
    ------
    DataError : as in :func:`healthy_labels`.
    """
    labels = healthy_labels(labels) if isinstance(labels, Volume) else read_label_map(labels)
    data = labels.data
    if skull_stripped:
        data = strip_head(data, edge=float(labels.spacing[0]))
    # Automatic maps have stray voxels in the air.
    pieces, _ = ndimage.label(data)
    data = np.where(pieces == 1 + np.bincount(pieces.ravel())[1:].argmax(), data, 0)
    box = bounding_box(data > 0)
    data = np.pad(data[box], 3)
    affine = shift_affine(labels.affine, start_of(box) - 3)
    fractions = {}
    for name, shares in label_table().tissues.items():
        lookup = np.zeros(256, np.float32)
        for label, share in shares.items():
            lookup[label] = share
        if lookup[np.unique(data)].any():
            fractions[name] = _blur(lookup[data])
    return Anatomy(fractions, affine, data, SHARPNESS)


def strip_head(data: np.ndarray, *, edge: float) -> np.ndarray:
    """Labels of the brain and of the fluid in its sulci and around it, not in the spinal canal."""
    inside = data < FIRST_EXTRACEREBRAL
    tissue = inside & (data > 0) & (data != FLUID)
    wide = int(np.ceil(2 * SULCI / edge))
    around = bounding_box(tissue, wide)
    padded = np.pad(tissue[around], wide)
    grown = ndimage.distance_transform_edt(~padded) <= SULCI / edge
    filled = ndimage.distance_transform_edt(grown) > (SULCI - LAYER) / edge
    closed = np.zeros(data.shape, bool)
    closed[around] = filled[tuple(slice(wide, n - wide) for n in filled.shape)]
    return np.where(inside & (closed | tissue), data, 0).astype(np.uint8)


def _blur(values: np.ndarray) -> np.ndarray:
    """Gaussian blur, computed where there is something to blur; zero at the border."""
    wider = bounding_box(values > 0, 3)
    blurred = np.zeros_like(values)
    blurred[wider] = ndimage.gaussian_filter(values[wider], BLUR, mode='constant', truncate=4)
    return blurred
