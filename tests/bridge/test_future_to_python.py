"""Rust futures that Python awaits: every event at every moment, and what comes out of it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any

import pytest
from support.peek import look_from_outside

from profiling.extensions import build
from profiling.paths import ROOT

Run = Callable[[Coroutine[Any, Any, Any]], Any]

MOMENTS = ["before start", "first step", "suspended", "completing", "after"]
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def settled(task: asyncio.Future[Any]) -> Any:
    """The outcome of a task as a value: its result, or the exception."""
    try:
        return await task
    except BaseException as error:
        return error


class Scene:
    """A Task that awaits a gated Rust future, brought to a moment."""

    def __init__(self, probe: ModuleType) -> None:
        self.probe = probe
        self.awaitable, self.gate = probe.gated()
        self.task: asyncio.Task[Any] | None = None

    async def reach(self, moment: str) -> Scene:
        if moment == "before start":
            return self
        self.task = asyncio.create_task(self.body(self.awaitable))
        self.awaitable = None
        if moment == "first step":
            return self
        await turns()
        if moment in ("completing", "after"):
            assert self.gate.open(7)
        if moment == "after":
            await turns()
            assert self.task.done()
        return self

    async def body(self, awaitable: Any) -> Any:
        return await awaitable

    def start(self) -> asyncio.Task[Any]:
        if self.task is None:
            self.task = asyncio.create_task(self.body(self.awaitable))
            self.awaitable = None
        return self.task


@pytest.mark.parametrize("moment", MOMENTS)
def test_cancel(probe: ModuleType, run: Run, moment: str) -> None:
    async def main() -> None:
        scene = await Scene(probe).reach(moment)
        task = scene.start()
        assert task.cancel("enough") is (moment != "after")
        outcome = await settled(task)
        if moment == "after":
            assert outcome == 7
        else:
            assert isinstance(outcome, asyncio.CancelledError)
            assert outcome.args == ("enough",)
        if moment in ("before start", "first step"):
            scene.task = task = outcome = None  # the future goes with the coroutine
            await turns()
            gc.collect()
        assert probe.alive() == 0
        assert not scene.gate.open(8)
        assert await probe.later(1) == 1

    run(main())


@pytest.mark.parametrize("moment", MOMENTS[:1] + MOMENTS[2:])
def test_drop(probe: ModuleType, run: Run, moment: str) -> None:
    async def main() -> None:
        awaitable, gate = probe.gated()
        coroutine = Scene.body(None, awaitable)  # type: ignore[arg-type]
        del awaitable
        if moment != "before start":
            yielded = coroutine.send(None)
            assert asyncio.isfuture(yielded)
            del yielded
        if moment in ("completing", "after"):
            gate.open(7)
        if moment == "after":
            await turns()
            with pytest.raises(StopIteration, match="7"):
                coroutine.send(None)
        coroutine.close()
        del coroutine
        assert probe.alive() == 0
        assert not gate.open(8)
        await turns()

    run(main())


@pytest.mark.parametrize("moment", MOMENTS)
def test_panic(probe: ModuleType, run: Run, moment: str, capfd: Any) -> None:
    async def main() -> None:
        scene = await Scene(probe).reach(moment)
        assert scene.gate.panic() is (moment not in ("completing", "after"))
        outcome = await settled(scene.start())
        if moment in ("completing", "after"):
            assert outcome == 7
        else:
            assert type(outcome) is RuntimeError
            assert str(outcome) == "a Rust future panicked: on purpose"
        assert probe.alive() == 0
        assert await probe.later(1) == 1

    run(main())


@pytest.mark.parametrize("moment", MOMENTS)
def test_exception(probe: ModuleType, run: Run, moment: str) -> None:
    async def main() -> None:
        scene = await Scene(probe).reach(moment)
        mistake = KeyError("on purpose")
        assert scene.gate.fail(mistake) is (moment not in ("completing", "after"))
        outcome = await settled(scene.start())
        if moment in ("completing", "after"):
            assert outcome == 7
        else:
            assert outcome is mistake
            assert "in body" in "".join(traceback.format_exception(outcome))
        assert probe.alive() == 0

    run(main())


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_loop_stops(
    probe: ModuleType,
    factory: Callable[[], asyncio.AbstractEventLoop],
    moment: str,
) -> None:
    loop = factory()
    reports: list[str] = []
    loop.set_exception_handler(lambda _, context: reports.append(context["message"]))
    scene: Scene | None = None

    async def main() -> None:
        nonlocal scene
        scene = await Scene(probe).reach(moment)
        loop.stop()
        await loop.create_future()

    hanging = loop.create_task(main())
    loop.run_forever()
    assert scene is not None
    gate = scene.gate
    if moment == "before start":
        scene = None
        gc.collect()
        assert not gate.open(1)
    elif moment == "suspended":
        assert gate.open(1)  # while the loop stands still; it is delivered when it runs again
        loop.run_until_complete(asyncio.wait_for(scene.task, 10))
        assert scene.task.result() == 1
    scene = None
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(loop), return_exceptions=True))
    loop.close()
    assert hanging.cancelled()
    del hanging, task
    gc.collect()
    assert probe.alive() == 0
    assert not gate.open(2)
    assert not reports


def test_a_loop_that_is_closed_lets_go_of_what_it_suspended(
    probe: ModuleType, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    loop = factory()
    reports: list[str] = []
    loop.set_exception_handler(lambda _, context: reports.append(context["message"]))

    async def start() -> tuple[asyncio.Task[Any], Any]:
        scene = await Scene(probe).reach("suspended")
        assert scene.task is not None
        return scene.task, scene.gate

    task, gate = loop.run_until_complete(start())
    loop.close()
    # A late completion, from another thread: discarded.
    thread = threading.Thread(target=gate.open, args=(1,))
    thread.start()
    thread.join()
    del task
    gc.collect()
    assert reports == ["Task was destroyed but it is pending!"]
    assert probe.alive() == 0


# -- outcomes -------------------------------------------------------------------------------------


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


def test_no_loop_is_an_error(probe: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        probe.ready(1)


def test_another_loop_is_refused_by_name(
    probe: ModuleType, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def make() -> Any:
        return probe.gated()[0]

    async def use(awaitable: Any) -> None:
        await awaitable

    home = factory()
    awaitable = home.run_until_complete(make())

    def elsewhere() -> BaseException:
        other = factory()
        try:
            return other.run_until_complete(settled(other.create_task(use(awaitable))))
        finally:
            other.close()

    outcomes: list[Any] = []
    thread = threading.Thread(target=lambda: outcomes.append(elsewhere()), name="the-other")
    thread.start()
    thread.join()
    assert type(outcomes[0]) is RuntimeError
    for part in ("this Rust future belongs to", "MainThread", "cannot be used on", "the-other"):
        assert part in str(outcomes[0])
    # On the same thread too.
    error = elsewhere()
    assert type(error) is RuntimeError
    assert "belongs to" in str(error)
    home.close()


def test_a_loop_that_moves_to_another_thread_says_what_cannot_move(
    probe: ModuleType, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """On a lane of the same library it refuses to run; any other loop reports it at the wake-up."""
    loop = factory()
    reports: list[str] = []

    async def suspend() -> tuple[asyncio.Task[Any], Any]:
        awaitable, gate = probe.gated()
        task = asyncio.ensure_future(awaitable)
        await turns()
        return task, gate

    def on_another_thread(use: Callable[[], object]) -> None:
        def thread() -> None:
            try:
                use()
            except RuntimeError as error:
                reports.append(str(error))

        other = threading.Thread(target=thread, name="the-other")
        other.start()
        other.join()

    async def complete() -> None:
        reported = asyncio.Event()

        def report(_: object, context: dict[str, Any]) -> None:
            reports.append(str(context["exception"]))
            reported.set()

        loop.set_exception_handler(report)
        gate.open(1)
        await reported.wait()

    task, gate = loop.run_until_complete(suspend())
    running = complete()
    on_another_thread(lambda: loop.run_until_complete(running))
    (said,) = reports
    for part in (
        "1 Rust future(s) are suspended on",
        "MainThread",
        "cannot run on thread the-other",
    ):
        assert part in said
    # On its own thread all goes on, and then it may move.
    if "on lane" in said:
        gate.open(1)
    else:
        task.cancel()  # the wake-up came to nothing
    left = asyncio.all_tasks(loop) | {task}
    loop.run_until_complete(asyncio.wait(left, timeout=10))
    assert task.cancelled() or task.result() == 1
    on_another_thread(lambda: loop.run_until_complete(turns()))
    assert reports == [said]
    loop.close()


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


# -- streams --------------------------------------------------------------------------------------


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


def test_a_panic_ends_a_stream(probe: ModuleType, run: Run, capfd: Any) -> None:
    async def main() -> None:
        iterator = probe.count(5, panic_at=1)
        assert await anext(iterator) == 0
        with pytest.raises(RuntimeError, match="panicked"):
            await anext(iterator)
        with pytest.raises(StopAsyncIteration):
            await anext(iterator)

    run(main())
