"""On which devices an adaptation trains, and how long that takes."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ssl2_bids.errors import (
    UnavailableError,
    UsageError,
)
from ssl2_bids.files import read_object, write_json
from ssl2_bids.networks.inference import is_out_of_memory, seconds_of_window
from ssl2_bids.networks.registry import NETWORKS
from ssl2_bids.settings import GroupSettings
from ssl2_bids.training.adaptation import adapt as training
from ssl2_bids.training.adaptation.adapt import ALL, LAST, AdaptSettings, Cost
from ssl2_bids.wording import counted
from ssl2_bids.workflows.adaptation import torchrun as nodes
from ssl2_bids.workflows.adaptation.expected import (
    brains_of,
    file_seconds,
    measurements,
    most_steps,
    training_seconds,
    windows_of,
)
from ssl2_bids.workflows.adaptation.state import RUNGS_OF, Work, layers_of, settings_for

BATCH = {
    'labelled': 'Labelled',
    'unlabelled': 'Unlabelled',
    'accumulate': 'Accumulate',
    'patch': 'Patch',
}  # what of a batch is kept for a resumed run
MIN_STEPS = 10  # fewer are no training


def devices_of(work: Work, trainings: int) -> list[str]:
    """The devices of this process that train at the same time, of trainings all in all.

    One where slices are left out: these trainings run one after another.
    """
    own = 1 if work.adaptation.on_slices else math.ceil(trainings / nodes.processes())
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
    found = _settled(kept)
    if found:
        work.memory = int(found['PeakMemory'])
        steps = int(found['Steps'])
        batch = {n: found.get(key, getattr(work.training, n)) for n, key in BATCH.items()}
        batch['patch'] = tuple(batch['patch'])
        work.training = replace(work.training, steps=steps, **batch)
        if set(layers_of(work)) <= set(found['Layers']):
            work.show(
                f'resuming an adaptation of {counted(trainings, "training")} of {steps} steps'
            )
            return work.training
    settings = work.adaptation.settings
    torch.set_num_threads(threads_for(settings, _devices_of_all(work, trainings)))
    costs = [cost_of_step(work, layers) for layers in reversed(layers_of(work))]
    batch = {key: getattr(work.training, name) for name, key in BATCH.items()}
    if any(found.get(key, _as_json(value)) != _as_json(value) for key, value in batch.items()):
        _forget_trainings(work)
    torch.set_num_threads(settings.omp_nthreads)
    work.memory = max(cost.memory for cost in costs)
    seconds = expected_seconds(work, trainings, costs[::-1])
    steps, most = work.training.steps, settings.max_minutes
    if most is not None:
        fewest = min(MIN_STEPS, steps)
        steps = most_steps(seconds, most * 60, fewest, steps)
        if not steps:
            raise UsageError(
                f'--max-time {most:g} is too short for {trainings * len(costs)} trainings of '
                f'{fewest} steps each',
                advice=f'Give --max-time {max(1, math.ceil(seconds(fewest) / 60))} or more, '
                'fewer --folds, or a GPU.',
            )
    minutes = seconds(steps) / 60
    kinds = [
        f'{counted(trainings, "training")} of {steps} steps by '
        f'{settings_for(work, layers).strategy}'
        + (' of the last layers alone' if layers == LAST else '')
        for layers in reversed(layers_of(work))
    ]
    per_step = ' and '.join(f'{one.step:.2g}' for one in costs)
    work.show(
        f'{" and ".join(kinds)}, patches of '
        f'{" x ".join(map(str, work.training.patch))} voxels: about {minutes:.3g} minutes '
        f'with tests, suggestions and second results ({per_step} s a step, '
        f'{work.memory / 1e9:.2g} GB of memory); an interruption loses at most '
        f'{work.training.checkpoint_minutes:g} minutes; the same command resumes'
    )
    settled = {
        'Steps': steps,
        'SecondsPerStep': sum(one.step for one in costs),
        'PeakMemory': work.memory,
        'Layers': layers_of(work),
    }
    write_json(kept, settled | batch)
    return replace(work.training, steps=steps)


def _forget_trainings(work: Work) -> None:
    """Remove trainings with a batch that the memory is too small for, and what came of them."""
    folders = [path for path in work.folder.glob('training-*') if path.is_dir()]
    for folder in folders:
        shutil.rmtree(folder)
    for path in work.folder.glob('probability-*.npy'):
        path.unlink()
    if folders:
        work.show(f'{counted(len(folders), "training")} with a larger batch: made again')


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _settled(kept: Path) -> dict[str, Any]:
    """What an earlier run settled; empty where that is missing or damaged."""
    try:
        found = read_object(kept)
    except (OSError, ValueError):
        return {}
    return found if {'Steps', 'PeakMemory', 'Layers'} <= set(found) else {}


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


def expected_seconds(work: Work, trainings: int, costs: Sequence[Cost]) -> Callable[[int], float]:
    """The seconds of a run by the steps of each training, if the model is accepted.

    Trainings, and what they are measured by; the test; suggestions; the second results.

    Parameters
    ----------
    trainings : of one kind: those of the folds and the final one.
    costs : of each kind, in the order of the trainings.
    """
    settings, devices = work.adaptation.settings, _devices_of_all(work, trainings)
    at_a_time = len(devices) * (1 if work.adaptation.on_slices else nodes.processes())
    kinds, folds, windows = layers_of(work), trainings - 1, windows_of(work)
    inside = alone = windows * min(cost.window for cost in costs)
    if work.device == 'cpu' and threads_for(settings, devices) != settings.omp_nthreads:
        alone = windows * _seconds_of_window(work)
    brains = brains_of(work, folds)
    after = alone * brains.after + file_seconds(work)
    after += work.test_seconds * sum(len(RUNGS_OF[layers]) for layers in kinds)

    def seconds(steps: int) -> float:
        curves = inside * measurements(steps) * brains.curves / max(folds, 1)
        each = [
            (steps * cost.step + (curves if layers == ALL else 0.0), steps * cost.step)
            for layers, cost in zip(kinds, costs, strict=True)
        ]
        return training_seconds(each, folds, at_a_time) + after

    return seconds


def _devices_of_all(work: Work, trainings: int) -> list[str]:
    """The devices of all kinds of trainings, of which there are so many each but one final one."""
    return devices_of(work, len(layers_of(work)) * (trainings - 1) + 1)


def _seconds_of_window(work: Work) -> float:
    """With the threads of this process, which has no training beside it."""
    card = work.adaptation.card
    network, channels = work.network.to(work.device).eval(), len(work.people[0].read().present)
    return seconds_of_window(network, channels, window=card.window, device=work.device)
