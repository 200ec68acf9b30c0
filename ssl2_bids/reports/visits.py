"""The section of a participant's page on the changes between its sessions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypedDict

from markupsafe import Markup

from ssl2_bids.reports.citations import render_html
from ssl2_bids.reports.figures.charts import time_line
from ssl2_bids.reports.figures.session import lesion_colour
from ssl2_bids.reports.pages import count, decimals

A_DAY = 1 / 365.25  # in years


class VisitsSummary(TypedDict, total=False):
    """What ``--longitudinal`` left for the page, as JSON."""

    subject: str
    model: str  # label of the model, empty for the default one
    status: str  # done, doubtful (changes are withheld), failed
    configurations: dict[str, str]  # ConfigurationHash of each session that was compared
    visits: list[dict[str, Any]]  # session, time, years, lesion_count, volume_mm3
    pairs: list[dict[str, Any]]  # of neighbouring sessions: years, lesions by state, ...
    lesions: list[dict[str, Any]]  # that changed, and the place of their figure
    misfits: list[str]  # sessions that do not fit after the registration
    registration: dict[str, float]
    warnings: list[str]
    methods: list[str]
    figures: list[dict[str, Any]]
    viewer: dict[str, Any] | None  # see participant.Viewer
    outputs: list[str]
    error: dict[str, str] | None


def visits_section(
    summary: VisitsSummary,
    place: int,
    current: dict[tuple[str, str], str],
    *,
    several: bool,
    default: str = 'default',
) -> dict[str, Any]:
    """A summary with what its template does not compute itself.

    Parameters
    ----------
    place : of the section on the page, from 1.
    current : ``ConfigurationHash`` of the sessions' results as they are now, by session and
        label of the model.
    several : whether there are sections of other models.
    default : what the model without a label is called.
    """
    section: dict[str, Any] = {'viewer': None, 'misfits': [], 'error': None, **summary}
    section['anchor'] = anchor = f'v{place}'
    section['state'] = section['status']
    heading = 'Changes between sessions'
    section['heading'] = f'{heading}, model {summary["model"] or default}' if several else heading
    section['outdated'] = ', '.join(
        f'session {session}'
        for session, configuration in summary['configurations'].items()
        if current.get((session, summary['model'])) != configuration
    )
    section['lesions'] = [
        one | {'colour': lesion_colour(int(one['index']))} for one in summary['lesions']
    ]
    section['charts'] = _charts(summary['visits'])
    section['tiles'] = _tiles(summary['pairs'])
    text, references = render_html(summary['methods'], anchor=f'{anchor}-ref-')
    section['methods_html'], section['references'] = text, references
    return section


def _charts(visits: Sequence[dict[str, Any]]) -> list[tuple[str, Markup]]:
    times = [visit['years'] for visit in visits]
    dated = None not in times and all(b - a > A_DAY / 2 for a, b in pairwise(times))
    places = [v['years'] if dated else n for n, v in enumerate(visits)]
    why = 'not all dates are known in this order' if None in times else 'some dates are equal'
    label = 'time of the sessions' if dated else f'sessions in order; {why}'
    lines = (
        ('Lesion volume', 'mL', [v['volume_mm3'] / 1000 for v in visits]),
        ('Lesions', 'number of lesions', [v['lesion_count'] for v in visits]),
    )
    names = [v['session'] for v in visits]
    return [
        (title, time_line(list(zip(places, values, names, strict=True)), label=label, side=side))
        for title, side, values in lines
    ]


def _tiles(pairs: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """The main numbers of the last two sessions."""
    if not pairs:
        return []
    last = pairs[-1]
    since = f'since session {last["before"]}'
    rate = last['new_per_year']
    tiles = [
        ('new', count(last['new']), f'{decimals(rate)} per year' if rate is not None else since),
        ('enlarging', count(last['enlarging']), since),
        ('resolved or shrinking', count(last['resolved'] + last['shrinking']), since),
    ]
    found = [{'name': n, 'value': v, 'unit': '', 'note': note} for n, v, note in tiles]
    volume = decimals(last['volume_change_mm3'] / 1000, 2)
    found.append({'name': 'change of lesion volume', 'value': volume, 'unit': 'mL', 'note': since})
    return found
