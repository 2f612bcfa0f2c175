"""Nobody starves on the event loop.

Each body runs on asyncio's loop as well, unless it is about ours: what holds is its behaviour.
"""

from __future__ import annotations

import asyncio

import pytest
from support.loops import Run, pair


class Busy:
    """A chain of callbacks without end, each adding the next."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._on = True
        self.turns = 0
        self._again()

    def _again(self) -> None:
        self.turns += 1
        if self._on:
            self._loop.call_soon(self._again)

    def stop(self) -> None:
        self._on = False


def test_a_busy_chain_of_callbacks_does_not_starve_descriptors_timers_or_threads(
    run: Run,
) -> None:
    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        busy = Busy(loop)
        with pair() as (here, there):
            readable = loop.create_future()
            loop.add_reader(
                here, lambda: (loop.remove_reader(here), readable.set_result(here.recv(1)))
            )
            there.send(b"x")
            seen: list[object] = [await readable]
        await asyncio.sleep(0.001)
        seen.append("timer")
        seen.append(await asyncio.to_thread(lambda: "thread"))
        busy.stop()
        return seen

    assert run(main) == [b"x", "timer", "thread"]


def test_a_busy_descriptor_does_not_starve_callbacks_or_timers(run: Run) -> None:
    async def main() -> bool:
        loop = asyncio.get_running_loop()
        with pair() as (here, there):
            calls = 0

            def read() -> None:
                nonlocal calls
                calls += 1

            there.send(b"x")
            loop.add_reader(here, read)  # never reads: always ready
            for _ in range(100):
                await asyncio.sleep(0)
            await asyncio.sleep(0.001)
            loop.remove_reader(here)
            return calls > 1

    assert run(main) is True


async def long_steps() -> int:
    """How many steps of 2 ms pass until a timer and a descriptor have both had their turn."""
    loop = asyncio.get_running_loop()
    steps = 0
    fired: list[int] = []
    with pair() as (here, there):
        loop.call_later(0.001, lambda: fired.append(steps))
        loop.add_reader(here, lambda: (loop.remove_reader(here), fired.append(steps)))
        there.send(b"x")
        while len(fired) < 2:
            steps += 1
            until = loop.time() + 0.002
            while loop.time() < until:
                pass
            await asyncio.sleep(0)
    return max(fired)


def test_long_steps_do_not_hold_timers_and_descriptors_back_for_several_rounds(run: Run) -> None:
    assert run(long_steps) <= 2


@pytest.mark.parametrize("short", range(4))
def test_long_steps_behind_short_ones_do_not_hold_timers_and_descriptors_back(
    run: Run, short: int
) -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        # A timer begins the turn, and what it wakes does next to nothing at first.
        begins = loop.create_future()
        loop.call_later(0.005, begins.set_result, None)
        await begins
        for _ in range(short):
            await asyncio.sleep(0)
        return await long_steps()

    assert run(main) <= 2
