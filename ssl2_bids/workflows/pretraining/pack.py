"""From BIDS datasets and label maps to one small folder that training reads.

Layout: ``train/`` and ``validation/``, each with ``heads.npz`` and ``scan-*.npz``; ``pack.json``
is written last. An interrupted preparation resumes. The folder moves to machines that
have no imaging software.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl2_bids.digests import DIGESTS, Digests
from ssl2_bids.errors import (
    NoInputError,
    NothingSelectedError,
    ReadError,
    Ssl2Error,
    UsageError,
)
from ssl2_bids.files import write_json
from ssl2_bids.progress import NameProgress
from ssl2_bids.synthesis.appearance import CHANNELS
from ssl2_bids.synthesis.heads import Head, load_heads, save_heads
from ssl2_bids.training.checkpoint import fingerprint
from ssl2_bids.training.data.participants import PREFIX, save_scan
from ssl2_bids.training.pretraining.config import Config, Data
from ssl2_bids.workflows.pretraining.contents import (
    CONTENTS,
    Contents,
    Digest,
    heads_key,
    read_kept,
    session_key,
)
from ssl2_bids.workflows.pretraining.prepared import HEADS, INDEX, TRAIN, VALIDATION, plain

if TYPE_CHECKING:
    from ssl2_bids.bids.inputs import Session
    from ssl2_bids.bids.labels import Label

log = logging.getLogger('ssl2_bids')

BEGUN = 'packing.json'


@dataclass
class Preparation:
    """What one preparation of a dataset takes from source to source.

    Attributes
    ----------
    data : its sources.
    folder : of the prepared dataset.
    progress : called with the name of each head or session that is prepared.
    contents : what the folder holds already.
    digest : hash of the content of a file.
    left_out : what could not be used, with the reason.
    """

    data: Data
    folder: Path
    progress: NameProgress | None
    contents: Contents
    digest: Digest
    left_out: list[str] = field(default_factory=list)


def pack(config: Config, folder: Path, *, progress: NameProgress | None = None) -> None:
    """Prepare all data of a configuration in a folder, unless that was done.

    What was prepared is kept as long as its sources have the same content. Where a folder of
    sources is missing, the prepared dataset is used as it is.

    Raises
    ------
    UsageError : the folder holds other data; the configuration names no data.
    NoInputError, NotBidsError : a folder is missing or no dataset, or has no usable image.
    DataError : a label map, a mask or all scans of a dataset cannot be used.
    NothingSelectedError : a participant of the hold-out or validation is unknown.
    """
    data = config.data
    marks = marks_of(data, folder)
    former = fingerprint(asdict(data))  # what earlier versions have written, paths as given
    contents = Contents(folder, folder / INDEX)
    if is_packed(folder, marks, former):
        absent = [root for root in sources(data) if not root.exists()]
        if absent or not contents.known:
            why = f'{absent[0]} is missing' if absent else f'there is no {CONTENTS}'
            log.info('the prepared dataset is used as it is: %s', why)
            return
    if not (data.heads or data.label_maps or data.healthy or data.unlabelled or data.labelled):
        raise UsageError(
            'the table "data" names no training data',
            advice='Name label_maps, heads, healthy, unlabelled or labelled.',
        )
    check_names(data)
    write_json(folder / BEGUN, marks)
    digests = Digests(folder / DIGESTS)
    work = Preparation(data, folder, progress, contents, digests.of)
    pack_heads(work)
    labels = data.labels or data.labelled
    jobs: list[tuple[Path, Path | None]] = [(root, None) for root in data.unlabelled]
    jobs += [(root, place) for root, place in zip(data.labelled, labels, strict=True)]
    for number, (root, place) in enumerate(jobs):
        pack_dataset(work, root, place, number)
    digests.save()
    log.info('content of the data to prepare: %s', digests.summary())
    for text in work.left_out:
        log.warning('left out: %s', text)
    write_json(folder / INDEX, marks | {'LeftOut': work.left_out})


def check_names(data: Data) -> None:
    """Check the names of the hold-out and of the validation, before the work of an hour.

    Raises
    ------
    NothingSelectedError : one is that of no participant, label map or head.
    """
    from ssl2_bids.workflows import heads as making

    known = {plain(head.name) for head in load_heads(data.heads)} if data.heads else set()
    if not data.heads:
        known |= {
            making.name_of(f) for place in data.label_maps for f in making.image_files(place)
        }
        known |= {s.subject for root in data.healthy for s in find_sessions(root, ('T1w',))}
    for root in (*data.unlabelled, *data.labelled):
        known |= {session.subject for session in find_sessions(root, CHANNELS)}
    masks = making.image_files(data.lesion_masks) if data.lesion_masks else []
    of_masks = {making.name_of(path) for path in masks}
    unheld = [one for one in data.hold_out if plain(one) not in known | of_masks]
    missing = unheld + [one for one in data.validation if plain(one) not in known]
    if missing:
        others = ', '.join(sorted(of_masks - known)) if unheld else ''
        raise NothingSelectedError(
            f'no participant is named {", ".join(missing)}',
            advice='"hold_out" and "validation" name participants as in the file names (sub-X or '
            f'X). There are: {", ".join(sorted(known)) or "none"}.'
            + (f' "hold_out" may name lesion masks, too: {others}.' if others else ''),
        )


def marks_of(data: Data, folder: Path) -> dict[str, str]:
    """What identifies the data of a configuration: with absolute paths, and from the folder on.

    The former stays where the folder moves, the latter where all is moved together.
    """

    def changed(value: Any, change: Callable[[Path], str]) -> Any:
        if isinstance(value, tuple):
            return [changed(one, change) for one in value]
        return change(value) if isinstance(value, Path) else value

    def mark(change: Callable[[Path], str]) -> str:
        return fingerprint({name: changed(value, change) for name, value in vars(data).items()})

    return {
        'Fingerprint': mark(os.path.abspath),
        'FromFolder': mark(lambda path: os.path.relpath(path, folder)),
    }


def is_packed(folder: Path, marks: Mapping[str, str], former: str) -> bool:
    """Whether a folder holds just these data, ready.

    Parameters
    ----------
    marks : of the data, one of which must be that of the folder.
    former : mark of earlier versions.

    Raises
    ------
    UsageError : it holds others.
    DataError : its index is damaged.
    """
    for name in (INDEX, BEGUN):
        if (folder / name).is_file():
            kept = read_kept(folder / name)
            alike = any(kept.get(key) == mark for key, mark in marks.items())
            if not alike and (kept.get('Fingerprint') != former or 'FromFolder' in kept):
                raise UsageError(
                    'the folder holds a prepared dataset of another configuration',
                    advice='Remove it, or give another folder.',
                    path=folder,
                )
            return name == INDEX
    return False


def pack_heads(work: Preparation) -> None:
    """Heads of label maps and of healthy people's T1w, or those prepared before."""
    from ssl2_bids.workflows import heads as making

    data, contents = work.data, work.contents
    done = [work.folder / part / HEADS for part in (TRAIN, VALIDATION)]
    held_out = tuple(plain(label) for label in data.hold_out)
    maps = [path for place in data.label_maps for path in making.image_files(place)]
    sessions = [s for root in data.healthy for s in find_sessions(root, ('T1w',))]
    heads: list[Head] = list(load_heads(data.heads)) if data.heads else []
    scans = [session.scans['T1w'].paths[0] for session in sessions if session.scans]
    masks = making.image_files(data.lesion_masks) if data.lesion_masks else []
    masks = [path for path in masks if making.name_of(path) not in held_out]
    files = [data.heads] if data.heads else [*maps, *scans, *masks]
    key = heads_key(data, files, work.digest)
    there = not files or all(
        (work.folder / part / HEADS).is_file()
        for part in (TRAIN, VALIDATION)
        if contents.lists(HEADS, part)
    )
    if contents.has(HEADS, key) and there:
        work.left_out += contents.reason(HEADS).splitlines()
        return
    contents.forget(HEADS)
    for path in done:
        path.unlink(missing_ok=True)
    refused: list[str] = []
    if not data.heads:
        more: dict[str, Any] = {'hold_out': held_out, 'progress': work.progress}
        if data.lesion_masks:
            drawn, affine = making.read_lesion_masks(data.lesion_masks, hold_out=held_out)
            more |= {'masks': drawn, 'affine': affine}
        for place in data.label_maps:
            heads += making.heads_from_label_maps(place, **more)
        if scans:
            found, refused = making.heads_from_t1w(scans, **more)
            heads += found
            work.left_out += refused
    heads = [head for head in heads if plain(head.name) not in held_out]
    chosen = {plain(label) for label in data.validation}
    people = {plain(head.name) for head in heads}  # a person may have several sessions
    if not people & chosen and len(people) > 1:
        chosen.add(plain(heads[-1].name))
    apart = [head for head in heads if plain(head.name) in chosen]
    kept = [head for head in heads if plain(head.name) not in chosen]
    for path, group in zip(done, (kept, apart), strict=True):
        if group:
            save_heads(path, group)
    parts = [path.parent.name for path in done if path.is_file()]
    contents.keep(HEADS, key, left_out='\n'.join(refused), parts=parts)


def pack_dataset(work: Preparation, root: Path, labels: Path | None, number: int) -> None:
    """Pack the sessions of a dataset, with labels where a folder of labels is given.

    Raises
    ------
    NoInputError : no session can be used; the reasons stand in the message.
    """
    from ssl2_bids.bids.label_ranking import alike, ranked, session_of
    from ssl2_bids.bids.labels import find_labels
    from ssl2_bids.workflows.pretraining.sessions import pack_session

    data, folder, contents = work.data, work.folder, work.contents
    held_out = {plain(label) for label in data.hold_out}
    validation = {plain(label) for label in data.validation}
    sessions = find_sessions(root, CHANNELS)
    simulated = is_simulated(root)
    drawn: dict[tuple[str, str], list[Label]] = {}
    known: dict[str, list[str | None]] = {}
    for one in sessions:
        known.setdefault(one.subject, []).append(one.session)
    for label in find_labels(labels) if labels else ():
        place, reason = session_of(label, known)
        if reason and label.subject in known:
            work.left_out.append(f'{label.path}: {reason}')
        elif not reason:
            drawn.setdefault((label.subject, place), []).append(label)
    drawn, others = ranked(drawn)
    for text in alike(others):
        log.info('%s', text)
    packed, reasons, names = 0, [], []
    for session in sessions:
        if session.subject in held_out:
            continue
        part = VALIDATION if session.subject in validation else TRAIN
        name = f'{number:02d}-{session.name}'
        names.append(name)
        own = drawn.get((session.subject, session.session or ''), [])
        try:
            key = session_key(session, own, data.skull_strip, work.digest)
            if contents.has(name, key):
                if reason := contents.reason(name):
                    reasons.append(reason)
                    continue
                if (folder / part / f'{PREFIX}{name}.npz').is_file():
                    packed += 1
                    continue
            contents.forget(name)
            remove_scan(folder, name)
            if labels and not own:
                raise NoInputError('no lesion mask was found', path=labels)
            scan = pack_session(session, own, strip=data.skull_strip)
        except (OSError, ReadError) as error:  # the next run tries again
            reasons.append(f'{session.name}: {error}')
            continue
        except Ssl2Error as error:
            reasons.append(f'{session.name}: {error}')
            contents.keep(name, key, left_out=reasons[-1])
            continue
        person = f'{number:02d}-sub-{session.subject}'
        save_scan(folder / part, replace(scan, name=name, person=person, simulated=simulated))
        contents.keep(name, key)
        packed += 1
        if work.progress:
            work.progress(session.name)
    for name in contents.others(f'{number:02d}-', names):
        contents.forget(name)
        remove_scan(folder, name)
    if not packed:
        raise NoInputError(
            f'no session can be used: {"; ".join(reasons[:3]) or "all are held out"}',
            advice='Give a dataset with FLAIR, T1w, T2w or T2starw images.',
            path=root,
        )
    work.left_out += reasons


def remove_scan(folder: Path, name: str) -> None:
    """Remove a prepared scan whose sources have changed or are missing."""
    for part in (TRAIN, VALIDATION):
        (folder / part / f'{PREFIX}{name}.npz').unlink(missing_ok=True)


def sources(data: Data) -> list[Path]:
    """The files and folders that a configuration names."""
    single = [path for path in (data.lesion_masks, data.heads) if path]
    several = (data.label_maps, data.healthy, data.unlabelled, data.labelled, data.labels)
    return [*single, *(path for group in several for path in group)]


def is_simulated(root: Path) -> bool:
    """Whether ``ssl2 simulate`` made a dataset, by its description."""
    from ssl2_bids.bids.dataset import makers_of

    return any(one.get('Name') == 'ssl2 simulate' for one in makers_of(root))


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
