"""The copy of a configuration that stands beside the model."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

from ssl2_bids.errors import UsageError
from ssl2_bids.files import whole_file
from ssl2_bids.tables import read_toml
from ssl2_bids.training.pretraining.config import Data

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
    for name in _relative_paths(path):
        moved = os.path.relpath((path.parent / name).resolve(), folder.resolve())
        for quote in ('"', "'"):
            text = text.replace(f'{quote}{name}{quote}', f'{quote}{moved}{quote}')
    with whole_file(copy) as temporary:
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
    return sorted({name for name in named if not Path(name).is_absolute()}, key=len, reverse=True)
