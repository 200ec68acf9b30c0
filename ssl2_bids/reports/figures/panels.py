"""Slices of volumes as panels of an SVG sheet: true millimetres, small files, equal bytes.

A panel is the slice at its own resolution (JPEG in the SVG) stretched to millimetres, and
outlines that follow the voxel edges. Written as text, without a plotting library: nothing in the
file depends on fonts, on a date or on the version of a renderer.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from ssl2_bids.reports.figures.scene import Box, Plane, Scene

SHEET_WIDTH = 1200  # SVG units, CSS pixels at full size
GAP = 10
CAPTION = 20
HEAD = 24
MAX_IMAGE = 320  # pixels along a panel's longer side: twice what a page shows

STYLE = (
    'text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif;fill:#c9d1d9}'
    '.title{font-size:16px;font-weight:600;fill:#f0f3f6}.note,.caption{fill:#97a3af}'
    '.caption,.head{text-anchor:middle}.head{font-weight:600}.caption{font-size:12px}'
    '.side{font-size:11px;font-weight:600;fill:#8fd0ff;'
    'paint-order:stroke;stroke:#0d1117;stroke-width:3px}'
    '.outline{fill:none;stroke-width:1.3;stroke-linejoin:round;vector-effect:non-scaling-stroke}'
)


def outline(mask: np.ndarray) -> str:
    """Path data of the border of a two-dimensional mask along its pixel edges, in pixels."""
    padded = np.pad(mask.astype(bool), 1)
    inside = padded[1:-1, 1:-1]
    onward: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # Clockwise unit edges: (neighbour that must be outside, start of the edge, its direction).
    sides = (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (0, 1)),
        (padded[2:, 1:-1], (1, 1), (-1, 0)),
        (padded[1:-1, :-2], (0, 1), (0, -1)),
    )
    for neighbour, (dx, dy), step in sides:
        for row, column in np.argwhere(inside & ~neighbour).tolist():
            onward.setdefault((column + dx, row + dy), []).append(step)
    loops = []
    while onward:
        loops.append(_loop(onward))
    return ''.join(loops)


def _loop(onward: dict[tuple[int, int], list[tuple[int, int]]]) -> str:
    """Take one closed loop out of the edges; straight runs become one stroke."""
    start = position = next(iter(onward))
    strokes: list[list[int]] = []
    while position in onward:
        step = onward[position].pop()
        if not onward[position]:
            del onward[position]
        if strokes and (strokes[-1][0] == 0) == (step[0] == 0):
            strokes[-1] = [strokes[-1][0] + step[0], strokes[-1][1] + step[1]]
        else:
            strokes.append(list(step))
        position = (position[0] + step[0], position[1] + step[1])
        if position == start:
            break
    moves = ''.join(f'h{dx}' if dx else f'v{dy}' for dx, dy in strokes)
    return f'M{start[0]} {start[1]}{moves}z'


def outline_path(mask: np.ndarray, colour: str, *, label: str = '', width: float = 1.3) -> str:
    """An SVG path around a mask; nothing for an empty one. ``label`` shows on hovering."""
    if not mask.any():
        return ''
    title = f'<title>{escape(label)}</title>' if label else ''
    stroke = '' if width == 1.3 else f' style="stroke-width:{width:g}"'
    return f'<path class="outline" stroke="{colour}"{stroke} d="{outline(mask)}">{title}</path>'


def grey_image(image: np.ndarray) -> str:
    """An SVG image of 8-bit grey pixels, one unit per pixel, as JPEG."""
    from PIL import Image

    rows, columns = image.shape
    picture = Image.fromarray(np.ascontiguousarray(image))
    shrink = MAX_IMAGE / max(rows, columns)
    if shrink < 1:
        picture = picture.resize(
            (max(1, round(columns * shrink)), max(1, round(rows * shrink))), Image.Resampling.BOX
        )
    stream = io.BytesIO()
    picture.save(stream, 'JPEG', quality=86, optimize=True)
    return _image('image/jpeg', stream.getvalue(), columns=columns, rows=rows)


def colour_image(indices: np.ndarray, palette: np.ndarray) -> str:
    """An SVG image of palette indices (rows, columns); ``palette`` is (256, 4), RGBA 0 to 255."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(indices, np.uint8), mode='P')
    picture.putpalette(palette[:, :3].astype(np.uint8).tobytes())
    stream = io.BytesIO()
    picture.save(
        stream, 'PNG', optimize=True, transparency=palette[:, 3].astype(np.uint8).tobytes()
    )
    rows, columns = indices.shape
    return _image('image/png', stream.getvalue(), columns=columns, rows=rows)


def _image(kind: str, content: bytes, *, columns: int, rows: int) -> str:
    data = base64.b64encode(content).decode('ascii')
    return (
        f'<image width="{columns}" height="{rows}" preserveAspectRatio="none" '
        f'href="data:{kind};base64,{data}"/>'
    )


@dataclass(frozen=True)
class Panel:
    """One slice on a sheet.

    Attributes
    ----------
    layers : SVG in pixel units of the slice.
    pixels : columns and rows of the slice.
    size : width and height in mm.
    caption : words below.
    sides : letters at the left and right edge.
    head, colour : words above, and their colour.
    """

    layers: str
    pixels: tuple[int, int]
    size: tuple[float, float]
    caption: str = ''
    sides: tuple[str, str] = ('', '')
    head: str = ''
    colour: str = '#f0f3f6'


def slice_panel(
    scene: Scene, plane: Plane, index: int, *, layers: str = '', box: Box | None = None
) -> Panel:
    """One slice with what is drawn on it, its position and its sides."""
    image = scene.grey(plane, index, box)
    middle = [(part.start + part.stop - 1) / 2 for part in box or scene.box]
    middle[plane.axis] = index
    position = scene.coordinate(plane, middle)
    place = str(round(position)).replace('-', '−')
    return Panel(
        layers=grey_image(image) + layers,
        pixels=(image.shape[1], image.shape[0]),
        size=scene.size(plane, box),
        caption=f'{plane.name}, {"xyz"[plane.axis]} = {place} mm',
        sides=(plane.left, plane.right),
    )


def sheet(
    title: str,
    rows: Sequence[Sequence[Panel]],
    *,
    note: str = '',
    style: str = '',
    foot: str = '',
    columns: int = 6,
) -> str:
    """A whole SVG: panels in rows, all of a row at one scale, on a dark ground.

    Parameters
    ----------
    note : a line below the title.
    style : further CSS.
    foot : further SVG below the rows, at most 40 units high; its origin is its upper left corner.
    columns : how many columns fill the width of 1200 units.
    """
    step = (SHEET_WIDTH - GAP) / columns
    y: float = 58 if note else 38
    body = []
    for row in rows:
        if any(panel.head for panel in row):
            y += HEAD
        width = step - GAP
        scale = width / max(panel.size[0] for panel in row)
        height = max(panel.size[1] for panel in row) * scale
        for column, panel in enumerate(row):
            frame = (GAP + step * column, y, width, height)
            body.append(_place(panel, frame=frame, scale=scale))
        y += height + CAPTION + GAP
    if foot:
        body.append(f'<g transform="translate({GAP} {y:.1f})">{foot}</g>')
        y += 40
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{SHEET_WIDTH}" height="{y:.0f}" '
        f'viewBox="0 0 {SHEET_WIDTH} {y:.0f}" role="img" aria-label={quoteattr(title)}>\n'
        f'<style>{STYLE}{style}</style>\n'
        f'<rect width="100%" height="100%" fill="#0d1117"/>\n'
        f'<text class="title" x="{GAP}" y="26">{escape(title)}</text>\n'
        + (f'<text class="note" x="{GAP}" y="47">{escape(note)}</text>\n' if note else '')
        + '\n'.join(body)
        + '\n</svg>\n'
    )


def _place(panel: Panel, *, frame: tuple[float, float, float, float], scale: float) -> str:
    """A panel in the middle of its frame (x, y, width, height), with its words."""
    x, y, width, height = frame
    wide, high = panel.size[0] * scale, panel.size[1] * scale
    left, top = x + (width - wide) / 2, y + (height - high) / 2
    middle = x + width / 2
    columns, rows = panel.pixels
    parts = [
        f'<svg x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{high:.1f}" '
        f'viewBox="0 0 {columns} {rows}" preserveAspectRatio="none">{panel.layers}</svg>'
    ]
    for letter, place, anchor in (
        (panel.sides[0], left + 4, 'start'),
        (panel.sides[1], left + wide - 4, 'end'),
    ):
        if letter:
            parts.append(
                f'<text class="side" x="{place:.1f}" y="{top + 14:.1f}" '
                f'text-anchor="{anchor}">{letter}</text>'
            )
    if panel.caption:
        parts.append(
            f'<text class="caption" x="{middle:.1f}" y="{y + height + 15:.1f}">'
            f'{escape(panel.caption)}</text>'
        )
    if panel.head:
        parts.append(
            f'<text class="head" x="{middle:.1f}" y="{y - 8:.1f}" style="fill:{panel.colour}">'
            f'{escape(panel.head)}</text>'
        )
    return ''.join(parts)
