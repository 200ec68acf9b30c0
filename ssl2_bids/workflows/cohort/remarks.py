"""What must be known beside the numbers of each model: settings that differ, missing sessions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ssl2_bids.bids.dataset import unit_name
from ssl2_bids.bids.outputs import Result
from ssl2_bids.settings import CALIBRATED
from ssl2_bids.wording import counted
from ssl2_bids.workflows.current_results import is_second
from ssl2_bids.workflows.mixed_settings import NAMED, warn_of_mixed

log = logging.getLogger('ssl2_bids')


def warn_of_remarks(results: Sequence[Result]) -> dict[str, list[str]]:
    """Settings that differ within a model, and sessions that a model lacks: by its label.

    Each has a line in the log.
    """
    remarks = warn_of_mixed(results)
    for label, text in incomplete(results).items():
        log.warning('%s: %s', label, text)
        remarks.setdefault(label, []).append(text)
    return remarks


def incomplete(results: Sequence[Result]) -> dict[str, str]:
    """The sessions that a model of the site has not segmented again, in words, by its label.

    A run that was killed leaves some. Of models of the participant level any choice of sessions
    is usual.
    """
    everyone = dict.fromkeys((r.names.subject, r.names.session) for r in results)
    texts = {}
    for label in sorted({r.names.desc for r in results if is_second(r)}):
        own = {(r.names.subject, r.names.session) for r in results if r.names.desc == label}
        if lacking := [unit_name(*unit) for unit in everyone if unit not in own]:
            more = f' and {len(lacking) - NAMED} more' if lacking[NAMED:] else ''
            command = 'participant --calibrate-from' if label == CALIBRATED else 'group'
            texts[label] = (
                f'no result of {", ".join(lacking[:NAMED])}{more}: its numbers are of {len(own)} '
                f'of {counted(len(everyone), "session")}, and cannot be compared with those of '
                f'other models; run the same "{command}" command again'
            )
    return texts


def in_words(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many results there are of how many participants; of several models, of each."""
    people = len({row['participant_id'] for row in rows})
    text = f'{counted(len(rows), "result")} of {counted(people, "participant")}'
    models = [row['model'] for row in rows]
    each = [f'{models.count(name)} by {name}' for name in dict.fromkeys(models)]
    return f'{text}: {", ".join(each)}' if len(each) > 1 else text
