"""Trainings side by side: one on each GPU, several on the cores of a CPU, or on several nodes.

Each training runs in a process of its own until it is done and leaves its checkpoint; whoever
asks for its network afterwards finds nothing left to train. What fails here fails again, with its
message, where it is asked for. With the same threads for each the result does not depend on how
many ran at a time; other threads add the same numbers in another order.
"""

from __future__ import annotations

import json
import multiprocessing
import queue
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from ssl2_bids.device import choose_device
from ssl2_bids.errors import SUCCESS, NoInputError, Ssl2Error
from ssl2_bids.files import write_json
from ssl2_bids.networks.cards import Card
from ssl2_bids.networks.weights import find_model, load_network
from ssl2_bids.processes import whole_start
from ssl2_bids.progress import ShowLine
from ssl2_bids.settings import GroupSettings
from ssl2_bids.tables import from_table, to_table
from ssl2_bids.training.adaptation import adapt as training
from ssl2_bids.training.adaptation.adapt import AdaptSettings
from ssl2_bids.training.adaptation.left_out import quality
from ssl2_bids.training.data.participants import read_participant
from ssl2_bids.wording import counted
from ssl2_bids.workflows.adaptation import torchrun as nodes
from ssl2_bids.workflows.adaptation.prepare import PreparedSession
from ssl2_bids.workflows.adaptation.state import (
    PROGRESS_LINES,
    Work,
    name_of,
    settings_for,
    training_folder,
)
from ssl2_bids.workflows.adaptation.timing import devices_for, devices_of, threads_for

POLL = 0.5  # s between two looks at the processes
PATIENCE = 60.0  # s that a process has to save its state when the run is asked to end
JOBS = 'trainings.json'  # in the work folder, for the processes of other nodes


@dataclass(frozen=True)
class Job:
    """One training, in what can be handed to another process."""

    name: str
    people: tuple[Path, ...]
    left_out: tuple[Path, ...]
    settings: AdaptSettings
    folder: Path
    identity: str


def train_side_by_side(
    work: Work,
    jobs: Mapping[tuple[str, str], tuple[Sequence[PreparedSession], Sequence[PreparedSession]]],
) -> None:
    """Run trainings at the same time, as many as there are devices; returns when all have ended.

    Parameters
    ----------
    jobs : by fold (or ``final``) and layers of a training, whom it sees, and the labelled
        people left out of it.
    """
    settings, devices = work.adaptation.settings, devices_of(work, len(jobs))
    everywhere = nodes.processes()
    if everywhere * len(devices) < 2:
        return
    waiting = [
        Job(
            name_of(fold, layers),
            tuple(one.folder for one in people),
            tuple(one.folder for one in left_out),
            settings_for(work, layers),
            training_folder(work, name_of(fold, layers)),
            work.folder.name,
        )
        for (fold, layers), (people, left_out) in jobs.items()
    ]
    work.show(
        f'{counted(len(waiting), "training")}, {len(devices)} at a time'
        + (f' in each of {everywhere} processes' if everywhere > 1 else '')
    )
    if everywhere > 1:
        write_json(work.folder / JOBS, to_table(waiting))
        nodes.send_trainings(work.folder / JOBS)
    run_jobs(waiting[::everywhere], work.adaptation.card, devices, settings, work.show)
    if everywhere > 1:
        for problem in nodes.wait_for_reports():
            work.show(problem)


def take_part(settings: GroupSettings, show: ShowLine) -> int:
    """What a process that is not torchrun's first one does at the group level.

    Returns
    -------
    Exit code.

    Raises
    ------
    NoInputError : the work folder is another one here.
    UnavailableError : the device or the model is not available; the first process has ended.
    """
    path = None if settings.dry_run else nodes.wait_for_trainings()
    if path is None:
        return SUCCESS
    if not path.is_file():
        raise NoInputError(
            'the trainings prepared by the first process are not visible to this process',
            advice='Give a work folder on a disk that all nodes share with -w.',
            path=path,
        )
    jobs = [from_table(Job, content) for content in json.loads(path.read_text(encoding='utf-8'))]
    own = jobs[nodes.rank() :: nodes.processes()]
    devices = devices_for(settings, choose_device(settings.device), max(len(own), 1))
    problems: list[str] = []
    run_jobs(own, find_model(settings.model, settings.output_dir), devices, settings,
             show, problems)  # fmt: skip
    nodes.report(problems)
    return SUCCESS


def run_jobs(
    jobs: Sequence[Job],
    card: Card,
    devices: Sequence[str],
    settings: GroupSettings,
    show: ShowLine,
    problems: list[str] | None = None,
) -> None:
    """Run trainings in processes, one on each device at a time; ``problems`` gets what failed."""
    waiting, threads = list(jobs), threads_for(settings, devices)
    context = multiprocessing.get_context('spawn')
    messages = context.Queue()
    running: dict[int, BaseProcess] = {}

    def pass_on() -> None:
        """Report new messages of the processes, with a short wait."""
        try:
            text, failed = messages.get(timeout=POLL)
            while True:
                show(text)
                if failed and problems is not None:
                    problems.append(text)
                text, failed = messages.get_nowait()
        except queue.Empty:
            pass

    try:
        while waiting or running:
            for slot, device in enumerate(devices):
                if waiting and slot not in running:
                    arguments = (waiting.pop(0), card, device, threads, messages)
                    running[slot] = context.Process(target=_train, args=arguments)
                    with whole_start():
                        running[slot].start()
            pass_on()
            running = {slot: one for slot, one in running.items() if one.is_alive()}
    finally:
        for one in running.values():  # empty unless the run is asked to end
            one.terminate()
        for one in running.values():
            one.join(PATIENCE)
            one.kill()
        pass_on()


def _train(job: Job, card: Card, device: str, threads: int, messages: Any) -> None:
    """What a process does; it ends with the one that started it, however that ends."""
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()

    def progress(done: int, total: int, latest: Mapping[str, float]) -> None:
        if parent is not None and not parent.is_alive():
            raise SystemExit
        if done == total or (done * PROGRESS_LINES // total) > (
            (done - 1) * PROGRESS_LINES // total
        ):
            messages.put(
                (
                    f'training {job.name} on {device}: step {done} of {total}, '
                    f'loss {latest.get("loss", 0):.3f}',
                    False,
                )
            )

    left_out = [read_participant(folder) for folder in job.left_out]
    try:
        training.adapt(
            load_network(card),
            [read_participant(folder) for folder in job.people],
            job.settings,
            job.folder,
            device=device,
            identity=job.identity,
            progress=progress,
            measure=quality(left_out, card, device) if left_out else None,
        )
    except Ssl2Error as error:
        messages.put((f'training {job.name} on {device} failed: {error}', True))
