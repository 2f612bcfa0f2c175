"""Streams across the bridge: Rust's that Python iterates, Python's that Rust iterates."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import pytest
from support.scenes import Run, settled, turns

# -- Rust's, for Python -----------------------------------------------------------------------------


def test_a_stream_is_iterated(probe: ModuleType, run: Run) -> None:
    async def main() -> None:
        assert [item async for item in probe.count(5)] == [0, 1, 2, 3, 4]
        iterator = probe.count(1)
        assert await anext(iterator) == 0
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(iterator)

    run(main())


def test_aclose_and_dropping_drop_the_stream(probe: ModuleType, run: Run) -> None:
    async def main() -> None:
        iterator = probe.count(5)
        assert await anext(iterator) == 0
        assert probe.alive() == 1
        await iterator.aclose()
        assert probe.alive() == 0
        with pytest.raises(StopAsyncIteration):
            await anext(iterator)
        iterator = probe.count(5)
        del iterator
        assert probe.alive() == 0
        iterator = probe.waiting()
        waiter = asyncio.create_task(anext(iterator))  # type: ignore[arg-type]
        await turns()
        with pytest.raises(RuntimeError, match="already running"):
            await anext(iterator)
        waiter.cancel()
        await settled(waiter)
        assert probe.alive() == 1  # the stream is as it was
        await iterator.aclose()
        assert probe.alive() == 0

    run(main())


def test_aclose_ends_the_waiting_for_an_item(probe: ModuleType, run: Run) -> None:
    async def main() -> None:
        iterator = probe.waiting()

        async def iterate() -> list[Any]:
            return [item async for item in iterator]

        waiter = asyncio.create_task(iterate())
        await turns()
        await iterator.aclose()
        assert await waiter == []
        assert probe.alive() == 0
        with pytest.raises(StopAsyncIteration):
            await anext(iterator)

    run(main())


def test_a_panic_ends_a_stream(probe: ModuleType, run: Run, capfd: Any) -> None:
    async def main() -> None:
        iterator = probe.count(5, panic_at=1)
        assert await anext(iterator) == 0
        with pytest.raises(RuntimeError, match="panicked"):
            await anext(iterator)
        with pytest.raises(StopAsyncIteration):
            await anext(iterator)

    run(main())


# -- Python's, for Rust -----------------------------------------------------------------------------


def test_a_generator_is_a_stream(probe: ModuleType, run: Run) -> None:
    tasks: set[Any] = set()
    produced: list[int] = []

    async def generate() -> AsyncIterator[int]:
        for number in range(4):
            tasks.add(asyncio.current_task())
            produced.append(number)
            yield number
            await asyncio.sleep(0)

    async def main() -> None:
        assert await probe.collect(generate()) == [0, 1, 2, 3]
        assert len(tasks) == 1
        produced.clear()
        assert await probe.collect(generate(), 2) == [0, 1]
        assert produced == [0, 1]  # nothing ahead of demand

    run(main())


def test_dropping_a_stream_closes_the_generator(probe: ModuleType, run: Run) -> None:
    ends: list[str] = []

    async def generate(wait: bool) -> AsyncIterator[int]:
        try:
            yield 0
            if wait:
                await asyncio.get_running_loop().create_future()
            yield 1
        except BaseException as error:
            ends.append(type(error).__name__)
            raise
        finally:
            await asyncio.sleep(0)
            ends.append("ended")

    async def main() -> None:
        assert await probe.collect(generate(False), 1) == [0]
        await turns(10)
        assert ends == ["GeneratorExit", "ended"]
        ends.clear()
        waiting = asyncio.create_task(probe.collect(generate(True)))
        await turns(10)
        waiting.cancel()
        await turns(10)
        assert waiting.cancelled()
        assert ends == ["CancelledError", "ended"]

    run(main())


def test_a_generator_that_fails_ends_the_stream(probe: ModuleType, run: Run) -> None:
    async def generate() -> AsyncIterator[int]:
        yield 0
        raise KeyError("on purpose")

    async def main() -> None:
        with pytest.raises(KeyError) as raised:
            await probe.collect(generate())
        assert "in generate" in "".join(traceback.format_exception(raised.value))
        with pytest.raises(TypeError, match="requires an object with __aiter__"):
            await probe.collect(3)
        assert await probe.collect(probe.count(3)) == [0, 1, 2]

    run(main())


def test_a_failure_counts_when_the_last_item_is_fetched_after_it(
    probe: ModuleType, run: Run
) -> None:
    """A stream that ends short of its items must not look as if it were complete."""
    tasks: list[Any] = []

    async def generate(event: asyncio.Event) -> AsyncIterator[int]:
        tasks.append(asyncio.current_task())
        await event.wait()
        yield 0
        yield 1

    async def main() -> None:
        event = asyncio.Event()
        stream = probe.hold_stream(generate(event))
        assert stream.poll() is None
        event.set()
        await turns()
        tasks.pop().cancel()  # as the end of a program does; the item waits to be fetched
        await turns()
        assert stream.poll() == [0]
        with pytest.raises(asyncio.CancelledError):
            stream.poll()
        assert stream.poll() == []

    run(main())


def test_the_iterator_is_closed_and_not_what_it_came_from(probe: ModuleType, run: Run) -> None:
    ends: list[Any] = []

    class Rows:
        async def __aiter__(self) -> AsyncIterator[Any]:
            try:
                yield asyncio.current_task()
            finally:
                ends.append(asyncio.current_task())

        async def aclose(self) -> None:
            ends.append("the rows")

    async def main() -> None:
        ends.clear()
        stream = probe.hold_stream(Rows())
        (task,) = stream.poll()
        stream.drop()
        await turns()
        assert ends == [task]

    run(main())
