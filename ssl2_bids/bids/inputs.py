"""From a BIDS dataset to the images of each session (pybids lives here and nowhere else)."""

from __future__ import annotations

import logging
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from ssl2_bids.bids.database import existing, listed_images
from ssl2_bids.bids.dataset import is_image_name, read_description, unit_name
from ssl2_bids.bids.filters import SUFFIXES_OF, matches, unused_filters
from ssl2_bids.bids.given_datasets import given_images
from ssl2_bids.bids.inheritance import Inheritance, stem
from ssl2_bids.bids.scan import Scan
from ssl2_bids.bids.selection import UNASKED, Choice, choose
from ssl2_bids.contrasts import SIMILAR
from ssl2_bids.errors import NothingSelectedError, Ssl2Error
from ssl2_bids.files import cannot_read, listing

log = logging.getLogger('ssl2_bids')

Item = TypeVar('Item')
Unit: TypeAlias = tuple[str, str | None]  # participant and session

THICK_SLICE = 2.0  # mm; a T1w with a longer voxel edge is a clinical 2D scan, read on FLAIR
FOLDERS = ('anat', 'fmap')  # of a session, with images; B1 maps lie in the latter
REPORT_SECONDS = 10.0  # between two lines of how far a long search is
WIDE_VOXEL = 4.0  # mm; beyond, the report warns of a 2D acquisition


@dataclass(frozen=True)
class Session:
    """One participant at one time: the unit of work.

    Attributes
    ----------
    scans : by contrast; those that will be used.
    reference : contrast whose grid the results lie on; empty if nothing can be done.
    dropped : pairs of file and reason.
    warnings : remarks on the choice, for the report.
    unusable : files left out because a run found that their voxels cannot be used, and why.
    broken : files left out because their headers cannot be read, and why.
    absent : images that would be used and sidecars, whose content was not downloaded.
    skipped : why there is nothing to do (images lacking), else empty.
    problem : what makes it impossible (an unreadable file), else None.
    """

    subject: str
    session: str | None
    scans: dict[str, Scan] = field(default_factory=dict)
    reference: str = ''
    dropped: tuple[tuple[Path, str], ...] = ()
    warnings: tuple[str, ...] = ()
    unusable: dict[Path, str] = field(default_factory=dict)
    broken: Mapping[Path, str] = field(default_factory=dict)
    absent: tuple[Path, ...] = ()
    skipped: str = ''
    problem: Ssl2Error | None = None

    @property
    def name(self) -> str:
        """``sub-X`` or ``sub-X_ses-Y``."""
        return unit_name(self.subject, self.session)


def find_sessions(
    bids_dir: Path,
    units: list[Unit],
    *,
    accepted: tuple[str, ...],
    required: tuple[tuple[str, ...], ...],
    filters: dict[str, dict[str, Any]] | None = None,
    contrasts: tuple[str, ...] | None = None,
    reference: str | None = None,
    unusable: Mapping[Path, str] | None = None,
    derivatives: Mapping[str, Path] | None = None,
    database_dir: Path | None = None,
) -> list[Session]:
    """Choose the images of each unit (participant, session).

    The rules are those of docs/how-to/choose-images.md.
    Headers of candidates are read, voxels are not.

    Parameters
    ----------
    accepted : contrasts (suffixes) that the model takes.
    required : alternatives, of which one must be complete for a session to be usable.
    filters : content of the filter file.
    contrasts, reference : contrast keys that the user asked for.
    unusable : files whose voxels were found to be unusable before, and why.
    derivatives : datasets with results of other programs, by name; see ``bids.given_datasets``.
    database_dir : folder with a database of pybids that has the names of all images.

    Raises
    ------
    NothingSelectedError : by the filters no session can be used, without them some could.
    """
    filters = {key: value for key, value in (filters or {}).items() if key in SUFFIXES_OF}
    listed = listed_images(bids_dir, database_dir) if database_dir else None
    problems: dict[Unit, Ssl2Error] = {}
    files = _images(bids_dir, sorted({subject for subject, _ in units}), problems, listed)
    if not unusable:
        _warn_of_spelling(bids_dir, units, files, filters)
    given = _given_images(derivatives or {}, units, files, problems)
    unused = unused_filters(files, filters)

    def sessions_by(filters: dict[str, dict[str, Any]]) -> Iterator[Session]:
        for unit in _reported(units, 'choosing images: %d of %d sessions'):
            with _noted(problems, unit, bids_dir):
                choice = choose(
                    [*files.get(unit, []), *given.get(unit, [])],
                    filters,
                    accepted=accepted,
                    wanted=contrasts,
                    reference=reference,
                    unusable=unusable,
                )
            if unit in problems:
                yield Session(*unit, problem=problems[unit])
                continue
            session = _session(*unit, choice, required, reference)
            if database_dir and session.skipped and not files.get(unit):
                stale = f'in the database {database_dir} (remove it to index the dataset again)'
                session = replace(session, skipped=f'{session.skipped} {stale}')
            left_out = dict(choice.dropped)
            met = {path: why for path, why in (unusable or {}).items() if path in left_out}
            yield replace(session, unusable=met)

    sessions = list(sessions_by(filters))
    if unusable:  # these sessions were reported before
        return sessions
    if read_description(bids_dir).get('DatasetType') == 'derivative':
        log.info('%s is a derivative dataset: images in their own space are used', bids_dir)
    if unused and not any(map(_usable, sessions)) and any(map(_usable, sessions_by({}))):
        raise NothingSelectedError(
            'no session can be used with the filter file: ' + '; '.join(unused),
            advice='Change the filter file or leave it out.',
        )
    for text in unused:
        log.warning('%s', text)
    return sessions


def _usable(session: Session) -> bool:
    return not session.skipped and session.problem is None


@contextmanager
def _noted(problems: dict[Unit, Ssl2Error], unit: Unit, path: Path) -> Iterator[None]:
    """Let an ``OSError`` of this context, of ``path`` or below, be the problem of a session."""
    try:
        yield
    except OSError as error:
        problems.setdefault(unit, cannot_read(error, error.filename or path))


def _images(
    bids_dir: Path,
    participants: list[str],
    problems: dict[Unit, Ssl2Error],
    listed: Mapping[Path, Mapping[Path, list[Path]]] | None = None,
) -> dict[Unit, list[dict[str, Any]]]:
    """Entities, path and metadata of every anatomical image, by participant and session.

    Names of folders above the dataset do not describe an image: pybids is given the path
    below the dataset alone.

    Parameters
    ----------
    listed : images of a database, see ``bids.database``; None lists the folders themselves.
    """
    entities_of = _entity_parser()
    inheritance = Inheritance(bids_dir)
    found: dict[Unit, list[dict[str, Any]]] = {}
    for label in _reported(participants, 'looking for images: %d of %d participants'):
        subject = bids_dir / f'sub-{label}'
        folders: Mapping[Path, list[Path] | None] = (listed or {}).get(subject, {})
        with _noted(problems, (label, None), subject):
            folders = dict.fromkeys(_image_folders(subject)) if listed is None else folders
        of_sessions = any(folder.parent != subject for folder in folders)
        for folder, known in folders.items():
            session = folder.parent.name[4:] if folder.parent.name.startswith('ses-') else None
            with _noted(problems, (label, session), folder):
                paths = listing(folder, 'sub-*.nii*') if known is None else existing(known)
                if not paths:
                    continue
                alone = None if session or of_sessions else _only_session(paths)
                images = [
                    _described(path, entities_of, inheritance)
                    for path in paths
                    if path.name.endswith(('.nii', '.nii.gz'))
                    and _belongs(path, label, session or alone)
                ]
                found.setdefault((label, session), []).extend(f for f in images if 'suffix' in f)
    return found


def _reported(items: Sequence[Item], text: str) -> Iterator[Item]:
    """The items, with a line of their number from time to time: thousands take a minute."""
    last = time.monotonic()
    for number, item in enumerate(items):
        if time.monotonic() - last > REPORT_SECONDS:
            log.info(text, number, len(items))
            last = time.monotonic()
        yield item


def _given_images(
    derivatives: Mapping[str, Path],
    units: list[Unit],
    raw: Mapping[Unit, Sequence[Mapping[str, Any]]],
    problems: dict[Unit, Ssl2Error],
) -> dict[Unit, list[dict[str, Any]]]:
    """The images of ``-d``, by participant and session."""
    if not derivatives:
        return {}
    entities_of = _entity_parser()
    sessions = Counter(
        subject
        for (subject, _), files in raw.items()
        if any(file.get('datatype', 'anat') == 'anat' for file in files)
    )
    found = {}
    for unit in units:
        with _noted(problems, unit, Path()):
            several = sessions[unit[0]] > 1
            found[unit] = given_images(derivatives, *unit, entities_of, several=several)
    return found


def _warn_of_spelling(
    bids_dir: Path,
    units: list[Unit],
    files: Mapping[Unit, list[dict[str, Any]]],
    filters: Mapping[str, dict[str, Any]],
) -> None:
    """Warn of images and folders that are named almost as BIDS names them, so are not found."""
    right = {name.lower(): name for names in SUFFIXES_OF.values() for name in names}
    right |= {'t2star': 'T2starw', **{name.lower(): name for name in FOLDERS}}
    wrong: dict[str, list[Path]] = {}
    for image in (image for unit in units for image in files.get(unit, [])):
        asked = any(matches(image, key, pattern) for key, pattern in filters.items())
        if image['suffix'] not in right.values() and image['suffix'].lower() in right:
            wrong.setdefault(image['suffix'], []).extend([] if asked else [image['path']])
    for subject, session in units:
        parent = bids_dir / f'sub-{subject}' / (f'ses-{session}' if session else '')
        for folder in _folders_of(parent):
            if folder.name not in FOLDERS and folder.name.lower() in FOLDERS:
                wrong.setdefault(folder.name, []).append(folder)
    for name, paths in ((name, paths) for name, paths in wrong.items() if paths):
        more = f' and {len(paths) - 1} more' if paths[1:] else ''
        log.warning(
            '%s%s: left out: "%s" is not a name of BIDS; rename it to "%s"',
            paths[0], more, name, right[name.lower()],
        )  # fmt: skip


def _belongs(path: Path, label: str, session: str | None) -> bool:
    """Whether an image has the name of its folder's participant and session; else a warning."""
    name = re.fullmatch(r'sub-(.+?)(?:_ses-([^_]+))?_.*', path.name)
    found = (name[1], name[2]) if name else ('', None)
    named = path.name.startswith(f'sub-{label}_') and found[1] in (None, session)
    more = '.' in stem(path).rpartition('_')[2]  # sub-01_T1w.bak.nii.gz; labels may have a dot
    if named and not more:
        return True
    reason = 'the file name belongs to another participant or session'
    if named:
        reason = 'not a BIDS name: a dot follows the suffix'
    elif found[0] == label and session is None:
        reason = f'it is named after ses-{found[1]}, but lies in no folder ses-{found[1]}'
    log.warning('%s: left out: %s', path, reason)
    return False


def _only_session(paths: list[Path]) -> str | None:
    """The session that all images of a participant without session folders name, if any."""
    names = [path.name for path in paths if is_image_name(path.name)]
    found = {match and match[1] for match in (re.search('_ses-([^_]+)_', name) for name in names)}
    return found.pop() if len(found) == 1 else None


def _folders_of(parent: Path) -> list[Path]:
    """The folders of a participant or session; none where it cannot be read: that is reported."""
    try:
        return sorted(filter(os.path.isdir, parent.iterdir())) if parent.is_dir() else []
    except PermissionError:
        return []


def _image_folders(subject: Path) -> list[Path]:
    """``anat`` and ``fmap`` of a participant and of its sessions, where there are such."""
    parents = (subject, *listing(subject, 'ses-?*'))
    return [parent / name for parent in parents for name in FOLDERS]


def _entity_parser() -> Callable[[Path], dict[str, str]]:
    """A function from a path below the dataset to its entities, as pybids reads them."""
    from bids.layout import Config, parse_file_entities

    patterns = {
        entity.name: entity
        for name in ('bids', 'derivatives')
        for entity in Config.load(name).entities.values()
    }

    def read(relative: Path) -> dict[str, str]:
        found = parse_file_entities(f'/{relative.as_posix()}', entities=patterns.values())
        # as written: run-01 is not run-1 in a file name
        written = dict(part.split('-', 1) for part in stem(relative).split('_') if '-' in part)
        return {k: str(v) for k, v in found.items()} | (
            {'run': written['run']} if 'run' in found and 'run' in written else {}
        )

    return read


def _described(
    path: Path, entities_of: Callable[[Path], dict[str, str]], inheritance: Inheritance
) -> dict[str, Any]:
    metadata, problems = inheritance.metadata_for(path)
    found = {'path': path, 'metadata': metadata, 'sidecar_problems': problems}
    return {**entities_of(path.relative_to(inheritance.root)), **found}


def _session(
    subject: str,
    session: str | None,
    choice: Choice,
    required: tuple[tuple[str, ...], ...],
    reference: str | None,
) -> Session:
    scans = {scan.contrast: scan for scan in choice.picked}
    result = Session(
        subject,
        session,
        scans,
        '',
        choice.dropped,
        choice.warnings,
        broken=choice.broken,
        absent=choice.absent,
    )
    if choice.final_problems:
        return replace(result, problem=choice.final_problems[0])
    channels = {contrast: scan for contrast, scan in scans.items() if scan.channel}
    have = set(channels).union(*(p for p in SIMILAR.items() if channels.keys() & set(p)))
    if not any(set(alternative) <= have for alternative in required):
        if choice.problems:
            return replace(result, problem=choice.problems[0])
        wanted = ' or '.join(' with '.join(alternative) for alternative in required)
        found = ', '.join(channels) or 'no usable image'
        unasked = ', '.join(path.name for path, why in choice.dropped if why == UNASKED)
        more = f'; {UNASKED}: {unasked}' if unasked else ''
        return replace(result, skipped=f'the model needs {wanted}; found: {found}{more}')
    if all(scan.shared for scan in channels.values()):
        return replace(result, skipped='the session has no images of its own')
    if reference and (wanted_suffix := SUFFIXES_OF[reference][0]) not in channels:
        for problem in choice.problems:  # it is there, but cannot be used
            if f'_{wanted_suffix}.nii' in str(problem.path):
                return replace(result, problem=problem)
        return replace(result, skipped=f'no {wanted_suffix} image, which --reference requires')
    chosen = SUFFIXES_OF[reference][0] if reference else choose_reference(channels)
    warnings = list(choice.warnings)
    if (template := scans.get('T1w')) and template.shared and template.channel:
        warnings.append(
            f'the T1w of {template.dataset} is one image of all sessions: changes between '
            'sessions are averaged in it'
        )
    for scan in scans.values():
        if max(scan.spacing) > WIDE_VOXEL:
            warnings.append(
                f'{scan.contrast}: 2D acquisition with slices of {max(scan.spacing):.1f} mm; '
                'small lesions may be missed'
            )
    return replace(result, scans=scans, reference=chosen, warnings=tuple(warnings))


def choose_reference(scans: dict[str, Scan]) -> str:
    """UNIT1, else T1w, else FLAIR; FLAIR where the T1w is thick and FLAIR is not thicker.

    A T1w of all sessions goes before FLAIR: results of all sessions then lie on one grid.
    """
    if 'UNIT1' in scans:
        return 'UNIT1'
    if 'T1w' not in scans:
        return 'FLAIR' if 'FLAIR' in scans else next(iter(scans))
    if scans['T1w'].shared:
        return 'T1w'
    if 'FLAIR' in scans:
        t1w, flair = max(scans['T1w'].spacing), max(scans['FLAIR'].spacing)
        if t1w > THICK_SLICE and flair <= t1w + 1e-3:
            return 'FLAIR'
    return 'T1w'
