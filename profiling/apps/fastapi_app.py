"""The app of the comparison, on FastAPI."""
# mypy: disable-error-code="import-not-found,untyped-decorator,misc"

import asyncio

from fastapi import FastAPI
from pydantic import BaseModel

from profiling.apps.work import burn

app = FastAPI(openapi_url=None)


class Item(BaseModel):
    """The body of `/items/{item_id}`."""

    name: str
    price: float
    tags: list[str]


@app.get("/sync")
def sync() -> dict[str, object]:
    """Answer from a `def`, which FastAPI calls on a thread."""
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
async def plain() -> dict[str, object]:
    """Answer a POST without looking at its body."""
    return {"message": "hello", "n": 1}


@app.post("/items/{item_id}")
async def item(item_id: int, q: str, item: Item, limit: int = 10) -> dict[str, object]:
    """Answer from a path parameter, a query parameter and a validated body."""
    return {"message": q, "n": item_id}
