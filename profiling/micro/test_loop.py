"""What tasks and callbacks cost on treadle's loop, beside asyncio's own."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import treadle

TIMES = 1_000


@pytest.fixture(
    params=[treadle.new_event_loop, asyncio.SelectorEventLoop], ids=["treadle", "asyncio"]
)
def loop(request: Any) -> Iterator[asyncio.AbstractEventLoop]:
    """A loop of each kind."""
    made = request.param()
    yield made
    made.close()


async def _chain() -> int:
    running = asyncio.get_running_loop()
    done: asyncio.Future[int] = running.create_future()

    def step(left: int) -> None:
        if left:
            running.call_soon(step, left - 1)
        else:
            done.set_result(TIMES)

    step(TIMES)
    return await done


async def _switches() -> int:
    for _ in range(TIMES):
        await asyncio.sleep(0)
    return TIMES


async def _value() -> int:
    return 1


async def _tasks() -> int:
    running = asyncio.get_running_loop()
    return sum([await running.create_task(_value()) for _ in range(TIMES)])


async def _gather() -> int:
    return sum(await asyncio.gather(*(_value() for _ in range(TIMES))))


async def _timers() -> int:
    running = asyncio.get_running_loop()
    for _ in range(TIMES):
        running.call_later(60, print).cancel()
    return TIMES


@pytest.mark.parametrize(
    "work", [_chain, _switches, _tasks, _gather, _timers], ids=lambda w: w.__name__
)
def test_a_thousand(
    benchmark: Any, loop: asyncio.AbstractEventLoop, work: Callable[[], Any]
) -> None:
    """A thousand of each kind of work."""
    assert benchmark(lambda: loop.run_until_complete(work())) == TIMES
