"""``ssl2``: the commands beside the BIDS App, one ``add_`` and one ``run_`` function each.

Nothing heavy is imported until a command runs, so that help and usage errors are instant.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

from ssl2_bids import __version__
from ssl2_bids.cli.encoding import ensure_utf8
from ssl2_bids.cli.parsing import Parser, ToolParser
from ssl2_bids.cli.tools.evaluate import add_evaluate, show
from ssl2_bids.cli.tools.export import add_export
from ssl2_bids.cli.tools.pretrain import add_pretrain
from ssl2_bids.cli.tools.simulate import add_simulate
from ssl2_bids.errors import Ssl2Error
from ssl2_bids.files import INTERNAL_ERROR, unforeseen

DESCRIPTION = 'Tools for the BIDS App ssl2-bids (for segmentation see ssl2-bids --help).'


# every subcommand stands here: add_<name>(subparsers) sets run=run_<name>(args) -> exit code
SUBCOMMANDS: tuple[Callable[[argparse._SubParsersAction], None], ...] = (
    add_evaluate,
    add_export,
    add_simulate,
    add_pretrain,
)


def build_parser() -> Parser:
    """The parser of ``ssl2 COMMAND ...``."""
    parser = Parser(prog='ssl2', description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument('--version', action='version', version=f'ssl2 v{__version__}')
    subparsers = parser.add_subparsers(
        title='commands',
        parser_class=ToolParser,
        metavar='COMMAND',
        dest='command',
        required=True,
        description='See ssl2 COMMAND --help for the options.',
    )
    for add in SUBCOMMANDS:
        add(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    if argv is None:
        ensure_utf8()
    try:
        args = build_parser().parse_args(argv)
        return args.run(args)
    except Ssl2Error as error:
        show(f'error: {error}')
        return error.exit_code
    except BrokenPipeError:  # whoever read our lines has enough of them, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:  # noqa: BLE001  the last resort
        text, code = unforeseen(error)
        if code == INTERNAL_ERROR:
            traceback.print_exc()
            text += '; report it with the lines above.'
        show(text)
        return code
    except KeyboardInterrupt:
        show('interrupted; run the same command again to resume')
        return 128 + signal.SIGINT
