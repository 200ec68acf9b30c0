"""A BIDS dataset as a whole: is it one, whom does it hold, what do the labels select.

Only folder names and small text files are read, so that a mistake shows at once.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ssl2_bids.bids.absent import absent_content, how_to_get, is_absent
from ssl2_bids.errors import (
    CannotWriteError,
    DataError,
    NoInputError,
    NotBidsError,
    NothingSelectedError,
    UsageError,
)
from ssl2_bids.files import (
    FULL,
    as_ssl2_error,
    check_folder,
    listing,
    outside_failure,
    pointer_of,
    read_object,
    read_text,
    reading,
    temporary_path,
)

log = logging.getLogger('ssl2_bids')


NO_IMAGE = re.compile(r'_(?:[a-z]*mask|dseg|probseg|roi|seg|lesion-manual[^_.]*)\.nii')


def check_dataset(bids_dir: Path, *, thorough: bool = True) -> None:
    """Check that a folder is a BIDS dataset with participants.

    Raises
    ------
    NoInputError : the folder does not exist, or may not be read.
    NotBidsError : it has no ``dataset_description.json`` or no ``sub-*`` folder; with
        ``thorough`` also if that file cannot be read or lacks Name or BIDSVersion.
    """
    check_folder(bids_dir, advice='Check the path of the BIDS dataset.')
    description = bids_dir / 'dataset_description.json'
    with reading(bids_dir):
        _check_contents(bids_dir, description)
        if thorough:
            _check_description(description)


def _check_contents(bids_dir: Path, description: Path) -> None:
    if is_absent(description):
        raise NotBidsError(
            'the content of dataset_description.json is absent',
            advice=how_to_get(bids_dir, [description]),
            path=bids_dir,
        )
    if not description.is_file():
        raise NotBidsError(
            'not a BIDS dataset: dataset_description.json is missing',
            advice='Give the folder that holds it and the sub-* folders. If this is that folder, '
            'write the file: {"Name": "NAME OF THE STUDY", "BIDSVersion": "1.10.0"}.',
            path=bids_dir,
        )
    if not participant_labels(bids_dir):
        raise NotBidsError(
            'not a BIDS dataset: no sub-* folder', advice='Check the path.', path=bids_dir
        )


def _check_description(path: Path) -> None:
    try:
        content = read_object(path)
    except ValueError as error:
        raise NotBidsError(
            f'not readable JSON ({error})',
            advice='Correct it, or skip this check with --skip-bids-validation.',
            path=path,
        ) from None
    missing = [key for key in ('Name', 'BIDSVersion') if key not in content]
    if missing:
        raise NotBidsError(
            f'the required key {missing[0]} is missing',
            advice='Add it, or skip this check with --skip-bids-validation.',
            path=path,
        )


def read_description(folder: Path) -> dict[str, Any]:
    """The content of ``dataset_description.json``, empty where it is missing or unreadable."""
    try:
        # NaN and Infinity, which are no JSON, cannot be handed on to the results
        return read_object(folder / 'dataset_description.json', parse_constant=lambda name: None)
    except (ValueError, OSError):
        return {}


def makers_of(folder: Path) -> list[dict[str, Any]]:
    """The programs that made a dataset: ``GeneratedBy`` of its description, the last one first."""
    found = read_description(folder).get('GeneratedBy')
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def is_own_dataset(folder: Path) -> bool:
    """Whether a folder is an output folder of this App."""
    return any(one.get('Name') == 'ssl2-bids' for one in makers_of(folder))


def participant_labels(bids_dir: Path) -> list[str]:
    """Labels of the ``sub-*`` folders, sorted, without the prefix.

    Raises
    ------
    OSError : the dataset may not be read.
    """
    return sorted(p.name[4:] for p in listing(bids_dir, 'sub-?*') if p.is_dir())


def is_label(text: str) -> bool:
    """Whether BIDS allows a text as the label of a participant, a session or another entity."""
    return bool(re.fullmatch(r'[0-9a-zA-Z+]+', text))


def session_labels(bids_dir: Path, participant: str) -> list[str | None]:
    """Labels of a participant's ``ses-*`` folders, sorted.

    None stands for images of no session: where there are no such folders, and where a dataset of
    derivatives has the anatomy of all sessions beside them. Masks and label maps are no images.
    """
    folder = bids_dir / f'sub-{participant}'
    labels = sorted(p.name[4:] for p in folder.glob('ses-?*') if os.path.isdir(p))
    beside = any(
        '_ses-' not in path.name and is_image_name(path.name)
        for path in folder.glob('anat/sub-*.nii*')
    )
    return [None, *labels] if beside or not labels else [*labels]


def select_participants(
    bids_dir: Path, wanted: tuple[str, ...] | None, excluded: tuple[str, ...] = ()
) -> list[str]:
    """The participants to process, sorted.

    Raises
    ------
    NothingSelectedError : a wanted label does not exist (near ones are named), or none is left.
    """
    present = participant_labels(bids_dir)
    for label in wanted or ():
        if label not in present:
            raise NothingSelectedError(
                f'no participant "{label}" in {bids_dir}', advice=_suggest(label, present)
            )
    for label in excluded:
        if label not in present:  # no error: a job may have a part of the dataset only
            warn_once(
                f'--exclude-participant-label: no participant "{label}" in {bids_dir}. '
                f'{_suggest(label, present)}'
            )
    selected = [p for p in (sorted(wanted) if wanted else present) if p not in excluded]
    if not selected:
        raise NothingSelectedError(
            'every participant is excluded',
            advice='Leave --exclude-participant-label out, or name others.',
        )
    return selected


def select_sessions(
    bids_dir: Path, participants: list[str], wanted: tuple[str, ...] | None
) -> list[tuple[str, str | None]]:
    """Pairs of participant and session to process, sorted.

    Raises
    ------
    NothingSelectedError : no selected participant has a wanted session.
    """
    units = [(p, s) for p in participants for s in session_labels(bids_dir, p)]
    if wanted is None:
        return units
    present = sorted({s for _, s in units if s is not None})
    for label in wanted:
        if label not in present:
            raise NothingSelectedError(
                f'no selected participant has a session "{label}"',
                advice=_suggest(label, present) if present else 'The dataset has no sessions.',
            )
    # whether a participant has a session is not known where its folder may not be listed
    may = {p: os.access(bids_dir / f'sub-{p}', os.R_OK | os.X_OK) for p in participants}
    return [(p, s) for p, s in units if s in wanted or not may[p]]


def is_image_name(name: str) -> bool:
    """Whether a NIfTI file is an image by its name, and no mask or label map."""
    return name.endswith(('.nii', '.nii.gz')) and not NO_IMAGE.search(name)


def _suggest(label: str, present: list[str]) -> str:
    near = difflib.get_close_matches(label, present, n=4, cutoff=0.5) or present[:4]
    rest = len(present) - len(near)
    more = f' and {rest} other{"s" if rest > 1 else ""}' if rest > 0 else ''
    named = ', '.join(label if is_label(label) else f'"{label}"' for label in near)
    return f'There are: {named}{more}.'


def check_output(bids_dir: Path, output_dir: Path, work_dir: Path, *, probe: bool = True) -> None:
    """Check where results and intermediate files may go.

    Raises
    ------
    UsageError : the output is the dataset itself or inside it other than below
        ``derivatives/``, or the work folder is inside the dataset.
    CannotWriteError : the output is a file, cannot be written, belongs to another tool, or the
        content of its description is absent.
    """
    raw, out, work = bids_dir.resolve(), output_dir.resolve(), work_dir.resolve()
    if out == raw:
        raise UsageError(
            'the output folder is the dataset itself',
            advice=f'Choose another folder, e.g. {output_dir}/derivatives/ssl2-bids.',
            path=output_dir,
        )
    if out.is_relative_to(raw) and (
        out.relative_to(raw).parts[0] != 'derivatives' or len(out.relative_to(raw).parts) < 2
    ):
        raise UsageError(
            'the output folder is inside the dataset',
            advice=f'Choose a folder outside, or {bids_dir}/derivatives/ssl2-bids.',
            path=output_dir,
        )
    if work.is_relative_to(raw):
        raise UsageError(
            'the work folder is inside the dataset', advice='Choose another.', path=work_dir
        )
    if work == out or (work.is_relative_to(out) and work.relative_to(out).parts[0][:4] == 'sub-'):
        raise UsageError(
            'the work folder lies among the results', advice='Choose another.', path=work_dir
        )
    if output_dir.exists() and not output_dir.is_dir():
        raise CannotWriteError('this is a file', advice='Choose a folder.', path=output_dir)
    if probe:
        check_writable(output_dir)
        check_writable(work_dir)
    description = output_dir / 'dataset_description.json'
    if is_absent(description) or pointer_of(description):
        raise CannotWriteError(
            'the output folder holds a dataset whose dataset_description.json has no content',
            advice=how_to_get(output_dir, [description]),
            path=output_dir,
        )
    if read_description(output_dir) and not is_own_dataset(output_dir):
        names = [str(one.get('Name')) for one in makers_of(output_dir)]
        raise CannotWriteError(
            'the output folder holds a dataset of another tool '
            f'({", ".join(names) or "no GeneratedBy"})',
            advice='Choose an empty folder.',
            path=output_dir,
        )


def check_writable(folder: Path) -> None:
    """Make a folder and write a byte into it.

    Raises
    ------
    StorageError : the disk is full.
    CannotWriteError : that is not possible for another reason.
    """
    probe = temporary_path(folder / 'probe')
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(b'0')
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in FULL:
            raise as_ssl2_error(error, folder) from None
        raise CannotWriteError(
            f'the folder cannot be written ({error.strerror})',
            advice='Choose a folder that you may write to.',
            path=folder,
        ) from None


def unit_name(subject: str, session: str | None) -> str:
    """``sub-X`` or ``sub-X_ses-Y``."""
    return f'sub-{subject}_ses-{session}' if session else f'sub-{subject}'


def branch_name(name: str) -> str:
    """The name of a session for nipype and in the work folder: letters, digits, underscores."""
    return re.sub(r'\W', lambda m: f'_{ord(m[0])}_' if m[0] != '-' else '_', name)


def read_filters(path: Path) -> dict[str, dict[str, Any]]:
    """Read a filter file: ``{"<contrast key>": {"<entity>": value, [values], null or "*"}}``.

    Raises
    ------
    NoInputError : there is no such file, or it may not be read.
    UsageError : not JSON, or of another shape.
    """
    try:
        with reading(path):
            if not path.is_file():
                raise NoInputError('no such filter file', path=path)
            content = read_object(path)
    except ValueError as error:
        raise UsageError(f'the filter file is not readable JSON ({error})', path=path) from None
    if not all(isinstance(v, dict) for v in content.values()):
        raise UsageError(
            'the filter file must map contrast keys to entities',
            advice='For example {"t1w": {"acquisition": "mprage"}}.',
            path=path,
        )
    return content


def optional_table(path: Path, key: str) -> list[dict[str, str]]:
    """Rows of a table that is not needed: one that cannot be used is left out with a warning.

    Parameters
    ----------
    key : the column by which rows are found; missing cells are empty.
    """
    try:
        if is_absent(path):
            raise absent_content(path, path.parent)
        rows = read_table(path)
    except DataError as error:
        warn_once(f'{path}: left out: {error.message}. {error.advice}')
        return []
    if rows and key not in rows[0]:
        warn_once(f'{path}: left out: it has no column {key} (columns are separated by tabs)')
        return []
    return rows


@cache
def warn_once(text: str) -> None:
    """A warning that is given once in a run."""
    log.warning('%s', text)


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a BIDS TSV file in any usual encoding, empty where there is none.

    A row is a line, whatever quotes it has; cells that it lacks are empty.

    Raises
    ------
    DataError, DeniedFileError : the file cannot be read; it may not be read.
    """
    if not path.is_file():
        return []
    try:
        lines = [line for line in re.split('\r?\n|\r', read_text(path)) if line.strip()]
    except OSError as error:
        failed = outside_failure(error, path)
        raise failed or DataError(f'not a readable table ({error})', path=path) from None
    header, *rows = [[_unquoted(cell) for cell in line.split('\t')] for line in lines] or [[]]
    return [dict(zip_longest(header, row[: len(header)], fillvalue='')) for row in rows]


def _unquoted(cell: str) -> str:
    """A cell without the quotes that some programs put around text; a single quote stays."""
    return cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell
