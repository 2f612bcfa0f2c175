"""What Python awaits, as a Rust future: every event at every moment, on the thread of its loop."""

from __future__ import annotations

import asyncio
import gc
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest
from support.scenes import Run, Scene, turns

MOMENTS = ["first step", "suspended", "completing", "after"]


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
