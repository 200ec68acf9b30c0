"""On which devices an adaptation trains, and how long that takes."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssl2_bids.errors import (
    UnavailableError,
    UsageError,
)
from ssl2_bids.files import read_object, write_json
from ssl2_bids.networks.inference import is_out_of_memory
from ssl2_bids.networks.registry import NETWORKS
from ssl2_bids.settings import GroupSettings
from ssl2_bids.training.adaptation import adapt as training
from ssl2_bids.training.adaptation.adapt import ALL, LAST, AdaptSettings, Cost
from ssl2_bids.training.adaptation.left_out import MEASURED
from ssl2_bids.training.adaptation.suggestions import sessions_asked
from ssl2_bids.wording import counted
from ssl2_bids.workflows.adaptation import torchrun as nodes
from ssl2_bids.workflows.adaptation.state import RUNGS_OF, Work, layers_of, settings_for

BATCH = {
    'labelled': 'Labelled',
    'unlabelled': 'Unlabelled',
    'accumulate': 'Accumulate',
    'patch': 'Patch',
}  # what of a batch is kept for a resumed run
MIN_STEPS = 10  # fewer are no training
WINDOWS = 12  # of one brain, for the estimate before any was cut into windows


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
    torch.set_num_threads(threads_for(work.adaptation.settings, devices_of(work, trainings)))
    costs = [cost_of_step(work, layers) for layers in reversed(layers_of(work))]
    cost = replace(costs[0], step=sum(one.step for one in costs))
    batch = {key: getattr(work.training, name) for name, key in BATCH.items()}
    if any(found.get(key, _as_json(value)) != _as_json(value) for key, value in batch.items()):
        _forget_trainings(work)
    torch.set_num_threads(work.adaptation.settings.omp_nthreads)
    work.memory = cost.memory
    steps, most = work.training.steps, work.adaptation.settings.max_minutes
    processes = 1 if work.adaptation.on_slices else nodes.processes()
    at_a_time = processes * len(devices_of(work, trainings))
    rounds = math.ceil(trainings / at_a_time)
    beside = inference_seconds(work, cost)
    if most is not None:
        room = (most * 60 - beside) / (rounds * max(cost.step, 1e-6))
        if room < MIN_STEPS:
            least = (MIN_STEPS * rounds * cost.step + beside) / 60
            raise UsageError(
                f'--max-time {most:g} is too short for {trainings * len(costs)} trainings of '
                f'{MIN_STEPS} steps each',
                advice=f'Give --max-time {max(1, int(np.ceil(least)))} or more, fewer --folds, '
                'or a GPU.',
            )
        steps = min(steps, int(room))
    minutes = (rounds * steps * cost.step + beside) / 60
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
        f'({per_step} s a step, {cost.memory / 1e9:.2g} GB of memory); an interruption '
        'loses at most '
        f'{work.training.checkpoint_minutes:g} minutes; the same command resumes'
    )
    settled = {
        'Steps': steps,
        'SecondsPerStep': cost.step,
        'PeakMemory': cost.memory,
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


def inference_seconds(work: Work, cost: Cost) -> float:
    """Three predictions for the suggestions, one of all for the results; labels for curves.

    And the scores of each rung.
    """
    asked = sessions_asked(len(work.people), work.adaptation.settings.suggestions)
    brains = 3 * asked + len(work.people) + (4 + MEASURED) * len(work.labelled)
    rungs = sum(len(RUNGS_OF[layers]) for layers in layers_of(work))
    return brains * WINDOWS * cost.window + rungs * work.test_seconds
