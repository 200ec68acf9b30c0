r"""Manual lesion masks, by the names that people give them; and the masks of this App.

``P`` is ``sub-X[_ses-Y]`` with any other entities; ``_cohort-C`` may follow ``S``. A consensus of
raters goes before what is drawn by hand, that before what is automatic (``Manual: false``); then
the first pattern wins:

=  ==========================================================  ================================
1  ``P[_space-S][_res-R]_label-{L,lesion}[_desc-D]_mask``      BIDS; ATLAS R2.0; LST-AI_BIDS
2  ``P[_space-S]_desc-{lesion,lesions,manual}_mask``           OpenNeuro ds004889; BEP003 drafts
3  ``P_<suffix>_desc-lesion_mask``                             OpenNeuro ds004884
4  ``P[_<suffix>][_desc-raterN]_label-lesion_seg``,            NeuroPoly, Spinal Cord Toolbox
   ``P[_<suffix>]_lesion-manual[N]``
5  ``P[_T1w]_label-lesion_roi``                                fMRIPrep cost-function masking
6  ``P[_space-S]_seg-*[_desc-D]_dseg`` with a ``dseg.tsv``     sparse labels of three values
=  ==========================================================  ================================

A three-valued file (6, with a value for "not annotated") has priority over all others: it has
more information. Several files of one pattern for one image are several raters. Only this module
and ``outputs`` know such names.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl2_bids.bids.absent import absent_content, is_absent
from ssl2_bids.bids.dataset import is_own_dataset, read_table
from ssl2_bids.bids.filters import LONG_NAMES, entities_agree
from ssl2_bids.bids.inheritance import Inheritance, session_of_folder, stem
from ssl2_bids.bids.label_ranking import alike, left_out_lines, those_that_count
from ssl2_bids.errors import DataError, NoInputError
from ssl2_bids.files import check_folder, files_below, listing, reading
from ssl2_bids.steps.annotation import LESION, meaning

log = logging.getLogger('ssl2_bids')

_HEAD = (
    r'(?P<head>sub-(?P<subject>[^_]+)(?:_ses-(?P<session>[^_]+))?'
    r'(?P<entities>(?:_(?!space-|res-|label-|desc-|seg-|lesion-)[a-z0-9]+-[^_]+)*)'
    r'(?:_space-(?P<space>[^_]+)(?:_cohort-[^_]+)?)?(?:_res-[^_]+)?)'
)
_KEPT = r'_(?P<kept>[A-Za-z0-9]+)'
_LABEL = r'_label-(?P<label>L|lesion)'
_DESC = r'_desc-(?P<desc>(?!(?:brain|change|annotated)_)[^_]+)'
LAYOUTS = tuple(
    (number, re.compile(rf'{_HEAD}{tail}\.nii(?:\.gz)?'))
    for number, tail in (
        (1, rf'{_LABEL}(?:{_DESC})?_mask'),
        (2, r'_desc-(?P<desc>lesions?|manual)_mask'),
        (3, rf'{_KEPT}_desc-(?P<desc>lesion)_mask'),
        (4, rf'(?:{_KEPT})?(?:{_DESC})?{_LABEL}_seg'),
        (4, rf'(?:{_KEPT})?_lesion-manual(?P<desc>[^_.]*)'),
        (5, rf'(?:{_KEPT})?{_LABEL}_roi'),
        (6, rf'_seg-(?P<seg>[^_]+)(?:{_DESC})?_dseg'),
    )
)
MASK = re.compile(
    r'sub-(?P<subject>[^_]+)(?:_ses-(?P<session>[^_]+))?_space-(?P<space>(?!within_)[^_]+)'
    r'(?:_cohort-[^_]+)?(?:_res-[^_]+)?_label-L(?:_desc-(?P<desc>(?!annotated_|change_)[^_]+))?_mask\.nii(?:\.gz)?'
)
OWN_RESULT = 'a result of ssl2-bids, not a manual mask (else write "Manual": true in its JSON)'
_TISSUE = re.compile('^(?:wm|gm|csf)$|(?:white|gr[ae]y).?matter', re.IGNORECASE)
_OF_LESIONS = re.compile(r'lesion|wmh|^ms(?:$|seg)', re.IGNORECASE)  # what seg- names
_OF_ONE = re.compile('(?:sub|ses)-.')
_LIKE_A_MASK = re.compile(
    r'^(?!.*(?:brain|annotated|ambiguous|change|label-(?!L_|lesion)|probseg)).*'
    r'(?:lesion|(?:mask|seg|roi|label)\.)',
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Label:
    """A manual label of one rater for one image.

    Attributes
    ----------
    session, space : None where the name has none.
    kept_suffix : suffix of the image it was drawn on, where the name keeps it (``FLAIR``).
    entities : further entities of the image, e.g. ``_acq-space_run-2``.
    desc : ``desc-`` or what follows ``lesion-manual``: rater or kind.
    pattern : number in the table above.
    sidecar : its JSON, with what it inherits from the root of the dataset.
    extent_path : mask of the annotated extent.
    dseg_table : rows of the ``dseg.tsv``.
    """

    subject: str
    session: str | None
    path: Path
    pattern: int
    space: str | None = None
    kept_suffix: str | None = None
    entities: str = ''
    desc: str | None = None
    sidecar: dict[str, Any] = field(default_factory=dict)
    extent_path: Path | None = None
    dseg_table: tuple[dict[str, str], ...] | None = None

    @property
    def image(self) -> tuple[str, str, str]:
        """What identifies an image of a session: raters share it."""
        return self.space or '', self.entities, self.kept_suffix or ''


@dataclass(frozen=True)
class Mask:
    """A lesion mask that this App made; ``desc`` is the model's label, None for the default."""

    subject: str
    session: str | None
    space: str
    desc: str | None
    path: Path


@dataclass(frozen=True)
class FoundLabels:
    """The labels of a folder that count, and what else was seen there.

    Attributes
    ----------
    left_out : labels that cannot or must not be used, with the reason.
    superseded : those that others go before, with the reason.
    unknown : files that look like masks, by names that are not understood.
    """

    labels: tuple[Label, ...]
    left_out: tuple[tuple[Path, str], ...] = ()
    superseded: tuple[tuple[Path, str], ...] = ()
    unknown: tuple[Path, ...] = ()


def find_labels(
    folder: Path,
    *,
    participants: Iterable[str] | None = None,
    pattern: Mapping[str, Any] | None = None,
) -> list[Label]:
    """Find the labels of a dataset that count, sorted by participant, session and name.

    What is left out is named in the log; see :func:`look_for_labels`.
    """
    found = look_for_labels(folder, participants=participants, pattern=pattern)
    for text in left_out_lines(found.left_out, folder):
        log.warning('%s', text)
    for text in alike((path, f'not used: {reason}') for path, reason in found.superseded):
        log.info('%s: %s', folder, text)
    if found.unknown:
        names = ', '.join(path.name for path in found.unknown[:5])
        more = f' and {len(found.unknown) - 5} more' if found.unknown[5:] else ''
        log.warning(
            'file names that are not recognised as lesion masks: %s%s '
            '(docs/reference/manual-masks.md lists the recognised names)',
            names,
            more,
        )
    return list(found.labels)


def look_for_labels(
    folder: Path,
    *,
    participants: Iterable[str] | None = None,
    pattern: Mapping[str, Any] | None = None,
) -> FoundLabels:
    """Find the manual labels of a dataset.

    A label that cannot be used (a link without content, an unreadable JSON or table, numbers
    without a table, a result of this App) is left out. Of a session, a consensus goes first, then
    what is drawn by hand, then what is automatic; then the first pattern.

    Parameters
    ----------
    folder : a derivative dataset of labels, or a raw one that holds them in ``anat/``.
    participants : labels without ``sub-``; None is all.
    pattern : what ``labels`` of a filter file asks for, before any goes before another.

    Raises
    ------
    NoInputError : there is no such folder, it is that of one participant, or it holds nothing
        but results of this App.
    """
    inheritance = Inheritance(folder)
    ours = is_own_dataset(folder)
    units: dict[tuple[str, str], list[Label]] = {}
    left_out: list[tuple[Path, str]] = []
    superseded: list[tuple[Path, str]] = []
    unknown: list[Path] = []
    own = 0
    for path in _images(folder, participants):
        try:
            label = _as_label(path, inheritance)
        except DataError as error:
            where = f'{error.path}: ' if error.path else ''
            left_out.append((path, f'{where}{error.message}. {error.advice}'.rstrip('. ')))
            continue
        if label is None:
            if _LIKE_A_MASK.search(path.name) and not ours and not _of_tissues(path, inheritance):
                unknown.append(path)
        elif is_own(label.sidecar, ours=ours):
            own += 1
            left_out.append((path, OWN_RESULT))
        elif not entities_agree(_entities(label), pattern or {}):
            superseded.append((path, 'left out by the filter file'))
        else:
            units.setdefault((label.subject, label.session or ''), []).append(label)
    if own and own == len(left_out) and not units:
        raise NoInputError(
            'these are results of ssl2-bids itself, not manual labels',
            advice='Give the folder of the manual masks; for a corrected mask of ssl2-bids write '
            '"Manual": true in its JSON.',
            path=folder,
        )
    found: list[Label] = []
    for _, labels in sorted(units.items()):
        counting, others = those_that_count(labels)
        found += counting
        superseded += [(label.path, reason) for label, reason in others]
    return FoundLabels(tuple(found), tuple(left_out), tuple(superseded), tuple(unknown))


def _entities(label: Label) -> dict[str, str | None]:
    """Entities of a label's name, long names; ``desc`` is also what follows lesion-manual."""
    *pairs, suffix = stem(label.path).split('_')
    written = dict(pair.split('-', 1) for pair in pairs if '-' in pair)
    return {LONG_NAMES.get(k, k): v for k, v in written.items()} | {
        'suffix': suffix,
        'desc': label.desc,
        'session': label.session,
    }


def is_own(sidecar: Mapping[str, Any], *, ours: bool = False) -> bool:
    """Whether this App made a mask: by its sidecar, or by where it lies (``ours``).

    A mask that was corrected by hand has ``Manual: true``, and is not the App's any more.
    """
    if sidecar.get('Manual') is True:
        return False
    model = sidecar.get('Model')
    made = 'ConfigurationHash' in sidecar or (isinstance(model, dict) and 'Sha256' in model)
    return ours or made


def find_masks(dataset: Path, model: str | None = None) -> list[Mask]:
    """Find the lesion masks of one model in an output folder of this App.

    Those whose content is absent (see :func:`~ssl2_bids.bids.absent.is_absent`) are among them.

    Parameters
    ----------
    model : label of the model (``desc-``); None is the default bundled one, without ``desc-``.

    Raises
    ------
    NoInputError : there is no such folder, or no mask of this model in it.
    """
    masks = []
    for path in _images(dataset, None):
        match = MASK.fullmatch(path.name)
        if match:
            masks.append(
                Mask(match['subject'], match['session'], match['space'], match['desc'], path)
            )
    chosen = [mask for mask in masks if mask.desc == model]
    if not chosen:
        others = sorted({mask.desc or 'the default model' for mask in masks})
        raise NoInputError(
            f'no lesion mask of {f"the model {model}" if model else "the default model"}',
            advice=f'There are masks of: {", ".join(others)}.'
            if others
            else 'Give the output folder of ssl2-bids; its masks are named '
            'sub-*_space-*_label-L_mask.nii.gz.',
            path=dataset,
        )
    return chosen


def _images(folder: Path, participants: Iterable[str] | None) -> list[Path]:
    """NIfTI files in folders ``sub-*`` or named so; of a pair .nii and .nii.gz the latter."""
    check_folder(folder)
    wanted = None if participants is None else {f'sub-{p}' for p in participants}
    found: dict[Path, Path] = {}
    with reading(folder):
        for subject in listing(folder, 'sub-*'):
            if wanted is None or re.split(r'[_.]', subject.name)[0] in wanted:
                below = files_below(subject, '[!.]*.nii*', strict=True)
                images = below if subject.is_dir() else [subject]
                for path in sorted(p for p in images if p.name.endswith(('.nii', '.nii.gz'))):
                    found[path.with_name(stem(path))] = path
        if not found:
            _check_not_of_one(folder)
    return list(found.values())


def _check_not_of_one(folder: Path) -> None:
    """Check that a folder without images is not that of a participant or session, with some."""
    above = next(p for p in (folder.resolve() / 'x').parents if not _OF_ONE.match(p.name))
    if above != folder.resolve() and files_below(folder, 'sub-*.nii*'):
        raise NoInputError(
            'this is the folder of one participant or session',
            advice=f'Give the folder above the participants, {above}.',
            path=folder,
        )


def _as_label(path: Path, inheritance: Inheritance) -> Label | None:
    matches = ((number, expression.fullmatch(path.name)) for number, expression in LAYOUTS)
    pattern, match = next(((n, m) for n, m in matches if m), (0, None))
    if match is None:
        return None
    part = match.groupdict()
    below = path.relative_to(inheritance.root)
    person, around = re.split(r'[_.]', below.parts[0])[0], session_of_folder(below)
    for named, lies_in, folder in (
        (f'sub-{part["subject"]}', person, below.parts[0]),
        (f'ses-{part["session"] or around}', f'ses-{around or part["session"]}', f'ses-{around}'),
    ):
        if named != lies_in:
            raise DataError(
                f'it is named after {named}, but lies in the folder {folder}',
                advice='Correct one of both.',
                path=path,
            )
    extent = _extent_path(path, part)
    tables = inheritance.files_for(path, '.tsv') if pattern == 6 else []
    for needed in (path, *([extent] if extent else []), *tables):
        if is_absent(needed):
            raise absent_content(needed, inheritance.root)
    sidecar, problems = inheritance.metadata_for(path)
    if problems:
        raise problems[0]  # where the label was drawn at all may stand there
    table = _dseg_table(tables[-1]) if tables else None
    if pattern == 6 and 'AnnotationEncoding' not in sidecar and not _has_lesion(table):
        if tables or is_own(sidecar) or not _OF_LESIONS.search(part['seg'] or ''):
            return None
        raise DataError(
            f'the meaning of its values is unknown: its table {stem(path)}.tsv is missing',
            advice='Add the table, or give a mask of 0 and 1 a name that ends in '
            '_label-lesion_mask',
        )
    return Label(
        subject=part['subject'],
        session=part['session'] or around,
        path=path,
        pattern=pattern,
        space=part['space'],
        kept_suffix=part.get('kept'),
        entities=part['entities'],
        desc=part.get('desc') or None,
        sidecar=sidecar,
        extent_path=extent,
        dseg_table=table,
    )


def _of_tissues(path: Path, inheritance: Inheritance) -> bool:
    """Whether a segmentation has a table that names tissues: no lesion mask by another name."""
    if not path.name.split('.')[0].endswith('_dseg'):
        return False
    rows = [row for table in inheritance.files_for(path, '.tsv') for row in read_table(table)]
    return any(_TISSUE.search(row.get('name', '')) for row in rows)


def _has_lesion(table: Sequence[dict[str, str]] | None) -> bool:
    return any(meaning(row) == LESION for row in table or ())


def _dseg_table(path: Path) -> tuple[dict[str, str], ...]:
    rows = read_table(path)
    if rows and not {'index', 'name'} <= set(rows[0]):
        raise DataError('the table has no columns "index" and "name"', path=path)
    return tuple(rows)


def _extent_path(path: Path, part: dict[str, str | None]) -> Path | None:
    kept = f'_{part["kept"]}' if part.get('kept') else ''
    labels = dict.fromkeys((f'_label-{part.get("label") or "L"}', '_label-L', '_label-lesion', ''))
    for head in dict.fromkeys((f'{part["head"]}{kept}', f'{part["head"]}')):
        for label in labels:
            for extension in ('.nii.gz', '.nii'):
                candidate = path.with_name(f'{head}{label}_desc-annotated_mask{extension}')
                if candidate.exists() or candidate.is_symlink():
                    return candidate
    return None
