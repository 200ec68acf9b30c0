"""What a dry run prints of an adaptation."""

from __future__ import annotations

from pathlib import Path

from ssl2_bids.bids.outputs import output_name, sidecar_path
from ssl2_bids.networks.cards import CARD_FILE
from ssl2_bids.settings import HALF_WAY, RUNGS, UNTRAINED, WHOLE
from ssl2_bids.wording import counted
from ssl2_bids.workflows.adaptation.plan import Adaptation, note_on_existing

WITHOUT_LABELS = (HALF_WAY, WHOLE)


def describe(adaptation: Adaptation) -> list[str]:
    """What a dry run prints."""
    lines = [f'adapt  {adaptation.card.name} to {counted(len(adaptation.cases), "session")}']
    for case in adaptation.cases:
        for label in case.labels:
            held = ' (held out)' if case.participant in adaptation.settings.holdout else ''
            lines.append(f'label  {case.name}{held}: {label.path}')
    name, trains = adaptation.settings.label, adaptation.trains
    rungs = (RUNGS if adaptation.labelled else WITHOUT_LABELS) if trains else UNTRAINED
    lines.append(f'rungs  {adaptation.settings.rung or ", ".join(rungs)}')
    tables = [
        output_name('model.history', desc=name),
        output_name('model.splits', desc=name),
        output_name('group.performance'),
    ]
    if trains:
        tables.append(output_name('group.annotate'))
    names = [output_name('model.configuration', desc=name), output_name('model.report', desc=name)]
    names += [f'{adaptation.folder}/{CARD_FILE}', f'{adaptation.folder}/weights.safetensors']
    for table in tables:
        names += [table, sidecar_path(Path(table)).as_posix()]
    if trains:
        names.append(output_name('group.annotate_figure', desc=name))
    if adaptation.draws_twin:
        names += [output_name(key, desc=name) for key in ('model.twin', 'group.twin_figure')]
    if stands := note_on_existing(adaptation):
        lines.append(f'note  {stands}')
    return lines + [f'write  {name}' for name in names]
