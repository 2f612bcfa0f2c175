"""What Python awaits, as a Rust future: every event at every moment, on the thread and off it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import traceback
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest

import treadle

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class Task(asyncio.Task[Any]):
    """What a tool puts in the place of asyncio's."""


MOMENTS = ["first step", "suspended", "completing", "after"]
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Scene:
    """A coroutine that Rust awaits, and what became of it."""

    def __init__(self, probe: ModuleType) -> None:
        self.probe = probe
        self.event = asyncio.get_running_loop().create_future()
        self.ended: list[str] = []
        self.task: asyncio.Task[Any] | None = None
        self.raises: BaseException | None = None

    async def body(self, at_once: bool) -> Any:
        self.task = asyncio.current_task()
        try:
            if not at_once:
                await self.event
            if self.raises:
                raise self.raises
            return 7
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        finally:
            self.ended.append("ended")

    async def reach(self, moment: str) -> Any:
        held = self.probe.hold(self.body(at_once=moment == "first step"))
        if moment != "first step":
            assert not self.ended
            await turns()
            assert held.poll() is None
        if moment in ("completing", "after"):
            self.event.set_result(None)
        if moment == "after":
            await turns()
            assert self.ended == ["ended"]
        return held


@pytest.mark.parametrize("moment", MOMENTS)
def test_drop(probe: ModuleType, run: Run, moment: str) -> None:
    async def main() -> None:
        scene = Scene(probe)
        held = await scene.reach(moment)
        held.drop()
        await turns()
        done_before = moment in ("first step", "after")
        assert scene.ended == (["ended"] if done_before else ["cancelled", "ended"])

    run(main())


@pytest.mark.parametrize("moment", MOMENTS)
def test_drop_on_another_thread(probe: ModuleType, run: Run, moment: str) -> None:
    async def main() -> None:
        scene = Scene(probe)
        held = await scene.reach(moment)
        thread = threading.Thread(target=held.drop)
        thread.start()
        thread.join()
        for _ in range(200):
            await asyncio.sleep(0)
            if scene.ended:
                break
        if moment == "suspended":
            assert scene.ended == ["cancelled", "ended"]
        else:
            assert scene.ended[-1] == "ended"

    run(main())


@pytest.mark.parametrize("moment", MOMENTS)
def test_cancel(probe: ModuleType, run: Run, moment: str) -> None:
    async def main() -> None:
        scene = Scene(probe)
        held = await scene.reach(moment)
        assert scene.task is not None
        scene.task.cancel("enough")
        await turns()
        if moment in ("first step", "after"):
            assert held.poll() == (7,)
        else:
            with pytest.raises(asyncio.CancelledError):
                held.poll()
            assert scene.task.cancelled()

    run(main())


@pytest.mark.parametrize("moment", MOMENTS[:3])
def test_exception(probe: ModuleType, run: Run, moment: str) -> None:
    async def main() -> None:
        scene = Scene(probe)
        scene.raises = KeyError("on purpose")
        held = await scene.reach(moment)
        if moment == "suspended":
            scene.event.set_result(None)
        await turns()
        with pytest.raises(KeyError) as raised:
            held.poll()
        assert raised.value is scene.raises
        assert "in body" in "".join(traceback.format_exception(raised.value))

    run(main())


@pytest.mark.parametrize("at_once", [True, False])
def test_panic(probe: ModuleType, run: Run, at_once: bool, capfd: Any) -> None:
    async def main() -> None:
        awaitable, gate = probe.gated()
        if at_once:
            gate.panic()
        call = asyncio.create_task(probe.call(awaitable))
        await turns()
        gate.panic()
        with pytest.raises(RuntimeError, match="a Rust future panicked: on purpose"):
            await call
        assert await probe.call(probe.later(1)) == 1

    run(main())


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_loop_stops(
    probe: ModuleType, factory: Callable[[], asyncio.AbstractEventLoop], moment: str
) -> None:
    loop = factory()

    async def start() -> Any:
        scene = Scene(probe)
        return scene, await scene.reach(moment)

    _, held = loop.run_until_complete(start())
    if moment in ("first step", "after"):
        assert held.poll() == (7,)
    else:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(asyncio.sleep(0))
        try:
            assert held.poll() == (7,)
            assert moment == "completing"
        except asyncio.CancelledError:
            assert moment == "suspended"
    loop.close()
    held.drop()


def test_a_closed_loop_is_not_asked_to_cancel(
    probe: ModuleType, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    loop = factory()
    loop.set_exception_handler(lambda *_: None)  # asyncio says that a pending Task was destroyed

    async def start() -> Any:
        return await Scene(probe).reach("suspended")

    held = loop.run_until_complete(start())
    loop.close()
    held.drop()
    del held
    gc.collect()


def test_polled_on_another_thread_it_says_where_it_belongs(probe: ModuleType, run: Run) -> None:
    async def main() -> None:
        scene = Scene(probe)
        held = await scene.reach("suspended")
        with ThreadPoolExecutor(1) as pool:
            error = pool.submit(held.poll).exception(10)
        assert type(error) is RuntimeError
        assert "this future of a coroutine belongs to" in str(error)
        await turns()
        assert scene.ended == ["cancelled", "ended"]

    run(main())


# -- what can be awaited --------------------------------------------------------------------------


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
        with pytest.raises(RuntimeError, match=r"belongs to .*and cannot be awaited on .*loop is"):
            await probe.call(other.create_future())

    run(main())
    other.close()


def test_no_loop_is_an_error(probe: ModuleType) -> None:
    coroutine = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="no running event loop"):
        probe.hold(coroutine).poll()
    coroutine.close()


# -- from another thread --------------------------------------------------------------------------


def on_thread(function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
    """Calls a function on a thread of its own, in the caller's context."""
    context = contextvars.copy_context()
    executor = ThreadPoolExecutor(1)
    future = asyncio.get_running_loop().run_in_executor(executor, context.run, function, *arguments)
    executor.shutdown(wait=False)
    return future


def test_another_thread_awaits(probe: ModuleType, run: Run) -> None:
    async def value() -> Any:
        before = threading.current_thread()
        await asyncio.sleep(0)
        assert threading.current_thread() is before
        return variable.get(), before.name

    async def fails() -> None:
        await asyncio.sleep(0)
        raise KeyError("on purpose")

    async def main() -> None:
        here = probe.current_loop()
        variable.set("caller")
        name = threading.current_thread().name
        got = await on_thread(lambda: here.start(value()).wait())
        assert got == ("caller", name)
        assert (await on_thread(lambda: here.spawn(value).wait()))[1] == name
        error = (
            await asyncio.gather(
                on_thread(lambda: here.start(fails()).wait()), return_exceptions=True
            )
        )[0]
        assert isinstance(error, KeyError)
        assert "in fails" in "".join(traceback.format_exception(error))
        await on_thread(here.repeat, lambda: asyncio.sleep(0), 100)

    run(main())


@pytest.mark.parametrize("moment", ["before start", "suspended", "after"])
def test_another_thread_drops(probe: ModuleType, run: Run, moment: str) -> None:
    async def main() -> None:
        here = probe.current_loop()
        scene = Scene(probe)
        made = 0

        def make() -> Any:
            nonlocal made
            made += 1
            return scene.body(at_once=moment == "after")

        if moment == "before start":
            here.spawn(make).drop()  # before this loop looks
            await turns(10)
            assert made == 0
            return
        remote = await on_thread(here.spawn, make)
        for _ in range(200):
            await asyncio.sleep(0)
        assert made == 1
        await on_thread(remote.drop)
        for _ in range(200):
            await asyncio.sleep(0)
        assert scene.ended == (["ended"] if moment == "after" else ["cancelled", "ended"])

    run(main())


@pytest.mark.parametrize("moment", ["before start", "suspended", "closed"])
def test_a_loop_that_closes_tells_the_other_thread(
    probe: ModuleType, factory: Callable[[], asyncio.AbstractEventLoop], moment: str
) -> None:
    loop = factory()
    loop.set_exception_handler(lambda *_: None)  # asyncio says that a pending Task was destroyed
    started = threading.Event()

    async def forever() -> None:
        started.set()
        await asyncio.get_running_loop().create_future()

    async def get() -> Any:
        return probe.current_loop()

    home = loop.run_until_complete(get())
    if moment == "closed":
        loop.close()
    remote = home.spawn(forever)
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(remote.wait)
        if moment == "suspended":
            loop.run_until_complete(asyncio.sleep(0.01))
            assert started.is_set()
        loop.close()
        error = outcome.exception(10)
    assert type(error) is RuntimeError
    assert "was closed" in str(error)


@pytest.mark.parametrize("left", ["closed", "open"])
def test_a_thread_that_ends_tells_the_other_thread(
    probe: ModuleType, factory: Callable[[], asyncio.AbstractEventLoop], left: str
) -> None:
    """Also of what is suspended on a Rust future, which knows its home as its home knows it."""
    loop = factory()
    loop.set_exception_handler(lambda *_: None)  # asyncio says that a pending Task was destroyed
    before = probe.alive()

    gates = []
    suspended = asyncio.Event()

    async def forever() -> None:
        awaitable, gate = probe.gated()
        gates.append(gate)
        asyncio.get_running_loop().call_soon(suspended.set)
        await awaitable

    async def start() -> Any:
        remote = probe.current_loop().spawn(forever)
        await suspended.wait()
        return remote

    def thread() -> Any:
        remote = loop.run_until_complete(start())
        if left == "closed":
            loop.close()
            assert probe.alive() == before
        return remote

    with ThreadPoolExecutor(1) as pool:
        remote = pool.submit(thread).result(10)
    with ThreadPoolExecutor(1) as pool:
        error = pool.submit(remote.wait).exception(10)
    if left == "open":
        assert "lost the thread it ran on" in str(error)
    else:
        assert "was closed" in str(error)
    assert type(error) is RuntimeError
    assert probe.alive() == before
    assert not gates[0].open(1)
    loop.close()


def test_a_loop_that_is_closed_elsewhere_tells_the_other_thread(
    probe: ModuleType, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """With the thread that it ran on alive."""
    loop = factory()
    loop.set_exception_handler(lambda *_: None)  # asyncio says that a pending Task was destroyed

    async def start() -> Any:
        return probe.current_loop().spawn(forever)

    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    with ThreadPoolExecutor(1) as home, ThreadPoolExecutor(1) as pool:
        remote = home.submit(loop.run_until_complete, start()).result(10)
        home.submit(loop.run_until_complete, turns(3)).result(10)
        outcome = pool.submit(remote.wait)
        loop.close()
        # The bridge's reader is of that thread: without the GIL it goes when that comes to it.
        home.submit(turns).result(10).close()
        error = outcome.exception(10)
    assert type(error) is RuntimeError
    assert "was closed" in str(error)


def test_a_lane_that_moves_tells_the_other_thread(probe: ModuleType) -> None:
    """What listens to its Tasks stayed behind. Any other loop tells when it is closed."""
    is_lane = sys.modules["treadle._treadle"] is probe._treadle
    loop = treadle.new_event_loop()
    ended: list[str] = []

    async def start() -> Any:
        go_on = asyncio.Event()
        return probe.current_loop().spawn(lambda: wait(go_on)), go_on

    async def wait(go_on: asyncio.Event) -> None:
        await go_on.wait()
        ended.append("ended")

    async def end(go_on: asyncio.Event) -> None:
        go_on.set()
        await turns(3)

    with ThreadPoolExecutor(1) as home, ThreadPoolExecutor(1) as pool:
        remote, go_on = home.submit(loop.run_until_complete, start()).result(10)
        home.submit(loop.run_until_complete, turns(3)).result(10)
        outcome = pool.submit(remote.wait)
        loop.run_until_complete(end(go_on))
        assert ended == ["ended"]
        if not is_lane:
            loop.close()
            home.submit(turns).result(10).close()
        error = outcome.exception(10)
    loop.close()
    assert type(error) is RuntimeError
    assert ("runs on another thread now" if is_lane else "was closed") in str(error)


def test_a_loop_that_lost_the_reader_of_the_bridge_is_not_taken_for_closed(
    probe: ModuleType,
) -> None:
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:

        async def main() -> None:
            here = probe.current_loop()
            loop = asyncio.get_running_loop()
            known = dict(loop._selector.get_map())  # type: ignore[attr-defined]
            found = [fd for fd, key in known.items() if "CloseNotice" in repr(key.data)]
            assert len(found) == 1
            assert loop.remove_reader(found[0])
            del known
            assert await asyncio.to_thread(here.spawn(turns).wait) is None
            assert probe.current_loop() is not None

        runner.run(main())


def test_a_loop_that_is_forgotten_goes_with_its_thread(
    probe: ModuleType, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    def thread() -> weakref.ref[asyncio.AbstractEventLoop]:
        loop = factory()
        loop.run_until_complete(meet())
        loop.close()
        return weakref.ref(loop)

    async def meet() -> None:
        probe.current_loop()

    with ThreadPoolExecutor(1) as pool:
        loop = pool.submit(thread).result(10)
        gc.collect()
        assert loop() is None  # at once: the thread lives


# -- asynchronous iterators -----------------------------------------------------------------------


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
