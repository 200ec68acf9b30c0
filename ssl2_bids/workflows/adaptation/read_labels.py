"""The labels of a site, each on the grid of its participant's reference image."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ssl2_bids.bids.labels import Label
from ssl2_bids.bids.outputs import read_sidecar, sidecar_path
from ssl2_bids.errors import DataError, ReadError
from ssl2_bids.files import sha256
from ssl2_bids.networks.cards import Card
from ssl2_bids.settings import GroupSettings
from ssl2_bids.steps.annotation import Annotation
from ssl2_bids.volume import Volume, resample
from ssl2_bids.voxel_grid import Grid
from ssl2_bids.workflows.adaptation.cases import Case, raw_file
from ssl2_bids.workflows.annotations import onto_model_grid, place, ras_grid
from ssl2_bids.workflows.label_doubts import check_place, lacks_lesions
from ssl2_bids.workflows.segmentation_files import read_result, read_transform

log = logging.getLogger('ssl2_bids')

OF_THE_PERSON = (
    'the start model {model} was adapted to labels of this participant: its scores are too high, '
    'and what is gained is not seen'
)
OF_THE_NAME = (
    'the start model {model} was adapted to labels of a participant of this name. If it is the '
    'same person, its scores are too high, and what is gained is not seen'
)
NO_LESIONS = (
    'If these participants have no lesions, write "Manual": true in the JSON files of the labels '
    '(or, at the group level, give --empty-labels negative).'
)
LOST_WHOLE = 'no voxel of the reference has its centre in one drawn on {}'
LOST_SPARSE = (
    'in each voxel of the reference at least half of what is annotated on {} is no lesion'
)
NO_LESION_AT_ALL = 'Label at least one participant with lesions.'


def annotation_of(case: Case, bids_dir: Path) -> tuple[Annotation, tuple[Label, ...], bool]:
    """The label of a case on the grid of its reference, and the masks that it was joined from.

    Nothing is interpolated. A label on that grid stays as it is. A whole label of another image of
    the session is brought there by nearest neighbours, and is whole where that image holds the
    brain. A sparse one is counted (:func:`onto_model_grid`): no annotated slice is lost.

    Returns
    -------
    Label, masks, and whether the label was of the whole of the image that it was drawn on.

    Raises
    ------
    DataError : it lies on neither (both grids are named), the transform is missing, or none of its
        lesions is left on the grid of the reference.
    """
    names = case.result.names
    brain = ras_grid(case.brain_mask)
    reference = case.images[names.reference].name
    sidecars = {
        contrast: read_sidecar(sidecar_path(image))
        for contrast, image in case.images.items()
        if contrast != names.reference
    }
    raw = {
        path: contrast
        for contrast, sidecar in sidecars.items()
        if (path := raw_file(sidecar, bids_dir))
    }
    grids: dict[str, Grid] = {reference: brain}
    placed = place(case.labels, grids | {path.name: ras_grid(path) for path in raw})
    log.info('label of %s: %s', case.name, placed.note)
    mask = read_result(case.brain_mask, dtype=np.uint8).data > 0
    if placed.image == reference:
        check_place(placed.annotation, mask, placed.labels[0].path)
        return placed.annotation, placed.labels, placed.annotation.whole
    contrast = {path.name: contrast for path, contrast in raw.items()}[placed.image]
    xfm = names.path('anat.transform', source=contrast, target=names.reference)
    transform = read_transform(xfm)
    annotation = _on_reference(placed.annotation, brain, mask, transform)
    path = placed.labels[0].path
    if is_drawn(placed.annotation) and not is_drawn(annotation):
        cause = LOST_WHOLE if annotation.whole else LOST_SPARSE
        raise DataError(
            f'no lesion is left of it on the grid of the reference ({names.reference}): '
            f'{cause.format(contrast)}',
            advice=f'Draw it on the {names.reference} of the session.',
            path=path,
        )
    check_place(annotation, mask, path)
    return annotation, placed.labels, placed.annotation.whole


def _on_reference(
    annotation: Annotation, brain: Grid, mask: np.ndarray, transform: np.ndarray
) -> Annotation:
    """A label of another image on the grid of the reference; arrays as of :class:`Annotation`.

    Parameters
    ----------
    brain : grid of the reference.
    mask : bool, the brain on it.
    transform : (4, 4), RAS+ mm of the reference to RAS+ mm of the other image.
    """
    shape = (brain.shape[0], brain.shape[1], brain.shape[2])
    if annotation.whole:
        drawn, seen = (
            resample(volume, brain.affine, shape, transform=transform, order=0).data > 0
            for volume in (
                annotation.label,
                annotation.extent.with_data(annotation.extent.data.astype(np.uint8)),
            )
        )
        if seen[mask].all():
            seen = np.ones_like(seen)
    else:
        drawn, seen = (
            part > 0
            for part in onto_model_grid(annotation, brain.affine, shape, transform=transform)
        )
    return replace(
        annotation,
        label=Volume(drawn.astype(np.uint8), brain.affine, annotation.label.contrast),
        extent=Volume(np.asarray(seen), brain.affine, annotation.extent.contrast),
    )


def _doubt(case: Case, annotation: Annotation) -> str:
    """Why a label may lack most lesions, by the first mask of its session; else empty."""
    try:
        marked = read_result(case.result.names.path('anat.mask'), dtype=np.uint8).data > 0
    except DataError:  # nothing to compare with
        return ''
    return lacks_lesions(annotation, marked)


def is_reviewed(case: Case, settings: GroupSettings, *, whole: bool) -> bool:
    """Whether a label without lesions means that the participant has none.

    Parameters
    ----------
    whole : the label does not state which part of its image was annotated.
    """
    manual = all(label.sidecar.get('Manual') is True for label in case.labels)
    return settings.empty_labels == 'negative' or manual or not whole


@dataclass(frozen=True)
class ReadLabels:
    """The labels of a site after they were read.

    Attributes
    ----------
    cases : without the labels that were left out.
    annotations : by name of the case.
    refused : case, and why its label cannot be used; not yet in the log.
    notes : case and remark, for the page: on labels that are left out or in doubt.
    """

    cases: list[Case]
    annotations: dict[str, Annotation]
    refused: list[tuple[str, DataError]]
    notes: list[tuple[str, str]]


def read_labels(cases: Sequence[Case], settings: GroupSettings) -> ReadLabels:
    """Read every label; one that cannot be used, or is empty without confirmation, is left out.

    Raises
    ------
    DataError : none can be used, or all of them are empty.
    ReadError : the disk failed.
    """
    annotations: dict[str, Annotation] = {}
    refused: list[tuple[str, DataError]] = []
    empty: list[Case] = []
    kept: list[Case] = []
    notes: list[tuple[str, str]] = []
    for case in cases:
        found, whole = None, True
        if case.labels:
            try:
                found, labels, whole = annotation_of(case, settings.bids_dir)
                case = replace(case, labels=labels)
            except ReadError:  # with fewer labels the decision would be another one
                raise
            except DataError as error:
                refused.append((case.name, error))
                notes.append((case.name, f'its label is left out: {error.message}'))
            if found and not is_drawn(found) and not is_reviewed(case, settings, whole=whole):
                empty.append(case)
                notes.append((case.name, 'its label is empty, and is left out as not drawn'))
                found = None
            elif found and not is_drawn(found) and whole:
                notes.append((case.name, 'its label is empty: counted as free of lesions'))
                log.info('label of %s: empty, counted as free of lesions', case.name)
            elif found and (doubt := _doubt(case, found)):
                notes.append((case.name, doubt))
                log.warning('label of %s: %s', case.name, doubt)
        if found is not None:
            annotations[case.name] = found
        kept.append(case if found is not None else replace(case, labels=()))
    if refused and not annotations and not empty:
        raise first_of(refused)
    try:
        used = [case for case in kept if case.name in annotations]
        _check_empty(empty, used, annotations, len(refused))
        _check_lesions_to_fit(kept, annotations, settings.holdout)
    except DataError:
        warn_of_refused(refused)
        raise
    notes += _only_patient(kept, annotations, settings.holdout)
    return ReadLabels(kept, annotations, refused, notes)


def warn_of_refused(refused: Sequence[tuple[str, DataError]]) -> None:
    """A line for each label that cannot be used: case, file and reason."""
    for name, error in refused:
        log.warning('label of %s left out: %s', name, error)


def first_of(refused: Sequence[tuple[str, DataError]]) -> DataError:
    """The error to end with, which names the first label; the others are named in the log."""
    warn_of_refused(refused[1:])
    return refused[0][1]


def is_drawn(annotation: Annotation) -> bool:
    """Whether a label has a lesion."""
    return bool(annotation.label.data.any())


def all_empty(count: int, first: Label, *, refused: int = 0) -> DataError:
    """The error for labels without lesions.

    Parameters
    ----------
    count : how many could be used.
    first : of them.
    refused : how many could not be used.
    """
    more = f'; {refused} cannot be used' if refused else ''
    return DataError(
        f'all labels are empty ({count} of {count + refused}{more})',
        advice=NO_LESION_AT_ALL,
        path=first.path,
    )


def _check_empty(
    empty: Sequence[Case], used: Sequence[Case], annotations: dict[str, Annotation], refused: int
) -> None:
    labelled = [*empty, *used]
    if labelled and not any(is_drawn(annotation) for annotation in annotations.values()):
        raise all_empty(len(labelled), labelled[0].labels[0], refused=refused)
    if empty:
        log.warning(
            'empty labels, ignored as not drawn: %s. %s',
            ', '.join(c.name for c in empty),
            NO_LESIONS,
        )


def _check_lesions_to_fit(
    cases: Sequence[Case], annotations: dict[str, Annotation], holdout: Sequence[str]
) -> None:
    names = [c.name for c in cases if c.name in annotations and c.participant not in holdout]
    if names and not any(is_drawn(annotations[name]) for name in names):
        raise DataError(
            'no label has a lesion but those that are held out: an adaptation needs at least one',
            advice='Hold out other participants.',
        )


def _only_patient(
    cases: Sequence[Case], annotations: dict[str, Annotation], holdout: Sequence[str]
) -> list[tuple[str, str]]:
    """A remark where several participants are labelled, and a single one has lesions."""
    own = [c for c in cases if c.name in annotations and c.participant not in holdout]
    ill = [c for c in own if is_drawn(annotations[c.name])]
    if len({c.participant for c in ill}) > 1 or len({c.participant for c in own}) < 2:
        return []
    text = (
        'the only labelled participant with lesions: where this participant is left out for the '
        'test, no lesion is left to fit to. Label another one with lesions, or leave out the '
        'labels without lesions: then slices are tested'
    )
    log.warning('%s: %s', ill[0].name, text)
    return [(ill[0].name, text)]


def seen_before(card: Card, cases: Sequence[Case]) -> list[tuple[str, str]]:
    """A remark, with the case, on each label of a participant that the start model learnt from.

    Equal files of the model's own adaptation are of the same person. Else the name alone is known,
    which another site may have for another person; a label may also have been corrected.

    Parameters
    ----------
    card : of the start model.
    """
    known = card.adapted_to
    own = (card.content.get('Evidence') or {}).get('Labelled') or ()
    remarks = []
    for case in cases:
        if not case.labels or f'sub-{case.participant}' not in known:
            continue
        text = OF_THE_NAME
        if f'sub-{case.participant}' in own and any(
            sha256(label.path) in card.label_digests for label in case.labels
        ):
            text = OF_THE_PERSON
        remarks.append((case.name, text.format(model=card.name)))
    for name, text in remarks:
        log.warning('%s: %s', name, text)
    return remarks
