"""The report of one participant: one HTML page, a section per session and model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from ssl2_bids.metrics.quality_names import SHOWN
from ssl2_bids.reports import viewer
from ssl2_bids.reports.citations import render_html, render_plain
from ssl2_bids.reports.figures.session import lesion_colour
from ssl2_bids.reports.figures.strips import flagged_metrics
from ssl2_bids.reports.pages import (
    count,
    cubic_millimetres,
    millilitres,
    number,
    percent,
    whole_millilitres,
    write_page,
)
from ssl2_bids.reports.visits import VisitsSummary, visits_section


class Model(TypedDict, total=False):
    """The network that made the result."""

    Name: str
    Label: str
    Version: str
    Sha256: str
    Description: str


class Adaptation(TypedDict, total=False):
    """How the model was adapted to the site."""

    Rung: str
    Parent: str
    Labelled: list[str]  # participants
    LeftOut: str  # participants, slices, nothing: of the test
    Dice: list[float | None]  # of the test, before and after
    LesionF1: list[float | None]
    Recalibration: dict[str, float | None]
    LabelNotes: list[dict[str, str]]  # name of a session; note on its label


class ReferenceSummary(TypedDict, total=False):
    """The image whose grid everything lies on."""

    Contrast: str  # BIDS suffix
    File: str  # relative to the raw dataset
    VoxelSize: list[float]  # mm
    Shape: list[int]
    MagneticFieldStrength: float | None  # tesla


class Input(TypedDict, total=False):
    """One image that was found, used or not."""

    Contrast: str
    File: str
    Use: str  # reference, channel, registered only, dropped
    Why: str
    VoxelSize: list[float]  # mm
    MagneticFieldStrength: float | None  # tesla


class FigureSummary(TypedDict, total=False):
    """One SVG of :mod:`ssl2_bids.reports.figures.session`."""

    File: str  # relative to the page
    Title: str
    Caption: str
    Kind: str  # lesions, mosaic, brain, registration


class Viewer(TypedDict, total=False):
    """The interactive viewer of :mod:`ssl2_bids.reports.viewer`."""

    Volumes: str  # script with the images and lesions, relative to the page
    Program: str  # where NiiVue must lie, relative to the page
    Resampled: bool  # the images are coarser than the reference
    Flicker: bool  # the images are of several sessions, and alternate


class LesionEntry(TypedDict, total=False):
    """One row of the instance table."""

    index: int
    name: str
    volume_mm3: float
    x: float  # centroid, world mm
    y: float
    z: float
    probability_mean: float
    probability_max: float
    region: str


class Region(TypedDict, total=False):
    """One row of the morphometry table; the row ``all`` is the whole brain."""

    name: str
    lesion_count: int
    volume_mm3: float
    volume_largest_mm3: float
    lesion_load: float  # share of the brain volume, 0 to 1


class Flag(TypedDict, total=False):
    """A reason to look at the brain mask."""

    Code: str
    Value: float
    Threshold: float
    Text: str


class ImageQuality(TypedDict, total=False):
    """The quality of one image."""

    Metrics: dict[str, float | None]
    NotAvailable: dict[str, str]  # why a metric is missing
    Flags: list[Flag]


class FailureEntry(TypedDict, total=False):
    """Why a session could not be done."""

    Message: str
    Advice: str
    File: str
    Step: str
    Traceback: str


class Summary(TypedDict, total=False):
    """The content of a report for one session and model, as JSON; unknown values are None.

    Every key may be missing where a run ended early.
    """

    subject: str  # label without sub-
    session: str | None  # label without ses-
    status: str  # done, failed, skipped
    model: Model | None
    adaptation: Adaptation | None
    reference: ReferenceSummary | None
    inputs: list[Input]
    settings: dict[str, Any]  # flat
    warnings: list[str]
    methods: list[str]  # sentences with [@key]
    figures: list[FigureSummary]
    viewer: Viewer | None
    lesions: list[LesionEntry]
    volumes: list[Region]
    brain_volume_mm3: float | None
    brain_mask_flags: list[Flag]  # why the brain mask cannot be right
    quality: dict[str, Any]  # flat
    image_quality: dict[str, ImageQuality]  # by contrast
    outputs: list[str]  # relative to the page
    notes: list[str]  # those of the warnings that are about the choice of images
    earlier: list[str]  # files of former runs that are to be taken away, relative to the page
    provenance: dict[str, Any]  # flat
    error: FailureEntry | None


NO_ADAPTATION: Adaptation = {
    'Rung': '', 'Parent': '', 'Labelled': [], 'LeftOut': '', 'Dice': [None, None],
    'LesionF1': [None, None], 'Recalibration': {}, 'LabelNotes': [],
}  # fmt: skip
LISTS = ('inputs', 'warnings', 'methods', 'figures', 'lesions', 'volumes', 'outputs')
TABLES = ('settings', 'quality', 'provenance')
STATUS = {'done': 'done', 'failed': 'failed', 'skipped': 'not processed'}


def render(
    summaries: Sequence[Summary],
    path: Path,
    *,
    subject: str,
    version: str,
    visits: Sequence[VisitsSummary] = (),
) -> None:
    """Write the page of one participant, and NiiVue where the viewers of its sessions look for it.

    Parameters
    ----------
    summaries : one per session and model, in the order of the page.
    path : the HTML file; figures are linked relative to it.
    subject : label without ``sub-``.
    version : of the software.
    visits : one per model, on the changes between sessions.

    Raises
    ------
    UnknownReferenceError : a methods sentence cites a work that is not known.
    """
    sections = [_section(summary, place) for place, summary in enumerate(summaries, start=1)]
    models = {_model_name(section) for section in sections}
    for section in sections:
        section['heading'] = _heading(section, with_model=len(models) > 1)
        section['viewer'] = _viewer(section['viewer'], path.parent)
    changes = _visits(visits, sections)
    for section in changes:
        section['viewer'] = _viewer(section['viewer'], path.parent)
    write_page(
        path,
        'participant.html',
        subject=subject,
        version=version,
        sections=sections,
        visits=changes,
        failed=[section for section in sections if section['status'] != 'done'],
        has_viewer=any((s['viewer'] or {}).get('Installed') for s in (*changes, *sections)),
    )


def _visits(
    visits: Sequence[VisitsSummary], sections: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    current = {
        (s['session'] or '', s['model']['Label'] or ''): s['provenance'].get('configuration', '')
        for s in sections
    }
    several = len(visits) > 1
    default = next((_model_name(s) for s in sections if not s['model']['Label']), 'default')
    return [
        visits_section(summary, place, current, several=several, default=default)
        for place, summary in enumerate(visits, start=1)
    ]


def _viewer(asked: Viewer | None, folder: Path) -> dict[str, Any] | None:
    """What the page needs to know of a session's viewer; puts NiiVue beside the page."""
    if not asked:
        return None
    installed = viewer.provide_program(folder / asked['Program'])
    name = Path(asked['Volumes']).name
    return {'Resampled': False, 'Flicker': False, **asked, 'Name': name, 'Installed': installed}


def _section(summary: Summary, place: int) -> dict[str, Any]:
    """A summary with every key filled and with what the template does not compute itself."""
    section: dict[str, Any] = {'session': None, 'status': 'done', 'brain_volume_mm3': None}
    section['viewer'] = section['adaptation'] = None
    section |= {key: [] for key in LISTS} | {key: {} for key in TABLES}
    section |= {key: value for key, value in summary.items() if value is not None}
    section['anchor'] = f's{place}'
    section['state'] = STATUS.get(section['status'], section['status'])
    section['model'] = dict.fromkeys(Model.__annotations__) | dict(summary.get('model') or {})
    section['reference'] = dict.fromkeys(ReferenceSummary.__annotations__) | dict(
        summary.get('reference') or {}
    )
    if section['adaptation']:
        section['adaptation'] = NO_ADAPTATION | section['adaptation']
    section['inputs'] = _fill_rows(section['inputs'], Input)
    section['figures'] = _fill_rows(section['figures'], FigureSummary)
    section['volumes'] = _fill_rows(section['volumes'], Region)
    section['lesions'] = sorted(
        _fill_rows(section['lesions'], LesionEntry),
        key=lambda row: -(number(row['volume_mm3']) or 0),
    )
    for lesion in section['lesions']:
        lesion['colour'] = lesion_colour(int(number(lesion['index']) or 1))
    section['error'] = None
    if section['status'] != 'done' or summary.get('error'):
        section['error'] = dict.fromkeys(FailureEntry.__annotations__) | dict(
            summary.get('error') or {}
        )
    section['measured'] = _measured(summary.get('image_quality') or {})
    section['total'] = _total(section)
    section['headline'] = _headline(section)
    section['has_regions'] = any(row['name'] != 'all' for row in section['volumes'])
    anchor = f's{place}-ref-'
    text, references = render_html(section['methods'], anchor=anchor)
    section['methods_html'], section['references'] = text, references
    section['methods_plain'] = render_plain(section['methods'])
    return section


def _fill_rows(rows: Sequence[Any], kind: Any) -> list[dict[str, Any]]:
    return [dict.fromkeys(kind.__annotations__) | dict(row) for row in rows]


def _measured(images: Mapping[str, ImageQuality]) -> dict[str, Any]:
    """The table of image quality: a column for each contrast, a row for each metric of any."""
    rows = []
    for name, metric in SHOWN.items():
        cells = [
            {
                'value': number(image.get('Metrics', {}).get(name)),
                'why': image.get('NotAvailable', {}).get(name, ''),
                'flagged': name in flagged_metrics(image.get('Flags', [])),
            }
            for image in images.values()
        ]
        if any(cell['value'] is not None for cell in cells):
            title = f'{metric.title} ({metric.units})' if metric.units else metric.title
            rows.append({'title': title, 'about': metric.description, 'cells': cells})
    return {'contrasts': list(images), 'rows': rows} if rows else {}


def _total(section: dict[str, Any]) -> dict[str, Any]:
    for row in section['volumes']:
        if row['name'] == 'all':
            return row
    return dict.fromkeys(Region.__annotations__)


def _headline(section: dict[str, Any]) -> list[dict[str, str]]:
    """The four main numbers, formatted."""
    total = section['total']
    if number(total['lesion_count']) is None:
        return []
    found = int(number(total['lesion_count']) or 0)
    largest = total['volume_largest_mm3']
    tiles = [
        {'name': 'lesion' if found == 1 else 'lesions', 'value': count(found), 'unit': ''},
        {
            'name': 'lesion volume',
            'value': millilitres(total['volume_mm3']),
            'unit': 'mL',
            'note': f'largest {cubic_millimetres(largest)} mm³' if found and largest else '',
        },
        {
            'name': 'lesion load',
            'value': percent(total['lesion_load']),
            'unit': '%',
            'note': 'of the brain volume',
        },
        {
            'name': 'brain volume',
            'value': whole_millilitres(section['brain_volume_mm3']),
            'unit': 'mL',
            'note': 'of the brain mask',
        },
    ]
    return [{'note': ''} | tile for tile in tiles]


def _heading(section: dict[str, Any], *, with_model: bool) -> str:
    words = [f'Session {section["session"]}'] if section['session'] else []
    if with_model:
        words.append(f'model {_model_name(section) or "not known"}')
    return ', '.join(words) or 'Results'


def _model_name(section: dict[str, Any]) -> str:
    """The label of a model; the default one has none, and is called by its name."""
    return section['model']['Label'] or section['model']['Name'] or ''
