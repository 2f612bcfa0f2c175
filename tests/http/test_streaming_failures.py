"""Responses that fail on the way: the client sees it, the log has it, the server goes on."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.hold import Hold
from support.messages import assert_problem, assert_serves, request
from support.raw import Raw
from support.streams import KINDS, streams

from treadle import App, StreamingResponse


def failing(after: int) -> Any:
    def make() -> Iterator[str]:
        for _ in range(after):
            yield "part"
        raise ValueError("a secret")

    return make


def assert_seen_to_fail(connection: Raw, data: bytes = b"") -> bytes:
    """Sends `data`; what comes back has a beginning and no end, or is a 500 as a whole."""
    connection.send(data)
    received = connection.rest()
    assert received.startswith((b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 500 "))
    assert received.startswith(b"HTTP/1.1 500 ") or b"0\r\n\r\n" not in received
    assert received.count(b"HTTP/1.1") == 1
    assert b"secret" not in received
    return received


def test_a_failure_midway_breaks_the_message_off(
    serve: Any, raw: Any, hold: Hold, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()

    @app.get("/{name}")
    async def root(name: str) -> StreamingResponse:
        async def chunks() -> AsyncIterator[str]:
            yield "first"
            yield "second"
            await hold()
            raise ValueError("a secret")

        return StreamingResponse(chunks())

    live = serve(app)
    connection = raw(live)
    connection.send(request("GET", "/x") + request("GET", "/behind"))
    hold.wait_arrival()
    begun = connection.until(b"6\r\nsecond\r\n")
    assert begun.startswith(b"HTTP/1.1 200 OK\r\n")
    hold.release()
    assert connection.is_closed()
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert re.match(r"request \d+: GET /\{name\} ", record.getMessage())
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)
    assert raw(live).get("/x/absent").status == 404


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_failure_close_behind_a_chunk_is_seen(
    serve: Any, raw: Any, caplog: pytest.LogCaptureFixture, kind: str, after: int
) -> None:
    live = serve(streams(failing(after), kind=kind))
    assert_seen_to_fail(raw(live), request("GET") + request("GET", "/other"))
    assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == 1
    assert_serves(raw(live), "/other")


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_before_the_first_chunk_is_seen_too(serve: Any, raw: Any, kind: str) -> None:
    live = serve(streams(failing(0), kind=kind))
    connection = raw(live)
    connection.send(request("GET"))
    try:
        response = connection.response()
    except EOFError:
        pass
    else:
        assert_problem(response, 500, "Internal Server Error")
    assert_serves(raw(live), "/other")


def test_a_failure_midway_is_a_reset_for_http_1_0(serve: Any, raw: Any, hold: Hold) -> None:
    """Nothing else would tell it from the end."""
    app = App()

    @app.get("/")
    async def root() -> StreamingResponse:
        async def chunks() -> AsyncIterator[str]:
            yield "part"
            await hold()
            raise ValueError

        return StreamingResponse(chunks())

    live = serve(app)
    connection = raw(live)
    connection.send(request("GET", version="HTTP/1.0"))
    hold.wait_arrival()
    connection.until(b"part")
    hold.release()
    with pytest.raises(ConnectionResetError):
        connection.socket.recv(1)


@pytest.mark.parametrize("bad", [1, None, ["x"], "\ud800"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_chunk_that_is_no_bytes_is_a_failure(
    serve: Any, raw: Any, caplog: pytest.LogCaptureFixture, kind: str, bad: Any
) -> None:
    live = serve(streams(lambda: iter(["part", bad, "never"]), kind=kind))
    data = assert_seen_to_fail(raw(live), request("GET"))
    assert b"never" not in data
    assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == 1
    assert_serves(raw(live), "/other")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, BaseException, StopIteration])
def test_even_what_ends_programs_ends_only_the_stream(
    serve: Any, raw: Any, kind: str, error: type[BaseException]
) -> None:
    def make() -> Iterator[str]:
        yield "part"
        raise error

    live = serve(streams(make, kind=kind))
    assert_seen_to_fail(raw(live), request("GET"))
    assert_serves(raw(live), "/other")


def test_a_generator_that_fails_while_it_is_closed_is_logged_with_both_failures(
    serve: Any, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def make() -> Iterator[str]:
        try:
            yield "part"
            raise ValueError("first")
        finally:
            raise KeyError("second")

    live = serve(streams(make, kind="sync"))
    assert_seen_to_fail(raw(live), request("GET"))
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert record.exc_info is not None
    error = record.exc_info[1]
    assert isinstance(error, KeyError)
    assert isinstance(error.__context__, ValueError)


@pytest.mark.parametrize("midway", [False, True])
def test_another_tasks_cancellation_that_escapes_is_a_failure(
    serve: Any, raw: Any, caplog: pytest.LogCaptureFixture, midway: bool
) -> None:
    app = App()

    @app.get("/")
    async def root() -> StreamingResponse:
        async def chunks() -> AsyncIterator[str]:
            if midway:
                yield "part"
            other = asyncio.ensure_future(asyncio.Event().wait())
            other.cancel()
            await other
            yield "never"

        return StreamingResponse(chunks())

    assert_seen_to_fail(raw(serve(app)), request("GET"))
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[0] is asyncio.CancelledError


def test_a_stream_that_its_server_cancels_is_broken_off(
    serve: Any, raw: Any, hold: Hold, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()

    @app.get("/")
    async def root() -> StreamingResponse:
        async def chunks() -> AsyncIterator[str]:
            yield "part"
            await hold()

        return StreamingResponse(chunks())

    live = serve(app, grace=0.05)
    connection = raw(live)
    connection.send(request("GET"))
    hold.wait_arrival()
    live.stop()
    assert hold.outcome() == "CancelledError"
    data = connection.rest()
    assert b"part" in data
    assert not data.endswith(b"0\r\n\r\n")
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []
