"""What handlers do with their Task, and what they wait for."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="unset")


def this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


def soon(future: asyncio.Future[Any], result: object = None) -> asyncio.Future[Any]:
    asyncio.get_running_loop().call_soon(future.set_result, result)
    return future


def future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()
