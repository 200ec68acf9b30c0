"""Which device computes."""

from __future__ import annotations

import re

from ssl2_bids.errors import UnavailableError


def choose_device(wanted: str) -> str:
    """``cpu`` or ``cuda:N`` for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    A GPU counts as present only if a kernel ran on it: a card that is seen but too old or too
    new for the installed PyTorch is not.

    Raises
    ------
    UnavailableError : another name; or a GPU is asked for and cannot be used; never a silent run
        on the CPU.
    """
    if wanted == 'cpu':
        return 'cpu'
    if not re.fullmatch(r'auto|cuda(:[0-9]+)?', wanted):
        raise UnavailableError(
            f'the device "{wanted}" is not known', advice='Use auto, cpu, cuda or cuda:N.'
        )
    import torch

    number = int(wanted.partition(':')[2] or 0)
    name = f'cuda:{number}'
    problem = ''
    if not torch.cuda.is_available():
        problem = 'no usable GPU is visible'
    elif number >= torch.cuda.device_count():
        problem = f'there are only {torch.cuda.device_count()} GPUs'
    else:
        try:
            (torch.ones(8, device=name) * 2).sum().item()
        except RuntimeError as error:
            problem = f'a test kernel failed ({error})'
    if not problem:
        return name
    if wanted == 'auto':
        return 'cpu'
    raise UnavailableError(
        f'the device "{wanted}" is not available: {problem}',
        advice='Use --device cpu, or start the container with --gpus all (Docker) or --nv '
        '(Apptainer).',
    )
