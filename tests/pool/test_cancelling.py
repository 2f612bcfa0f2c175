"""Cancelling work on a pool, and who waits for it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.pools import Gate

from treadle import JoinHandle, LoopPool

LANES = 4


def test_cancel(pool: LoopPool, run: Callable[..., Any]) -> None:
    gate = Gate()
    handle = pool.spawn(gate.wait())
    gate.wait_entered()
    assert handle.cancel("enough")
    with pytest.raises(concurrent.futures.CancelledError):
        handle.result(10)
    with pytest.raises(concurrent.futures.CancelledError):
        handle.exception(10)
    assert gate.ended == ["cancelled"]
    assert handle.cancelled()

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            await handle

    run(main())


def test_cancel_before_the_first_step(pool: LoopPool) -> None:
    inside, release = threading.Event(), threading.Event()
    blocked = []

    async def block() -> None:
        inside.set()
        release.wait(10)

    for _ in range(LANES):
        blocked.append(pool.spawn(block()))
        assert inside.wait(10)
        inside.clear()
    started: list[bool] = []

    async def start() -> None:
        started.append(True)

    handle = pool.spawn(start())
    assert handle.cancel("enough")
    release.set()
    with pytest.raises(concurrent.futures.CancelledError, match="enough"):
        handle.result(10)
    assert not started


def test_one_cancellation_during_the_first_step_is_one(pool: LoopPool) -> None:
    inside, release = threading.Event(), threading.Event()

    async def work() -> tuple[object, ...]:
        inside.set()
        release.wait(10)
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError as error:
            for _ in range(5):
                await asyncio.sleep(0)  # a second one would end it here
            task = asyncio.current_task()
            assert task is not None
            return (task.cancelling(), *error.args)
        return ()

    handle = pool.spawn(work())
    assert inside.wait(10)
    assert handle.cancel("enough")
    release.set()
    assert handle.result(10) == (1, "enough")


def test_cancelling_who_awaits_cancels_the_work_and_a_shield_prevents_it(
    pool: LoopPool, run: Callable[..., Any]
) -> None:
    gate = Gate()

    async def main() -> None:
        work = pool.spawn(gate.wait())
        gate.wait_entered()  # cancelled before that, it would not begin
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(work, 0.01)
        kept = pool.spawn(gate.wait("kept"))
        gate.wait_entered()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(kept), 0.01)
        assert not kept.done()
        gate.open()
        assert await kept == "kept"

    run(main())
    assert sorted(gate.ended) == ["cancelled", "done"]


def test_who_is_cancelled_while_awaiting_goes_on_when_the_work_has_ended(
    pool: LoopPool, run: Callable[..., Any]
) -> None:
    async def main() -> None:
        asked, finish = threading.Event(), threading.Event()
        entered = Gate()

        async def work(answer: str) -> str:
            try:
                return await entered.wait()
            except asyncio.CancelledError:
                asked.set()
                await asyncio.to_thread(finish.wait, 10)
                if not answer:
                    raise
                return answer

        async def wait_for(handle: JoinHandle[str]) -> str:
            return await handle

        for answer in ("all the same", ""):
            asked.clear()
            finish.clear()
            handle = pool.spawn(work(answer))
            entered.wait_entered()
            waiting = asyncio.create_task(wait_for(handle))
            await asyncio.sleep(0)
            assert waiting.cancel("enough")
            assert asked.wait(10)
            for _ in range(5):
                await asyncio.sleep(0)
            assert not waiting.done()
            finish.set()
            if answer:
                assert await waiting == answer
            else:
                with pytest.raises(asyncio.CancelledError, match="enough"):
                    await waiting
                assert waiting.cancelled()
                assert handle.cancelled()
                with pytest.raises(concurrent.futures.CancelledError, match="enough"):
                    handle.result()

    run(asyncio.wait_for(main(), 20))


def test_dropping_a_handle_cancels_nothing(pool: LoopPool) -> None:
    gate = Gate()
    pool.spawn(gate.wait())
    gc.collect()
    gate.wait_entered()
    gc.collect()
    gate.open()
    pool.close()
    assert gate.ended == ["done"]
