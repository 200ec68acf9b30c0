"""Trainings side by side: one on each GPU, or several on the cores of a CPU.

Each training runs in a process of its own until it is done and leaves its checkpoint; whoever
asks for its network afterwards finds nothing left to train. So the result does not depend on how
many ran at a time, and what fails here fails again, with its message, where it is asked for.
"""

from __future__ import annotations

import multiprocessing
import queue
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from ssl2_bids.errors import Ssl2Error
from ssl2_bids.networks.cards import Card
from ssl2_bids.networks.weights import load_network
from ssl2_bids.training import adapt as training
from ssl2_bids.training.adapt import AdaptSettings
from ssl2_bids.training.views import read_participant
from ssl2_bids.workflows.adaptation_cache import Prepared
from ssl2_bids.workflows.adaptation_work import TOLD, Work, devices_of, threads_of, training_folder

POLL = 0.5  # s between two looks at the processes
PATIENCE = 60.0  # s that a process has to save its state when the run is asked to end


@dataclass(frozen=True)
class Job:
    """One training, in what can be handed to another process."""

    name: str
    card: Card
    people: tuple[Path, ...]
    settings: AdaptSettings
    folder: Path
    identity: str
    threads: int


def train_side_by_side(work: Work, jobs: Mapping[str, Sequence[Prepared]]) -> None:
    """Run trainings at the same time, as many as there are devices; returns when all have ended.

    Parameters
    ----------
    jobs : by name of a training, whom it sees.
    """
    devices = devices_of(work, len(jobs))
    if len(devices) < 2:
        return
    waiting = [
        Job(
            name,
            work.adaptation.card,
            tuple(one.folder for one in people),
            work.training,
            training_folder(work, name),
            work.configuration,
            threads_of(work, devices),
        )
        for name, people in jobs.items()
    ]
    work.say(f'{len(waiting)} trainings, {len(devices)} at a time')
    context = multiprocessing.get_context('spawn')
    told = context.Queue()
    running: dict[int, BaseProcess] = {}
    try:
        while waiting or running:
            for slot, device in enumerate(devices):
                if waiting and slot not in running:
                    job = waiting.pop(0)
                    running[slot] = context.Process(target=_train, args=(job, device, told))
                    running[slot].start()
            _pass_on(told, work)
            running = {slot: one for slot, one in running.items() if one.is_alive()}
    finally:
        for one in running.values():  # empty unless the run is asked to end
            one.terminate()
        for one in running.values():
            one.join(PATIENCE)
            one.kill()
        _pass_on(told, work)


def _pass_on(told: Any, work: Work) -> None:
    """Say what the processes have told since, waiting a moment for it."""
    try:
        work.say(told.get(timeout=POLL))
        while True:
            work.say(told.get_nowait())
    except queue.Empty:
        pass


def _train(job: Job, device: str, told: Any) -> None:
    """What a process does; it ends with the one that started it, however that ends."""
    torch.set_num_threads(job.threads)
    parent = multiprocessing.parent_process()

    def progress(done: int, total: int, latest: Mapping[str, float]) -> None:
        if parent is not None and not parent.is_alive():
            raise SystemExit
        if done == total or (done * TOLD // total) > ((done - 1) * TOLD // total):
            told.put(
                f'training {job.name} on {device}: step {done} of {total}, '
                f'loss {latest.get("loss", 0):.3f}'
            )

    try:
        training.adapt(
            load_network(job.card),
            [read_participant(folder) for folder in job.people],
            job.settings,
            job.folder,
            device=device,
            identity=job.identity,
            progress=progress,
        )
    except Ssl2Error as error:
        told.put(f'training {job.name} on {device} failed: {error}')
