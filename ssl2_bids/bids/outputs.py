"""Names and writing of all that the App puts into its output folder.

The patterns stand in ``resources/outputs.toml``. Names elsewhere: ``ssl2 export`` names the mask
that it writes into the raw dataset, and pages link to one another.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl2_bids.bids.absent import AbsentResultsError, absent_content, how_to_get, is_absent
from ssl2_bids.bids.dataset import warn_once
from ssl2_bids.errors import DataError, Ssl2Error
from ssl2_bids.files import files_below, finished_files, read_object, write_text
from ssl2_bids.tables import bundled_table

AGAIN = 'Run the participant level again with --overwrite.'
Kind = tuple[type | tuple[type, ...], type]  # of a value, and of the members of a list
OPTIONAL = (dict, type(None))
# what the code takes from a summary; a key that is not in NEEDED may be missing
NEEDED = ('session', 'model', 'configurations')
MEMBERS = {  # what the members of a list of VISITS must have
    'visits': 'session time years lesion_count volume_mm3'.split(),
    'pairs': 'before after years new enlarging shrinking resolved stable new_per_year '
    'volume_change_mm3'.split(),
    'lesions': 'index before after state volume_before_mm3 volume_after_mm3 change_mm3 '
    'noise_bound_mm3 region x y z figure'.split(),
    'figures': ['File', 'Title'],
}
NEEDED_OF_VISITS = 'subject status misfits warnings methods outputs registration'.split()
SUMMARY: dict[str, Kind] = {
    'session': ((str, type(None)), object),
    'status': (str, object),
    'model': (dict, object),
    **dict.fromkeys(('methods', 'warnings', 'notes', 'outputs', 'earlier'), (list, str)),
    **dict.fromkeys(('inputs', 'figures', 'lesions', 'volumes'), (list, dict)),
    **dict.fromkeys(('settings', 'quality', 'provenance', 'image_quality'), (dict, object)),
    **dict.fromkeys(('reference', 'adaptation', 'viewer', 'error'), (OPTIONAL, object)),
}
VISITS: dict[str, Kind] = {
    'subject': (str, object),
    'model': (str, object),
    'status': (str, object),
    **dict.fromkeys(('configurations', 'registration'), (dict, object)),
    **dict.fromkeys(('methods', 'warnings', 'misfits', 'outputs'), (list, str)),
    **dict.fromkeys(MEMBERS, (list, dict)),
    **dict.fromkeys(('viewer', 'error'), (OPTIONAL, object)),
}


def output_name(kind: str, **entities: str | None) -> str:
    """The name of an output relative to the output folder.

    Parameters
    ----------
    kind : ``<table>.<key>`` of ``resources/outputs.toml``, e.g. ``anat.mask``.
    entities : values for its braces; a bracketed part whose value is missing or empty is left
        out.
    """
    table, key = kind.split('.')
    pattern = bundled_table('outputs.toml')[table][key]

    def optional(match: re.Match[str]) -> str:
        names = re.findall(r'{(\w+)}', match[1])
        return match[1] if all(entities.get(name) for name in names) else ''

    pattern = re.sub(r'\[([^\]]*)\]', optional, pattern)
    present = {name: value for name, value in entities.items() if value}
    return pattern.format_map(defaultdict(str, present))


def raw_name(
    subject: str, session: str | None, suffix: str, entities: Mapping[str, int | str]
) -> str:
    """The name of a raw anatomical image relative to its dataset.

    Parameters
    ----------
    entities : short names in the order of the BIDS schema, e.g. ``{'inv': 1, 'part': 'phase'}``.
    """
    labels = {'sub': subject, 'ses': session, **entities}
    stem = '_'.join(f'{name}-{value}' for name, value in labels.items() if value)
    folder = f'sub-{subject}/ses-{session}' if session else f'sub-{subject}'
    return f'{folder}/anat/{stem}_{suffix}.nii.gz'


@dataclass(frozen=True)
class UnitNames:
    """Names of one participant's session for one model, as paths in an output folder."""

    root: Path
    subject: str
    session: str | None
    reference: str = ''
    desc: str = ''

    def path(self, kind: str, **entities: str | None) -> Path:
        """The path of an output of this unit, see :func:`output_name`."""
        given = {
            'subject': self.subject,
            'session': self.session,
            'reference': self.reference,
            'space': self.reference,
            'desc': self.desc,
            **entities,
        }
        return self.root / output_name(kind, **given)

    @property
    def done_marker(self) -> Path:
        """The sidecar that is written last: it exists only if all other files exist."""
        return sidecar_path(self.path('anat.mask'))


def sidecar_path(path: Path) -> Path:
    """The JSON beside an image, table or composite transform."""
    return path.with_name(re.sub(r'\.(nii\.gz|nii|tsv|h5)$', '.json', path.name))


def table_path(path: Path) -> Path:
    """The TSV beside an image."""
    return path.with_name(re.sub(r'\.nii(\.gz)?$', '.tsv', path.name))


def join_entities(entities: Mapping[str, str]) -> str:
    """``acq-x_run-1`` from entities, in the order of the BIDS schema."""
    order = ('acq', 'ce', 'rec', 'run')
    return '_'.join(f'{name}-{entities[name]}' for name in order if name in entities)


def write_table(
    path: Path,
    rows: Iterable[Mapping[str, Any]],
    columns: Mapping[str, Any],
    *,
    keys: Mapping[str, Any] | None = None,
) -> None:
    """Write a TSV with ``n/a`` for missing values, and the JSON that explains its columns.

    Parameters
    ----------
    columns : for each column, in order, its entry in the JSON (Description, Units, ...).
    keys : of the JSON, on the table as a whole.

    Raises
    ------
    ValueError : a row has a value for a column that is not among them.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter='\t', lineterminator='\n')
    writer.writerow(columns)
    for row in rows:
        if strange := sorted(row.keys() - columns.keys()):
            raise ValueError(f'{path.name}: the column {strange[0]} is not described')
        writer.writerow([_cell(row.get(name)) for name in columns])
    write_text(path, stream.getvalue())
    text = json.dumps({**columns, **(keys or {})}, indent=2, ensure_ascii=False) + '\n'
    write_text(sidecar_path(path), text)


def _cell(value: Any) -> str:
    if value is None or value == '' or (isinstance(value, float) and value != value):
        return 'n/a'
    return f'{value:.10g}' if isinstance(value, float) else str(value)


def sidecar_if_any(path: Path) -> dict[str, Any]:
    """The JSON beside an image or table; empty where there is none that can be read."""
    try:
        return read_object(sidecar_path(path))
    except (OSError, ValueError):
        return {}


def read_sidecar(path: Path, advice: str = AGAIN) -> dict[str, Any]:
    """The content of an output's JSON sidecar.

    Parameters
    ----------
    advice : what to do about one that cannot be read.

    Raises
    ------
    DataError : it is not readable JSON, or no object.
    """
    if is_absent(path):
        raise absent_content(path, path.parent)
    try:
        return read_object(path)
    except (ValueError, OSError) as error:
        raise DataError(f'not readable JSON ({error})', advice=advice, path=path) from None


def sources_of(sidecar: Mapping[str, Any]) -> list[str]:
    """The BIDS URIs of ``Sources``; none where that is no list of texts."""
    found = sidecar.get('Sources')
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def stored_configuration(names: UnitNames) -> str:
    """``ConfigurationHash`` of a finished unit, empty if it is not finished."""
    try:
        return str(read_object(names.done_marker).get('ConfigurationHash', ''))
    except (ValueError, OSError):
        return ''


@dataclass(frozen=True)
class Result:
    """A finished session of the participant level, found by its done marker."""

    names: UnitNames
    sidecar: dict[str, Any]


MASK_NAME = re.compile(
    r'sub-(?P<subject>.+?)(?:_ses-(?P<session>[^_]+))?'  # labels as people write them
    r'_space-(?!within_)(?P<space>[0-9a-zA-Z+]+)_label-L(?:_desc-(?P<desc>[0-9a-zA-Z+]+))?_mask\.json'
)


def find_results(output_dir: Path, damaged: list[Ssl2Error] | None = None) -> list[Result]:
    """Finished sessions below an output folder: those whose mask lies on its reference grid.

    Parameters
    ----------
    damaged : takes the errors of results that cannot be read.

    Raises
    ------
    DataError, AbsentResultsError : a result cannot be read, and ``damaged`` is None.
    """
    found = []
    for path in _result_files(output_dir):
        try:
            result = _as_result(path, output_dir)
        except (DataError, AbsentResultsError) as error:
            if damaged is None:
                raise
            damaged.append(error)
            continue
        if result is not None:
            found.append(result)
    return found


def sessions_with_mask(output_dir: Path, desc: str) -> list[tuple[str, str | None]]:
    """Participants and sessions with a mask of a model, finished or not.

    Parameters
    ----------
    desc : label of the model.
    """
    files = _result_files(output_dir, f'*_label-L_desc-{desc}_mask.nii.gz')
    matches = (MASK_NAME.fullmatch(file.name.replace('.nii.gz', '.json')) for file in files)
    return list(dict.fromkeys((m['subject'], m['session']) for m in matches if m))


def _result_files(output_dir: Path, pattern: str = '*_label-L*_mask.json') -> list[Path]:
    """Such files in the folders of participants; linked folders are followed."""
    found = [path for folder in output_dir.glob('sub-*') for path in files_below(folder, pattern)]
    return sorted(
        path
        for path in found
        if not any(part[0] == '.' for part in path.relative_to(output_dir).parts)
    )


def find_qualities(names: UnitNames) -> dict[str, dict[str, Any]]:
    """The measures of image quality of a session, by contrast; unreadable ones are left out."""
    first = names.path('anat.quality', contrast='*')
    found: dict[str, dict[str, Any]] = {}
    # of a raw image with further entities these stand before the contrast
    for path in finished_files(first.parent, first.name.replace('_mod-', '_*mod-')):
        try:
            content = read_sidecar(path)
        except DataError:
            continue
        found.setdefault(path.name.split('_mod-')[1].split('_')[0], content)
    return found


def is_result_absent(names: UnitNames) -> bool:
    """Whether a mask of a session and model, or its JSON file, is a link without content."""
    desc = f'_desc-{names.desc}' if names.desc else ''
    folder = names.done_marker.parent
    return any(is_absent(path) for path in finished_files(folder, f'*_label-L{desc}_mask.*'))


def results_beside(names: UnitNames) -> list[Result]:
    """Finished results of a session and model, whatever reference's grid they lie on.

    Unreadable sidecars are ignored.
    """
    found = []
    for path in finished_files(names.done_marker.parent, '*_label-L*_mask.json'):
        with suppress(DataError, AbsentResultsError):
            found.append(_as_result(path, names.root))
    own = (names.subject, names.session, names.desc)
    return [r for r in found if r and (r.names.subject, r.names.session, r.names.desc) == own]


def _as_result(path: Path, output_dir: Path) -> Result | None:
    match = MASK_NAME.fullmatch(path.name)
    if not match:
        return None
    names = UnitNames(
        output_dir, match['subject'], match['session'], match['space'], match['desc'] or ''
    )
    absent = [file for file in (path, names.path('anat.mask')) if is_absent(file)]
    if absent:
        raise AbsentResultsError(
            'the result is not here', advice=how_to_get(output_dir, absent), path=path
        )
    sidecar = read_sidecar(path)
    whole = 'ConfigurationHash' in sidecar and names.path('anat.mask').is_file()
    return Result(names, sidecar) if whole else None


def find_summaries(output_dir: Path, subject: str) -> list[dict[str, Any]]:
    """Report summaries of a participant, sorted by session and model.

    One that cannot be read is left out with a warning, once in a run.
    """
    folder = (output_dir / output_name('report.summary', subject=subject)).parent
    paths = finished_files(folder, '*summary_report.json')
    found = (_read_or_warn(path, SUMMARY) for path in paths)
    return [content for content in found if content is not None]


def find_visits_summaries(output_dir: Path, subject: str) -> list[dict[str, Any]]:
    """What ``--longitudinal`` left for the page of a participant, sorted by model.

    One that cannot be read is left out with a warning, once in a run.
    """
    folder = (output_dir / output_name('longitudinal.summary', subject=subject)).parent
    paths = finished_files(folder, '*visits_report.json')
    found = (_read_or_warn(path, VISITS) for path in paths)
    return [content for content in found if content is not None]


def damaged_summaries(output_dir: Path, subject: str) -> list[Path]:
    """The summaries of a participant's sessions and comparisons that cannot be read."""
    folder = (output_dir / output_name('report.summary', subject=subject)).parent
    kinds = (('*summary_report.json', SUMMARY), ('*visits_report.json', VISITS))
    return [
        path
        for pattern, keys in kinds
        for path in finished_files(folder, pattern)
        if _read_or_warn(path, keys) is None
    ]


def find_summary(names: UnitNames) -> dict[str, Any] | None:
    """The report summary of a session and model; None where there is none that can be read."""
    path = names.path('report.summary')
    return _read_or_warn(path, SUMMARY) if path.is_file() else None


def read_visits_summary(path: Path) -> dict[str, Any]:
    """One of :func:`find_visits_summaries`.

    Raises
    ------
    DataError : it is missing, not readable, or has values of other types.
    """
    return _read_summary(path, VISITS)


def _read_summary(path: Path, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    content = read_sidecar(path)
    needed = {*NEEDED, *((*NEEDED_OF_VISITS, *MEMBERS) if kinds is VISITS else ())}
    for key, (kind, inner) in kinds.items():
        if key not in content and key not in needed:
            continue
        value = content.get(key)
        parts = value if isinstance(value, list) else ()
        if not isinstance(value, kind) or not all(isinstance(one, inner) for one in parts):
            raise DataError(f'"{key}" is missing or of another type', advice=AGAIN, path=path)
    for key, members in MEMBERS.items() if kinds is VISITS else ():
        if absent := [name for name in members for one in content[key] if name not in one]:
            raise DataError(f'"{absent[0]}" is missing in "{key}"', advice=AGAIN, path=path)
    return content


def _read_or_warn(path: Path, kinds: Mapping[str, Kind]) -> dict[str, Any] | None:
    try:
        return _read_summary(path, kinds)
    except DataError as error:
        warn_once(str(error))
        return None
