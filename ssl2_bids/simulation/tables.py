"""Tables of TOML and JSON as frozen dataclasses, with every fault named."""

from __future__ import annotations

import math
import types
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ssl2_bids.errors import DataError

T = TypeVar('T')


def from_table(kind: type[T], table: Any, *, path: str | Path | None = None, key: str = '') -> T:
    """Build a frozen dataclass from a table of TOML or JSON.

    What ``dataclasses.asdict`` made of a draw and ``json`` wrote comes back as it was.

    Raises
    ------
    DataError : unknown or missing keys or wrong types, naming the file and the key.
    """
    if not isinstance(table, dict):
        raise wrong(path, key, f'{table!r} is not a table')
    prefix = f'{key}.' if key else ''
    known = fields(kind)  # type: ignore[arg-type]
    unknown = sorted(set(table) - {field.name for field in known})
    if unknown:
        raise DataError(
            f'the key {prefix}{unknown[0]} is unknown',
            advice=f'Known here are {", ".join(field.name for field in known)}.',
            path=path,
        )
    hints = get_type_hints(kind)
    values = {}
    for field in known:
        if field.name in table:
            name = f'{prefix}{field.name}'
            values[field.name] = typed(hints[field.name], table[field.name], path=path, key=name)
        elif field.default is MISSING:
            raise DataError(
                f'the key {prefix}{field.name} is missing', advice='Add it.', path=path
            )
    return kind(**values)


def typed(hint: Any, value: Any, *, path: str | Path | None, key: str) -> Any:
    """A value of TOML or JSON as the type that an annotation asks for."""
    if value is MISSING:
        raise DataError(f'the key {key} is missing', advice='Add it.', path=path)
    if is_dataclass(hint):
        return from_table(hint, value, path=path, key=key)  # type: ignore[arg-type]
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        options = [option for option in inner if option is not type(None)]
        return None if value is None else typed(options[0], value, path=path, key=key)
    if origin is dict and isinstance(value, dict):
        return {k: typed(inner[1], v, path=path, key=f'{key}.{k}') for k, v in value.items()}
    if origin is tuple and isinstance(value, (list, tuple)):
        wanted = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
        if len(wanted) != len(value):
            raise wrong(path, key, f'{list(value)} has not {len(wanted)} values')
        return tuple(typed(t, v, path=path, key=key) for t, v in zip(wanted, value, strict=True))
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
    elif hint in (int, str) and isinstance(value, hint) and not isinstance(value, bool):
        return value
    names = {float: 'a finite number', int: 'a whole number', str: 'text', tuple: 'a list'}
    wanted_name = names.get(origin or hint, 'what belongs here')
    raise wrong(path, key, f'{value!r} is not {wanted_name}')


def wrong(path: str | Path | None, key: str, problem: str) -> DataError:
    """The error that says what is wrong with a key of a file."""
    where = f'{key}: {problem}' if key else problem
    return DataError(where, advice='Times are in s, angles in degrees, lengths in mm.', path=path)
