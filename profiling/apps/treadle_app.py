"""The app of the comparison, on Treadle."""

import asyncio

import msgspec

from profiling.apps.work import burn
from treadle import App

app = App()


class Item(msgspec.Struct):
    """The body of `/items/{item_id}`."""

    name: str
    price: float
    tags: list[str]


@app.get("/sync")
def sync() -> dict[str, object]:
    """Answer from a `def`."""
    return {"message": "hello", "n": 1}


@app.get("/async")
async def asynchronous() -> dict[str, object]:
    """Answer from an `async def` that never suspends."""
    return {"message": "hello", "n": 1}


@app.get("/sleep0")
async def sleep0() -> dict[str, object]:
    """Answer after one suspension."""
    await asyncio.sleep(0)
    return {"message": "hello", "n": 1}


@app.get("/sleep")
async def sleep() -> dict[str, object]:
    """Answer after a millisecond."""
    await asyncio.sleep(0.001)
    return {"message": "hello", "n": 1}


@app.get("/cpu")
def cpu() -> dict[str, object]:
    """Answer after about 130 us of Python."""
    burn()
    return {"message": "hello", "n": 1}


@app.post("/plain")
def plain() -> dict[str, object]:
    """Answer a POST without looking at its body."""
    return {"message": "hello", "n": 1}


@app.post("/items/{item_id}")
def item(item_id: int, q: str, item: Item, limit: int = 10) -> dict[str, object]:
    """Answer from a path parameter, a query parameter and a validated body."""
    return {"message": q, "n": item_id}
