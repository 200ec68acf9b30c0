"""The card of an adapted model: where it comes from, and what it was tested on."""

from __future__ import annotations

from typing import Any

from ssl2_bids import __version__
from ssl2_bids.bids.provenance import bids_uri, software_versions
from ssl2_bids.files import sha256
from ssl2_bids.networks.cards import Card
from ssl2_bids.settings import BUNDLED, RECALIBRATED
from ssl2_bids.training.adaptation.adapt import LAST
from ssl2_bids.training.adaptation.recalibration import Recalibration
from ssl2_bids.wording import counted
from ssl2_bids.workflows.adaptation import scores as scoring
from ssl2_bids.workflows.adaptation.plan import SLICES, label_links
from ssl2_bids.workflows.adaptation.run import HOLDOUT, layers_for
from ssl2_bids.workflows.adaptation.state import Work, settings_for
from ssl2_bids.workflows.adaptation.twin.draw import twin_facts
from ssl2_bids.workflows.adaptation.twin.recalibrate import twin_uses
from ssl2_bids.workflows.adaptation.untrained import Adapted

LEFT_BEHIND = (
    'Evaluation', 'Validation', 'Stages', 'Steps', 'BatchSize', 'Patch', 'Label',
    'Seed', 'Sha256', 'Twin', 'Recalibration',
)  # fmt: skip


def card_content(work: Work, adapted: Adapted, compared: dict[str, Any]) -> dict[str, Any]:
    """The card: the parent's, with what was done; of a refused model, the parent's network."""
    parent, settings = work.adaptation.card, work.adaptation.settings
    kept = {k: v for k, v in parent.content.items() if k not in LEFT_BEHIND}
    accepted = adapted.decision.accepted
    trained = [one for one in work.people if one.case.participant not in work.held]
    labelled = sum(one.case.name in work.annotations for one in trained)
    scans = counted(len(trained), 'scan')
    if parent.fitted_minimum_volume:
        kept['SiteMinimumLesionVolume'] = parent.fitted_minimum_volume
    data = str(parent.content.get('TrainedOn', 'see the parent model'))
    if adapted.share:
        if layers_for(adapted.rung) == LAST:
            scans = counted(labelled, 'scan')
        data += f'; then adapted to {scans} of a site, {labelled} of them labelled'
        if work.twin:
            uses = twin_uses(work)
            data += f', by {uses["Trained"]} simulated people of a scanner fitted to these scans'
            data += f', and recalibrated on {uses["Fitted"]} more' if uses['Fitted'] else ''
    elif accepted and work.twin and not labelled:
        data += (
            f'; then recalibrated on {len(work.twins)} simulated people of a scanner fitted to '
            f'{scans} of a site'
        )
    elif accepted:
        data += f'; then recalibrated on {counted(labelled, "labelled scan")} of a site'
        if work.twin:
            data += f' and {len(work.twins)} simulated people of a scanner fitted to its scans'
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
            **training_facts(work, adapted),
            'WeightShare': adapted.share,
            'Rungs': rung_facts(work, adapted),
            'Evidence': evidence_of(work, adapted),
            **({'Twin': twin_facts(work.twin) | twin_uses(work)} if work.twin else {}),
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


def training_facts(work: Work, adapted: Adapted) -> dict[str, Any]:
    """Strategy and steps of the training that the weights are of; none where it is no training."""
    if not adapted.share:
        return {'Strategy': 'none', 'Steps': 0}
    strategy = settings_for(work, layers_for(adapted.rung)).strategy
    return {'Strategy': strategy, 'Steps': work.training.steps}


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
        **({'SeenBefore': seen} if (seen := work.adaptation.card.adapted_to) else {}),
        'LeftOut': left_out if any(row.fold != HOLDOUT for row in adapted.rows) else 'nothing',
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
            **({'RefusedMove': found.refused} if found.refused is not None else {}),
            **({'LeastMove': found.least} if found.least is not None else {}),
        },
    }
    if parent.thresholds:
        keys['Thresholds'] = [
            {'Channels': sorted(channels), 'Threshold': round(found.threshold(value), 6)}
            for channels, value in parent.thresholds
        ]
    if found.minimum_volume is not None:
        keys['MinimumLesionVolume'] = keys['SiteMinimumLesionVolume'] = found.minimum_volume
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
