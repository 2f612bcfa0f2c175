"""What Rust can await of Python's, and what it refuses."""

from __future__ import annotations

import asyncio
import gc
import re
from collections.abc import Callable, Generator
from functools import partial
from types import ModuleType
from typing import Any

import pytest
from support.scenes import Run


class Task(asyncio.Task[Any]):
    """What a tool puts in the place of asyncio's."""


class Custom:
    def __await__(self) -> Generator[Any, None, str]:
        yield from asyncio.sleep(0).__await__()
        return "custom"


def test_whatever_python_awaits(probe: ModuleType, run: Run) -> None:
    async def value() -> str:
        await asyncio.sleep(0)
        return "coroutine"

    async def main() -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_soon(future.set_result, "future")
        assert await probe.call(value()) == "coroutine"
        assert await probe.call(future) == "future"
        assert await probe.call(future) == "future"  # done before
        assert await probe.call(asyncio.create_task(value())) == "coroutine"
        assert await probe.call(Custom()) == "custom"
        assert await probe.call(probe.call(probe.later("nested"))) == "nested"

    run(main())


def test_dropping_cancels_a_future_that_is_followed(probe: ModuleType, run: Run) -> None:
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        held = probe.hold(future)
        assert held.poll() is None
        held.drop()
        assert future.cancelled()

    run(main())


@pytest.mark.parametrize("before", [True, False])
def test_a_future_whose_exception_is_a_panic(probe: ModuleType, run: Run, before: bool) -> None:
    """Of some native extension; it is raised again, and panics nowhere."""
    panic = probe._treadle.PanicException("on purpose")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        (future.set_exception if before else partial(loop.call_soon, future.set_exception))(panic)
        with pytest.raises(BaseException) as raised:  # noqa: PT011 - checked below
            await asyncio.wait_for(probe.call(future), 5)
        assert raised.value is panic

    run(main())


@pytest.mark.parametrize("thing", [None, 3, "text", print, iter([])])
def test_what_cannot_be_awaited(probe: ModuleType, run: Run, thing: Any) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match=r"An asyncio\.Future, a coroutine or an awaitable"):
            await probe.call(thing)

    run(main())


@pytest.mark.parametrize("thing", [None, 3])
def test_what_cannot_be_awaited_from_another_thread(
    probe: ModuleType, run: Run, thing: Any
) -> None:
    async def main() -> None:
        here = probe.current_loop()
        with pytest.raises(TypeError, match=r"An asyncio\.Future, a coroutine or an awaitable"):
            await asyncio.to_thread(here.spawn(lambda: thing).wait)
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(here.spawn(lambda: 1 // 0).wait)

    run(main())


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("task", [asyncio.Task, Task])
def test_what_ends_programs_in_the_first_step_goes_to_who_waits(
    probe: ModuleType,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    task: type[asyncio.Task[Any]],
    kind: type[BaseException],
) -> None:
    """With asyncio's own Task, and with one that was put in its place."""
    monkeypatch.setattr(asyncio, "Task", task)
    reports: list[dict[str, Any]] = []

    async def ends() -> None:
        raise kind("on purpose")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
        here = probe.current_loop()
        with pytest.raises(kind, match="on purpose"):
            await probe.call(ends())
        remote = here.spawn(ends)
        outcome = await asyncio.to_thread(caught, remote.wait)
        assert (type(outcome), outcome.args) == (kind, ("on purpose",))
        del outcome
        gc.collect()

    def caught(call: Callable[[], Any]) -> BaseException:
        # A thread of an executor would hand these on to the loop.
        try:
            call()
        except BaseException as error:
            return error
        raise AssertionError

    run(main())
    assert not reports


def test_a_coroutine_twice(probe: ModuleType, run: Run) -> None:
    async def main() -> None:
        coroutine = asyncio.sleep(0, "slept")
        assert await probe.call(coroutine) == "slept"
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await probe.call(coroutine)

    run(main())


def test_a_future_of_another_loop_is_refused_by_name(
    probe: ModuleType, run: Run, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    other = factory()

    async def main() -> None:
        with pytest.raises(RuntimeError) as refused:
            await probe.call(other.create_future())
        said = re.fullmatch(
            "<Future .*> belongs to (.+) and cannot be awaited on (.+), whose loop is (.+)",
            str(refused.value),
        )
        assert said is not None
        # A lane's own name, or where a loop of another make is: two of a kind have different ones.
        names = [re.search(r"on lane .+|at 0x\w+", said[each]) for each in (1, 3)]
        assert names[0] is not None
        assert names[1] is not None
        assert names[0][0] != names[1][0]
        here = r"(event loop \w+ at 0x\w+|lane 0 of loop \d+) \(thread MainThread\)"
        assert re.fullmatch(here, said[2])

    run(main())
    other.close()


def test_no_loop_is_an_error(probe: ModuleType) -> None:
    coroutine = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="no running event loop"):
        probe.hold(coroutine).poll()
    coroutine.close()
