"""A network, batches and a task so small that a step takes milliseconds; and a run to be killed.

``python tests/tiny_training.py FOLDER STEPS`` trains slowly enough to be met by a signal.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl2_bids.networks.architectures.fast_unet import FastUNet
from ssl2_bids.training.data.participants import Participant
from ssl2_bids.training.loop import LoopSettings, train

EDGE = 16


def tiny_network(*, outputs: int = 1, seed: int = 0, inputs: int = 2) -> FastUNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FastUNet(inputs=inputs, channels=(4, 8), full=2, outputs=outputs)


def person(name: str, *, labelled: bool = True, seed: int = 0) -> Participant:
    """A participant of an adaptation: noise, and one bright lesion."""
    random = np.random.default_rng(seed)
    brain = np.zeros((20, 20, 20), np.uint8)
    brain[2:-2, 2:-2, 2:-2] = 1
    lesion = np.zeros_like(brain)
    lesion[6:10, 6:10, 6 + seed % 3 : 10] = 1
    image = (random.normal(0, 0.3, (2, 20, 20, 20)) + 1.5 * lesion) * brain
    known = (lesion, np.ones_like(brain)) if labelled else (None, None)
    return Participant(name, image.astype(np.float32), (True, True), brain, *known)


@dataclass
class BrightVoxels:
    """Batches of (image, label): label is where the first channel is bright."""

    batch: int = 2
    pause: float = 0.0
    poisoned: int = -1  # step whose image is not a number
    part: tuple[int, int] = (0, 100)  # samples of the batch that are given

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        time.sleep(self.pause)
        random = torch.Generator().manual_seed(step)
        image = torch.randn(self.batch, 2, EDGE, EDGE, EDGE, generator=random)
        label = (functional.avg_pool3d(image[:, :1], 3, 1, 1) > 0.2).float()
        if step == self.poisoned:
            image = image * float('nan')
        start, stop = self.part
        return image[start:stop], label[start:stop]


class FindBright:
    """Cross-entropy of a tiny network, with noise of torch's own generator and a count."""

    def __init__(self, network: nn.Module | None = None, *, noise: float = 0.1):
        self.network = network or tiny_network()
        self.noise = noise
        self.seen = 0

    def modules(self) -> dict[str, nn.Module]:
        return {'network': self.network}

    def loss(self, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, Any]]:
        image, label = batch
        self.seen += 1
        logits = self.network(image + self.noise * torch.randn(image.shape)).float()
        loss = functional.binary_cross_entropy_with_logits(logits, label)
        return loss, {'seen': float(self.seen), 'step_number': float(step)}

    def after_step(self, step: int) -> None:
        pass

    def predictor(self) -> nn.Module:
        return self.network

    def state(self) -> dict[str, int]:
        return {'seen': self.seen}

    def load_state(self, state: dict[str, int]) -> None:
        self.seen = state['seen']


def settings(steps: int, **changes: Any) -> LoopSettings:
    defaults: dict[str, Any] = {
        'steps': steps,
        'learning_rate': 5e-3,
        'precision': 'float32',
        'log_every': 5,
        'checkpoint_every': 10,
        'validate_every': 0,
        'ahead': 0,
        'average': 0.9,
    }
    return LoopSettings(**(defaults | changes))


def main(folder: str, steps: str) -> int:
    torch.set_num_threads(1)

    def progress(done: int, steps: int, latest: object) -> None:
        (Path(folder) / 'alive').write_text(str(done))

    history = train(
        FindBright(),
        BrightVoxels(pause=0.02),
        settings(int(steps), workers=int(os.environ.get('WORKERS', '0'))),
        Path(folder),
        device='cpu',
        progress=progress,
    )
    return 128 + history.stopped if not history.finished else 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
