"""Where and how a pool runs its work."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from support.pools import Gate, value

import treadle
from treadle import LoopPool

LANES = 4
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def test_the_least_loaded_lane_is_taken(pool: LoopPool) -> None:
    gate = Gate()
    names: list[str] = []

    async def work() -> None:
        names.append(threading.current_thread().name)
        await gate.wait()

    for _ in range(3 * LANES):
        pool.spawn(work())
    gate.wait_entered(3 * LANES)
    assert Counter(names) == {f"treadle-pool-{index}": 3 for index in range(LANES)}
    assert f"running={3 * LANES}" in repr(pool)
    gate.open()


def test_every_lane_has_a_loop_of_its_own(pool: LoopPool) -> None:
    async def look() -> tuple[object, str]:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.01)
        assert asyncio.get_running_loop() is loop
        return loop, threading.current_thread().name

    seen = set(pool.map(look_at(look), range(40)))
    assert len(seen) == LANES
    assert all(isinstance(loop, treadle.EventLoop) for loop, _ in seen)


def look_at(look: Callable[[], Any]) -> Callable[[int], Any]:
    return lambda _: look()


def test_context_variables_are_the_callers(pool: LoopPool) -> None:
    async def look(_: int = 0) -> str:
        before = variable.get()
        variable.set("changed")
        await asyncio.sleep(0)
        return before

    variable.set("mine")
    assert pool.spawn(look()).result(10) == "mine"
    assert pool.map(look, range(20), limit=2) == ["mine"] * 20
    assert variable.get() == "mine"


@pytest.mark.slow
def test_eight_threads_spawn_into_four_lanes(pool: LoopPool) -> None:
    rounds = 400
    errors: list[BaseException] = []

    async def work(number: int) -> int:
        match number % 5:
            case 0:
                return number
            case 1:
                await asyncio.sleep(0)
                return number
            case 2:
                await asyncio.sleep(0.001)
                return number
            case 3:
                raise KeyError(number)
            case _:
                return await pool.spawn(value(number))

    def spawn_all() -> None:
        try:
            handles = [(n, pool.spawn(work(n))) for n in range(rounds)]
            for _, handle in handles[::7]:
                handle.cancel()
            for number, handle in handles:
                try:
                    assert handle.result(20) == number
                except KeyError:
                    assert number % 5 == 3
                except concurrent.futures.CancelledError:
                    assert number % 7 == 0
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=spawn_all) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert "running=0" in repr(pool)
