"""What all HTML pages share: the template environment and numbers written for people."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ssl2_bids.files import write_text

if TYPE_CHECKING:
    from jinja2 import Environment

MISSING = '–'
SMALLEST = 5e-5  # share from which on a percentage with two decimals is not zero
THIN = '\N{NARROW NO-BREAK SPACE}'


def write_page(path: Path, template: str, **content: Any) -> None:
    """Render a template of this package to a file; the same content gives the same bytes."""
    write_text(path, environment().get_template(template).render(**content))


@functools.cache
def environment() -> Environment:
    """Jinja with autoescape everywhere, an error for every unknown name, and our filters."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    env = Environment(
        loader=PackageLoader('ssl2_bids', 'reports/templates'),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters.update(
        brain=whole_millilitres,
        count=count,
        decimals=decimals,
        grid=grid,
        link=link,
        ml=millilitres,
        mm3=cubic_millimetres,
        percent=percent,
        plain=plain,
        sentence=sentence,
        tesla=tesla,
        value=sort_value,
        words=words,
    )
    return env


def number(value: Any) -> float | None:
    """A finite number from a number or a table's text (``n/a`` and blanks are None)."""
    if isinstance(value, bool):
        return None
    try:
        result = float(value)
    except (TypeError, ValueError):
        return None
    return result if math.isfinite(result) else None


def link(path: Any) -> str:
    """A relative path as it must stand in ``href`` and ``src``."""
    return quote(str(path), safe='/')


def millilitres(volume: Any) -> str:
    """Cubic millimetres as millilitres with two decimals, without the unit."""
    size = number(volume)
    if size is None:
        return MISSING
    if 0 < size < 5:
        return f'<{THIN}0.01'
    return group_digits(f'{size / 1000:.2f}')


def whole_millilitres(volume: Any) -> str:
    """Cubic millimetres as whole millilitres, for the size of a brain."""
    size = number(volume)
    return MISSING if not size else group_digits(f'{size / 1000:.0f}')


def cubic_millimetres(volume: Any) -> str:
    """Cubic millimetres or their change, one decimal below 100, without the unit."""
    size = number(volume)
    if size is None:
        return MISSING
    text = group_digits(f'{abs(size):.1f}' if abs(size) < 100 else f'{abs(size):.0f}')
    return f'−{text}' if size <= -0.05 else text


def percent(share: Any) -> str:
    """A share (0 to 1) as a percentage with two decimals, without the sign."""
    value = number(share)
    if value is not None and 0 < value < SMALLEST:
        return '< 0.01'
    return MISSING if value is None else f'{value * 100:.2f}'


def count(value: Any) -> str:
    """A whole number; the median of whole numbers has a decimal if it lies between two."""
    result = number(value)
    if result is None:
        return MISSING
    return group_digits(f'{result:.0f}' if result == round(result) else f'{result:.1f}')


def decimals(value: Any, places: int = 1) -> str:
    """A number with a fixed count of decimals and a true minus sign."""
    result = number(value)
    if result is None:
        return MISSING
    text = f'{result:.{places}f}'
    if float(text) == 0:
        text = text.lstrip('-')
    return text.replace('-', '−')


def group_digits(digits: str) -> str:
    """Thousands apart from five digits on: 12 345.6."""
    whole, point, rest = digits.partition('.')
    if len(whole.lstrip('-')) > 4:
        whole = f'{int(whole):,}'.replace(',', THIN)
    return whole + point + rest


def grid(values: Any, unit: str = '') -> str:
    """Three lengths or counts as ``0.72 × 0.72 × 3 mm``."""
    numbers = [number(v) for v in values] if isinstance(values, Iterable) else []
    if not numbers or None in numbers:
        return MISSING
    text = ' × '.join(f'{round(v, 2):g}' for v in numbers if v is not None)
    return f'{text} {unit}'.strip()


def tesla(strength: Any) -> str:
    """A field strength, or that it is not known."""
    value = number(strength)
    return 'field strength not known' if value is None else f'{value:g} T'


def plain(value: Any) -> str:
    """Any JSON value in words."""
    if value is None or value == 'n/a' or value == '':
        return MISSING
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, float):
        return MISSING if not math.isfinite(value) else f'{value:.4g}'
    if isinstance(value, list | tuple):
        return ', '.join(plain(v) for v in value) or MISSING
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def words(name: Any) -> str:
    """A key as words: ``deep-white-matter`` as ``deep white matter``."""
    return plain(name).replace('_', ' ').replace('-', ' ')


def sentence(text: Any) -> str:
    """A message as a sentence: a capital at its beginning and a full stop at its end.

    A name such as ``ses-1`` or ``acq_time`` stays as it is.
    """
    message = str(text or '').strip()
    if message and message[-1] not in '.!?':
        message += '.'
    first = message.split()[0].strip('("\'.,:;') if message else ''
    return message[:1].upper() + message[1:] if first.isalpha() else message


def sort_value(value: Any) -> str:
    """What a column is sorted by; missing values come last in both directions."""
    result = number(value)
    return '' if result is None else f'{result:.10g}'
