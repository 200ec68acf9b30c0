"""Small multiples: for each measure of image quality a chart with a point for each image."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from ssl2_bids.contrasts import SUFFIXES
from ssl2_bids.metrics.quality_names import SHOWN
from ssl2_bids.reports.pages import number
from ssl2_bids.wording import counted

WIDTH, HEIGHT = 300, 190
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 12, 26
RADIUS = 3.5
NAMED = 6  # flagged points with their name beside them; all have it as a tooltip
MANY = 150  # points of a column; if there are more, their number at each height is drawn
LAYERS = 32  # heights at which they are counted
THINNEST = 3.0  # px of a layer: equal values are seen too
MARKED = 60  # flagged points of such a column that are drawn, from the highest and the lowest
LINE = 12  # px between two names
# the metric that a flag is about; where the flag names none, the point is not marked
METRIC_OF = {
    'noise': 'tissue_snr',
    'contrast-to-noise': 'tissue_cnr',
    'ghosts': 'ghosts',
    'coverage': 'coverage',
    'brain-mask': 'brain_mask_dice',
    'registration': 'registration_nmi',
    'distortion': 'distortion_high',
    'field': 't1_wm',
}
OF_CONTRAST = ('wm2gm', 'csf2wm')


@dataclass(frozen=True)
class Point:
    """A value of an image, with the name of its participant, and whether it is flagged."""

    value: float
    name: str
    flagged: bool = False


def quality_charts(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, Markup]]:
    """A chart for each measure that any image has: title, what it is, and the SVG.

    Parameters
    ----------
    rows : of the page, with ``images``; a session that has results of several models counts once.
    """
    images: dict[tuple[str, str], tuple[str, Mapping[str, Any]]] = {}
    for row in rows:
        name = ' '.join(str(row[key]) for key in ('participant_id', 'session_id') if row[key])
        for contrast in [c for c in SUFFIXES if c in row['images']]:
            images.setdefault((name, contrast), (name, row['images'][contrast]))
    charts = []
    for metric, about in SHOWN.items():
        points: dict[str, list[Point]] = {}
        for (_, contrast), (name, quality) in images.items():
            value = number(quality['Metrics'].get(metric))
            if value is not None:
                marked = metric in flagged_metrics(quality['Flags'])
                points.setdefault(contrast, []).append(Point(value, name, marked))
        if points:
            title = f'{about.title} ({about.units})' if about.units else about.title
            ordered = sorted(points, key=SUFFIXES.index)
            chart = strip_chart({contrast: points[contrast] for contrast in ordered}, title)
            charts.append((title, about.description, chart))
    return charts


def is_crowded(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a contrast has so many images that a chart cannot show each as a point."""
    images = {
        (row['participant_id'], row['session_id'], contrast)
        for row in rows
        for contrast in row['images']
    }
    counts = Counter(contrast for *_, contrast in images)
    return max(counts.values(), default=0) > MANY


def flagged_metrics(flags: Sequence[Mapping[str, Any]]) -> set[str]:
    """The metrics that the flags of an image are about."""
    codes = {str(flag['Code']) for flag in flags}
    found = {METRIC_OF[code] for code in codes if code in METRIC_OF}
    return found | (set(OF_CONTRAST) if 'contrast' in codes else set())


def strip_chart(points: Mapping[str, Sequence[Point]], title: str) -> Markup:
    """Values in one column for each group, on one scale; flagged ones are marked and named."""
    values = [point.value for group in points.values() for point in group]
    low, high = min(values), max(values)
    margin = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
    low, high = low - margin, high + margin
    floor = HEIGHT - BOTTOM
    step = (WIDTH - LEFT - RIGHT) / len(points)

    def up(value: float) -> float:
        return floor - (floor - TOP) * (value - low) / (high - low)

    digits = max(0, 1 - math.floor(math.log10(high - low)))
    parts = []
    for share in (0.0, 0.5, 1.0) if max(values) > min(values) else (0.0,):
        value = low + margin + share * (high - low - 2 * margin)
        parts.append(
            f'<path class="axis" d="M{LEFT} {up(value):.1f}H{WIDTH - RIGHT}"/>'
            f'<text x="{LEFT - 5}" y="{up(value) + 4:.1f}" text-anchor="end">'
            f'{value:.{digits}f}</text>'
        )
    free = NAMED
    for place, (group, listed) in enumerate(points.items()):
        middle = LEFT + (place + 0.5) * step
        parts.append(
            f'<text x="{middle:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(group)}</text>'
        )
        marks, names = _group(listed, middle, step, up, free)
        free -= len(names)
        parts += [*marks, *names]
    flagged = sum(point.flagged for group in points.values() for point in group)
    summary = f'{title}: {counted(len(values), "image")}, {flagged} flagged'
    # every word in it was escaped or made here
    return Markup(  # noqa: S704
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(summary)}">'
        f'{"".join(parts)}</svg>'
    )


def _group(
    listed: Sequence[Point], middle: float, step: float, up: Any, free: int
) -> tuple[list[str], list[str]]:
    """The circles of a column, and the names of flagged ones."""
    marks: list[str] = []
    names: list[str] = []
    if len(listed) > MANY:
        marks.append(_crowd([up(p.value) for p in listed if not p.flagged], middle, step))
        listed = _outermost([p for p in listed if p.flagged])
    spread = min(step / 2 - 6, 14.0) if len(listed) > 1 else 0.0
    last = float('-inf')
    ordered = sorted(enumerate(listed), key=lambda one: (one[1].flagged, up(one[1].value), one[0]))
    for order, point in ordered:
        # neighbours in the list lie side by side: golden ratio, nothing is drawn at random
        x = middle + spread * (2 * ((order * 0.618034) % 1) - 1)
        y = up(point.value)
        kind = 'point flagged' if point.flagged else 'point'
        marks.append(
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}">'
            f'<title>{escape(point.name)}: {point.value:.4g}</title></circle>'
        )
        if point.flagged and len(names) < free:
            last = max(y + 4, last + LINE)
            side = 'start' if middle < WIDTH / 2 else 'end'
            beside = x + 6 if side == 'start' else x - 6
            names.append(
                f'<text class="name" x="{beside:.1f}" y="{last:.1f}" text-anchor="{side}">'
                f'{escape(point.name)}</text>'
            )
    return marks, names


def _crowd(heights: Sequence[float], middle: float, step: float) -> str:
    """A shape as wide as many points lie at each height."""
    if not heights:
        return ''
    low, high = min(heights), max(heights)
    layer = max((high - low) / LAYERS, THINNEST)
    layers = int((high - low) / layer) + 1
    edges = (low + high) / 2 + layer * (np.arange(layers + 1) - layers / 2)
    counts, _ = np.histogram(heights, edges)
    widths = np.repeat((step / 2 - 6) * counts / counts.max(), 2)
    steps = np.repeat(edges, 2)[1:-1]
    right = [f'{middle + w:.1f} {y:.1f}' for w, y in zip(widths, steps, strict=True)]
    left = [f'{middle - w:.1f} {y:.1f}' for w, y in zip(widths, steps, strict=True)]
    return f'<path class="many" d="M{"L".join([*right, *reversed(left)])}Z"/>'


def _outermost(points: Sequence[Point]) -> list[Point]:
    """The highest and the lowest of many points."""
    ordered = sorted(points, key=lambda point: point.value)
    if len(ordered) <= MARKED:
        return ordered
    return [*ordered[: MARKED // 2], *ordered[-MARKED // 2 :]]
