"""Which of the results in an output folder count: those that no later run has put out of date."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from ssl2_bids.bids.outputs import (
    MASK_NAME,
    Result,
    UnitNames,
    find_summary,
    output_name,
    sidecar_if_any,
    sidecar_path,
)
from ssl2_bids.errors import UnavailableError, UsageError
from ssl2_bids.files import files_below
from ssl2_bids.networks.calibration import UNCHANGED, Calibration
from ssl2_bids.networks.cards import CARD_FILE, Card
from ssl2_bids.networks.weights import read_card
from ssl2_bids.settings import CALIBRATED

OUT_OF_DATE = 'the result is from an earlier choice of images or settings'
AGAIN = 'run the participant level again'
UNFINISHED = 'the last run could not finish the result; run the same command again'
ADAPT_AGAIN = 'adapt again'
CALIBRATE_AGAIN = 'run the command with --calibrate-from again'
FORMER = 'the result is of a former model {label}, not of the one in {folder}'
ANOTHER = 'the result is of another model named {label}, not of the one in {folder}'
IDENTITY = ('Name', 'Version', 'Sha256')


def current_results(results: Sequence[Result]) -> tuple[list[Result], list[tuple[Result, str]]]:
    """One result for each participant, session and model; the others with the reason.

    A result counts if it is the one that the session's summary speaks of, and if the images
    beside it are those that it was made from: all models share them, and another model may have
    replaced them. One that was segmented again from the images of another counts as long as that
    one does. A result of a site's model counts only if it is of the model that now lies in the
    output folder: an interrupted run leaves results of two models of one name.
    """
    units: dict[tuple[str, str | None, str], list[Result]] = defaultdict(list)
    for result in results:
        units[result.names.subject, result.names.session, result.names.desc].append(result)
    kept: list[Result] = []
    left_out: list[tuple[Result, str]] = []
    for group in units.values():
        chosen = _chosen(group)
        if chosen and not is_second(chosen) and not _has_its_images(chosen):
            chosen = None
        kept += [r for r in group if r is chosen]
        left_out += [(r, f'{OUT_OF_DATE}; {AGAIN}') for r in group if r is not chosen]
    images = {_images_of(r) for r in kept if not is_second(r)}
    for result in [r for r in kept if is_second(r) and _images_of(r) not in images]:
        kept.remove(result)
        command = CALIBRATE_AGAIN if result.names.desc == CALIBRATED else ADAPT_AGAIN
        left_out.append((result, f'{OUT_OF_DATE}; {command}'))
    cards: dict[tuple[Path, str], Card | None] = {}
    for result in list(kept):
        key = (result.names.root, result.names.desc)
        if key not in cards:
            cards[key] = _card_here(*key)
        card = cards[key]
        if card and not is_of(result, card):
            kept.remove(result)
            left_out.append((result, _of_another(result, card)))
    return kept, left_out


def check_model(card: Card, output_dir: Path) -> None:
    """Check that an output folder has no other model of the same label.

    Results of the participant level by this model would have the names of those of the other,
    and not count.

    Parameters
    ----------
    card : of the model to segment with; a copy of the folder's own is accepted.

    Raises
    ------
    UsageError : the folder has another model of this label.
    """
    own = _card_here(output_dir, card.label)
    if own is None or (own.identity, own.thresholds) == (card.identity, card.thresholds):
        return
    raise UsageError(
        f'this model has the label {card.label}, and the output folder has another model of this '
        f'label in {own.folder}: the results of both would have the same names',
        advice=f'Give --model {card.label} for the model of this folder, or give another output '
        f'folder, or give a copy of the model another "Label" in its {CARD_FILE}.',
        path=card.folder,
    )


def unfinished_results(root: Path) -> list[UnitNames]:
    """Sessions and models with a mask that lacks its JSON file, which is removed first.

    The mask is that of a former run, where a run that was to replace it was killed.
    """
    found = {}
    for folder in sorted(root.glob('sub-*')):
        for path in files_below(folder, '*_label-L*_mask.nii.gz'):
            sidecar = sidecar_path(path)
            match = MASK_NAME.fullmatch(sidecar.name)
            if match and not (sidecar.exists() or sidecar.is_symlink()):
                names = UnitNames(
                    root, match['subject'], match['session'], desc=match['desc'] or ''
                )
                found[names.subject, names.session, names.desc] = names
    return list(found.values())


def _card_here(root: Path, label: str) -> Card | None:
    """The site's model of a label in an output folder; None without one that can be read."""
    if not label:
        return None
    try:
        return read_card(root / output_name('model.folder', desc=label))
    except UnavailableError:
        return None


def _of_another(result: Result, card: Card) -> str:
    """Why a result of another model of this name does not count, and which command replaces it.

    Only adaptations of this folder make second results. The participant level takes models of
    other folders, too.
    """
    label = result.names.desc
    text = FORMER if is_second(result) else ANOTHER
    if not is_second(result) or not card.content.get('Accepted', True):
        command = f'{AGAIN} with --model {label}'
    elif label == CALIBRATED:
        command = CALIBRATE_AGAIN
    else:
        command = f'{ADAPT_AGAIN} with the same command'
    folder = output_name('model.folder', desc=label)
    return f'{text.format(label=label, folder=folder)}; {command}'


def named_together(reasons: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Names and reason for each reason, from pairs of name and reason; names joined by commas."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons:
        names.setdefault(reason, []).append(name)
    return [(', '.join(dict.fromkeys(found)), reason) for reason, found in names.items()]


def is_made_by(result: Result, card: Card) -> bool:
    """Whether a result is of this model, as its sidecar has it."""
    made_by, own = result.sidecar.get('Model'), card.reference
    return isinstance(made_by, dict) and all(made_by.get(key) == own[key] for key in IDENTITY)


def calibration_of(result: Result) -> Calibration | None:
    """How the probability of a result was calibrated; None where the sidecar cannot be read so."""
    found = result.sidecar.get('Calibration')
    if found is None:
        return UNCHANGED
    try:
        return Calibration(float(found['Scale']), float(found['Shift']))
    except (KeyError, TypeError, ValueError):
        return None


def is_of(result: Result, card: Card) -> bool:
    """Whether a result is of this calibration of this model.

    At the participant level the user may have given another threshold.
    """
    thresholds = {card.threshold, *(value for _, value in card.thresholds)}
    return (
        is_made_by(result, card)
        and calibration_of(result) == card.calibration
        and (not is_second(result) or result.sidecar.get('Threshold') in thresholds)
    )


def _has_its_images(result: Result) -> bool:
    """Whether the images that all models share are those that a first result was made from."""
    mine = result.sidecar.get('PreprocessingHash')
    mask = sidecar_if_any(result.names.path('anat.brain_mask'))
    return bool(mask.get('PreprocessingHash', mine) == mine)


def is_second(result: Result) -> bool:
    """Whether a result was segmented from the preprocessed images of another model's."""
    return result.sidecar.get('FirstResult', result.names.desc) != result.names.desc


def _images_of(result: Result) -> tuple[str, str | None, str | None]:
    names = result.names
    return names.subject, names.session, result.sidecar.get('PreprocessingHash')


def _chosen(group: list[Result]) -> Result | None:
    """The result of a session and model that its summary speaks of; without one the newest."""
    summary = find_summary(group[0].names) or {}
    configuration = summary.get('provenance', {}).get('configuration')
    if configuration is None:
        return max(group, key=lambda r: r.names.done_marker.stat().st_mtime_ns)
    return next((r for r in group if r.sidecar['ConfigurationHash'] == configuration), None)
