"""What a pool refuses, and in which words."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from support.pools import Gate, value

from treadle import JoinHandle, LoopPool


@pytest.mark.parametrize("thing", [None, 3, value, print])
def test_what_is_no_coroutine(pool: LoopPool, thing: Any) -> None:
    with pytest.raises(TypeError, match="a coroutine was expected, got"):
        pool.spawn(thing)


def test_a_coroutine_twice(pool: LoopPool) -> None:
    gate = Gate()
    coroutine = gate.wait()
    handle = pool.spawn(coroutine)
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        pool.spawn(coroutine)
    gate.wait_entered()
    gate.open()
    handle.result(10)
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        pool.spawn(coroutine)


def test_waiting_on_the_lane_that_is_to_produce_it(pool: LoopPool) -> None:
    async def wait_for_itself() -> None:
        own = LoopPool(1)
        try:

            async def inner() -> None:
                handle = own.spawn(value(1))
                for ask in (handle.result, handle.exception):
                    with pytest.raises(RuntimeError, match="await the handle instead"):
                        ask(5)
                assert await handle == 1
                assert handle.result() == 1
                for refused in (own.close, own.shutdown, lambda: own.map(value, [1])):
                    with pytest.raises(RuntimeError, match="on a thread of the pool"):
                        refused()

            await own.spawn(inner())
        finally:
            own.close()

    pool.spawn(wait_for_itself()).result(20)


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_handle_has_no_copy(pool: LoopPool, make: Callable[[Any], Any]) -> None:
    """It would stay as it was: pending for ever."""
    handle = pool.spawn(value(7))
    with pytest.raises(TypeError, match="cannot pickle 'JoinHandle' object"):
        make(handle)


def test_awaiting_itself(pool: LoopPool) -> None:
    async def work() -> None:
        while not handles:  # noqa: ASYNC110 - the test's thread appends
            await asyncio.sleep(0)
        await handles[0]

    handles: list[JoinHandle[None]] = []
    handles.append(pool.spawn(work()))
    with pytest.raises(RuntimeError, match="Task cannot await on itself"):
        handles[0].result(10)


@pytest.mark.parametrize(
    ("lanes", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_how_many_lanes(lanes: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="lanes must be"):
        LoopPool(lanes)
