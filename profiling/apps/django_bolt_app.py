"""The app of the comparison, on django-bolt (its settings: django_bolt_settings.py)."""
# mypy: disable-error-code="import-not-found,untyped-decorator,misc"

import asyncio

import msgspec
from django_bolt import BoltAPI

from profiling.apps.work import burn

api = BoltAPI(enable_logging=False, compression=False)


class Item(msgspec.Struct):
    """The body of `/items/{item_id}`."""

    name: str
    price: float
    tags: list[str]


@api.get("/sync")
def sync() -> dict[str, object]:
    """Answer from a `def`."""
    return {"message": "hello", "n": 1}


@api.get("/async")
async def asynchronous() -> dict[str, object]:
    """Answer from an `async def` that never suspends."""
    return {"message": "hello", "n": 1}


@api.get("/sleep0")
async def sleep0() -> dict[str, object]:
    """Answer after one suspension."""
    await asyncio.sleep(0)
    return {"message": "hello", "n": 1}


@api.get("/sleep")
async def sleep() -> dict[str, object]:
    """Answer after a millisecond."""
    await asyncio.sleep(0.001)
    return {"message": "hello", "n": 1}


@api.get("/cpu")
def cpu() -> dict[str, object]:
    """Answer after about 130 us of Python."""
    burn()
    return {"message": "hello", "n": 1}


@api.post("/plain", status_code=200)
async def plain() -> dict[str, object]:
    """Answer a POST without looking at its body."""
    return {"message": "hello", "n": 1}


@api.post("/items/{item_id}", status_code=200)
async def item(item_id: int, q: str, item: Item, limit: int = 10) -> dict[str, object]:
    """Answer from a path parameter, a query parameter and a validated body."""
    return {"message": q, "n": item_id}
