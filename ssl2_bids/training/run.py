"""The moving parts of a run: what a step does, what is logged, saved and taken up again."""

from __future__ import annotations

import copy
import csv
import io
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ssl2_bids.errors import DataError, UnavailableError
from ssl2_bids.files import write_text
from ssl2_bids.networks.inference import bfloat16_is_fast, is_out_of_memory
from ssl2_bids.training import checkpoint, distributed
from ssl2_bids.training.data.prefetch import echo_batch, to_device
from ssl2_bids.training.schedule import average_weight, rate
from ssl2_bids.training.strategy import ema_

if TYPE_CHECKING:
    from ssl2_bids.training.loop import LoopSettings

log = logging.getLogger('ssl2_bids')

CURVES = 'curves.csv'
CRITIC = 'critic'  # a module of this name has an optimiser of its own

Validate = Callable[[nn.Module], Mapping[str, float]]


class Task(Protocol):
    """What is trained: its modules, the loss of a batch, and what is shipped in the end.

    A task with a state beyond its modules (generators, optimisers of its own) also has
    ``state() -> dict`` and ``load_state(dict)``. One that makes its own generators has ``part``:
    of the batches that are accumulated to a step, the number of the one at hand.
    """

    def modules(self) -> dict[str, nn.Module]: ...

    def loss(self, batch: Any, step: int) -> tuple[Tensor, dict[str, Any]]: ...

    def after_step(self, step: int) -> None: ...

    def predictor(self) -> nn.Module: ...


@dataclass
class History:
    """What a run has come to.

    Attributes
    ----------
    step : steps done.
    finished : whether these are all; else a signal ended the run, and it can be resumed.
    stopped : number of the signal that asked for an end, at the last step too; 0 for none.
    rows : the curves, one row per logged step and per validation.
    seconds : time of all steps, also before an interruption.
    """

    step: int = 0
    finished: bool = False
    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    counted: int = 0
    stopped: int = 0


class ThinMapError(Exception):
    """A convolution met a map for which its gradient is wrong in bfloat16."""


def refuse_thin_maps(module: nn.Module) -> list[RemovableHandle]:
    """Make the convolutions of a network raise :class:`ThinMapError` where bfloat16 fails.

    On processors with AVX512-BF16, oneDNN (torch 2.13) reads uninitialised memory for
    the weights' gradient of a 3D convolution whose padded kernel is wider than the map's first
    axis: gradients are wrong or not numbers. ``tests/training/test_thin_maps.py`` shows it.

    Returns
    -------
    What takes the guards off again.
    """

    def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if 1 < inputs[0].shape[2] < layer.kernel_size[0]:  # type: ignore[index]
            raise ThinMapError

    layers = [m for m in module.modules() if isinstance(m, nn.Conv3d) and m.padding[0]]
    return [layer.register_forward_pre_hook(look) for layer in layers]


class Run:
    """The moving parts of a run."""

    def __init__(
        self, task: Task, settings: LoopSettings, folder: Path, device: torch.device, identity: str
    ):
        self.task, self.settings, self.folder = task, settings, folder
        self.device, self.identity = device, identity
        self.channels_last = settings.channels_last
        # patches have one size, so looking once for the fastest convolution pays
        torch.backends.cudnn.benchmark = device.type == 'cuda'
        fast = settings.precision == 'auto' and bfloat16_is_fast(device)
        self.bfloat16 = fast or settings.precision == 'bfloat16'
        self.unseen = self.bfloat16 and device.type == 'cpu'  # maps that may be too thin
        layout = torch.channels_last_3d if self.channels_last else torch.preserve_format
        for module in task.modules().values():
            module.to(device=device, memory_format=layout)  # type: ignore[call-overload]
        distributed.share_start(task.modules().values())
        self.optimiser = make_optimiser(task, settings)
        self.learning = [p for group in self.optimiser.param_groups for p in group['params']]
        self.average = averaging_copy(task.predictor()) if settings.average > 0 else None
        self.history = History()
        self.latest: dict[str, float] = {}
        self.watched: Tensor | None = None
        self.waited = 0.0
        self.batch: Any = None  # the last one that was made

    def resume(self) -> None:
        """Resume from the newest checkpoint of the folder, if there is one."""
        found = checkpoint.newest(self.folder)
        if found is None:
            return
        path, content = found
        checkpoint.check_identity(content, self.identity, path)
        modules = self.task.modules()
        if content['modules'].keys() != modules.keys():
            raise DataError(
                f'the checkpoint holds {", ".join(content["modules"])}, '
                f'this task has {", ".join(modules)}',
                path=path,
            )
        for name, module in modules.items():
            checkpoint.load_all(module, content['modules'][name], path, name)
        if self.average is not None:
            checkpoint.load_all(self.average, content['average'], path, 'averaged weights')
        history = History(**{**content['history'], 'finished': False, 'stopped': 0})
        self.optimiser.load_state_dict(content['optimiser'])
        if hasattr(self.task, 'load_state'):
            self.task.load_state(content['task'])
        self.history = history
        self.write_curves()
        log.info('resuming after step %d of %s', history.step, path.name)

    def step(self, source: Iterator[Any]) -> None:
        """One step of the optimiser."""
        history, settings = self.history, self.settings
        began = time.monotonic()
        set_training_mode(self.task)
        share = rate(
            history.step,
            steps=settings.steps,
            warm_up=settings.warm_up,
            floor=settings.floor,
        )
        for group in self.optimiser.param_groups:
            group['lr'] = settings.learning_rate * share
        self.optimiser.zero_grad(set_to_none=True)
        numbers: dict[str, Any] = {}
        try:
            for part in range(settings.accumulate):
                for name, value in self._backward(source, part).items():
                    numbers[name] = numbers.get(name, 0.0) + value / settings.accumulate
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise UnavailableError(
                f'the memory of {self.device} is too small for this batch',
                advice='Make the batch or the patch smaller and accumulate more batches.',
            ) from error
        distributed.average_gradients(self.learning)
        norm = torch.nn.utils.clip_grad_norm_(self.learning, settings.clip)
        self.check()
        self.watched = norm.detach()
        self.optimiser.step()
        self.task.after_step(history.step)
        if self.average is not None:
            alpha = average_weight(history.step, settings.average)
            ema_(self.average, self.task.predictor(), alpha)
        history.step += 1
        history.counted += 1
        for name, value in {**numbers, 'gradient': norm.detach()}.items():
            history.sums[name] = history.sums.get(name, 0.0) + value
        history.seconds += time.monotonic() - began

    def _backward(self, source: Iterator[Any], part: int) -> dict[str, Any]:
        step, rank = self.history.step, distributed.rank()
        echo = (step * self.settings.accumulate + part) % self.settings.echo
        if not echo or self.batch is None:
            began = time.monotonic()
            self.batch = to_device(next(source), self.device, channels_last=self.channels_last)
            self.waited += time.monotonic() - began
        seed = seed_of(self.settings.seed, rank, step, part)
        torch.manual_seed(seed)  # of the echo's intensities
        if hasattr(self.task, 'part'):
            self.task.part = part
        batch = echo_batch(self.batch, mirror=echo % 2 == 1) if echo else self.batch
        loss, scalars = (self._first_loss if self.unseen else self._loss)(batch, seed)
        (loss / self.settings.accumulate).backward()
        values = {'loss': loss, **scalars}
        return {k: v.detach().float() if isinstance(v, Tensor) else v for k, v in values.items()}

    def _loss(self, batch: Any, seed: int) -> tuple[Tensor, dict[str, Any]]:
        torch.manual_seed(seed)  # of drop-out and paths
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            return self.task.loss(batch, self.history.step)

    def _first_loss(self, batch: Any, seed: int) -> tuple[Tensor, dict[str, Any]]:
        """A loss, in float32 from here on if a map is too thin; all batches have one size."""
        self.unseen = False
        modules = self.task.modules().values()
        guards = [guard for module in modules for guard in refuse_thin_maps(module)]
        try:
            return self._loss(batch, seed)
        except ThinMapError:
            log.info(
                'bfloat16 is not supported for maps as thin as these on this processor: '
                'training in float32'
            )
            self.bfloat16 = False
        finally:
            for guard in guards:
                guard.remove()
        return self._loss(batch, seed)

    def check(self) -> None:
        """See that the last gradient was a number; a step late, so that a GPU need not wait.

        Raises
        ------
        DataError : it was not.
        """
        if self.watched is not None and not math.isfinite(float(self.watched)):
            raise DataError(
                f'the loss or its gradient is not a number (step {self.history.step})',
                advice='Start again in another folder with a lower learning rate'
                + (', or with precision = "float32".' if self.bfloat16 else '.'),
                path=self.folder,
            )
        self.watched = None

    def log(self) -> None:
        """A row of the means since the last one."""
        self.check()
        history = self.history
        if not history.counted:
            return
        means = {name: float(value) / history.counted for name, value in history.sums.items()}
        learning_rate = self.optimiser.param_groups[0]['lr']
        self.latest = {'step': history.step, 'rate': learning_rate, **means}
        waited = self.waited / history.counted
        self.waited = 0.0
        timing = {'seconds': round(history.seconds, 3), 'waited': round(waited, 4)}
        history.rows.append({**self.latest, **timing})
        history.sums, history.counted = {}, 0

    def validate(self, validate: Validate) -> None:
        """A row of the validation; one process does it."""
        self.check()
        if distributed.rank() == 0:
            predictor = self.average if self.average is not None else self.task.predictor()
            training = predictor.training
            numbers = validate(predictor.eval())
            predictor.train(training)
            row = {'step': self.history.step, **{k: float(v) for k, v in numbers.items()}}
            self.history.rows.append(row)
            self.latest = {**self.latest, **row}
        distributed.wait_for_all()

    def save(self) -> None:
        """Write checkpoint and curves."""
        self.check()
        if distributed.rank() == 0:
            history = self.history
            history.sums = {name: float(value) for name, value in history.sums.items()}
            average = None if self.average is None else self.average.state_dict()
            checkpoint.save(
                self.folder,
                {
                    'step': history.step,
                    'identity': self.identity,
                    'modules': {n: m.state_dict() for n, m in self.task.modules().items()},
                    'average': average,
                    'optimiser': self.optimiser.state_dict(),
                    'task': self.task.state() if hasattr(self.task, 'state') else None,
                    'history': asdict(history),
                },
            )
        self.write_curves()
        distributed.wait_for_all()

    def write_curves(self) -> None:
        """Write ``curves.csv``."""
        if distributed.rank() == 0:
            write_text(self.folder / CURVES, as_csv(self.history.rows))

    def conclude(self) -> None:
        """All steps are done: the predictor gets the averaged weights."""
        self.history.finished = True
        if self.average is not None:
            self.task.predictor().load_state_dict(self.average.state_dict())


def learning_of(task: Task) -> list[nn.Parameter]:
    """What the optimiser trains: neither a teacher nor a critic."""
    return [
        parameter
        for name, module in task.modules().items()
        if name != CRITIC
        for parameter in module.parameters()
        if parameter.requires_grad
    ]


def set_training_mode(task: Task) -> None:
    """Training mode for every module in which something learns."""
    for module in task.modules().values():
        if any(parameter.requires_grad for parameter in module.parameters()):
            module.train()


def make_optimiser(task: Task, settings: LoopSettings) -> torch.optim.Optimizer:
    """AdamW over what learns, without decay of biases and of normalisations' scales."""
    learning = learning_of(task)
    groups = [
        {'params': [p for p in learning if p.ndim > 1], 'weight_decay': settings.weight_decay},
        {'params': [p for p in learning if p.ndim <= 1], 'weight_decay': 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group['params']],
        lr=settings.learning_rate,
        betas=settings.betas,
        fused=True,
    )


def averaging_copy(predictor: nn.Module) -> nn.Module | None:
    """A copy that will follow a module; None for a module that is an average itself."""
    if not any(parameter.requires_grad for parameter in predictor.parameters()):
        return None
    return copy.deepcopy(predictor).requires_grad_(False).eval()


def as_csv(rows: list[dict[str, float]]) -> str:
    """Rows as comma-separated values, with a column for every name that occurs."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, restval='', lineterminator='\n')
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f'{value:.6g}' for name, value in row.items()})
    return stream.getvalue()


def seed_of(*numbers: int) -> int:
    """A seed of 63 bits for torch, mixed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
