"""Deep adversarial network (Zhang et al., MICCAI 2017).

A critic D predicts from a probability map whether the image was labelled. The student makes it
predict "labelled" for unlabelled ones: L_u = -ln D(p_u); the critic's own loss is
-(ln D(p_l) + ln(1 - D(p_u))) / 2, one step of Adam after each of the student's.
The critic sees the map alone and is 1-Lipschitz (spectral norm): with the image beside it, it
learns by heart which one to four subjects are labelled. Where labelled patches hold more lesions
than unlabelled ones because of how they are sampled, that difference is trained too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from ssl2_bids.training.strategy import (
    Batch,
    Scalars,
    Strategy,
    StrategySettings,
    mean_over_processes_,
)

CHANNELS = (1, 16, 32, 64)


@dataclass(frozen=True)
class AdversarialSettings(StrategySettings):
    """See the fields."""

    w_max: float = 0.01  # above it the critic, not the labels, decides what a lesion is
    learning_rate: float = 1e-4  # of the critic
    betas: tuple[float, float] = (0.9, 0.99)


class Critic(nn.Module):
    """Strided convolutions, a mean over space, one logit: (N, 1, D, H, W) to (N, 1)."""

    def __init__(self) -> None:
        super().__init__()
        pairs = zip(CHANNELS[:-1], CHANNELS[1:], strict=True)
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv3d(wide, deep, 3, 2, 1)) for wide, deep in pairs
        )
        self.out = spectral_norm(nn.Linear(CHANNELS[-1], 1))

    def forward(self, p: Tensor) -> Tensor:
        """Logit of "labelled"."""
        for layer in self.layers:
            p = functional.leaky_relu(layer(p), 0.2)
        return self.out(p.mean((2, 3, 4))).float()


class AdversarialNetwork(Strategy):
    """Student and critic; the critic learns in :meth:`after_step`, with its own optimiser."""

    extra = frozenset({'critic'})
    Settings = AdversarialSettings
    cfg: AdversarialSettings
    critic: Critic

    def prepare(self) -> None:
        """The critic and its optimiser."""
        self.critic = Critic()
        self.optimiser = torch.optim.Adam(
            self.critic.parameters(), lr=self.cfg.learning_rate, betas=self.cfg.betas
        )
        self.critic.requires_grad_(False).eval()
        self.shown: dict[str, Tensor] = {}

    def labelled(self, b: Batch) -> Tensor:
        """L_s; the student's probability is kept for the critic."""
        self.shown = {}
        if len(b.xl) == 0:
            return self.labelled_of(self.student, b)
        logits = self.student(b.xl).float()
        self.shown['labelled'] = logits.detach().sigmoid()
        return self.sup_loss(logits, b.yl, b.ml * b.bl)

    def unlabelled(self, b: Batch, step: int, random: torch.Generator) -> tuple[Tensor, Scalars]:
        """How surely the critic knows the unlabelled ones."""
        p = self.student(b.xs).float().sigmoid()
        self.shown['unlabelled'] = p.detach()
        self.critic.eval()  # spectral norm counts on in training mode
        return functional.softplus(-self.critic(p)).mean(), {}

    def after_step(self, step: int) -> None:
        """One step of the critic, where it was shown both kinds."""
        if self.shown.keys() == {'labelled', 'unlabelled'}:
            self.critic.requires_grad_(True).train()
            self.optimiser.zero_grad(set_to_none=True)
            known = functional.softplus(-self.critic(self.shown['labelled'])).mean()
            unknown = functional.softplus(self.critic(self.shown['unlabelled'])).mean()
            ((known + unknown) / 2).backward()
            mean_over_processes_([p.grad for p in self.critic.parameters() if p.grad is not None])
            self.optimiser.step()
            self.critic.requires_grad_(False).eval()
        self.shown = {}

    def state(self) -> dict[str, Any]:
        """The critic's optimiser."""
        return {'optimiser': self.optimiser.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take it up."""
        self.optimiser.load_state_dict(state['optimiser'])
