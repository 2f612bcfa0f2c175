"""`LoopPool.map`: in order, bounded, ended by the first error."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time

import pytest
from support.pools import Gate, value

from treadle import LoopPool


def test_map_keeps_the_order(pool: LoopPool) -> None:
    async def work(number: int) -> int:
        await asyncio.sleep((number * 7 % 5) / 1000)
        return number * number

    assert pool.map(work, range(100)) == [n * n for n in range(100)]
    assert pool.map(work, iter([3, 2, 1])) == [9, 4, 1]
    assert pool.map(work, []) == []
    assert pool.map(lambda n: pool.spawn(value(n)), range(5)) == list(range(5))


@pytest.mark.parametrize("limit", [1, 3])
def test_map_is_bounded(pool: LoopPool, limit: int) -> None:
    lock = threading.Lock()
    now, most = 0, 0

    async def work(_: int) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        # Nobody leaves before as many were inside as may be; they are on other threads.
        while most < limit:  # noqa: ASYNC110
            await asyncio.sleep(0)
        for _ in range(5):  # room for one too many
            await asyncio.sleep(0)
        with lock:
            now -= 1

    pool.map(work, range(30), limit=limit)
    assert most == limit


def test_work_that_never_waits_leaves_others_of_its_lane_their_turns() -> None:
    turns = 0
    over = False

    async def others() -> None:
        nonlocal turns
        while not over:
            turns += 1
            await asyncio.sleep(0)

    async def work(_: int) -> int:
        until = time.perf_counter() + 0.0002
        while time.perf_counter() < until:
            pass
        return turns

    with LoopPool(lanes=1) as pool:
        beside = pool.spawn(others())
        seen = pool.map(work, range(200), limit=1)
        over = True
        beside.result(10)
    assert len(set(seen)) > 10


def test_the_first_error_cancels_the_rest(pool: LoopPool) -> None:
    gate = Gate()
    calls: list[int] = []

    async def work(number: int) -> None:
        calls.append(number)
        if number == 3:
            gate.wait_entered(3)
            raise KeyError("third")
        await gate.wait()

    with pytest.raises(KeyError, match="third"):
        pool.map(work, range(1000), limit=4)
    assert gate.ended == ["cancelled"] * 3
    assert sorted(calls) == [0, 1, 2, 3]


def test_work_that_is_cancelled_is_the_error(pool: LoopPool) -> None:
    async def work(number: int) -> None:
        raise asyncio.CancelledError(f"number {number}")

    with pytest.raises(concurrent.futures.CancelledError, match="number 0"):
        pool.map(work, [0])


def test_map_refuses_what_makes_no_sense(pool: LoopPool) -> None:
    with pytest.raises(TypeError, match="a callable object was expected"):
        pool.map(3, [])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="limit must be greater than 0"):
        pool.map(value, [1], limit=0)
    with pytest.raises(TypeError):
        pool.map(value, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        pool.map(lambda n: n, [1])  # type: ignore[arg-type, return-value]
