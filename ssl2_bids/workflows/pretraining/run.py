"""Pretraining from a configuration to a model folder: dataset, two stages, threshold, card."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ssl2_bids.errors import NoInputError, UsageError, about
from ssl2_bids.networks.registry import NETWORKS, NOT_BUILT, new_network
from ssl2_bids.networks.weights import read_card, read_weights
from ssl2_bids.progress import NameProgress, StageProgress
from ssl2_bids.synthesis.appearance import CHANNELS
from ssl2_bids.training import checkpoint, distributed
from ssl2_bids.training.data.participants import Participant
from ssl2_bids.training.loop import check_resumable, curve_settings, train
from ssl2_bids.training.pretraining.batches import LabelledBatches, UnlabelledBatches
from ssl2_bids.training.pretraining.config import Config, StageSettings, read_config, stages
from ssl2_bids.training.pretraining.pretext.masked import HeldOut, MaskedAutoencoding, Unlabelled
from ssl2_bids.training.pretraining.pretext.tang import Tang
from ssl2_bids.training.pretraining.tasks import (
    DEFAULT_THRESHOLD,
    SupervisedStage,
    start_from,
)
from ssl2_bids.training.run import History, Task, Validate
from ssl2_bids.workflows.pretraining.kept_config import keep_config
from ssl2_bids.workflows.pretraining.model import (
    conclude,
    has_validation,
    whole_validation,
    write_start,
)
from ssl2_bids.workflows.pretraining.pack import pack
from ssl2_bids.workflows.pretraining.prepared import Packed, load_packed, plain

log = logging.getLogger('ssl2_bids')

PACKED = 'packed'
HELD_OUT_BATCHES = 8  # of the self-supervised stage's validation
HELD_OUT_SEED = 1_000_003  # added to the seed: validation sees none of the training's samples


@dataclass(frozen=True)
class Pretrained:
    """How a pretraining ended.

    Attributes
    ----------
    folder : of the model, if ``finished``; else a signal ended the run, and it can be resumed.
        Without a supervised stage the model is a start for other trainings alone.
    stopped : number of that signal.
    """

    folder: Path
    finished: bool
    stopped: int = 0


def pack_data(path: Path, folder: Path, *, progress: NameProgress | None = None) -> Path:
    """Pack the data of a configuration and return their folder.

    Raises
    ------
    Ssl2Error : as :func:`read_config` and :func:`ssl2_bids.workflows.pretraining.pack.pack`.
    """
    place, config = folder / PACKED, read_config(path)
    check_network(replace(config, start=None))  # that may be on the machine that trains
    pack(config, place, progress=progress)
    return place


def pretrain(
    path: Path,
    folder: Path,
    *,
    device: str = 'cpu',
    data: Path | None = None,
    progress: StageProgress | None = None,
    preparing: NameProgress | None = None,
) -> Pretrained:
    """Pretrain a model; an interrupted run resumes.

    Writes into ``folder`` the model (``model.json``, ``weights.safetensors``), ``config.toml``,
    ``curves.csv`` and ``curves.svg``, and the checkpoints of each stage into a folder of its own.

    Parameters
    ----------
    path : the configuration.
    data : folder of a prepared dataset; else the dataset is prepared in ``folder/packed``.
    device : ``cpu`` or ``cuda:N``; with torchrun each process takes its own GPU.
    progress : called with the stage, the steps done, all steps and the latest numbers.
    preparing : called with each session prepared.

    Raises
    ------
    Ssl2Error : as :func:`read_config`, :func:`ssl2_bids.workflows.pretraining.pack.pack` and
        :func:`ssl2_bids.training.loop.train`.
    """
    config = read_config(path)
    check_network(config)
    with distributed.group(device) as device:
        first = distributed.rank() == 0
        if first and data is None:
            folder.mkdir(parents=True, exist_ok=True)
            pack(config, folder / PACKED, progress=preparing)
        distributed.wait_for_all()
        packed = load_packed(data or folder / PACKED)
        check_people(config, packed, data or folder / PACKED)
        check_data(config, packed, folder)
        if first:
            check_checkpoints(config, packed, folder)
            if 'supervised' in stages(config) and not has_validation(packed):
                log.warning(
                    'no head and no labelled scan is left for validation: the threshold is not '
                    'fitted, it is %g',
                    DEFAULT_THRESHOLD,
                )
            folder.mkdir(parents=True, exist_ok=True)
            keep_config(path, folder)
        network, histories = None, {}
        for name in stages(config):
            if is_passed(name, config, folder):
                histories[name] = History(step=stages(config)[name].loop.steps, finished=True)
                continue
            stage = run_stage(name, config, packed, folder, network, device, progress)
            if stage.history.stopped:
                return Pretrained(folder, False, stage.history.stopped)
            network, histories[name] = stage.network, stage.history
            if first and name == 'self_supervised':
                write_start(config, packed, folder / name, network, stage.history)
        if first and network is not None:
            conclude(config, packed, folder, network, histories, device)
        distributed.wait_for_all()
    alone = 'supervised' not in stages(config)
    return Pretrained(folder / 'self_supervised' if alone else folder, True)


def is_passed(name: str, config: Config, folder: Path) -> bool:
    """Whether a stage left nothing here but a later one did: the run moved from elsewhere."""
    later = list(stages(config))[list(stages(config)).index(name) + 1 :]
    moved = any(checkpoint.checkpoints(folder / one) for one in later)
    return moved and not checkpoint.checkpoints(folder / name)


def check_network(config: Config) -> None:
    """Check that the network can be built and run, before the work of an hour.

    Raises
    ------
    UsageError : naming the key or the table.
    """
    network = new(config, 1, None).train()
    edge = 2 * NETWORKS[config.network['Type']].multiple(config.network)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            network(torch.zeros(1, len(CHANNELS), edge, edge, edge))
    except NOT_BUILT as error:
        raise _no_network(error) from None


def check_people(config: Config, packed: Packed, place: Path) -> None:
    """Check that a prepared dataset leaves out whom the configuration leaves out.

    Raises
    ------
    UsageError : naming the participants.
    """
    train = {plain(head.name) for head in packed.heads} | {_subject(s) for s in packed.scans}
    held = {plain(head.name) for head in packed.validation_heads}
    held |= {_subject(scan) for scan in packed.validation_scans}
    for key, found in (('hold_out', train | held), ('validation', train)):
        wrong = sorted({plain(label) for label in getattr(config.data, key)} & found)
        if wrong:
            among = 'in it' if key == 'hold_out' else 'among those that are trained on'
            raise UsageError(
                f'"data.{key}" names {", ".join(wrong)}, but the prepared dataset has these '
                f'participants {among}',
                advice='Prepare it again with this configuration (--pack).',
                path=place,
            )


def check_data(config: Config, packed: Packed, folder: Path) -> None:
    """Check that there is something to learn from for each stage that runs, before the first.

    Raises
    ------
    NoInputError : there is not.
    """
    annotated = any(_is_annotated(scan) for scan in packed.labelled)
    there = {'self_supervised': bool(packed.scans), 'supervised': annotated}
    for name in stages(config):
        if not packed.heads and not there[name] and not is_passed(name, config, folder):
            raise NoInputError(
                f'there are no training data for the {name.replace("_", "-")} stage',
                advice='Name label_maps, healthy or heads, or datasets of scans (for the '
                'supervised stage with labels), in "data", and leave some of their participants '
                'out of "hold_out" and "validation".',
            )


def _is_annotated(scan: Participant) -> bool:
    """Whether lesions were looked for in any voxel of the brain."""
    return scan.annotated is not None and bool((scan.annotated & scan.brain).any())


def _subject(scan: Participant) -> str:
    """The participant of a prepared scan, whose person is named ``00-sub-X``."""
    return plain(scan.person.split('-', 1)[-1])


def check_checkpoints(config: Config, packed: Packed, folder: Path) -> None:
    """Check that the checkpoints in a folder are of this configuration, before it changes.

    Raises
    ------
    UsageError : a stage was started with another one.
    """
    for name, stage in stages(config).items():
        loop = replace(stage.loop, seed=config.seed)
        check_resumable(loop, folder / name, identity_of(name, config, packed))


@dataclass(frozen=True)
class Ready:
    """What a stage came to."""

    network: nn.Module
    history: History


def run_stage(
    name: str,
    config: Config,
    packed: Packed,
    folder: Path,
    network: nn.Module | None,
    device: str,
    progress: StageProgress | None,
) -> Ready:
    """One stage, from the network of the one before if there was one."""
    stage = stages(config)[name]
    make = self_supervised_stage if name == 'self_supervised' else supervised_stage
    task, batches, validate = make(config, stage, packed, network, device)
    history = train(
        task,
        batches,
        replace(stage.loop, seed=config.seed),
        folder / name,
        device=device,
        validate=validate,
        progress=progress and (lambda done, steps, latest: progress(name, done, steps, latest)),
        identity=identity_of(name, config, packed),
    )
    return Ready(task.predictor(), history)


def identity_of(name: str, config: Config, packed: Packed) -> str:
    """What a stage must have in common with its checkpoints: settings, data, and its start."""
    stage = stages(config)[name]
    start = read_card(config.start).identity if config.start is not None else None
    parts: list[Any] = [_settings(stage), config.network, config.seed, start]
    parts += [asdict(config.randomisation), packed.names(), config.data.real]
    if name == 'supervised' and 'self_supervised' in stages(config):
        before = config.self_supervised
        parts += [_settings(before), curve_settings(before.loop)]
    return checkpoint.fingerprint(parts)


def _settings(stage: StageSettings) -> dict[str, Any]:
    return {key: value for key, value in asdict(stage).items() if key != 'loop'}


def new(config: Config, outputs: int, network: nn.Module | None) -> nn.Module:
    """A network, started from the stage before, from the model in ``start``, or at random.

    Raises
    ------
    UsageError : the configuration describes no network that can be built.
    UnavailableError : the weights to start from do not fit it.
    """
    described = {'InputChannels': len(CHANNELS), **config.network, 'OutputChannels': outputs}
    try:
        made = new_network(described, seed=config.seed)
    except NOT_BUILT as error:
        raise _no_network(error) from None
    if network is not None:
        start_from(made, network.state_dict())
    elif config.start is not None:
        with about(config.start):
            start_from(made, read_weights(read_card(config.start)))
    return made


def _no_network(error: Exception) -> UsageError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UsageError(
        f'the table "network" describes no network that can be built ({reason})',
        advice='Compare its keys with docs/reference/training-configuration.md.',
    )


def source_settings(
    config: Config, stage: StageSettings, packed: Packed, device: str, *, validation: bool = False
) -> dict[str, Any]:
    """The arguments of batches; engine and scans work on the device unless workers make them."""
    there = 'cpu' if stage.loop.workers else device
    return {
        'heads': packed.validation_heads if validation else packed.heads,
        'scans': packed.validation_scans if validation else packed.scans,
        'randomisation': config.randomisation,
        'batch': stage.batch,
        'patch': stage.patch,
        'seed': config.seed + (HELD_OUT_SEED if validation else 0),
        'real': config.data.real,
        'rank': 0 if validation else distributed.rank(),
        'device': 'cpu' if validation else there,
    }


def self_supervised_stage(
    config: Config, stage: StageSettings, packed: Packed, network: nn.Module | None, device: str
) -> tuple[Task, UnlabelledBatches, Validate | None]:
    """Task, batches and validation of the first stage."""
    made = new(config, len(CHANNELS), network)
    batches = UnlabelledBatches(**source_settings(config, stage, packed, device))
    held_out: list[Unlabelled] = []
    apart = UnlabelledBatches(**source_settings(config, stage, packed, device, validation=True))
    if apart.heads or apart.scans:
        held_out = [apart[number] for number in range(HELD_OUT_BATCHES)]
    if stage.pretext == 'tang':
        tang = Tang(made, channels=len(CHANNELS), view=stage.view, seed=config.seed)
        return tang, batches, tang.validation(held_out, device) if held_out else None
    task = MaskedAutoencoding(made, seed=config.seed)
    return task, batches, HeldOut(held_out, device) if held_out else None


def supervised_stage(
    config: Config, stage: StageSettings, packed: Packed, network: nn.Module | None, device: str
) -> tuple[Task, LabelledBatches, Validate | None]:
    """Task, batches and validation of the second stage."""
    made = new(config, 1, network)
    settings = source_settings(config, stage, packed, device)
    batches = LabelledBatches(**{**settings, 'scans': packed.labelled})
    pretrained = 'self_supervised' in stages(config) or config.start is not None
    frozen = round(stage.frozen * stage.loop.steps) if pretrained else 0
    task = SupervisedStage(
        made,
        cross_entropy=stage.cross_entropy,
        focal_tversky=stage.focal_tversky,
        lesion_cross_entropy=stage.lesion_cross_entropy,
        frozen=frozen,
    )
    return task, batches, whole_validation(config, packed, device)
