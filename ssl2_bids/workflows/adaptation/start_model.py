"""The model that an adaptation starts from, beside the models of the results."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl2_bids.bids.outputs import Result, find_results
from ssl2_bids.networks.cards import Card
from ssl2_bids.settings import GroupSettings
from ssl2_bids.wording import counted
from ssl2_bids.workflows.adaptation.first_results import stored_by_another
from ssl2_bids.workflows.current_results import current_results, is_second

log = logging.getLogger('ssl2_bids')

NO_RESULT = (
    'the start model is %s, the default, and the output folder has no result of it: its results '
    'are of %s. With --model %s that model is adapted'
)


def warn_of_start(settings: GroupSettings, card: Card, results: Sequence[Result]) -> None:
    """Warn where no ``--model`` was given and all results are of other models than the default.

    Parameters
    ----------
    results : one of each session, that of the start model where there is one.
    """
    if settings.model is not None or any(not stored_by_another(r, card) for r in results):
        return
    if names := models_of([r for r in results if not is_second(r)]):
        most = max(names, key=lambda name: names[name])
        found = ', '.join(f'{name} ({counted(n, "session")})' for name, n in names.items())
        log.warning(NO_RESULT, card.name, found, most)


def models_of(results: Sequence[Result]) -> dict[str, int]:
    """The models of results, as ``--model`` takes them, and of how many results each is."""
    names: dict[str, int] = {}
    for result in results:
        made_by = result.sidecar.get('Model')
        name = made_by.get('Name') if isinstance(made_by, dict) else None
        here = f'{name}'.endswith(f'-{result.names.desc}')  # of a site: the name of its folder
        if name:
            option = result.names.desc if here else str(name)
            names[option] = names.get(option, 0) + 1
    return names


def segmented_by_others(root: Path, units: Sequence[tuple[str, str | None]]) -> str:
    """An advice with the models of the first results of some sessions; empty where none is."""
    found = [r for r in find_results(root, []) if (r.names.subject, r.names.session) in units]
    names = models_of([r for r in current_results(found)[0] if not is_second(r)])
    options = ' or '.join(f'--model {name}' for name in names)
    return f' They have results of other models: {options}.' if names else ''


def another_model(label: str, card: Mapping[str, Any], start: str) -> str:
    """Why a finished model of this label is not what this adaptation would give.

    Parameters
    ----------
    card : of the finished model.
    start : the name of the model that this adaptation starts from.
    """
    parent = card.get('Parent')
    name = parent.get('Name') if isinstance(parent, dict) else None
    if name and name != start:
        return (
            f'there is another model named {label}: of another start model, {name} and not {start}'
        )
    return f'there is another model named {label}: of other labels, options or scans'
