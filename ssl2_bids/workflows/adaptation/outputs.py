"""What an adaptation leaves: the model and its card, the tables, the slices to label next."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl2_bids.bids.columns import (
    ANNOTATE_COLUMNS,
    HISTORY_COLUMNS,
    PERFORMANCE_COLUMNS,
    SPLIT_COLUMNS,
)
from ssl2_bids.bids.outputs import find_qualities, output_name, sidecar_path, write_table
from ssl2_bids.errors import DataError
from ssl2_bids.files import write_json, write_text
from ssl2_bids.networks.cards import Card
from ssl2_bids.networks.weights import write_model
from ssl2_bids.reports import adaptation as pictures
from ssl2_bids.settings import BUNDLED
from ssl2_bids.training import strategies
from ssl2_bids.training.adaptation.adapt import curves
from ssl2_bids.training.adaptation.left_out import DICE
from ssl2_bids.training.adaptation.suggestions import Suggestion
from ssl2_bids.training.run import History
from ssl2_bids.volume import Volume
from ssl2_bids.workflows.adaptation import scores as scoring
from ssl2_bids.workflows.adaptation.card import (
    card_content,
    recalibrated_keys,
    rung_facts,
    training_facts,
)
from ssl2_bids.workflows.adaptation.cases import Case
from ssl2_bids.workflows.adaptation.next_slices import (
    annotate_rows,
    draw_suggestions,
    suggest_slices,
    suggests,
)
from ssl2_bids.workflows.adaptation.plan import SLICES
from ssl2_bids.workflows.adaptation.run import HOLDOUT
from ssl2_bids.workflows.adaptation.state import (
    Work,
    settings_for,
    settings_table,
    trained_layers,
)
from ssl2_bids.workflows.adaptation.twin.draw import twin_facts
from ssl2_bids.workflows.adaptation.twin.recalibrate import twin_uses
from ssl2_bids.workflows.adaptation.untrained import Adapted
from ssl2_bids.workflows.participant.derivatives import template_transform
from ssl2_bids.workflows.segmentation_files import read_result

log = logging.getLogger('ssl2_bids')


def write_adapted(work: Work, adapted: Adapted) -> Card:
    """Write model, tables and report facts; the card, which has the hash, comes last."""
    settings = work.adaptation.settings
    root, label = settings.output_dir, settings.label
    compared = scoring.compare_metrics(adapted.rows, seed=settings.random_seed)
    write_performance(root, adapted, compared)
    write_history(work)
    suggested = suggest_slices(work, adapted)
    if suggests(work):  # else earlier suggestions stay
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
    """``group_performance.tsv``, and its JSON with the comparison.

    An adaptation without labels has no scores: an earlier table stays.
    """
    path = root / output_name('group.performance')
    if not adapted.rows and path.is_file():
        return
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
        **training_facts(work, adapted),
        'Trainings': [
            {
                'Layers': layers,
                'Strategy': settings_for(work, layers).strategy,
                'Steps': work.training.steps,
            }
            for layers in trained_layers(work)
        ],
        'Trained': bool(work.histories),
        'Untrained': work.untrained,
        'Tested': any(row.fold != HOLDOUT for row in adapted.rows),
        'Rung': adapted.rung if adapted.decision.accepted else BUNDLED,
        'Rungs': rung_facts(work, adapted),
        'AskedRung': settings.rung,
        'Accept': settings.accept,
        'Recalibration': recalibrated_keys(work.adaptation.card, adapted),
        'WeightShare': adapted.share,
        'Device': work.device.partition(':')[0],
        'Slices': work.adaptation.on_slices,
        'Labelled': len(work.annotations),
        'Sessions': len(work.people),
        'HeldOut': sum(one.case.participant in work.held for one in work.labelled),
        'LeftOut': [{'name': name, 'reason': reason} for name, reason in work.left_out],
        'LabelNotes': [{'name': name, 'note': note} for name, note in work.adaptation.label_notes],
        'Performance': rows,
        'Curves': left_out_curves(work.histories),
        'Teacher': 'teacher' in strategies.find(work.training.strategy).extra,
        'Comparison': compared,
        'Annotate': annotate_rows(work, suggested),
        'AnnotateFigure': draw_suggestions(work, suggested),
        'Minutes': round(sum(h.seconds for h in work.histories.values()) / 60, 1),
        'Twin': twin_facts(work.twin) | twin_uses(work) | twin_files(work) if work.twin else None,
    }


def twin_files(work: Work) -> dict[str, str]:
    """The picture of site and twin, drawn here, and the protocol; paths in the output folder."""
    assert work.twin is not None
    settings, twins = work.adaptation.settings, work.twin.cases
    site = [one.case for one in work.people]
    shown = []
    for contrast in work.twin.twin.fitted:
        pair = [_first_readable(cases, contrast) for cases in (site, twins)]
        if pair[0] and pair[1]:
            shown.append(pictures.Beside(contrast, pair[0], pair[1]))
    name = output_name('group.twin_figure', desc=settings.label)
    path = settings.output_dir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures.draw_twin(shown, path)
    return {'Figure': name, 'Protocol': output_name('model.twin', desc=settings.label)}


def typical_first(cases: Sequence[Case], contrast: str) -> list[Case]:
    """Cases by the distance of their ratio of white to grey matter from the median."""
    found = {
        case.name: find_qualities(case.result.names).get(contrast, {}).get('wm2gm')
        for case in cases
    }
    ratios = {name: float(value) for name, value in found.items() if value is not None}
    middle = float(np.median(list(ratios.values()))) if ratios else 0.0
    return sorted(cases, key=lambda case: abs(ratios.get(case.name, math.inf) - middle))


def _first_readable(
    cases: Sequence[Case], contrast: str
) -> tuple[Volume, Volume, np.ndarray] | None:
    """Image, brain mask and transform from the template: of the most typical case with them."""
    for case in typical_first(cases, contrast):
        if contrast in case.images:
            try:
                return (
                    read_result(case.images[contrast], contrast=contrast),
                    read_result(case.brain_mask, dtype=np.uint8),
                    template_transform(case.result.names),
                )
            except DataError as error:
                log.warning('not shown beside the twin: %s', error)
    return None


def left_out_curves(histories: Mapping[str, History]) -> dict[str, list[list[float]]]:
    """By training, (step, Dice on the people left out of it)."""
    found = {
        name: [[row['step'], round(row[DICE], 4)] for row in history.rows if DICE in row]
        for name, history in histories.items()
    }
    return {name: points for name, points in found.items() if points}


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
