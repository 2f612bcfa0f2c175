"""The app of the budget's lane: routes that differ in one thing each, and the lane's own clock."""

import asyncio
import time

from treadle import App, Request

app = App()
ANSWER = {"message": "hello", "n": 1}


@app.get("/clock")
def clock() -> int:
    """CPU time of this lane's thread, in nanoseconds."""
    return time.thread_time_ns()


@app.get("/sync")
def sync() -> dict[str, object]:
    """A plain call."""
    return ANSWER


@app.get("/async")
async def no_await() -> dict[str, object]:
    """A coroutine, in a Task, that never suspends."""
    return ANSWER


@app.get("/suspend")
async def suspend() -> dict[str, object]:
    """One suspension."""
    await asyncio.sleep(0)
    return ANSWER


@app.get("/request")
async def with_request(request: Request) -> dict[str, object]:
    """What /body is compared with."""
    return ANSWER


@app.get("/body")
async def body(request: Request) -> dict[str, object]:
    """One Rust future, awaited."""
    await request.body()
    return ANSWER
