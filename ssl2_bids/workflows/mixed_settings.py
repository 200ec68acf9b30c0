"""Results of one model that were made with different thresholds or least volumes of a lesion."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from ssl2_bids.bids.dataset import unit_name
from ssl2_bids.bids.outputs import Result, output_name
from ssl2_bids.errors import UnavailableError
from ssl2_bids.networks.cards import CARD_FILE, Card
from ssl2_bids.networks.weights import DEFAULT_MODEL, bundled_models, find_model
from ssl2_bids.settings import CALIBRATED
from ssl2_bids.wording import counted
from ssl2_bids.workflows.current_results import ADAPT_AGAIN, CALIBRATE_AGAIN, is_second

log = logging.getLogger('ssl2_bids')

NAMED = 5  # sessions that a text names
LISTED = 20  # participants that a command names; without names all are run, and most are finished
ADVICE = 'volumes and counts cannot be compared; {}'
COMMAND = 'run "participant {}" again, with its other options as before'
MINIMUM, THRESHOLD = 'MinimumLesionVolume', 'Threshold'
OPTIONS = {MINIMUM: '--min-lesion-volume', THRESHOLD: '--threshold'}


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
        groups.setdefault((label, MINIMUM, ''), []).append(result)
        groups.setdefault((label, THRESHOLD, names), []).append(result)
    for (label, key, channels), group in groups.items():
        values: dict[float, list[Result]] = {}
        for result in group:
            value = _value(result, key)
            if value is not None:
                values.setdefault(value, []).append(result)
        if len(values) > 1:
            found.setdefault(label, []).append(_in_words(key, channels, values))
    return found


def _value(result: Result, key: str) -> float | None:
    value = result.sidecar.get(key)
    return float(value) if isinstance(value, int | float) else None


def _in_words(key: str, channels: str, values: dict[float, list[Result]]) -> str:
    """One sentence: the most frequent value with its number of sessions, the others with names."""
    what, unit = ('thresholds', '')
    if key == MINIMUM:
        what, unit = 'least volumes of a lesion', ' mm\N{SUPERSCRIPT THREE}'
    (usual, most), *others = sorted(values.items(), key=lambda item: (-len(item[1]), item[0]))
    texts = [f'{usual:g}{unit} in {counted(len(most), "session")}']
    for value, group in others:
        names = [unit_name(result.names.subject, result.names.session) for result in group]
        more = f' and {len(names) - NAMED} more' if names[NAMED:] else ''
        texts.append(f'{value:g}{unit} in {", ".join(names[:NAMED])}{more}')
    of = f' of {channels}' if channels else ''
    advice = ADVICE.format(_remedy(key, usual, most, [r for _, group in others for r in group]))
    return f'the results{of} have different {what} ({"; ".join(texts)}): {advice}'


def _remedy(key: str, value: float, usual: Sequence[Result], others: Sequence[Result]) -> str:
    """What brings the other results to the usual value.

    The threshold of a result that was segmented again is that of its model. Its least volume is
    that of the first result, which the participant level makes.
    """
    label = others[0].names.desc
    again = CALIBRATE_AGAIN if label == CALIBRATED else ADAPT_AGAIN
    second = [result for result in others if is_second(result)]
    if key == THRESHOLD and (second or label == CALIBRATED):
        return again
    # with the label of the first result this is the model that it was made by
    first = str(second[0].sidecar['FirstResult']) if second else label
    card, words = _model(others[0], first)
    if second and label == CALIBRATED:
        words += ['--calibrate-from', 'LABELS']
    for name, option in OPTIONS.items():
        wanted = value if name == key else None if second else _unlike(name, card, usual, others)
        if wanted is not None:
            words += [option, f'{wanted:.6g}']
    people = sorted({result.names.subject for result in others})
    if len(people) <= LISTED:
        words += ['--participant-label', *people]
    command = COMMAND.format(' '.join(words))
    return f'{command}; then {again}' if second and label != CALIBRATED else command


def _unlike(
    key: str, card: Card | None, usual: Sequence[Result], others: Sequence[Result]
) -> float | None:
    """The usual value of a setting, which a command must name because the model has another."""
    channels = others[0].sidecar.get('Channels')
    same = [r for r in usual if key == MINIMUM or r.sidecar.get('Channels') == channels]
    known = Counter(value for r in same if (value := _value(r, key)) is not None)
    if card is None or not known:
        return None
    value = known.most_common(1)[0][0]
    filled = [str(one) for one in channels] if isinstance(channels, list) else []
    own = card.minimum_lesion_volume if key == MINIMUM else card.threshold_for(filled)
    return None if value == own else value


def _model(result: Result, label: str) -> tuple[Card | None, list[str]]:
    """The model of a label in an output folder, and the option that asks for it.

    Without the model, as for one that was given by its path, the card is None.
    """
    root = result.names.root
    value: str | None = label
    if not label or not (root / output_name('model.folder', desc=label) / CARD_FILE).is_file():
        bundled = {find_model(one, root).label: one for one in bundled_models()}
        value = bundled.get(label)
    words = ['--model', value or 'PATH'] if label and value != DEFAULT_MODEL else []
    try:
        return find_model(value, root) if value else None, words
    except UnavailableError:
        return None, words
