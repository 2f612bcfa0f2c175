"""What comes out of a Rust future that Python awaits, through all that asyncio puts around it."""

from __future__ import annotations

import asyncio
import contextvars
import re
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from support.peek import look_from_outside
from support.scenes import Run, settled, turns

from profiling.extensions import build
from profiling.paths import ROOT

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.mark.parametrize("value", [None, 1, (1, 2), (), StopIteration(3), ValueError("a value")])
@pytest.mark.parametrize("kind", ["ready", "later", "elsewhere"])
def test_every_value_arrives_as_it_is(probe: ModuleType, run: Run, kind: str, value: Any) -> None:
    async def main() -> None:
        assert await getattr(probe, kind)(value) is value
        assert await asyncio.create_task(getattr(probe, kind)(value)) is value
        assert (await asyncio.gather(getattr(probe, kind)(value)))[0] is value

    run(main())


def test_a_future_that_is_ready_does_not_suspend(probe: ModuleType, run: Run) -> None:
    async def main() -> None:
        with pytest.raises(StopIteration) as stopped:
            probe.ready(5).send(None)
        assert stopped.value.value == 5

    run(main())


def test_it_is_awaited_once(probe: ModuleType, run: Run) -> None:
    async def main() -> None:
        awaitable = probe.ready(1)
        assert await awaitable == 1
        with pytest.raises(RuntimeError, match="cannot reuse already awaited Rust future"):
            await awaitable

    run(main())


def test_two_at_a_time_are_refused(probe: ModuleType, run: Run) -> None:
    async def main() -> None:
        awaitable, gate = probe.gated()
        first = asyncio.create_task(awaitable)
        await turns()
        with pytest.raises(RuntimeError, match="being awaited already"):
            awaitable.add_done_callback(print)
        gate.open(1)
        assert await first == 1

    run(main())


def test_timeouts_shields_and_groups(probe: ModuleType, run: Run) -> None:
    async def main() -> None:
        awaitable, gate = probe.gated()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(awaitable, 0.01)
        awaitable, gate = probe.gated()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await awaitable
        awaitable, gate = probe.gated()
        shielded = asyncio.shield(awaitable)
        shielded.cancel()
        gate.open(1)
        await turns(5)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(probe.elsewhere(n)) for n in range(20)]
        assert [task.result() for task in tasks] == list(range(20))

    run(main())


def test_a_completion_from_another_thread_wakes_the_loop(probe: ModuleType, run: Run) -> None:
    async def main() -> None:
        awaitable, gate = probe.gated()
        threading.Timer(0.05, gate.open, ("there",)).start()
        assert await awaitable == "there"

    run(main())


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_ends_a_loop_ends_it_after_a_wake_up(
    probe: ModuleType, factory: Callable[[], asyncio.AbstractEventLoop], kind: type[BaseException]
) -> None:
    async def main() -> None:
        await probe.later(1)
        raise kind(3)

    with pytest.raises(kind), asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


def test_debug_mode_sees_slow_steps(
    probe: ModuleType,
    factory: Callable[[], asyncio.AbstractEventLoop],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        asyncio.get_running_loop().slow_callback_duration = 0.01
        await probe.later(1)
        caplog.clear()
        time.sleep(0.02)  # noqa: ASYNC251 - that is the point

    async def start() -> None:
        await asyncio.create_task(main())

    with asyncio.Runner(loop_factory=factory, debug=True) as runner:
        runner.run(start())
    assert "Executing <" in caplog.text


def test_spawned_futures_are_tasks(probe: ModuleType, run: Run) -> None:
    async def main() -> None:
        task, gate = probe.spawned()
        assert isinstance(task, asyncio.Task)
        gate.open(4)
        assert await asyncio.gather(task, task) == [4, 4]
        task, gate = probe.spawned()
        await turns()
        assert probe.alive() == 1
        task.cancel()
        assert isinstance(await settled(task), asyncio.CancelledError)
        assert probe.alive() == 0
        task, gate = probe.spawned()
        gate.panic()
        assert "panicked" in str(await settled(task))

    run(main())


WATCHED = """
import sys
sys.path.insert(0, {root!r})
from profiling.extensions import load_library
probe = load_library("probe", {library!r})
import asyncio, treadle

async def awaits(future):
    await future

async def main():
    future, gate = probe.gated()
    waiting = asyncio.create_task(awaits(future), name="awaits")
    spawned, another = probe.spawned()
    spawned.set_name("spawned")
    await asyncio.sleep(0.001)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    gate.open(1)
    another.open(1)
    await asyncio.wait([waiting, spawned])

treadle.run(main())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 14), reason="new in CPython 3.14")
def test_asyncio_ps_reads_tasks_that_wait_for_rust(probe: ModuleType) -> None:
    script = WATCHED.format(root=str(ROOT), library=str(build("probe")))
    (listed,) = look_from_outside([sys.executable, "-c", script], "ps")
    assert re.search(r"awaits +awaits ", listed)
    assert re.search(r"spawned +wait ", listed)


def test_context_variables_are_those_of_the_awaiting_task(probe: ModuleType, run: Run) -> None:
    seen: list[str] = []

    async def look() -> None:
        seen.append(variable.get())
        await asyncio.sleep(0)
        seen.append(variable.get())

    async def main() -> None:
        variable.set("mine")
        await probe.call(look())
        await asyncio.create_task(probe.call(look()))

    run(main())
    assert seen == ["mine"] * 4
