"""How labelled and unlabelled images become one loss: the interface of all strategies.

The loop that trains owns data, precision, optimiser, schedule and checkpoints; a strategy owns
networks beside the student and what is asked of unlabelled images. Random numbers are a pure
function of (seed, rank, step), so there is no state of them to keep.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ssl2_bids.training import distributed
from ssl2_bids.training.losses import sup_loss
from ssl2_bids.training.schedule import average_weight

Scalars = dict[str, Tensor | float]  # tensors without gradient: reading one waits for the GPU
Build = Callable[[str], nn.Module]  # kind ('student', 'peer') to a network of one logit
LESION = 0.6  # probability from which the target of a voxel is lesion
BACKGROUND = 0.05  # below which it is background; between the two a voxel has no target
REMEMBERED = 0.02  # share of the steps that a teacher is the mean of


class Batch(NamedTuple):
    """What one step sees, on the device. N may be 0 in the labelled or the unlabelled part.

    Attributes
    ----------
    xl, yl, ml, bl : labelled image (N, C, D, H, W), its label, where that is known, its brain
        (N, 1, D, H, W), 0 or 1.
    xu, xs, bu : unlabelled image in a weak and a strong view of one geometry, and its brain;
        that of a partly annotated subject lacks the annotated voxels.
    cl, cu : which contrasts are present (N, C) bool; absent ones are zeros in the image.
    """

    xl: Tensor
    yl: Tensor
    ml: Tensor
    bl: Tensor
    xu: Tensor
    xs: Tensor
    bu: Tensor
    cl: Tensor
    cu: Tensor


@dataclass(frozen=True)
class StrategySettings:
    """What all strategies share; ``steps`` is the length of the training."""

    steps: int
    seed: int = 0
    w_max: float = 1.0  # of the unlabelled term; its balanced mean is as large as the labelled one
    warmup: float = 0.1  # share of the steps without it: a random teacher is no target
    ramp: float = 0.25  # share of the steps, after those, in which its weight grows
    alpha: float | None = None  # of the teacher; None is 2 % of the steps, see alpha_max
    focal_tversky: float = 0.0  # weight of that term of the labelled loss; 0.3 for small lesions
    weigh_positives: bool = False  # lesion voxels heavier in the labelled cross-entropy

    @property
    def alpha_max(self) -> float:
        """The teacher's alpha: as given, else by the length of the run.

        A teacher with the memory of a long run lags behind in a short one: 100 steps (0.99) suit
        a run of 5 000; no less than 10 and no more than 1 000 (0.9 to 0.999).
        """
        if self.alpha is not None:
            return self.alpha
        return 1 - 1 / min(max(REMEMBERED * self.steps, 10), 1000)

    def following(self, step: int) -> float:
        """alpha after a step: that of the plain mean of all students, until ``alpha_max``."""
        return average_weight(step, self.alpha_max)

    def ramped(self, step: int) -> float:
        """How far the ramp is: 0 while warming up, then growing to 1."""
        start = self.warmup * self.steps
        return 0.0 if step < start else ramp(step - start, self.ramp * self.steps)

    def weight(self, step: int) -> float:
        """w(step): 0 while warming up, then growing to ``w_max``."""
        return self.w_max * self.ramped(step)


def ramp(step: float, total: float) -> float:
    """exp(-5 (1 - min(step, total) / total) ** 2), of Laine & Aila (arXiv 1610.02242)."""
    done = min(step / total, 1.0) if total > 0 else 1.0
    return math.exp(-5 * (1 - done) ** 2)


@torch.no_grad()
def ema_(teacher: nn.Module, student: nn.Module, alpha: float) -> None:
    """Move all parameters and buffers of a teacher to alpha teacher + (1 - alpha) student.

    What is not a floating-point number (a count) is copied.
    """
    pairs = list(zip(teacher.state_dict().values(), student.state_dict().values(), strict=True))
    numbers = [(old, new) for old, new in pairs if old.is_floating_point()]
    get_ema_multi_avg_fn(alpha)([old for old, _ in numbers], [new for _, new in numbers], 0)
    for old, new in pairs:
        if not old.is_floating_point():
            old.copy_(new)


def band(
    q: Tensor, lesion: float | Tensor = LESION, background: float = BACKGROUND
) -> tuple[Tensor, Tensor]:
    """Target (1 lesion) of a probability, and weight (0 where the probability is uncertain)."""
    target = (q > lesion).float()
    return target, ((q < background) | (target > 0)).float()


@torch.no_grad()
def mean_over_processes_(values: Sequence[Tensor]) -> None:
    """Replace tensors by their means over the processes that train together."""
    if distributed.world_size() > 1:
        for value in values:
            torch.distributed.all_reduce(value)
            value /= distributed.world_size()


def generator(seed: int, step: int, device: torch.device, part: int = 0) -> torch.Generator:
    """The random numbers of one step of this process, or of a part of it.

    Parameters
    ----------
    part : number of the batch, where several are accumulated to a step.
    """
    entropy = (seed, distributed.rank(), step, *([part] if part else []))
    state = np.random.SeedSequence(entropy).generate_state(2, np.uint32)
    return torch.Generator(device).manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


def noise(image: Tensor, random: torch.Generator, *, sigma: float) -> Tensor:
    """Normal numbers clipped at two sigma, 0 where the image is exactly 0 (nothing is known)."""
    drawn = torch.empty_like(image).normal_(generator=random)
    return (sigma * drawn).clamp(-2 * sigma, 2 * sigma) * (image != 0)


def partners(present: Tensor) -> tuple[Tensor, Tensor]:
    """With whom each sample is mixed, and in which channels.

    Parameters
    ----------
    present : (N, C) bool.

    Returns
    -------
    partner : (N,), the next sample; the sample itself where the two have no contrast in common.
    shared : (N, C, 1, 1, 1) bool: channels that both have; all others must be left out of a
        mix, for half a contrast is not to be met in any scan.
    """
    own = torch.arange(len(present), device=present.device)
    partner = torch.where((present & present.roll(-1, 0)).any(1), own.roll(-1), own)
    return partner, (present & present[partner])[:, :, None, None, None]


def contrasts_seen(image: Tensor) -> Tensor:
    """Which contrasts a view has (N, C): a strong one may lack some that the scan has."""
    return (image != 0).flatten(2).any(2)


def boxes(shape: Sequence[int], centre: Tensor, share: Tensor | float) -> Tensor:
    """Masks of boxes that lie wholly inside.

    Parameters
    ----------
    shape : (D, H, W).
    centre : (N, 3), voxels; moved where the box would stick out.
    share : of each edge of the shape, (N, 1) or a number.

    Returns
    -------
    (N, 1, D, H, W) float32, 1 in the box.
    """
    size = torch.tensor(shape, device=centre.device)
    edges = (size * share).round().long().expand(centre.shape)
    corner = torch.minimum((centre - edges / 2).round().long().clamp_min(0), size - edges)
    inside = torch.ones(len(centre), 1, *shape, device=centre.device)
    for axis in range(3):
        along = torch.arange(shape[axis], device=centre.device)[None]
        first = corner[:, axis, None]
        within = (along >= first) & (along < first + edges[:, axis, None])
        view = [len(centre), 1, 1, 1, 1]
        view[2 + axis] = shape[axis]
        inside = inside * within.view(view)
    return inside


# by the name of a network's class: the modules whose outputs every path from the image to the
# decoder passes, and the levels of the decoder coarser than the image, the finest last
STAGES: dict[str, dict[str, Callable[[Any], list[nn.Module]]]] = {
    'FastUNet': {'encoder': lambda n: [n.f1, *n.enc], 'decoder': lambda n: [*n.dec]},
    'ResidualUNet': {'encoder': lambda n: [*n.encoder], 'decoder': lambda n: [*n.decoder][:-1]},
    'SwinUNETR': {
        'encoder': lambda n: (
            [n.swinViT, n.encoder1, n.encoder2, n.encoder3, n.encoder4, n.encoder10]
        ),
        'decoder': lambda n: [n.decoder5, n.decoder4, n.decoder3, n.decoder2],
    },
}


WITH_STAGES = frozenset({'fast_unet', 'residual_unet', 'swin_unetr'})  # the same, in a card


def stages(network: nn.Module, part: str) -> list[nn.Module]:
    """The modules of a network that end its ``encoder``, or are the levels of its ``decoder``.

    Raises
    ------
    TypeError : the network's class is not in the table ``STAGES``.
    """
    kind = type(network).__name__
    if kind not in STAGES:
        raise TypeError(f'STAGES does not list the modules of the {part} of {kind}')
    return STAGES[kind][part](network)


@contextmanager
def forward_hooks(
    modules: Sequence[nn.Module], change: Callable[[int, Any], Any]
) -> Iterator[None]:
    """While open, outputs of modules go through ``change(index, output)``; None leaves them."""
    handles = [
        module.register_forward_hook(lambda _, __, output, index=index: change(index, output))
        for index, module in enumerate(modules)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def each(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """An output, a tensor or a list of them, with each tensor changed."""
    return change(output) if isinstance(output, Tensor) else [change(z) for z in output]


class Strategy:
    """Base of all strategies: L = L_s + w(step) L_u.

    A strategy gives ``unlabelled`` (L_u); the base does the rest. Networks are made once, here;
    they must not be wrapped, for a step calls them several times and hooks into them.

    Parameters
    ----------
    cfg : of the class's ``Settings``.
    build : kind to a new network, initialised or loaded as the training is to start.
    """

    Settings: ClassVar[type[StrategySettings]] = StrategySettings
    extra: ClassVar[frozenset[str]] = frozenset()  # of 'teacher', 'peer', 'heads', 'critic'
    part = 0  # of the batches that are accumulated to a step, the number of this one
    networks: ClassVar[frozenset[str]] = frozenset()  # types that it can do with; empty: all

    student: nn.Module
    teacher: nn.Module
    peer: nn.Module

    def __init__(self, cfg: StrategySettings, build: Build):
        self.cfg = cfg
        self.student = build('student')
        # what is made beside the student leaves the random numbers of the training alone
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(cfg.seed + 1)
            if 'teacher' in self.extra:
                self.teacher = copy.deepcopy(self.student).requires_grad_(False).eval()
            if 'peer' in self.extra:
                self.peer = build('peer')
            self.prepare()

    def prepare(self) -> None:
        """Make heads or a critic; nothing by default."""

    def modules(self) -> dict[str, nn.Module]:
        """All networks by kind: what is moved to a device, checkpointed and resumed."""
        return {kind: getattr(self, kind) for kind in ('student', *sorted(self.extra))}

    def loss(self, b: Batch, step: int) -> tuple[Tensor, Scalars]:
        """L_s + w(step) L_u, and what is worth a curve."""
        labelled, weight = self.labelled(b), self.cfg.weight(step)
        scalars: Scalars = {'labelled': labelled.detach(), 'weight': weight}
        if weight == 0 or len(b.xu) == 0:
            return labelled, scalars
        random = generator(self.cfg.seed, step, b.xu.device, self.part)
        unlabelled, more = self.unlabelled(b, step, random)
        return labelled + weight * unlabelled, {
            **scalars,
            'unlabelled': unlabelled.detach(),
            **more,
        }

    def labelled(self, b: Batch) -> Tensor:
        """L_s of the student."""
        return self.labelled_of(self.student, b)

    def unlabelled(self, b: Batch, step: int, random: torch.Generator) -> tuple[Tensor, Scalars]:
        """L_u and what is worth a curve; called with at least one unlabelled image."""
        raise NotImplementedError

    def after_step(self, step: int) -> None:
        """Called after the optimiser's step: the teacher follows."""
        if 'teacher' in self.extra:
            ema_(self.teacher, self.student, self.cfg.following(step))

    def predictor(self) -> nn.Module:
        """What is validated and shipped: the teacher if there is one, else the student."""
        return self.teacher if 'teacher' in self.extra else self.student

    def labelled_of(self, network: nn.Module, b: Batch) -> Tensor:
        """L_s of a network; 0 with gradients of zero without a labelled image."""
        if len(b.xl) == 0:
            return sum((0 * p).sum() for p in network.parameters() if p.requires_grad)  # type: ignore[return-value]
        return self.sup_loss(network(b.xl), b.yl, b.ml * b.bl)

    def sup_loss(self, logits: Tensor, y: Tensor, m: Tensor) -> Tensor:
        """The labelled loss with the settings' options."""
        return sup_loss(
            logits,
            y,
            m,
            focal_tversky=self.cfg.focal_tversky,
            weigh_positives=self.cfg.weigh_positives,
        )

    def teacher_probability(self, image: Tensor) -> Tensor:
        """The teacher's probability, without gradient."""
        return detached_probability(self.teacher.eval(), image)

    def state(self) -> dict[str, Any]:
        """State beside that of the modules, of tensors, numbers and containers; none here."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up a state of :meth:`state`."""


class PeerStrategy(Strategy):
    """Two networks that train each other, student and peer; the student is shipped."""

    extra = frozenset({'peer'})

    def labelled(self, b: Batch) -> Tensor:
        """L_s of both."""
        return self.labelled_of(self.student, b) + self.labelled_of(self.peer, b)


def probability(network: nn.Module, image: Tensor) -> Tensor:
    """Lesion probability (N, 1, D, H, W) in float32, whatever precision the network runs in."""
    return torch.sigmoid(network(image).float())


@torch.no_grad()
def detached_probability(network: nn.Module, image: Tensor) -> Tensor:
    """Lesion probability without gradient."""
    return probability(network, image)
