"""What asyncio's own eager Tasks come to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


def outcome_of_eager_task(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """The result of `work()` in an `asyncio.Task(eager_start=True)` on asyncio's loop."""

    async def reference() -> Any:
        loop = asyncio.get_running_loop()
        task = asyncio.Task(work(), loop=loop, eager_start=True)
        await asyncio.wait([task])
        return task.result()

    return asyncio.run(reference())
