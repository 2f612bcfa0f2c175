"""What the tests of a LoopPool run on it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any


async def value(thing: Any) -> Any:
    await asyncio.sleep(0)
    return thing


async def fails(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


async def where() -> str:
    await asyncio.sleep(0)
    return threading.current_thread().name


class Gate:
    """Coroutines that wait for the test, wherever they run."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.ended: list[str] = []
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def wait(self, name: str = "") -> str:
        event = asyncio.Event()
        self._waiting.append((asyncio.get_running_loop(), event))
        self.entered.release()
        try:
            await event.wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("done")
        return name

    def wait_entered(self, count: int = 1) -> None:
        for _ in range(count):
            assert self.entered.acquire(timeout=10)

    def open(self) -> None:
        for loop, event in self._waiting:
            loop.call_soon_threadsafe(event.set)
