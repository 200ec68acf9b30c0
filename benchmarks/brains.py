"""Simulated brains on the grid of a model, FLAIR registered to T1w, with their true lesions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from participant import brain_input
from torch import Tensor

from ssl2_bids.files import whole_file
from ssl2_bids.networks.cards import Card
from ssl2_bids.training.checkpoint import fingerprint


@dataclass(frozen=True)
class Brain:
    """A brain as a network gets it.

    Attributes
    ----------
    name : of the participant.
    image : (C, D, H, W) float32, as :class:`ssl2_bids.steps.network_input.NetworkInput` has it.
    brain, truth : (D, H, W) bool.
    """

    name: str
    image: Tensor
    brain: Tensor
    truth: Tensor


def load_brains(root: Path, card: Card, work: Path, *, least: int = 1) -> list[Brain]:
    """The participants of a dataset made by ``ssl2 simulate``.

    Prepared ones are kept in WORK, by the path of the dataset and the identity of the model.

    Parameters
    ----------
    least : number of participants that are needed; with fewer the program ends with a line.
    """
    names = sorted(path.name for path in root.glob('sub-*'))
    if not names:
        raise SystemExit(f'{root}: no participants')
    if len(names) < least:
        raise SystemExit(f'{root}: {least} participants are needed, and there is {len(names)}')
    work.mkdir(parents=True, exist_ok=True)
    return [load_brain(root, name, card, work) for name in names]


def load_brain(root: Path, name: str, card: Card, work: Path) -> Brain:
    """One of them."""
    key = fingerprint([str(root.resolve()), card.identity])
    path = work / f'{"-".join(card.channels)}_{name}_{key}.pt'
    if not path.is_file():
        given, truth = brain_input(root, name, card)
        kept = {'image': given.tensor, 'brain': given.brain, 'truth': torch.from_numpy(truth)}
        with whole_file(path) as temporary:
            torch.save(kept, temporary)
    return Brain(name, **torch.load(path))
