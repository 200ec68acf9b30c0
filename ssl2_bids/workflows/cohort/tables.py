"""The table of a cohort: one row for each participant, session and model, with remarks."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssl2_bids.bids.columns import cohort_columns
from ssl2_bids.bids.dataset import optional_table
from ssl2_bids.bids.dates import acquisition_time
from ssl2_bids.bids.outputs import (
    Result,
    UnitNames,
    find_summaries,
    find_summary,
    find_visits_summaries,
    output_name,
    sidecar_path,
    write_table,
)
from ssl2_bids.bids.sidecars import is_sloppy
from ssl2_bids.errors import DataError, Ssl2Error
from ssl2_bids.files import read_object
from ssl2_bids.metrics.cohort import outliers
from ssl2_bids.processes import side_by_side
from ssl2_bids.settings import GroupSettings
from ssl2_bids.steps import quality
from ssl2_bids.steps.lesions import REGIONS, is_plausible
from ssl2_bids.workflows.participant.sloppy import WARNING
from ssl2_bids.workflows.segmentation_files import PROCESS_AGAIN

TOGETHER = 16  # results that a process reads at once
CHANGED = 'results have changed since the sessions were compared: run --longitudinal again'
COVARIATES = ('age', 'sex', 'group')


def cohort_rows(
    settings: GroupSettings, results: list[Result]
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """A row for each result, and those that could not be read."""
    people = {
        row.get('participant_id', '').strip().removeprefix('sub-'): row
        for row in optional_table(settings.bids_dir / 'participants.tsv', 'participant_id')
    }
    found = dict(side_by_side(_read_row, results, nprocs=settings.nprocs, parts=TOGETHER))
    rows, problems = [], []
    for place, result in enumerate(results):
        row = found[place]
        if isinstance(row, str):
            name = f'sub-{result.names.subject}'
            problems.append({'name': name, 'subject': result.names.subject, 'reason': row})
        else:
            rows.append(row | _covariates(settings.bids_dir, result, people))
    _flag(rows)
    return rows, problems


def _read_row(result: Result) -> dict[str, Any] | str:
    """The row of a result, or why it cannot be read."""
    try:
        return _row(result)
    except Ssl2Error as error:
        return str(error)


def _row(result: Result) -> dict[str, Any]:
    names, sidecar = result.names, result.sidecar
    summary = find_summary(names) or {}
    path = names.path('anat.volumes')
    if lacking := _lacking(sidecar):
        raise DataError(
            f'{lacking} is missing, or of another type',
            advice=PROCESS_AGAIN,
            path=names.done_marker,
        )
    try:
        volumes = _volumes(path)
        whole = {k: _value(v) for k, v in volumes['all'].items() if k != 'name'}
        row = {
            'participant_id': f'sub-{names.subject}',
            'session_id': f'ses-{names.session}' if names.session else None,
            'model': sidecar['Model']['Name'],
            'model_version': sidecar['Model']['Version'],
            'model_label': names.desc,
            'reference': names.reference,
            'channels': ' '.join(sidecar['Channels']),
            'magnetic_field_strength': _field(names, summary),
            'brain_mask_flags': _brain_flags(result),
            'sloppy': is_sloppy(sidecar),
            'images': _image_quality(summary),
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
            row[f'{region}_count'] = _value(volumes[region]['lesion_count'])
            row[f'{region}_volume_mm3'] = _value(volumes[region]['volume_mm3'])
        row['sessions_apart'], changes = _changes(result)
        row |= changes
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise DataError(
            f'a damaged or missing result ({error})',
            advice=PROCESS_AGAIN,
            path=path,
        ) from None
    return row


def _lacking(sidecar: Mapping[str, Any]) -> str:
    """The first key that a row needs and the JSON of a result has not; empty where it has all."""
    model, channels = sidecar.get('Model'), sidecar.get('Channels')
    if not isinstance(model, dict):
        return 'Model'
    if not name_of_model(sidecar):
        return 'Model.Name'
    if not isinstance(model.get('Version'), str):
        return 'Model.Version'
    texts = isinstance(channels, list) and all(isinstance(one, str) for one in channels)
    return '' if texts else 'Channels'


def name_of_model(sidecar: Mapping[str, Any]) -> str:
    """The name of the model in the JSON of a result; empty where that is damaged."""
    model = sidecar.get('Model')
    return str(model.get('Name', '')) if isinstance(model, dict) else ''


def _volumes(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a table of volumes, by region, each of them whole."""
    with open(path, encoding='utf-8', newline='') as stream:
        text = stream.read()
    header, _, rows = text.partition('\n')
    names = header.replace('-mm3', '_mm3').split()  # as it was spelt at first
    found = {row['name']: row for row in csv.DictReader(io.StringIO(rows), names, delimiter='\t')}
    whole = [name for name, row in found.items() if None not in (*row, *row.values())]
    absent = [name for name in ('all', *REGIONS) if name not in whole]
    if absent or not text.endswith('\n'):
        raise ValueError(f'the table is cut: no whole row of {", ".join(absent or whole[-1:])}')
    return found


def _changes(result: Result) -> tuple[list[str], dict[str, Any]]:
    """What ``--longitudinal`` found since the session before; nothing where that is outdated.

    It is outdated if the result of any session that was compared is another one now.

    Returns
    -------
    Why changes are withheld, as flags; and the changes.
    """
    names = result.names
    for summary in find_visits_summaries(names.root, names.subject):
        known = summary['configurations']
        if summary['model'] != names.desc:
            continue
        if known.get(names.session) != result.sidecar['ConfigurationHash']:
            continue
        if any(_configuration(names, one) not in (None, known[one]) for one in known):
            return [CHANGED], {}
        if summary['status'] == 'doubtful':
            return list(summary['misfits']), {}
        if summary['status'] == 'failed':
            reason = (summary.get('error') or {}).get('Message', 'unknown reason')
            return [f'comparison of the sessions failed: {reason}'], {}
        for pair in summary['pairs']:
            if pair['after'] == names.session:
                return [], {
                    'new_lesions': pair['new'],
                    'new_lesions_per_year': pair['new_per_year'],
                    'enlarging_lesions': pair['enlarging'],
                    'lesion_change_mm3': pair['volume_change_mm3'],
                }
    return [], {}


def _configuration(names: UnitNames, session: str) -> str | None:
    """The configuration of a session's result by the same model now; None if unknown."""
    summary = find_summary(replace(names, session=session)) or {}
    found = summary.get('provenance', {}).get('configuration')
    return str(found) if found is not None else None


def _value(text: str) -> float | int | None:
    if text in ('n/a', ''):
        return None
    number = float(text)
    if not 0 <= number < math.inf:
        raise ValueError(f'{text} is no count and no volume')
    return int(number) if number.is_integer() and '.' not in text else number


def _field(names: UnitNames, summary: dict[str, Any]) -> float | None:
    """Tesla, as the summary of the participant level has it; an adapted model's has none."""
    for one in (
        [summary] if summary.get('reference') else find_summaries(names.root, names.subject)
    ):
        if one['session'] == names.session and one.get('reference'):
            return one['reference'].get('MagneticFieldStrength')
    return None


def _brain_flags(result: Result) -> list[str]:
    """Why the brain mask cannot be right, as the participant level found it, in words.

    The volume has a remark of its own, which results of former versions have too.
    """
    path = sidecar_path(result.names.path('anat.brain_mask'))
    try:
        flags = read_object(path).get('BrainMaskFlags', [])
        return [flag['Text'] for flag in flags if flag['Code'] != 'volume']
    except (OSError, ValueError, KeyError, TypeError):
        return []  # the numbers of the lesions stand without it


def _image_quality(summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Metrics and flags of each image of a session, by contrast, as its summary has them.

    Results of former versions have none.
    """
    images = summary.get('image_quality')
    if not isinstance(images, dict):
        return {}
    return {c: one for c, one in images.items() if {'Metrics', 'Flags'} <= set(one)}


def _image_flags(images: dict[str, dict[str, Any]]) -> list[str]:
    return [f'{c}: {flag["Text"]}' for c, quality in images.items() for flag in quality['Flags']]


def _covariates(
    bids_dir: Path, result: Result, people: dict[str, dict[str, str]]
) -> dict[str, Any]:
    subject, session = f'sub-{result.names.subject}', result.names.session
    person = people.get(result.names.subject, {})
    found: dict[str, Any] = {name: person.get(name) for name in COVARIATES}
    for row in optional_table(bids_dir / subject / f'{subject}_sessions.tsv', 'session_id'):
        if session and row.get('session_id', '').strip().removeprefix('ses-') == session:
            found |= {name: row[name] for name in COVARIATES if _is_known(row.get(name))}
    found['acq_time'] = acquisition_time(
        bids_dir, result.names.subject, session, result.names.reference
    )
    return {k: v if _is_known(v) else None for k, v in found.items()}


def _is_known(value: str | None) -> bool:
    return value is not None and value.strip() not in ('', 'n/a')


def _flag(rows: list[dict[str, Any]]) -> None:
    """Write remarks on quality into the rows; what stands out does so among its model's."""
    low, high = quality.BRAIN_VOLUMES
    for row in rows:
        millilitres = (row['brain_volume_mm3'] or 0) / 1000
        row['flags'] = [WARNING] if row['sloppy'] else []
        row['flags'] += [] if low <= millilitres <= high else ['brain volume implausible']
        row['flags'] += [] if is_plausible(row['lesion_load']) else ['lesion load implausible']
        row['flags'] += row['brain_mask_flags'] + _image_flags(row['images'])
        row['flags'] += row['sessions_apart']
    for model in {row['model'] for row in rows}:
        mine = [row for row in rows if row['model'] == model]
        for column, name in (
            ('volume_mm3', 'lesion volume'),
            ('brain_volume_mm3', 'brain volume'),
        ):
            for place, score in outliers([row[column] for row in mine]).items():
                side = 'high' if score > 0 else 'low'
                mine[place]['flags'].append(f'{name} unusually {side} (robust z {score:.1f})')


def write_tables(settings: GroupSettings, rows: list[dict[str, Any]]) -> None:
    columns = cohort_columns({contrast for row in rows for contrast in row['images']})
    cells = []
    for row in rows:
        measured = {
            f'{contrast}_{name}': value
            for contrast, quality in row['images'].items()
            for name, value in quality['Metrics'].items()
        }
        known = {name: (row | measured).get(name) for name in columns}
        cells.append(known | {'quality': '; '.join(row['flags'])})
    write_table(settings.output_dir / output_name('group.lesions'), cells, columns)
