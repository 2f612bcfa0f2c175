"""An extension built on pyo3-async-runtimes, unchanged, on a lane and on asyncio's own loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

import treadle
from profiling.extensions import BUILDING, load
from treadle.profile import budget

pytestmark = pytest.mark.timeout(BUILDING)

FACTORIES: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "lane": treadle.new_event_loop,
    "asyncio": asyncio.SelectorEventLoop,
}
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture(params=FACTORIES)
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=FACTORIES[request.param]) as runner:
        yield runner


@pytest.fixture(scope="module")
def interop() -> ModuleType:
    return load("interop")


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - a Tokio thread sets it
            await asyncio.sleep(0.001)


@pytest.mark.timing
def test_rust_futures_are_awaited(interop: ModuleType, runner: asyncio.Runner) -> None:
    async def main() -> None:
        assert await interop.ready("value") == "value"
        assert await asyncio.gather(*(interop.ready(n) for n in range(100))) == list(range(100))
        with pytest.raises(ValueError, match="from a Tokio thread"):
            await interop.fails()
        before = time.monotonic()
        await asyncio.gather(*(interop.sleep(0.05) for _ in range(20)))
        assert 0.05 <= time.monotonic() - before < 1

    runner.run(main())


def test_coroutines_are_awaited_from_tokio_threads(
    interop: ModuleType, runner: asyncio.Runner
) -> None:
    async def where() -> tuple[str, str]:
        await asyncio.sleep(0)
        return threading.current_thread().name, variable.get()

    async def fails() -> None:
        await asyncio.sleep(0)
        raise KeyError("on purpose")

    async def main() -> None:
        variable.set("mine")
        here = (threading.current_thread().name, "mine")
        assert await interop.call(where()) == here
        assert await interop.call_from_a_tokio_thread(where) == here
        assert await interop.call(interop.ready(1)) == 1
        for call in (interop.call(fails()), interop.call_from_a_tokio_thread(fails)):
            with pytest.raises(KeyError, match="on purpose"):
                await call

    runner.run(main())


def test_cancelling_the_coroutine_drops_the_rust_future(
    interop: ModuleType, runner: asyncio.Runner
) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await interop.sleep(3600)
        await wait_until(lambda: interop.alive() == 0)

    runner.run(main())


def test_cancelling_what_rust_awaits_reaches_rust_and_comes_back(
    interop: ModuleType, runner: asyncio.Runner
) -> None:
    # The other way round, dropping its future, pyo3-async-runtimes cancels nothing.
    async def main() -> None:
        tasks: list[Any] = []

        async def forever() -> None:
            tasks.append(asyncio.current_task())
            await asyncio.get_running_loop().create_future()

        call = interop.call(forever())
        await wait_until(lambda: bool(tasks))
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert tasks[0].cancelled()

    runner.run(main())


def test_on_the_lanes_of_a_pool(interop: ModuleType) -> None:
    async def work(number: int) -> int:
        doubled: int = await interop.call(interop.ready(2 * number))
        return doubled

    with treadle.LoopPool(lanes=2) as pool:
        assert pool.map(work, range(100)) == [2 * number for number in range(100)]


def test_in_a_handler(interop: ModuleType, serve: Any, raw: Any) -> None:
    app = treadle.App()

    @app.get("/")
    async def handler() -> int:
        number: int = await interop.call(interop.ready(42))
        return number

    connection = raw(serve(app))
    assert connection.get().body == b"42"


def test_a_round_trip_of_it_stands_in_the_async_budget(interop: ModuleType) -> None:
    measured = budget.measure(rounds=1, count=64, foreign=lambda: interop.ready(1))
    line = next(line for line in measured.lines if line.name == "conversion across the bridge")
    figure = line.figures[budget.BRIDGE]
    assert figure is not None
    assert figure.ns > 0
