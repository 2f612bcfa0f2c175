"""Rust futures that Python awaits: every event at every moment."""

from __future__ import annotations

import asyncio
import gc
import threading
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from support.scenes import Run, settled, turns

MOMENTS = ["before start", "first step", "suspended", "completing", "after"]


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
