"""Several processes that train one model (torchrun), or one alone: the same calls for both.

Gradients are averaged by hand after the backward pass rather than by a wrapper around one
module, because a task may hold several modules and call them in any order.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

MAX_WAIT = datetime.timedelta(hours=2)  # the first process validates while the others wait
BUCKET = 16 * 2**20  # numbers that are sent at once


def rank() -> int:
    """Number of this process, 0 where there is only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def group(device: str) -> Iterator[str]:
    """Join the processes that ``torchrun`` started, if it did; give this process's device.

    Parameters
    ----------
    device : as chosen for one process; with several GPUs each process takes its own.
    """
    if int(os.environ.get('WORLD_SIZE', '1')) < 2 or dist.is_initialized():
        yield device
        return
    if device.startswith('cuda'):
        device = f'cuda:{int(os.environ.get("LOCAL_RANK", "0"))}'
        torch.cuda.set_device(device)
    backend = 'nccl' if device.startswith('cuda') else 'gloo'
    dist.init_process_group(backend, timeout=MAX_WAIT)
    try:
        yield device
    finally:
        dist.destroy_process_group()


def share_start(modules: Iterable[nn.Module]) -> None:
    """Give every process the first one's parameters and buffers."""
    if world_size() > 1:
        for module in modules:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, 0)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace gradients by their mean over the processes.

    One that is missing in some of them counts as zero there; one that is missing in all stays
    missing, for the optimiser leaves such a parameter alone.
    """
    size = world_size()
    if size == 1:
        return
    parameters = list(parameters)
    if not parameters:
        return
    device = parameters[0].device
    used = torch.tensor([float(p.grad is not None) for p in parameters], device=device)
    dist.all_reduce(used, dist.ReduceOp.MAX)
    bucket: list[Tensor] = []
    held = 0
    for parameter, anywhere_used in zip(parameters, used.tolist(), strict=True):
        if not anywhere_used:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        bucket.append(parameter.grad)
        held += parameter.numel()
        if held >= BUCKET:
            _average(bucket, size)
            bucket, held = [], 0
    if bucket:
        _average(bucket, size)


def _average(bucket: list[Tensor], size: int) -> None:
    flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
    dist.all_reduce(flat)
    flat /= size
    start = 0
    for tensor in bucket:
        tensor.copy_(flat[start : start + tensor.numel()].view(tensor.shape))
        start += tensor.numel()


def anywhere(flag: bool, device: torch.device) -> bool:
    """Whether a flag is up in any of the processes."""
    if world_size() == 1:
        return flag
    raised = torch.tensor(float(flag), device=device)
    dist.all_reduce(raised, dist.ReduceOp.MAX)
    return bool(raised.item())


def gather(tensor: Tensor) -> Tensor:
    """The tensors of all processes along the first axis; gradients go to the own part alone."""
    if world_size() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(parts, tensor.detach().contiguous())
    parts[rank()] = tensor
    return torch.cat(parts)


def wait_for_all() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        dist.barrier()
