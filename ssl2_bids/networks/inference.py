"""Sliding windows over a brain: tensors and any callable network in, probability out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from ssl2_bids.errors import UnavailableError, lacks_memory
from ssl2_bids.networks.architectures.committee import Committee, disagreement, joined
from ssl2_bids.progress import CountProgress

Network = Callable[[Tensor], Tensor]
Measure = Callable[[Tensor], Tensor]  # windows (B, C, *window) to K maps of each (B, K, *window)

SIGMA = 1 / 8  # of the Gaussian weight, in windows (Isensee et al. 2021)
MIN_WEIGHT = 1e-3  # keeps the corners of a window away from zero, as MONAI does
PRECISIONS = ('auto', 'bfloat16', 'float32')


def predict(
    network: Network,
    image: Tensor,
    brain: Tensor,
    *,
    window: Sequence[int],
    overlap: float,
    device: str | torch.device = 'cpu',
    precision: str = 'auto',
    mirror_axis: int | None = None,
    batch_size: int = 1,
    progress: CountProgress | None = None,
) -> Tensor:
    """Probability of each brain voxel, averaged over windows with Gaussian weights.

    The network's logits go through the sigmoid window by window, and probabilities are averaged.

    Parameters
    ----------
    network : (B, C, *window) float32 to (B, 1, *window) logits, already on ``device``.
    mirror_axis : average with the prediction of the image flipped along this axis of (D, H, W).
    image, brain, window, overlap, device, precision, batch_size, progress : as of
        :func:`average_windows`.

    Returns
    -------
    Tensor (D, H, W) float32 on the CPU, 0 outside the brain.

    Raises
    ------
    UnavailableError : the memory is too small even for one window.
    """
    maps = average_windows(
        partial(probability_of, network, mirror_axis=mirror_axis),
        image,
        brain,
        window=window,
        overlap=overlap,
        device=device,
        precision=precision,
        batch_size=batch_size,
        progress=progress,
    )
    return maps[0]


def average_windows(
    measure: Measure,
    image: Tensor,
    brain: Tensor,
    *,
    maps: int = 1,
    window: Sequence[int],
    overlap: float,
    device: str | torch.device = 'cpu',
    precision: str = 'auto',
    batch_size: int = 1,
    progress: CountProgress | None = None,
) -> Tensor:
    """What a network gives for each brain voxel, averaged over windows with Gaussian weights.

    The windows tile the box around the brain, evenly spaced and as few as the overlap demands;
    those without brain are skipped. No random numbers are used.

    Parameters
    ----------
    measure : :func:`probability_of` or :func:`probability_and_disagreement` of a network.
    image : (C, D, H, W) float32; padded with zeros where smaller than the window.
    brain : (D, H, W) bool.
    maps : K, how many maps ``measure`` gives.
    window : voxels along D, H and W.
    overlap : share of a window that neighbours have in common at least, 0 to below 1.
    precision : ``bfloat16``, ``float32``, or ``auto``: bfloat16 where the device is fast at it.
    batch_size : windows at once; halved as often as the device runs out of memory.
    progress : called with the windows done and all windows.

    Returns
    -------
    Tensor (K, D, H, W) float32 on the CPU, 0 outside the brain.

    Raises
    ------
    UnavailableError : the memory is too small even for one window.
    """
    if image.shape[1:] != brain.shape or brain.dtype != torch.bool:
        raise ValueError(f'brain must be bool of shape {tuple(image.shape[1:])}')
    if not 0 <= overlap < 1:
        raise ValueError(f'overlap must be from 0 to below 1, not {overlap}')
    image, brain, inside = pad(image, brain, window)
    starts = window_starts(brain, window, overlap=overlap)
    weight = gaussian_weight(window)
    total = torch.zeros(maps, *brain.shape)
    weights = torch.zeros(brain.shape)
    with ExitStack() as stack:
        for context in reproducible(torch.device(device), precision):
            stack.enter_context(context)
        done = 0
        for batch, found in run_windows(
            measure,
            image,
            starts,
            window=window,
            device=torch.device(device),
            batch_size=batch_size,
        ):
            for start, one in zip(batch, found, strict=True):
                place = box(start, window)
                total[(slice(None), *place)] += weight * one
                weights[place] += weight
            done += len(batch)
            if progress is not None:
                progress(done, len(starts))
    return torch.where(brain, total / weights, 0.0)[(slice(None), *inside)].contiguous()


def pad(
    image: Tensor, brain: Tensor, window: Sequence[int]
) -> tuple[Tensor, Tensor, tuple[slice, ...]]:
    """Pad image and brain with zeros on both sides to at least one window; and the way back."""
    missing = [max(w - n, 0) for w, n in zip(window, brain.shape, strict=True)]
    inside = tuple(slice(m // 2, m // 2 + n) for m, n in zip(missing, brain.shape, strict=True))
    if not any(missing):
        return image, brain, inside
    widths = [side for m in reversed(missing) for side in (m // 2, m - m // 2)]
    return functional.pad(image, widths), functional.pad(brain, widths), inside


def axis_starts(low: int, high: int, *, length: int, size: int, overlap: float) -> list[int]:
    """First voxels of the windows of ``size`` that cover [low, high) of an axis of ``length``.

    One window is centred on a range that fits in it; more are spaced evenly from end to end.
    """
    spare = high - low - size
    if spare <= 0:
        return [min(max(low + spare // 2, 0), length - size)]
    stride = max(1, math.floor(size * (1 - overlap) + 1e-9))
    gaps = math.ceil(spare / stride)
    return [low + (2 * i * spare + gaps) // (2 * gaps) for i in range(gaps + 1)]


def window_starts(
    brain: Tensor, window: Sequence[int], *, overlap: float
) -> list[tuple[int, ...]]:
    """First voxels (d, h, w) of the windows that tile the brain's box and touch the brain."""
    if not brain.any():
        return []
    axes = []
    for axis, size in enumerate(window):
        others = [other for other in range(brain.ndim) if other != axis]
        filled = brain.any(dim=others[1]).any(dim=others[0]).nonzero().flatten()
        low, high = int(filled[0]), int(filled[-1]) + 1
        length = brain.shape[axis]
        axes.append(axis_starts(low, high, length=length, size=size, overlap=overlap))
    grid = [(d, h, w) for d in axes[0] for h in axes[1] for w in axes[2]]
    return [start for start in grid if bool(brain[box(start, window)].any())]


def count_windows(brain: Tensor, *, window: Sequence[int], overlap: float) -> int:
    """How many windows :func:`average_windows` cuts a brain (D, H, W, bool) into."""
    _, padded, _ = pad(brain[None].float(), brain, window)
    return len(window_starts(padded, window, overlap=overlap))


def box(start: Sequence[int], window: Sequence[int]) -> tuple[slice, ...]:
    """The slices of a window."""
    return tuple(slice(s, s + size) for s, size in zip(start, window, strict=True))


def gaussian_weight(window: Sequence[int]) -> Tensor:
    """Weight of each voxel of a window: a Gaussian around its centre, not below 1e-3."""
    weight = torch.ones(())
    for size in window:
        distance = torch.arange(size) - (size - 1) / 2
        weight = weight[..., None] * torch.exp(-(distance**2) / (2 * (SIGMA * size) ** 2))
    return weight.clamp(min=MIN_WEIGHT)


def run_windows(
    measure: Measure,
    image: Tensor,
    starts: Sequence[tuple[int, ...]],
    *,
    window: Sequence[int],
    device: torch.device,
    batch_size: int,
) -> Iterator[tuple[Sequence[tuple[int, ...]], Tensor]]:
    """Give batches of window starts with their maps (B, K, *window) on the CPU.

    Raises
    ------
    UnavailableError : out of memory with one window at once.
    """
    done = 0
    while done < len(starts):
        batch = starts[done : done + batch_size]
        windows = torch.stack([image[(slice(None), *box(start, window))] for start in batch])
        try:
            maps = measure(windows.to(device))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise UnavailableError(
                    f'the memory of {device} is too small for a window of '
                    f'{" x ".join(map(str, window))} voxels',
                    advice='Use --low-mem, or --device cpu, or free memory of the device.',
                ) from error
            batch_size = len(batch) // 2
            continue
        done += len(batch)
        yield batch, maps


@torch.inference_mode()
def probability_of(network: Network, windows: Tensor, *, mirror_axis: int | None) -> Tensor:
    """Probabilities (B, 1, *window), float32 on the CPU, of windows (B, C, *window)."""
    probability = torch.sigmoid(network(windows).float())
    if mirror_axis is not None:
        axis = mirror_axis + 2
        mirrored = torch.sigmoid(network(windows.flip(axis)).float()).flip(axis)
        probability = (probability + mirrored) / 2
    return probability.cpu()


@torch.inference_mode()
def probability_and_disagreement(
    committee: Committee, windows: Tensor, *, mirror_axis: int | None
) -> Tensor:
    """Probability and disagreement of members (B, 2, *window), float32 on the CPU.

    The probability is that of :func:`probability_of`; the members run one after another, and each
    leaves one map. With the mirror image, each member's probabilities are averaged first.

    Parameters
    ----------
    windows : (B, C, *window).
    """
    opinions = committee.opinions(windows)
    probability, members = torch.sigmoid(joined(opinions)), torch.sigmoid(opinions)
    if mirror_axis is not None:
        axis = mirror_axis + 2
        opinions = committee.opinions(windows.flip(axis)).flip(axis + 1)
        probability = (probability + torch.sigmoid(joined(opinions))) / 2
        members = (members + torch.sigmoid(opinions)) / 2
    return torch.cat([probability, disagreement(members)], dim=1).cpu()


def seconds_of_window(
    network: Network,
    channels: int,
    *,
    window: Sequence[int],
    device: str | torch.device,
    clock: Callable[[], float] = time.monotonic,
) -> float:
    """How long a network takes for a window, measured after one that warms up.

    Parameters
    ----------
    network : in evaluation mode, on the device.
    channels : C, of its input.
    """
    image, device = torch.zeros(1, channels, *window), torch.device(device)
    with ExitStack() as stack:
        for context in reproducible(device, 'auto'):
            stack.enter_context(context)
        probability_of(network, image.to(device), mirror_axis=None)
        began = clock()
        probability_of(network, image.to(device), mirror_axis=None)  # it waits for a GPU
        return clock() - began


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of torch means that memory of the GPU or the computer is full."""
    full = isinstance(error, torch.cuda.OutOfMemoryError)
    return full or lacks_memory(error)


def reproducible(device: torch.device, precision: str) -> list[AbstractContextManager]:
    """The contexts to run a network in: the precision, and only algorithms that repeat."""
    if precision not in PRECISIONS:
        raise ValueError(f'precision must be one of {", ".join(PRECISIONS)}, not {precision!r}')
    fast = precision == 'bfloat16' or (precision == 'auto' and bfloat16_is_fast(device))
    contexts: list[AbstractContextManager] = []
    if fast:
        contexts.append(torch.autocast(device.type, torch.bfloat16))
    if device.type == 'cuda':
        contexts.append(
            torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        )
    return contexts


def bfloat16_is_fast(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware: NVIDIA from Ampere on, and processors
    with AVX512-BF16 or AMX (elsewhere bfloat16 is emulated and slower than float32).
    """
    if device.type == 'cuda':
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != 'cpu' or not torch.backends.mkldnn.is_available():
        return False
    # torch asks the processor itself only since 2.6, under names that are not public
    description = Path('/proc/cpuinfo')
    flags = description.read_text(errors='replace') if description.is_file() else ''
    return 'avx512_bf16' in flags or 'amx_bf16' in flags
