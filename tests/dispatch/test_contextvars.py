"""A ContextVar set in one request is never seen by another."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

import pytest
from support.raw import Raw
from support.types import Connect, Serve

from treadle import App, Lane, Request, Response, StreamingResponse

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="unset")
TOKENS: list[contextvars.Token[str]] = []
OUTSIDE: contextvars.ContextVar[str] = contextvars.ContextVar("OUTSIDE", default="unset")


def note() -> str:
    """What the request sees; what it sets is to be seen by none."""
    seen = VAR.get()
    VAR.set("leaked")
    return seen


app = App()


@app.get("/inline")
def inline() -> str:
    return note()


@app.get("/look")
def look() -> str:
    return VAR.get()


@app.get("/look-task")
async def look_task() -> str:
    return VAR.get()


@app.get("/reset")
def reset() -> str:
    token = VAR.set("reset")
    VAR.reset(token)
    TOKENS.append(token)
    return VAR.get()


@app.get("/copied")
async def copied() -> str:
    """Its context goes on in callbacks when the request has ended."""
    seen = VAR.get()
    asyncio.get_running_loop().call_soon(VAR.set, "leaked by a callback")
    return seen


@app.get("/offload", offload=True)
def offload() -> str:
    return note()


@app.get("/task")
async def task() -> str:
    return note()


@app.get("/suspended")
async def suspended() -> str:
    await asyncio.sleep(0)
    seen = note()
    await asyncio.sleep(0)
    return seen


@app.get("/returned")
def returned() -> object:
    return suspended()


@app.get("/inner")
async def inner() -> str:
    seen = VAR.get()

    async def child() -> None:
        VAR.set("of the child")

    await asyncio.create_task(child())
    seen += VAR.get()
    note()
    return seen.replace("unsetunset", "unset")


@app.get("/stream")
async def stream() -> Response:
    seen = note()

    async def chunks():  # type: ignore[no-untyped-def]
        await asyncio.sleep(0)
        yield seen
        VAR.set("leaked by the stream")

    return StreamingResponse(chunks())


@app.get("/stream-sync")
def stream_sync() -> Response:
    seen = note()

    def chunks():  # type: ignore[no-untyped-def]
        yield seen
        VAR.set("leaked by the stream")

    return StreamingResponse(chunks())


@app.get("/raises")
async def raises() -> None:
    VAR.set(f"raised over {note()}")
    raise LookupError


@app.exception_handler(LookupError)
def on_error(request: Request, error: LookupError) -> str:
    seen = VAR.get()
    note()
    return seen.removeprefix("raised over ")


@app.post("/body")
async def body(request: Request) -> str:
    seen = note()
    await request.body()
    return seen if VAR.get() == "leaked" else "lost"


@app.post("/body-argument")
def body_argument(data: bytes) -> str:
    return note()


@app.post("/body-stream")
async def body_stream(request: Request) -> str:
    seen = note()
    async for _ in request.stream():
        pass
    return seen if VAR.get() == "leaked" else "lost"


PATHS = [
    "inline",
    "offload",
    "task",
    "suspended",
    "returned",
    "inner",
    "stream",
    "stream-sync",
    "raises",
]
BODIES = ["body", "body-argument", "body-stream"]


def get(path: str) -> bytes:
    return f"GET /{path} HTTP/1.1\r\nHost: t\r\n\r\n".encode()


def post(path: str, size: int) -> bytes:
    head = f"POST /{path} HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + b"x" * size


@pytest.fixture(scope="module")
def connect() -> Any:
    from treadle.testing import LiveServer

    with LiveServer(app) as server:
        yield lambda: Raw(server.address)


@pytest.mark.parametrize("path", PATHS)
def test_requests_of_one_connection_do_not_see_each_others_variables(
    connect: Callable[[], Raw], path: str
) -> None:
    with connect() as connection:
        for _ in range(3):
            connection.send(get(path))
            assert connection.response().body == b"unset"


def test_pipelined_requests_do_not_see_each_others_variables(
    connect: Callable[[], Raw],
) -> None:
    with connect() as connection:
        connection.send(b"".join(get(path) for path in PATHS * 3))
        assert [connection.response().body for _ in PATHS * 3] == [b"unset"] * len(PATHS * 3)


def test_requests_that_set_nothing_do_not_see_what_others_set_between_them(
    connect: Callable[[], Raw],
) -> None:
    between = ["look", "look-task", "inline", "task", "reset", "copied", "suspended", "raises"]
    paths = [path for name in between for path in (name, "look", "look-task", "look")]
    with connect() as connection:
        for _ in range(2):
            connection.send(b"".join(get(path) for path in paths))
            assert [connection.response().body for _ in paths] == [b"unset"] * len(paths)
    # A token knows the context that it was made in, and resets nothing in another.
    assert len(TOKENS) == 2


@pytest.mark.parametrize("size", [0, 10, 1_000_000])
@pytest.mark.parametrize("path", BODIES)
def test_a_body_that_takes_several_reads_carries_nothing_over(
    connect: Callable[[], Raw], path: str, size: int
) -> None:
    with connect() as connection:
        for _ in range(3):
            connection.send(post(path, size))
            assert connection.response().body == b"unset"


def test_requests_at_the_same_time_do_not_see_each_others_variables(
    serve: Serve, raw: Connect
) -> None:
    app = App()
    inside: list[asyncio.Event] = []

    @app.get("/{name}")
    async def handler(name: str) -> list[str]:
        before = VAR.get()
        VAR.set(name)
        inside.append(asyncio.Event())
        if len(inside) == 3:
            for event in inside:
                event.set()
        await inside[-1].wait()
        return [before, VAR.get()]

    server = serve(app)
    connections = {name: raw(server) for name in "abc"}
    for name, connection in connections.items():
        connection.send(get(name))
    for name, connection in connections.items():
        assert connection.response().body == f'["unset","{name}"]'.encode()


def test_handlers_do_not_see_the_variables_of_who_started_the_server(
    serve: Serve, raw: Connect
) -> None:
    app = App()

    @app.lane_lifespan
    async def lifespan(lane: Lane):  # type: ignore[no-untyped-def]
        VAR.set("of the lifespan")
        yield

    app.get("/")(lambda: VAR.get())
    OUTSIDE.set("of the test")
    assert raw(serve(app)).get().body == b"unset"


def test_callbacks_of_a_request_keep_its_context(serve: Serve, raw: Connect) -> None:
    app = App()

    @app.get("/{name}")
    async def handler(name: str) -> list[str]:
        VAR.set(name)
        loop = asyncio.get_running_loop()
        seen: asyncio.Queue[str] = asyncio.Queue()
        loop.call_soon(lambda: seen.put_nowait(VAR.get()))
        loop.call_later(0.001, lambda: seen.put_nowait(VAR.get()))
        return [await asyncio.to_thread(VAR.get), await seen.get(), await seen.get()]

    connection = raw(serve(app))
    assert connection.get("/a").body == b'["a","a","a"]'
    assert connection.get("/b").body == b'["b","b","b"]'
