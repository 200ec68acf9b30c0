"""From BIDS datasets and label maps to one small folder that training reads.

Layout: ``train/`` and ``validation/``, each with ``heads.npz`` and ``scan-*.npz``; ``pack.json``
is written last. A stopped packing goes on where it stopped. The folder moves to machines that
have no imaging software.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl2_bids.errors import NoInputError, NothingSelectedError, Ssl2Error, UsageError
from ssl2_bids.files import write_json
from ssl2_bids.simulation.appearance import CHANNELS
from ssl2_bids.simulation.heads import Head, load_heads, save_heads
from ssl2_bids.training.checkpoint import fingerprint
from ssl2_bids.training.config import Config, Data
from ssl2_bids.training.scans import PackedScan, load_scans, save_scan

if TYPE_CHECKING:
    from ssl2_bids.bids.inputs import Session
    from ssl2_bids.bids.labels import Label

log = logging.getLogger('ssl2_bids')

HEADS = 'heads.npz'
INDEX, BEGUN = 'pack.json', 'packing.json'
TRAIN, VALIDATION = 'train', 'validation'
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Packed:
    """What training gets: heads and scans, to learn from and to validate with."""

    heads: tuple[Head, ...]
    scans: tuple[PackedScan, ...]
    validation_heads: tuple[Head, ...]
    validation_scans: tuple[PackedScan, ...]

    @property
    def labelled(self) -> tuple[PackedScan, ...]:
        """The scans to learn from that have a label."""
        return labelled_only(self.scans)

    def names(self) -> list[list[str]]:
        """What tells one set of data from another."""
        heads = [[head.name for head in group] for group in (self.heads, self.validation_heads)]
        scans = [[scan.name for scan in group] for group in (self.scans, self.validation_scans)]
        return heads + scans


def labelled_only(scans: Sequence[PackedScan]) -> tuple[PackedScan, ...]:
    """Those of some scans that have a label."""
    return tuple(scan for scan in scans if scan.label is not None)


def load_packed(folder: Path) -> Packed:
    """Read a packed folder.

    Raises
    ------
    NoInputError : packing was not finished, or this is no packed folder.
    DataError : a file is damaged.
    """
    if not (folder / INDEX).is_file():
        raise NoInputError(
            f'not a folder of packed data: {INDEX} is missing',
            advice='Make it with: ssl2 pretrain CONFIG OUT --pack.',
            path=folder,
        )
    heads, scans = [], []
    for part in (TRAIN, VALIDATION):
        path = folder / part / HEADS
        heads.append(load_heads(path) if path.is_file() else ())
        scans.append(load_scans(folder / part))
    return Packed(heads[0], scans[0], heads[1], scans[1])


def pack(config: Config, folder: Path, *, progress: Progress | None = None) -> None:
    """Pack all data of a configuration into a folder, unless that was done.

    Raises
    ------
    UsageError : the folder holds other data; nothing is named to be packed.
    NoInputError, NotBidsError : a folder is missing or no dataset, or has no usable image.
    DataError : a label map, a mask or all scans of a dataset cannot be used.
    NothingSelectedError : somebody to be held out or validated with is nowhere.
    """
    data = config.data
    mark = fingerprint(asdict(data))
    if is_packed(folder, mark):
        return
    if not (data.heads or data.label_maps or data.healthy or data.unlabelled or data.labelled):
        raise UsageError(
            'the table "data" names nothing to train on',
            advice='Name label_maps, heads, healthy, unlabelled or labelled.',
        )
    write_json(folder / BEGUN, {'Fingerprint': mark})
    people: set[str] = set()
    left_out: list[str] = []
    pack_heads(data, folder, people, left_out, progress)
    labels = data.labels or data.labelled
    jobs: list[tuple[Path, Path | None]] = [(root, None) for root in data.unlabelled]
    jobs += [(root, place) for root, place in zip(data.labelled, labels, strict=True)]
    for number, (root, place) in enumerate(jobs):
        pack_dataset(root, place, number, data, folder, people, left_out, progress)
    missing = [one for one in (*data.hold_out, *data.validation) if plain(one) not in people]
    if missing:
        raise NothingSelectedError(
            f'nobody is called {", ".join(missing)}',
            advice='"hold_out" and "validation" name people as their files do (sub-X or X).',
        )
    for text in left_out:
        log.warning('left out: %s', text)
    write_json(folder / INDEX, {'Fingerprint': mark, 'LeftOut': left_out})


def is_packed(folder: Path, mark: str) -> bool:
    """Whether a folder holds just these data, ready.

    Raises
    ------
    UsageError : it holds others.
    """
    for name in (INDEX, BEGUN):
        if (folder / name).is_file():
            content = json.loads((folder / name).read_text(encoding='utf-8'))
            if content.get('Fingerprint') != mark:
                raise UsageError(
                    'the folder holds packed data of another configuration',
                    advice='Remove it, or give another folder.',
                    path=folder,
                )
            return name == INDEX
    return False


def plain(label: str) -> str:
    """A participant's label without ``sub-``."""
    return label.removeprefix('sub-')


def pack_heads(
    data: Data,
    folder: Path,
    people: set[str],
    left_out: list[str],
    progress: Progress | None,
) -> None:
    """Heads of label maps and of healthy people's T1w, or those packed before."""
    done = [folder / part / HEADS for part in (TRAIN, VALIDATION)]
    held_out = tuple(plain(label) for label in data.hold_out)
    heads: list[Head] = []
    if data.heads:
        heads += load_heads(data.heads)
    else:
        from ssl2_bids.workflows import heads as making

        more: dict[str, Any] = {'hold_out': held_out, 'progress': progress}
        if data.lesion_masks:
            masks, affine = making.read_lesion_masks(data.lesion_masks)
            more |= {'masks': masks, 'affine': affine}
        for maps in data.label_maps:
            people |= {making.name_of(path) for path in making.image_files(maps)}
            heads += making.heads_from_label_maps(maps, **more)
        for root in data.healthy:
            sessions = find_sessions(root, ('T1w',))
            people |= {session.subject for session in sessions}
            paths = [session.scans['T1w'].paths[0] for session in sessions if session.scans]
            found, refused = making.heads_from_t1w(paths, **more)
            heads += found
            left_out += refused
    people |= {plain(head.name) for head in heads}
    heads = [head for head in heads if plain(head.name) not in held_out]
    chosen = {plain(label) for label in data.validation}
    if not any(plain(head.name) in chosen for head in heads) and len(heads) > 1:
        chosen.add(plain(heads[-1].name))
    apart = [head for head in heads if plain(head.name) in chosen]
    kept = [head for head in heads if plain(head.name) not in chosen]
    for path, group in zip(done, (kept, apart), strict=True):
        if group:
            save_heads(path, group)


def pack_dataset(
    root: Path,
    labels: Path | None,
    number: int,
    data: Data,
    folder: Path,
    people: set[str],
    left_out: list[str],
    progress: Progress | None,
) -> None:
    """Pack the sessions of a dataset, with labels where a folder of labels is given.

    Raises
    ------
    NoInputError : no session can be used; the reasons stand in the message.
    """
    from ssl2_bids.bids.label_ranking import session_of
    from ssl2_bids.bids.labels import find_labels
    from ssl2_bids.workflows.session_packing import pack_session

    held_out = {plain(label) for label in data.hold_out}
    validation = {plain(label) for label in data.validation}
    sessions = find_sessions(root, CHANNELS)
    people |= {session.subject for session in sessions}
    simulated = is_simulated(root)
    drawn: dict[tuple[str, str], list[Label]] = {}
    known: dict[str, list[str | None]] = {}
    for one in sessions:
        known.setdefault(one.subject, []).append(one.session)
    for label in find_labels(labels) if labels else ():
        place, reason = session_of(label, known)
        if reason and label.subject in known:
            left_out.append(f'{label.path}: {reason}')
        elif not reason:
            drawn.setdefault((label.subject, place), []).append(label)
    packed, reasons = 0, []
    for session in sessions:
        if session.subject in held_out:
            continue
        part = VALIDATION if session.subject in validation else TRAIN
        name = f'{number:02d}-{session.name}'
        if (folder / part / f'scan-{name}.npz').is_file():
            packed += 1
            continue
        try:
            own = drawn.get((session.subject, session.session or ''), [])
            if labels and not own:
                raise NoInputError('no lesion mask was found', path=labels)
            scan = pack_session(session, own, strip=data.skull_strip)
        except Ssl2Error as error:
            reasons.append(f'{session.name}: {error}')
            continue
        person = f'{number:02d}-sub-{session.subject}'
        save_scan(folder / part, replace(scan, name=name, person=person, simulated=simulated))
        packed += 1
        if progress:
            progress(session.name)
    if not packed:
        raise NoInputError(
            f'no session could be used: {"; ".join(reasons[:3]) or "all are held out"}',
            advice='Give a dataset with FLAIR, T1w, T2w or T2starw images.',
            path=root,
        )
    left_out += reasons


def is_simulated(root: Path) -> bool:
    """Whether ``ssl2 simulate`` made a dataset, as its description says."""
    from ssl2_bids.bids.dataset import read_description

    content = read_description(root)
    return any(one.get('Name') == 'ssl2 simulate' for one in content.get('GeneratedBy') or ())


def find_sessions(root: Path, contrasts: Sequence[str]) -> list[Session]:
    """All sessions of a dataset, with at most one image per contrast.

    Raises
    ------
    NoInputError, NotBidsError : the folder is missing or no dataset.
    """
    from ssl2_bids.bids import dataset, inputs

    dataset.check_dataset(root, thorough=False)
    participants = dataset.select_participants(root, None)
    units = dataset.select_sessions(root, participants, None)
    wanted = tuple((contrast,) for contrast in contrasts)
    return inputs.find_sessions(root, units, accepted=tuple(contrasts), required=wanted)
