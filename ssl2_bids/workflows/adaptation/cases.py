"""Who is labelled at a site, and each label on the grid of its participant's reference image."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ssl2_bids.bids.dataset import (
    participant_labels,
    select_participants,
    select_sessions,
    session_labels,
    unit_name,
)
from ssl2_bids.bids.label_ranking import alike, ranked, session_of
from ssl2_bids.bids.labels import Label, find_labels, look_for_labels
from ssl2_bids.bids.outputs import Result, read_sidecar, sidecar_path, sources_of
from ssl2_bids.errors import DataError, NoInputError, Ssl2Error, UsageError
from ssl2_bids.files import each_once
from ssl2_bids.networks.cards import Card
from ssl2_bids.settings import GroupSettings
from ssl2_bids.workflows.adaptation.first_results import stored_by_another
from ssl2_bids.workflows.current_results import is_second
from ssl2_bids.workflows.segmentation_files import PROCESS_AGAIN

log = logging.getLogger('ssl2_bids')

USUAL = ('manual_masks', 'labels', 'lesion_masks', 'manual')  # below BIDS_DIR/derivatives
OWN = 'bids::'  # URIs of files of the output folder itself
RAW = 'bids:raw:'

NAMING = (
    'Labels are named sub-X[_ses-Y]_..._label-lesion_mask.nii.gz; '
    'docs/reference/manual-masks.md lists the recognised names.'
)
LEFT_OUT = 'There are labels, but all were left out; the lines above give the reasons.'
FILTERED = 'There are labels, but the key "labels" of the filter file leaves out all of them.'


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
    """The folders asked for, else those of the usual names in the dataset; each once."""
    derivatives = settings.bids_dir / 'derivatives'
    usual = tuple(derivatives / name for name in USUAL if (derivatives / name).is_dir())
    return each_once(settings.labels or usual)


def labelled_in(folder: Path) -> list[str]:
    """The participants of whom a folder has manual lesion masks, without ``sub-``, sorted."""
    try:
        return sorted({label.subject for label in look_for_labels(folder).labels})
    except NoInputError:
        return []


def find_cases(
    settings: GroupSettings, results: Sequence[Result], card: Card | None = None
) -> list[Case]:
    """The sessions to adapt to, each with its labels.

    Parameters
    ----------
    card : of the start model; of several results of a session its own is taken.

    Raises
    ------
    DataError : a result has lost its images.
    NoInputError : folders of labels were given, and none has a label of a processed session.
    """
    units: dict[tuple[str, str], Result] = {}
    # those of the start model first, then the default model's; results of adapted models last
    other = {id(r): card is not None and bool(stored_by_another(r, card)) for r in results}
    for result in sorted(results, key=lambda r: (other[id(r)], is_second(r), r.names.desc)):
        units.setdefault((result.names.subject, result.names.session or ''), result)
    drawn = labels_by_unit(settings, list(units))
    cases = [
        Case(result, images_of(result), tuple(drawn.get(unit, ())))
        for unit, result in sorted(units.items())
    ]
    if settings.labels and not any(case.labels for case in cases):
        raise without_labels(settings.labels, NAMING, settings.filters.get('labels'))
    return cases


def without_labels(
    folders: Sequence[Path], advice: str, pattern: Mapping[str, Any] | None = None
) -> Ssl2Error:
    """The error that no label of a processed participant is left.

    Parameters
    ----------
    advice : what to do where the folders have no label at all.
    pattern : what ``labels`` of a filter file asks for.
    """
    found = [look_for_labels(folder) for folder in folders]
    if any(one.left_out for one in found):
        return DataError(
            'no label of a processed participant can be used',
            advice='Correct those that were left out; the lines above give the reasons.',
            path=folders[0],
        )
    if any(one.labels for one in found):
        advice = LEFT_OUT
        if pattern and not any(look_for_labels(f, pattern=pattern).labels for f in folders):
            advice = FILTERED
    return NoInputError(
        'no label of a processed participant was found', advice=advice, path=folders[0]
    )


def labels_by_unit(
    settings: GroupSettings, units: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], list[Label]]:
    """The labels of each session; the others are named in the log, each with its reason.

    Parameters
    ----------
    units : labels of participants and sessions, empty where there is none.
    """
    folders = label_folders(settings)
    sessions = {
        subject: session_labels(settings.bids_dir, subject)
        for subject in participant_labels(settings.bids_dir)
    }
    participants = select_participants(settings.bids_dir, settings.participants, settings.excluded)
    selected = set(select_sessions(settings.bids_dir, participants, settings.sessions))
    processed = set(units)
    found: dict[tuple[str, str], list[Label]] = {}
    pattern = settings.filters.get('labels')
    for one in (label for folder in folders for label in find_labels(folder, pattern=pattern)):
        session, reason = session_of(one, sessions)
        if one.subject not in sessions:
            reason = f'sub-{one.subject} is not in the dataset {settings.bids_dir}'
        elif not reason and (one.subject, session or None) not in selected:
            reason = 'not selected'
        elif not reason and (one.subject, session) not in processed:
            reason = 'its session has no result of the participant level'
        if reason:
            log.warning('%s: label left out: %s', one.path, reason)
        else:
            found.setdefault((one.subject, session), []).append(one)
    counting, others = ranked(found)
    for text in alike(others):
        log.info('%s', text)
    return counting


def images_of(result: Result) -> dict[str, Path]:
    """The preprocessed images that a result was made from, by contrast.

    Raises
    ------
    DataError : the sidecar of its probability does not name them, or they are gone.
    """
    sidecar = sidecar_path(result.names.path('anat.probability'))
    sources = sources_of(read_sidecar(sidecar)) if sidecar.is_file() else []
    root = result.names.root
    paths = [root / unquote(uri.removeprefix(OWN)) for uri in sources if uri.startswith(OWN)]
    missing = [path for path in paths if not path.is_file()]
    if missing or not paths:
        raise DataError(
            'the preprocessed images of this result are missing',
            advice=PROCESS_AGAIN,
            path=missing[0] if missing else sidecar,
        )
    return {path.name.split('.')[0].rsplit('_', 1)[1]: path for path in paths}


def raw_file(sidecar: Mapping[str, Any], bids_dir: Path) -> Path | None:
    """The raw file that a sidecar names as source; None where it is missing."""
    for uri in sources_of(sidecar):
        path = bids_dir / unquote(uri.removeprefix(RAW))
        if uri.startswith(RAW) and path.is_file():
            return path
    return None


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
                f'--holdout-label names {participant}, which has no label that can be used',
                advice=f'Labelled are: {", ".join(sorted(labelled)) or "none"}.',
            )
