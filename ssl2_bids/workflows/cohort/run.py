"""The group level: adaptation of a model, tables, lesion-frequency map and page of a cohort."""

from __future__ import annotations

import csv
import fcntl
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl2_bids import __version__
from ssl2_bids.bids.dataset import optional_table, select_participants, select_sessions, unit_name
from ssl2_bids.bids.outputs import (
    Result,
    find_results,
    output_name,
    read_sidecar,
    sidecar_path,
    write_table,
)
from ssl2_bids.bids.provenance import bids_uri, write_dataset_files
from ssl2_bids.bids.sidecars import COHORT_COLUMNS
from ssl2_bids.errors import SOME_FAILED, SUCCESS, BusyError, DataError, NoInputError, Ssl2Error
from ssl2_bids.files import as_ssl2_error, finished, write_json
from ssl2_bids.metrics.cohort import outlying
from ssl2_bids.settings import ATLAS_SPACE, ATLAS_URI, GroupSettings
from ssl2_bids.steps import quality
from ssl2_bids.steps.lesions import REGIONS
from ssl2_bids.volume import Volume, read, resample, write
from ssl2_bids.workflows.adaptation import torchrun as nodes
from ssl2_bids.workflows.adaptation.plan import (
    Adaptation,
    judge_labels,
    label_links,
    plan_adaptation,
)
from ssl2_bids.workflows.adaptation.plan import describe as describe_adaptation
from ssl2_bids.workflows.participant.earlier import current_results

log = logging.getLogger('ssl2_bids')

COVARIATES = ('age', 'sex', 'group')


def run_group_level(
    settings: GroupSettings, *, command: str = '', say: Callable[[str], None] = log.info
) -> int:
    """Gather what the participant level left in the output folder.

    Returns
    -------
    Exit code: 1 if some results could not be read, else 0.

    Raises
    ------
    NoInputError : there are no results.
    BusyError : another group run holds the output folder.
    """
    participants = select_participants(settings.bids_dir, settings.participants, settings.excluded)
    units = select_sessions(settings.bids_dir, participants, settings.sessions)
    chosen = _selected(settings, set(units))
    if not chosen.results:
        reasons = chosen.out_of_date + chosen.damaged
        raise NoInputError(
            'no results of the participant level for the selected participants'
            + (f' ({reasons[0]["name"]}: {reasons[0]["reason"]})' if reasons else ''),
            advice='Run "ssl2-bids ... participant" first.',
            path=settings.output_dir,
        )
    for one in chosen.out_of_date:
        log.warning('left out: %s: %s', one['name'], one['reason'])
    results, missing = chosen.results, _missing(units, chosen)
    adaptation = plan_adaptation(settings, results)
    if settings.dry_run:
        say(_describe(settings, results, missing))
        if adaptation:
            say('\n'.join(describe_adaptation(judge_labels(adaptation)[0])))
        return SUCCESS
    with _lock(settings.output_dir):
        lost: list[dict[str, str]] = []
        try:
            if adaptation:
                lost = _adapt(adaptation, say)
                chosen = _selected(settings, set(units))
                results, missing = chosen.results, _missing(units, chosen)
        finally:
            nodes.tell(None)  # where nothing was trained, the others need not wait
        links = label_links(settings) if adaptation else {}
        write_dataset_files(settings.output_dir, settings.bids_dir, links)
        rows, problems = _rows(settings, results)
        problems = lost + chosen.damaged + problems
        if not rows:
            raise DataError(problems[0]['reason'], path=settings.output_dir)
        _write_tables(settings, rows)
        mapped = _most_used_model(results)
        shown = [r for r in results if _model(r) == mapped]
        frequency = _write_frequency(settings, shown, mapped, problems)
        _write_page(settings, rows, frequency, missing + problems, mapped, command)
    say(f'{len(rows)} results of {len({r["participant_id"] for r in rows})} participants')
    for problem in problems:
        log.error('%s: %s', problem['name'], problem['reason'])
    if missing:
        say(f'without result: {", ".join(m["name"] for m in missing)}')
    say(f'page: {settings.output_dir / output_name("group.page")}')
    return SOME_FAILED if problems else SUCCESS


@dataclass(frozen=True)
class Selected:
    """One result for each selected session and model, and those that do not count."""

    results: list[Result]
    out_of_date: list[dict[str, str]]
    damaged: list[dict[str, str]]


def _selected(settings: GroupSettings, units: set[tuple[str, str | None]]) -> Selected:
    errors: list[DataError] = []
    found = find_results(settings.output_dir, errors)
    results, out_of_date = current_results(
        [r for r in found if (r.names.subject, r.names.session) in units]
    )
    damaged = []
    for error in errors:
        match = re.match(r'sub-([^_]+)(?:_ses-([^_]+))?', Path(error.path).name)
        if match and (match[1], match[2]) in units:
            damaged.append(_reason(match[1], match[2], str(error)))
    return Selected(
        results,
        [_reason(r.names.subject, r.names.session, text) for r, text in out_of_date],
        damaged,
    )


def _reason(subject: str, session: str | None, text: str) -> dict[str, str]:
    name = f'sub-{subject}' + (f'_ses-{session}' if session else '')
    return {'name': name, 'subject': subject, 'reason': text}


def _adapt(adaptation: Adaptation, say: Callable[[str], None]) -> list[dict[str, str]]:
    """Adapt, or take up what was adapted before; the sessions that were not segmented again."""
    from ssl2_bids.networks.weights import load_network, read_card
    from ssl2_bids.workflows.adaptation.outputs import write_adapted
    from ssl2_bids.workflows.adaptation.resegment import resegment
    from ssl2_bids.workflows.adaptation.run import run
    from ssl2_bids.workflows.adaptation.state import begin, finished_before
    from ssl2_bids.workflows.participant.run import write_pages

    settings = adaptation.settings
    work = begin(adaptation, say)
    if finished_before(work):
        say(f'{settings.label}: adapted before with equal labels and settings')
        card = read_card(settings.output_dir / adaptation.folder)
    else:
        card = write_adapted(work, run(work))
    if not (card.content['Accepted'] and settings.resegment):
        return []
    cases = [one.case for one in work.people]
    failures = resegment(cases, card, load_network(card, work.device), device=work.device, say=say)
    write_pages(settings.output_dir, {case.participant for case in cases})
    return [
        {'name': f.case.name, 'subject': f.case.participant, 'reason': str(f.error)}
        for f in failures
    ]


@contextmanager
def _lock(output_dir: Path) -> Iterator[None]:
    """Hold the output folder; the kernel lets go of it when the process ends, however it ends."""
    path = output_dir / output_name('group.lock')
    try:
        stream = open(path, 'w')
    except OSError as error:
        raise as_ssl2_error(error, path) from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BusyError(
                'another group run works in this output folder',
                advice='Wait until it has ended.',
                path=output_dir,
            ) from None
        yield
        path.unlink(missing_ok=True)


def _model(result: Result) -> str:
    return result.names.desc


def _most_used_model(results: list[Result]) -> str:
    """The label of the model with most results; the default's (empty) where there is a draw."""
    labels = [_model(r) for r in results]
    return min(set(labels), key=lambda label: (-labels.count(label), label))


def _missing(units: list[tuple[str, str | None]], chosen: Selected) -> list[dict[str, str]]:
    """Sessions without a result that counts, and why; not those whose result is damaged."""
    have = {(r.names.subject, r.names.session) for r in chosen.results}
    known = {one['name']: one for one in chosen.out_of_date}
    damaged = {one['name'] for one in chosen.damaged}
    found = [
        _reason(subject, session, 'no result of the participant level')
        for subject, session in units
        if (subject, session) not in have
    ]
    return [known.get(one['name'], one) for one in found if one['name'] not in damaged]


def _describe(
    settings: GroupSettings, results: list[Result], missing: list[dict[str, str]]
) -> str:
    root = settings.output_dir
    lines = [f'use    {r.names.done_marker.relative_to(root).as_posix()}' for r in results]
    lines += [f'note   {m["name"]}: {m["reason"]}' for m in missing]
    frequency = output_name('group.frequency', space=ATLAS_SPACE)
    table = output_name('group.lesions')
    for name in (
        table,
        sidecar_path(Path(table)),
        frequency,
        sidecar_path(Path(frequency)),
        output_name('group.frequency_figure', space=ATLAS_SPACE),
        output_name('group.page'),
    ):
        lines.append(f'write  {name}')
    return '\n'.join(lines)


def _rows(
    settings: GroupSettings, results: list[Result]
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """A row for each result, and those that could not be read."""
    people = {
        row.get('participant_id', '').strip().removeprefix('sub-'): row
        for row in optional_table(settings.bids_dir / 'participants.tsv', 'participant_id')
    }
    rows, problems = [], []
    for result in results:
        try:
            rows.append(_row(result) | _covariates(settings.bids_dir, result, people))
        except Ssl2Error as error:
            name = f'sub-{result.names.subject}'
            problems.append({'name': name, 'subject': result.names.subject, 'reason': str(error)})
    _flag(rows)
    return rows, problems


def _row(result: Result) -> dict[str, Any]:
    names, sidecar = result.names, result.sidecar
    path = names.path('anat.volumes')
    try:
        with open(path, encoding='utf-8', newline='') as stream:
            header = stream.readline().replace('-mm3', '_mm3')  # as it was spelt at first
            volumes = {
                row['name']: row for row in csv.DictReader(stream, header.split(), delimiter='\t')
            }
        whole = {k: _value(v) for k, v in volumes['all'].items() if k != 'name'}
        row = {
            'participant_id': f'sub-{names.subject}',
            'session_id': f'ses-{names.session}' if names.session else None,
            'model': sidecar['Model']['Name'],
            'model_version': sidecar['Model']['Version'],
            'model_label': names.desc,
            'reference': names.reference,
            'channels': ' '.join(sidecar['Channels']),
            'magnetic_field_strength': _field(result),
            **{
                k: whole[k]
                for k in (
                    'lesion_count',
                    'volume_mm3',
                    'volume_largest_mm3',
                    'lesion_load',
                    'brain_volume_mm3',
                )
            },
        }
        for region in REGIONS:
            values = volumes.get(region, {})
            row[f'{region}_count'] = _value(values.get('lesion_count', '0'))
            row[f'{region}_volume_mm3'] = _value(values.get('volume_mm3', '0'))
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise DataError(
            f'a damaged or missing result ({error})',
            advice='Run the participant level again with --overwrite.',
            path=path,
        ) from None
    return row


def _value(text: str) -> float | int | None:
    if text in ('n/a', ''):
        return None
    number = float(text)
    return int(number) if number.is_integer() and '.' not in text else number


def _field(result: Result) -> float | None:
    """Tesla, as the summary of the participant level has it."""
    from ssl2_bids.bids.outputs import find_summaries

    for summary in find_summaries(result.names.root, result.names.subject):
        if summary['session'] == result.names.session and summary['reference']:
            return summary['reference'].get('MagneticFieldStrength')
    return None


def _covariates(
    bids_dir: Path, result: Result, people: dict[str, dict[str, str]]
) -> dict[str, Any]:
    subject, session = f'sub-{result.names.subject}', result.names.session
    person = people.get(result.names.subject, {})
    found: dict[str, Any] = {name: person.get(name) for name in COVARIATES}
    for row in optional_table(bids_dir / subject / f'{subject}_sessions.tsv', 'session_id'):
        if session and row.get('session_id', '').strip().removeprefix('ses-') == session:
            found['acq_time'] = row.get('acq_time')
            found |= {name: row[name] for name in COVARIATES if row.get(name)}
    folder = bids_dir / subject / (f'ses-{session}' if session else '')
    scans = folder / (f'{subject}_ses-{session}_scans.tsv' if session else f'{subject}_scans.tsv')
    for row in optional_table(scans, 'filename'):
        if not found.get('acq_time') and f'_{result.names.reference}.' in row.get('filename', ''):
            found['acq_time'] = row.get('acq_time')
    return {k: None if v in (None, 'n/a', '') else v for k, v in found.items()}


def _flag(rows: list[dict[str, Any]]) -> None:
    """Write remarks on quality into the rows; what stands out does so among its model's."""
    low, high = quality.BRAIN_VOLUMES
    for row in rows:
        millilitres = (row['brain_volume_mm3'] or 0) / 1000
        row['flags'] = [] if low <= millilitres <= high else ['brain volume implausible']
    for model in {row['model'] for row in rows}:
        mine = [row for row in rows if row['model'] == model]
        for column, name in (
            ('volume_mm3', 'lesion volume'),
            ('brain_volume_mm3', 'brain volume'),
        ):
            for place, score in outlying([row[column] for row in mine]).items():
                side = 'high' if score > 0 else 'low'
                mine[place]['flags'].append(f'{name} unusually {side} (robust z {score:.1f})')


def _write_tables(settings: GroupSettings, rows: list[dict[str, Any]]) -> None:
    told = [row | {'quality': '; '.join(row['flags'])} for row in rows]
    write_table(settings.output_dir / output_name('group.lesions'), told, COHORT_COLUMNS)


def _write_frequency(
    settings: GroupSettings, results: list[Result], model: str, problems: list[dict[str, str]]
) -> tuple[Volume, Path]:
    """The share of participants with a lesion at each voxel of the template, and its figure.

    A result that cannot be read costs itself and is added to ``problems``.
    """
    from ssl2_bids.reports.figures.session import draw_frequency
    from ssl2_bids.steps.template import template

    target = template()
    people: dict[str, np.ndarray] = {}
    mapped = []
    for result in results:
        names = result.names
        try:
            there = _on_template(result, target)
        except DataError as error:
            name = unit_name(names.subject, names.session)
            problems.append({'name': name, 'subject': names.subject, 'reason': str(error)})
            continue
        # a participant counts once, with the lesions of all sessions
        people[names.subject] = people.get(names.subject, False) | there
        mapped.append(result)
    if not people:
        raise DataError(problems[-1]['reason'], path=settings.output_dir)
    share = target.with_data(np.stack(list(people.values())).mean(axis=0, dtype=np.float32))
    path = settings.output_dir / output_name('group.frequency', space=ATLAS_SPACE)
    write(share, path, code=4)
    content = {
        'Description': 'Share of participants with a lesion at each voxel, all sessions of a '
        'participant together; aligned by affine transforms.',
        'Model': model or 'default',
        'Participants': sorted(f'sub-{s}' for s in people),
        'SpatialReference': ATLAS_URI,
        'Sources': [bids_uri(r.names.path('anat.mask'), settings.output_dir) for r in mapped],
    }
    write_json(sidecar_path(path), content)
    figure = settings.output_dir / output_name('group.frequency_figure', space=ATLAS_SPACE)
    figure.parent.mkdir(parents=True, exist_ok=True)
    draw_frequency(share, target, figure, title=f'Lesion frequency, {len(people)} participants')
    return share, figure


def _on_template(result: Result, target: Volume) -> np.ndarray:
    """Where a result has lesions, on the grid of the template."""
    from ssl2_bids.itk import from_itk

    names = result.names
    xfm = names.path('anat.transform', source=names.reference, target=ATLAS_SPACE)
    try:
        transform = from_itk(xfm.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise DataError(
            f'not a readable transform ({error})',
            path=xfm,
            advice='Run the participant level again with --overwrite.',
        ) from None
    mask = read(names.path('anat.mask'))
    there = resample(mask, target.affine, target.shape, transform=transform).data >= 0.5
    return np.asarray(there)


def _write_page(
    settings: GroupSettings,
    rows: list[dict[str, Any]],
    frequency: tuple[Volume, Path],
    failed: list[dict[str, str]],
    model: str,
    command: str,
) -> None:
    from ssl2_bids.reports import group

    page = settings.output_dir / output_name('group.page')
    figure = frequency[1].relative_to(settings.output_dir).as_posix()
    group.render(
        rows,
        page,
        frequency_figure=figure,
        failed=failed,
        version=__version__,
        command=command,
        adaptations=_adaptations(settings.output_dir),
    )


def _adaptations(output_dir: Path) -> list[dict[str, Any]]:
    """What the page says of each model that was adapted in this output folder."""
    pattern = output_name('model.report', desc='*')
    found = []
    for path in finished(output_dir, pattern):
        try:
            found.append(read_sidecar(path))
        except DataError as error:
            log.warning('%s', error)
    return found
