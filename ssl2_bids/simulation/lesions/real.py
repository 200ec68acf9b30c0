"""Shapes of real lesions, transplanted into another head."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from ssl2_bids.errors import DataError, NoInputError
from ssl2_bids.files import finished_images
from ssl2_bids.simulation.anatomy.surroundings import Surroundings
from ssl2_bids.simulation.lesions.growth import (
    NEIGHBOURS,
    ROOM,
    LesionAppearance,
    LesionPatch,
    Origin,
    PaintedLesion,
    as_point,
    border,
    finish,
    steepness,
)
from ssl2_bids.simulation.lesions.shapes import axes_of, box_around
from ssl2_bids.simulation.smooth import draw_seed
from ssl2_bids.volume import Volume, read, reorient
from ssl2_bids.voxel_grid import shift_affine, spacing_of, start_of

MIN_VOLUME = 2.0  # mm^3; smaller components have no shape
SCALES = (0.7, 1.4)
FITTING = 0.5  # of a transplanted lesion must fall on tissue that can be diseased
SWOLLEN = 1.5  # mm that the border of a transplanted lesion can move outwards
SHIFT = 2.0  # mm; standard deviation of a transplanted lesion's place
TURN = 8.0  # degrees
CUT_SHARE = 0.15  # of the larger lesions, that are split


@dataclass(frozen=True)
class Component:
    """One real lesion.

    Attributes
    ----------
    patient, number : name of the mask, and which component by descending volume, from 1.
    mask : bool, cropped with a margin.
    affine : (4, 4) of the crop, to mm of the template's space.
    volume : mm^3.
    """

    patient: str
    number: int
    mask: np.ndarray
    affine: np.ndarray
    volume: float

    @property
    def spacing(self) -> np.ndarray:
        """Voxel edges in mm."""
        return spacing_of(self.affine)

    @property
    def centre(self) -> np.ndarray:
        """Centre of mass in mm."""
        return self.affine[:3, :3] @ np.argwhere(self.mask).mean(axis=0) + self.affine[:3, 3]


@dataclass(frozen=True)
class LesionShapes:
    """Components of a folder of masks.

    Attributes
    ----------
    components : by ascending volume.
    volumes : of each, mm^3.
    """

    components: tuple[Component, ...]
    volumes: np.ndarray

    def find(self, origin: Origin) -> Component:
        """The component that an origin names."""
        return next(
            c
            for c in self.components
            if (c.patient, c.number) == (origin.patient, origin.component)
        )


def read_shapes(folder: str | Path) -> LesionShapes:
    """Read the lesions of all masks (NIfTI, 0 and 1, MNI152 space) of a folder.

    Raises
    ------
    NoInputError : there are no masks.
    DataError : a mask cannot be read, or holds something else.
    """
    paths = finished_images(Path(folder))
    if not paths:
        raise NoInputError(
            'no lesion masks (*.nii.gz, *.nii) in this folder',
            advice='Give a folder of binary masks in MNI152 space.',
            path=folder,
        )
    short = [
        path.name.split('_')[0].removesuffix('.nii.gz').removesuffix('.nii') for path in paths
    ]
    if len(set(short)) < len(paths):  # not one mask of each patient
        short = [path.name.removesuffix('.nii.gz') for path in paths]
    components: list[Component] = []
    for path, patient in zip(paths, short, strict=True):
        mask = reorient(read(path, dtype=None))
        if not np.isin(np.unique(mask.data), (0, 1)).all():
            raise DataError(
                'the mask has other values than 0 and 1', advice='Binarise it.', path=path
            )
        components += components_of(mask, patient)
    components.sort(key=lambda c: (c.volume, c.patient, c.number))
    return LesionShapes(tuple(components), np.array([c.volume for c in components]))


def components_of(mask: Volume, patient: str) -> list[Component]:
    """The lesions of one mask, the largest first."""
    pieces, _ = ndimage.label(mask.data > 0, NEIGHBOURS)
    sizes = np.bincount(pieces.ravel())
    found = []
    for index, box in enumerate(ndimage.find_objects(pieces), start=1):
        volume = float(sizes[index] * mask.voxel_volume)
        if volume >= MIN_VOLUME:
            found.append((volume, index, box))
    found.sort(key=lambda item: (-item[0], item[1]))
    components = []
    for number, (volume, index, box) in enumerate(found, start=1):
        affine = shift_affine(mask.affine, start_of(box) - 3)
        crop = np.pad(pieces[box] == index, 3)
        components.append(Component(patient, number, crop, affine, volume))
    return components


def draw(
    shapes: LesionShapes,
    volume: float,
    appearance: LesionAppearance,
    around: Surroundings,
    random: np.random.Generator,
) -> PaintedLesion | None:
    """Draw a real lesion that can be scaled to ``volume`` mm^3, at the corresponding place.

    Returns
    -------
    The lesion as drawn; None if no real lesion has such a volume.
    """
    cut = None
    if volume > 100 and random.random() < CUT_SHARE:
        direction = random.standard_normal(3)
        cut = as_point(direction / np.linalg.norm(direction))
    whole = volume * float(np.linalg.det(around.to_template[:3, :3])) * (2 if cut else 1)
    first, last = np.searchsorted(shapes.volumes, whole / np.array(SCALES[::-1]) ** 3)
    if first == last:
        return None
    component = shapes.components[int(random.integers(first, last))]
    mirrored = bool(random.random() < 0.5)
    centre = component.centre * [-1 if mirrored else 1, 1, 1]
    centre = np.linalg.inv(around.to_template) @ [*centre, 1]
    centre = centre[:3] + random.normal(0, SHIFT, 3)
    origin = Origin(
        patient=component.patient,
        component=component.number,
        mirrored=mirrored,
        scale=float(np.cbrt(whole / component.volume)),
        turn=as_point(random.uniform(-TURN, TURN, 3)),
        cut=cut,
    )
    return PaintedLesion(
        index=0,
        place='',
        kind='white',
        form='real',
        centre=as_point(centre),
        volume_wanted=float(volume),
        volume_mm3=0.0,
        seed=draw_seed(random),
        appearance=appearance,
        origin=origin,
    )


def transplant(
    shapes: LesionShapes,
    lesion: PaintedLesion,
    origin: Origin,
    around: Surroundings,
    blocked: np.ndarray,
) -> LesionPatch | None:
    """The patch of a real lesion, cut to what it can fill.

    Parameters
    ----------
    lesion, origin : as drawn.
    blocked : where there is no room.

    Returns
    -------
    None if less than half of the lesion falls on tissue that can be diseased, free, and in one
    piece.
    """
    component = shapes.find(origin)
    linear = undo_turn(origin) @ around.to_template[:3, :3]
    growth = np.cbrt(1 / abs(np.linalg.det(linear)))
    half = (np.array(component.mask.shape) - 6) * component.spacing / 2
    reach = float(np.linalg.norm(half)) * growth + 5
    box = box_around(around, np.array(lesion.centre), reach)
    at = axes_of(around, box, np.array(lesion.centre))
    outline = growth * border_distance(component, origin, linear, at)
    inside = outline < 0
    kind = 'deep_grey' if inside.any() and around.nuclei[box][inside].mean() > 0.5 else 'white'
    room = (around.susceptible[kind][box] >= ROOM) & ~blocked[box]
    pieces, count = ndimage.label(room)
    shares = np.bincount(pieces[inside], minlength=2)
    if not count or shares[1:].max() < max(FITTING * inside.sum(), 1):
        return None
    room = pieces == 1 + int(shares[1:].argmax())
    voxels = max(round(lesion.volume_wanted / float(np.prod(around.spacing))), 1)
    share = around.susceptible[kind][box]
    width = steepness(lesion.appearance, lesion.volume_wanted)
    # What was cut off is made up for by growth of the rest, but not far from the real shape.
    level = border(outline, room, share, voxels=voxels, width=width)
    level = SWOLLEN if level is None else min(level, SWOLLEN)
    return finish(replace(lesion, kind=kind), outline - np.float32(level), box, room, around)


def undo_turn(origin: Origin) -> np.ndarray:
    """(3, 3) that undoes turn and scale of a transplanted lesion."""
    a, b, c = np.deg2rad(origin.turn)
    about_x = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
    about_y = [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
    about_z = [[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]
    rotation = np.array(about_z) @ np.array(about_y) @ np.array(about_x)
    return rotation.T / origin.scale


def border_distance(
    component: Component, origin: Origin, linear: np.ndarray, at: list[np.ndarray]
) -> np.ndarray:
    """Distance (mm in the template) from a component's border.

    Parameters
    ----------
    linear : (3, 3), mm of this head to mm of the template.
    at : mm from the lesion's centre along each axis of this head.
    """
    x, y, z = at
    offset = np.stack(np.meshgrid(x, y, z, indexing='ij'))
    offset = np.tensordot(linear, offset, axes=1)
    if origin.mirrored:
        offset[0] *= -1
    there = (
        offset + component.centre.reshape(3, 1, 1, 1) - component.affine[:3, 3].reshape(3, 1, 1, 1)
    )
    voxels = np.tensordot(np.linalg.inv(component.affine[:3, :3]), there, axes=1)
    spacing = component.spacing
    outside = ndimage.distance_transform_edt(~component.mask, sampling=spacing)
    inside = ndimage.distance_transform_edt(component.mask, sampling=spacing)
    signed = ndimage.gaussian_filter((outside - inside).astype(np.float32), 0.5)
    outline = ndimage.map_coordinates(signed, voxels, order=1, mode='nearest')
    if origin.cut:
        outline = np.maximum(outline, np.tensordot(origin.cut, offset, axes=1))
    return outline.astype(np.float32)
