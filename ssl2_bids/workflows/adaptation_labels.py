"""Who is labelled at a site, and each label on the grid of its participant's reference image."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from ssl2_bids.bids.dataset import participant_labels
from ssl2_bids.bids.labels import Label, find_labels
from ssl2_bids.bids.outputs import Result, read_sidecar, sidecar_path
from ssl2_bids.errors import DataError, NoInputError, UsageError
from ssl2_bids.itk import from_itk
from ssl2_bids.settings import GroupSettings
from ssl2_bids.steps import annotation as annotate
from ssl2_bids.steps.annotation import Annotation
from ssl2_bids.volume import (
    Volume,
    describe_grid,
    read,
    read_grid,
    reorient,
    resample,
    same_grid,
)
from ssl2_bids.workflows.evaluate import names_of, read_annotation, unit_name

log = logging.getLogger('ssl2_bids')

USUAL = ('manual_masks', 'labels', 'lesion_masks', 'manual')  # below BIDS_DIR/derivatives
OWN = 'bids::'  # URIs of files of the output folder itself
RAW = 'bids:raw:'


@dataclass(frozen=True)
class Case:
    """One session of the participant level, and its manual labels if there are any."""

    result: Result
    images: dict[str, Path]  # by contrast, all on the grid of the reference
    labels: tuple[Label, ...] = ()

    @property
    def name(self) -> str:
        """``sub-X`` or ``sub-X_ses-Y``."""
        return unit_name(self.participant, self.result.names.session)

    @property
    def participant(self) -> str:
        """Label without ``sub-``."""
        return self.result.names.subject

    @property
    def brain_mask(self) -> Path:
        """On the grid of the reference."""
        return self.result.names.path('anat.brain_mask')


def label_folders(settings: GroupSettings) -> tuple[Path, ...]:
    """The folders asked for, else those of the usual names in the dataset."""
    derivatives = settings.bids_dir / 'derivatives'
    usual = tuple(derivatives / name for name in USUAL if (derivatives / name).is_dir())
    return settings.labels or usual


def find_cases(settings: GroupSettings, results: Sequence[Result]) -> list[Case]:
    """The sessions to adapt to, each with its labels.

    Raises
    ------
    DataError : a label is of nobody in the dataset, or a result has lost its images.
    NoInputError : folders of labels were given, and none has a label of a processed session.
    """
    units: dict[tuple[str, str], Result] = {}
    for result in sorted(results, key=lambda r: r.names.desc):  # the default model's first
        units.setdefault((result.names.subject, result.names.session or ''), result)
    drawn = _labels_by_unit(settings, list(units))
    cases = [
        Case(result, images_of(result), tuple(drawn.get(unit, ())))
        for unit, result in sorted(units.items())
    ]
    if settings.labels and not any(case.labels for case in cases):
        raise NoInputError(
            'no label of a processed participant was found',
            advice='Labels are named sub-X[_ses-Y]_..._label-lesion_mask.nii.gz; the layouts '
            'that are understood are listed in docs/usage.md.',
            path=settings.labels[0],
        )
    return cases


def _labels_by_unit(
    settings: GroupSettings, units: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], list[Label]]:
    sessions: dict[str, list[str]] = {}
    for subject, session in units:
        sessions.setdefault(subject, []).append(session)
    everybody = set(participant_labels(settings.bids_dir))
    found: dict[tuple[str, str], list[Label]] = {}
    unprocessed: dict[tuple[str, str], None] = {}
    for folder in label_folders(settings):
        for one in find_labels(folder):
            if one.subject not in everybody:
                raise DataError(
                    f'a label of sub-{one.subject}, who is not in the dataset {settings.bids_dir}',
                    advice='Check the name of the file, or take it out of the folder.',
                    path=one.path,
                )
            own = sessions.get(one.subject, [])
            session = one.session or ''
            if not session and len(own) == 1:
                session = own[0]
            if session in own:
                found.setdefault((one.subject, session), []).append(one)
            else:
                unprocessed[one.subject, session] = None
    if unprocessed:
        log.warning(
            'labelled, but not selected or without a result of the participant level: %s',
            names_of(unprocessed),
        )
    return found


def images_of(result: Result) -> dict[str, Path]:
    """The preprocessed images that a result was made from, by contrast.

    Raises
    ------
    DataError : the sidecar of its probability does not name them, or they are gone.
    """
    sidecar = sidecar_path(result.names.path('anat.probability'))
    sources = read_sidecar(sidecar).get('Sources', []) if sidecar.is_file() else []
    root = result.names.root
    paths = [root / unquote(uri.removeprefix(OWN)) for uri in sources if uri.startswith(OWN)]
    missing = [path for path in paths if not path.is_file()]
    if missing or not paths:
        raise DataError(
            'the preprocessed images of this result are not there',
            advice='Run the participant level again with --overwrite.',
            path=missing[0] if missing else sidecar,
        )
    return {path.name.split('.')[0].rsplit('_', 1)[1]: path for path in paths}


def annotation_of(case: Case, bids_dir: Path) -> Annotation:
    """The label of a case on the grid of its reference, by majority of its raters.

    Nothing is interpolated: it lies on that grid, or is brought there from the grid of another
    image of the session by nearest neighbours, its annotated extent likewise.

    Raises
    ------
    DataError : it lies on neither; both grids are named.
    """
    brain = reorient(read(case.brain_mask, dtype=np.uint8))
    images: dict[tuple[str, str, str], list[Label]] = {}
    for label in case.labels:
        images.setdefault(label.image, []).append(label)
    misfit: DataError | None = None
    for raters in images.values():
        try:
            joined = annotate.majority([read_annotation(label) for label in raters])
        except DataError as error:
            path = error.path or raters[0].path
            raise DataError(error.message, advice=error.advice, path=path) from None
        if same_grid(joined.label, brain):
            return joined
        moved = _from_another_image(joined, case, brain, bids_dir)
        if moved is not None:
            return moved
        misfit = misfit or DataError(
            f'the label fits no image of its session: it has {describe_grid(joined.label)}; '
            f'{case.images[case.result.names.reference].name} has {describe_grid(brain)}',
            advice='Draw it on that image, or on a raw image of the session that was used.',
            path=raters[0].path,
        )
    assert misfit is not None
    raise misfit


def _from_another_image(
    joined: Annotation, case: Case, brain: Volume, bids_dir: Path
) -> Annotation | None:
    names = case.result.names
    for contrast, path in case.images.items():
        if contrast == names.reference or not _drawn_on_raw(joined, path, bids_dir):
            continue
        xfm = names.path('anat.transform', source=contrast, target=names.reference)
        transform = from_itk(xfm.read_text(encoding='utf-8'))
        there = [
            resample(volume, brain.affine, brain.shape, transform=transform, order=0)
            for volume in (
                joined.label,
                joined.extent.with_data(joined.extent.data.astype(np.uint8)),
            )
        ]
        return replace(joined, label=there[0], extent=there[1].with_data(there[1].data > 0))
    return None


def _drawn_on_raw(joined: Annotation, image: Path, bids_dir: Path) -> bool:
    """Whether a label lies on the grid of the raw file that an image was made from."""
    for uri in read_sidecar(sidecar_path(image)).get('Sources', []):
        path = bids_dir / unquote(uri.removeprefix(RAW))
        if uri.startswith(RAW) and path.is_file():
            shape, affine = read_grid(path)
            if same_grid(joined.label, reorient(Volume(np.zeros(shape, np.uint8), affine))):
                return True
    return False


def is_reviewed(case: Case, annotation: Annotation, settings: GroupSettings) -> bool:
    """Whether a label without any lesion says that somebody has looked and found none."""
    manual = all(label.sidecar.get('Manual') is True for label in case.labels)
    return settings.empty_labels == 'negative' or manual or not annotation.whole


def read_labels(
    cases: Sequence[Case], settings: GroupSettings
) -> tuple[list[Case], dict[str, Annotation]]:
    """Read every label; those without lesions that nobody vouches for are left out.

    Returns
    -------
    The cases, without the labels that were left out, and the annotations by name of the case.

    Raises
    ------
    DataError : a label that cannot be used, or all of them are empty.
    """
    annotations: dict[str, Annotation] = {}
    empty: list[Case] = []
    kept: list[Case] = []
    for case in cases:
        if case.labels:
            found = annotation_of(case, settings.bids_dir)
            if not found.label.data.any() and not is_reviewed(case, found, settings):
                empty.append(case)
                kept.append(replace(case, labels=()))
                continue
            annotations[case.name] = found
        kept.append(case)
    advice = (
        'If they were looked at and are free of lesions, give --empty-labels negative or write '
        '"Manual": true in their JSON.'
    )
    if empty and not any(a.label.data.any() for a in annotations.values()):
        raise DataError(
            f'all labels are empty ({len(empty)} of {len(empty) + len(annotations)})',
            advice=advice,
            path=empty[0].labels[0].path,
        )
    if annotations and not any(a.label.data.any() for a in annotations.values()):
        raise DataError(
            'no label has a lesion: there is nothing to learn from',
            advice='Label at least one participant with lesions.',
        )
    if empty:
        log.warning(
            'empty labels, taken as not drawn: %s. %s', ', '.join(c.name for c in empty), advice
        )
    return kept, annotations


def check_holdout(cases: Sequence[Case], settings: GroupSettings) -> None:
    """Check that participants to be held out are labelled.

    Raises
    ------
    UsageError : one is not.
    """
    labelled = {case.participant for case in cases if case.labels}
    for participant in settings.holdout:
        if participant not in labelled:
            raise UsageError(
                f'--holdout-label names {participant}, who has no label',
                advice=f'Labelled are: {", ".join(sorted(labelled)) or "none"}.',
            )
