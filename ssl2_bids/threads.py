"""Independent work in threads, for calls of numpy and scipy that release Python's lock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar('Item')
Made = TypeVar('Made')


def in_threads(
    function: Callable[[Item], Made], items: Iterable[Item], *, threads: int
) -> list[Made]:
    """Call a function for each item, some at a time; what it returned, in the order of the items.

    Parameters
    ----------
    threads : that work at a time; with one, all is done in the thread of the caller.

    Raises
    ------
    Exception : whatever the function raised for the first item for which it did.
    """
    items = list(items)
    if threads <= 1 or len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(threads, len(items))) as pool:
        return list(pool.map(function, items))
