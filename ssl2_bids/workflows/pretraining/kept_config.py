"""The copy of a configuration that stands beside the model."""

from __future__ import annotations

import os
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from ssl2_bids.errors import UsageError
from ssl2_bids.files import whole_file
from ssl2_bids.tables import Source, from_table, read_toml
from ssl2_bids.training.pretraining.config import Config, Data, read_config

CONFIG = 'config.toml'


def keep_config(path: Path, folder: Path) -> None:
    """Put the configuration beside the result; its relative paths then start there.

    Raises
    ------
    StorageError, CannotWriteError : as :func:`ssl2_bids.files.whole_file`.
    """
    copy = folder / CONFIG
    if path.resolve() == copy.resolve():
        return
    text = path.read_text(encoding='utf-8-sig')
    moved = text
    for name in _relative_paths(path):
        there = os.path.relpath(path.parent / name, folder)
        for quote in ('"', "'"):
            moved = moved.replace(f'{quote}{name}{quote}', f'{quote}{there}{quote}')
    with whole_file(copy) as temporary:
        temporary.write_text(moved, encoding='utf-8')
        if not _are_equal(path, temporary, folder):  # a path is also another value
            temporary.write_text(text, encoding='utf-8')


def _relative_paths(path: Path) -> list[str]:
    """The relative paths in a configuration, as they are typed; longer ones first."""
    table = read_toml(path, 'configuration', UsageError)
    data = table.get('data', {})
    named = [table['start']] if 'start' in table else []
    for one in fields(Data):
        if 'Path' in str(one.type) and one.name in data:
            value = data[one.name]
            named += value if isinstance(value, list) else [value]
    relative = {name for name in named if not Path(name).expanduser().is_absolute()}
    return sorted(relative, key=len, reverse=True)


def _are_equal(path: Path, copy: Path, folder: Path) -> bool:
    """Whether a copy, read as if it lay in a folder, has the same values and paths."""
    try:
        table = read_toml(copy, 'configuration', UsageError)
        source = Source(copy, UsageError, folder=folder)
        moved = from_table(Config, table, source, default=Config())
    except UsageError:
        return False
    return _absolute(moved) == _absolute(read_config(path))


def _absolute(value: Any) -> Any:
    """A configuration with absolute paths."""
    if isinstance(value, Path):
        return os.path.abspath(value)
    if isinstance(value, tuple):
        return [_absolute(one) for one in value]
    if is_dataclass(value):
        return {one.name: _absolute(getattr(value, one.name)) for one in fields(value)}
    return value
