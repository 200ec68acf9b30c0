"""The slices to label next: chosen, as a table, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np

from ssl2_bids.bids.outputs import output_name
from ssl2_bids.networks.calibration import calibrate
from ssl2_bids.reports import adaptation as pictures
from ssl2_bids.training.adaptation import suggestions as suggesting
from ssl2_bids.training.adaptation.left_out import probability_of
from ssl2_bids.training.adaptation.suggestions import SliceGain, Suggestion
from ssl2_bids.volume import read_grid
from ssl2_bids.wording import counted
from ssl2_bids.workflows.adaptation.first_results import stored_probability
from ssl2_bids.workflows.adaptation.prepare import PreparedSession, keep, read_kept
from ssl2_bids.workflows.adaptation.state import Work
from ssl2_bids.workflows.adaptation.untrained import Adapted
from ssl2_bids.workflows.segmentation_files import read_result

PEERS = 2  # networks of folds that are asked beside the model: more add little
SHOWN = 6  # suggestions in the picture


def suggests(work: Work) -> bool:
    """Whether slices are suggested: where there was a training, else there is no time for it."""
    return work.trains and bool(work.histories)


def suggest_slices(work: Work, adapted: Adapted) -> list[Suggestion]:
    """The slices from whose labels most is to be learnt, by what several models make of them."""
    card, device = work.adaptation.card, work.device
    if not suggests(work):
        return []
    networks = [adapted.network, *adapted.peers[:PEERS]]
    if len(networks) == 1:
        networks.append(work.network)
    gains: list[SliceGain] = []
    for one in _most_uncertain(work):
        found = one.read()
        known = None if found.annotated is None else np.asarray(found.annotated) > 0
        maps = []
        for network in networks:
            network.to(device)
            made = probability_of(network, found, card, device)
            maps.append(calibrate(made, card.calibration))
        error = suggesting.expected_error(maps)
        gains += suggesting.slice_gains(
            one.case.name, one.case.participant, error, voxel_size=card.voxel_size, known=known
        )
        best = max(
            (g for g in gains if g.case == one.case.name), key=lambda g: g.gain, default=None
        )
        if best is not None:
            work.show(
                f'{one.case.name}: {best.gain:.0f} mm³ of uncertain volume in its best slice'
            )
        keep(work.folder / f'doubt-{one.case.name}.npy', error.astype(np.float16))
    return suggesting.suggest(gains, most=work.adaptation.settings.suggestions)


def _most_uncertain(work: Work) -> list[PreparedSession]:
    """The sessions with voxels to label; of many those in which the start model is least certain.

    Three models on each of hundreds of people would take longer than their adaptation.
    """
    open_ones = [
        one for one in work.people if one.case.participant not in work.held and has_unknown(one)
    ]
    most = suggesting.sessions_asked(len(open_ones), work.adaptation.settings.suggestions)
    if most == len(open_ones):
        return open_ones
    work.show(f'suggestions: {counted(most, "session")} in which the start model is least certain')
    doubts = {one.case.name: _stored_doubt(work, one) for one in open_ones}
    chosen = set(sorted(doubts, key=lambda name: doubts[name], reverse=True)[:most])
    return [one for one in open_ones if one.case.name in chosen]


def has_unknown(one: PreparedSession) -> bool:
    """Whether a part of the brain is not annotated."""
    found = one.read()
    if found.annotated is None:
        return True
    return bool(((np.asarray(found.annotated) == 0) & (np.asarray(found.brain) > 0)).any())


def _stored_doubt(work: Work, one: PreparedSession) -> float:
    """Expected error of the probability that the participant level left, mm³; 0 without one."""
    brain = read_result(one.case.brain_mask, dtype=np.uint8)
    stored = stored_probability(one.case.result, work.adaptation.card, brain)
    if isinstance(stored, str):
        return 0.0
    return float(np.minimum(stored.data, 1 - stored.data).sum() * np.prod(brain.spacing))


def annotate_rows(work: Work, suggested: Sequence[Suggestion]) -> list[dict[str, Any]]:
    """Rows of ``group_annotate.tsv``: slices as numbered in the file that is to be drawn on."""
    people = {one.case.name: one for one in work.people}
    rows = []
    for suggestion in suggested:
        one = people[suggestion.case]
        names = one.case.result.names
        image = one.case.images[names.reference]
        drawn = reference_slice(one, suggestion.index)
        rows.append(
            {
                'participant_id': f'sub-{names.subject}',
                'session_id': f'ses-{names.session}' if names.session else None,
                'axis': drawn.axis,
                'slice': drawn.number,
                'expected_gain_mm3': round(suggestion.gain, 2),
                'image': image.relative_to(names.root).as_posix(),
            }
        )
    return rows


@dataclass(frozen=True)
class StoredSlice:
    """A slice of a reference image.

    Attributes
    ----------
    axis : i, j or k, the voxel axis of the file that runs up the body.
    number : along that axis, from 0, as stored in the file.
    upright : from the lowest slice of the body.
    """

    axis: str
    number: int
    upright: int


def reference_slice(one: PreparedSession, index: int) -> StoredSlice:
    """The axial slice of the reference image that a slice of the network's grid lies in."""
    shape, affine = read_grid(one.case.brain_mask)
    orientation = nib.io_orientation(affine)
    axis = int(np.flatnonzero(orientation[:, 0] == 2)[0])
    centre = np.array([*(np.array(one.read().brain.shape[:2]) - 1) / 2, index, 1.0])
    voxel = np.linalg.inv(affine) @ one.affine @ centre
    last = shape[axis] - 1
    number = int(np.clip(np.rint(voxel[axis]), 0, last))
    return StoredSlice('ijk'[axis], number, number if orientation[axis, 1] > 0 else last - number)


def draw_suggestions(work: Work, suggested: Sequence[Suggestion]) -> str:
    """The picture of the first suggestions; its path relative to the output folder, or empty."""
    from ssl2_bids.steps.network_input import to_reference

    if not suggested:
        return ''
    people = {one.case.name: one for one in work.people}
    shown = []
    for suggestion in suggested[:SHOWN]:
        one = people[suggestion.case]
        names = one.case.result.names
        shown_on = next(c for c in ('FLAIR', names.reference) if c in one.case.images)
        brain = read_result(one.case.brain_mask, dtype=np.uint8)
        drawn = reference_slice(one, suggestion.index)
        doubt = read_kept(work.folder / f'doubt-{one.case.name}.npy').astype(np.float32)
        shown.append(
            pictures.Shown(
                title=one.case.name.replace('_', ' '),
                image=read_result(one.case.images[shown_on], contrast=shown_on),
                brain=brain,
                doubt=to_reference(doubt, one.affine, brain),
                index=drawn.upright,
                stored=f'{drawn.axis} = {drawn.number}',
            )
        )
    settings = work.adaptation.settings
    name = output_name('group.annotate_figure', desc=settings.label)
    path = settings.output_dir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures.draw_suggestions(shown, path)
    return name
