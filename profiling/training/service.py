"""A shop: the usual kinds of parameters, bodies, answers and waiting."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import msgspec

from treadle import (
    App,
    HTMLResponse,
    HTTPException,
    JSONResponse,
    RedirectResponse,
    Request,
    Response,
    Router,
    StreamingResponse,
)

app = App()
shop = Router("/shop")

_PRODUCTS = [
    {"id": number, "name": f"product {number}", "price": number * 1.25, "tags": ["new", "blue"]}
    for number in range(50)
]
_PAGE = "<!doctype html><title>Shop</title>" + "<p>An offer of today</p>" * 40
_PICTURE = bytes(range(256)) * 64


class Order(StrEnum):
    """How products are sorted."""

    NAME = "name"
    PRICE = "price"


class Product(msgspec.Struct):
    """What is added."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=80)]
    price: Annotated[float, msgspec.Meta(ge=0)]
    tags: list[str] = []


@dataclass
class Amount:
    """How many."""

    quantity: int
    note: str | None = None


@shop.get("/products")
def products(page: int = 1, size: int = 10, order: Order = Order.NAME) -> list[dict[str, Any]]:
    """Part of a list."""
    return _PRODUCTS[(page - 1) * size : page * size]


@shop.get("/products/{id:int}")
async def product(id: int) -> dict[str, Any]:
    """One of it, or 404."""
    if id >= len(_PRODUCTS):
        raise HTTPException(404, "there is no such product")
    return _PRODUCTS[id]


@shop.post("/products")
async def add(product: Product) -> JSONResponse:
    """A body that is checked, and its like as the answer."""
    return JSONResponse({"name": product.name, "price": product.price}, status=201)


@shop.put("/products/{id}/amount")
def amount(id: int, amount: Amount, request: Request) -> dict[str, Any]:
    """A dataclass, and a header."""
    return {"id": id, "quantity": amount.quantity, "agent": request.headers.get("user-agent")}


@shop.delete("/products/{id}")
async def remove(id: int) -> None:
    """Nothing to say."""


@shop.get("/orders/{key:uuid}")
async def order(key: UUID, request: Request) -> Response:
    """Cookies in and out."""
    response = Response(f"order {key} of {request.cookies.get('user')}")
    response.set_cookie("seen", "1", max_age=60, httponly=True)
    return response


@shop.get("/stock/{place:path}")
async def stock(place: str, tag: list[str] | None = None) -> dict[str, Any]:
    """Waits as for a cache, then as for a database."""
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await asyncio.sleep(0.0005)
    return {"place": place, "tags": tag or []}


@shop.get("/overview")
async def overview() -> dict[str, Any]:
    """Asks several at once."""
    first, second = await asyncio.gather(_count("orders"), _count("returns"))
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, 3)
    return {"orders": first, "returns": second, "open": await future}


async def _count(what: str) -> int:
    await asyncio.sleep(0)
    return len(what)


@shop.get("/cached")
async def cached() -> dict[str, Any]:
    """Gives way once, as a coroutine does whose data is nearly there."""
    await asyncio.sleep(0)
    return {"ready": True}


@shop.get("/export")
async def export() -> StreamingResponse:
    """In parts."""

    async def lines() -> AsyncIterator[str]:
        for number in range(8):
            yield f"{number};product {number};{number * 1.25}\n"

    return StreamingResponse(lines(), media_type="text/csv")


@shop.post("/pictures")
async def picture(request: Request) -> dict[str, int]:
    """A body as it comes."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return {"bytes": size}


@shop.post("/notes")
async def note(body: dict[str, Any]) -> dict[str, Any]:
    """Any JSON."""
    return body


@shop.get("/report", offload=True)
def report() -> dict[str, int]:
    """On a thread."""
    return {"sum": sum(range(100))}


@app.get("/")
def page() -> HTMLResponse:
    """Text of some length."""
    return HTMLResponse(_PAGE)


@app.get("/picture")
def stored() -> bytes:
    """Bytes of some length."""
    return _PICTURE


@app.get("/health")
async def health() -> str:
    """A short text."""
    return "well"


@app.get("/old")
def old() -> RedirectResponse:
    """To where it went."""
    return RedirectResponse("/")


app.include(shop)
