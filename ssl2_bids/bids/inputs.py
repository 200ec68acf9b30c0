"""From a BIDS dataset to the images of each session (pybids lives here and nowhere else)."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ssl2_bids.bids.selection import SUFFIXES, Choice, choose, describe_filter, matches
from ssl2_bids.errors import DataError, NothingSelectedError, Ssl2Error
from ssl2_bids.volume import read_grid

log = logging.getLogger('ssl2_bids')

THICK_SLICE = 2.0  # mm; a T1w with a longer voxel edge is a clinical 2D scan, read on FLAIR
WIDE_VOXEL = 4.0  # mm; beyond, the report warns of a 2D acquisition
NOT_INDEXED = r'/(derivatives|sourcedata|code|stimuli|models|\.[^/]+)(/|$)'
NOT_ANATOMY = r'/(func|dwi|fmap|perf|eeg|meg|ieeg|beh|pet|micr|nirs|motion|mrs)(/|$)'


@dataclass(frozen=True)
class Scan:
    """One image that is used, of one contrast.

    Attributes
    ----------
    contrast : its suffix (``FLAIR``, ``T1w``, ``UNIT1``, ``T2w``, ``T2starw``).
    paths : the image, or its echoes.
    inversions : INV1 and INV2 of an MP2RAGE, magnitude; empty otherwise.
    entities : entities of the file name, without subject and session.
    metadata : sidecar keys, inherited ones included.
    spacing : voxel edges in mm, from the header; empty if it cannot be read.
    """

    contrast: str
    paths: tuple[Path, ...]
    entities: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    inversions: tuple[Path, ...] = ()
    spacing: tuple[float, ...] = ()

    @property
    def sources(self) -> tuple[Path, ...]:
        """Every raw file that this image is made from."""
        return self.paths + self.inversions


@dataclass(frozen=True)
class Session:
    """One participant at one time: the unit of work.

    Attributes
    ----------
    scans : by contrast; those that will be used.
    reference : contrast whose grid the results lie on; empty if nothing can be done.
    dropped : pairs of file and reason.
    warnings : what a reader of the report should know about the choice.
    skipped : why there is nothing to do (images lacking), else empty.
    problem : what makes it impossible (an unreadable file), else None.
    """

    subject: str
    session: str | None
    scans: dict[str, Scan] = field(default_factory=dict)
    reference: str = ''
    dropped: tuple[tuple[Path, str], ...] = ()
    warnings: tuple[str, ...] = ()
    skipped: str = ''
    problem: Ssl2Error | None = None

    @property
    def name(self) -> str:
        """``sub-X`` or ``sub-X_ses-Y``."""
        return f'sub-{self.subject}' + (f'_ses-{self.session}' if self.session else '')


def find_sessions(
    bids_dir: Path,
    units: list[tuple[str, str | None]],
    *,
    accepted: tuple[str, ...],
    required: tuple[tuple[str, ...], ...],
    filters: dict[str, dict[str, Any]] | None = None,
    contrasts: tuple[str, ...] | None = None,
    reference: str | None = None,
) -> list[Session]:
    """Choose the images of each unit (participant, session) by the rules of BIDS.md 1.2.

    Parameters
    ----------
    accepted : contrasts (suffixes) that the model takes.
    required : alternatives, of which one must be complete for a session to be usable.
    filters : content of the filter file.
    contrasts, reference : contrast keys that the user asked for.

    Raises
    ------
    NothingSelectedError : a filter matches no file, where without it some would be there.
    """
    filters = {key: value for key, value in (filters or {}).items() if key in SUFFIXES}
    participants = sorted({subject for subject, _ in units})
    broken = _broken_sidecars(bids_dir, participants)
    files = _index(bids_dir, participants, tuple(broken))
    _check_filters(files, filters)
    sessions = []
    for subject, session in units:
        candidates = [f for f in files if f['subject'] == subject and f.get('session') == session]
        choice = choose(candidates, filters, accepted=accepted, wanted=contrasts)
        sessions.append(_session(subject, session, choice, required, reference, broken))
    return sessions


def _index(
    bids_dir: Path, participants: list[str], broken: tuple[Path, ...]
) -> list[dict[str, Any]]:
    """Entities, path and metadata of every anatomical image of the asked participants."""
    from bids import BIDSLayout, BIDSLayoutIndexer

    others = '|'.join(re.escape(p) for p in participants)
    ignore = [
        re.compile(NOT_INDEXED),
        re.compile(NOT_ANATOMY),
        re.compile(rf'^/?(?!sub-({others})(/|$))sub-'),
        *(re.compile(re.escape('/' + p.relative_to(bids_dir).as_posix()) + '$') for p in broken),
    ]
    indexer = BIDSLayoutIndexer(validate=False, ignore=ignore, index_metadata=True)
    layout = BIDSLayout(bids_dir, validate=False, indexer=indexer)
    found = []
    for entry in layout.get(extension=['.nii', '.nii.gz'], datatype='anat'):
        entities = entry.get_entities()
        found.append(
            {
                **{k: v if k == 'suffix' else str(v) for k, v in entities.items()},
                'path': Path(entry.path),
                'metadata': dict(entry.get_metadata()),
            }
        )
    return sorted(found, key=lambda f: f['path'].name)


def _broken_sidecars(bids_dir: Path, participants: list[str]) -> dict[Path, str]:
    """JSON files that apply to the asked participants and cannot be read, with the reason."""
    candidates = list(bids_dir.glob('*.json'))
    for label in participants:
        folder = bids_dir / f'sub-{label}'
        candidates += [*folder.glob('*.json'), *folder.glob('ses-*/*.json')]
        candidates += [*folder.glob('anat/*.json'), *folder.glob('ses-*/anat/*.json')]
    broken = {}
    for path in candidates:
        try:
            if not isinstance(json.loads(path.read_text(encoding='utf-8')), dict):
                raise ValueError('not an object with keys')
        except FileNotFoundError:
            broken[path] = 'its content is absent; run "datalad get" on it'
        except (ValueError, OSError) as error:
            broken[path] = str(error)
    return broken


def _check_filters(files: list[dict[str, Any]], filters: dict[str, dict[str, Any]]) -> None:
    for key, pattern in filters.items():
        if any(matches(f, key, pattern) for f in files):
            continue
        plain = [f['path'].name for f in files if f['suffix'] in SUFFIXES[key]]
        if not plain and 'suffix' not in pattern:
            continue
        near = ', '.join(plain[:4]) if plain else 'no such image without it either'
        raise NothingSelectedError(
            f'the filter for "{key}" selects nothing: {describe_filter(key, pattern)}',
            advice=f'Without it there are: {near}.',
        )


def _session(
    subject: str,
    session: str | None,
    choice: Choice,
    required: tuple[tuple[str, ...], ...],
    reference: str | None,
    broken: dict[Path, str],
) -> Session:
    scans = {
        c.suffix: Scan(c.suffix, c.paths, c.entities, c.metadata, c.inversions)
        for c in choice.picked
    }
    result = Session(subject, session, scans, '', choice.dropped, choice.warnings)
    t1_like = {'UNIT1', 'T1w'} & set(scans)
    have = set(scans) | ({'T1w', 'UNIT1'} if t1_like else set())
    if not any(set(alternative) <= have for alternative in required):
        wanted = ' or '.join(' with '.join(alternative) for alternative in required)
        found = ', '.join(scans) or 'no usable image'
        return replace(result, skipped=f'the model needs {wanted}; found: {found}')
    try:
        _check_sidecars(scans, broken)
        scans = {name: _with_header(scan) for name, scan in scans.items()}
    except Ssl2Error as error:
        return replace(result, problem=error)
    if reference and (wanted_suffix := SUFFIXES[reference][0]) not in scans:
        return replace(result, skipped=f'it has no {wanted_suffix}, which --reference asks for')
    chosen = SUFFIXES[reference][0] if reference else choose_reference(scans)
    warnings = list(choice.warnings)
    for scan in scans.values():
        if max(scan.spacing) > WIDE_VOXEL:
            warnings.append(
                f'{scan.contrast}: 2D acquisition with slices of {max(scan.spacing):.1f} mm; '
                'small lesions may be missed'
            )
    return replace(result, scans=scans, reference=chosen, warnings=tuple(warnings))


def choose_reference(scans: dict[str, Scan]) -> str:
    """UNIT1, else T1w, else FLAIR; FLAIR where the T1w is thick and FLAIR is not thicker."""
    if 'UNIT1' in scans:
        return 'UNIT1'
    if 'T1w' not in scans:
        return 'FLAIR' if 'FLAIR' in scans else next(iter(scans))
    if 'FLAIR' in scans:
        t1w, flair = max(scans['T1w'].spacing), max(scans['FLAIR'].spacing)
        if t1w > THICK_SLICE and flair <= t1w + 1e-3:
            return 'FLAIR'
    return 'T1w'


def _with_header(scan: Scan) -> Scan:
    """The scan with its voxel sizes; raises DataError for files that cannot be used at all."""
    for path in scan.sources:
        if path.stat().st_size == 0:
            raise DataError('the file is empty', advice='Copy it again.', path=path)
    _, affine = read_grid(scan.paths[0])
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return replace(scan, spacing=tuple(float(s) for s in spacing))


def _check_sidecars(scans: dict[str, Scan], broken: dict[Path, str]) -> None:
    """Raise for a broken JSON that would apply to a used image by the inheritance principle."""
    for scan in scans.values():
        for path in scan.sources:
            parts = set(path.name.split('.')[0].split('_'))
            for sidecar, reason in broken.items():
                applies = set(sidecar.name.split('.')[0].split('_')) <= parts
                if applies and path.is_relative_to(sidecar.parent):
                    raise DataError(
                        f'not readable JSON ({reason})',
                        advice='Mend or remove the file.',
                        path=sidecar,
                    )
