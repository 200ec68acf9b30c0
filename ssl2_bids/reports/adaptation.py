"""Adaptation on the page of the cohort: before and after, and the slices to label next."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from ssl2_bids.files import write_text
from ssl2_bids.metrics.score_names import SCORES
from ssl2_bids.reports.figures.charts import line_chart
from ssl2_bids.reports.figures.panels import outline_path, sheet, slice_panel
from ssl2_bids.reports.figures.scene import AXIAL, Scene, cut, prepare
from ssl2_bids.reports.pages import number
from ssl2_bids.settings import WHOLE
from ssl2_bids.volume import Volume, reorient

DOUBT_COLOUR = '#ffb000'
TWIN_HEIGHTS = (8.0, 32.0)  # mm in the template: grey nuclei; bodies of the lateral ventricles
DOUBTED = 0.15  # expected error from which a voxel is outlined; at most 0.5
WIDTH, HEIGHT, SIDE, TOP, BOTTOM = 300, 230, 60, 14, 34


@dataclass(frozen=True)
class Shown:
    """A slice to label next; all volumes on one grid, ``index`` along its RAS+ third axis.

    ``stored`` names axis and number of the slice in the file.
    """

    title: str
    image: Volume
    brain: Volume
    doubt: Volume
    index: int
    stored: str


def draw_suggestions(shown: Sequence[Shown], path: Path) -> None:
    """The slices, plain below and with an outline around what models are uncertain of above."""
    rows: list[list[Any]] = [[], []]
    for one in shown:
        scene = prepare(one.image, one.brain)
        uncertain = cut(reorient(one.doubt).data >= DOUBTED, AXIAL, one.index, scene.box)
        layers = outline_path(uncertain, DOUBT_COLOUR, label='uncertain')
        head = f'{one.title}, {one.stored}'
        rows[0].append(replace(slice_panel(scene, AXIAL, one.index, layers=layers), head=head))
        rows[1].append(slice_panel(scene, AXIAL, one.index))
    contrasts = ', '.join(dict.fromkeys(one.image.contrast for one in shown if one.image.contrast))
    note = f'{contrasts}. Outlines: where the models are uncertain or disagree.'
    write_text(path, sheet('Slices to label next, most informative first', rows, note=note))


@dataclass(frozen=True)
class Beside:
    """One contrast of a site and of its twin, of one person each.

    Attributes
    ----------
    site, twin : image; brain mask; (4, 4) from the template to both, RAS+ mm.
    """

    contrast: str
    site: tuple[Volume, Volume, np.ndarray]
    twin: tuple[Volume, Volume, np.ndarray]


def draw_twin(shown: Sequence[Beside], path: Path) -> None:
    """Slices of a site beside those of its twin, a row per contrast."""
    rows = []
    for one in shown:
        row = []
        both = (one.site, one.twin)
        scenes = _alike([prepare(image, brain) for image, brain, _ in both])
        people = [('site', scenes[0], one.site[2]), ('twin, simulated', scenes[1], one.twin[2])]
        for height in TWIN_HEIGHTS:
            for word, scene, from_template in people:
                to_voxels = np.linalg.inv(scene.background.affine) @ from_template
                middle = float((to_voxels @ [0, 0, height, 1])[AXIAL.axis])
                along = scene.box[AXIAL.axis]
                index = min(max(round(middle), along.start), along.stop - 1)
                head = f'{one.contrast}, {word}'
                row.append(replace(slice_panel(scene, AXIAL, index), head=head))
        rows.append(row)
    note = (
        'Preprocessed images of one participant and of one simulated person, equal heights. '
        'The median of both brains has the same grey.'
    )
    title = 'The site and its scanner twin'
    write_text(path, sheet(title, rows, note=note, columns=2 * len(TWIN_HEIGHTS)))


def _alike(scenes: Sequence[Scene]) -> list[Scene]:
    """The scenes with one grey value for the median of each brain: intensities have no unit.

    It is the darkest of their own ones, so that no lesion is cut off.
    """
    medians = [float(np.median(s.background.data[s.shown])) for s in scenes]
    greys = [(m - s.limits[0]) / np.ptp(s.limits) for m, s in zip(medians, scenes, strict=True)]
    if min(greys) <= 0:
        return list(scenes)
    return [
        replace(s, limits=(s.limits[0], s.limits[0] + (m - s.limits[0]) / min(greys)))
        for m, s in zip(medians, scenes, strict=True)
    ]


def section(facts: Mapping[str, Any], labels: Collection[str | None]) -> dict[str, Any]:
    """What the template shows of one adaptation.

    Parameters
    ----------
    facts : the content of ``models/<label>/report.json``.
    labels : of the models that the page has results of.
    """
    rows = facts['Performance']
    fitted = (facts.get('Recalibration') or {}).get('Recalibration', {})
    columns = [name for name in SCORES if any(_known(row, name) for row in rows)]
    enough = any(entry['P'] is not None for entry in facts['Comparison'].values())
    return {
        'facts': facts,
        'trainings': trainings(facts),
        'steps': (facts.get('Trainings') or [facts])[0]['Steps'],
        'has_results': facts['Label'] in labels,
        'first_masks': 'RefusedMove' in fitted,  # the threshold of the start model stays
        'rows': rows,
        'has_sessions': any(row.get('session_id') for row in rows),
        'columns': [(name, SCORES[name].title) for name in columns],
        'chart': before_and_after(rows),
        'ladder': rung_chart(facts.get('Rungs', [])),
        'curves': line_chart(
            {f'left out of {name}': points for name, points in facts.get('Curves', {}).items()},
            label='steps',
            side='Dice of participants left out',
        ),
        'comparison': [
            {'name': SCORES[name].title, **entry}
            for name, entry in facts['Comparison'].items()
            if entry['Before'] is not None
        ],
        'enough': enough,
        'annotate': facts['Annotate'],
    }


def trainings(facts: Mapping[str, Any]) -> list[str]:
    """How each kind of training was done, that of the last layers first.

    A report of an earlier version has the strategy of a training of all layers, even where there
    was none, and whether last layers were trained.
    """
    found = facts.get('Trainings')
    if found is None:
        last = [{'Layers': 'last', 'Strategy': 'supervised'}] if facts.get('LastLayers') else []
        rungs = [rung['Rung'] for rung in facts.get('Rungs', [])]
        alone = last and rungs and WHOLE not in rungs
        found = last if alone else [*last, {'Layers': 'all', 'Strategy': facts['Strategy']}]
    seen = 'labelled scans' + (' and people of the scanner twin' if facts.get('Twin') else '')
    return [
        f'of the last layers ({one["Strategy"]}, on {seen} alone)'
        if one['Layers'] == 'last'
        else f'of all layers ({one["Strategy"].replace("_", " ")})'
        for one in found
    ]


def rung_chart(rungs: Sequence[Mapping[str, Any]]) -> Markup:
    """Mean Dice of each rung, with one standard error of its gain; nothing without scores.

    Parameters
    ----------
    rungs : entries of ``Rungs`` in ``models/<label>/report.json``.
    """
    known = [
        (rung, dice, number(rung.get('StandardError')) or 0.0)
        for rung in rungs
        if (dice := number(rung.get('Dice'))) is not None
    ]
    if len(known) < 2:
        return Markup('')
    low = math.floor(20 * min(dice - error for _, dice, error in known)) / 20
    high = math.ceil(20 * max(dice + error for _, dice, error in known) + 1e-9) / 20
    low, floor, width = max(low, 0.0), HEIGHT - BOTTOM, 480

    def height(value: float) -> float:
        return floor - (floor - TOP) * (value - low) / (high - low)

    parts = []
    for mark in (low, (low + high) / 2, high):
        y = height(mark)
        parts.append(f'<path class="axis" d="M{SIDE - 14} {y:.1f}H{width - 10}"/>')
        parts.append(f'<text x="{SIDE - 20}" y="{y + 4:.1f}" text-anchor="end">{mark:.3g}</text>')
    step = (width - SIDE - 10) / len(known)
    for place, (rung, dice, error) in enumerate(known):
        x, name = SIDE + (place + 0.5) * step, escape(rung['Rung'])
        bottom, top = height(max(dice - error, 0)), height(dice + error)
        bar = f'M{x:.1f} {bottom:.1f}V{top:.1f}'
        weight = ' font-weight="bold"' if rung['Taken'] else ''
        parts.append(
            f'<g><title>{name}: {dice:.3f}</title>'
            + (f'<path class="line error" d="{bar}"/>' if error else '')
            + f'<circle class="point" cx="{x:.1f}" cy="{height(dice):.1f}" '
            f'r="{6 if rung["Taken"] else 4}"/></g>'
            f'<text x="{x:.1f}" y="{HEIGHT - 10}" text-anchor="middle"{weight}>{name}</text>'
        )
    # every word in it was escaped above
    return Markup(  # noqa: S704
        f'<svg viewBox="0 0 {width} {HEIGHT}" role="img" '
        f'aria-label="Mean Dice of {len(known)} rungs">{"".join(parts)}</svg>'
    )


def _known(row: Mapping[str, Any], name: str) -> bool:
    return number(row.get(f'{name}_before')) is not None


def before_and_after(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """A line from Dice before to Dice after for each case; nothing without a case."""
    pairs = [
        (before, after, f'{row["participant_id"]} {row.get("session_id") or ""}'.strip())
        for row in rows
        if (before := number(row.get('dice_before'))) is not None
        and (after := number(row.get('dice_after'))) is not None
    ]
    if not pairs:
        return Markup('')
    floor = HEIGHT - BOTTOM
    top = min(1.0, math.ceil(10 * max(max(a, b) for a, b, _ in pairs) + 1e-9) / 10)

    def height(value: float) -> float:
        return floor - (floor - TOP) * value / top

    left, right = SIDE, WIDTH - SIDE
    parts = []
    for mark in (0.0, top / 2, top):
        y = height(mark)
        parts.append(f'<path class="axis" d="M{left - 14} {y:.1f}H{right + 14}"/>')
        parts.append(f'<text x="{left - 20}" y="{y + 4:.1f}" text-anchor="end">{mark:g}</text>')
    for before, after, name in pairs:
        a, b = height(before), height(after)
        parts.append(
            f'<g><title>{escape(name)}: {before:.3f}, {after:.3f}</title>'
            f'<path class="axis" style="stroke-width:1.5" d="M{left} {a:.1f}L{right} {b:.1f}"/>'
            f'<circle class="point" cx="{left}" cy="{a:.1f}" r="4"/>'
            f'<circle class="point" cx="{right}" cy="{b:.1f}" r="4"/></g>'
        )
    for x, words in ((left, 'before'), (right, 'after')):
        parts.append(f'<text x="{x}" y="{HEIGHT - 10}" text-anchor="middle">{words}</text>')
    # every word in it was escaped above
    return Markup(  # noqa: S704
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Dice of {len(pairs)} cases before and after">{"".join(parts)}</svg>'
    )
