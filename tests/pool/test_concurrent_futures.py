"""Handles as futures of `concurrent.futures`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.pools import Gate, fails, value

from treadle import LoopPool


def test_concurrent_futures_waits_for_handles(pool: LoopPool) -> None:
    gate, error = Gate(), OSError("on purpose")
    late = pool.spawn(gate.wait("late")).future()
    early = pool.spawn(value("early")).future()
    failed = pool.spawn(fails(error)).future()
    done, rest = concurrent.futures.wait([early, failed], 10)
    assert (done, rest) == ({early, failed}, set())
    assert early.result() == "early"
    assert failed.exception() is error
    order = concurrent.futures.as_completed([late, early], timeout=10)
    assert next(order) is early
    gate.wait_entered()
    gate.open()
    assert [future.result() for future in order] == ["late"]
    handle = pool.spawn(value("done"))
    handle.result(10)
    assert handle.future().result(0) == "done"


@pytest.mark.parametrize("whose", ["handle", "future"])
def test_a_cancelled_future_is_cancelled_work(pool: LoopPool, whose: str) -> None:
    gate = Gate()
    handle = pool.spawn(gate.wait())
    future = handle.future()
    gate.wait_entered()
    assert handle.cancel() if whose == "handle" else future.cancel()
    done, _ = concurrent.futures.wait([future], 10)
    assert done == {future}
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(0)
    with pytest.raises(concurrent.futures.CancelledError):
        handle.result(10)
    assert gate.ended == ["cancelled"]


def test_a_future_that_is_cancelled_hides_no_failure(pool: LoopPool) -> None:
    inside, release = threading.Event(), threading.Event()

    async def work() -> None:
        inside.set()
        release.wait(10)
        raise OSError("on purpose")

    handle = pool.spawn(work())
    future = handle.future()
    assert inside.wait(10)
    assert future.cancel()
    release.set()
    with pytest.raises(OSError, match="on purpose"):
        handle.result(10)
    assert future.cancelled()


def test_an_event_loop_wraps_the_future_of_a_handle(
    pool: LoopPool, run: Callable[..., Any]
) -> None:
    async def main() -> Any:
        return await asyncio.wrap_future(pool.spawn(value(7)).future())

    assert run(main()) == 7
