"""The figure of an evaluated case: the image, and on it what was drawn and what was predicted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ssl2_bids.files import write_text
from ssl2_bids.reports.figures.lesions import VIEW, on_one_grid
from ssl2_bids.reports.figures.panels import Panel, outline_path, sheet, slice_panel
from ssl2_bids.reports.figures.scene import AXIAL, PLANES, Plane, Scene, cut, prepare
from ssl2_bids.steps.lesions import label_instances
from ssl2_bids.volume import Volume, reorient

MANUAL, PREDICTED = '#ffb000', '#4dd8ff'  # as LESION_COLOURS: distinct with colour blindness, too
ANNOTATED = '#97a3af'


def draw_case(
    image: Volume | None,
    reference: Volume,
    prediction: Volume,
    path: Path,
    *,
    title: str,
    image_name: str = '',
    brain: Volume | None = None,
    annotated: Volume | None = None,
) -> None:
    """Three planes through the largest lesion, and the axial slice with most disagreement.

    Each is shown with the outlines of both masks, and below without: what a mask hides can be
    seen. The largest lesion is the manual one, or the predicted one where there is none.

    Parameters
    ----------
    image : the image below the outlines; None draws them on black.
    reference, prediction : masks on the same grid.
    path : the SVG file.
    image_name : how the image is called in the figure.
    brain : brain mask; crops the picture.
    annotated : annotated extent, if not everything; outlined, and disagreement counts there.

    Raises
    ------
    ValueError : the volumes do not lie on one grid.
    """
    background = image or prediction.with_data(np.zeros(prediction.shape, np.float32))
    for other in (reference, prediction, brain, annotated):
        if other is not None:
            on_one_grid(background, other)
    drawn, found = (reorient(mask).data > 0 for mask in (reference, prediction))
    scene = prepare(background, brain, also=drawn | found)
    extent = reorient(annotated).data > 0 if annotated is not None else np.ones(drawn.shape, bool)
    wrong = (drawn != found) & extent
    point = _middle_of_largest(drawn if drawn.any() else found, scene.background.voxel_volume)
    places = [(plane, point[plane.axis]) for plane in PLANES]
    heads = ['Largest lesion' if (drawn | found).any() else 'No lesion', '', '']
    if wrong.any():
        places.append((AXIAL, int(wrong.sum(axis=(0, 1)).argmax())))
        heads.append('Most disagreement')
    rows: list[list[Panel]] = [[], []]
    for (plane, index), head in zip(places, heads, strict=True):
        layers = _outlines(scene, plane, index, drawn=drawn, found=found, extent=extent)
        panel = slice_panel(scene, plane, index, layers=layers)
        rows[0].append(replace(panel, head=head))
        rows[1].append(slice_panel(scene, plane, index))
    note = f'{image_name}. {VIEW}' if image_name else VIEW
    write_text(path, sheet(title, rows, note=note, foot=_legend(extent), columns=4))


def _outlines(
    scene: Scene,
    plane: Plane,
    index: int,
    *,
    drawn: np.ndarray,
    found: np.ndarray,
    extent: np.ndarray,
) -> str:
    """The manual outline below, wider, so that it shows where both are the same."""
    outside = (
        ''
        if extent.all()
        else outline_path(cut(extent, plane, index, scene.box), ANNOTATED, width=0.8)
    )
    return (
        outside
        + outline_path(cut(drawn, plane, index, scene.box), MANUAL, label='manual', width=2.4)
        + outline_path(cut(found, plane, index, scene.box), PREDICTED, label='predicted', width=1)
    )


def _middle_of_largest(mask: np.ndarray, voxel_volume: float) -> list[int]:
    """The voxel of the largest lesion that is nearest to its centre; else that of the image."""
    largest = label_instances(mask, voxel_volume=voxel_volume, minimum_volume=0) == 1
    voxels = np.argwhere(largest)
    if not voxels.size:
        return [length // 2 for length in mask.shape]
    away = ((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1)
    return [int(n) for n in voxels[away.argmin()]]


def _legend(extent: np.ndarray) -> str:
    entries = [(MANUAL, 2.4, 'manual'), (PREDICTED, 1.0, 'predicted')]
    if not extent.all():
        entries.append((ANNOTATED, 0.8, 'annotated by a rater'))
    return ''.join(
        f'<path d="M{150 * n} 13h28" class="outline" stroke="{colour}" '
        f'style="stroke-width:{width + 0.6:.1f}"/>'
        f'<text x="{150 * n + 36}" y="17">{words}</text>'
        for n, (colour, width, words) in enumerate(entries)
    )
