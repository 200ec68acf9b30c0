"""Small charts for pages: SVG to stand in the HTML itself, coloured by the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 440, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 14, 44
STEPS = (1, 2, 5)
MIN_BINS = 6
LABEL = 34  # px that the value of an edge needs


@dataclass(frozen=True)
class Bin:
    """A bar of a histogram: values above ``low`` up to and with ``high``."""

    low: float
    high: float
    amount: int


def histogram(values: Sequence[float]) -> list[Bin]:
    """Values in bins of a 1-2-5 scale; zeros have a bin of their own (low = high = 0).

    Lesion volumes and counts spread over orders of magnitude, hence no even bins.
    """
    zeros = sum(1 for value in values if value <= 0)
    positive = [value for value in values if value > 0]
    bins = [Bin(0, 0, zeros)] if zeros else []
    if not positive:
        return bins
    edges = _edges(min(positive), max(positive))
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        bins.append(Bin(low, high, sum(1 for v in positive if low < v <= high)))
    return bins


def _edges(smallest: float, largest: float) -> list[float]:
    """Edges of the 1-2-5 scale from below ``smallest`` to ``largest`` or above, at least seven."""
    power = math.floor(math.log10(smallest)) - 2
    scale = [
        float(f'{step}e{exponent}')
        for exponent in range(power, math.ceil(math.log10(largest)) + 3)
        for step in STEPS
    ]
    first = max(i for i, edge in enumerate(scale) if edge < smallest)
    last = min(i for i, edge in enumerate(scale) if edge >= largest)
    # Narrow ranges are widened on both sides in turn: few bars would be slabs.
    while last - first < MIN_BINS:
        first, last = (first - 1, last) if (last - first) % 2 else (first, last + 1)
    return scale[first : last + 1]


def bar_chart(values: Sequence[float], *, label: str, of: str = 'results') -> Markup:
    """A histogram on a 1-2-5 scale.

    Parameters
    ----------
    label : below the axis, with the unit.
    of : what is counted, for those who hear the page read.
    """
    bins = histogram(values)
    if not bins:
        return Markup('')
    top = max(b.amount for b in bins)
    step = (WIDTH - LEFT - RIGHT) / len(bins)
    every = math.ceil(LABEL / step)
    floor = HEIGHT - BOTTOM
    parts = []
    for place, part in enumerate(bins):
        height = (floor - TOP - 16) * part.amount / top
        x = LEFT + place * step
        name = '0' if part.high == 0 else f'{part.low:g} to {part.high:g}'
        parts.append(
            f'<rect class="bars" x="{x + 2:.1f}" y="{floor - height:.1f}" width="{step - 4:.1f}" '
            f'height="{height:.1f}" rx="2"><title>{name}: {part.amount}</title></rect>'
        )
        if part.amount:
            parts.append(_text(x + step / 2, floor - height - 5, str(part.amount), kind='amount'))
        if part.high == 0:
            parts.append(_text(x + step / 2, floor + 16, '0'))
        else:
            if (len(bins) - 1 - place) % every == 0:  # the last edge always
                last = place == len(bins) - 1
                edge, anchor = (WIDTH, 'end') if last else (x + step, 'middle')
                parts.append(_text(edge, floor + 16, f'{part.high:g}', anchor=anchor))
            if place == 0 or bins[place - 1].high == 0:
                parts.append(
                    _text(x + (4 if bins[0].high == 0 else 0), floor + 16, f'{part.low:g}')
                )
    summary = f'Histogram of {label}: {len(values)} {of}'
    return _chart(parts, label=label, side=f'number of {of}', summary=summary)


def scatter_chart(points: Sequence[tuple[float, float, str]], *, label: str, side: str) -> Markup:
    """Points of (x, y, name); y on a scale of square roots, which keeps zeros and spreads lows."""
    if len({x for x, _, _ in points}) < 2:
        return Markup('')
    low, high = min(p[0] for p in points), max(p[0] for p in points)
    top = max(max(p[1] for p in points), 1e-9)
    marks = [m for m in _edges(top / 60, top) if top / 60 < m <= top][::-2]
    floor, width = HEIGHT - BOTTOM, WIDTH - LEFT - RIGHT

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + 8 + (width - 16) * (x - low) / (high - low)
        return across, floor - (floor - TOP) * math.sqrt(max(y, 0) / top)

    parts = []
    for mark in [0.0, *marks]:
        y = at(low, mark)[1]
        parts.append(f'<path class="axis" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 6, y + 4, f'{mark:g}', anchor='end'))
    for value in (low, (low + high) / 2, high):
        parts.append(_text(at(value, 0)[0], floor + 16, f'{value:.3g}'))
    for x, y, name in points:
        across, up = at(x, y)
        parts.append(
            f'<circle class="point" cx="{across:.1f}" cy="{up:.1f}" r="4">'
            f'<title>{escape(name)}: {x:g}, {y:.3g}</title></circle>'
        )
    return _chart(parts, label=label, side=side, summary=f'{side} against {label}')


def line_chart(
    lines: Mapping[str, Sequence[tuple[float, float]]], *, label: str, side: str
) -> Markup:
    """Lines through points (x, y), y from 0 to the tenth above the highest, each with its name."""
    points = [point for line in lines.values() for point in line]
    if len({x for x, _ in points}) < 2:
        return Markup('')
    low, high = min(x for x, _ in points), max(x for x, _ in points)
    top = max(0.1, math.ceil(10 * max(y for _, y in points) - 1e-9) / 10)
    floor, width = HEIGHT - BOTTOM, WIDTH - LEFT - RIGHT

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + width * (x - low) / (high - low), floor - (floor - TOP) * y / top

    parts = []
    step = 0.2 if top > 0.2 else 0.1
    for mark in [step * n for n in range(round(top / step) + 1) if step * n <= top + 1e-9]:
        y = at(low, mark)[1]
        parts.append(f'<path class="axis" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 6, y + 4, f'{mark:.1f}', anchor='end'))
    for value, anchor in ((low, 'start'), ((low + high) / 2, 'middle'), (high, 'end')):
        parts.append(_text(at(value, 0)[0], floor + 16, f'{value:g}', anchor=anchor))
    for name, line in lines.items():
        placed = [at(x, y) for x, y in line]
        path = ' '.join(f'{x:.1f},{y:.1f}' for x, y in placed)
        listed = ', '.join(f'{y:.3f} at {x:g}' for x, y in line)
        dots = ''.join(
            f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in placed
        )
        parts.append(
            f'<g><title>{escape(name)}: {listed}</title><polyline class="line" points="{path}"/>'
            f'{dots}</g>'
        )
    return _chart(parts, label=label, side=side, summary=f'{side} against {label}')


def time_line(points: Sequence[tuple[float, float, str]], *, label: str, side: str) -> Markup:
    """A line through points (x, y, name) from zero upwards; each point has its name below it.

    Parameters
    ----------
    points : in order of x, such as years and a volume.
    """
    if len(points) < 2:
        return Markup('')
    first, last = points[0][0], points[-1][0]
    top = max(y for _, y, _ in points) * 1.1 or 1.0  # without any lesion
    step = next(edge for edge in _edges(top / 60, top) if top / edge <= 6)
    floor, width = HEIGHT - BOTTOM, WIDTH - LEFT - RIGHT - 60

    def at(x: float, y: float) -> tuple[float, float]:
        share = (x - first) / (last - first) if last > first else 0.0
        return LEFT + 30 + width * share, floor - (floor - TOP) * y / top

    parts = []
    for mark in [step * n for n in range(math.floor(top / step) + 1)]:
        y = at(first, mark)[1]
        parts.append(f'<path class="axis" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 6, y + 4, f'{mark:g}', anchor='end'))
    placed = [at(x, y) for x, y, _ in points]
    path = ' '.join(f'{x:.1f},{y:.1f}' for x, y in placed)
    parts.append(f'<polyline class="line" points="{path}"/>')
    free = -math.inf
    for (_, y, name), (across, up) in zip(points, placed, strict=True):
        parts.append(
            f'<circle class="point" cx="{across:.1f}" cy="{up:.1f}" r="4">'
            f'<title>{escape(name)}: {y:.3g}</title></circle>'
        )
        parts.append(_text(across, up - 8, f'{y:.3g}', kind='amount'))
        if across - free > 10 + 6 * len(name):  # names that would overlap are left out
            parts.append(_text(across, floor + 16, name))
            free = across
    return _chart(parts, label=label, side=side, summary=f'{side} against {label}')


def _text(x: float, y: float, words: str, *, anchor: str = 'middle', kind: str = '') -> str:
    style = f' class="{kind}"' if kind else ''
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(words)}</text>'


def _chart(parts: Sequence[str], *, label: str, side: str, summary: str) -> Markup:
    floor = HEIGHT - BOTTOM
    across = _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, label)
    turned = f'translate(13 {floor / 2 + 6:.0f}) rotate(-90)'
    up = f'<text transform="{turned}" text-anchor="middle">{escape(side)}</text>'
    # Every word in it was escaped above.
    return Markup(  # noqa: S704
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(summary)}">'
        f'<path class="axis" d="M{LEFT} {floor}H{WIDTH - RIGHT}"/>'
        f'{"".join(parts)}{across}{up}</svg>'
    )
