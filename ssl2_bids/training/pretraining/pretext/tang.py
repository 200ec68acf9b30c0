"""The three tasks of Tang et al. (CVPR 2022) together, without the defects of their release.

What differs from it: rotation about all three axes; features averaged over space, not read at a
corner; two overlapping crops, not one crop twice; no negatives of one's own; the loss of
inpainting where voxels were cut. As there, only the encoder learns, and all weights are 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl2_bids.training.pretraining.pretext.contrastive import Contrast
from ssl2_bids.training.pretraining.pretext.encoder import bottleneck, bottleneck_size
from ssl2_bids.training.pretraining.pretext.inpainting import Inpainting, cut_boxes, cut_out
from ssl2_bids.training.pretraining.pretext.masked import Unlabelled
from ssl2_bids.training.pretraining.pretext.rotation import CLASSES, Rotation, rotate_each
from ssl2_bids.training.strategy import generator

CPU = torch.device('cpu')


class Tang:
    """Inpainting, rotation and contrast on two crops of each patch.

    Parameters
    ----------
    network : any whose bottleneck is known.
    channels : of the images.
    view : edge of the cubic crops; the smaller than the patch, the farther apart they may lie.
        Two overlap where it is more than half of the patch.
    seed : of crops, rotations and cut-outs.
    """

    part = 0  # see Task

    def __init__(self, network: nn.Module, *, channels: int, view: int, seed: int = 0):
        self.network, self.view, self.seed = network, view, seed
        features, factor = bottleneck_size(network, channels, view)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.inpainting = Inpainting(features, factor, channels)
            self.rotation = Rotation(features)
            self.contrast = Contrast(features)

    def modules(self) -> dict[str, nn.Module]:
        """The network, and what is thrown away after this stage."""
        heads = {'inpainting': self.inpainting, 'rotation': self.rotation}
        return {'network': self.network, **heads, 'contrast': self.contrast}

    def loss(self, batch: Unlabelled, step: int) -> tuple[Tensor, dict[str, Any]]:
        """The sum of the three losses, and each of them."""
        terms = self.terms(self.network, batch, generator(self.seed, step, CPU, self.part))
        named = {name: term.detach() for name, term in terms.items()}
        return torch.stack(list(terms.values())).sum(), named

    def terms(
        self,
        network: nn.Module,
        batch: Unlabelled,
        random: torch.Generator,
        *,
        alone: bool = False,
    ) -> dict[str, Tensor]:
        """The three losses; inpainting and rotation are means over both views.

        Parameters
        ----------
        alone : whether other processes compute no loss now.
        """
        sums: dict[str, Tensor] = {}
        seen = []
        for _ in range(2):
            image, brain = crop(batch, self.view, random)
            labels = torch.randint(CLASSES, (len(image),), generator=random)
            image, brain = rotate_each((image, brain), labels)
            hidden = cut_boxes(image.shape, random).to(image)
            features = bottleneck(network, cut_out(image, brain, hidden, random))
            counted = brain * batch.present[:, :, None, None, None]
            both = {
                **self.inpainting.loss(features, image, counted, hidden),
                **self.rotation.loss(features, labels.to(image.device)),
            }
            for name, term in both.items():
                sums[name] = sums.get(name, torch.zeros((), device=term.device)) + term / 2
            seen.append(features)
        return {**sums, **self.contrast.loss(seen[0], seen[1], batch.person, alone=alone)}

    def after_step(self, step: int) -> None:
        """Nothing."""

    def predictor(self) -> nn.Module:
        """The network."""
        return self.network

    def validation(self, batches: Sequence[Unlabelled], device: str) -> HeldOutViews:
        """The losses on people never trained on."""
        return HeldOutViews(self, batches, device)


class HeldOutViews:
    """Validation of the three tasks; views are the same at every call."""

    def __init__(self, task: Tang, batches: Sequence[Unlabelled], device: str):
        self.task, self.batches, self.device = task, batches, device

    def __call__(self, network: nn.Module) -> dict[str, float]:
        """Means over the batches."""
        sums: dict[str, float] = {}
        with torch.inference_mode():
            for number, batch in enumerate(self.batches):
                there = Unlabelled(*(part.to(self.device) for part in batch))
                random = generator(self.task.seed + 1, number, CPU)
                terms = self.task.terms(network, there, random, alone=True)
                for name, term in terms.items():
                    sums[name] = sums.get(name, 0.0) + float(term)
        return {f'validation_{name}': s / len(self.batches) for name, s in sums.items()}


def crop(batch: Unlabelled, edge: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """A cube of each sample's image and brain, anywhere in its patch."""
    spare = [size - edge for size in batch.image.shape[2:]]
    images, brains = [], []
    for image, brain in zip(batch.image, batch.brain, strict=True):
        starts = [int(torch.randint(most + 1, (), generator=random)) for most in spare]
        place = (slice(None), *(slice(start, start + edge) for start in starts))
        images.append(image[place])
        brains.append(brain[place])
    return torch.stack(images), torch.stack(brains)
