"""An adaptation under way: what is prepared, how long it will take, and each training."""

from __future__ import annotations

import json
import logging
import math
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
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
from ssl2_bids.files import remove_leftovers, write_json
from ssl2_bids.networks.inference import is_out_of_memory
from ssl2_bids.networks.registry import NETWORKS
from ssl2_bids.networks.weights import load_network
from ssl2_bids.progress import ShowLine
from ssl2_bids.settings import HALF_WAY, LAST_LAYERS, WHOLE, GroupSettings
from ssl2_bids.steps.annotation import Annotation
from ssl2_bids.training.adaptation import adapt as training
from ssl2_bids.training.adaptation.adapt import ALL, LAST, AdaptSettings, Cost
from ssl2_bids.training.adaptation.left_out import MEASURED, quality
from ssl2_bids.training.data.participants import Participant
from ssl2_bids.training.run import History
from ssl2_bids.workflows.adaptation import prepare as cache
from ssl2_bids.workflows.adaptation import torchrun as nodes
from ssl2_bids.workflows.adaptation.plan import (
    TWIN,
    Adaptation,
    check_existing,
    check_labels,
    configuration_of,
    fold_count,
    training_settings,
    trainings_of,
)
from ssl2_bids.workflows.adaptation.prepare import PreparedSession
from ssl2_bids.workflows.adaptation.twin.draw import DrawnTwin, draw_twin

log = logging.getLogger('ssl2_bids')

MIN_STEPS = 10  # fewer are no training
PROGRESS_LINES = 5  # lines about the progress of one training
BATCH = {
    'labelled': 'Labelled',
    'unlabelled': 'Unlabelled',
    'accumulate': 'Accumulate',
    'patch': 'Patch',
}  # what of a batch is kept for a resumed run
RUNGS_OF = {LAST: (LAST_LAYERS,), ALL: (HALF_WAY, WHOLE)}  # by the layers that are trained
WINDOWS = 12  # of one brain, for the estimate before any was cut into windows


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
    size = cache.estimated_size(cases, adaptation.card) if trains else 0
    prepared = f'; prepared images take up to {size / 1e9:.2g} GB in {settings.work_dir}'
    show(
        f'adaptation: {len(cases)} sessions, {len(annotations)} of them labelled; device: '
        f'{device}{prepared if trains else ""}'
    )
    if settings.rung is None and not trains:
        show(
            'one labelled participant: no training; --folds slices also tests trainings, on '
            'slices of this participant'
        )
    root = settings.work_dir / 'adaptation'
    root.mkdir(parents=True, exist_ok=True)
    key = f'{adaptation.card.name}-{adaptation.card.sha256[:8]}'
    digests = Digests(settings.work_dir / DIGESTS)
    _check_space(settings, size)
    people, lost = cache.prepare_all(
        cases, annotations, adaptation.card, root / 'people' / key, digests.of, arrays=trains
    )
    digests.save()
    log.info('content of the preprocessed images: %s', digests.summary())
    for case, reason in lost:
        log.warning('%s is left out of the adaptation: %s', case.name, reason)
    if not people:
        raise DataError('no session can be prepared for this model', advice=lost[0][1])
    unannotated = any(
        one.case.name not in annotations or not annotations[one.case.name].whole for one in people
    )
    adaptation, twin = with_twin(adaptation, annotations, people, root, digests, show)
    chosen = training_settings(adaptation, device, unannotated=unannotated)
    smallest = [
        one.case.result.sidecar.get('MinimumLesionVolume', adaptation.card.minimum_lesion_volume)
        for one in people
    ]
    minimum_volume = float(min(smallest))
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
    if settings.strategy != TWIN or not adaptation.trains:
        return adaptation, None
    cases = [one.case for one in people]
    try:
        twin = draw_twin(settings, cases, adaptation.card, root, digests.of, show)
    except (DataError, NoInputError, UsageError) as error:
        if not annotations:
            raise DataError(
                f'no scanner twin can be made: {error}',
                advice='Label a few participants, or choose --strategy self_training.',
            ) from None
        show(f'no scanner twin can be made: {error}; continuing without it')
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


def devices_of(work: Work, trainings: int) -> list[str]:
    """The devices of this process that train at the same time, of trainings all in all."""
    own = math.ceil(trainings / nodes.processes())
    return devices_for(work.adaptation.settings, work.device, own, work.memory)


def devices_for(
    settings: GroupSettings, device: str, trainings: int, memory: int = 0
) -> list[str]:
    """The devices that train at the same time, at most as many as there are trainings.

    Every GPU unless one was asked for, or that of this process where torchrun started several on
    the node; on a CPU ``cpu`` as often as its share of cores and memory allows.

    Parameters
    ----------
    memory : bytes of one training; 0 where it is not known.
    """
    number, beside = nodes.on_this_node()
    if device != 'cpu':
        if beside > 1:
            return [f'cuda:{number % torch.cuda.device_count()}']
        every = settings.device in ('auto', 'cuda')
        found = [f'cuda:{n}' for n in range(torch.cuda.device_count())] if every else [device]
        return found[:trainings]
    count = min(settings.nprocs // beside, trainings)
    if memory:
        count = min(count, int(settings.memory_gb * 1e9 / beside / memory))
    return ['cpu'] * max(1, count)


def threads_for(settings: GroupSettings, devices: Sequence[str]) -> int:
    """Threads of each of the trainings that run at the same time."""
    cores = settings.nprocs // nodes.on_this_node()[1]
    return max(1, min(settings.omp_nthreads, cores // len(devices)))


def fit_into_time(work: Work, trainings: int) -> AdaptSettings:
    """Measure a step, report the total time, and reduce the steps where it is too long.

    What was settled is kept beside the checkpoints, because a resumed run needs it.

    Raises
    ------
    UsageError : not even ten steps fit into ``--max-time``.
    UnavailableError : the memory is too small even for the smallest batch.
    """
    kept = work.folder / 'steps.json'
    if kept.is_file():
        found = json.loads(kept.read_text(encoding='utf-8'))
        work.memory = int(found['PeakMemory'])
        steps = int(found['Steps'])
        batch = {n: found.get(key, getattr(work.training, n)) for n, key in BATCH.items()}
        batch['patch'] = tuple(batch['patch'])
        work.training = replace(work.training, steps=steps, **batch)
        if set(layers_of(work)) <= set(found['Layers']):
            work.show(f'resuming an adaptation of {trainings} trainings of {steps} steps')
            return work.training
    torch.set_num_threads(threads_for(work.adaptation.settings, devices_of(work, trainings)))
    costs = [cost_of_step(work, layers) for layers in reversed(layers_of(work))]
    cost = replace(costs[0], step=sum(one.step for one in costs))
    torch.set_num_threads(work.adaptation.settings.omp_nthreads)
    work.memory = cost.memory
    steps, most = work.training.steps, work.adaptation.settings.max_minutes
    at_a_time = nodes.processes() * len(devices_of(work, trainings))
    rounds = math.ceil(trainings / at_a_time)
    beside = inference_seconds(work, cost)
    if most is not None:
        room = (most * 60 - beside) / (rounds * max(cost.step, 1e-6))
        if room < MIN_STEPS:
            least = (MIN_STEPS * rounds * cost.step + beside) / 60
            raise UsageError(
                f'{most:g} minutes are too few for {trainings * len(costs)} trainings of '
                f'{MIN_STEPS} steps each',
                advice=f'Give --max-time {max(1, int(np.ceil(least)))} or more, fewer --folds, '
                'or a GPU.',
            )
        steps = min(steps, int(room))
    minutes = (rounds * steps * cost.step + beside) / 60
    kinds = [
        f'{trainings} trainings of {steps} steps by {settings_for(work, layers).strategy}'
        + (' of the last layers alone' if layers == LAST else '')
        for layers in reversed(layers_of(work))
    ]
    per_step = ' and '.join(f'{one.step:.2g}' for one in costs)
    work.show(
        f'{" and ".join(kinds)}, patches of '
        f'{" x ".join(map(str, work.training.patch))} voxels: about {minutes:.3g} minutes '
        f'({per_step} s a step, {cost.memory / 1e9:.2g} GB of memory); an interruption '
        'loses at most '
        f'{work.training.checkpoint_minutes:g} minutes; the same command resumes'
    )
    batch = {key: getattr(work.training, name) for name, key in BATCH.items()}
    settled = {
        'Steps': steps,
        'SecondsPerStep': cost.step,
        'PeakMemory': cost.memory,
        'Layers': layers_of(work),
    }
    write_json(kept, settled | batch)
    return replace(work.training, steps=steps)


def cost_of_step(work: Work, layers: str = ALL) -> Cost:
    """Measure a step; where the memory is too small, make its batch smaller, with a message.

    Raises
    ------
    UnavailableError : the memory is too small even for the smallest batch.
    """
    people = [one.read() for one in (*work.people, *work.twins)]
    network = work.adaptation.card.network
    multiple = NETWORKS[network['Type']].multiple(network)
    while True:
        try:
            return training.probe(
                work.network,
                people,
                settings_for(work, layers),
                window=work.adaptation.card.window,
                device=work.device,
            )
        except UnavailableError as error:
            settings = training.lighter(work.training, multiple)
            if settings is None or not out_of_memory(error):
                raise
            work.training = settings
        finally:
            work.network.to('cpu')
        if work.device != 'cpu':
            torch.cuda.empty_cache()
        work.show(
            f'the memory of {work.device} is too small: continuing with {settings.labelled} + '
            f'{settings.unlabelled} patches of {" x ".join(map(str, settings.patch))} voxels at a '
            f'time, {settings.accumulate} times a step'
        )


def out_of_memory(error: UnavailableError) -> bool:
    """Whether it was the memory that a step could not have."""
    cause = error.__cause__
    return isinstance(cause, RuntimeError) and is_out_of_memory(cause)


def inference_seconds(work: Work, cost: Cost) -> float:
    """Three predictions of all for the suggestions, one for the results; labels for curves.

    And the scores of each rung.
    """
    brains = 4 * len(work.people) + (4 + MEASURED) * len(work.labelled)
    rungs = sum(len(RUNGS_OF[layers]) for layers in layers_of(work))
    return brains * WINDOWS * cost.window + rungs * work.test_seconds


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
    """What ``config.toml`` holds."""
    content = {k: v for k, v in asdict(work.training).items() if v is not None}
    return content | {
        'folds': str(work.adaptation.settings.folds or fold_count(work.adaptation)),
        'start': work.adaptation.card.name,
        'device': work.device,
        'configuration_hash': work.configuration,
    }
