"""The report of a cohort: one HTML page with every participant, session and model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from markupsafe import Markup

from ssl2_bids.metrics.cohort import representatives
from ssl2_bids.reports.adaptation import section
from ssl2_bids.reports.figures.charts import bar_chart, scatter_chart
from ssl2_bids.reports.figures.strips import MANY, is_crowded, quality_charts
from ssl2_bids.reports.pages import number, write_page

MIN_RESULTS = 5  # results below which a spread has no meaning
TO_LABEL = 3  # participants named as a beginning for labels, of at least twice as many


class CohortRow(TypedDict, total=False):
    """One row of ``group_lesions.tsv``; numbers may be texts, ``n/a`` and None are missing.

    Regions come as ``<region>_count`` and ``<region>_volume_mm3``, covariates under their own
    name.
    """

    participant_id: str  # with sub-
    session_id: str | None  # with ses-
    model: str
    model_label: str  # empty for the default model
    reference: str  # BIDS suffix
    channels: str  # input channels of the model
    magnetic_field_strength: float | None  # tesla
    lesion_count: int
    volume_mm3: float
    lesion_load: float  # share of the brain volume, 0 to 1
    brain_volume_mm3: float
    images: dict[str, dict[str, Any]]  # Metrics and Flags of each image, by contrast
    flags: list[str]  # remarks on quality; if no row has any, outliers are looked for here
    report: str  # page of the participant, relative; <participant_id>.html if missing


class Failed(TypedDict, total=False):
    """A participant or session without a result."""

    name: str  # sub-X or sub-X_ses-Y
    subject: str  # label without sub-
    reason: str
    advice: str


def render(
    rows: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    version: str,
    failed: Sequence[Mapping[str, Any]] = (),
    left_out: Sequence[tuple[str, str]] = (),
    remarks: Mapping[str, Sequence[str]] | None = None,
    frequency_figure: str | None = None,
    covariates: Sequence[str] = ('age', 'sex', 'group'),
    dataset: str = '',
    command: str = '',
    adaptations: Sequence[Mapping[str, Any]] = (),
    labelled: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write the page of the cohort.

    Parameters
    ----------
    rows : :class:`CohortRow`, one per participant, session and model, in the order of the page.
    path : the HTML file; pages and figures are linked relative to it.
    version : of the software.
    failed : :class:`Failed`, those without a result.
    left_out : names of sessions with a result that does not count, beside one that does, and why.
    remarks : by label of the model, settings that differ among its results, and what it lacks.
    frequency_figure : SVG of :func:`ssl2_bids.reports.figures.session.draw_frequency`, relative.
    covariates : columns shown beside the results, where any row has them.
    dataset : name of the dataset.
    command : the command line.
    adaptations : the ``report.json`` of each model that was adapted, or refused.
    labelled : by folder of manual masks, the participants that it has some of, without ``sub-``.
    """
    shown = [_complete(row) for row in rows]
    models = list(dict.fromkeys(row['model'] for row in shown))
    labels = {row['model_label'] for row in shown}
    write_page(
        path,
        'group.html',
        version=version,
        dataset=dataset,
        rows=shown,
        failed=[_lost(entry, path.parent) for entry in failed],
        left_out=left_out,
        cohorts=[_cohort(shown, model, remarks or {}) for model in models],
        flagged=[row for row in shown if row['flags']],
        participants=len({row['participant_id'] for row in shown}),
        regions=region_names(shown),
        quality=quality_charts(shown),
        crowded=MANY if is_crowded(shown) else None,
        command=command,
        adaptations=[section(facts, labels) for facts in adaptations],
        to_label=[] if adaptations else _to_label(shown, labelled or {}),
        labelled={} if adaptations else labelled or {},
        covariates=[c for c in covariates if any(_known(row.get(c)) for row in shown)],
        frequency_figure=frequency_figure,
        columns={
            key: any(_known(row[key]) for row in shown)
            for key in ('session_id', 'reference', 'channels', 'magnetic_field_strength')
        },
    )


def region_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the regions that rows have columns for, in the order of their first appearance."""
    suffix = '_volume_mm3'
    names = (key.removesuffix(suffix) for row in rows for key in row if key.endswith(suffix))
    return [name for name in dict.fromkeys(names) if name != 'brain']


def _complete(row: Mapping[str, Any]) -> dict[str, Any]:
    full = dict.fromkeys(CohortRow.__annotations__) | dict(row)
    full['flags'] = [str(flag) for flag in full['flags'] or ()]
    full['images'] = full['images'] or {}
    full['report'] = full['report'] or f'{full["participant_id"]}.html'
    full['model'] = full['model'] or ''
    if full['model_label']:
        full['model'] = f'{full["model"]} ({full["model_label"]})'
    return full


def _lost(entry: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A participant without a result, with the link of its report if there is one."""
    full = dict.fromkeys(Failed.__annotations__) | dict(entry)
    page = f'sub-{full["subject"]}.html'
    return full | {'report': page if (folder / page).is_file() else None}


def _to_label(
    rows: Sequence[dict[str, Any]], labelled: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """Results of people with few, some and many lesions, to begin labelling with.

    None of those whose masks were drawn, and no one where these are three or more.
    """
    first = {row['participant_id']: row for row in reversed(rows) if number(row['volume_mm3'])}
    drawn = {f'sub-{name}' for names in labelled.values() for name in names} & first.keys()
    if len(drawn) >= TO_LABEL or len(first) < 2 * TO_LABEL:
        return []
    for name in drawn:
        del first[name]
    volumes = {name: float(number(row['volume_mm3']) or 0) for name, row in first.items()}
    return [first[name] for name in representatives(volumes, TO_LABEL)]


def _known(value: Any) -> bool:
    return value is not None and value not in ('', 'n/a')


def _cohort(
    rows: Sequence[dict[str, Any]], model: str, remarks: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Medians, charts and remarks of the results of one model."""
    mine = [row for row in rows if row['model'] == model]
    volumes, counts = _numbers(mine, 'volume_mm3'), _numbers(mine, 'lesion_count')
    charts = [('Lesion volume by age', _by_age(mine))]
    if len(volumes) >= MIN_RESULTS:
        charts = [
            ('Lesion volume', bar_chart([v / 1000 for v in volumes], label='lesion volume (mL)')),
            ('Lesion count', bar_chart(counts, label='lesions')),
            *charts,
        ]
    return {
        'model': model,
        'remarks': remarks.get(mine[0]['model_label'] or '', ()),
        'results': len(mine),
        'volume': _quartiles(volumes),
        'count': _quartiles(counts),
        'load': _quartiles(_numbers(mine, 'lesion_load')),
        'brain': _quartiles(_numbers(mine, 'brain_volume_mm3')),
        'lesion_free': sum(1 for value in counts if value == 0),
        'charts': [(title, chart) for title, chart in charts if chart],
        'regions': [_region(mine, name) for name in region_names(mine)],
        'groups': _groups(mine),
    }


def _numbers(rows: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    values = [number(row.get(key)) for row in rows]
    return [value for value in values if value is not None]


def _quartiles(values: Sequence[float]) -> dict[str, float | None]:
    """Lower quartile, median and upper quartile; None without values."""
    if not values:
        return {'low': None, 'median': None, 'high': None}
    low, median, high = (float(v) for v in np.percentile(values, (25, 50, 75)))
    return {'low': low, 'median': median, 'high': high}


def _region(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    counts = _numbers(rows, f'{name}_count')
    return {
        'name': name,
        'share': sum(1 for value in counts if value > 0) / len(counts) if counts else None,
        'count': _quartiles(counts),
        'volume': _quartiles(_numbers(rows, f'{name}_volume_mm3')),
    }


def _groups(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians by the covariate ``group``, where it has more than one value."""
    names = sorted({str(row['group']) for row in rows if _known(row.get('group'))})
    if len(names) < 2:
        return []
    members = {name: [r for r in rows if str(r.get('group')) == name] for name in names}
    return [
        {
            'name': name,
            'results': len(mine),
            'volume': _quartiles(_numbers(mine, 'volume_mm3')),
            'count': _quartiles(_numbers(mine, 'lesion_count')),
        }
        for name, mine in members.items()
    ]


def _by_age(rows: Sequence[dict[str, Any]]) -> Markup:
    points = [
        (age, volume / 1000, ' '.join(filter(_known, (row['participant_id'], row['session_id']))))
        for row in rows
        if (age := number(row.get('age'))) is not None
        and (volume := number(row['volume_mm3'])) is not None
    ]
    if len(points) < MIN_RESULTS:
        return Markup('')
    return scatter_chart(points, label='age (years)', side='lesion volume (mL)')
