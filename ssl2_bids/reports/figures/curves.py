"""Curves of a training as one SVG file that stands alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, COLUMNS = 360, 200, 2
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 26, 30
POINTS = 400  # of a curve; longer ones are averaged down
STYLE = (
    'text{font:11px sans-serif;fill:#444}.name{font-weight:bold;fill:#111}'
    '.axis{stroke:#ccc;fill:none}.curve{stroke:#1f5fa8;stroke-width:1.5;fill:none}'
    '.dot{fill:#1f5fa8}'
)


def curves_svg(curves: Mapping[str, Sequence[tuple[float, float]]], *, title: str) -> str:
    """A panel for each curve, its points (step, value) joined by lines.

    Parameters
    ----------
    curves : by name; those without a finite value are left out.
    title : for those who hear the page read.

    Returns
    -------
    The SVG document.
    """
    finite = {
        name: thin_out([(x, y) for x, y in points if math.isfinite(y)])
        for name, points in curves.items()
    }
    finite = {name: points for name, points in finite.items() if points}
    rows = math.ceil(len(finite) / COLUMNS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * COLUMNS} '
        f'{max(rows, 1) * HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<style>{STYLE}</style>',
    ]
    for number, (name, points) in enumerate(finite.items()):
        row, column = divmod(number, COLUMNS)
        parts.append(f'<g transform="translate({column * WIDTH} {row * HEIGHT})">')
        parts.append(panel(name, points) + '</g>')
    return '\n'.join([*parts, '</svg>', ''])


def thin_out(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most 400 points: means of neighbours."""
    size = max(1, math.ceil(len(points) / POINTS))
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def panel(name: str, points: Sequence[tuple[float, float]]) -> str:
    """One curve with its axes."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    if high == low:
        low, high = low - 0.5, high + 0.5

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - left) / (right - left) if right > left else 0.5
        up = (y - low) / (high - low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (
            HEIGHT - TOP - BOTTOM
        )

    floor = HEIGHT - BOTTOM
    parts = [
        f'<text class="name" x="{LEFT}" y="{TOP - 10}">{escape(name)}</text>',
        f'<path class="axis" d="M{LEFT} {TOP}V{floor}H{WIDTH - RIGHT}"/>',
    ]
    # a curve of one value has one number at each axis, beside its height
    for value in (low, high) if max(ys) > min(ys) else (ys[0],):
        height = at(left, value)[1] + 4
        text = f'{value:.3g}'
        parts.append(f'<text x="{LEFT - 6}" y="{height:.0f}" text-anchor="end">{text}</text>')
    ends = ((left, 'start'), (right, 'end')) if right > left else ((left, 'middle'),)
    for value, anchor in ends:
        place = at(value, low)[0]
        parts.append(
            f'<text x="{place:.0f}" y="{floor + 16}" text-anchor="{anchor}">{value:g}</text>'
        )
    placed = [at(x, y) for x, y in points]
    if len(placed) == 1:
        parts.append(
            f'<circle class="dot" cx="{placed[0][0]:.1f}" cy="{placed[0][1]:.1f}" r="3"/>'
        )
    else:
        line = ' '.join(f'{x:.1f},{y:.1f}' for x, y in placed)
        parts.append(f'<polyline class="curve" points="{line}"/>')
    return ''.join(parts)
