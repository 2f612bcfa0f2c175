"""Registration, and requests through the real server over one connection."""

import socket
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import pytest

from treadle import App, Query
from treadle.testing import LiveServer

PIPELINED = 16


class Item(msgspec.Struct):
    """The body of `/items`."""

    name: str
    price: float


def test_registration(benchmark: Any) -> None:
    """A route with a parameter of every kind, read and compiled."""

    def register() -> App:
        app = App()

        @app.post("/items/{item_id:int}")
        async def item(
            item_id: int, item: Item, limit: Annotated[int, Query()] = 10, q: str = ""
        ) -> Item:
            return item

        return app

    assert isinstance(benchmark(register), App)


@pytest.fixture(scope="module")
def connection() -> Iterator[socket.socket]:
    """A connection to an app that answers in each way."""
    app = App()

    @app.get("/inline")
    def inline() -> dict[str, int]:
        return {"n": 1}

    @app.get("/task")
    async def task() -> dict[str, int]:
        return {"n": 1}

    @app.post("/items/{item_id:int}")
    def item(item_id: int, item: Item) -> dict[str, int]:
        return {"n": item_id}

    with LiveServer(app) as server, socket.create_connection(server.address) as opened:
        yield opened


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/inline", b""),
        ("GET", "/task", b""),
        ("POST", "/items/1", b'{"name":"shuttle","price":12.5}'),
    ],
    ids=["inline", "task", "items"],
)
def test_sixteen_pipelined(
    benchmark: Any, connection: socket.socket, method: str, path: str, body: bytes
) -> None:
    """Sixteen requests in one write: most of what is left is ours, not the kernel's."""
    head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def ask() -> int:
        connection.sendall(request * PIPELINED)
        received = b""
        while received.count(b'{"n":1}') < PIPELINED:
            received += connection.recv(65536)
        return received.count(b"HTTP/1.1 200 ")

    assert benchmark(ask) == PIPELINED
