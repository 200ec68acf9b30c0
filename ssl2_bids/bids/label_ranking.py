"""Which of several masks of a session count, to which session a mask belongs, lines on others.

The rules for users are in docs/reference/manual-masks.md.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ssl2_bids.steps.annotation import NOT_ANNOTATED, meaning

if TYPE_CHECKING:
    from pathlib import Path

    from ssl2_bids.bids.labels import Label

_CONSENSUS = re.compile('consensus', re.IGNORECASE)
CONSENSUS, BY_HAND, AUTOMATIC = range(3)
WHY = {
    CONSENSUS: 'a consensus mask exists',
    BY_HAND: 'automatic mask ("Manual": false); a manual mask exists',
}
_OF_SESSION = re.compile(r'sub-[^_]+(_ses-[^_]+)?')
NO_TABLE = 'the meaning of its values is unknown'  # begins a reason


def kind(label: Label) -> int:
    """A consensus of raters, manual (or without the key), or automatic."""
    if _CONSENSUS.search(label.path.name):
        return CONSENSUS
    return AUTOMATIC if label.sidecar.get('Manual') is False else BY_HAND


def pattern(label: Label) -> int:
    """The precedence of its name; a three-valued file has more information than a mask."""
    rows = label.dseg_table or ()
    return 0 if any(meaning(row) == NOT_ANNOTATED for row in rows) else label.pattern


def those_that_count(labels: Sequence[Label]) -> tuple[list[Label], list[tuple[Label, str]]]:
    """The masks of a session that are used, and the others with the reason."""
    best = min(kind(label) for label in labels)
    kept = [label for label in labels if kind(label) == best]
    left_out = [(label, WHY[best]) for label in labels if label not in kept]
    first = min(kept, key=pattern)
    left_out += [
        (label, f'{first.path.name} has priority by its name')
        for label in kept
        if pattern(label) != pattern(first)
    ]
    return [label for label in kept if pattern(label) == pattern(first)], left_out


def ranked(
    units: Mapping[tuple[str, str], Sequence[Label]],
) -> tuple[dict[tuple[str, str], list[Label]], list[tuple[Path, str]]]:
    """The masks of each session that are used, and the files of the others with the reason.

    Masks come to a session from names with and without it, and from several folders: of files of
    one name the reason has the folder.
    """
    counting, superseded = {}, []
    for unit, labels in units.items():
        counting[unit], others = those_that_count(labels)
        names = [label.path.name for label in labels]
        for label, reason in others:
            twice = names.count(label.path.name) > 1
            where = f'the one in {label.path.parent} is ' if twice else ''
            superseded.append((label.path, f'{where}not used: {reason}'))
    return counting, superseded


def session_of(label: Label, sessions: Mapping[str, Sequence[str | None]]) -> tuple[str, str]:
    """The session that a label belongs to, empty where there are none; or why it has none.

    Parameters
    ----------
    sessions : of each participant.

    Returns
    -------
    The session, and the reason why none was found, empty if one was.
    """
    own = [session or '' for session in sessions.get(label.subject, ())]
    wanted = label.session or ''
    if wanted in own:
        return wanted, ''
    names = ', '.join(own)
    if not wanted:
        if len(own) == 1:
            return own[0], ''
        return '', f'the file name has no ses-, but sub-{label.subject} has the sessions {names}'
    alike = [session for session in own if session.lstrip('0') == wanted.lstrip('0')]
    if alike:
        return '', f'sub-{label.subject} has no session {wanted}, but {alike[0]}: rename the label'
    if own == ['']:
        return '', f'the file name has ses-{wanted}, but sub-{label.subject} has no sessions'
    return '', f'sub-{label.subject} has no session {wanted}; there are: {names}'


def alike(files: Iterable[tuple[Path, str]]) -> list[str]:
    """File names with what is to be noted of each: one text for all that differ in session alone.

    Parameters
    ----------
    files : with the reason, in which names of other files of the same session may stand.
    """
    texts: dict[str, list[str]] = defaultdict(list)
    for path, reason in files:
        text = f'{path.name}: {reason}'
        texts[_OF_SESSION.sub(lambda m: 'sub-*' + '_ses-*' * bool(m[1]), text)].append(text)
    return [
        same[0] if len(same) == 1 else f'{len(same)} files {text}' for text, same in texts.items()
    ]


def left_out_lines(files: Iterable[tuple[Path, str]], folder: Path | None = None) -> list[str]:
    """A line for each label that is left out; those without a table of values share one.

    Parameters
    ----------
    files : with the reason.
    folder : where they were found, for lines with whole paths; None for names alone.
    """
    lines, without_table = [], []
    for path, reason in files:
        if reason.startswith(NO_TABLE):
            without_table.append((path, f'{"label " if folder else ""}left out: {reason}'))
        else:
            lines.append(f'{path}: label left out: {reason}' if folder else
                         f'{path.name}: left out: {reason}')  # fmt: skip
    where = f'{folder}: ' if folder else ''
    return lines + [f'{where}{text}' for text in alike(without_table)]
