"""One changed lesion at two visits: side by side, and alternating at one place."""

from __future__ import annotations

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
from ssl2_bids.reports.figures.scene import AXIAL, CORONAL, Plane, Scene, cut, prepare
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
    rows = [
        _row(scenes, lesions, index, plane, names=names, voxels=voxels, point=point)
        for plane in (AXIAL, CORONAL)
    ]
    note = f'Outlines: the lesion (bold) and others. {VIEW}'
    write_text(path, sheet(title, rows, note=note, style=FLICKER, columns=3))


def _row(
    scenes: tuple[Scene, Scene],
    lesions: tuple[Volume, Volume],
    index: int,
    plane: Plane,
    *,
    names: tuple[str, str],
    voxels: np.ndarray,
    point: list[int],
) -> list[Panel]:
    box = close_up_box(voxels, point, scenes[0], plane)
    place = point[plane.axis]
    panels, greys = [], []
    for scene, own, name in zip(scenes, lesions, names, strict=True):
        part = cut(own.data, plane, place, box)
        lines = ''.join(
            outline_path(part == n, lesion_colour(n), width=1.8 if n == index else 0.7)
            for n in np.unique(part[part > 0]).tolist()
        )
        panel = slice_panel(scene, plane, place, layers=lines, box=box)
        head = name if plane is AXIAL else ''
        panels.append(replace(panel, head=head))
        greys.append(grey_image(scene.grey(plane, place, box)))
    over = f'<g class="moving">{greys[1]}</g>'
    both = slice_panel(scenes[0], plane, place, layers=over, box=box)
    head = f'{names[0]} and {names[1]} alternating' if plane is AXIAL else ''
    return [*panels, replace(both, head=head)]
