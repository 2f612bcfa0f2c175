"""The app of the cost curves: one route for each thing that grows.

SCALE_ROUTES is how many further routes there are: `/r0/{item:int}` and so on.
"""

import asyncio
import os
import threading

from profiling.apps.work import burn, hello
from treadle import App

app = App()
_lock = threading.Lock()
_held = 0
_gates: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
_gate = threading.local()


@app.get("/sync")
def sync() -> dict[str, object]:
    """Answer at once."""
    return hello()


@app.get("/cpu")
def cpu() -> dict[str, object]:
    """Answer after about 130 us of Python."""
    burn()
    return hello()


@app.get("/json")
def json() -> list[dict[str, object]]:
    """Answer with a hundred objects."""
    return [{"id": n, "name": "shuttle", "price": n * 0.5, "tags": ["a", "b"]} for n in range(100)]


@app.get("/suspended")
async def suspended() -> dict[str, object]:
    """Answer after one suspension."""
    await asyncio.sleep(0)
    return hello()


@app.post("/body")
def body(body: bytes) -> dict[str, int]:
    """Answer with the length of the body."""
    return {"n": len(body)}


@app.get("/hold")
async def hold() -> dict[str, object]:
    """Answer once `/release` was asked."""
    global _held
    gate = getattr(_gate, "event", None)
    if gate is None:
        gate = _gate.event = asyncio.Event()
        with _lock:
            _gates.append((asyncio.get_running_loop(), gate))
    with _lock:
        _held += 1
    await gate.wait()
    with _lock:
        _held -= 1
    return hello()


@app.get("/held")
def held() -> dict[str, int]:
    """How many wait."""
    return {"n": _held}


@app.post("/release")
def release() -> None:
    """Let all of them go."""
    with _lock:
        for loop, gate in _gates:
            loop.call_soon_threadsafe(gate.set)


def _further(number: int) -> None:
    @app.get(f"/r{number}/{{item:int}}")
    def answer(item: int) -> dict[str, object]:
        return {"message": "hello", "n": item}


for _number in range(int(os.environ.get("SCALE_ROUTES", "0"))):
    _further(_number)
