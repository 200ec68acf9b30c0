"""``ssl2 export``: lesion masks for fMRIPrep, and lesion-filled T1w images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl2_bids.bids.absent import absent_content, is_absent
from ssl2_bids.bids.dataset import participant_labels, unit_name
from ssl2_bids.bids.labels import is_own
from ssl2_bids.bids.outputs import (
    MASK_NAME,
    Result,
    find_results,
    find_summaries,
    find_summary,
    read_sidecar,
    sidecar_path,
)
from ssl2_bids.bids.provenance import bids_uri
from ssl2_bids.bids.sidecars import is_sloppy
from ssl2_bids.contrasts import SIMILAR
from ssl2_bids.errors import DataError, NoInputError, Ssl2Error, about
from ssl2_bids.files import read_text, remove_leftovers, write_json, write_text
from ssl2_bids.raw_grid import read_raw_grid, write_on
from ssl2_bids.steps.lesion_filling import fill_lesions
from ssl2_bids.volume import Volume, reorient, resample
from ssl2_bids.voxel_grid import Grid, same_grid
from ssl2_bids.workflows.current_results import current_results
from ssl2_bids.workflows.participant.sloppy import WARNING
from ssl2_bids.workflows.segmentation_files import PROCESS_AGAIN, read_result, read_transform

log = logging.getLogger('ssl2_bids')

# fMRIPrep's documentation asks for the first of these lines of .bidsignore
ROI_PATTERNS = ('*_roi.nii.gz', '*_roi.json')
T1_LIKE = ('T1w', *(one for one, similar in SIMILAR.items() if similar == 'T1w'))


@dataclass(frozen=True)
class Exported:
    """What became of one session: the file written, or the error."""

    name: str
    path: Path | None
    error: Ssl2Error | None = None


def export(
    results_dir: Path,
    bids_dir: Path,
    kind: str,
    *,
    model: str = '',
    participants: tuple[str, ...] | None = None,
) -> list[Exported]:
    """Export the results of a model, session by session.

    A session whose result is damaged or out of date is among those that failed, and so is a
    participant without a result.

    Parameters
    ----------
    results_dir : output folder of ssl2-bids.
    bids_dir : dataset with the raw images.
    kind : ``fmriprep``: lesion masks ``sub-X_label-lesion_roi.nii.gz`` on the grid of the raw T1w,
        beside it in ``bids_dir``; ``filled``: ``desc-lesionfilled_T1w`` (or UNIT1) beside the
        results.
    model : ``desc-`` of the results; empty for those of the default model.
    participants : labels; None for all.

    Raises
    ------
    NoInputError : there are no results of this model and these participants.
    """
    chosen, left_out = _choose(results_dir, model, participants)
    if not chosen and not left_out:
        raise NoInputError(
            'there are no finished results to export',
            advice='Run the participant level first, or name another model or participant.',
            path=results_dir,
        )
    write = {'fmriprep': write_roi, 'filled': write_filled}[kind]
    return [*_each(chosen, bids_dir, write), *left_out]


def _choose(
    results_dir: Path, model: str, participants: tuple[str, ...] | None
) -> tuple[list[Result], list[Exported]]:
    """The results of a model that count, and the sessions without one, each with the reason."""
    errors: list[Ssl2Error] = []
    current, old = current_results(find_results(results_dir, errors))
    reasons: dict[tuple[str, str | None], Ssl2Error] = {}
    for one, why in old:
        if one.names.desc == model:
            unit = one.names.subject, one.names.session
            reasons[unit] = DataError(why, path=one.names.done_marker)
    reasons |= dict(unreadable(errors, model))
    reasons = _failed(results_dir, model, participants) | reasons
    chosen = [one for one in current if one.names.desc == model]
    for one in chosen:
        reasons.pop((one.names.subject, one.names.session), None)
    if participants is not None:
        chosen = [one for one in chosen if one.names.subject in participants]
        reasons = {unit: why for unit, why in reasons.items() if unit[0] in participants}
        known = {one.names.subject for one in chosen} | {subject for subject, _ in reasons}
        for label in dict.fromkeys(participants):
            if label not in known:
                reasons[label, None] = NoInputError(
                    'no finished result of this model',
                    advice='Run the participant level first, or name another model.',
                )
    return chosen, [Exported(unit_name(*unit), None, why) for unit, why in reasons.items()]


def _failed(
    results_dir: Path, model: str, participants: tuple[str, ...] | None
) -> dict[tuple[str, str | None], Ssl2Error]:
    """The sessions of a model that have failed, and those whose mask is missing."""
    found: dict[tuple[str, str | None], Ssl2Error] = {}
    for subject in participant_labels(results_dir):
        if participants is not None and subject not in participants:
            continue
        for summary in find_summaries(results_dir, subject):
            if summary['model'].get('Label', '') != model or summary.get('status') == 'skipped':
                continue
            failure = (summary.get('error') or {}).get('Message')
            why = f'the session failed: {failure}' if failure else 'its lesion mask is missing'
            found[subject, summary['session']] = DataError(why, advice=PROCESS_AGAIN)
    return found


def unreadable(
    errors: Sequence[Ssl2Error], model: str
) -> list[tuple[tuple[str, str | None], Ssl2Error]]:
    """The sessions whose results of a model cannot be read, from the errors of their files."""
    matches = [(MASK_NAME.fullmatch(Path(error.path or '').name), error) for error in errors]
    return [
        ((m['subject'], m['session']), e) for m, e in matches if m and (m['desc'] or '') == model
    ]


def _each(
    results: list[Result], bids_dir: Path, write: Callable[[Result, Path], Path]
) -> Iterator[Exported]:
    for result in results:
        name = unit_name(result.names.subject, result.names.session)
        try:
            if is_sloppy(result.sidecar):
                raise DataError(
                    f'the result was {WARNING}',
                    advice='Run the participant level without --sloppy.',
                    path=result.names.path('anat.mask'),
                )
            yield Exported(name, write(result, bids_dir))
        except Ssl2Error as error:
            yield Exported(name, None, error)


def write_roi(result: Result, bids_dir: Path) -> Path:
    """The lesion mask of a session where fMRIPrep looks for it, on the grid of the raw T1w.

    fMRIPrep takes any ``_roi`` of ``anat``; masks on another grid than the T1w end its run. The
    sidecar states that the mask is not manual, so that it is never taken for a label.

    Raises
    ------
    DataError : the session has no T1w, a file is missing, or the session has a mask of this kind
        that ssl2-bids did not make.
    """
    contrast, raw = raw_t1(result, bids_dir, accepted=('T1w',))
    names = result.names
    stem = unit_name(names.subject, names.session)
    path = raw.parent / f'{stem}_label-lesion_roi.nii.gz'
    check_rois(path.parent, stem)
    remove_leftovers(path.parent)
    grid = read_raw_grid(raw)
    write_json(
        sidecar_path(path),
        result.sidecar
        | {
            'Description': 'Lesion mask for fMRIPrep, segmented by ssl2-bids; not a manual mask.',
            'Manual': False,
            'Sources': [bids_uri(raw, bids_dir)],
            'SpatialReference': bids_uri(raw, bids_dir),
        },
    )
    write_on(grid, lesions_on(result, contrast, grid), path, dtype=np.uint8)
    for pattern in ROI_PATTERNS:
        ignore(bids_dir, pattern)
    return path


def check_rois(folder: Path, stem: str) -> None:
    """Check that all lesion masks for fMRIPrep of a session were made by ssl2-bids.

    Raises
    ------
    DataError : one was not: it may be drawn by hand, and fMRIPrep would take both.
    """
    for path in sorted(folder.glob(f'{stem}_*roi.nii*')):
        sidecar = sidecar_path(path)
        if not (sidecar.is_file() and is_own(read_sidecar(sidecar))):
            raise DataError(
                'this mask was not made by ssl2-bids: it is not replaced',
                advice='fMRIPrep takes all masks with this suffix. Keep this one, or move it out '
                'of the folder first.',
                path=path,
            )


def write_filled(result: Result, bids_dir: Path) -> Path:
    """The bias-corrected T1w (or UNIT1) of a session, filled, beside its results.

    Raises
    ------
    DataError : the session has no such image, a file is missing, or lesions cannot be filled.
    """
    contrast, _ = used_t1(result, accepted=T1_LIKE)
    names = result.names
    if contrast != names.reference:
        raise DataError(
            f'the reference is {names.reference}: the {contrast} was resampled',
            advice=f'Run the participant level with --reference {contrast.lower()}.',
        )
    image_path = _preprocessed(result, contrast)
    with about(image_path):
        image = read_result(image_path, contrast=contrast)
        brain = read_result(names.path('anat.brain_mask'), dtype=np.uint8)
        lesions = read_result(names.path('anat.mask'), dtype=np.uint8)
        filled = fill_lesions(image, lesions, brain)
    entities = '_'.join(_entities(image_path))
    path = names.path('anat.filled', entities=entities, contrast=contrast)
    remove_leftovers(path.parent)
    write_on(read_raw_grid(image_path), filled, path)
    own = read_sidecar(sidecar_path(image_path))
    sources = [bids_uri(one, names.root) for one in (image_path, names.path('anat.mask'))]
    text = f'{contrast} image with lesions replaced by the white matter around.'
    more: dict[str, Any] = {'Description': text, 'Sources': sources}
    write_json(sidecar_path(path), own | more)
    return path


def raw_t1(result: Result, bids_dir: Path, *, accepted: tuple[str, ...]) -> tuple[str, Path]:
    """Contrast and raw file of the T1w that a result was made from.

    Raises
    ------
    DataError : there was none, it is not raw, or the file is missing.
    """
    contrast, name = used_t1(result, accepted=accepted)
    if name.startswith('bids:'):
        raise DataError(
            f'the result was made from the {contrast} of another program ({name})',
            advice='Run the participant level without -d.',
        )
    path = bids_dir / name
    if is_absent(path):
        raise absent_content(path, bids_dir)
    if not path.is_file():
        raise DataError(
            'the raw image of the result is missing',
            advice='Give the dataset that ssl2-bids read.',
            path=path,
        )
    return contrast, path


def used_t1(result: Result, *, accepted: tuple[str, ...]) -> tuple[str, str]:
    """Contrast and name (see the summary's ``inputs``) of the T1w that a result was made from.

    Raises
    ------
    DataError : there was none.
    """
    rows = (find_summary(result.names) or {}).get('inputs', [])
    used = [row for row in rows if row.get('Use') in ('reference', 'channel')]
    for row in used:
        if row.get('Contrast') in accepted:
            return str(row['Contrast']), str(row['File'])
    if 'UNIT1' in [row.get('Contrast') for row in used]:
        raise DataError(
            'the result was made with UNIT1, which goes before T1w',
            advice='For a mask on a T1w run the participant level with --contrasts t1w flair (and '
            'others, but not unit1), into another output folder.',
        )
    raise DataError(
        f'the result was made without {" or ".join(accepted)}',
        advice='Run the participant level with such an image.',
    )


def lesions_on(result: Result, contrast: str, grid: Grid) -> Volume:
    """The lesion mask of a result on the grid of one of its raw images, uint8, axes RAS+.

    Raises
    ------
    DataError : the mask or the transform is missing or cannot be read.
    """
    names = result.names
    mask = read_result(names.path('anat.mask'), dtype=np.uint8)
    empty = reorient(Volume(np.zeros(grid.shape, np.uint8), grid.affine))
    if contrast == names.reference:
        if not same_grid(mask, empty):
            raise DataError(
                f'the {contrast} is on another grid than the mask that was made from it: the raw '
                'image was replaced',
                advice=PROCESS_AGAIN,
                path=names.path('anat.mask'),
            )
        return mask
    path = names.path('anat.transform', source=contrast, target=names.reference)
    pull = read_transform(path)
    share = resample(mask, empty.affine, empty.shape, transform=np.linalg.inv(pull))
    return empty.with_data((share.data >= 0.5).astype(np.uint8))


def ignore(bids_dir: Path, pattern: str) -> None:
    """Add a line to ``.bidsignore`` of a dataset, once."""
    path = bids_dir / '.bidsignore'
    lines = read_text(path).splitlines() if path.is_file() else []
    if pattern not in lines:
        write_text(path, '\n'.join([*lines, pattern]) + '\n')


def _preprocessed(result: Result, contrast: str) -> Path:
    names = result.names
    for entities in ('', '*'):
        pattern = names.path('anat.preproc_reference', contrast=contrast, entities=entities)
        if found := sorted(pattern.parent.glob(pattern.name)):
            return found[0]
    raise DataError(
        f'the preprocessed {contrast} is missing',
        advice='Run the participant level again.',
        path=names.done_marker,
    )


def _entities(path: Path) -> list[str]:
    """``acq-``, ``ce-``, ``rec-`` and ``run-`` of a file name."""
    parts = path.name.split('_')
    return [part for part in parts if part.split('-')[0] in ('acq', 'ce', 'rec', 'run')]
