"""An adaptation under way: what is prepared, and each training."""

from __future__ import annotations

import logging
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ssl2_bids.device import choose_device
from ssl2_bids.digests import DIGESTS, Digests
from ssl2_bids.errors import (
    DataError,
    NoInputError,
    StorageError,
    UnavailableError,
    UsageError,
)
from ssl2_bids.files import remove_leftovers
from ssl2_bids.networks.weights import bundled_models, load_network
from ssl2_bids.progress import ShowLine
from ssl2_bids.settings import HALF_WAY, LAST_LAYERS, WHOLE, GroupSettings
from ssl2_bids.steps.annotation import Annotation
from ssl2_bids.training.adaptation import adapt as training
from ssl2_bids.training.adaptation.adapt import ALL, LAST, AdaptSettings
from ssl2_bids.training.adaptation.left_out import quality
from ssl2_bids.training.data.participants import Participant
from ssl2_bids.training.run import History
from ssl2_bids.wording import counted
from ssl2_bids.workflows.adaptation import prepare as cache
from ssl2_bids.workflows.adaptation.cases import label_folders
from ssl2_bids.workflows.adaptation.configuration import (
    configuration_of,
    training_settings,
    trainings_of,
)
from ssl2_bids.workflows.adaptation.plan import (
    TWIN,
    Adaptation,
    check_existing,
    check_labels,
    fold_count,
    note_on_existing,
)
from ssl2_bids.workflows.adaptation.prepare import PreparedSession
from ssl2_bids.workflows.adaptation.twin.draw import DrawnTwin, draw_twin

log = logging.getLogger('ssl2_bids')

PROGRESS_LINES = 5  # lines about the progress of one training
RUNGS_OF = {LAST: (LAST_LAYERS,), ALL: (HALF_WAY, WHOLE)}  # by the layers that are trained


@dataclass
class Work:
    """An adaptation under way: what is known of the site, and where its files lie."""

    adaptation: Adaptation
    training: AdaptSettings
    configuration: str
    device: str
    network: nn.Module
    people: list[PreparedSession]
    annotations: dict[str, Annotation]
    folder: Path
    show: ShowLine
    minimum_volume: float  # mm^3
    trains: bool = True  # False: people are not prepared, only the start model is recalibrated
    left_out: list[tuple[str, str]] = field(default_factory=list)
    untrained: str = ''  # why there is no training although one was planned
    twin: DrawnTwin | None = None
    histories: dict[str, History] = field(default_factory=dict)
    fold_of: dict[str, str] = field(default_factory=dict)
    memory: int = 0  # bytes of one training, once it is measured
    test_seconds: float = 0.0  # of the scores of one rung

    @property
    def labelled(self) -> list[PreparedSession]:
        """Prepared cases with a label, held out or not."""
        return [one for one in self.people if one.case.name in self.annotations]

    @property
    def twins(self) -> list[PreparedSession]:
        """Simulated people of the scanner twin; they are in trainings, and in no test."""
        return self.twin.people if self.twin else []

    @property
    def held(self) -> tuple[str, ...]:
        """Participants that no training sees."""
        return self.adaptation.settings.holdout


def layers_of(work: Work) -> list[str]:
    """Which layers are trained: a training of each kind for every fold."""
    asked = work.adaptation.settings.rung
    return [
        layers
        for layers, rungs in RUNGS_OF.items()
        if (asked is None or asked in rungs) and (layers == ALL or work.annotations)
    ]


def settings_for(work: Work, layers: str) -> AdaptSettings:
    """The settings of a training of some layers."""
    return training.of_last_layers(work.training) if layers == LAST else work.training


def trained_layers(work: Work) -> list[str]:
    """The layers of the trainings that were run, in the order of :data:`RUNGS_OF`."""
    last = {name.startswith(f'{LAST}-') for name in work.histories}
    return [layers for layers in RUNGS_OF if (layers == LAST) in last]


def name_of(training_of: str, layers: str) -> str:
    """The name of a training: that of its fold, or ``final``, and its layers if not all."""
    return training_of if layers == ALL else f'{layers}-{training_of}'


def begin(adaptation: Adaptation, show: ShowLine) -> Work:
    """Read labels, prepare all participants, settle the settings: errors come early.

    Raises
    ------
    DataError, UsageError, NoInputError, UnavailableError : see the modules that are called.
    """
    settings = adaptation.settings
    device = choose_device(settings.device)
    torch.set_num_threads(settings.omp_nthreads)
    network = load_network(adaptation.card)
    adaptation, annotations = check_labels(adaptation)
    cases = adaptation.cases
    trains = adaptation.trains
    root = settings.work_dir / 'adaptation'
    place = root / 'people' / f'{adaptation.card.name}-{adaptation.card.sha256[:8]}'
    size = cache.estimated_size(cases, adaptation.card, place) if trains else 0
    prepared = f'; prepared images take up to {size / 1e9:.2g} GB in {settings.work_dir}'
    show(
        f'adaptation of {adaptation.card.name}: {counted(len(cases), "session")}, '
        f'{len(annotations)} of them labelled; device: {device}{prepared if size else ""}'
    )
    if annotations and not settings.labels:
        found = [label.path for case in cases for label in case.labels]
        folders = [
            str(folder)
            for folder in label_folders(settings)
            if any(path.is_relative_to(folder) for path in found)
        ]
        show(f'labels: {", ".join(folders)} (found by name; --labels gives another folder)')
    if settings.rung is None and not trains:
        show(
            'one labelled participant: no training; --folds slices also tests trainings, on '
            'slices of this participant'
        )
    root.mkdir(parents=True, exist_ok=True)
    digests = Digests(settings.work_dir / DIGESTS)
    _check_space(settings, size)
    people, lost = cache.prepare_all(
        cases, annotations, adaptation.card, place, digests.of, arrays=trains
    )
    digests.save()
    log.info('content of the preprocessed images: %s', digests.summary())
    for case, reason in lost:
        log.warning('%s is left out of the adaptation: %s', case.name, reason)
    if not people:
        raise DataError('no session can be prepared for this model', advice=lost[0][1])
    unannotated = any(
        one.case.name not in annotations or not annotations[one.case.name].whole
        for one in people
        if one.case.participant not in settings.holdout
    )
    adaptation, twin = with_twin(adaptation, annotations, people, root, digests, show)
    chosen = training_settings(adaptation, device, unannotated=unannotated)
    smallest = [
        one.case.result.sidecar.get('MinimumLesionVolume', adaptation.card.minimum_lesion_volume)
        for one in people
    ]
    minimum_volume = max(float(min(smallest)), adaptation.card.fitted_minimum_volume)
    keys = {one.case.name: one.key for one in people}
    keys |= {f'twin {one.case.name}': one.key for one in twin.people} if twin else {}
    trainings = trainings_of(adaptation, chosen, keys, minimum_volume)
    folder = root / trainings
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    return Work(
        adaptation,
        chosen,
        configuration_of(adaptation, trainings),
        device,
        network,
        people,
        annotations,
        folder,
        show,
        minimum_volume,
        trains=trains,
        left_out=[(case.name, reason) for case, reason in lost],
        twin=twin,
    )


def with_twin(
    adaptation: Adaptation,
    annotations: dict[str, Annotation],
    people: Sequence[PreparedSession],
    root: Path,
    digests: Digests,
    show: ShowLine,
) -> tuple[Adaptation, DrawnTwin | None]:
    """The people of the scanner twin if it was asked for; with labels the run continues without.

    Raises
    ------
    DataError : there is no twin, and no label that a training could do with.
    """
    settings = adaptation.settings
    if settings.strategy != TWIN:
        return adaptation, None
    if not adaptation.draws_twin:
        show('no scanner twin is drawn: the rung that was asked for is the start model')
        return adaptation, None
    if stands := note_on_existing(adaptation):  # whether they are the same is known afterwards
        show(stands)
    cases = [one.case for one in people if one.case.participant not in settings.holdout]
    if settings.model and settings.model not in bundled_models():  # found from any folder
        settings = replace(settings, model=str(adaptation.card.folder))
    try:
        twin = draw_twin(settings, cases, adaptation.card, root, digests.of, show)
    except (DataError, NoInputError, UsageError) as error:
        if not annotations:
            raise DataError(
                f'no scanner twin can be made: {error}',
                advice='Label a few participants, or choose --strategy self_training.',
            ) from None
        show(f'no scanner twin can be made: {error} The run continues without it.')
        return replace(adaptation, settings=replace(settings, strategy=None)), None
    finally:
        digests.save()
    return adaptation, twin


def _check_space(settings: GroupSettings, size: int) -> None:
    free = shutil.disk_usage(settings.work_dir).free
    if free < size:
        raise StorageError(
            f'the work folder needs {size / 1e9:.2g} GB for prepared images, {free / 1e9:.2g} GB '
            'are free',
            advice='Give another folder with -w, or free some space.',
            path=settings.work_dir,
        )


def training_folder(work: Work, name: str) -> Path:
    """Where the checkpoints and curves of a training lie."""
    return work.folder / f'training-{name}'


def train_one(
    work: Work,
    training_of: str,
    people: Sequence[Participant],
    left_out: Sequence[Participant] = (),
    *,
    layers: str = ALL,
) -> nn.Module:
    """One training, or the rest of it; a signal that asks for an end ends the run.

    Parameters
    ----------
    training_of : name of the fold, or ``final``.
    left_out : labelled people who are not among ``people``, for the curves alone.
    layers : that are trained.

    Raises
    ------
    DataError, UnavailableError, StorageError : see :func:`training.adapt.adapt`.
    """
    name = name_of(training_of, layers)
    steps, began = work.training.steps, time.monotonic()
    first: list[int] = []

    def progress(done: int, total: int, latest: Any) -> None:
        first.append(done - 1) if not first else None
        if done == total or (done * PROGRESS_LINES // total) > (
            (done - 1) * PROGRESS_LINES // total
        ):
            left = (time.monotonic() - began) / (done - first[0]) * (total - done)
            work.show(
                f'training {name}: step {done} of {total}, loss {latest.get("loss", 0):.3f}, '
                f'about {left / 60:.1f} minutes left'
            )

    network, history = training.adapt(
        work.network,
        people,
        settings_for(work, layers),
        training_folder(work, name),
        device=work.device,
        identity=work.folder.name,
        progress=progress,
        measure=quality(left_out, work.adaptation.card, work.device) if left_out else None,
    )
    work.histories[name] = history
    if history.stopped:  # at the last step, too
        work.show(f'training {name} was stopped after step {history.step} of {steps}')
        # the handlers of the App are in place again: they end the run with the right exit code
        signal.raise_signal(history.stopped)
        raise UnavailableError(
            'the run was interrupted', advice='Run the same command again to resume.'
        )
    return network


def finished_before(work: Work) -> dict[str, Any] | None:
    """The card of this very adaptation if it stands in the output folder."""
    return check_existing(work.adaptation, work.configuration)


def settings_table(work: Work) -> dict[str, Any]:
    """What ``config.toml`` holds: the settings of trainings, of all layers if such were run."""
    layers = trained_layers(work)
    chosen = settings_for(work, layers[-1]) if layers else work.training
    content = {k: v for k, v in asdict(chosen).items() if v is not None}
    if not layers:
        content |= {'strategy': 'none', 'steps': 0}
    return content | {
        'folds': str(work.adaptation.settings.folds or fold_count(work.adaptation)),
        'start': work.adaptation.card.name,
        'device': work.device,
        'configuration_hash': work.configuration,
    }
