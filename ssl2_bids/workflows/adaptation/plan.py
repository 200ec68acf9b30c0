"""What an adaptation is to do, settled and checked before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl2_bids import __version__
from ssl2_bids.bids.dataset import makers_of, unit_name
from ssl2_bids.bids.outputs import Result, output_name, read_sidecar
from ssl2_bids.bids.provenance import DESCRIPTIONS
from ssl2_bids.bids.sidecars import is_sloppy
from ssl2_bids.errors import DataError, NoInputError, UsageError
from ssl2_bids.networks.cards import CARD_FILE, Card
from ssl2_bids.networks.weights import bundled_models, check_output, check_weights, find_model
from ssl2_bids.settings import (
    BUNDLED,
    LAST_LAYERS,
    RECALIBRATED,
    UNTRAINED,
    GroupSettings,
)
from ssl2_bids.workflows.adaptation.cases import (
    Case,
    check_holdout,
    find_cases,
    label_folders,
    labelled_in,
    without_labels,
)
from ssl2_bids.workflows.adaptation.read_labels import (
    first_of,
    read_labels,
    seen_before,
    warn_of_refused,
)
from ssl2_bids.workflows.adaptation.start_model import another_model, warn_of_start
from ssl2_bids.workflows.participant.sloppy import WARNING

if TYPE_CHECKING:
    from ssl2_bids.steps.annotation import Annotation

log = logging.getLogger('ssl2_bids')

MAX_FOLDS = 5
SLICES = 'slices'  # value of --folds, and the fold of what is tested so
TWIN = 'twin'
OF_ADAPTATION = ('accept', 'label', 'empty_labels', 'resegment')  # they do nothing else
WITHOUT_LABELS = ('self_training', TWIN)  # strategies that need none
TAKEN = {*DESCRIPTIONS, 'annotated', 'change', 'lesion', 'lesions', 'manual', 'default'} - {
    'adapted'
}


@dataclass(frozen=True)
class Adaptation:
    """An adaptation that can begin.

    Attributes
    ----------
    card : the model to start from.
    cases : all sessions, those with labels among them.
    label_notes : case and remark: on labels that are left out or in doubt.
    """

    settings: GroupSettings
    card: Card
    cases: tuple[Case, ...]
    label_notes: tuple[tuple[str, str], ...] = ()

    @property
    def labelled(self) -> list[Case]:
        """Cases with a label, held out or not."""
        return [case for case in self.cases if case.labels]

    @property
    def trained(self) -> list[str]:
        """Labelled participants to train with, sorted."""
        held = self.settings.holdout
        return sorted({c.participant for c in self.labelled if c.participant not in held})

    @property
    def on_slices(self) -> bool:
        """Whether the test leaves out slices, because a single participant is labelled."""
        folds = self.settings.folds
        return folds == SLICES or (folds is None and len(self.trained) == 1)

    @property
    def trains(self) -> bool:
        """Whether rungs with a training are tested.

        With a single labelled participant only on request: slices of one person are evidence
        enough for the few numbers of a recalibration, not for all weights of a network.
        """
        settings = self.settings
        if settings.rung is not None:
            return settings.rung not in UNTRAINED
        asked = settings.folds or settings.strategy or settings.steps or settings.max_minutes
        return len(self.trained) != 1 or bool(asked)

    @property
    def draws_twin(self) -> bool:
        """Whether people of a scanner twin are simulated, for a training or a recalibration."""
        settings = self.settings
        return settings.strategy == TWIN and (self.trains or settings.rung == RECALIBRATED)

    @property
    def recalibrates_on_twin(self) -> bool:
        """Whether nothing is trained, and people of the scanner twin stand for labels."""
        return self.draws_twin and not self.trains and not self.trained

    @property
    def folder(self) -> str:
        """Of the model, relative to the output folder."""
        return output_name('model.folder', desc=self.settings.label)


def plan_adaptation(settings: GroupSettings, results: Sequence[Result]) -> Adaptation | None:
    """Settle whether and how a model is adapted; None where tables are all that is wanted.

    Raises
    ------
    UsageError, NoInputError, DataError, UnavailableError : what makes it impossible, named.
    """
    if settings.strategy == 'none':
        return None
    if settings.strategy is not None:
        from ssl2_bids.training import strategies

        strategies.find(settings.strategy)
    folders = label_folders(settings)
    if not asked_for(settings):
        if with_labels := [folder for folder in folders if labelled_in(folder)]:
            log.info(
                'this run adapts no model; to adapt one to the labels found, give --labels %s',
                ' '.join(map(str, with_labels)),
            )
        return None
    if not folders and settings.strategy is None:
        raise NoInputError(
            'there are no labels for an adaptation',
            advice='Give their folder with --labels.',
            path=settings.bids_dir / 'derivatives',
        )
    _check_version(settings)
    usual = _usual(results)
    card = find_model(settings.model, settings.output_dir)
    cases = find_cases(settings, usual, card)
    warn_of_start(settings, card, [case.result for case in cases])
    if not any(case.labels for case in cases) and settings.strategy is None:
        raise without_labels(folders, 'Give the folder of labels with --labels.')
    check_output(card)
    check_weights(card)
    check_label(settings, card)
    _check_network(settings, card)
    if (
        settings.model
        and card.folder.resolve()
        == (settings.output_dir / output_name('model.folder', desc=settings.label)).resolve()
    ):
        raise UsageError(
            f'the start model is also the model to be written, {settings.label}',
            advice='Choose another name with --label.',
        )
    check_holdout(cases, settings)
    adaptation = Adaptation(settings, card, tuple(cases))
    check_folds(adaptation)
    return adaptation


def _check_network(settings: GroupSettings, card: Card) -> None:
    """Check that the strategy can do with the network of the model."""
    if settings.strategy is None:
        return
    from ssl2_bids.training import strategies

    known, kind = strategies.find(settings.strategy).networks, card.network['Type']
    if known and kind not in known:
        raise UsageError(
            f'--strategy {settings.strategy} does not work with a network of the type {kind} '
            f'(the model {card.name})',
            advice='Choose another strategy, or a model of one network with --model, for '
            'instance fast-3t.',
        )


def _usual(results: Sequence[Result]) -> list[Result]:
    """The results without those of sloppy runs, which are named in the log.

    Raises
    ------
    NoInputError : all results are of sloppy runs.
    """
    usual = []
    for result in results:
        if is_sloppy(result.sidecar):
            name = unit_name(result.names.subject, result.names.session)
            log.warning('%s: left out of the adaptation: its result was %s', name, WARNING)
        else:
            usual.append(result)
    if not usual:
        raise NoInputError(
            f'nothing to adapt to: all results were {WARNING}',
            advice='Run the participant level without --sloppy first.',
            path=results[0].names.root,
        )
    return usual


def asked_for(settings: GroupSettings) -> bool:
    """Whether any option asks for an adaptation, which takes hours."""
    usual = GroupSettings(settings.bids_dir, settings.output_dir, settings.work_dir)
    return bool(
        settings.labels
        or settings.strategy
        or settings.holdout
        or settings.folds
        or settings.steps
        or settings.max_minutes
        or settings.filters.get('labels')
        or settings.rung
        or any(getattr(settings, name) != getattr(usual, name) for name in OF_ADAPTATION)
    )


def _check_version(settings: GroupSettings) -> None:
    """Check that the results are of this version: images prepared otherwise look otherwise."""
    maker = next(iter(makers_of(settings.output_dir)), {})
    version = str(maker.get('Version', __version__))
    if version.split('.')[:2] != __version__.split('.')[:2]:
        raise DataError(
            f'the results are of ssl2-bids {version or "unknown"}, but this is {__version__}',
            advice='Run the participant level again with --overwrite, into a new folder.',
            path=settings.output_dir / 'dataset_description.json',
        )


def check_label(settings: GroupSettings, start: Card) -> None:
    """Check that the name of the model is free.

    Parameters
    ----------
    start : the model whose results must not be replaced.

    Raises
    ------
    UsageError : it has another meaning in names of outputs, or another model has it.
    """
    own = {start.label: start.name} | {
        find_model(name, settings.output_dir).label: name for name in bundled_models()
    }
    if settings.label in own:
        raise UsageError(
            f'--label {settings.label} is the name of the results of the model '
            f'{own[settings.label]}',
            advice='Choose another name.',
        )
    if settings.label in TAKEN or settings.label.endswith('uncertainty'):
        raise UsageError(
            f'--label {settings.label} has another meaning in names of outputs',
            advice='Choose another name.',
        )


def check_existing(adaptation: Adaptation, configuration: str) -> dict[str, Any] | None:
    """The card of this very adaptation if it was finished before; None if there is none.

    Raises
    ------
    UsageError : the name belongs to another model, whose results stand in the output folder.
    DataError : a card is there that cannot be read.
    """
    label, folder = adaptation.settings.label, adaptation.settings.output_dir / adaptation.folder
    if not (folder / CARD_FILE).is_file():
        return None
    card = read_sidecar(folder / CARD_FILE)
    if card.get('ConfigurationHash') == configuration:
        return card
    if card.get('Accepted', True):
        raise UsageError(
            another_model(label, card, adaptation.card.name),
            advice=f'Choose another --label, or remove that folder and the results desc-{label}.',
            path=folder,
        )
    return None


def check_folds(adaptation: Adaptation) -> None:
    """Check that the labelled participants can be split as asked.

    Raises
    ------
    UsageError, NoInputError : they cannot.
    """
    settings, people = adaptation.settings, adaptation.trained
    if not people:
        if adaptation.labelled:
            raise UsageError(
                'every labelled participant is held out',
                advice='Hold out fewer participants.',
            )
        if settings.strategy not in WITHOUT_LABELS:
            raise NoInputError(
                f'the strategy {settings.strategy} needs labels, but there are none',
                advice='Give their folder with --labels.',
            )
        if settings.rung in (BUNDLED, LAST_LAYERS) or (
            settings.rung == RECALIBRATED and not adaptation.recalibrates_on_twin
        ):
            raise UsageError(
                f'--rung {settings.rung} needs labels, but there are none',
                advice='Give their folder with --labels.',
            )
        if settings.accept != 'always':
            raise UsageError(
                'without labels the adapted model cannot be tested',
                advice='Label a few participants, or accept the model without a test by --accept '
                'always.',
            )
        return
    if settings.folds == SLICES:
        if len(people) > 1:
            raise UsageError(
                f'--folds slices is for a single labelled participant; there are {len(people)}',
                advice='Without --folds whole participants are left out, which is the better '
                'test.',
            )
    if len(people) == 1 and adaptation.trains:
        sessions = sum(case.participant == people[0] for case in adaptation.labelled)
        if sessions > 1:
            raise UsageError(
                f'{sessions} sessions of the only labelled participant have labels',
                advice='Give the labels of one session for a training, or --rung recalibrated.',
            )
    if len(people) == 1 and isinstance(settings.folds, int):
        raise UsageError(
            f'--folds {settings.folds} needs that many labelled participants; there is one '
            f'({people[0]})',
            advice='Leave --folds out: then slices of this participant are left out.',
        )
    if isinstance(settings.folds, int) and settings.folds > len(people):
        raise UsageError(
            f'--folds {settings.folds} is more than the {len(people)} labelled participants',
            advice=f'Give at most --folds {len(people)}.',
        )


def check_labels(adaptation: Adaptation) -> tuple[Adaptation, dict[str, Annotation]]:
    """Read all labels: the adaptation to those that can be used, and their content.

    The dry run and the run both use this check.

    Raises
    ------
    DataError : none can be used, or not enough of them.
    UsageError, NoInputError : see :func:`check_folds`.
    """
    found = read_labels(adaptation.cases, adaptation.settings)
    notes = [*found.notes, *seen_before(adaptation.card, found.cases)]
    left = replace(adaptation, cases=tuple(found.cases), label_notes=tuple(notes))
    try:
        check_holdout(left.cases, left.settings)
        check_folds(left)
    except (UsageError, NoInputError):
        if found.refused:  # with these labels the folds were possible
            raise first_of(found.refused) from None
        raise
    warn_of_refused(found.refused)
    return left, found.annotations


def fold_count(adaptation: Adaptation) -> int:
    """How many trainings leave participants out."""
    folds = adaptation.settings.folds
    if adaptation.on_slices:
        return MAX_FOLDS
    return int(folds) if folds is not None else min(MAX_FOLDS, len(adaptation.trained))


def label_links(settings: GroupSettings) -> dict[str, Path]:
    """The folders of labels outside of the raw dataset, by the names that URIs have for them."""
    named = {folder: name for name, folder in settings.derivatives.items()}
    outside = [f for f in settings.labels if not f.is_relative_to(settings.bids_dir)]
    plain = [f for f in outside if f not in named]
    links = {'labels' + (str(n) if n > 1 else ''): f for n, f in enumerate(plain, start=1)}
    return links | {named[folder]: folder for folder in outside if folder in named}


def note_on_existing(adaptation: Adaptation) -> str:
    """What becomes of an accepted model of this name; empty where there is none."""
    card = adaptation.settings.output_dir / adaptation.folder / CARD_FILE
    if not card.is_file() or not read_sidecar(card).get('Accepted', True):
        return ''
    return (
        f'{adaptation.folder} exists: with the same labels, options and scans it is used again; '
        'with others the run stops (another --label names another model)'
    )
