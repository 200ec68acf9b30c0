"""A background ready to be cut into slices: orientation, grey window, crop, planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ssl2_bids import voxel_grid
from ssl2_bids.volume import Volume, reorient
from ssl2_bids.voxel_grid import same_grid

MARGIN = 6.0  # mm shown around the brain
FADE = 14.0  # mm from the brain where a head turns black: the scalp's rim stays, a face does not

BRIGHT = 0.25  # of the window: head, not air or skull
COARSE = 3.0  # mm between the voxels in which a head is looked for
FACE_DEPTH, FACE_TOP = 60.0, 115.0  # mm behind the tip of the nose, below the top of the head
DEPTH = 190.0  # mm below the top of a head; what lies lower is neck


@dataclass(frozen=True)
class Plane:
    """A cutting plane of a RAS+ volume: its axis and the letters at the left and right edge."""

    name: str
    axis: int
    left: str
    right: str

    @property
    def across(self) -> tuple[int, int]:
        """Volume axes that run along the image's width and height."""
        first, second = (axis for axis in range(3) if axis != self.axis)
        return first, second


AXIAL = Plane('axial', 2, 'L', 'R')
CORONAL = Plane('coronal', 1, 'L', 'R')
SAGITTAL = Plane('sagittal', 0, 'P', 'A')
PLANES = (AXIAL, CORONAL, SAGITTAL)

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Scene:
    """A background made ready for drawing.

    Attributes
    ----------
    background : RAS+ volume.
    brain : boolean array on its grid, or None where the brain is not known.
    limits : intensities shown as black and as white.
    box : the part of the grid that is shown.
    shown : boolean array, the brain or, where it is not known, what is not dark.
    hidden : the part of the grid that alone turns black far from the brain; None for all of it.
    """

    background: Volume
    brain: np.ndarray | None
    limits: tuple[float, float]
    box: Box
    shown: np.ndarray
    hidden: Box | None = None

    def size(self, plane: Plane, box: Box | None = None) -> tuple[float, float]:
        """Width and height of a slice in mm."""
        box = box or self.box
        width, height = (
            (box[axis].stop - box[axis].start) * float(self.background.spacing[axis])
            for axis in plane.across
        )
        return width, height

    def coordinate(self, plane: Plane, voxel: Sequence[float]) -> float:
        """World coordinate in mm of a voxel, along the normal of the plane."""
        return float((self.background.affine @ [*voxel, 1.0])[plane.axis])

    def places(self, plane: Plane, count: int) -> list[int]:
        """Indices of slices across what is shown."""
        return spread(self.shown, plane.axis, count)

    def grey(self, plane: Plane, index: int, box: Box | None = None) -> np.ndarray:
        """One slice as 8-bit grey, black well outside the brain; shape (rows, columns)."""
        box = box or self.box
        low, high = self.limits
        values = cut(self.background.data, plane, index, box).astype(np.float32)
        image = np.clip((np.nan_to_num(values) - low) / (high - low), 0, 1)
        image[values == 0] = 0  # what a skull-stripping tool took away
        if self.brain is not None:
            fade = self._fade(cut(self.brain, plane, index, box), plane)
            if self.hidden is not None:
                face = np.zeros(self.background.shape, bool)
                face[self.hidden] = True
                fade = np.where(cut(face, plane, index, box), fade, 1)
            image *= fade
        return np.round(image * 255).astype(np.uint8)

    def _fade(self, inside: np.ndarray, plane: Plane) -> np.ndarray:
        if not inside.any():
            return np.full(inside.shape, 0.25, np.float32)
        sampling = [float(self.background.spacing[axis]) for axis in plane.across[::-1]]
        distance = ndimage.distance_transform_edt(~inside, sampling=sampling)
        return np.clip((FADE - distance) / 4, 0, 1).astype(np.float32)


def prepare(
    background: Volume,
    brain: Volume | None = None,
    *,
    also: np.ndarray | None = None,
    whole_head: bool = False,
) -> Scene:
    """Orient, window and crop a background to the brain (to what is not dark without a mask).

    Parameters
    ----------
    also : boolean RAS+ array of what the crop must keep, too.
    whole_head : crop to the head that the image itself shows, and hide nothing of it but the
        face; the brain decides the grey values only.

    Raises
    ------
    ValueError : the brain mask lies on another grid.
    """
    if brain is not None and not same_grid(background, brain):
        raise ValueError('a background and its brain mask must lie on one grid')
    background = reorient(background)
    mask = reorient(brain).data > 0 if brain is not None else None
    if mask is not None and not mask.any():
        mask = None
    limits = window(background, mask)
    if whole_head:
        head = head_of(background, limits[0] + BRIGHT * (limits[1] - limits[0]))
        box = bounding_box(head, background.spacing)
        return Scene(background, mask, limits, box, head, face_of(head, background.spacing))
    shown = mask if mask is not None else background.data > limits[0] + 0.12 * np.diff(limits)
    kept = shown if also is None else shown | also
    return Scene(background, mask, limits, bounding_box(kept, background.spacing), shown)


def head_of(volume: Volume, threshold: float) -> np.ndarray:
    """The box of the largest bright part, without what lies far below its top: boolean (I, J, K).

    Parameters
    ----------
    volume : RAS+; bright is what is above ``threshold``; everything where nothing is.
    """
    steps = np.maximum(1, np.rint(COARSE / volume.spacing)).astype(int)
    coarse = volume.data[tuple(slice(None, None, step) for step in steps)] > threshold
    labels, count = ndimage.label(ndimage.binary_opening(coarse) if coarse.any() else coarse)
    head = np.zeros(volume.shape, bool)
    if not count:
        return ~head
    largest = int(np.bincount(labels.ravel())[1:].argmax())
    found = ndimage.find_objects(labels)[largest]
    low, high = (
        np.array([getattr(side, end) for side in found]) * steps for end in ('start', 'stop')
    )
    low[2] = max(low[2], high[2] - round(DEPTH / volume.spacing[2]))
    head[tuple(map(slice, low, high))] = True
    return head


def face_of(head: np.ndarray, spacing: np.ndarray) -> Box:
    """Where the face is, from the box of an upright head: in front and below, for no brain."""
    _, depth, height = voxel_grid.bounding_box(head)
    start = max(0, depth.stop - round(FACE_DEPTH / spacing[1]))
    stop = max(0, height.stop - round(FACE_TOP / spacing[2]))
    return slice(None), slice(start, None), slice(None, stop)


def window(volume: Volume, mask: np.ndarray | None = None) -> tuple[float, float]:
    """Intensities to show as black and white: the 1st and 99.7th percentile within the brain.

    Parameters
    ----------
    mask : boolean array on the grid of ``volume``; without one all voxels but zeros count.
    """
    values = volume.data[mask] if mask is not None else volume.data[volume.data != 0]
    values = values[np.isfinite(values)]
    if values.size == 0:
        return 0.0, 1.0
    values = values[:: max(1, values.size // 500_000)]
    low, high = (float(v) for v in np.percentile(values, (1, 99.7)))
    # White matter stays mid-grey and fluid black: the darkest brain is not the black of the page.
    low -= 0.15 * (high - low)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def bounding_box(mask: np.ndarray, spacing: np.ndarray, margin: float = MARGIN) -> Box:
    """The smallest box around a mask, widened by ``margin`` mm; everything for an empty mask."""
    if not mask.any():
        return tuple(slice(0, n) for n in mask.shape)  # type: ignore[return-value]
    wide = np.ceil(margin / spacing).astype(int)
    return voxel_grid.bounding_box(mask, wide)  # type: ignore[return-value]


def cut(data: np.ndarray, plane: Plane, index: int, box: Box) -> np.ndarray:
    """One slice of a RAS+ array as an image: first row is superior (axial: anterior)."""
    where: list[slice | int] = list(box)
    where[plane.axis] = index
    return data[tuple(where)].T[::-1]


def spread(mask: np.ndarray, axis: int, count: int) -> list[int]:
    """Indices of ``count`` slices across a mask, evenly, its outermost tenths left out."""
    others = tuple(a for a in range(3) if a != axis)
    filled = np.flatnonzero(mask.any(axis=others))
    first, last = (int(filled[0]), int(filled[-1])) if filled.size else (0, mask.shape[axis] - 1)
    rim = 0.1 * (last - first)
    return sorted({round(i) for i in np.linspace(first + rim, last - rim, count)})
