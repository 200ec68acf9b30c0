"""Two visits side by side, and alternating at one place: a changed lesion, or the whole brain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ssl2_bids.files import write_text
from ssl2_bids.reports.figures.lesions import (
    VIEW,
    close_up_box,
    lesion_colour,
    on_one_grid,
    widest_place,
)
from ssl2_bids.reports.figures.panels import (
    Panel,
    grey_image,
    outline_path,
    sheet,
    slice_panel,
)
from ssl2_bids.reports.figures.scene import AXIAL, CORONAL, Box, Plane, Scene, cut, prepare
from ssl2_bids.reports.figures.session import FLICKER
from ssl2_bids.volume import Volume


def draw_change(
    images: tuple[Volume, Volume],
    lesions: tuple[Volume, Volume],
    index: int,
    path: Path,
    *,
    title: str,
    names: tuple[str, str],
    brain: Volume,
) -> None:
    """An axial and a coronal close-up of a lesion at two visits, and both alternating.

    Parameters
    ----------
    images : of the two visits, of one contrast where there is one, on one grid.
    lesions : instances of the two visits on that grid.
    index : of the lesion.
    names : how the visits are called in the figure.
    brain : brain mask on that grid.

    Raises
    ------
    ValueError : the volumes do not lie on one grid, or the lesion is at neither visit.
    """
    for other in (images[1], *lesions, brain):
        on_one_grid(images[0], other)
    voxels = np.argwhere((lesions[0].data == index) | (lesions[1].data == index))
    if not len(voxels):
        raise ValueError(f'there is no lesion {index} at these visits')
    scenes = prepare(images[0], brain), prepare(images[1], brain)
    point = widest_place(voxels)
    rows = []
    for plane in (AXIAL, CORONAL):
        box = close_up_box(voxels, point, scenes[0], plane)
        place = point[plane.axis]
        lines = [_outlines(own, index, plane, place, box) for own in lesions]
        rows.append(_row(scenes, plane, place, lines, names=names, box=box))
    note = f'Outlines: the lesion (bold) and others. {VIEW}'
    write_text(path, sheet(title, rows, note=note, style=FLICKER, columns=3))


def draw_visits(
    images: tuple[Volume, Volume],
    path: Path,
    *,
    title: str,
    names: tuple[str, str],
    brain: Volume,
) -> None:
    """An axial and a coronal slice through the middle of the brain, as :func:`draw_change`.

    Raises
    ------
    ValueError : the volumes do not lie on one grid.
    """
    for other in (images[1], brain):
        on_one_grid(images[0], other)
    scenes = prepare(images[0], brain), prepare(images[1], brain)
    middle = [(part.start + part.stop) // 2 for part in scenes[0].box]
    rows = [
        _row(scenes, plane, middle[plane.axis], ('', ''), names=names, box=scenes[0].box)
        for plane in (AXIAL, CORONAL)
    ]
    write_text(path, sheet(title, rows, note=VIEW, style=FLICKER, columns=3))


def _outlines(lesions: Volume, index: int, plane: Plane, place: int, box: Box) -> str:
    """Those of all lesions in a slice, one of them bold."""
    part = cut(lesions.data, plane, place, box)
    return ''.join(
        outline_path(part == n, lesion_colour(n), width=1.8 if n == index else 0.7)
        for n in np.unique(part[part > 0]).tolist()
    )


def _row(
    scenes: tuple[Scene, Scene],
    plane: Plane,
    place: int,
    lines: Sequence[str],
    *,
    names: tuple[str, str],
    box: Box,
) -> list[Panel]:
    panels, greys = [], []
    for scene, own, name in zip(scenes, lines, names, strict=True):
        panel = slice_panel(scene, plane, place, layers=own, box=box)
        panels.append(replace(panel, head=name if plane is AXIAL else ''))
        greys.append(grey_image(scene.grey(plane, place, box)))
    over = f'<g class="moving">{greys[1]}</g>'
    both = slice_panel(scenes[0], plane, place, layers=over, box=box)
    head = f'{names[0]} and {names[1]} alternating' if plane is AXIAL else ''
    return [*panels, replace(both, head=head)]
