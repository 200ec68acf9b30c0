"""What decides an adaptation: the settings of its trainings, and hashes of all that was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from ssl2_bids import __version__
from ssl2_bids.bids.provenance import configuration_hash
from ssl2_bids.settings import ADAPTATION
from ssl2_bids.training.adaptation.decision import RULE_OF_ONE

if TYPE_CHECKING:
    from ssl2_bids.training.adaptation.adapt import AdaptSettings
    from ssl2_bids.workflows.adaptation.plan import Adaptation


def training_settings(adaptation: Adaptation, device: str, *, unannotated: bool) -> AdaptSettings:
    """The preset of the device, with what was asked for instead."""
    from ssl2_bids.networks.registry import NETWORKS
    from ssl2_bids.training.adaptation.adapt import (
        PEER_CHANNELS,
        AdaptSettings,
        choose_strategy,
        patch_for,
    )

    settings, card = adaptation.settings, adaptation.card
    preset = ADAPTATION[device.partition(':')[0]]
    multiple = NETWORKS[card.network['Type']].multiple(card.network)
    if settings.strategy == 'cross_teach':
        multiple = max(multiple, 2 ** (len(PEER_CHANNELS) - 1))
    return AdaptSettings(
        strategy=settings.strategy
        or choose_strategy(len(adaptation.trained), unannotated=unannotated),
        steps=settings.steps or preset.steps,
        learning_rate=settings.learning_rate,
        patch=patch_for(card.window, multiple, preset.patch),
        labelled=preset.labelled,
        unlabelled=preset.unlabelled,
        seed=settings.random_seed,
    )


def configuration_of(adaptation: Adaptation, trainings: str) -> str:
    """A hash of all that decides the model, by that of its trainings."""
    settings = adaptation.settings
    return configuration_hash(
        {
            'trainings': trainings,
            'accept': settings.accept,
            'label': settings.label,
            'rung': settings.rung,
            'results': [case.result.sidecar.get('ConfigurationHash') for case in adaptation.cases],
            **({'rule': RULE_OF_ONE} if adaptation.on_slices else {}),
        }
    )


def trainings_of(
    adaptation: Adaptation,
    training: AdaptSettings,
    people: Mapping[str, str],
    minimum_volume: float,
) -> str:
    """A hash of all that decides what is trained: scans, labels, start, options, version.

    Not of what is made of it: a model that was refused can be taken after all, or under another
    name, and nothing is trained again.

    Parameters
    ----------
    people : by name of the case, the hash of its images and of its label.
    minimum_volume : mm^3, of lesions that are counted in the scores.
    """
    settings = adaptation.settings
    return configuration_hash(
        {
            'version': __version__,
            'parent': adaptation.card.identity,
            'training': asdict(training),
            'max_minutes': settings.max_minutes,
            # the steps that fit into a time depend on what else is trained
            'rung': settings.rung if settings.max_minutes else None,
            'folds': settings.folds,
            'holdout': settings.holdout,
            'empty_labels': settings.empty_labels,
            'people': dict(people),
            'minimum_volume': minimum_volume,
        }
    )
