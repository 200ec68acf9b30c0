"""The configuration of a pretraining: a TOML file, checked key by key."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl2_bids.errors import UsageError
from ssl2_bids.networks.registry import NETWORKS
from ssl2_bids.synthesis.ranges import Randomisation
from ssl2_bids.tables import BESIDE, Source, check_keys, from_table, read_toml
from ssl2_bids.training.loop import LoopSettings

PRETEXTS = ('masked', 'tang')
FAST_UNET = {
    'Type': 'fast_unet',
    'OutputChannels': 1,
    'Channels': [24, 48, 96, 128],
    'FullResolutionChannels': 4,
}


@dataclass(frozen=True)
class Data:
    """What is trained on; paths are relative to the configuration.

    Attributes
    ----------
    label_maps : folders of brain label maps (NIfTI, FreeSurfer's numbering), one per person.
    healthy : BIDS datasets of people without lesions; lesions are painted on their T1w.
    lesion_masks : folder of lesion masks aligned to MNI152, all on one grid.
    heads : heads packed before, instead of these three.
    unlabelled : BIDS datasets; their labels, if any, are not looked at.
    labelled : BIDS datasets with lesion masks.
    labels : where these masks are, one for each of ``labelled`` (default: the dataset itself).
    hold_out : labels of people (also of label maps) that are kept out altogether.
    validation : labels of people that are packed apart and used for curves and threshold alone;
        those of label maps are the heads of validation (default: the last of all).
    real : share of real samples where there are simulated ones too.
    skull_strip : ``auto``, ``skip`` (brain only) or ``force``.
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
    """One of the two stages; the keys of ``loop`` stand beside the others in the file.

    Attributes
    ----------
    batch : samples per process and step.
    patch : voxels of 1 mm.
    pretext : of the self-supervised stage: ``masked`` or ``tang``.
    view : edge of the two views of ``tang``, within the patch.
    cross_entropy, focal_tversky : weights of these terms beside the Dice loss, of the supervised
        stage.
    frozen : share of the steps of that stage in which an encoder that was trained before rests.
    """

    loop: LoopSettings = field(default=LoopSettings(), metadata=BESIDE)
    batch: int = 2
    patch: tuple[int, int, int] = (96, 96, 96)
    pretext: str = 'masked'
    view: int = 64
    cross_entropy: float = 4.0
    focal_tversky: float = 0.3
    frozen: float = 0.05


@dataclass(frozen=True)
class Config:
    """All of a pretraining; ``steps = 0`` leaves a stage out.

    Attributes
    ----------
    name, version : of the model.
    network : as in a model's card, but for its channels.
    start : folder of a model to start from, else random weights.
    required : contrasts of which one is enough for the model.
    window, overlap : of validation and of the model's card.
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
    kind = config.network.get('Type')
    if kind not in NETWORKS:
        raise UsageError(
            f'the key "network.Type" is {kind!r}',
            advice=f'Known are: {", ".join(sorted(NETWORKS))}.',
        )
    parameters = ('Type', *NETWORKS[kind].parameters)
    where = f' to {kind}'
    check_keys(
        config.network, parameters, (), Source(error=UsageError), key='network', where=where
    )
    multiple = NETWORKS[kind].multiple(config.network)
    sizes = {'window': config.window}
    for name, stage in stages(config).items():
        _check_stage(name, stage)
        sizes[f'{name}.patch'] = stage.patch
        if stage.pretext == 'tang' and name == 'self_supervised':
            sizes[f'{name}.view'] = (stage.view,) * 3
    for name, size in sizes.items():
        if any(edge < 1 or edge % multiple for edge in size):
            raise UsageError(
                f'the key "{name}" is {" x ".join(map(str, size))}',
                advice=f'{kind} needs multiples of {multiple}.',
            )
    data = config.data
    for where, share in (('data.real', data.real), ('overlap', config.overlap)):
        if not 0 <= share < 1:
            raise UsageError(f'the key "{where}" is {share}', advice='Give 0 to below 1.')
    if data.labels and len(data.labels) != len(data.labelled):
        raise UsageError(
            f'"data.labels" has {len(data.labels)} folders, "data.labelled" {len(data.labelled)}',
            advice='Give one folder of labels for each dataset.',
        )
    if data.skull_strip not in ('auto', 'skip', 'force'):
        raise UsageError(
            f'the key "data.skull_strip" is {data.skull_strip!r}',
            advice='Give auto, skip or force.',
        )
    if not stages(config):
        raise UsageError('both stages have 0 steps', advice='Give one of them some.')


def _check_stage(name: str, stage: StageSettings) -> None:
    loop = stage.loop
    above_zero = ('learning_rate', 'clip', 'accumulate', 'echo', 'log_every')
    for key in above_zero:
        if not getattr(loop, key) > 0:
            raise UsageError(
                f'the key "{name}.{key}" is {getattr(loop, key)}', advice='Give more than 0.'
            )
    if stage.batch < 1:
        raise UsageError(f'the key "{name}.batch" is {stage.batch}', advice='Give 1 or more.')
    if stage.pretext not in PRETEXTS:
        raise UsageError(
            f'the key "{name}.pretext" is {stage.pretext!r}',
            advice=f'Give {" or ".join(PRETEXTS)}.',
        )
    if not 0 <= loop.average < 1 or not 0 <= loop.warm_up <= 1:
        raise UsageError(
            f'"{name}.average" is {loop.average}, "{name}.warm_up" {loop.warm_up}',
            advice='Both are shares: from 0, the first below 1.',
        )
    if stage.pretext == 'tang' and stage.view > min(stage.patch):
        raise UsageError(
            f'the key "{name}.view" is {stage.view}, larger than the patch',
            advice='Give a smaller edge, so that the two views differ.',
        )


def stages(config: Config) -> dict[str, StageSettings]:
    """The stages that have steps, in their order."""
    both = {'self_supervised': config.self_supervised, 'supervised': config.supervised}
    return {name: stage for name, stage in both.items() if stage.loop.steps > 0}
