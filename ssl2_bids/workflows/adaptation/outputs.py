"""What an adaptation leaves: the model and its card, the tables, the slices to label next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ssl2_bids import __version__
from ssl2_bids.bids.columns import (
    ANNOTATE_COLUMNS,
    HISTORY_COLUMNS,
    PERFORMANCE_COLUMNS,
    SPLIT_COLUMNS,
)
from ssl2_bids.bids.outputs import output_name, sidecar_path, write_table
from ssl2_bids.bids.provenance import bids_uri, software_versions
from ssl2_bids.files import sha256, write_json, write_text
from ssl2_bids.networks.cards import Card
from ssl2_bids.networks.weights import write_model
from ssl2_bids.reports import adaptation as pictures
from ssl2_bids.settings import BUNDLED, RECALIBRATED
from ssl2_bids.training import strategies
from ssl2_bids.training.adaptation import suggestions as suggesting
from ssl2_bids.training.adaptation.adapt import curves
from ssl2_bids.training.adaptation.left_out import DICE, probability_of
from ssl2_bids.training.adaptation.recalibration import Recalibration
from ssl2_bids.training.adaptation.suggestions import SliceGain, Suggestion
from ssl2_bids.training.run import History
from ssl2_bids.volume import read, read_grid, reorient
from ssl2_bids.workflows.adaptation import scores as scoring
from ssl2_bids.workflows.adaptation.plan import SLICES, label_links
from ssl2_bids.workflows.adaptation.prepare import PreparedSession
from ssl2_bids.workflows.adaptation.run import FINAL, HOLDOUT, Adapted, layers_for
from ssl2_bids.workflows.adaptation.state import Work, settings_for, settings_table
from ssl2_bids.workflows.adaptation.twin.draw import twin_facts
from ssl2_bids.workflows.adaptation.twin.recalibrate import trained_twins

PEERS = 2  # networks of folds that are asked beside the model: more add little
SHOWN = 6  # suggestions in the picture
LEFT_BEHIND = (
    'Evaluation', 'Validation', 'Stages', 'Steps', 'BatchSize', 'Patch', 'Label',
    'Seed', 'Sha256',
)  # fmt: skip


def write_adapted(work: Work, adapted: Adapted) -> Card:
    """Write model, tables and report facts; the card, which has the hash, comes last."""
    settings = work.adaptation.settings
    root, label = settings.output_dir, settings.label
    compared = scoring.compare_metrics(adapted.rows, seed=settings.random_seed)
    write_performance(root, adapted, compared)
    write_history(work)
    suggested = suggest_slices(work, adapted)
    if work.trains:  # else earlier suggestions stay
        path = root / output_name('group.annotate')
        write_table(path, annotate_rows(work, suggested), ANNOTATE_COLUMNS)
    write_json(
        root / output_name('model.report', desc=label),
        report_facts(work, adapted, compared, suggested),
    )
    if work.twin:
        protocol = root / output_name('model.twin', desc=label)
        write_text(protocol, work.twin.twin.text)
    folder = root / output_name('model.folder', desc=label)
    return write_model(folder, adapted.network, card_content(work, adapted, compared))


def write_history(work: Work) -> None:
    """Settings, curves and folds of an adaptation, beside the model."""
    root, label = work.adaptation.settings.output_dir, work.adaptation.settings.label
    _write_histories(work, root / output_name('model.history', desc=label))
    _write_splits(work, root / output_name('model.splits', desc=label))
    _write_configuration(work, root / output_name('model.configuration', desc=label))


def write_performance(root: Path, adapted: Adapted, compared: dict[str, Any]) -> None:
    """``group_performance.tsv``, and its JSON with the comparison."""
    path = root / output_name('group.performance')
    write_table(path, scoring.table_rows(adapted.rows), PERFORMANCE_COLUMNS)
    write_json(
        sidecar_path(path),
        PERFORMANCE_COLUMNS
        | {
            'Comparison': compared,
            'Accepted': adapted.decision.accepted,
            'Reason': adapted.decision.reason,
            'Rung': adapted.rung,
        },
    )


def _write_histories(work: Work, path: Path) -> None:
    rows = curves(work.histories)
    names = list(dict.fromkeys(name for row in rows for name in row)) or ['training', 'step']
    columns = {
        name: HISTORY_COLUMNS.get(
            name, {'Description': f'{name} of the strategy, mean of the steps'}
        )
        for name in names
    }
    write_table(path, rows, columns)


def _write_splits(work: Work, path: Path) -> None:
    rows = []
    for one in work.people:
        names = one.case.result.names
        labelled = one.case.name in work.annotations
        fold = work.fold_of.get(names.subject)
        if names.subject in work.held:
            fold = HOLDOUT
        elif labelled and work.adaptation.on_slices:
            fold = SLICES
        rows.append(
            {
                'participant_id': f'sub-{names.subject}',
                'session_id': f'ses-{names.session}' if names.session else None,
                'role': 'labelled' if labelled else 'unlabelled',
                'fold': fold,
            }
        )
    write_table(path, rows, SPLIT_COLUMNS)


def _write_configuration(work: Work, path: Path) -> None:
    import tomli_w

    write_text(path, tomli_w.dumps(settings_table(work)))


def card_content(work: Work, adapted: Adapted, compared: dict[str, Any]) -> dict[str, Any]:
    """The card: the parent's, with what was done; of a refused model, the parent's network."""
    parent, settings = work.adaptation.card, work.adaptation.settings
    kept = {k: v for k, v in parent.content.items() if k not in LEFT_BEHIND}
    accepted = adapted.decision.accepted
    trained = [one for one in work.people if one.case.participant not in work.held]
    labelled = sum(one.case.name in work.annotations for one in trained)
    data = str(parent.content.get('TrainedOn', 'see the parent model'))
    if adapted.share:
        data += f'; then adapted to {len(trained)} scans of a site, {labelled} of them labelled'
        if work.twin:
            people = len(trained_twins(work))
            data += f', by {people} simulated people of a scanner fitted to these scans'
    elif accepted:
        data += f'; then recalibrated on {labelled} labelled scan{"s" * (labelled > 1)} of a site'
    return (
        kept
        | recalibrated_keys(parent, adapted)
        | {
            'Name': f'{parent.name}-{settings.label}',
            'Version': __version__,
            'Label': settings.label,
            'TrainedOn': data,
            'Accepted': accepted,
            'Reason': adapted.decision.reason,
            'Parent': {'Name': parent.name, 'Version': parent.version, 'Sha256': parent.sha256},
            'Rung': adapted.rung if accepted else BUNDLED,
            'Strategy': settings_for(work, layers_for(adapted.rung)).strategy
            if adapted.share
            else 'none',
            'Steps': work.training.steps if adapted.share else 0,
            'WeightShare': adapted.share,
            'Rungs': rung_facts(work, adapted),
            'Evidence': evidence_of(work, adapted),
            **({'Twin': twin_facts(work.twin)} if work.twin else {}),
            'Patch': list(work.training.patch),
            'Seed': work.training.seed,
            'Folds': sorted({row.fold for row in adapted.rows if row.fold != HOLDOUT}),
            'Participants': sorted({f'sub-{one.case.participant}' for one in trained}),
            'Labels': _label_files(work),
            'Metrics': compared,
            'ConfigurationHash': work.configuration,
            'Software': software_versions(),
            'Use': 'research only',
        }
    )


def evidence_of(work: Work, adapted: Adapted) -> dict[str, Any]:
    """On whose labels an adapted model rests, and how it was tested."""
    labelled = {
        f'sub-{one.case.participant}'
        for one in work.labelled
        if one.case.participant not in work.held
    }
    compared = scoring.compare_metrics(adapted.rows, seed=0)
    dice, f1 = compared['dice'], compared['lesion_f1']
    left_out = SLICES if work.adaptation.on_slices else 'participants'
    return {
        'Labelled': sorted(labelled),
        'LeftOut': left_out if adapted.rows else 'nothing',
        'Dice': [dice['Before'], dice['After']],
        'LesionF1': [f1['Before'], f1['After']],
    }


def recalibrated_keys(parent: Card, adapted: Adapted) -> dict[str, Any]:
    """The keys of the card that a recalibration changes, and what was fitted."""
    found = adapted.recalibration
    asked = adapted.decision.accepted and adapted.rung == RECALIBRATED
    if found == Recalibration() and not asked:
        return {}
    calibration = found.calibration.after(parent.calibration)
    keys: dict[str, Any] = {
        'Calibration': {'Scale': calibration.scale, 'Shift': calibration.shift},
        'Threshold': round(found.threshold(parent.threshold), 6),
        'Recalibration': {
            'Scale': found.calibration.scale,
            'Shift': found.calibration.shift,
            'ThresholdMove': found.move,
            'MinimumLesionVolume': found.minimum_volume,
        },
    }
    if parent.thresholds:
        keys['Thresholds'] = [
            {'Channels': sorted(channels), 'Threshold': round(found.threshold(value), 6)}
            for channels, value in parent.thresholds
        ]
    if found.minimum_volume is not None:
        keys['MinimumLesionVolume'] = found.minimum_volume
    return keys


def rung_facts(work: Work, adapted: Adapted) -> list[dict[str, Any]]:
    """Scores and costs of all rungs that were tested, the start model first."""
    facts = []
    for rung in adapted.rungs:
        compared = scoring.compare_metrics(rung.rows, seed=work.adaptation.settings.random_seed)
        dice, f1 = compared['dice'], compared['lesion_f1']
        facts.append(
            {
                'Rung': rung.name,
                'Dice': dice['After'],
                'Gain': dice['Difference'],
                'Interval': dice['Interval'],
                'StandardError': scoring.error_of_gain(rung.rows),
                'LesionF1': f1['After'],
                'Participants': dice['Participants'],
                'Minutes': round(rung.minutes, 2),
                'Recalibrated': rung.recalibration != Recalibration(),
                'Taken': adapted.decision.accepted
                and rung.name == adapted.rung
                or not adapted.decision.accepted
                and rung.name == BUNDLED,
            }
        )
    return facts


def _label_files(work: Work) -> list[dict[str, str]]:
    settings = work.adaptation.settings
    roots = {'raw': settings.bids_dir} | label_links(settings)
    files = []
    for one in work.labelled:
        for label in one.case.labels:
            for path in (label.path, label.extent_path):
                if path is None:
                    continue
                dataset, root = next(
                    (name, root) for name, root in roots.items() if path.is_relative_to(root)
                )
                files.append({'File': bids_uri(path, root, dataset), 'Sha256': sha256(path)})
    return files


def suggest_slices(work: Work, adapted: Adapted) -> list[Suggestion]:
    """The slices from whose labels most is to be learnt, by what several models make of them."""
    card, device = work.adaptation.card, work.device
    if not work.trains:  # no images on the grid of the network; plain group suggests participants
        return []
    networks = [adapted.network, *adapted.peers[:PEERS]]
    if len(networks) == 1:
        networks.append(work.network)
    gains: list[SliceGain] = []
    for one in work.people:
        if one.case.participant in work.held:
            continue
        found = one.read()
        known = None if found.annotated is None else np.asarray(found.annotated) > 0
        if known is not None and bool((known | ~(np.asarray(found.brain) > 0)).all()):
            continue
        maps = []
        for network in networks:
            network.to(device)
            maps.append(probability_of(network, found, card, device))
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
        np.save(work.folder / f'doubt-{one.case.name}.npy', error.astype(np.float16))
    return suggesting.suggest(gains, most=work.adaptation.settings.suggestions)


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


def report_facts(
    work: Work, adapted: Adapted, compared: dict[str, Any], suggested: Sequence[Suggestion]
) -> dict[str, Any]:
    """The content of the cohort's page on this adaptation."""
    settings = work.adaptation.settings
    rows = [
        {key: value for key, value in row.items() if not _is_nan(value)}
        for row in scoring.table_rows(adapted.rows)
    ]
    return {
        'Label': settings.label,
        'Parent': work.adaptation.card.name,
        'Accepted': adapted.decision.accepted,
        'Reason': adapted.decision.reason,
        'Strategy': work.training.strategy,
        'Steps': work.training.steps,
        'Trained': bool(work.histories),
        'Tested': bool(adapted.rows),
        'Rung': adapted.rung if adapted.decision.accepted else BUNDLED,
        'Rungs': rung_facts(work, adapted),
        'Recalibration': recalibrated_keys(work.adaptation.card, adapted),
        'WeightShare': adapted.share,
        'Device': work.device.partition(':')[0],
        'Slices': work.adaptation.on_slices,
        'Labelled': len(work.annotations),
        'Sessions': len(work.people),
        'LeftOut': [{'name': name, 'reason': reason} for name, reason in work.left_out],
        'Performance': rows,
        'Curves': left_out_curves(work.histories),
        'Teacher': 'teacher' in strategies.find(work.training.strategy).extra,
        'Comparison': compared,
        'Annotate': annotate_rows(work, suggested),
        'AnnotateFigure': draw_suggestions(work, suggested),
        'Minutes': round(sum(h.seconds for h in work.histories.values()) / 60, 1),
        'Twin': twin_facts(work.twin) | twin_files(work) if work.twin else None,
        'Final': any(name.endswith(FINAL) for name in work.histories),
    }


def twin_files(work: Work) -> dict[str, str]:
    """The picture of site and twin, drawn here, and the protocol; paths in the output folder."""
    assert work.twin is not None
    settings, twins = work.adaptation.settings, work.twin.cases
    site = [one.case for one in work.people]
    shown = []
    for contrast in work.twin.twin.fitted:
        pair = [
            next((case for case in cases if contrast in case.images), None)
            for cases in (site, twins)
        ]
        images = [
            (
                reorient(read(case.images[contrast], contrast=contrast)),
                reorient(read(case.brain_mask, dtype=np.uint8)),
            )
            for case in pair
            if case
        ]
        if len(images) == 2:
            shown.append(pictures.Beside(contrast, images[0], images[1]))
    name = output_name('group.twin_figure', desc=settings.label)
    path = settings.output_dir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures.draw_twin(shown, path)
    return {'Figure': name, 'Protocol': output_name('model.twin', desc=settings.label)}


def left_out_curves(histories: Mapping[str, History]) -> dict[str, list[list[float]]]:
    """By training, (step, Dice on the people left out of it)."""
    found = {
        name: [[row['step'], round(row[DICE], 4)] for row in history.rows if DICE in row]
        for name, history in histories.items()
    }
    return {name: points for name, points in found.items() if points}


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


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
        brain = reorient(read(one.case.brain_mask, dtype=np.uint8))
        drawn = reference_slice(one, suggestion.index)
        doubt = np.load(work.folder / f'doubt-{one.case.name}.npy').astype(np.float32)
        shown.append(
            pictures.Shown(
                title=one.case.name.replace('_', ' '),
                image=reorient(read(one.case.images[shown_on], contrast=shown_on)),
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
