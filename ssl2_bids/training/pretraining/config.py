"""The configuration of a pretraining: a TOML file, checked key by key."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl2_bids.errors import UsageError
from ssl2_bids.networks.registry import NETWORKS
from ssl2_bids.synthesis.appearance import CHANNELS
from ssl2_bids.synthesis.ranges import Randomisation
from ssl2_bids.tables import BESIDE, Source, check_keys, from_table, read_toml
from ssl2_bids.training.loop import LoopSettings
from ssl2_bids.training.pretraining.limits import check_values

MIN_PATCH = 16  # voxels; the widest filter of the engine reaches 6 to either side
FAST_UNET = {
    'Type': 'fast_unet',
    'OutputChannels': 1,
    'Channels': [24, 48, 96, 128],
    'FullResolutionChannels': 4,
}


@dataclass(frozen=True)
class Data:
    """What is trained on.

    Attributes
    ----------
    label_maps : folders of whole-brain label maps (NIfTI, FreeSurfer's numbering), one per person.
    healthy : BIDS datasets of people without lesions; lesions are painted into the T1w, and the
        other contrasts are simulated from the tissues of the T1w.
    lesion_masks : folder of real lesion masks aligned to MNI152, all on one grid, for their
        shapes.
    heads : file of prepared heads, instead of these three.
    unlabelled : BIDS datasets for the first stage; their labels, if any, are not used.
    labelled : BIDS datasets with lesion masks.
    labels : folders of these masks, one for each of ``labelled``; without it, the dataset itself.
    hold_out : participants, also of label maps and lesion masks, that are in neither stage; names
        as in the files (``sub-X`` or ``X``).
    validation : participants for the curves and the threshold only; those of label maps are the
        heads of the validation; without it, the person of the last head, if there are others.
        Their masks in ``lesion_masks`` are still used: move these files out of that folder.
    real : share of real samples, if simulated samples exist too.
    skull_strip : ``auto``, ``skip`` (all images show the brain only) or ``force``.
    """

    label_maps: tuple[Path, ...] = ()
    healthy: tuple[Path, ...] = ()
    lesion_masks: Path | None = None
    heads: Path | None = None
    unlabelled: tuple[Path, ...] = ()
    labelled: tuple[Path, ...] = ()
    labels: tuple[Path, ...] = ()
    hold_out: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    real: float = 0.5
    skull_strip: str = 'auto'


@dataclass(frozen=True)
class StageSettings:
    """The two stages; ``steps = 0`` leaves one of them out.

    Attributes
    ----------
    loop : its keys stand beside the others in the file.
    batch : samples per process and step.
    patch : size of a sample, 16 or more along each axis [voxels of 1 mm].
    pretext : task of the self-supervised stage, ``masked`` or ``tang``.
    view : edge of the two views of ``tang``, within the patch and more than half of it, so that
        they overlap [voxels of 1 mm].
    cross_entropy, focal_tversky : of the supervised stage, weight of this term beside the Dice
        loss.
    lesion_cross_entropy : of the supervised stage, weight of a cross-entropy in which each lesion
        counts the same, whatever its volume, and as much as the background (inverse weighting,
        Shirokikh et al., arXiv 2007.10033); 0 for none.
    frozen : of the supervised stage, share of the steps with a frozen pretrained encoder.
    """

    loop: LoopSettings = field(default=LoopSettings(), metadata=BESIDE)
    batch: int = 2
    patch: tuple[int, int, int] = (96, 96, 96)
    pretext: str = 'masked'
    view: int = 64
    cross_entropy: float = 4.0
    focal_tversky: float = 0.3
    lesion_cross_entropy: float = 0.0
    frozen: float = 0.05


@dataclass(frozen=True)
class Config:
    """All of a pretraining.

    Attributes
    ----------
    name, version, licence : of the model, in its card.
    seed : of weights, samples and masks.
    network : ``Type`` and its parameters, as in a card; the channels are those of the training. A
        ``committee`` has a table ``[[network.Members]]`` for each member, trained in parallel on
        the same samples.
    start : model folder to start from; without it, random weights.
    required : contrasts of which one is enough for the model.
    window : sliding window of the validation and of the card [voxels of 1 mm].
    overlap : overlap of neighbouring windows, share of the window.
    data, randomisation, self_supervised, supervised : the sections of these names.
    """

    name: str = 'pretrained-3t'
    version: str = '0.1.0'
    seed: int = 0
    network: dict[str, Any] = field(default_factory=lambda: dict(FAST_UNET))
    start: Path | None = None
    required: tuple[str, ...] = ('FLAIR', 'T1w')
    window: tuple[int, int, int] = (96, 96, 96)
    overlap: float = 0.25
    licence: str = ''
    data: Data = Data()
    randomisation: Randomisation = Randomisation()
    self_supervised: StageSettings = StageSettings(loop=LoopSettings(learning_rate=4e-4))
    supervised: StageSettings = StageSettings()


def read_config(path: Path) -> Config:
    """Read and check a configuration.

    Raises
    ------
    NoInputError : there is no such file.
    UsageError : not TOML; a key that is unknown, of another type, or an impossible value.
    """
    table = read_toml(path, 'configuration', UsageError)
    source = Source(path, UsageError, folder=path.parent)
    config = from_table(Config, table, source, default=Config())
    try:
        check(config)
    except UsageError as error:
        raise source.fault(error.message, error.advice) from None
    return config


def check(config: Config) -> None:
    """Check that the values are possible and agree.

    Raises
    ------
    UsageError : naming the key.
    """
    check_values(config)
    check_values(config.data, 'data.')
    check_values(config.randomisation, 'randomisation.')
    if config.randomisation.faintest > config.randomisation.brightest:
        raise UsageError(
            '"randomisation.faintest" is larger than "randomisation.brightest"',
            advice='Exchange them.',
        )
    if not config.required or not set(config.required) <= set(CHANNELS):
        raise UsageError(
            f'the key "required" is {list(config.required)}',
            advice=f'Name one or more of {", ".join(CHANNELS)}.',
        )
    kind = config.network.get('Type')
    if not isinstance(kind, str) or kind not in NETWORKS:
        raise UsageError(
            f'the key "network.Type" is {kind!r}',
            advice=f'Known are: {", ".join(sorted(NETWORKS))}.',
        )
    parameters = ('Type', *NETWORKS[kind].parameters)
    where = f' to {kind}'
    check_keys(
        config.network, parameters, (), Source(error=UsageError), key='network', where=where
    )
    try:
        multiple = NETWORKS[kind].multiple(config.network)
    except (ValueError, TypeError, LookupError) as error:
        raise UsageError(
            f'the table "network" is not a valid network ({error})',
            advice='Give each member its "Type" and the parameters of that type.',
        ) from None
    inputs = config.network.get('InputChannels', len(CHANNELS))
    if inputs != len(CHANNELS):
        raise UsageError(
            f'the key "network.InputChannels" is {inputs!r}',
            advice=f'Leave it out: the training has {len(CHANNELS)} channels.',
        )
    sizes = {'window': config.window}
    for name in ('self_supervised', 'supervised'):
        _check_stage(name, getattr(config, name))
    for name, stage in stages(config).items():
        sizes[f'{name}.patch'] = stage.patch
        if stage.pretext == 'tang' and name == 'self_supervised':
            sizes[f'{name}.view'] = (stage.view,) * 3
            if kind == 'committee':
                raise UsageError(
                    f'"{name}.pretext" is "tang": it trains one encoder, a committee has several',
                    advice='Give pretext = "masked", or train the members one by one.',
                )
    for name, size in sizes.items():
        if any(edge < 1 or edge % multiple for edge in size):
            raise UsageError(
                f'the key "{name}" is {" x ".join(map(str, size))}',
                advice=f'{kind} needs multiples of {multiple}.',
            )
        if all(edge == multiple for edge in size):
            raise UsageError(
                f'the key "{name}" is {" x ".join(map(str, size))}, and too small',
                advice=f'At its coarsest {kind} would see one voxel: give a larger one.',
            )
    for name, stage in stages(config).items():
        if min(stage.patch) < MIN_PATCH:
            raise UsageError(
                f'the key "{name}.patch" is {" x ".join(map(str, stage.patch))}',
                advice=f'Give {MIN_PATCH} voxels or more along each axis: the training engine '
                'blurs over several voxels.',
            )
    data = config.data
    if both := {one.removeprefix('sub-') for one in data.hold_out} & {
        one.removeprefix('sub-') for one in data.validation
    }:
        raise UsageError(
            f'"data.hold_out" and "data.validation" both name {", ".join(sorted(both))}',
            advice='Leave these participants out of one of both.',
        )
    if data.labels and len(data.labels) != len(data.labelled):
        raise UsageError(
            f'"data.labels" has {len(data.labels)} folders, "data.labelled" {len(data.labelled)}',
            advice='Give one folder of labels for each dataset.',
        )
    if not stages(config):
        raise UsageError('both stages have 0 steps', advice='Give one of them some.')


def _check_stage(name: str, stage: StageSettings) -> None:
    check_values(stage.loop, f'{name}.')
    check_values(stage, f'{name}.')
    active = name == 'self_supervised' and stage.loop.steps > 0
    if active and stage.pretext == 'tang' and stage.view > min(stage.patch):
        raise UsageError(
            f'the key "{name}.view" is {stage.view}, larger than the patch',
            advice='Give a smaller edge, so that the two views differ.',
        )
    if active and stage.pretext == 'tang' and 2 * stage.view <= max(stage.patch):
        raise UsageError(
            f'the key "{name}.view" is {stage.view}, half of "{name}.patch" at most '
            f'({" x ".join(map(str, stage.patch))}): two views can have no voxel in common',
            advice='Give a larger view or a smaller patch.',
        )


def stages(config: Config) -> dict[str, StageSettings]:
    """The stages that have steps, in their order."""
    both = {'self_supervised': config.self_supervised, 'supervised': config.supervised}
    return {name: stage for name, stage in both.items() if stage.loop.steps > 0}
