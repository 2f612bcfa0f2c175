"""What Python awaits, for a thread that is not the loop's: outcomes, drops, and loops that go away."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest
from support.scenes import Run, Scene, turns

import treadle

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


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


def test_what_another_thread_has_called_panics(probe: ModuleType, run: Run, capfd: Any) -> None:
    async def main() -> None:
        here = probe.current_loop()
        panics, follows = here.panic(), here.spawn(lambda: asyncio.sleep(0, "the next letter"))
        with pytest.raises(RuntimeError, match="panicked: on purpose"):
            await on_thread(panics.wait)
        assert await on_thread(follows.wait) == "the next letter"

    run(main())


def test_what_another_thread_drops_panics(
    probe: ModuleType, run: Run, capfd: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It is sent home and dropped there, which is no reason for the loop to end."""

    async def main() -> None:
        here = probe.current_loop()
        bombs = [probe.bomb()]
        # Without the GIL an object goes on the thread that made it, unless that gave it up before.
        taken: list[Any] = []
        await on_thread(lambda: taken.extend(bombs))
        bombs.clear()
        await on_thread(taken.clear)
        follows = here.spawn(lambda: asyncio.sleep(0, "the next letter"))
        assert await on_thread(follows.wait) == "the next letter"

    run(main())
    assert "on purpose" in capfd.readouterr().err
    assert not caplog.records


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
