"""Options of an earlier run, read from its TOML and checked like those of the command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl2_bids.cli.parser import build_parser
from ssl2_bids.cli.parsing import Parser
from ssl2_bids.errors import UsageError
from ssl2_bids.settings import LEVELS, defaults_of_options, foreign_options, lasting_options
from ssl2_bids.tables import read_toml

IN_FILES = {'mem': '--mem-gb'}  # of several options for one setting, that of the file's unit


@dataclass(frozen=True)
class Former:
    """The options of a former run that apply, and a line about those that do not."""

    values: dict[str, Any]
    left_out: str


def read_config(path: Path, level: str) -> Former:
    """Read the options of a settings file.

    Raises
    ------
    NoInputError : there is no such file.
    UsageError : it is no settings file, or has an option that is unknown or has an impossible
        value; file, key and what is allowed are named.
    """
    parser = build_parser()
    values: dict[str, Any] = {}
    useless, lasting, defaults = [], lasting_options(), defaults_of_options()
    foreign = foreign_options(level) if level in LEVELS else set()
    for name, value in _options(path).items():
        action = _action(parser, name)
        if action is None and name not in vars(parser.parse_args(['', '', ''])):
            raise UsageError(f'unknown option "{name}" in the configuration', path=path)
        if action is None or name not in lasting:
            continue  # which run it was, not how
        checked = _validate(parser, action, value, path)
        if name not in foreign:
            values[name] = checked
        elif checked not in (action.default, defaults.get(name)):
            useless.append(name)
    left_out = f'{path}: without effect at {level} level and ignored: {", ".join(useless)}'
    return Former(values, left_out if useless else '')


def _options(path: Path) -> dict[str, Any]:
    options = read_toml(path, 'configuration file', UsageError).get('options')
    if not isinstance(options, dict):
        raise UsageError(
            'not a configuration of an earlier run: it has no table "options"',
            advice='Give a logs/*.toml file of an output folder.',
            path=path,
        )
    return options


def _action(parser: Parser, name: str) -> argparse.Action | None:
    found = [a for a in parser._actions if a.dest == name and a.option_strings]
    if name in IN_FILES:
        found = [a for a in found if IN_FILES[name] in a.option_strings]
    return found[0] if found else None


def _validate(parser: Parser, action: argparse.Action, value: Any, path: Path) -> Any:
    """The value of an option, by the validators of the command line."""
    option = action.option_strings[0]
    several = isinstance(value, list)
    if several and not value:
        return action.default
    try:
        if action.nargs == 0:
            return _switch(action, value)
        if isinstance(value, dict) or (several and action.nargs is None):
            raise UsageError('one value is needed')
        texts = [str(one) for one in (value if several else [value])]
        if '' in texts:
            raise UsageError('it is empty')
        words = [option, *texts] if several else [f'{option}={texts[0]}']
        arguments = parser.parse_args(['bids', 'out', 'participant', *words])
    except UsageError as error:
        problem = error.message.partition(': ')[2] if option in error.message else error.message
        raise UsageError(
            f'"{action.dest}" is {value!r} in the configuration: {problem}',
            advice=f'Correct the file, or see {option} in ssl2-bids --help.',
            path=path,
        ) from None
    return getattr(arguments, action.dest)


def _switch(action: argparse.Action, value: Any) -> Any:
    """The value of an option that stands alone on a command line: yes or no, or a count."""
    count = isinstance(action.default, int) and not isinstance(action.default, bool)
    if count and isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if not count and isinstance(value, bool):
        return value
    raise UsageError('a whole number is needed' if count else 'true or false is needed')
