"""``ssl2-bids BIDS_DIR OUTPUT_DIR {participant,group}``: parse, check, dispatch, exit code."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from ssl2_bids.cli import options
from ssl2_bids.cli.encoding import ensure_utf8
from ssl2_bids.cli.parser import build_parser, check_level
from ssl2_bids.cli.work_folder import clean
from ssl2_bids.errors import Ssl2Error, heard_signals
from ssl2_bids.files import INTERNAL_ERROR, as_ssl2_error, unforeseen
from ssl2_bids.locks import LOCK


class Interrupted(BaseException):
    """A signal asked the run to end."""

    def __init__(self, number: int):
        self.exit_code = 128 + number


def main(argv: list[str] | None = None) -> int:
    """Run the BIDS App.

    Returns
    -------
    The exit code; a user's mistakes are reported on stderr in one or two sentences.
    """
    if argv is None:
        ensure_utf8()
    argv = list(sys.argv[1:] if argv is None else argv)
    _container_environment()
    debug = '--debug' in argv
    try:
        if not argv:
            build_parser().print_help(sys.stderr)
            return 64
        arguments = options.parse(argv)
        level = check_level(arguments.analysis_level)
        settings = options.settings_for(level, arguments)
        return _dispatch(level, settings, arguments, argv)
    except Ssl2Error as error:
        if debug:
            traceback.print_exc()
        print(f'ssl2-bids: error: {error}', file=sys.stderr)
        return error.exit_code
    except (Interrupted, KeyboardInterrupt) as error:
        code = getattr(error, 'exit_code', 128 + signal.SIGINT)
        with suppress(OSError):  # after SIGHUP the terminal may be closed
            print(
                f'ssl2-bids: interrupted; run the same command again to resume (exit {code})',
                file=sys.stderr,
            )
        return code
    except BrokenPipeError:  # whoever read our lines has enough of them, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:  # noqa: BLE001  all else is a bug, with its exit code
        if debug:
            traceback.print_exc()
        text, code = unforeseen(error)
        advice = '; run the command again with --debug and report the output.'
        print(f'ssl2-bids: {text}{advice if code == INTERNAL_ERROR else ""}', file=sys.stderr)
        return code


def _mark(lock: Path) -> None:
    """Make the file by which --clean-workdir knows a work folder; another user may own it."""
    try:
        if not lock.exists():
            lock.touch()
    except OSError as error:
        raise as_ssl2_error(error, lock) from None


def _dispatch(level: str, settings: Any, arguments: argparse.Namespace, argv: list[str]) -> int:
    from ssl2_bids.cli.terminal import Terminal
    from ssl2_bids.workflows.adaptation.torchrun import rank

    _container_environment(settings.work_dir)
    helps = level == 'group' and rank() > 0  # torchrun has started several processes
    if settings.clean_workdir and not settings.dry_run and not helps:
        clean(settings)
    if not settings.dry_run:
        _mark(settings.work_dir / LOCK)
    if settings.verbose >= 2:
        os.environ['SSL2_BIDS_NIPYPE_LOG'] = '1'
    for number in heard_signals():
        signal.signal(number, _interrupt)
    command = options.shown_command(argv, settings)
    with Terminal(settings) as terminal:
        if not settings.dry_run:
            terminal.open_log(options.options_record(arguments), command, arguments.resources)
        for note in arguments.notes:
            terminal.show(note)
        if level == 'participant':
            if settings.calibrate_from:
                from ssl2_bids.workflows.adaptation.calibrate import run_calibrated as run_level
            else:
                from ssl2_bids.workflows.participant.run import (
                    run_participant_level as run_level,
                )

            code, outcomes = run_level(
                settings, command=command, show=terminal.show, progress=terminal.progress
            )
            if settings.longitudinal:
                from ssl2_bids.workflows.longitudinal.run import run_longitudinal

                stay = {one.name: one.reason for one in outcomes if one.stays}
                code = run_longitudinal(settings, code, show=terminal.show, stay=stay)
            terminal.conclude(code, outcomes)
        elif helps:
            from ssl2_bids.workflows.adaptation.parallel import take_part

            code = take_part(settings, terminal.show)
        else:
            from ssl2_bids.workflows.cohort.run import run_group_level

            code = run_group_level(settings, command=command, show=terminal.show)
            terminal.conclude(code, [])
    return code


def _interrupt(number: int, frame: object) -> None:
    raise Interrupted(number)


def _container_environment(work_dir: str | os.PathLike[str] | None = None) -> None:
    """What a process under an unknown user id or in a container lacks, set to what it may use.

    Parameters
    ----------
    work_dir : once it is known, where the libraries keep their caches in a container, and where
        temporary files go if there is no other place for them.
    """
    import tempfile

    os.environ.setdefault('NIPYPE_NO_ET', '1')
    os.environ.setdefault('NO_ET', '1')
    os.environ.setdefault('MPLBACKEND', 'Agg')
    for name in ('USER', 'LOGNAME'):
        os.environ.setdefault(name, f'ssl2-{os.getuid()}')
    try:
        temporary = tempfile.gettempdir()
    except FileNotFoundError:  # a read-only container without a writable /tmp
        temporary = os.fspath(work_dir or '/')
        if work_dir:
            os.environ['TMPDIR'] = temporary
    home = os.environ.get('HOME')
    if not home or not os.access(home, os.W_OK):
        os.environ['HOME'] = temporary
    for name in (
        'MPLCONFIGDIR',
        'NUMBA_CACHE_DIR',
        'TORCHINDUCTOR_CACHE_DIR',
        'TORCH_HOME',
        'TRITON_CACHE_DIR',
        'XDG_CACHE_HOME',
    ):
        folder = os.environ.get(name)
        if folder and not os.access(folder, os.W_OK):
            os.environ.pop(name)
        if work_dir and 'SSL2_BIDS_DOCKER_TAG' in os.environ:
            os.environ.setdefault(name, os.path.join(work_dir, 'cache', name.lower()))


if __name__ == '__main__':
    sys.exit(main())
