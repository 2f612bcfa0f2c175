"""Reaching the event loop from other threads.

Each body runs on asyncio's loop as well, unless it is about ours: what holds is its behaviour.
"""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from support.loops import LoopFactory, Run

from treadle import EventLoop


def test_callbacks_from_many_threads_all_arrive(run: Run) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        got: list[tuple[int, int]] = []
        done = loop.create_future()

        def arrived(thread: int, n: int) -> None:
            got.append((thread, n))
            if len(got) == 8 * 500:
                done.set_result(None)

        def send(thread: int) -> None:
            for n in range(500):
                loop.call_soon_threadsafe(arrived, thread, n)

        threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        await done
        for thread in threads:
            thread.join()
        # Those of one thread keep their order.
        return [
            sum(n == position for position, n in enumerate(n for t, n in got if t == number))
            for number in range(8)
        ]

    assert run(main) == [500] * 8


def test_another_thread_wakes_a_loop_that_sleeps(run: Run) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        rounds = []
        for n in range(100):
            woken = loop.create_future()
            thread = threading.Thread(
                target=lambda woken=woken, n=n: loop.call_soon_threadsafe(woken.set_result, n)
            )
            thread.start()
            rounds.append(await woken)
            thread.join()
        return rounds

    assert run(main) == list(range(100))


def test_an_executor_gives_results_and_exceptions(run: Run) -> None:
    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        results: list[object] = [await loop.run_in_executor(None, pow, 2, 10)]
        with pytest.raises(ValueError, match="invalid literal"):
            await loop.run_in_executor(None, int, "x")
        results += await asyncio.gather(*(asyncio.to_thread(str, n) for n in range(50)))
        await loop.shutdown_default_executor()
        return results

    assert run(main) == [1024, *map(str, range(50))]


def test_a_coroutine_can_be_handed_in_from_another_thread(run: Run) -> None:
    async def main() -> tuple[object, object]:
        loop = asyncio.get_running_loop()

        async def work(n: int) -> int:
            await asyncio.sleep(0)
            return n * 2

        def thread() -> int:
            return asyncio.run_coroutine_threadsafe(work(21), loop).result(10)

        def cancelling() -> bool:
            future = asyncio.run_coroutine_threadsafe(asyncio.sleep(60), loop)
            return future.cancel()

        return await asyncio.to_thread(thread), await asyncio.to_thread(cancelling)

    assert run(main) == (42, True)


def test_a_loop_that_is_closed_refuses_work_from_other_threads(factory: LoopFactory) -> None:
    loop = factory()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon_threadsafe(print)


def test_a_callback_that_is_cancelled_has_ended_or_will_not_begin() -> None:
    """As asyncio has it since 3.14."""
    loop = EventLoop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    about_to_run, runs = 0, False

    def before(number: int) -> None:
        nonlocal about_to_run
        about_to_run = number

    def callback() -> None:
        nonlocal runs
        runs = True
        for _ in range(30):
            pass
        runs = False

    ran_on = 0
    until = time.monotonic() + 1.0  # with the GIL, a try is as long as a thread has it
    try:
        for number in range(1, 20_000):
            loop.call_soon_threadsafe(before, number)
            handle = loop.call_soon_threadsafe(callback)
            while about_to_run != number:
                pass
            for _ in range(number % 8):
                pass  # It begins now, or now, or now.
            handle.cancel()
            ran_on += runs
            while runs:
                pass
            if time.monotonic() > until:
                break
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    assert ran_on == 0


def test_a_callback_may_be_cancelled_by_several_threads_and_by_itself() -> None:
    loop = EventLoop()
    cancelling, stopping = threading.Barrier(3, timeout=10), threading.Semaphore(0)
    order: list[str] = []

    def callback() -> None:
        cancelling.wait()
        handle.cancel()
        assert handle.cancelled()
        order.append("callback")

    def cancel() -> None:
        cancelling.wait()
        handle.cancel()
        assert handle.cancelled()
        order.append("cancelled")
        loop.call_soon_threadsafe(stopping.release)

    threads = [threading.Thread(target=cancel) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        handle = loop.call_soon_threadsafe(callback)
        loop.run_until_complete(asyncio.to_thread(lambda: [stopping.acquire() for _ in threads]))
    finally:
        loop.close()
    for thread in threads:
        thread.join()
    assert order == ["callback", "cancelled", "cancelled"]
