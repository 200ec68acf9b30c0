"""What each of two processes does in the tests of ``training/distributed.py``.

``torchrun --nproc-per-node 2 tests/tiny_distributed.py OUT`` writes what each of them found.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from tiny_training import BrightVoxels, FindBright, settings, tiny_network

from ssl2_bids.training import distributed
from ssl2_bids.training.loop import train
from ssl2_bids.training.pretraining.pretext.contrastive import contrast_loss
from ssl2_bids.training.run import Run

STEPS = 6


def halves(rank: int) -> BrightVoxels:
    return BrightVoxels(batch=4, part=(2 * rank, 2 * rank + 2))


def one_step(batches: BrightVoxels, seed: int) -> dict[str, torch.Tensor]:
    """Gradients of one step; the network starts differently in each process."""
    task = FindBright(tiny_network(seed=seed), noise=0)
    given = settings(1, clip=1e9, learning_rate=0.0, channels_last=False)
    moving = Run(task, given, Path('nowhere'), torch.device('cpu'), '')
    moving.step(iter([batches[0]]))
    return {name: p.grad for name, p in task.network.named_parameters()}


def contrast_parts(rank: int | None) -> tuple[torch.Tensor, ...]:
    random = torch.Generator().manual_seed(3)
    first, second = torch.randn(2, 4, 8, generator=random)
    person = torch.tensor([0, 1, 0, 2])
    part = slice(None) if rank is None else slice(2 * rank, 2 * rank + 2)
    return first[part], second[part], person[part]


def main(out: Path) -> None:
    torch.set_num_threads(1)
    with distributed.group('cpu') as device:
        rank = distributed.rank()
        found: dict[str, object] = {'device': device, 'size': distributed.world_size()}
        found['gradients'] = one_step(halves(rank), seed=rank)
        sparse = [torch.zeros(2, requires_grad=True) for _ in range(3)]
        sparse[0].grad = torch.full((2,), float(rank))
        if rank == 1:
            sparse[1].grad = torch.ones(2)
        distributed.average_gradients(sparse)
        found['sparse'] = [tensor.grad for tensor in sparse]
        found['anywhere'] = distributed.anywhere(rank == 1, torch.device(device))
        found['contrast'] = contrast_loss(*contrast_parts(rank))
        if rank == 0:  # as in a validation, which the first process does alone
            found['alone'] = contrast_loss(*contrast_parts(None), alone=True)

        def stop(done: int, steps: int, latest: object) -> None:
            if rank == 1 and done == 2:  # only one of them hears it
                os.kill(os.getpid(), signal.SIGUSR1)

        task = FindBright(tiny_network(seed=rank), noise=0)
        history = train(
            task,
            halves(rank),
            settings(STEPS, log_every=1, checkpoint_every=0),
            out / 'run',
            device=device,
            progress=stop,
            validate=lambda network: {'score': 1.0},
        )
        found['stopped'] = (history.step, history.finished)
        found['weights'] = task.network.state_dict()
    torch.save(found, out / f'{rank}.pt')


if __name__ == '__main__':
    main(Path(sys.argv[1]))
