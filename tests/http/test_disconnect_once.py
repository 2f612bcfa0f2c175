"""A client's leaving is told once: nothing breaks into what a handler awaits as it cleans up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from queue import Queue
from typing import Any

import pytest
from support.hold import Hold, take
from support.messages import assert_serves, request
from support.raw import Raw

from treadle import App, ClientDisconnect, Request, StreamingResponse

LEAVE: list[Callable[[Raw], None]] = [Raw.close, Raw.reset]


@pytest.fixture
def app() -> App:
    made = App()

    @made.get("/")
    def root() -> str:
        return "hello"

    return made


@pytest.fixture
def ended() -> Iterator[Queue[str]]:
    """What the access log says of requests, each when nothing is left of it but its Task."""
    lines = Queue[str]()
    handler = logging.Handler()
    handler.emit = lambda record: lines.put(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("treadle.access")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    yield lines
    logger.setLevel(level)
    logger.removeHandler(handler)


def assert_cleans_up(hold: Hold, ended: Queue[str], other: Raw) -> None:
    """The cleanup that waits at `hold` runs to its end, though the connection goes meanwhile."""
    hold.wait_arrival()
    take(ended)
    # A cancellation would take another turn of the lane.
    assert_serves(other)
    hold.release()
    assert hold.outcome() == "finished"


@pytest.mark.parametrize("leave", LEAVE)
def test_a_generator_held_up_by_a_slow_client_cleans_up(
    app: App, serve: Any, raw: Any, hold: Hold, ended: Queue[str], leave: Callable[[Raw], None]
) -> None:
    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> Any:
            try:
                while True:
                    yield b"x" * (1 << 20)
            finally:
                await hold()

        return StreamingResponse(chunks())

    live = serve(app, access_log=True)
    connection = raw(live)
    connection.send(request("GET", "/stream"))
    connection.exactly(1 << 20)
    leave(connection)
    assert_cleans_up(hold, ended, raw(live))


async def whole(request: Request) -> None:
    await request.body()


async def in_chunks(request: Request) -> None:
    async for _ in request.stream():
        pass


@pytest.mark.parametrize("leave", LEAVE)
@pytest.mark.parametrize("read", [whole, in_chunks])
@pytest.mark.parametrize("coding", ["Content-Length: 10", "Transfer-Encoding: chunked"])
def test_a_handler_that_reads_cleans_up(
    app: App,
    serve: Any,
    raw: Any,
    hold: Hold,
    ended: Queue[str],
    leave: Callable[[Raw], None],
    read: Callable[[Request], Any],
    coding: str,
) -> None:
    reading = Hold()

    @app.post("/reads")
    async def reads(request: Request) -> None:
        try:
            with reading.watched():
                await read(request)
        finally:
            await hold()

    live = serve(app, access_log=True)
    connection = raw(live)
    connection.send(request("POST", "/reads", coding))
    reading.wait_arrival()
    leave(connection)
    assert_cleans_up(hold, ended, raw(live))
    assert reading.outcome() in ("CancelledError", "ClientDisconnect")


def test_a_generator_that_reads_cleans_up(
    app: App, serve: Any, raw: Any, hold: Hold, ended: Queue[str]
) -> None:
    @app.post("/echo")
    async def echo(request: Request) -> StreamingResponse:
        async def chunks() -> Any:
            yield b"begun"
            try:
                async for chunk in request.stream():
                    yield chunk
            finally:
                await hold()

        return StreamingResponse(chunks())

    live = serve(app, access_log=True)
    connection = raw(live)
    connection.send(request("POST", "/echo", "Content-Length: 10"))
    connection.until(b"begun")
    connection.close()
    assert_cleans_up(hold, ended, raw(live))


def test_the_exception_handler_of_the_disconnect_is_not_broken_off(
    app: App, serve: Any, raw: Any, hold: Hold, ended: Queue[str]
) -> None:
    reading = Hold()

    @app.post("/reads")
    async def reads(request: Request) -> None:
        with reading.watched():
            await request.body()

    @app.exception_handler(ClientDisconnect)
    async def handle(_request: Request, _error: ClientDisconnect) -> None:
        await hold()

    live = serve(app, access_log=True)
    for _ in range(10):
        connection = raw(live)
        connection.send(request("POST", "/reads", "Content-Length: 10"))
        reading.wait_arrival()
        connection.close()
        if reading.outcome() == "ClientDisconnect":
            return assert_cleans_up(hold, ended, raw(live))
        take(ended)
    pytest.fail("it was cancelled each time")
