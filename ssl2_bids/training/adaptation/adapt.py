"""Adapting a model to a site: folds, one training, and what a step costs.

Arrays and settings in, networks and curves out; nothing here looks for a file of a dataset.
"""

from __future__ import annotations

import copy
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ssl2_bids.networks.architectures.committee import Committee
from ssl2_bids.networks.architectures.norms import VoxelNorm
from ssl2_bids.networks.architectures.unet import ResidualUNet
from ssl2_bids.networks.inference import seconds_of_window
from ssl2_bids.progress import StepProgress
from ssl2_bids.training import strategies
from ssl2_bids.training.adaptation.left_out import MEASURED
from ssl2_bids.training.data.participants import Participant
from ssl2_bids.training.data.views import AXIAL, Views, ViewSettings, masks_of
from ssl2_bids.training.loop import LoopSettings, train
from ssl2_bids.training.run import History, Run, Validate
from ssl2_bids.training.strategy import Strategy

MIN_LABELS_ALONE = 10  # labelled participants from which on labels alone are trusted
REMEMBERED = 0.1  # share of the steps that the shipped average is the mean of
PEER_CHANNELS = (16, 32, 64, 96)  # of the other architecture that cross-teaching needs
PEER_NOISE = 0.1  # of a tensor's spread: two equal networks could not learn from each other
MIN_PATCH = 32  # voxels; a smaller one shows a lesion without its surroundings
ALL, LAST = 'all', 'last'
LABELS_ALONE = ('supervised', 'twin')  # strategies that look at no scan without a label
SIMULATED = 0.5  # share of the patches that are of a twin's people, beside real labels
LAST_RATE = 3.0  # of the learning rate: few numbers that all voxels decide may move faster
PROBED = 3  # steps timed; the first one warms up and is not counted


NORMS = (nn.modules.instancenorm._InstanceNorm, nn.modules.batchnorm._BatchNorm, nn.LayerNorm,
         nn.GroupNorm, VoxelNorm)  # fmt: skip


@dataclass(frozen=True)
class AdaptSettings:
    """One training.

    Attributes
    ----------
    strategy : name of :mod:`ssl2_bids.training.strategies`.
    steps : of the optimiser.
    learning_rate : highest; below that of a training from noise, for the weights are good.
    patch, labelled, unlabelled : of a batch, see :class:`ViewSettings`.
    accumulate : batches of a step; more where the memory holds smaller ones only.
    layers : that are trained: ``all``, or ``last``, see :func:`last_layers`.
    checkpoint_minutes : a run that is stopped loses at most this.
    """

    strategy: str
    steps: int
    learning_rate: float
    patch: tuple[int, int, int]
    labelled: int
    unlabelled: int
    accumulate: int = 1
    layers: str = ALL
    seed: int = 0
    checkpoint_minutes: float = 3.0


@dataclass(frozen=True)
class Cost:
    """What a probe has measured: seconds of a step and of a window, peak memory in bytes."""

    step: float
    window: float
    memory: int


def choose_strategy(labelled: int, *, unannotated: bool) -> str:
    """The strategy for a number of labelled participants.

    ``mean_teacher`` below ten of them if anything is not annotated, else ``supervised``: with
    many labels or nothing beside them, images without labels add little.
    """
    return 'mean_teacher' if labelled < MIN_LABELS_ALONE and unannotated else 'supervised'


def patch_for(window: Sequence[int], multiple: int, edge: int) -> tuple[int, int, int]:
    """A patch of at most ``edge`` voxels and a model's window, in its network's multiples."""
    first, second, third = (
        max(multiple, min(edge, size) // multiple * multiple) for size in window
    )
    return first, second, third


def lighter(settings: AdaptSettings, multiple: int) -> AdaptSettings | None:
    """Settings that need less memory; None where nothing smaller makes sense.

    First half of the labelled patches at a time and twice as many batches. A step then sees as
    many labelled patches as before, or one more for each former batch where the number of its
    labelled patches is odd. Then smaller patches.

    Parameters
    ----------
    multiple : of voxels, that the network needs.
    """
    if settings.labelled > 1:
        half = (settings.labelled + 1) // 2
        return replace(settings, labelled=half, accumulate=2 * settings.accumulate)
    first, second, third = (
        max((edge - 1) // multiple * multiple, multiple) for edge in settings.patch
    )
    if min(first, second, third) < MIN_PATCH or (first, second, third) == settings.patch:
        return None
    return replace(settings, patch=(first, second, third))


def of_last_layers(settings: AdaptSettings) -> AdaptSettings:
    """The same training of the last layers alone.

    By labels alone: some thousand numbers need no scans without labels to stay in place.
    """
    rate = LAST_RATE * settings.learning_rate
    return replace(settings, layers=LAST, strategy='supervised', unlabelled=0, learning_rate=rate)


def last_layers(network: nn.Module) -> list[nn.Parameter]:
    """The parameters of normalisations, and of the layers behind the last of them.

    What adapts best per number that is changed: Frankle et al. 2020 (arXiv 2003.00152) train
    normalisations alone, Zaken et al. 2022 (BitFit, arXiv 2106.10199) biases alone. Of a
    committee those of each member.
    """
    if isinstance(network, Committee):
        return [found for member in network.members for found in last_layers(member)]
    modules = list(network.modules())
    norms = [n for n, one in enumerate(modules) if isinstance(one, NORMS)]
    last = max(norms, default=-1)
    chosen = [one for n, one in enumerate(modules) if n in norms or n > last]
    return [parameter for one in chosen for parameter in one.parameters(recurse=False)]


def assign_folds(loads: Mapping[str, float], folds: int, *, seed: int) -> dict[str, int]:
    """The fold (from 1) in which each participant is left out; equal sizes, similar loads.

    Parameters
    ----------
    loads : lesion volume by participant.
    folds : from 2 to the number of participants.
    """
    if not 2 <= folds <= len(loads):
        raise ValueError(f'{folds} folds of {len(loads)} participants')
    random = np.random.default_rng((seed, folds))
    ordered = sorted(loads, key=lambda name: (-loads[name], name))
    found: dict[str, int] = {}
    for start in range(0, len(ordered), folds):
        dealt = random.permutation(folds) + 1
        # the last, smaller hand goes to random folds, one to each: sizes differ by one at most
        for name, fold in zip(ordered[start : start + folds], dealt.tolist(), strict=False):
            found[name] = fold
    return found


def slice_folds(annotated: np.ndarray, lesion: np.ndarray, folds: int) -> list[np.ndarray]:
    """Blocks of neighbouring annotated axial slices, for a single labelled participant.

    Parameters
    ----------
    annotated, lesion : per axial slice, whether it is annotated, and the lesion voxels in it.

    Returns
    -------
    For each fold, the indices of its slices: blocks with as equal a share of the lesions as
    whole slices allow. Neighbours are alike, so they stay together.
    """
    slices = np.flatnonzero(annotated)
    if len(slices) < folds:
        raise ValueError(f'{folds} folds of {len(slices)} annotated slices')
    # a hundredth of the lesions over all slices, so that empty ones count a little, too
    weight = lesion[slices] + max(lesion.sum(), 1) / (100 * len(slices))
    share = (np.cumsum(weight) - weight / 2) / weight.sum()
    number = np.minimum((share * folds).astype(int), folds - 1)
    number = np.maximum.accumulate(number)
    if len(set(number.tolist())) < folds:  # all lesions in a few slices
        number = np.arange(len(slices)) * folds // len(slices)
    return [slices[number == fold] for fold in range(folds)]


def without_slices(participant: Participant, slices: np.ndarray) -> Participant:
    """A participant with axial slices outside of the brain: no image, no label is seen there."""
    kept = np.ones(participant.brain.shape[AXIAL], bool)
    kept[slices] = False
    brain, label, annotated = masks_of(participant, (slice(None),) * 3)
    return replace(
        participant,
        image=np.asarray(participant.image) * kept,
        brain=(brain & kept).astype(np.uint8),
        label=(label & kept).astype(np.uint8),
        annotated=(annotated & kept).astype(np.uint8),
    )


def make_strategy(network: nn.Module, settings: AdaptSettings, channels: int) -> Strategy:
    """The strategy around a copy of a network; the network is left as it was."""
    kind = strategies.find(settings.strategy)

    def build(part: str) -> nn.Module:
        if part == 'student':
            return _free(copy.deepcopy(network), settings.layers)
        if settings.strategy == 'cross_teach':
            return ResidualUNet(inputs=channels, outputs=1, channels=PEER_CHANNELS)
        return disturb(copy.deepcopy(network).requires_grad_(True))

    return kind(kind.Settings(steps=settings.steps, seed=settings.seed), build)


def _free(network: nn.Module, layers: str) -> nn.Module:
    """The network with the layers free that are trained."""
    network.requires_grad_(layers == ALL)
    if layers == LAST:
        for parameter in last_layers(network):
            parameter.requires_grad_(True)
    return network


@torch.no_grad()
def disturb(network: nn.Module) -> nn.Module:
    """The network with noise of torch's generator on its weights."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.add_(PEER_NOISE * parameter.std() * torch.randn_like(parameter))
    return network


def views_of(people: Sequence[Participant], settings: AdaptSettings) -> Views:
    """The batches of a training."""
    needs_two = settings.strategy not in LABELS_ALONE
    return Views(
        people,
        ViewSettings(
            patch=settings.patch,
            labelled=settings.labelled,
            unlabelled=settings.unlabelled if needs_two else 0,
            simulated=SIMULATED,
        ),
        seed=settings.seed,
    )


def loop_settings(settings: AdaptSettings) -> LoopSettings:
    """How the loop runs for an adaptation."""
    remembered = min(max(REMEMBERED * settings.steps, 5), 1000)
    return LoopSettings(
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        warm_up=0.05,
        average=1 - 1 / remembered,
        accumulate=settings.accumulate,
        seed=settings.seed,
        log_every=max(1, settings.steps // 50),
        validate_every=0,
        checkpoint_every=max(20, settings.steps // 10),
        checkpoint_minutes=settings.checkpoint_minutes,
        ahead=2,
    )


def adapt(
    network: nn.Module,
    people: Sequence[Participant],
    settings: AdaptSettings,
    folder: Path,
    *,
    device: str | torch.device,
    identity: str = '',
    progress: StepProgress | None = None,
    measure: Validate | None = None,
) -> tuple[nn.Module, History]:
    """Train a copy of a network on a site's participants; resume where an earlier call stopped.

    Parameters
    ----------
    people : those to train with, labelled or not; no others are used.
    folder : checkpoints and curves of this training.
    identity : what else makes the training what it is.
    measure : gives numbers of a network for the curves, from people who are left out; of the
        given one too. They decide nothing.

    Returns
    -------
    The network to use, in evaluation mode, and the curves (``finished`` is False where a signal
    asked for an end).

    Raises
    ------
    DataError, UsageError, UnavailableError, StorageError : see :func:`training.loop.train`.
    """
    strategy = make_strategy(network, settings, len(people[0].present))
    every = -(-settings.steps // MEASURED) if measure else 0
    history = train(
        strategy,
        views_of(people, settings),
        replace(loop_settings(settings), validate_every=every),
        folder,
        device=device,
        identity=f'{settings.strategy} {identity}',
        validate=measure,
        progress=progress,
    )
    if measure and history.finished:
        history.rows.insert(0, {'step': 0, **measure(network.to(device).eval())})
    return strategy.predictor().eval(), history


@torch.no_grad()
def between(start: nn.Module, trained: nn.Module, share: float) -> nn.Module:
    """A copy of a trained network whose weights are averaged with those of the start model.

    Parameters
    ----------
    share : 0 is the start, 1 the trained one.
    """
    found = copy.deepcopy(trained)
    begin = start.state_dict()
    for name, value in found.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.lerp(begin[name].to(value.device), value, share))
    return found


def probe(
    network: nn.Module,
    people: Sequence[Participant],
    settings: AdaptSettings,
    *,
    window: Sequence[int],
    device: str | torch.device,
    clock: Callable[[], float] = time.monotonic,
) -> Cost:
    """Measure a few steps with everything on, and a window of the segmentation.

    The networks of the training are copies: nothing is changed.

    Raises
    ------
    UnavailableError : the memory is too small for a step.
    """
    device = torch.device(device)
    strategy = make_strategy(network, settings, len(people[0].present))
    run = Run(strategy, loop_settings(settings), Path(), device, '')
    run.history.step = settings.steps - 1  # the unlabelled term is at its full weight by then
    views, times = views_of(people, settings), []
    for number in range(PROBED):
        began = clock()
        first = number * settings.accumulate
        run.step(iter([views[first + part] for part in range(settings.accumulate)]))
        settle(device)
        times.append(clock() - began)
    predictor, channels = strategy.predictor().eval(), len(people[0].present)
    seconds = seconds_of_window(predictor, channels, window=window, device=device, clock=clock)
    return Cost(sum(times[1:]) / (PROBED - 1), seconds, peak_memory(device))


def settle(device: torch.device) -> None:
    """Wait until a GPU has done what it was asked to."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> int:
    """Bytes: of the GPU's memory, or of this process so far."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def curves(histories: Mapping[str, History]) -> list[dict[str, Any]]:
    """The curves of all trainings, with the name of the training in each row."""
    return [
        {'training': name, **row} for name, history in histories.items() for row in history.rows
    ]
