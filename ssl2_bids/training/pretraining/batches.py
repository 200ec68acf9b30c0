"""The batches of both stages: each is a pure function of (seed, process, step)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from ssl2_bids.synthesis.heads import Head
from ssl2_bids.synthesis.randomised import Patches, draw
from ssl2_bids.synthesis.ranges import Randomisation
from ssl2_bids.training.data.participants import Participant
from ssl2_bids.training.data.views import Views, ViewSettings
from ssl2_bids.training.pretraining.pretext.masked import Unlabelled

ON_LESION = 0.6  # share of patches of labelled scans around a lesion
REAL = 991  # in the seed of the draws that choose between simulated and real


@dataclass(frozen=True)
class BatchSource:
    """Where samples come from.

    Attributes
    ----------
    heads : anatomies for the randomised engine.
    scans : real scans.
    real : share of the samples that are real, where there are both.
    seed, rank : with the step, what a batch is a function of.
    views : patches of the scans; None without scans.
    """

    changes: ClassVar[dict[str, Any]] = {}  # how patches of real scans are changed

    heads: Sequence[Head]
    randomisation: Randomisation
    batch: int
    patch: tuple[int, int, int]
    seed: int
    scans: Sequence[Participant] = ()
    real: float = 0.5
    rank: int = 0
    device: str = 'cpu'
    views: Views | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.scans:
            settings = ViewSettings(self.patch, on_lesion=ON_LESION, **self.changes)
            object.__setattr__(self, 'views', Views(self.scans, settings, seed=self.seed))

    def streams(self, step: int) -> list[tuple[np.random.Generator, bool]]:
        """For each sample its random numbers, and whether it is real."""
        streams = []
        for number in range(self.batch):
            random = np.random.default_rng([self.seed, self.rank, step, number, REAL])
            share = self.real if self.heads else 1.0
            streams.append((random, self.has_real() and random.random() < share))
        return streams

    def has_real(self) -> bool:
        """Whether there is a scan that a patch can be cut from."""
        return self.views is not None

    def simulated(self, heads: Sequence[Head], step: int, *more: int, batch: int = 1) -> Patches:
        """Patches of the engine."""
        return draw(
            heads,
            self.randomisation,
            seed=(self.seed, self.rank, step, *more),
            batch=batch,
            patch=self.patch,
            device=self.device,
        )


@dataclass(frozen=True)
class UnlabelledBatches(BatchSource):
    """Simulated and real images without labels; the real ones as they are, but for mirroring."""

    changes = {'moved': 0.0}

    def __getitem__(self, step: int) -> Unlabelled:
        parts, people = [], []
        for number, (random, real) in enumerate(self.streams(step)):
            if real and self.views is not None:
                scan, patch = self.views.any_view(random)
                present = torch.tensor(self.scans[scan].present)
                there = (patch.image, present, patch.brain)
                parts.append([one[None].to(self.device) for one in there])
                people.append(self.person_number(scan))
            else:
                chosen = int(random.integers(len(self.heads)))
                one = self.simulated([self.heads[chosen]], step, number)
                parts.append([one.image, one.present, one.brain])
                people.append(chosen)
        image, present, brain = (torch.cat(part) for part in zip(*parts, strict=True))
        return Unlabelled(image, present, brain, torch.tensor(people, device=self.device))

    def person_number(self, scan: int) -> int:
        """The same number for scans of one person; no head has it."""
        people = [one.person for one in self.scans]
        return len(self.heads) + people.index(people[scan])


@dataclass(frozen=True)
class LabelledBatches(BatchSource):
    """Simulated images with their truth, and real ones with a rater's labels.

    Real patches are all turned and scaled, more than in an adaptation: the scans are few.
    """

    changes = {'moved': 1.0, 'scale': 0.12, 'drop': 0.25}

    def has_real(self) -> bool:
        """Whether anything is annotated in any of the scans."""
        return self.views is not None and bool(self.views.annotated)

    def __getitem__(self, step: int) -> Patches:
        real = [self.real_patch(random) for random, real in self.streams(step) if real]
        parts = []
        if len(real) < self.batch:
            parts.append(self.simulated(self.heads, step, batch=self.batch - len(real)))
        parts += [Patches(*(one[None].to(self.device) for one in patch)) for patch in real]
        return Patches(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def real_patch(self, random: np.random.Generator) -> Patches:
        """One labelled patch of one of the scans, without the axis of samples."""
        assert self.views is not None
        image, label, annotated, brain, present = self.views.labelled_view(random)
        return Patches(image, present, brain, label, annotated * brain)
