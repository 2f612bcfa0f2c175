"""The first app: `make demo` serves it, and so does `treadle run hello:app` in this folder."""

import asyncio
from typing import Annotated

import msgspec

from treadle import App, HTTPException

app = App()


class Order(msgspec.Struct):
    """What a client orders; a body that does not fit is answered with 422 and the reason."""

    item: Annotated[str, msgspec.Meta(min_length=1)]
    quantity: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1


@app.get("/")
def index() -> dict[str, str]:
    return {"message": "hello", "try": "/hello/world"}


@app.get("/hello/{name}")
async def hello(name: str, times: int = 1) -> dict[str, str | int]:
    return {"message": f"hello {name}", "times": times}


@app.get("/slow")
async def slow(seconds: float = 1.0) -> dict[str, float]:
    if not 0 <= seconds <= 10:
        raise HTTPException(400, "seconds is between 0 and 10")
    await asyncio.sleep(seconds)
    return {"slept": seconds}


@app.post("/orders")
async def order(order: Order) -> dict[str, str | int]:
    return {"ordered": order.item, "quantity": order.quantity}


if __name__ == "__main__":
    app.run()
