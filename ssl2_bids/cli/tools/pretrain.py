"""``ssl2 pretrain``: options, progress, exit code."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ssl2_bids.cli import values
from ssl2_bids.errors import SUCCESS, UsageError
from ssl2_bids.progress import StageProgress

DESCRIPTION = """\
Pretrain a network: self-supervised on unlabelled 3T scans and simulated ones, then supervised on
simulated lesions and labelled scans. Writes a model folder for ssl2-bids --model FOLDER.

CONFIG is a TOML file; its keys are those of docs/reference/training-configuration.md. Ctrl-C,
SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 and SIGXCPU save the state and end the run; the same command
resumes the training, on the same curve."""

EPILOG = """\
example:
  ssl2 pretrain pretrain.toml out
  torchrun --nproc-per-node 4 --no-python ssl2 pretrain pretrain.toml out --device cuda

on a machine without imaging software:
  ssl2 pretrain pretrain.toml out --pack        prepare the data in out/packed
  ssl2 pretrain pretrain.toml new --data packed   train on a copy of that folder

exit codes: 0 done; 18 a participant is unknown; 64 wrong usage or configuration; 65 unusable
data, or the loss is not a number; 66 missing input; 69 device not available; 73 cannot write; 74
disk full; 129, 130, 138, 140, 143, 152 interrupted by a signal, state saved"""
LINE_INTERVAL = 30.0  # s between lines where there is no terminal


def add_pretrain(subparsers: argparse._SubParsersAction) -> None:
    """The options of ``ssl2 pretrain``."""
    parser = subparsers.add_parser(
        'pretrain',
        help='train a network on simulated and real 3T scans',
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument('config', type=Path, metavar='CONFIG', help='TOML file')
    parser.add_argument('output', type=Path, metavar='OUT', help='folder of the new model')
    parser.add_argument(
        '--device',
        type=values.device,
        default='auto',
        metavar='DEVICE',
        help='auto, cpu, cuda or cuda:N (default: auto)',
    )
    parser.add_argument(
        '--data', type=Path, metavar='PACKED', help='prepared dataset (default: OUT/packed)'
    )
    parser.add_argument(
        '--pack', action='store_true', help='prepare the dataset in OUT/packed without training'
    )
    parser.set_defaults(run=run_pretrain)


def run_pretrain(args: argparse.Namespace) -> int:
    """Run ``ssl2 pretrain`` and return its exit code."""
    from ssl2_bids.device import choose_device
    from ssl2_bids.workflows.pretraining import run as workflow

    logging.basicConfig(format='ssl2: %(message)s', level=logging.WARNING)
    logging.getLogger('ssl2_bids').setLevel(logging.INFO)
    if args.pack and args.data:
        raise UsageError(
            '--pack prepares the data of the configuration; --data names data that are prepared',
            advice='Give one of both.',
        )
    if args.pack:
        place = workflow.pack_data(args.config, args.output, progress=_show_prepared)
        _show(f'prepared dataset: {place}')
        return SUCCESS
    with progress_display() as progress:
        outcome = workflow.pretrain(
            args.config,
            args.output,
            device=choose_device(args.device),
            data=args.data,
            progress=progress,
            preparing=_show_prepared,
        )
    if not outcome.finished:
        _show('interrupted; run the same command again to resume')
        return 128 + outcome.stopped
    if outcome.folder != args.output:
        _show(f'a start for other trainings, which marks no lesions, is in {outcome.folder}')
        return SUCCESS
    _show(f'the model is in {outcome.folder}')
    return SUCCESS


@contextmanager
def progress_display() -> Iterator[StageProgress | None]:
    """A bar where stderr is a terminal and rich is there, else a line now and then."""
    if not is_first():
        yield None
        return
    try:
        from rich.console import Console
        from rich.progress import Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
    except ImportError:  # a machine that only trains
        console = None
    if console is None or not console.is_terminal:
        yield lines()
        return
    columns = (*Progress.get_default_columns()[:-1], TimeRemainingColumn())
    with Progress(*columns, TextColumn('{task.fields[latest]}'), console=console) as bar:
        tasks: dict[str, Any] = {}

        def update(stage: str, done: int, steps: int, latest: Mapping[str, float]) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage.replace('_', '-'), total=steps, latest='')
            bar.update(tasks[stage], completed=done, latest=progress_text(latest))

        yield update


def is_first() -> bool:
    """Whether this is the process that speaks for all that torchrun started."""
    return os.environ.get('RANK', '0') == '0'


def lines() -> StageProgress:
    """A function that writes a line at times."""
    last = [0.0]

    def update(stage: str, done: int, steps: int, latest: Mapping[str, float]) -> None:
        if done == steps or time.monotonic() - last[0] > LINE_INTERVAL:
            last[0] = time.monotonic()
            _show(f'{stage.replace("_", "-")}: step {done} of {steps}  {progress_text(latest)}')

    return update


def progress_text(latest: Mapping[str, float]) -> str:
    """The numbers worth a look."""
    wanted = ('loss', 'dice', 'hidden', 'validation_dice', 'validation_hidden')
    return '  '.join(
        f'{name.replace("_", " ")} {latest[name]:.3f}' for name in wanted if name in latest
    )


def _show_prepared(name: str) -> None:
    _show(f'prepared {name}')


def _show(text: str) -> None:
    if not is_first():
        return
    sys.stderr.write(f'ssl2: {text}\n')
