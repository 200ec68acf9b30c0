"""Batches made ahead of the step that needs them, in processes or in a thread.

A batch is a pure function of its step, so no queue needs to be saved: a resumed run asks for the
next step.
"""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from ssl2_bids.errors import ENDING

SCALE, MOVE = 0.15, 0.1  # of the intensities of an echo


class Batches(Protocol):
    """What gives the batch of a step: the same one whenever it is asked."""

    def __getitem__(self, step: int) -> Any: ...


def stream(
    batches: Batches, steps: range, *, workers: int = 0, ahead: int = 0, pin: bool = False
) -> Iterator[Any]:
    """Give the batches of ``steps`` in order.

    Parameters
    ----------
    workers : processes that make them; 0 for none.
    ahead : batches that may wait; with ``workers=0`` a thread makes them, and 0 means that each
        is made when it is asked for.
    pin : put them into memory that a GPU copies from without waiting.
    """
    if workers:
        return _from_processes(batches, steps, workers=workers, ahead=ahead, pin=pin)
    return _from_thread(batches, steps, ahead) if ahead else (batches[step] for step in steps)


class _Indexed(torch.utils.data.Dataset):
    def __init__(self, batches: Batches):
        self.batches = batches

    def __getitem__(self, step: int) -> Any:
        return self.batches[step]


def _begin_worker(_: int) -> None:
    # a batch system signals the whole group: the parent decides when its workers end
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _from_processes(
    batches: Batches, steps: range, *, workers: int, ahead: int, pin: bool
) -> Iterator[Any]:
    loader: torch.utils.data.DataLoader = torch.utils.data.DataLoader(
        _Indexed(batches),
        sampler=steps,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=max(1, -(-ahead // workers)),
        worker_init_fn=_begin_worker,
        pin_memory=pin,
        generator=torch.Generator(),  # else it draws from the one that the training uses
    )
    yield from loader


def _from_thread(batches: Batches, steps: range, ahead: int) -> Iterator[Any]:
    ready: queue.Queue = queue.Queue(ahead)
    ended = threading.Event()

    def put(entry: tuple[Any, BaseException | None]) -> None:
        while not ended.is_set():
            try:
                return ready.put(entry, timeout=0.2)
            except queue.Full:
                continue

    def make() -> None:
        try:
            for step in steps:
                if ended.is_set():
                    return
                put((batches[step], None))
        except BaseException as error:  # noqa: BLE001  handed to the thread that trains
            put((None, error))

    thread = threading.Thread(target=make, name='batches', daemon=True)
    thread.start()
    try:
        for _ in steps:
            batch, error = ready.get()
            if error is not None:
                raise error
            yield batch
    finally:
        ended.set()
        thread.join()


def to_device(batch: Any, device: torch.device, *, channels_last: bool = False) -> Any:
    """Bring the tensors of a (named) tuple to a device, five-dimensional ones channels last."""
    if isinstance(batch, Tensor):
        moved = batch.to(device, non_blocking=True)
        if channels_last and moved.ndim == 5 and moved.shape[1] > 1:
            moved = moved.contiguous(memory_format=torch.channels_last_3d)
        return moved
    if isinstance(batch, tuple):
        parts = [to_device(part, device, channels_last=channels_last) for part in batch]
        return type(batch)(*parts) if hasattr(batch, '_fields') else tuple(parts)
    return batch


def echo_batch(batch: Any, *, mirror: bool) -> Any:
    """A batch again: other intensities, and left and right exchanged if asked for.

    Each channel of each sample is scaled by up to 15 % and moved by up to 0.1 (a third of a
    robust standard deviation), where it is not zero; from torch's own random numbers.

    Parameters
    ----------
    batch : a named tuple with ``image`` (N, C, D, H, W) among its fields, D from left to right.
    """
    image = batch.image
    shape = (*image.shape[:2], 1, 1, 1)
    scale = 1 + SCALE * (2 * torch.rand(shape, device=image.device) - 1)
    move = MOVE * (2 * torch.rand(shape, device=image.device) - 1)
    changed = batch._replace(image=(image * scale + move) * (image != 0))
    if not mirror:
        return changed
    return type(batch)(*(part.flip(2) if part.ndim == 5 else part for part in changed))
