"""Where and how a pool runs its work."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import re
import threading
from collections import Counter
from contextlib import ExitStack
from typing import Any

import pytest
from support.loops import pair
from support.pools import Gate, value

import treadle
from treadle import LoopPool
from treadle import pool as module

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
    assert set(Counter(names).values()) == {3}
    found = [re.fullmatch(r"treadle-pool-(\d+)-(\d+)", name) for name in sorted(set(names))]
    assert len({match[1] for match in found if match}) == 1
    assert [match[2] for match in found if match] == [str(index) for index in range(LANES)]
    assert f"running={3 * LANES}" in repr(pool)
    gate.open()


def test_every_lane_has_a_loop_of_its_own(pool: LoopPool) -> None:
    gate = Gate()

    async def look() -> tuple[object, str]:
        loop = asyncio.get_running_loop()
        await gate.wait()
        assert asyncio.get_running_loop() is loop
        return loop, threading.current_thread().name

    handles = [pool.spawn(look()) for _ in range(2 * LANES)]
    gate.wait_entered(2 * LANES)
    gate.open()
    seen = {handle.result(10) for handle in handles}
    assert len(seen) == LANES
    assert all(isinstance(loop, treadle.EventLoop) for loop, _ in seen)


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


def test_who_comes_in_between_may_spawn_and_cancel(pool: LoopPool) -> None:
    """A finalizer or a signal handler, on a thread that has all the locks."""
    handle = pool.spawn(asyncio.Event().wait())
    outcomes: list[Any] = []

    def come_in_between() -> None:
        with ExitStack() as held:
            for lock in (module._claim_lock, pool._lock, *(lane._lock for lane in pool._lanes)):
                held.enter_context(lock)
            held.enter_context(handle._lock)
            outcomes.append(handle.cancel())
            outcomes.append(pool.spawn(value(7)))

    thread = threading.Thread(target=come_in_between, daemon=True)
    thread.start()
    thread.join(10)
    assert outcomes
    assert outcomes[1].result(10) == 7
    with pytest.raises(concurrent.futures.CancelledError):
        handle.result(10)


def test_lanes_of_two_pools_have_two_names() -> None:
    async def connect() -> asyncio.StreamWriter:
        return (await asyncio.open_connection(sock=ours))[1]

    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(b"x")

    async def close(writer: asyncio.StreamWriter) -> None:
        writer.close()
        await writer.wait_closed()

    with pair() as (ours, _), LoopPool(1) as first, LoopPool(1) as second:
        writer = first.spawn(connect()).result(10)
        handle = second.spawn(write(writer))
        with pytest.raises(RuntimeError) as refused:
            handle.result(10)
        first.spawn(close(writer)).result(10)
        said = re.fullmatch(
            "this transport belongs to (.+) and cannot be used on (.+)", str(refused.value)
        )
        assert said is not None
        home, here = said.groups()
        assert home != here
        assert repr(handle) == f"<JoinHandle failed on {here}>"
        loop = first.spawn(_loop()).result(10)
        assert repr(loop).endswith(f" on {home}>")


async def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()
