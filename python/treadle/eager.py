"""Tasks that take their first step where they are made."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any


def eager_task[T](
    coroutine: Coroutine[Any, Any, T],
    loop: asyncio.AbstractEventLoop,
    context: contextvars.Context,
) -> asyncio.Task[T]:
    """A Task that has taken its first step; on the thread that runs `loop`.

    `SystemExit` and `KeyboardInterrupt` come out of the constructor of an eager Task. The Task is
    done all the same, and has them as its exception; made in two steps, it is not lost with them.
    """
    task: asyncio.Task[T] = asyncio.Task.__new__(asyncio.Task)
    try:
        asyncio.Task.__init__(task, coroutine, loop=loop, context=context, eager_start=True)
    except (SystemExit, KeyboardInterrupt):
        task.done()  # raises when it is not even made
    return task
