"""A loop with a `time` of its own: a virtual clock, or another beginning of time.

Each body runs on asyncio's loop as well: what holds is its behaviour.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.loops import LoopFactory, OwnThread

Main = Callable[[], Any]
RunWith = Callable[[Callable[[], float], Main], Any]


class Clock:
    """Stands still unless it is set."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["derived", "patched class", "instance", "running instance"])
def run_with(
    request: pytest.FixtureRequest,
    factory: LoopFactory,
    on_thread: OwnThread,
    monkeypatch: pytest.MonkeyPatch,
) -> RunWith:
    """`run_with(clock, main)` is what `await main()` gives on a loop whose `time` is `clock`."""

    def run_with(clock: Callable[[], float], main: Main) -> Any:
        class Derived(factory):  # type: ignore[misc,valid-type]
            pass

        async def patched() -> Any:
            asyncio.get_running_loop().time = clock  # type: ignore[method-assign]
            return await main()

        def thread() -> Any:
            if request.param == "derived":
                Derived.time = lambda _: clock()
            loop = Derived()
            if request.param == "patched class":
                monkeypatch.setattr(factory, "time", lambda _: clock())
            elif request.param == "instance":
                loop.time = clock
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                return runner.run(patched() if request.param == "running instance" else main())

        return on_thread(thread)

    return run_with


def test_delays_count_from_its_own_time(run_with: RunWith) -> None:
    def clock() -> float:
        return time.monotonic() + 1000

    async def main() -> tuple[bool, float]:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(60, print)
        timer.cancel()
        is_later = loop.time() < timer.when() <= loop.time() + 60
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        await asyncio.sleep(0.01)
        return is_later, time.monotonic() - started

    is_later, took = run_with(clock, main)
    assert is_later
    assert 0.02 <= took < 10


@pytest.mark.parametrize("debug", [False, True])
def test_timers_are_due_when_its_clock_says_so(run_with: RunWith, debug: bool) -> None:
    clock = Clock()

    async def main() -> list[list[int]]:
        loop = asyncio.get_running_loop()
        loop.set_debug(debug)
        loop.slow_callback_duration = 1e9
        called: list[int] = []
        seen = []
        for n in (3, 1, 2):
            loop.call_later(n * 100, called.append, n)
        for now in (1000, 1099, 1100, 1300):
            clock.now = now
            await turns(3)
            seen.append(called.copy())
        return seen

    assert run_with(clock, main) == [[], [], [1], [1, 2, 3]]


async def turns(count: int) -> None:
    """Returns when the loop has looked at its timers so many times."""
    loop = asyncio.get_running_loop()
    for _ in range(count):
        looked = loop.create_future()
        loop.call_at(loop.time(), looked.set_result, None)
        await looked


def test_a_clock_that_stands_holds_a_timer_back(run_with: RunWith) -> None:
    clock = Clock(0.0)

    async def main() -> list[bool]:
        loop = asyncio.get_running_loop()
        sleeper = loop.create_task(asyncio.sleep(0.001))
        done = []
        for moved in (0.0, 0.0005, 0.0009, 0.001):
            clock.now = moved
            until = time.monotonic() + 0.002
            while time.monotonic() < until:
                pass  # Longer in the world's time than the timer has left.
            await turns(2)
            done.append(sleeper.done())
        return done

    assert run_with(clock, main) == [False, False, False, True]


def test_what_the_clocks_resolution_covers_is_due(run_with: RunWith) -> None:
    clock = Clock(0.0)

    async def main() -> float:
        loop = asyncio.get_running_loop()
        loop._clock_resolution = 0.5  # type: ignore[attr-defined]
        due = loop.create_future()
        loop.call_at(0.5, lambda: due.set_result(clock.now))
        loop.call_soon(setattr, clock, "now", 0.25)
        return await due

    assert run_with(clock, main) == 0.25


def test_what_the_clock_raises_ends_the_run(run_with: RunWith) -> None:
    class Broken(Exception):
        pass

    clock = Clock()

    def broken() -> float:
        if clock.now > 1000:
            clock.now = 1000
            raise Broken
        return clock()

    async def main() -> None:
        asyncio.get_running_loop().call_later(1, print)
        clock.now = 2000
        await asyncio.Event().wait()

    with pytest.raises(Broken):
        run_with(broken, main)


def test_a_clock_that_is_taken_away_is_the_systems_again(
    factory: LoopFactory, on_thread: OwnThread
) -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        loop.time = Clock()  # type: ignore[method-assign]
        del loop.time
        started = time.monotonic()
        await asyncio.sleep(0.01)
        return time.monotonic() - started

    def thread() -> float:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main())

    assert 0.01 <= on_thread(thread) < 10
