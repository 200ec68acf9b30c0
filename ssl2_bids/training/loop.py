"""The one loop that trains: any task, on a CPU, a GPU or many, resumed where it stopped."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ssl2_bids.errors import ENDING, heard_signals
from ssl2_bids.files import remove_leftovers
from ssl2_bids.progress import StepProgress
from ssl2_bids.training import checkpoint, distributed
from ssl2_bids.training.data.prefetch import Batches, stream
from ssl2_bids.training.run import History, Run, Task, Validate

log = logging.getLogger('ssl2_bids')

CURVES_INTERVAL = 15.0  # s; the curves on disk are not older than that while the run goes well


@dataclass(frozen=True)
class LoopSettings:
    """How the loop runs; the defaults suit the fast U-Net.

    Attributes
    ----------
    steps : steps of the optimiser.
    learning_rate : highest rate, after the warm-up.
    warm_up : share of the steps until the highest rate.
    floor : share of the highest rate that is left at the end of its cosine.
    weight_decay : of AdamW, on weights of two and more dimensions alone.
    betas : of AdamW.
    clip : largest norm of the gradient.
    average : weight of the past in the averaged weights that are validated and stored; 0 for
        none.
    accumulate : batches per step.
    echo : how often each batch is used before the next one: after the first time with other
        intensities, and mirrored the second, fourth, ... time (data echoing, Choi et al., arXiv
        1907.05550); for devices that learn faster than batches are made.
    seed : of all draws of the training; a pretraining takes the seed of the whole configuration.
    precision : ``bfloat16``, ``float32``, or ``auto``: bfloat16 where the device is fast at it.
    channels_last : memory layout with the channels last; faster on some devices.
    log_every : steps between two rows of the curves.
    validate_every : steps between two validations; 0 for one at the end.
    checkpoint_every : steps between two checkpoints; 0 for one at the end.
    checkpoint_minutes : a checkpoint also when the last one is older; 0 for never [min].
    workers : processes that make batches; 0 for none.
    ahead : batches made before they are needed.
    """

    steps: int = 20_000
    learning_rate: float = 1e-3
    warm_up: float = 0.02
    floor: float = 0.01
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    average: float = 0.999
    accumulate: int = 1
    echo: int = 1
    seed: int = 0
    precision: str = 'auto'
    channels_last: bool = True
    log_every: int = 20
    validate_every: int = 1000
    checkpoint_every: int = 500
    checkpoint_minutes: float = 10.0
    workers: int = 0
    ahead: int = 2


# what may change when a run is resumed: none of it is seen in the curves
FREE = frozenset(
    'log_every validate_every checkpoint_every checkpoint_minutes workers ahead'.split()
)


def check_resumable(settings: LoopSettings, folder: Path, identity: str) -> None:
    """Check that the newest checkpoint of a folder, if there is one, is of this run.

    Parameters
    ----------
    identity : as for :func:`train`.

    Raises
    ------
    UsageError : it is of another one.
    DataError : every checkpoint is damaged.
    NoInputError, ReadError, UnavailableError : a checkpoint that may be whole cannot be read.
    """
    found = checkpoint.newest(folder)
    if found is not None:
        path, content = found
        checkpoint.check_identity(content, _identity_of_run(settings, identity), path)


def _identity_of_run(settings: LoopSettings, identity: str) -> str:
    return checkpoint.fingerprint([curve_settings(settings), identity])


def train(
    task: Task,
    batches: Batches,
    settings: LoopSettings,
    folder: Path,
    *,
    device: str | torch.device,
    validate: Validate | None = None,
    progress: StepProgress | None = None,
    identity: str = '',
) -> History:
    """Train until the last step, or until a signal; resume from a checkpoint if there is one.

    A signal of ``ENDING`` ends the run after the step that it met, which is saved; a second
    SIGINT (Ctrl-C) does not wait.

    Writes ``curves.csv`` and ``checkpoint-*.pt`` (the last two) into ``folder``. The task's
    predictor holds the averaged weights when all steps are done.

    Parameters
    ----------
    batches : ``batches[step]`` is the batch of a step, a pure function of it.
    validate : gets the averaged predictor in evaluation mode and gives numbers to be logged.
    progress : called after each step with the steps done, all steps and the latest numbers.
    identity : what else, beside the settings, makes this run what it is (a fingerprint).

    Raises
    ------
    UsageError : the folder holds a run with another configuration.
    DataError : its checkpoints are of another network or damaged; or the loss is not a number.
    UnavailableError : the device's memory is too small.
    StorageError, CannotWriteError : the disk is full, or not writable; checkpoints are kept.
    """
    device = torch.device(device)
    identity = _identity_of_run(settings, identity)
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    run = Run(task, settings, folder, device, identity)
    run.resume()
    history = run.history
    echo = settings.echo
    begun = history.step * settings.accumulate // echo
    steps = range(begun, -(-settings.steps * settings.accumulate // echo))
    source = stream(
        batches,
        steps,
        workers=settings.workers,
        ahead=settings.ahead,
        pin=device.type == 'cuda',
    )
    last_saved = last_written = time.monotonic()
    with stop_signals() as asked, closing(source):  # type: ignore[type-var]
        while history.step < settings.steps:
            run.step(source)
            step, end = history.step, history.step == settings.steps
            stop = distributed.anywhere(bool(asked), device)
            now = time.monotonic()
            if due(step, settings.log_every) or end:
                run.log()
            if validate is not None and (due(step, settings.validate_every) or end):
                run.validate(validate)
            late = 0 < settings.checkpoint_minutes * 60 <= now - last_saved
            if due(step, settings.checkpoint_every) or distributed.anywhere(late, device):
                run.save()
                last_saved = last_written = time.monotonic()
            elif stop or end:
                run.save()
            elif now - last_written > CURVES_INTERVAL:
                run.write_curves()
                last_written = now
            if progress is not None:
                progress(step, settings.steps, run.latest)
            if stop:
                history.stopped = max(asked, default=int(ENDING[0]))
                log.info('stopped by signal %d after step %d', history.stopped, step)
                break
    # a signal may come after the last step, too, or while the source is closed
    if not history.stopped and distributed.anywhere(bool(asked), device):
        history.stopped = max(asked, default=int(ENDING[0]))
    if history.step == settings.steps:
        run.conclude()
    return history


def due(step: int, every: int) -> bool:
    """Whether something is to be done after ``step`` steps."""
    return every > 0 and step % every == 0


def curve_settings(settings: LoopSettings) -> dict[str, Any]:
    """The settings that make the curves what they are."""
    return {key: value for key, value in asdict(settings).items() if key not in FREE}


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that gets the numbers of the signals that ask for an end.

    Signals can be caught by a program's main thread alone; in another one the list stays empty.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, _: object) -> None:
        if number == signal.SIGINT and asked:
            raise KeyboardInterrupt
        asked.append(number)

    former = {number: signal.signal(number, ask) for number in heard_signals()}
    try:
        yield asked
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
