"""Independent work in threads: the order, the error, and that threads work beside one another."""

from __future__ import annotations

import threading

import pytest

from ssl2_bids.threads import in_threads


@pytest.mark.parametrize('threads', [1, 2, 8])
def test_results_are_in_the_order_of_the_items(threads: int) -> None:
    assert in_threads(lambda number: number**2, range(5), threads=threads) == [0, 1, 4, 9, 16]
    assert in_threads(lambda number: number, [], threads=threads) == []


def test_threads_work_beside_one_another() -> None:
    meeting = threading.Barrier(2, timeout=20)
    assert sorted(in_threads(lambda _: meeting.wait(), 'ab', threads=2)) == [0, 1]


def test_one_thread_is_that_of_the_caller() -> None:
    found = in_threads(lambda _: threading.get_ident(), 'ab', threads=1)
    assert found == [threading.get_ident()] * 2


@pytest.mark.parametrize('threads', [1, 2])
def test_an_error_reaches_the_caller(threads: int) -> None:
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda number: 1 / number, [1, 0, 2], threads=threads)
