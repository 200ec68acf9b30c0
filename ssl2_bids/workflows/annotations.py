"""A rater's file on the grid of an image: the one rule, for adaptation, evaluation and training.

Nothing is interpolated while a label is brought to the image that it was drawn on: programs that
save masks round the header, so that a label belongs to the nearest grid of its shape, if that is
less than half a voxel away. Then each of its voxels lies in the same voxel of the image.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np

from ssl2_bids.bids.dataset import warn_once
from ssl2_bids.bids.labels import Label
from ssl2_bids.errors import DataError, about
from ssl2_bids.steps import annotation as annotate
from ssl2_bids.steps.annotation import Annotation
from ssl2_bids.volume import Volume, read, read_grid, reorient, resample
from ssl2_bids.voxel_grid import (
    GRID_TOLERANCE,
    Grid,
    describe_grid,
    grid_distance,
    grid_millimetres,
)

log = logging.getLogger('ssl2_bids')

REFUSED = 0.5  # of a voxel; from here on a voxel of the label lies in another one of the image
HALF = 0.5  # share of a voxel that must be lesion


class MisfitError(DataError):
    """A label is on the grid of none of the images.

    Attributes
    ----------
    shifted : an image has as many voxels, at another place.
    """

    shifted = False


@dataclass(frozen=True)
class Placed:
    """The masks of one session joined, on the grid of one image.

    Attributes
    ----------
    image : key of the grid that they lie on.
    labels : those that were joined.
    note : what was joined and how, in words.
    remarks : labels with lesions that are not used, and copies of labels.
    """

    annotation: Annotation
    image: str
    labels: tuple[Label, ...]
    note: str
    remarks: tuple[str, ...] = ()


def place(labels: Sequence[Label], grids: Mapping[str, Grid]) -> Placed:
    """Join the masks of a session and find the image that they were drawn on.

    Raters of one image are joined by majority; masks of the same voxels are copies of one, and
    count once. A mask that cannot be read is left out, and of masks of several images the first
    that fits is taken.

    Parameters
    ----------
    labels : at least one; see ``bids.labels``.
    grids : of the images that they may lie on, RAS+ axes, the most wanted first.

    Raises
    ------
    DataError : nothing fits; the distance, or both grids, stand in the message. It is the error
        of the first mask; those of the others are warnings.
    """
    images: dict[tuple[str, str, str], list[Label]] = {}
    for label in labels:
        images.setdefault(label.image, []).append(label)
    problems: list[DataError] = []
    for raters in images.values():
        placed = _place_one(raters, grids, problems)
        if placed:
            for problem in problems:  # of masks of other images
                _warn_of(problem)
            return placed
    for problem in problems[1:]:
        _warn_of(problem)
    raise problems[0]


def _place_one(
    raters: Sequence[Label], grids: Mapping[str, Grid], problems: list[DataError]
) -> Placed | None:
    """Raters of one image; one whose mask is on another grid than the first's is left out.

    Parameters
    ----------
    problems : takes the errors where none can be used; then None is returned.
    """
    placed: dict[str, list[tuple[Label, Annotation]]] = {}
    own: list[DataError] = []
    for label in raters:
        try:
            image, annotation = _onto_nearest(label, grids)
        except DataError as error:
            own.append(error)
        else:
            placed.setdefault(image, []).append((label, annotation))
    if not placed:
        problems += own
        return None
    image, found = next(iter(placed.items()))
    for problem in own:
        _warn_of(problem)
    for other, elsewhere in placed.items():
        for label, _ in elsewhere if other != image else ():
            log.warning('%s: label left out: it is on %s, not on %s', label.path, other, image)
    paths = [label.path for label in raters]
    names = dict(zip(paths, distinct_names(paths), strict=True))
    found, copies = _without_copies(found)
    for copy, kept in copies:
        warn_once(f'{copy.path}: {_same_as(str(kept.path))}')
    labels = tuple(label for label, _ in found)
    joined = annotate.majority([annotation for _, annotation in found])
    remarks = [f'{names[label.path]}: {_unused(one)}' for label, one in found if one.unused]
    remarks += [f'{names[copy.path]}: {_same_as(names[kept.path])}' for copy, kept in copies]
    note = _how_joined([names[label.path] for label in labels])
    return Placed(joined, image, labels, note, tuple(remarks))


def _warn_of(problem: DataError) -> None:
    warn_once(f'{problem.path}: label left out: {problem.message}')


def _without_copies(
    found: Sequence[tuple[Label, Annotation]],
) -> tuple[list[tuple[Label, Annotation]], list[tuple[Label, Label]]]:
    """The masks without copies, and each copy with the mask that is used.

    Two raters may agree that an image has no lesion: empty masks are copies only if their files
    have one name.
    """
    kept: list[tuple[Label, Annotation]] = []
    copies: list[tuple[Label, Label]] = []
    for label, one in found:
        drawn = bool(one.label.data.any())
        same = (
            other
            for other, known in kept
            if (drawn or other.path.name == label.path.name)
            and np.array_equal(known.label.data, one.label.data)
            and np.array_equal(known.extent.data, one.extent.data)
        )
        if (first := next(same, None)) is None:
            kept.append((label, one))
        else:
            copies.append((label, first))
    return kept, copies


def _same_as(name: str) -> str:
    return f'the same voxels as in {name}: both count as one mask'


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The names of files, each with as many of its folders as distinguish it from the others."""
    most = max((len(path.parts) for path in paths), default=0)
    for parts in range(1, most):
        names = ['/'.join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            return names
    return [str(path) for path in paths]


def _onto_nearest(label: Label, grids: Mapping[str, Grid]) -> tuple[str, Annotation]:
    """The image that a label was drawn on, and the label on just that grid.

    Of images on one grid the one of its name is used, else the first.
    """
    annotation = read_annotation(label)
    if annotation.unused:
        warn_once(f'{label.path}: {_unused(annotation)}')
    named = [name for name in grids if _is_named(label, name)]
    order = [*named, *(n for n in grids if n not in named)]
    apart = {name: grid_distance(annotation.label, grids[name]) for name in order}
    near = [name for name in order if apart[name] <= GRID_TOLERANCE]
    image = near[0] if near else min(order, key=apart.__getitem__)
    if apart[image] >= REFUSED - 1e-6:
        raise _misfit(label, annotation, image, grids[image], apart[image])
    if apart[image] > GRID_TOLERANCE:
        log.warning(
            '%s: %.2g voxels off %s; the grid of the image is used',
            label.path,
            apart[image],
            image,
        )
    affine = grids[image].affine
    moved = replace(
        annotation,
        label=replace(annotation.label, affine=affine),
        extent=replace(annotation.extent, affine=affine),
    )
    return image, moved


def _unused(annotation: Annotation) -> str:
    drawn = annotation.unused + np.count_nonzero(annotation.label.data)
    return (
        f'{annotation.unused} of {drawn} lesion voxels lie outside AnnotatedSlices and are not '
        'used. If the slices are right, set the mask to 0 in all others; slices count from 0'
    )


def _is_named(label: Label, image: str) -> bool:
    """Whether the name of a label has the contrast or the space of an image."""
    parts = Path(image).name.split('.')[0].split('_')
    wanted = {label.kept_suffix, label.space} - {None}
    return any(parts[-1] == one or f'space-{one}' in parts[:-1] for one in wanted)


def _how_joined(names: Sequence[str]) -> str:
    """What was joined and how: names of the files."""
    if len(names) == 1:
        return names[0]
    agree = 'both agree' if len(names) == 2 else 'more than half agree'
    return f'{len(names)} raters, lesion where {agree}: {", ".join(names)}'


def _misfit(
    label: Label, annotation: Annotation, image: str, grid: Grid, distance: float
) -> MisfitError:
    if np.isfinite(distance):
        millimetres = grid_millimetres(annotation.label, grid)
        off = f', up to {distance:.3g} voxels and {millimetres:.3g} mm away'
        image = f'the nearest, {image},'
    else:
        off = ''
    error = MisfitError(
        'the label fits no image of its session: with RAS axes it has '
        f'{describe_grid(annotation.label, axes=False)}; {image} has '
        f'{describe_grid(grid, axes=False)}{off}',
        advice='Draw the label on this image, or on a raw image of the session, and save it on '
        'the grid of that image.',
        path=label.path,
    )
    error.shifted = bool(np.isfinite(distance))
    return error


def read_annotation(label: Label) -> Annotation:
    """Read a label with its annotated extent, reoriented to RAS+.

    Raises
    ------
    DataError : a file cannot be read or its values mean nothing; it is named.
    """
    extent = read(label.extent_path, dtype=None) if label.extent_path else None
    volume = read(label.path, dtype=None)
    with about(label.path):
        annotation = annotate.read_label_values(
            volume,
            label.sidecar,
            table=label.dseg_table,
            extent=extent,
            rater=label.desc or '',
        )
    return annotate.reorient_annotation(annotation)


@dataclass(frozen=True)
class RasGrid:
    """The grid of a file once its axes are as close to RAS+ as flips and permutations can."""

    shape: tuple[int, int, int]
    affine: np.ndarray


def ras_grid(path: Path) -> RasGrid:
    """The grid of an image file after :func:`~ssl2_bids.volume.reorient`, from its header.

    Raises
    ------
    DataError : the file cannot be used.
    """
    shape, affine = read_grid(path)
    orientation = nib.io_orientation(affine)
    i, j, k = (int(n) for n in np.array(shape)[np.argsort(orientation[:, 0])])
    return RasGrid((i, j, k), affine @ nib.orientations.inv_ornt_aff(orientation, shape))


def onto_model_grid(
    annotation: Annotation,
    affine: np.ndarray,
    shape: tuple[int, int, int],
    *,
    transform: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Label and annotated extent (uint8) on the grid of a network.

    A whole label is interpolated linearly and thresholded at one half, which keeps its volume;
    voxels beyond its field of view are not annotated. A sparse label is not interpolated: a larger
    voxel is annotated if any annotated voxel has its centre in it, and lesion if most of those are
    (the nearest voxel alone would lose thin annotated slices); a smaller voxel gets the value of
    the one around it.

    Parameters
    ----------
    affine, shape : the grid wanted.
    transform : (4, 4), RAS+ mm of the wanted grid to RAS+ mm of the annotation; identity if None.
    """
    if annotation.whole:
        share = resample(
            annotation.label.with_data((annotation.label.data > 0).astype(np.float32)),
            affine,
            shape,
            transform=transform,
        )
        seen = _nearest(annotation.extent, affine, shape, transform)
        return (share.data >= HALF).astype(np.uint8), seen.astype(np.uint8)
    label, extent = reorient(annotation.label), reorient(annotation.extent)
    drawn, annotated = label.data > 0, extent.data > 0
    back = np.eye(4) if transform is None else np.linalg.inv(transform)
    forward = np.linalg.inv(affine) @ back @ label.affine
    counts = np.zeros((2, int(np.prod(shape))), np.int32)
    for k in range(drawn.shape[2]):  # by slices: all coordinates at once would fill the memory
        ij = np.argwhere(annotated[:, :, k])
        if not len(ij):
            continue
        points = np.column_stack([ij, np.full(len(ij), k), np.ones(len(ij))]) @ forward.T
        voxels = np.rint(points[:, :3]).astype(np.int64)
        inside = ((voxels >= 0) & (voxels < shape)).all(axis=1)
        flat = np.ravel_multi_index(tuple(voxels[inside].T), shape)
        np.add.at(counts[0], flat, 1)
        lesion = drawn[ij[:, 0], ij[:, 1], k][inside]
        np.add.at(counts[1], flat[lesion], 1)
    seen, marked = counts.reshape(2, *shape)
    near_drawn, near_annotated = (_nearest(v, affine, shape, transform) for v in (label, extent))
    most = (2 * marked > seen) | ((2 * marked == seen) & near_drawn)
    found = np.where(seen > 0, most, near_drawn & near_annotated)
    return found.astype(np.uint8), ((seen > 0) | near_annotated).astype(np.uint8)


def _nearest(
    volume: Volume,
    affine: np.ndarray,
    shape: tuple[int, int, int],
    transform: np.ndarray | None,
) -> np.ndarray:
    values = volume.with_data((volume.data > 0).astype(np.uint8))
    there = resample(values, affine, shape, transform=transform, order=0).data > 0
    return np.asarray(there)
