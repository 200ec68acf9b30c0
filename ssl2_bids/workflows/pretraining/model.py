"""What a pretraining leaves: the threshold, the model with its card, the curves."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ssl2_bids.files import write_text
from ssl2_bids.networks.architectures.committee import Committee
from ssl2_bids.networks.cards import IMAGE, LESION
from ssl2_bids.networks.weights import read_card, write_model
from ssl2_bids.reports.figures.curves import curves_svg
from ssl2_bids.settings import MINIMUM_LESION_VOLUME
from ssl2_bids.synthesis.appearance import CHANNELS
from ssl2_bids.synthesis.heads import Head
from ssl2_bids.training import distributed
from ssl2_bids.training.data.participants import NORMALISATION, Participant
from ssl2_bids.training.pretraining.calibration import calibrate_members
from ssl2_bids.training.pretraining.config import Config, stages
from ssl2_bids.training.pretraining.tasks import (
    DEFAULT_THRESHOLD,
    WholeVolumes,
    choose_threshold,
    has_lesion,
    whole_heads,
    whole_scans,
)
from ssl2_bids.training.run import CURVES, History, as_csv
from ssl2_bids.wording import counted
from ssl2_bids.workflows.pretraining.prepared import Packed, labelled_only

log = logging.getLogger('ssl2_bids')

FIGURE = 'curves.svg'
TIMING = ('seconds', 'waited')


def has_validation(packed: Packed) -> bool:
    """Whether there is something for the curve and the threshold of the supervised stage."""
    return bool(packed.validation_heads or labelled_only(packed.validation_scans))


def whole_validation(config: Config, packed: Packed, device: str) -> WholeVolumes | None:
    """The labelled scans of validation and one simulated scan of each of its heads, or None.

    Where no labelled scan has a lesion, the threshold depends on the simulated ones alone: they
    have lesions.
    """
    heads = packed.validation_heads
    labelled = labelled_only(packed.validation_scans)
    if not has_validation(packed):
        return None
    if distributed.rank() > 0:
        return WholeVolumes((), config.window)
    volumes = whole_scans(labelled)
    alone = not any(map(has_lesion, volumes))
    volumes += whole_heads(
        heads, config.randomisation, seed=config.seed, device=device, lesions=alone
    )
    return WholeVolumes(volumes, config.window, overlap=config.overlap, device=device)


def conclude(
    config: Config,
    packed: Packed,
    folder: Path,
    network: nn.Module,
    histories: Mapping[str, History],
    device: str,
) -> None:
    """Calibrate members, choose the threshold, write the model, its curves and their figure."""
    write_text(folder / CURVES, all_curves(histories))
    write_text(folder / FIGURE, figure(config, histories))
    if 'supervised' not in histories:
        return
    threshold = DEFAULT_THRESHOLD
    scores: dict[str, float] = {}
    without = 0
    validation = whole_validation(config, packed, device)
    if validation is not None:
        calibrate(network.eval(), validation)
        validation(network)
        threshold, scores = choose_threshold(validation.probabilities, validation.volumes)
        if not scores:
            log.warning(
                'no scan of validation has a lesion: the threshold is not fitted, it is %g',
                threshold,
            )
        without = sum(not has_lesion(volume) for volume in validation.volumes)
    content = card_content(config, packed, histories, threshold, scores)
    if scores and without:
        content['Validation']['Data'] += f'; {counted(without, "scan")} without a lesion left out'
    write_model(folder, network, content)


def calibrate(network: nn.Module, validation: WholeVolumes) -> None:
    """Set the calibration of a committee's members by the scans of validation."""
    if not isinstance(network, Committee) or not validation.volumes:
        return
    probabilities = []
    for member in network.members:
        validation(member)
        probabilities.append(validation.probabilities)
    found = calibrate_members(probabilities, validation.volumes)
    network.calibration.copy_(torch.tensor(found))


def all_curves(histories: Mapping[str, History]) -> str:
    """The curves of all stages as one table; its first column numbers the stages from 1."""
    rows = [
        {'stage': number, **row}
        for number, history in enumerate(histories.values(), start=1)
        for row in history.rows
    ]
    return as_csv(rows)


def figure(config: Config, histories: Mapping[str, History]) -> str:
    """The curves of all stages."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for name, history in histories.items():
        for row in history.rows:
            for key, value in row.items():
                if key not in ('step', *TIMING):
                    label = f'{name.replace("_", "-")}: {key.replace("_", " ")}'
                    curves.setdefault(label, []).append((row['step'], value))
    return curves_svg(curves, title=f'Curves of the training of {config.name}')


def write_start(
    config: Config, packed: Packed, folder: Path, network: nn.Module, history: History
) -> None:
    """Write what the first stage came to, as a model to start from: it marks no lesions."""
    content = card_content(config, packed, {'self_supervised': history}, DEFAULT_THRESHOLD, {})
    content['Network']['OutputChannels'] = len(CHANNELS)
    seen = _start_data(config) + trained_on(packed, labels=False)
    write_model(folder, network, content | {'Output': IMAGE, 'TrainedOn': seen})


def card_content(
    config: Config,
    packed: Packed,
    histories: Mapping[str, History],
    threshold: float,
    scores: Mapping[str, float],
) -> dict[str, Any]:
    """The card of the model, but for its hash."""
    network = {'InputChannels': len(CHANNELS), **config.network, 'OutputChannels': 1}
    content: dict[str, Any] = {
        'Name': config.name,
        'Version': config.version,
        'Network': network,
        'Channels': list(CHANNELS),
        'Required': [[contrast] for contrast in config.required],
        'Absent': 'all-zero channel',
        'Orientation': 'RAS',
        'VoxelSize': [1.0, 1.0, 1.0],
        'Normalisation': dict(NORMALISATION),
        'SkullStripped': True,
        'Output': LESION,
        'Threshold': threshold,
        'MinimumLesionVolume': MINIMUM_LESION_VOLUME,
        'Window': list(config.window),
        'Overlap': config.overlap,
        'TrainedOn': _start_data(config)
        + trained_on(packed, unlabelled='self_supervised' in stages(config)),
        'Seed': config.seed,
        'Stages': {
            name: training_of(config, name, history) for name, history in histories.items()
        },
        'Use': 'research only',
    }
    if scores:
        content['Validation'] = {
            'Data': validated_on(packed),
            'Threshold': 'selected on the same scans',
            'LesionRule': 'MSSEG',
            **{name: round(value, 4) for name, value in scores.items()},
        }
    return content | ({'License': config.licence} if config.licence else {})


def _start_data(config: Config) -> str:
    """What the model that the training begins from was trained on, if it begins from one."""
    if not config.start:
        return ''
    card = read_card(config.start)
    return f'{card.content.get("TrainedOn", f"the data of {card.name}")}; then '


def trained_on(packed: Packed, *, labels: bool = True, unlabelled: bool = True) -> str:
    """The data in a sentence; simulated and real are separate.

    Parameters
    ----------
    labels : whether they were looked at.
    unlabelled : whether a stage saw scans without labels.
    """
    parts = []
    if packed.heads:
        real = people_of([head for head in packed.heads if head.t1w is not None])
        more = f' ({real} with their real T1w scan)' if real else ''
        parts.append(
            f'images simulated on the anatomy of {_people(packed.heads)}{more} with '
            'painted lesions'
        )
    used = packed.labelled if labels else ()
    without = [scan for scan in packed.scans if unlabelled and scan not in used]
    parts += count_scans(without, 'without labels') + count_scans(used, 'with labels')
    return '; '.join(parts)


def training_of(config: Config, name: str, history: History) -> dict[str, Any]:
    """The entry of a card on a stage."""
    stage = stages(config)[name]
    content: dict[str, Any] = {
        'Steps': history.step,
        'BatchSize': stage.batch,
        'Patch': list(stage.patch),
        'LearningRate': stage.loop.learning_rate,
    }
    return content | ({'Pretext': stage.pretext} if name == 'self_supervised' else {})


def validated_on(packed: Packed) -> str:
    """The data of validation in a sentence."""
    parts = count_scans(labelled_only(packed.validation_scans), 'with labels, not trained on')
    if heads := packed.validation_heads:
        several = len(heads) > people_of(heads)
        scans = f'{len(heads)} simulated scans' if several else 'one simulated scan each'
        parts.append(f'{scans} on the anatomy of {_people(heads)} not trained on')
    return '; '.join(parts)


def people_of(heads: Sequence[Head]) -> int:
    """How many people heads are of: one per name, apart for label maps and for T1w scans."""
    return len({(head.name, head.t1w is None) for head in heads})


def _people(heads: Sequence[Head]) -> str:
    return counted(people_of(heads), 'person', 'people')


def count_scans(scans: Sequence[Participant], text: str) -> list[str]:
    """How many scans there are, simulated and real ones apart."""
    simulated = sum(scan.simulated for scan in scans)
    kinds = (('simulated', simulated), ('real', len(scans) - simulated))
    return [f'{counted(number, f"{kind} scan")} {text}' for kind, number in kinds if number]
