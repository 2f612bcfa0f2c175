"""Ten thousand requests on every path leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from support.lanes import on_lane, wait_connections
from support.raw import Raw
from support.types import Serve

from treadle import App, HTTPException, Request, Response, StreamingResponse
from treadle.testing import LiveServer

alive: weakref.WeakSet[Any] = weakref.WeakSet()
"""Requests, responses, Tasks and coroutines that handlers met."""


def meet(*things: Any) -> None:
    alive.update(things)
    with contextlib.suppress(RuntimeError):
        if task := asyncio.current_task():
            alive.update((task, task.get_coro()))


def make_app() -> App:
    app = App()
    waiting = app.state.waiting = threading.Semaphore(0)

    @app.get("/inline")
    def inline(request: Request) -> dict[str, int]:
        meet(request)
        return {"a": 1}

    @app.get("/nothing")
    def nothing() -> None: ...

    @app.get("/task/{n:int}")
    async def task(n: int, request: Request, q: str = "q") -> Response:
        response = Response("x", headers={"x-a": "1"})
        meet(request, response)
        return response

    @app.get("/suspended")
    async def suspended(request: Request) -> str:
        meet(request)
        await asyncio.sleep(0)
        return "x"

    @app.get("/timer")
    async def timer(request: Request) -> str:
        async with asyncio.timeout(60):
            await asyncio.sleep(0.0001)
        return "x"

    @app.get("/offload", offload=True)
    def offload(request: Request) -> list[int]:
        meet(request)
        return [1]

    @app.get("/stream")
    async def stream(request: Request) -> Response:
        async def chunks() -> Any:
            for _ in range(3):
                yield b"x"

        generator = chunks()
        response = StreamingResponse(generator)
        meet(request, response, generator)
        return response

    @app.get("/error")
    async def error(request: Request) -> None:
        meet(request)
        raise ValueError(request)

    @app.get("/error-inline")
    def error_inline(request: Request) -> None:
        raise ValueError(request)

    @app.get("/http-error")
    async def http_error() -> None:
        raise HTTPException(418)

    @app.get("/handled")
    async def handled(request: Request) -> None:
        await asyncio.sleep(0)
        raise LookupError(request)

    @app.exception_handler(LookupError)
    async def on_lookup_error(request: Request, error: LookupError) -> str:
        meet(request)
        return "x"

    @app.get("/unencodable")
    def unencodable() -> object:
        return object()

    @app.get("/timeout", timeout=0.0001)
    async def timeout(request: Request) -> None:
        meet(request)
        await asyncio.sleep(60)

    @app.post("/body")
    async def body(request: Request) -> bytes:
        meet(request)
        return await request.body()

    @app.post("/json")
    async def json(value: dict[str, int]) -> dict[str, int]:
        return value

    @app.get("/wait")
    async def wait(request: Request) -> None:
        meet(request)
        waiting.release()
        await asyncio.get_running_loop().create_future()

    @app.get("/wait-stream")
    async def wait_stream(request: Request) -> Response:
        async def chunks() -> Any:
            yield b"x"
            waiting.release()
            await asyncio.get_running_loop().create_future()

        meet(request)
        return StreamingResponse(chunks())

    return app


REQUESTS: list[tuple[str, str, str, int]] = [
    ("GET", "/inline?a=1", "", 200),
    ("GET", "/nothing", "", 204),
    ("GET", "/task/1?q=2", "", 200),
    ("GET", "/suspended", "", 200),
    ("GET", "/timer", "", 200),
    ("GET", "/offload", "", 200),
    ("GET", "/stream", "", 200),
    ("GET", "/error", "", 500),
    ("GET", "/error-inline", "", 500),
    ("GET", "/http-error", "", 418),
    ("GET", "/handled", "", 200),
    ("GET", "/unencodable", "", 500),
    ("GET", "/timeout", "", 504),
    ("GET", "/missing", "", 404),
    ("DELETE", "/inline", "", 405),
    ("GET", "/task/x", "", 422),
    ("POST", "/body", "data", 200),
    ("POST", "/json", '{"a":1}', 200),
    ("POST", "/json", "[]", 422),
    ("POST", "/json", "{", 400),
]


@pytest.fixture
def server(serve: Serve) -> Iterator[LiveServer]:
    # Records of the log would keep the exceptions, and they everything else.
    logger = logging.getLogger("treadle")
    logger.disabled = True
    yield serve(make_app())
    logger.disabled = False
    alive.clear()


def rounds(server: LiveServer, count: int) -> None:
    """Sends every request `count` times over one connection."""
    batch = "".join(
        f"{method} {path} HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        for method, path, body, _ in REQUESTS
    )
    with Raw(server.address) as connection:
        for _ in range(count):
            connection.send(batch)
            statuses = [connection.response(method).status for method, *_ in REQUESTS]
            assert statuses == [status for *_, status in REQUESTS]
    wait_connections(server, 0)


def leave(server: LiveServer, count: int) -> None:
    """Sends requests and leaves before they are answered."""
    waiting = server._app.state.waiting
    for _ in range(count):
        for path in ("/wait", "/wait-stream"):
            with Raw(server.address) as connection:
                connection.send(f"GET {path} HTTP/1.1\r\nHost: t\r\n\r\n")
                assert waiting.acquire(timeout=10)
                connection.reset()
    wait_connections(server, 0)


def settle(server: LiveServer) -> None:
    """Lets the lane finish what it is at, then collects."""

    async def turns() -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        gc.collect()

    on_lane(server, 0, turns())
    gc.collect()


@pytest.mark.slow
def test_nothing_that_belongs_to_a_request_outlives_it(server: LiveServer) -> None:
    rounds(server, 10)
    leave(server, 10)
    settle(server)
    assert list(alive) == []


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_ten_thousand_requests_leave_no_memory_behind(server: LiveServer) -> None:
    def warm() -> tuple[int, int, int]:
        rounds(server, 25)
        leave(server, 25)
        settle(server)
        total = getattr(sys, "gettotalrefcount", lambda: 0)
        return sys.getallocatedblocks(), len(gc.get_objects()), total()

    warm()
    blocks, objects, references = warm()
    rounds(server, 10_000 // len(REQUESTS))
    leave(server, 250)
    blocks_after, objects_after, references_after = warm()
    # A leak of one object at one of the twenty requests would be 500 at least.
    assert blocks_after - blocks < 400
    assert objects_after - objects < 200
    assert references_after - references < 400
