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
    table = read_toml(path, 'configuration', UsageError)
    moved, names = text, sorted(_relative_paths(table), key=len, reverse=True)
    for name in names:
        there = _moved(name, path, folder)
        for quote in ('"', "'"):
            moved = moved.replace(f'{quote}{name}{quote}', f'{quote}{there}{quote}')
    with whole_file(copy) as temporary:
        temporary.write_text(moved, encoding='utf-8')
        if not _are_equal(path, temporary, folder):  # a path is also another value
            temporary.write_text(_rewritten(table, path, folder) or text, encoding='utf-8')


def _moved(name: str, path: Path, folder: Path) -> str:
    """A relative path of a configuration, from another folder on."""
    return os.path.relpath((path.parent / name).resolve(), folder.resolve())


def _is_relative(name: Any) -> bool:
    return isinstance(name, str) and not Path(name).expanduser().is_absolute()


def _path_keys(table: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """The tables and keys of a configuration that have paths."""
    data = table.get('data', {})
    keys = [(data, one.name) for one in fields(Data) if 'Path' in str(one.type)]
    return [(place, key) for place, key in [(table, 'start'), *keys] if key in place]


def _relative_paths(table: dict[str, Any]) -> set[str]:
    """The relative paths in a configuration, as they are typed."""
    values = [place[key] for place, key in _path_keys(table)]
    every = [one for value in values for one in (value if isinstance(value, list) else [value])]
    return {one for one in every if _is_relative(one)}


def _rewritten(table: dict[str, Any], path: Path, folder: Path) -> str:
    """The text of a configuration with moved paths, without comments; empty without tomli_w."""
    try:
        import tomli_w
    except ImportError:  # a machine that only trains
        return ''

    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(one) for one in value]
        return _moved(value, path, folder) if _is_relative(value) else value

    for place, key in _path_keys(table):
        place[key] = moved(place[key])
    return tomli_w.dumps(table)


def _are_equal(path: Path, copy: Path, folder: Path) -> bool:
    """Whether a copy, read as if it lay in a folder, has the same values and paths."""
    try:
        table = read_toml(copy, 'configuration', UsageError)
        source = Source(copy, UsageError, folder=folder.resolve())
        moved = from_table(Config, table, source, default=Config())
    except UsageError:
        return False
    return bool(_absolute(moved) == _absolute(read_config(path)))


def _absolute(value: Any) -> Any:
    """A configuration with absolute paths."""
    if isinstance(value, Path):
        return os.path.realpath(value)
    if isinstance(value, tuple):
        return [_absolute(one) for one in value]
    if is_dataclass(value):
        return {one.name: _absolute(getattr(value, one.name)) for one in fields(value)}
    return value
