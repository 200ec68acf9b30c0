"""Tables of TOML and JSON as frozen dataclasses and back, with every fault named.

A dataclass describes a table: its fields are the keys, their annotations the types, and
a field without a default must be there. :class:`Source` has the file and the error that a
fault in it is.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import sys
import types
import typing
from collections.abc import Collection, Iterable
from dataclasses import MISSING, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from ssl2_bids.errors import DataError, NoInputError, Ssl2Error

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar('T')
BESIDE = {'beside': True}  # metadata of a field whose own keys stand beside the others in a file
WORDS = {
    Path: 'a path (text)',
    str: 'a text',
    int: 'a whole number',
    float: 'a finite number',
    bool: 'true or false',
}


@dataclass(frozen=True)
class Source:
    """The file of a table, for its faults and its relative paths.

    Attributes
    ----------
    path : named in messages.
    error : the class of its faults.
    hint : added to the advice where a value is of another type, for example units.
    folder : where relative paths in the table start.
    """

    path: Path | str | None = None
    error: type[Ssl2Error] = DataError
    hint: str = ''
    folder: Path = Path()

    def fault(self, problem: str, advice: str = '') -> Ssl2Error:
        """The error that names a fault of this file."""
        return self.error(problem, advice=advice, path=self.path)


NOWHERE = Source()  # a table without a file


def read_toml(path: Path, what: str, error: type[Ssl2Error]) -> dict[str, Any]:
    """The content of a TOML file.

    Parameters
    ----------
    what : the file in words, for messages.
    error : the class of the error for what is not TOML.

    Raises
    ------
    NoInputError : there is no such file, or it cannot be opened.
    """
    try:
        return tomllib.loads(path.read_text(encoding='utf-8-sig'))
    except FileNotFoundError:
        raise NoInputError(f'no such {what}', path=path) from None
    except OSError as problem:
        raise NoInputError(
            f'the {what} cannot be read ({problem.strerror})',
            advice='Give the path of a TOML file.',
            path=path,
        ) from None
    except (ValueError, RecursionError) as problem:
        raise error(
            f'the {what} is not TOML ({problem})', advice='Correct the file.', path=path
        ) from None


@functools.cache
def bundled_table(name: str) -> dict[str, Any]:
    """The content of a TOML file in ``resources/``; not to be changed."""
    return tomllib.loads((resources.files('ssl2_bids') / 'resources' / name).read_text('utf-8'))


def from_table(
    kind: type[T], table: Any, source: Source = NOWHERE, *, key: str = '', default: Any = MISSING
) -> T:
    """Build a frozen dataclass from a table of TOML or JSON.

    What :func:`to_table` made and ``json`` wrote comes back as it was.

    Parameters
    ----------
    key : of the table within its file, for messages.
    default : an instance whose values stand for keys that are not in the table; without it, the
        defaults of the fields.

    Raises
    ------
    Ssl2Error : of the class that ``source`` names: keys that are unknown or missing, or values
        of another type.
    """
    if not isinstance(table, dict):
        raise _wrong(kind, table, source, key)
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    beside = {f.name: [i.name for i in dataclasses.fields(hints[f.name])]
              for f in fields if f.metadata == BESIDE}  # fmt: skip
    own = [f.name for f in fields if f.name not in beside]
    needed = [f.name for f in fields if default is f.default is f.default_factory is MISSING]
    check_keys(table, [*own, *sum(beside.values(), [])], needed, source, key=key)
    values = {} if default is MISSING else {f.name: getattr(default, f.name) for f in fields}
    for name in own:
        if name in table:
            within = f'{key}.{name}' if key else name
            values[name] = convert(
                hints[name], table[name], source, key=within, default=values.get(name, MISSING)
            )
    for name, inner in beside.items():
        part = {inner_name: table[inner_name] for inner_name in inner if inner_name in table}
        values[name] = from_table(
            hints[name], part, source, key=key, default=values.get(name, MISSING)
        )
    return kind(**values)


def to_table(value: Any) -> Any:
    """A dataclass, or what holds some, as JSON and TOML can write it: paths become text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_table(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {name: to_table(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_table(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def check_keys(
    table: Iterable[str],
    known: Collection[str],
    needed: Iterable[str],
    source: Source,
    *,
    key: str = '',
    where: str = '',
) -> None:
    """Refuse a table with keys that are unknown or missing.

    Parameters
    ----------
    key : of the table within its file.
    where : added to the message about an unknown key: to what it is unknown.

    Raises
    ------
    Ssl2Error : of the class that ``source`` names.
    """
    prefix = f'{key}.' if key else ''
    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=3)
            meant = f'Perhaps {" or ".join(near)} is meant.'
            advice = meant if near else f'Known are: {", ".join(sorted(known))}.'
            raise source.fault(f'the key "{prefix}{name}" is unknown{where}', advice)
    for name in needed:
        if name not in table:
            raise source.fault(f'the key "{prefix}{name}" is missing', 'Add it.')


def convert(
    hint: Any, value: Any, source: Source = NOWHERE, *, key: str, default: Any = MISSING
) -> Any:
    """A value of TOML or JSON as the type that an annotation asks for.

    A whole number will do for a float, a list for a tuple, a text for a path; a float must be
    finite. An annotation with ``None`` takes it.

    Parameters
    ----------
    default : of a dataclass, an instance for missing keys.

    Raises
    ------
    Ssl2Error : of the class that ``source`` names.
    """
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if value is None:
            return None
        hint = next(one for one in typing.get_args(hint) if one is not type(None))
        default = MISSING if default is None else default
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_table(typing.cast(type, hint), value, source, key=key, default=default)
    if origin is dict and isinstance(value, dict):
        return {k: convert(inner[1], v, source, key=f'{key}.{k}') for k, v in value.items()}
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
        if len(kinds) == len(value):
            pairs = zip(kinds, value, strict=True)
            return tuple(convert(one, v, source, key=key) for one, v in pairs)
    if hint is Any:
        return value
    if hint is Path and isinstance(value, str):
        return source.folder / Path(value).expanduser()
    if hint is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if hint is int and type(value) is int and abs(value) > sys.maxsize:
        raise _wrong(hint, value, source, key)
    if hint in (str, int, bool) and type(value) is hint:
        return value
    raise _wrong(hint, value, source, key)


def fits(hint: Any, value: Any) -> bool:
    """Whether a value of JSON is of the type that an annotation asks for."""
    try:
        convert(hint, value, key='')
    except Ssl2Error:
        return False
    return True


def describe_type(hint: Any) -> str:
    """A type in words, for messages."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is not tuple:
        return WORDS.get(hint, 'a table')
    count = '' if inner[-1] is Ellipsis else f' of {len(inner)}'
    return f'a list{count}, each entry {describe_type(inner[0])}'


def _wrong(hint: Any, value: Any, source: Source, key: str) -> Ssl2Error:
    problem = f'the key "{key}" is {value!r}' if key else f'{value!r} is not a table'
    advice = f'It must be {describe_type(hint)}.'
    return source.fault(problem, f'{advice} {source.hint}'.rstrip())
