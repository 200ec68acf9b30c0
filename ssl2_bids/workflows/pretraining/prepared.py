"""A prepared dataset: its files, and what training reads of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ssl2_bids.errors import DataError, NoInputError
from ssl2_bids.synthesis.heads import Head, load_heads
from ssl2_bids.training.data.participants import PREFIX, Participant, load_scans
from ssl2_bids.workflows.pretraining.contents import CONTENTS, Contents

HEADS = 'heads.npz'
INDEX = 'pack.json'
TRAIN, VALIDATION = 'train', 'validation'


@dataclass(frozen=True)
class Packed:
    """What training gets: heads and scans, to learn from and to validate with."""

    heads: tuple[Head, ...]
    scans: tuple[Participant, ...]
    validation_heads: tuple[Head, ...]
    validation_scans: tuple[Participant, ...]
    contents: Mapping[str, str] = field(default_factory=dict)  # by file, hash of its sources

    @property
    def labelled(self) -> tuple[Participant, ...]:
        """The scans to learn from that have a label."""
        return labelled_only(self.scans)

    def names(self) -> list[list[str]]:
        """What identifies a set of data."""
        heads = [[head.name for head in group] for group in (self.heads, self.validation_heads)]
        scans = [[scan.name for scan in group] for group in (self.scans, self.validation_scans)]
        contents = [[f'{name} {key}' for name, key in sorted(self.contents.items())]]
        return heads + scans + (contents if self.contents else [])


def labelled_only(scans: Sequence[Participant]) -> tuple[Participant, ...]:
    """Those of some scans that have a label."""
    return tuple(scan for scan in scans if scan.label is not None)


def load_packed(folder: Path) -> Packed:
    """Read a prepared dataset.

    Raises
    ------
    NoInputError : the preparation was not finished, or this is no prepared dataset.
    DataError : a file is damaged, missing, or not of this preparation.
    """
    if not (folder / INDEX).is_file():
        raise NoInputError(
            f'not a prepared dataset: {INDEX} is missing',
            advice='Make one with ssl2 pretrain CONFIG OUT --pack.',
            path=folder,
        )
    heads, scans = [], []
    for part in (TRAIN, VALIDATION):
        path = folder / part / HEADS
        heads.append(load_heads(path) if path.is_file() else ())
        scans.append(load_scans(folder / part))
    known = Contents(folder, folder / INDEX)
    names = {scan.name for group in scans for scan in group}
    missing = [
        f'{PREFIX}{name}.npz'
        for name in known.files.keys() - names - {HEADS}
        if not known.reason(name)
    ]
    parts = known.parts(HEADS)
    missing += [f'{part}/{HEADS}' for part in parts if not (folder / part / HEADS).is_file()]
    if missing:
        raise DataError(
            f'the prepared dataset is not complete: {min(missing)} is missing',
            advice=f'Copy it again, or remove {CONTENTS} to train on what is there.',
            path=folder,
        )
    if known.known:
        check_listed(folder, known, scans)
    contents = {name: one['Key'] for name, one in known.files.items()}
    return Packed(heads[0], scans[0], heads[1], scans[1], contents)


def check_listed(folder: Path, known: Contents, scans: Sequence[Sequence[Participant]]) -> None:
    """Check that no file of a former preparation lies between those of this one.

    Parameters
    ----------
    scans : of the training, and of the validation.

    Raises
    ------
    DataError : one does; it is named.
    """
    first = {scan.name for scan in scans[0]}
    others = []
    for part, group in zip((TRAIN, VALIDATION), scans, strict=True):
        for scan in group:
            twice = part == VALIDATION and scan.name in first
            if twice or known.reason(scan.name) or not known.lists(scan.name, part):
                others.append(f'{part}/{PREFIX}{scan.name}.npz')
        if (folder / part / HEADS).is_file() and not known.lists(HEADS, part):
            others.append(f'{part}/{HEADS}')
    if others:
        raise DataError(
            f'the prepared dataset has files of another preparation, for example {min(others)}',
            advice='Copy or prepare it again, into an empty folder, or remove '
            f'{CONTENTS} to train on what is there.',
            path=folder,
        )


def plain(label: str) -> str:
    """A participant's label without ``sub-``."""
    return label.removeprefix('sub-')
