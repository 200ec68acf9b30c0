"""What the App wrote beside a lesion mask, if it lies on the mask's grid: as RAS+ volumes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from ssl2_bids.bids.absent import absent_content, is_absent
from ssl2_bids.bids.dataset import is_own_dataset, unit_name
from ssl2_bids.bids.labels import Mask, find_masks
from ssl2_bids.bids.outputs import (
    Result,
    UnitNames,
    find_results,
    output_name,
    read_sidecar,
    sidecar_path,
)
from ssl2_bids.bids.sidecars import is_sloppy
from ssl2_bids.errors import DataError, NoInputError, UnavailableError, about
from ssl2_bids.networks.cards import CARD_FILE
from ssl2_bids.networks.weights import read_card
from ssl2_bids.steps import annotation
from ssl2_bids.volume import Volume, read, reorient
from ssl2_bids.voxel_grid import same_grid
from ssl2_bids.workflows.annotations import RasGrid, ras_grid
from ssl2_bids.workflows.current_results import (
    UNFINISHED,
    current_results,
    named_together,
    unfinished_results,
)

SHIFTED = (
    'Show label and mask in a viewer. If the label lies on the lesions, save it on the grid of '
    'the mask.'
)
OTHER_GRID = (
    'A label is compared on the grid of a mask: run the participant level with --output-spaces '
    'and the contrast that the label was drawn on.'
)
Unit = tuple[str, str]  # participant and session, the latter empty where there is none
OldResults = Mapping[tuple[Unit, str], tuple[str, frozenset[str]]]


def out_of_date(predictions: Path) -> OldResults:
    """The results of an output folder that no longer count, by session and model.

    These are results of former images or settings, and those of a run that was killed. In a
    folder that the App did not write there are none.

    Returns
    -------
    The reason, and the references on whose grids these results are: empty where no result of
    this session and model counts, so that its masks on other grids do not either.
    """
    if not is_own_dataset(predictions):
        return {}
    current, left_out = current_results(find_results(predictions, []))
    known = {_key(one) for one in current}
    old: dict[tuple[Unit, str], tuple[str, frozenset[str]]] = {}
    for one, why in left_out:
        _, former = old.get(_key(one), ('', frozenset()))
        on = former | {one.names.reference} if _key(one) in known else frozenset()
        old[_key(one)] = (why, on)
    for names in unfinished_results(predictions):
        key = ((names.subject, names.session or ''), names.desc)
        if key not in known and _has_model(predictions, names.desc):
            old[key] = (UNFINISHED, frozenset())
    return old


def _has_model(predictions: Path, label: str) -> bool:
    """Whether a model of this label was adapted here; masks of others may come without JSON."""
    folder = predictions / output_name('model.folder', desc=label)
    return bool(label) and (folder / CARD_FILE).is_file()


def _key(result: Result) -> tuple[Unit, str]:
    names = result.names
    return (names.subject, names.session or ''), names.desc


def superseded_notes(
    old: OldResults, models: Sequence[str | None], participants: Iterable[str] | None
) -> list[str]:
    """The sessions that have no result that counts, of those asked for: a line for each reason."""
    wanted = None if participants is None else set(participants)
    asked = {model or '': f', {model or "the default model"}' for model in models}
    if len(asked) == 1:
        asked = dict.fromkeys(asked, '')
    found = [
        (unit_name(*unit), f'{asked[desc]}: left out: {why}')
        for (unit, desc), (why, on) in old.items()
        if not on and desc in asked and (wanted is None or unit[0] in wanted)
    ]
    return [f'{names}{text}' for names, text in named_together(found)]


def current_masks(
    predictions: Path,
    model: str | None,
    old: OldResults,
    participants: Iterable[str] | None = None,
) -> list[Mask]:
    """The masks of a model, without those of results that no longer count.

    Parameters
    ----------
    participants : labels without ``sub-``, whose reasons an error states; None is all. The masks
        of all are returned.

    Raises
    ------
    NoInputError : there is no such folder, or no mask of this model in it that counts.
    """
    masks = find_masks(predictions, model)
    kept = [mask for mask in masks if not _is_old(mask, old)]
    if not kept:
        wanted = set(participants or ())
        asked = [mask for mask in masks if mask.subject in wanted] or masks
        reasons = named_together(
            (unit_name(*_unit(m)), old[_unit(m), model or ''][0]) for m in asked
        )
        why = '. '.join(f'{names}: {reason}' for names, reason in reasons)
        whose = f'the model {model}' if model else 'the default model'
        raise NoInputError(f'no mask of {whose} counts: {why}', path=predictions)
    return kept


def _unit(mask: Mask) -> Unit:
    return mask.subject, mask.session or ''


def _is_old(mask: Mask, old: OldResults) -> bool:
    found = old.get((_unit(mask), mask.desc or ''))
    return found is not None and (not found[1] or mask.space in found[1])


def is_made_sloppily(masks: Iterable[Mask]) -> bool:
    """Whether a run with ``--sloppy`` made any of the masks; unreadable sidecars state nothing."""
    for mask in masks:
        with suppress(DataError):
            if is_sloppy(read_sidecar(sidecar_path(mask.path))):
                return True
    return False


def adapted_to(predictions: Path, model: str | None) -> list[str]:
    """The participants (``sub-``) of whose labels a model of an output folder learnt.

    Without this model, as for a bundled one, or with a card that cannot be read, there are none.
    """
    if model is None:
        return []
    try:
        return read_card(predictions / output_name('model.folder', desc=model)).adapted_to
    except UnavailableError:
        return []


def grids_of(masks: Sequence[Mask]) -> dict[str, RasGrid]:
    """The grids of a session's masks, by path; of several one that is damaged is left out.

    Raises
    ------
    DataError : none can be read, or the content of all is absent.
    """
    grids: dict[str, RasGrid] = {}
    first: DataError | None = None
    for mask in masks:
        try:
            check_present(mask)
            grids[str(mask.path)] = ras_grid(mask.path)
        except DataError as error:
            first = first or error
    if not grids and first:
        raise first
    return grids


def check_present(mask: Mask) -> None:
    """Check that the content of a mask was downloaded.

    Raises
    ------
    DataError : it was not; the command that does it stands in the message.
    """
    if is_absent(mask.path):
        raise absent_content(mask.path, mask.path.parent)


def read_result_mask(mask: Mask) -> Volume:
    """:func:`read_mask` of a mask that may be absent."""
    check_present(mask)
    return read_mask(mask.path)


def read_mask(path: Path) -> Volume:
    """Read a lesion mask.

    Raises
    ------
    DataError : it cannot be read, or its values are not those of a mask; it is named.
    """
    volume = read(path, dtype=None)
    with about(path):
        return reorient(annotation.read_label_values(volume, {}).label)


def probability_of(mask: Mask, grid: Volume) -> Volume | None:
    """The lesion probability that a mask was made of.

    Raises
    ------
    DataError : it cannot be read, or has values outside 0 to 1.
    """
    path = mask.path.with_name(_names(mask).path('anat.probability').name)
    # a mask of another name was not made from the file of this one
    if mask.path.name != _names(mask).path('anat.mask').name or not path.exists():
        return None
    volume = reorient(read(path))
    if not same_grid(volume, grid):
        return None
    values = np.nan_to_num(volume.data)
    if values.min() < -1e-3 or values.max() > 1 + 1e-3:
        raise DataError(
            f'not a probability: values from {values.min():.3g} to {values.max():.3g}',
            advice='Segment again, or remove the file.',
            path=path,
        )
    return volume.with_data(values.clip(0, 1))


def brain_of(mask: Mask, grid: Volume) -> Volume | None:
    """The brain mask of a session; values 0 and 1."""
    path = mask.path.with_name(_names(mask).path('anat.brain_mask').name)
    if not path.exists():
        return None
    volume = reorient(read(path, dtype=None))
    if not same_grid(volume, grid):
        return None
    return volume.with_data((volume.data > 0).astype(np.uint8))


def image_of(mask: Mask, grid: Volume) -> tuple[Volume, str] | None:
    """A preprocessed image on a mask's grid, FLAIR before others, and its file name."""
    found = sorted(set(_images(mask)), key=lambda path: ('FLAIR' not in path.name, path.name))
    for path in found:
        volume = reorient(read(path))
        if same_grid(volume, grid):
            return volume, path.name
    return None


def _images(mask: Mask) -> Iterator[Path]:
    for kind in ('anat.preproc_reference', 'anat.preproc'):
        for entities in ('', '*'):
            pattern = _names(mask).path(kind, contrast='*', entities=entities).name
            yield from mask.path.parent.glob(pattern)


def _names(mask: Mask) -> UnitNames:
    return UnitNames(Path(), mask.subject, mask.session, mask.space, mask.desc or '')
