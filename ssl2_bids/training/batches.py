"""The batches of both stages: each is a pure function of (seed, process, step)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ssl2_bids.simulation.appearance import CHANNELS
from ssl2_bids.simulation.heads import Head
from ssl2_bids.simulation.randomised import Patches, Randomisation, draw
from ssl2_bids.training.pretext.masked import Unlabelled
from ssl2_bids.training.scans import PackedScan, RealPatch, patch_of, varied

REAL = 991  # in the seed of the draws that choose between simulated and real


@dataclass(frozen=True)
class Source:
    """Where samples come from.

    Attributes
    ----------
    heads : anatomies for the randomised engine.
    scans : real scans.
    real : share of the samples that are real, where there are both.
    seed, rank : with the step, what a batch is a function of.
    """

    heads: Sequence[Head]
    randomisation: Randomisation
    batch: int
    patch: tuple[int, int, int]
    seed: int
    scans: Sequence[PackedScan] = ()
    real: float = 0.5
    rank: int = 0
    device: str = 'cpu'

    def streams(self, step: int) -> list[tuple[np.random.Generator, bool]]:
        """For each sample its random numbers, and whether it is real."""
        streams = []
        for number in range(self.batch):
            random = np.random.default_rng([self.seed, self.rank, step, number, REAL])
            share = self.real if self.heads else 1.0
            streams.append((random, bool(self.scans) and random.random() < share))
        return streams

    def real_patch(self, random: np.random.Generator) -> tuple[RealPatch, int]:
        """A patch of one of the scans, and its number."""
        number = int(random.integers(len(self.scans)))
        return patch_of(self.scans[number], CHANNELS, self.patch, random), number

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
class UnlabelledBatches(Source):
    """Simulated and real images without labels."""

    def __getitem__(self, step: int) -> Unlabelled:
        parts, people = [], []
        for number, (random, real) in enumerate(self.streams(step)):
            if real:
                patch, scan = self.real_patch(random)
                there = (patch.image, patch.present, patch.brain)
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
class LabelledBatches(Source):
    """Simulated images with their truth, and real ones with a reader's labels."""

    def __getitem__(self, step: int) -> Patches:
        real = [self.real_patch(random)[0] for random, real in self.streams(step) if real]
        parts = []
        if len(real) < self.batch:
            parts.append(self.simulated(self.heads, step, batch=self.batch - len(real)))
        for number, patch in enumerate(real):
            random = np.random.default_rng([self.seed, self.rank, step, number, REAL, 1])
            parts.append(Patches(*(one[None].to(self.device) for one in varied(patch, random))))
        return Patches(*(torch.cat(part) for part in zip(*parts, strict=True)))
