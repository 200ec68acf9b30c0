r"""Manual lesion masks, by the names that people give them; and the masks of this App.

``P`` is ``sub-X[_ses-Y]`` with any other entities; the first pattern that a session has, wins:

=  ==========================================================  ================================
1  ``P[_space-S][_res-R]_label-{L,lesion}[_desc-D]_mask``      BIDS; ATLAS R2.0; LST-AI_BIDS
2  ``P[_space-S]_desc-{lesion,lesions,manual}_mask``           OpenNeuro ds004889; BEP003 drafts
3  ``P_<suffix>_desc-lesion_mask``                             OpenNeuro ds004884
4  ``P[_<suffix>][_desc-raterN]_label-lesion_seg``,            NeuroPoly, Spinal Cord Toolbox
   ``P[_<suffix>]_lesion-manual[N]``
5  ``P[_T1w]_label-lesion_roi``                                fMRIPrep cost-function masking
6  ``P[_space-S]_seg-*[_desc-D]_dseg`` with a ``dseg.tsv``     sparse labels of three values
=  ==========================================================  ================================

A three-valued file (6, with a value for "not annotated") goes before all others: it says more.
Several files of one pattern for one image are several raters. This module and ``outputs`` are
the only ones that know such names.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl2_bids.bids.dataset import read_table
from ssl2_bids.errors import DataError, NoInputError
from ssl2_bids.steps.annotation import LESION, NOT_ANNOTATED, meaning

log = logging.getLogger(__name__)

_HEAD = (
    r'(?P<head>sub-(?P<subject>[^_]+)(?:_ses-(?P<session>[^_]+))?'
    r'(?P<entities>(?:_(?!space-|res-|label-|desc-|seg-|lesion-)[a-z0-9]+-[^_]+)*)'
    r'(?:_space-(?P<space>[^_]+))?(?:_res-[^_]+)?)'
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
    r'sub-(?P<subject>[^_]+)(?:_ses-(?P<session>[^_]+))?_space-(?P<space>[^_]+)(?:_res-[^_]+)?'
    r'_label-L(?:_desc-(?P<desc>(?!annotated_|change_)[^_]+))?_mask\.nii(?:\.gz)?'
)
_EXTENSION = re.compile(r'\.nii(\.gz)?$')


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
    extent_path : mask of where the image was judged.
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
        """What tells one image of a session from another: raters share it."""
        return self.space or '', self.entities, self.kept_suffix or ''


@dataclass(frozen=True)
class Mask:
    """A lesion mask that this App made; ``desc`` is the model's label, None for the default."""

    subject: str
    session: str | None
    space: str
    desc: str | None
    path: Path


def find_labels(folder: Path, *, participants: Iterable[str] | None = None) -> list[Label]:
    """Find the manual labels of a dataset, sorted by participant, session and name.

    Links without content and labels whose extent mask has none are left out with a warning in
    the log.

    Parameters
    ----------
    folder : a derivative dataset of labels, or a raw one that holds them in ``anat/``.
    participants : labels without ``sub-``; None is everybody.

    Raises
    ------
    NoInputError : there is no such folder.
    DataError : a JSON or TSV file of a label cannot be read.
    """
    root = _root_files(folder)
    units: dict[tuple[str, str], list[Label]] = {}
    for path in _images(folder, participants):
        label = _as_label(path, root)
        if label:
            units.setdefault((label.subject, label.session or ''), []).append(label)
    found = []
    for _, labels in sorted(units.items()):
        best = min(_precedence(label) for label in labels)
        found += [label for label in labels if _precedence(label) == best]
    return found


def find_masks(dataset: Path, model: str | None = None) -> list[Mask]:
    """Find the lesion masks of one model in an output folder of this App.

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
        if match and path.exists():
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
    """NIfTI files below ``sub-*``; of a pair .nii and .nii.gz the latter alone."""
    if not folder.is_dir():
        raise NoInputError('no such folder', advice='Check the path.', path=folder)
    wanted = None if participants is None else {f'sub-{p}' for p in participants}
    found: dict[Path, Path] = {}
    for subject in sorted(folder.glob('sub-*')):
        if wanted is None or subject.name in wanted:
            for path in sorted(subject.rglob('sub-*.nii*')):
                found[path.with_name(_stem(path))] = path
    return list(found.values())


def _as_label(path: Path, root: list[Path]) -> Label | None:
    matches = ((number, expression.fullmatch(path.name)) for number, expression in LAYOUTS)
    pattern, match = next(((n, m) for n, m in matches if m), (0, None))
    if match is None:
        return None
    part = match.groupdict()
    extent = _extent_path(path, part)
    sidecars = _inherited(path, '.json', root)
    tables = _inherited(path, '.tsv', root) if pattern == 6 else []
    for needed in (path, *([extent] if extent else []), *sidecars, *tables):
        if needed.is_symlink() and not needed.exists():
            log.warning('%s: link without content ("datalad get"): label left out', needed)
            return None
    sidecar: dict[str, Any] = {}
    for source in sidecars:
        sidecar |= _read_json(source)
    table = _dseg_table(tables[-1]) if tables else None
    if pattern == 6 and 'AnnotationEncoding' not in sidecar and not _has_lesion(table):
        return None
    return Label(
        subject=part['subject'],
        session=part['session'],
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


def _precedence(label: Label) -> int:
    rows = label.dseg_table or ()
    return 0 if any(meaning(row) == NOT_ANNOTATED for row in rows) else label.pattern


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


def _stem(path: Path) -> str:
    return _EXTENSION.sub('', path.name)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding='utf-8-sig'))
        if not isinstance(content, dict):
            raise ValueError('not an object')
    except (ValueError, OSError) as error:
        raise DataError(
            f'not readable JSON ({error})', advice='Mend the file or remove it.', path=path
        ) from None
    return content


def _root_files(folder: Path) -> list[Path]:
    """JSON and TSV files at the root of a dataset, from which labels inherit."""
    return sorted([*folder.glob('*.json'), *folder.glob('*.tsv')])


def _inherited(image: Path, extension: str, root: list[Path]) -> list[Path]:
    """Files that apply to an image, the closest last; links without content among them."""
    parts = _stem(image).split('_')
    applicable = []
    for path in root:
        own = path.stem.split('_')
        if path.suffix == extension and own[-1] == parts[-1] and set(own) <= set(parts):
            applicable.append((len(own), path))
    beside = image.with_name(_stem(image) + extension)
    present = beside.exists() or beside.is_symlink()
    return [path for _, path in sorted(applicable)] + ([beside] if present else [])
