"""What the tests of the bridge bring to a moment, and how far a loop goes meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any

Run = Callable[[Coroutine[Any, Any, Any]], Any]


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
