"""The figures of the reports: volumes in, one SVG file each out; equal volumes, equal bytes.

Every figure is in neurological view (the left of the picture is the left of the head), which is
written on it, at true proportions, whatever the voxels are.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from ssl2_bids.files import write_text
from ssl2_bids.reports.figures.lesions import (
    VIEW,
    draw_lesions,
    draw_mosaic,
    lesion_colour,
    on_one_grid,
)
from ssl2_bids.reports.figures.panels import (
    Panel,
    colour_image,
    grey_image,
    outline_path,
    sheet,
    slice_panel,
)
from ssl2_bids.reports.figures.scene import AXIAL, PLANES, Scene, cut, prepare, window
from ssl2_bids.volume import Volume, reorient

__all__ = [
    'draw_brain_mask',
    'draw_distortion',
    'draw_frequency',
    'draw_lesions',
    'draw_mosaic',
    'draw_registration',
    'lesion_colour',
    'window',
]

BRAIN_COLOUR = '#4dd8ff'
FULL_SCALE = 2.0  # mm of distortion
FLICKER = (
    '.moving{animation:flicker 2.4s step-end infinite}'
    '@keyframes flicker{0%{visibility:hidden}50%{visibility:visible}}'
    'svg:hover .moving{animation-play-state:paused}'
    '@media print{.moving{animation:none}}'
    '@media (prefers-reduced-motion:reduce){.moving{animation:none}}'
)


def draw_brain_mask(background: Volume, mask: Volume, path: Path, *, title: str) -> None:
    """The outline of the brain mask on slices through the whole head, in the three planes.

    The head is that of the image: what a wrong mask leaves out is shown too.
    """
    on_one_grid(background, mask)
    scene = prepare(background, mask, whole_head=True)
    brain = reorient(mask).data > 0
    rows = []
    for plane in PLANES:
        row = []
        for index in scene.places(plane, 6):
            line = outline_path(cut(brain, plane, index, scene.box), BRAIN_COLOUR)
            row.append(slice_panel(scene, plane, index, layers=line))
        rows.append(row)
    note = VIEW if brain.any() else f'The brain mask is empty. {VIEW}'
    write_text(path, sheet(title, rows, note=note))


def draw_registration(
    fixed: Volume,
    moving: Volume,
    mask: Volume,
    path: Path,
    *,
    title: str,
    fixed_name: str,
    moving_name: str,
) -> None:
    """Two aligned images that alternate in place, below the brain outline of the fixed one.

    Parameters
    ----------
    moving : resampled to the grid of ``fixed``.
    mask : brain of ``fixed``.
    fixed_name, moving_name : how the images are called in the figure.
    """
    on_one_grid(fixed, mask)
    on_one_grid(fixed, moving)
    below, above = prepare(fixed, mask), prepare(moving, mask)
    brain = reorient(mask).data > 0
    rows = []
    for plane in PLANES:
        row = []
        for index in below.places(plane, 5):
            line = outline_path(cut(brain, plane, index, below.box), BRAIN_COLOUR, width=0.8)
            over = grey_image(above.grey(plane, index, below.box))
            layers = f'<g class="moving">{over}</g>{line}'
            row.append(slice_panel(below, plane, index, layers=layers))
        rows.append(row)
    width = 20 + 8.5 * max(len(fixed_name), len(moving_name))  # a bold letter is 8.5 units
    names = (
        '<text class="note" x="0" y="17">Now shown</text>'
        f'{_tag(fixed_name, "#7ee787", width)}'
        f'<g class="moving">{_tag(moving_name, "#ffb000", width)}</g>'
    )
    note = f'The images alternate; hold the pointer on them to stop. Line: brain. {VIEW}'
    write_text(path, sheet(title, rows, note=note, style=FLICKER, foot=names, columns=5))


def draw_frequency(
    frequency: Volume, template: Volume, path: Path, *, title: str, slices: int = 18
) -> None:
    """How many participants have a lesion where, in colour on a template.

    Parameters
    ----------
    frequency : share of participants, 0 to 1, on the grid of ``template``.
    """
    on_one_grid(frequency, template)
    scene = prepare(template)
    share = np.nan_to_num(reorient(frequency).data.astype(np.float32))
    top = float(share.max())
    palette = _heat()
    panels = _heated(scene, _levels(share, top), palette, slices)
    rows = [panels[i : i + 6] for i in range(0, len(panels), 6)]
    ends = 'Participants with a lesion: above 0', f'{top * 100:.3g} %'
    foot = _colour_bar(palette, *ends) if top > 0 else ''
    note = VIEW if top > 0 else f'No lesion in any participant. {VIEW}'
    write_text(path, sheet(title, rows, note=note, foot=foot))


def draw_distortion(
    length: Volume, image: Volume, mask: Volume, path: Path, *, title: str
) -> None:
    """How far an image is displaced against another after their registration, in colour.

    Parameters
    ----------
    length : mm, on the grid of ``image``; the scale ends at 2 mm, or at the largest if above.
    mask : brain, on that grid.
    """
    on_one_grid(length, image)
    on_one_grid(mask, image)
    scene = prepare(image, mask)
    brain = reorient(mask).data > 0
    shift = np.where(brain, np.nan_to_num(reorient(length).data.astype(np.float32)), 0)
    top = max(float(shift.max()), FULL_SCALE)
    palette = _heat(opacity=120)
    panels = _heated(scene, _levels(shift, top), palette, 6)
    foot = _colour_bar(palette, 'Displacement: above 0', f'{top:.3g} mm')
    note = VIEW if shift.any() else f'No displacement was measured. {VIEW}'
    write_text(path, sheet(title, [panels], note=note, foot=foot))


def _levels(values: np.ndarray, top: float) -> np.ndarray:
    """Indices into the palette: 0 for 0, then 1 to 255 up to ``top``."""
    if top <= 0:
        return np.zeros(values.shape, np.uint8)
    steps = np.clip(np.ceil(values / top * 255), 1, 255)
    return np.where(values > 0, steps, 0).astype(np.uint8)


def _heated(scene: Scene, levels: np.ndarray, palette: np.ndarray, slices: int) -> list[Panel]:
    """Axial slices with colours over them."""
    panels = []
    for index in scene.places(AXIAL, slices):
        heat = cut(levels, AXIAL, index, scene.box)
        layers = colour_image(heat, palette) if heat.any() else ''
        panels.append(slice_panel(scene, AXIAL, index, layers=layers))
    return panels


def _tag(name: str, colour: str, width: float) -> str:
    return (
        f'<rect x="80" y="0" width="{width:.0f}" height="24" rx="4" fill="{colour}"/>'
        f'<text x="90" y="17" style="fill:#0d1117;font-weight:600">{escape(name)}</text>'
    )


def _heat(opacity: int = 225) -> np.ndarray:
    """Palette (256, 4): nothing, then dark red over orange to pale yellow."""
    stops = np.array([0, 85, 170, 255])
    colours = np.array([(150, 20, 60), (235, 70, 40), (255, 170, 40), (255, 250, 190)])
    palette = np.empty((256, 4))
    for channel in range(3):
        palette[:, channel] = np.interp(np.arange(256), stops, colours[:, channel])
    palette[:, 3] = opacity
    palette[0] = 0
    return palette.round()


def _colour_bar(palette: np.ndarray, start: str, end: str) -> str:
    stops = ''
    for place, level in ((0, 1), (33, 85), (67, 170), (100, 255)):
        red, green, blue = palette[level, :3].astype(int)
        stops += f'<stop offset="{place}%" stop-color="rgb({red},{green},{blue})"/>'
    return (
        f'<defs><linearGradient id="heat">{stops}</linearGradient></defs>'
        f'<text class="note" x="0" y="16">{escape(start)}</text>'
        '<rect x="270" y="4" width="220" height="14" rx="3" fill="url(#heat)"/>'
        f'<text class="note" x="500" y="16">{escape(end)}</text>'
    )
