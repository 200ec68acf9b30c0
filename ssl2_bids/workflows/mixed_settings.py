"""Results of one model that were made with different thresholds or least volumes of a lesion."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ssl2_bids.bids.dataset import unit_name
from ssl2_bids.bids.outputs import Result
from ssl2_bids.wording import counted

log = logging.getLogger('ssl2_bids')

NAMED = 5  # sessions that a text names
ADVICE = 'volumes and counts cannot be compared; run the participant level again with one of them'


def warn_of_mixed(results: Sequence[Result]) -> dict[str, list[str]]:
    """:func:`mixed_settings`, with a line in the log for each text."""
    mixed = mixed_settings(results)
    for label, texts in mixed.items():
        for text in texts:
            log.warning('%s: %s', label or 'the default model', text)
    return mixed


def mixed_settings(results: Sequence[Result]) -> dict[str, list[str]]:
    """What differs among the results of each model, in words; without models of equal settings.

    A run with another setting that was killed leaves results of both settings. A model may have
    a threshold for each set of contrasts, so that thresholds are compared within a set.
    """
    found: dict[str, list[str]] = {}
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        label, channels = result.names.desc, result.sidecar.get('Channels')
        names = ' '.join(map(str, channels)) if isinstance(channels, list) else ''
        groups.setdefault((label, 'MinimumLesionVolume', ''), []).append(result)
        groups.setdefault((label, 'Threshold', names), []).append(result)
    for (label, key, channels), group in groups.items():
        values: dict[float, list[str]] = {}
        for result in group:
            value = result.sidecar.get(key)
            if isinstance(value, int | float):
                name = unit_name(result.names.subject, result.names.session)
                values.setdefault(float(value), []).append(name)
        if len(values) > 1:
            found.setdefault(label, []).append(_in_words(key, channels, values))
    return found


def _in_words(key: str, channels: str, values: dict[float, list[str]]) -> str:
    """One sentence: the most frequent value with its number of sessions, the others with names."""
    what, unit = ('thresholds', '')
    if key == 'MinimumLesionVolume':
        what, unit = 'least volumes of a lesion', ' mm\N{SUPERSCRIPT THREE}'
    (usual, most), *others = sorted(values.items(), key=lambda item: (-len(item[1]), item[0]))
    texts = [f'{usual:g}{unit} in {counted(len(most), "session")}']
    for value, names in others:
        more = f' and {len(names) - NAMED} more' if names[NAMED:] else ''
        texts.append(f'{value:g}{unit} in {", ".join(names[:NAMED])}{more}')
    of = f' of {channels}' if channels else ''
    return f'the results{of} have different {what} ({"; ".join(texts)}): {ADVICE}'
