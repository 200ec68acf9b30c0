"""The figures of lesions: an overview in axial slices, and views of the largest ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ssl2_bids.files import write_text
from ssl2_bids.reports.figures.panels import Panel, outline_path, sheet, slice_panel
from ssl2_bids.reports.figures.scene import AXIAL, PLANES, Box, Plane, Scene, cut, prepare
from ssl2_bids.volume import Volume, reorient
from ssl2_bids.voxel_grid import same_grid
from ssl2_bids.wording import counted

# Light, colour-blind safe on grey (after Okabe and Ito), no grey, no deep blue.
LESION_COLOURS = (
    '#ffb000', '#4dd8ff', '#ff7eb6', '#7ee787', '#ff8c5a', '#b9a4ff', '#f4e04d', '#2fd6b5',
)  # fmt: skip
VIEW = 'The left of the image is the left of the head. Positions in millimetres (RAS+).'
CLOSE_UP, MAX_CLOSE_UP = 44.0, 70.0  # mm, edge of the close-up


@dataclass(frozen=True)
class Instances:
    """Lesions on the grid of a scene.

    Attributes
    ----------
    data : RAS+ array, 0 is none.
    sizes : volume in mm^3 of lesion i at place i - 1; 0 where there is none.
    """

    data: np.ndarray
    sizes: np.ndarray

    @property
    def found(self) -> int:
        """How many lesions there are."""
        return int((self.sizes > 0).sum())


def draw_lesions(
    background: Volume,
    lesions: Volume,
    path: Path,
    *,
    title: str,
    largest: int = 6,
    brain: Volume | None = None,
) -> None:
    """Three planes and a close-up through each of the largest lesions, outlined.

    Parameters
    ----------
    background : the image below the outlines.
    lesions : instances on the same grid, 0 is none.
    path : the SVG file.
    largest : how many lesions get a column.
    brain : brain mask on the same grid; crops the picture and darkens what is far outside.

    Raises
    ------
    ValueError : the volumes do not lie on one grid.
    """
    on_one_grid(background, lesions)
    instances = _instances(lesions)
    scene = prepare(background, brain, also=instances.data > 0)
    sizes = instances.sizes
    order = [int(i) + 1 for i in np.argsort(-sizes, kind='stable') if sizes[i] > 0][:largest]
    if not order:
        rows = [[slice_panel(scene, p, i) for i in scene.places(p, 6)] for p in PLANES]
        write_text(path, sheet(title, rows, note=f'No lesion was found. {VIEW}'))
        return
    note = f'The {len(order)} largest of {instances.found} lesions'
    if len(order) == instances.found:
        note = f'All {instances.found} lesions' if instances.found > 1 else 'The only lesion'
    views = [_lesion_views(scene, instances, index) for index in order]
    # Few lesions lie one below the other: their panels then fill the width.
    rows = views if len(views) < 4 else [list(row) for row in zip(*views, strict=True)]
    write_text(path, sheet(title, rows, note=f'{note}. {VIEW}', columns=max(4, len(views))))


def draw_mosaic(
    background: Volume,
    lesions: Volume,
    path: Path,
    *,
    title: str,
    brain: Volume | None = None,
    slices: int = 18,
) -> None:
    """Axial slices across the brain with all lesions outlined; parameters as in draw_lesions."""
    on_one_grid(background, lesions)
    instances = _instances(lesions)
    scene = prepare(background, brain, also=instances.data > 0)
    panels, seen = [], {0}
    for index in scene.places(AXIAL, slices):
        part = cut(instances.data, AXIAL, index, scene.box)
        seen |= set(np.unique(part).tolist())
        panels.append(slice_panel(scene, AXIAL, index, layers=_outlines(part, instances)))
    note = counted(instances.found, 'lesion')
    missed = instances.found - len(seen) + 1
    if missed:
        note += f', {missed} of them between these slices'
    if not instances.found:
        note = 'No lesion was found'
    rows = [panels[i : i + 6] for i in range(0, len(panels), 6)]
    write_text(path, sheet(title, rows, note=f'{note}. {VIEW}'))


def on_one_grid(a: Volume, b: Volume) -> None:
    """Stop where two volumes of a figure do not share a grid."""
    if not same_grid(a, b):
        raise ValueError('a figure needs its volumes on one grid')


def _instances(lesions: Volume) -> Instances:
    data = reorient(lesions).data.astype(np.int32)
    return Instances(data, np.bincount(data.ravel())[1:] * lesions.voxel_volume)


def lesion_colour(index: int) -> str:
    """The colour in which a lesion is outlined, here and wherever it is named."""
    return LESION_COLOURS[(index - 1) % len(LESION_COLOURS)]


def _name(instances: Instances, index: int) -> str:
    volume = float(instances.sizes[index - 1])
    size = f'{volume / 1000:.2f} mL' if volume >= 100 else f'{volume:.0f} mm³'
    return f'Lesion {index}: {size}'


def _outlines(part: np.ndarray, instances: Instances, *, chosen: int = 0) -> str:
    """Outlines of all lesions of a slice, each in its own colour, the chosen one bolder."""
    return ''.join(
        outline_path(
            part == index,
            lesion_colour(index),
            label=_name(instances, index),
            width=1.6 if index == chosen else 1.0,
        )
        for index in np.unique(part[part > 0]).tolist()
    )


def _lesion_views(scene: Scene, instances: Instances, index: int) -> list[Panel]:
    """Axial, coronal, sagittal and close-up panels through the widest place of one lesion."""
    voxels = np.argwhere(instances.data == index)
    point = widest_place(voxels)
    panels = []
    for plane in PLANES:
        place = point[plane.axis]
        part = cut(instances.data, plane, place, scene.box)
        layers = _outlines(part, instances, chosen=index) + _marks(scene, plane, point)
        panels.append(slice_panel(scene, plane, place, layers=layers))
    head = _name(instances, index)
    panels[0] = replace(panels[0], head=head, colour=lesion_colour(index))
    box = close_up_box(voxels, point, scene)
    layers = _outlines(cut(instances.data, AXIAL, point[2], box), instances)
    close = slice_panel(scene, AXIAL, point[2], layers=layers, box=box)
    width, height = close.size
    wide = panels[0].size[0]  # drawn as wide as a whole brain
    caption = f'close-up, {width:.0f} mm wide'
    return [*panels, replace(close, caption=caption, size=(wide, wide * height / width))]


def widest_place(voxels: np.ndarray) -> list[int]:
    """A voxel of a lesion where its axial section is largest and, there, longest."""
    k = int(np.bincount(voxels[:, 2]).argmax())
    section = voxels[voxels[:, 2] == k]
    j = int(np.bincount(section[:, 1]).argmax())
    line = np.sort(section[section[:, 1] == j, 0])
    return [int(line[line.size // 2]), j, k]


def close_up_box(voxels: np.ndarray, point: list[int], scene: Scene, plane: Plane = AXIAL) -> Box:
    """A window of a plane, square in mm, around a lesion or, of a large one, around ``point``."""
    spacing = scene.background.spacing
    first, last = voxels.min(axis=0), voxels.max(axis=0) + 1
    across = list(plane.across)
    extent = float(((last - first) * spacing)[across].max()) + 12
    edge = min(max(CLOSE_UP, extent), MAX_CLOSE_UP)
    middle = (first + last) / 2 if extent <= edge else np.array(point) + 0.5
    box = list(scene.box)
    for axis in across:
        available = scene.background.shape[axis]
        length = min(available, round(edge / spacing[axis]))
        start = min(max(0, round(middle[axis] - length / 2)), available - length)
        box[axis] = slice(start, start + length)
    return box[0], box[1], box[2]


def _marks(scene: Scene, plane: Plane, point: list[int]) -> str:
    """Short strokes at the upper and right edge that point to the lesion."""
    (across, up), box = plane.across, scene.box
    columns, rows = (box[axis].stop - box[axis].start for axis in (across, up))
    x = point[across] - box[across].start + 0.5
    y = rows - (point[up] - box[up].start + 0.5)
    return (
        f'<path class="outline" stroke="#c9d1d9" d="M{x:.1f} 0v{rows * 0.045:.1f}'
        f'M{columns} {y:.1f}h{-columns * 0.045:.1f}"/>'
    )
