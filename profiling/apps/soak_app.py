"""The app of the soak: every kind of handler, and `/census`, which counts what must not grow."""

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator

import msgspec

from treadle import App, Lane, StreamingResponse

CHUNK = b"x" * 1024

app = App()
_loops: list[asyncio.AbstractEventLoop] = []
_lock = threading.Lock()


class Item(msgspec.Struct):
    """The body of `/items`."""

    token: str
    numbers: list[int]


@app.lane_lifespan
async def _lane(_: Lane) -> AsyncIterator[None]:
    with _lock:
        _loops.append(asyncio.get_running_loop())
    yield


@app.get("/echo/{token}")
def echo(token: str) -> dict[str, str]:
    """Answer at once."""
    return {"token": token}


@app.get("/later/{token}")
async def later(token: str) -> dict[str, str]:
    """Answer after two suspensions."""
    await asyncio.sleep(0)
    await asyncio.sleep(0.002)
    return {"token": token}


@app.get("/offload/{token}", offload=True)
def offload(token: str) -> dict[str, str]:
    """Answer from the thread pool."""
    time.sleep(0.001)
    return {"token": token}


@app.post("/items")
async def items(item: Item) -> dict[str, str]:
    """Answer a validated body."""
    return {"token": f"{item.token}-{sum(item.numbers)}"}


@app.get("/fail/{token}")
async def fail(token: str) -> None:
    """Raise, after a suspension."""
    await asyncio.sleep(0)
    raise RuntimeError(f"on purpose: {token}")


@app.get("/stream/{chunks:int}")
async def stream(chunks: int) -> StreamingResponse:
    """Send so many KiB, a KiB at a time."""

    async def body() -> AsyncIterator[bytes]:
        for _ in range(chunks):
            yield CHUNK
            await asyncio.sleep(0)

    return StreamingResponse(body())


@app.get("/hang")
async def hang() -> None:
    """Wait for much longer than any client does."""
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(600))
        await asyncio.sleep(600)


@app.get("/census", offload=True)
def census() -> dict[str, int]:
    """Count Tasks on every lane, and the objects that the garbage collector knows."""
    for _ in range(3):
        gc.collect()
    with _lock:
        tasks = sum(len(asyncio.all_tasks(loop)) for loop in _loops)
    return {"tasks": tasks, "objects": len(gc.get_objects())}
