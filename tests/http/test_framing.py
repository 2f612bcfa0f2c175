"""Where requests end, byte for byte: their bodies, read or not."""

from __future__ import annotations

from typing import Any

import pytest
from support.echo import Echo, Seen
from support.messages import assert_serves, chunked, only_response, parsed, request

from treadle import (
    App,
    Request,
)

# -- bodies of requests ----------------------------------------------------------------------------

CHUNKED_BODIES = {
    "one chunk": b"5\r\nhello\r\n0\r\n\r\n",
    "a chunk a byte": chunked(*(b"%c" % byte for byte in b"hello")),
    "sizes with leading zeros": b"0005\r\nhello\r\n000\r\n\r\n",
    "an extension with a tab and text beyond ASCII": b'5 \t;n="\t\xc3\xa9"\r\nhello\r\n0\r\n\r\n',
    "an extension": b'5;name=value;other="quoted"\r\nhello\r\n0;last\r\n\r\n',
}


@pytest.mark.parametrize("body", CHUNKED_BODIES.values(), ids=CHUNKED_BODIES)
def test_a_chunked_body_is_read_whole(echo: Echo, raw: Any, body: bytes) -> None:
    connection = raw(echo)
    connection.send(request("POST", "/", "Transfer-Encoding: chunked") + body)
    assert parsed(connection.response())["body"] == "hello"
    assert_serves(connection)


def test_a_chunk_may_hold_any_bytes_however_they_arrive(echo: Echo, raw: Any) -> None:
    connection = raw(echo)
    body = b"".join(b"%c\r\n;%c" % (byte, byte) for byte in range(128))
    connection.send(request("POST", "/", "Transfer-Encoding: chunked"))
    message = chunked(body[:200], body[200:], body)
    for start in range(0, len(message), 50):
        connection.send(message[start : start + 50])
        # An answer on another connection of the same lane: this part has been read by then.
        assert_serves(raw(echo))
    assert parsed(connection.response())["body"].encode() == body + body
    assert_serves(connection)


def test_trailers_are_ignored_and_end_the_connection(echo: Echo, raw: Any) -> None:
    """What hyper takes for trailers may have begun with a bare LF: nothing may follow it."""
    connection = raw(echo)
    body = b"5\r\nhello\r\n0\r\nX-Check: 1\r\nX-Other: 2\r\n\r\n"
    connection.send(request("POST", "/", "Transfer-Encoding: chunked") + body)
    assert parsed(connection.response())["body"] == "hello"
    assert connection.is_closed()


@pytest.mark.parametrize("digits", [b"1F", b"1f"])
def test_the_case_of_a_size_does_not_matter(echo: Echo, raw: Any, digits: bytes) -> None:
    connection = raw(echo)
    body = digits + b"\r\n" + b"x" * 31 + b"\r\n0\r\n\r\n"
    connection.send(request("POST", "/", "Transfer-Encoding: chunked") + body)
    assert parsed(connection.response())["body"] == "x" * 31


def test_large_bodies_pass_both_ways(echo: Echo, raw: Any) -> None:
    connection = raw(echo)
    body = bytes(range(32, 127)) * 20_000
    connection.send(request("POST", "/", body=body))
    assert parsed(connection.response())["body"].encode() == body
    assert_serves(connection)


def inner(length: int = 2) -> bytes:
    """A body that looks like `length` requests."""
    return b"".join(request("GET", f"/echo/smuggled-{number}") for number in range(length))


@pytest.mark.parametrize("path", ["/", "/deaf"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS", "HEAD"])
@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_a_body_that_looks_like_a_request_is_none(
    echo: Echo, raw: Any, path: str, method: str, coding: str
) -> None:
    connection = raw(echo)
    if coding == "length":
        connection.send(request(method, path, body=inner()))
    else:
        connection.send(request(method, path, "Transfer-Encoding: chunked") + chunked(inner()))
    assert connection.response(method).status == 200
    connection.finish()
    assert connection.is_closed()
    assert [seen.path for seen in echo.seen] == [path]


# -- bodies that nobody reads ----------------------------------------------------------------------


@pytest.mark.parametrize("split", [0, 1, 40])
def test_a_body_that_nobody_read_is_never_parsed_however_late_it_arrives(
    echo: Echo, raw: Any, split: int
) -> None:
    connection = raw(echo)
    body = inner()
    message = request("GET", "/deaf", body=body)
    head = len(message) - len(body) + split
    connection.send(message[:head])
    assert connection.response().status == 200
    try:
        connection.send(message[head:])
        connection.finish()
    except OSError:
        pass  # closed by then: the server owes nobody the rest
    assert connection.is_closed()
    assert echo.seen == [Seen("GET", "/deaf", None)]


@pytest.mark.parametrize("path", ["/deaf", "/plain", "/task", "/echo/missing/route"])
def test_a_small_body_that_nobody_reads_may_come_late(serve: Any, raw: Any, path: str) -> None:
    app = App()

    @app.post("/deaf")
    def deaf(request: Request) -> None: ...

    @app.post("/plain")
    def plain() -> None: ...

    @app.post("/task")
    async def task() -> None: ...

    connection = raw(serve(app))
    for _ in range(3):
        connection.send(request("POST", path, "Content-Length: 7"))
        response = connection.response()
        assert response.status in (204, 404)
        assert response.header("connection") is None
        connection.send(b"abc")
        connection.send(b"defg")
    connection.send(request("POST", "/plain"))
    assert connection.response().status == 204


# -- 100 Continue ----------------------------------------------------------------------------------


def test_a_client_that_waits_is_told_to_continue(echo: Echo, raw: Any) -> None:
    connection = raw(echo)
    head = request("POST", "/", "Content-Length: 5", "Expect: 100-continue")
    connection.send(head)
    assert connection.response().status == 100
    connection.send(b"hello")
    assert parsed(connection.response())["body"] == "hello"
    assert_serves(connection)


def test_nobody_is_told_to_continue_for_a_body_that_is_not_read(echo: Echo, raw: Any) -> None:
    head = request("POST", "/deaf", "Content-Length: 5", "Expect: 100-continue")
    assert only_response(raw(echo), head).status == 200


def test_a_body_that_is_too_large_gets_413_and_no_continue(serve: Any, raw: Any) -> None:
    with Echo(limit_body=4) as echo:
        head = request("POST", "/", "Content-Length: 5", "Expect: 100-continue")
        with raw(echo) as connection:
            assert only_response(connection, head).status == 413
        assert echo.seen == []


def test_http_1_0_is_never_told_to_continue(echo: Echo, raw: Any) -> None:
    head = request("POST", "/", "Content-Length: 5", "Expect: 100-continue", version="HTTP/1.0")
    response = only_response(raw(echo), head + b"hello")
    assert parsed(response)["body"] == "hello"
