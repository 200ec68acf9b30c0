"""How command lines are read and explained: errors, spellings, help; nothing heavy is imported."""

from __future__ import annotations

import argparse
from typing import Any

from ssl2_bids.errors import UsageError


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours: exit code 64, not 2."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raise the problem as a usage error."""
        raise UsageError(message, advice=f'See {self.prog} --help.')


class ToolParser(Parser):
    """The parser of one of several tools: a mistyped option refers to the help of this tool."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse has it, but nothing is left for the parser of all tools."""
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f'unrecognized arguments: {" ".join(rest)}')
        return found, rest


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help that names each option once: aliases are listed in the documentation."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=30, width=min(_terminal_width(), 100))

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        short = [name for name in action.option_strings if not name.startswith('--')]
        long = [name for name in action.option_strings if name.startswith('--')][:1]
        text = ', '.join(short + long)
        if action.nargs != 0:
            text += ' ' + self._format_args(action, self._get_default_metavar_for_optional(action))
        return text


def _terminal_width() -> int:
    import shutil

    return shutil.get_terminal_size((100, 24)).columns


def add_option(group: argparse._ArgumentGroup, *names: str, **kwargs: object) -> None:
    """Add an option with all its aliases; ``-`` and ``_`` spellings are one option."""
    spellings = []
    for name in names:
        spellings.append(name)
        if name.startswith('--') and '-' in name[2:]:
            spellings.append('--' + name[2:].replace('-', '_'))
    group.add_argument(*spellings, **kwargs)  # type: ignore[arg-type]
