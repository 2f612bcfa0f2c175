"""Bad input: one clear answer, the connection is closed, and nobody else pays for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.echo import Echo
from support.hold import Hold
from support.messages import (
    assert_problem,
    assert_serves,
    chunked,
    only_response,
    parsed,
    request,
)
from support.raw import RawResponse

from treadle import App, Request

HOST = b"Host: a\r\n"
GET = b"GET / HTTP/1.1\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST
CHUNKED = b"Transfer-Encoding: chunked\r\n"
SMUGGLED = b"GET /echo/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

MALFORMED_HEADS = {
    "a request line without a target": b"GET\r\n\r\n",
    "a request line without a version": b"GET /\r\n\r\n",
    "a request line with two spaces": b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n",
    "a request line with a tab": b"GET\t/\tHTTP/1.1\r\n" + HOST + b"\r\n",
    "a request line with a fourth word": b"GET / x HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method that is no token": b"G@T / HTTP/1.1\r\n" + HOST + b"\r\n",
    "a NUL in the method": b"G\0T / HTTP/1.1\r\n" + HOST + b"\r\n",
    "a NUL in the target": b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a bare CR in the target": b"GET /\r/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "another protocol": b"GET / XTTP/1.1\r\n" + HOST + b"\r\n",
    "a version in lower case": b"GET / http/1.1\r\n" + HOST + b"\r\n",
    "a version of three numbers": b"GET / HTTP/1.2.3\r\n" + HOST + b"\r\n",
    "a version of two digits in one": b"GET / HTTP/1.20\r\n" + HOST + b"\r\n",
    "a version without a minor": b"GET / HTTP/2\r\n" + HOST + b"\r\n",
    "a version without a major": b"GET / HTTP/.1\r\n" + HOST + b"\r\n",
    "a version of letters": b"GET / HTTP/x.y\r\n" + HOST + b"\r\n",
    "a version with a comma": b"GET / HTTP/1,2\r\n" + HOST + b"\r\n",
    "a version behind a version": b"GET / HTTP/1.2 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a length that is none, and a version in the body": POST
    + b"Content-Length: x\r\n\r\nGET / HTTP/1.2\r\n",
    "a space before the first header": GET + b" Host: a\r\n\r\n",
    "a space before a colon": GET + b"Host : a\r\n\r\n",
    "a header without a colon": GET + HOST + b"nothing\r\n\r\n",
    "a header without a name": GET + HOST + b": x\r\n\r\n",
    "a header name with a space": GET + HOST + b"X Y: x\r\n\r\n",
    "a header name with a NUL": GET + HOST + b"X\0: x\r\n\r\n",
    "a header name beyond ASCII": GET + HOST + b"X\xe9: x\r\n\r\n",
    "a folded header": GET + HOST + b"X: y\r\n folded\r\n\r\n",
    "a header folded by a tab": GET + HOST + b"X: y\r\n\tfolded\r\n\r\n",
    "a bare CR in a value": GET + HOST + b"X: a\rb\r\n\r\n",
    "a bare CR at the end of a value": GET + HOST + b"X: a\r\r\n\r\n",
    "a NUL in a value": GET + HOST + b"X: a\0b\r\n\r\n",
    "an escape character in a value": GET + HOST + b"X: a\x1bb\r\n\r\n",
    "a head that ends in bare CRs": b"GET / HTTP/1.1\rHost: a\r\r",
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    "a body where a head should be": b'{"json": true}\r\n\r\n',
}

BARE_LF = {
    "after the request line": b"GET / HTTP/1.1\nHost: a\r\nConnection: close\r\n\r\n",
    "after a header": GET + b"Host: a\nConnection: close\r\n\r\n",
    "at the end of the head": GET + b"Host: a\r\nConnection: close\r\n\n",
}
"""RFC 9112, 2.2: a recipient may take a single LF for the end of a line. We do."""

BAD_HOSTS = {
    "no host": GET + b"\r\n",
    "two hosts": GET + HOST + b"Host: b\r\n\r\n",
    "one host twice": GET + HOST + HOST + b"\r\n",
    "two hosts in HTTP/1.0": b"GET / HTTP/1.0\r\n" + HOST + b"Host: b\r\n\r\n",
    "a path in the host": GET + b"Host: a/b\r\n\r\n",
    "a user in the host": GET + b"Host: user@a\r\n\r\n",
    "a space in the host": GET + b"Host: a b\r\n\r\n",
}

BAD_LENGTHS = {
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n",
    "one length twice": b"Content-Length: 5\r\nContent-Length: 5\r\n",
    "one length twice, apart": b"Content-Length: 5\r\nX: y\r\ncontent-length:5\r\n",
    "a list of equal lengths": b"Content-Length: 5, 5\r\n",
    "a list of lengths": b"Content-Length: 5, 6\r\n",
    "a sign": b"Content-Length: +5\r\n",
    "a negative length": b"Content-Length: -5\r\n",
    "a hexadecimal length": b"Content-Length: 0x5\r\n",
    "a fraction": b"Content-Length: 5.0\r\n",
    "a length with a unit": b"Content-Length: 5x\r\n",
    "a length that is quoted": b'Content-Length: "5"\r\n',
    "a length with a space inside": b"Content-Length: 5 5\r\n",
    "no length at all": b"Content-Length:\r\n",
    "a length beyond 64 bits": b"Content-Length: 18446744073709551621\r\n",
}

BAD_CHUNKS = {
    "a size that is no number": b"zz\r\nhello\r\n0\r\n\r\n",
    "an empty size": b"\r\nhello\r\n0\r\n\r\n",
    "a negative size": b"-5\r\nhello\r\n0\r\n\r\n",
    "a signed size": b"+5\r\nhello\r\n0\r\n\r\n",
    "a size with a prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a size in two words": b"5 5\r\nhello\r\n0\r\n\r\n",
    "a size beyond 64 bits": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "a size ended by a bare LF": b"5\nhello\r\n0\r\n\r\n",
    "a size ended by a bare CR": b"5\rhello\r\n0\r\n\r\n",
    "an extension with a bare LF": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "an extension with a bare CR": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "an extension with a NUL": b"5;a\0b\r\nhello\r\n0\r\n\r\n",
    "an extension with an escape character": b'5;a="\x1b[2J"\r\nhello\r\n0\r\n\r\n',
    "an extension with a DEL": b"5;\x7f\r\nhello\r\n0\r\n\r\n",
    "a second extension with a NUL": b"2\r\nhe\r\n3;\0\r\nllo\r\n0\r\n\r\n",
    "a last chunk's extension with a NUL": b"5\r\nhello\r\n0;\0\r\n\r\n",
    "an extension without an end": b"5;" + b"x" * 20_000 + b"\r\nhello\r\n0\r\n\r\n",
    "data ended by a bare LF": b"5\r\nhello\n0\r\n\r\n",
    "data ended by junk": b"5\r\nhelloXX0\r\n\r\n",
    "data without an end": b"5\r\nhello0\r\n\r\n",
    "too little data": b"5\r\nhell\r\n0\r\n\r\n",
    "too much data": b"5\r\nhello!\r\n0\r\n\r\n",
    "a last chunk ended by a bare LF": b"5\r\nhello\r\n0\n\r\n",
    "an end that is a bare LF": b"5\r\nhello\r\n0\r\n\n",
}


def cases(table: dict[str, Any]) -> Any:
    return pytest.mark.parametrize("data", table.values(), ids=table)


def refused(echo: Echo, raw: Any, data: bytes, status: int = 400) -> RawResponse:
    """One answer with `status`, then the end; no handler ran, and others are served as before."""
    response = only_response(raw(echo), data)
    assert response.status == status, response
    assert echo.seen == []
    assert_serves(raw(echo))
    return response


@cases(MALFORMED_HEADS)
def test_a_malformed_head_is_400_and_the_end(echo: Echo, raw: Any, data: bytes) -> None:
    response = refused(echo, raw, data)
    assert response.header("connection") == "close"
    assert response.header("date") is not None
    assert_problem(response, 400, "Bad Request")


@cases(BAD_HOSTS)
def test_a_host_that_is_none_is_400_and_the_end(echo: Echo, raw: Any, data: bytes) -> None:
    assert refused(echo, raw, data).header("connection") == "close"


def test_http_1_0_needs_no_host(echo: Echo, raw: Any) -> None:
    assert only_response(raw(echo), b"GET / HTTP/1.0\r\n\r\n").status == 200


@cases(BAD_LENGTHS)
def test_a_length_that_is_not_one_number_is_400_and_the_end(
    echo: Echo, raw: Any, data: bytes
) -> None:
    refused(echo, raw, POST + data + b"\r\nhello")


@pytest.mark.parametrize("split", [1, 30, 40, 58, 70])
def test_two_equal_lengths_are_400_however_they_arrive(echo: Echo, raw: Any, split: int) -> None:
    connection = raw(echo)
    head = POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n"
    connection.send(head[:split])
    # An answer on another connection of the same lane: the first part has been read by then.
    assert_serves(raw(echo))
    echo.seen.clear()
    response = only_response(connection, head[split:] + b"hello")
    assert response.status == 400
    assert echo.seen == []


@cases(BAD_CHUNKS)
def test_a_malformed_chunk_is_400_and_the_end(echo: Echo, raw: Any, data: bytes) -> None:
    refused(echo, raw, POST + CHUNKED + b"\r\n" + data + SMUGGLED)


def test_the_answer_to_a_malformed_chunk_says_that_it_is_the_last(echo: Echo, raw: Any) -> None:
    response = refused(echo, raw, POST + CHUNKED + b"\r\nzz\r\n")
    assert response.header("connection") == "close"


@cases(BAD_CHUNKS)
def test_a_malformed_chunk_that_nobody_reads_ends_the_connection(
    echo: Echo, raw: Any, data: bytes
) -> None:
    connection = raw(echo)
    head = b"POST /deaf HTTP/1.1\r\n" + HOST + CHUNKED
    response = only_response(connection, head + b"\r\n" + data + SMUGGLED)
    assert response.status in (200, 400)
    assert [seen.path for seen in echo.seen] in (["/deaf"], [])


@pytest.mark.parametrize("path", [b"/", b"/deaf"])
@pytest.mark.parametrize("split", range(20, 90, 7))
def test_a_control_character_in_an_extension_is_found_however_it_arrives(
    echo: Echo, raw: Any, path: bytes, split: int
) -> None:
    connection = raw(echo)
    message = b"POST %b HTTP/1.1\r\n" % path + HOST + CHUNKED + b"X: y\r\n\r\n"
    message += b"3\r\nabc\r\n3;a\0b\r\ndef\r\n0\r\n\r\n"
    connection.send(message[:split])
    # An answer on another connection of the same lane: the first part has been read by then.
    assert_serves(raw(echo))
    echo.seen.clear()
    try:
        connection.send(message[split:] + SMUGGLED)
        received = connection.rest()
    except OSError:
        received = b""  # nobody reads the body of a deaf route: it may have answered and closed
    if path == b"/":
        assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1 ") <= 1
    assert "/echo/smuggled" not in [seen.path for seen in echo.seen]


EVIL = b"3\r\nabc\r\n3;a\0b\r\ndef\r\n0\r\n\r\n" + SMUGGLED


@pytest.mark.parametrize("between", [b"", POST + b"Content-Length: 2\r\n\r\nok"])
def test_a_control_character_in_an_extension_is_found_behind_a_slow_request(
    serve: Any, raw: Any, hold: Hold, between: bytes
) -> None:
    app = App()

    @app.get("/slow")
    async def slow() -> None:
        await hold()

    @app.post("/")
    async def root(request: Request) -> bytes:
        await asyncio.sleep(0)
        return await request.body()

    live = serve(app)
    connection = raw(live)
    connection.send(request("GET", "/slow") + between + POST + CHUNKED + b"\r\n" + EVIL)
    hold.wait_arrival()
    # An answer on another connection of the same lane: what this one has sent is read.
    assert raw(live).get("/none").status == 404
    hold.release()
    assert connection.response().status == 204
    if between:
        assert connection.response().body == b"ok"
    assert connection.response().status == 400
    assert connection.is_closed()


def test_a_head_behind_a_late_body_is_not_taken_for_what_was_kept(
    serve: Any, raw: Any, hold: Hold
) -> None:
    app = App()

    @app.get("/slow")
    async def slow() -> None:
        await hold()

    @app.post("/deaf")
    def deaf() -> None: ...

    @app.post("/")
    async def root(request: Request) -> bytes:
        return await request.body()

    live = serve(app)
    connection, other = raw(live), raw(live)
    late = request("POST", "/deaf", "Content-Length: 6", "X: y") + b"ab"
    connection.send(request("GET", "/slow") + late)
    hold.wait_arrival()
    assert other.get("/none").status == 404
    hold.release()
    assert [connection.response().status for _ in range(2)] == [204, 204]
    # The parts are read one by one: there is an answer on the other connection after each.
    for part in (b"cdef" + POST + b"Content-Length: 2\r\nX: " + b"x" * 40, b"\r\n\r\nok"):
        connection.send(part)
        assert other.get("/none").status == 404
    assert connection.response().body == b"ok"


@pytest.mark.parametrize("split", range(20, 61, 8))
def test_nothing_follows_chunks_that_could_not_be_looked_at(
    echo: Echo, raw: Any, split: int
) -> None:
    connection = raw(echo)
    message = POST + CHUNKED + b"\r\n" + EVIL
    connection.send(request("GET", "/echo/first") + message[:split])
    assert connection.response().status == 200
    # The first part has been read with the request before it, and its place used again.
    assert_serves(raw(echo))
    connection.send(message[split:])
    assert connection.response().status in (200, 400)
    assert connection.is_closed()
    assert "/echo/smuggled" not in [seen.path for seen in echo.seen]


@pytest.mark.parametrize("line", [b"no colon", b"X Y: z", b"X: a\0b", b"X: a\rb"])
def test_a_malformed_trailer_is_400_and_the_end(echo: Echo, raw: Any, line: bytes) -> None:
    refused(echo, raw, POST + CHUNKED + b"\r\n" + chunked(b"hello", last=b"0\r\n%b\r\n\r\n" % line))


LENGTH_AND_CODING = {
    "length first": b"Content-Length: 3\r\n" + CHUNKED,
    "coding first": CHUNKED + b"Content-Length: 3\r\n",
    "two lengths": b"Content-Length: 3\r\n" + CHUNKED + b"Content-Length: 4\r\n",
    "a length of the whole": b"Content-Length: 15\r\n" + CHUNKED,
    "in another case": b"content-length: 3\r\ntRANSFER-eNCODING: Chunked\r\n",
}


@cases(LENGTH_AND_CODING)
@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
@pytest.mark.parametrize("path", [b"/", b"/deaf"])
def test_a_length_beside_a_coding_is_refused_or_ignored_and_the_connection_closed(
    echo: Echo, raw: Any, data: bytes, version: bytes, path: bytes
) -> None:
    head = b"POST %b %b\r\n" % (path, version) + HOST + b"Connection: keep-alive\r\n" + data
    response = only_response(raw(echo), head + b"\r\n" + chunked(b"hello") + SMUGGLED)
    if response.status == 200:
        assert path == b"/deaf" or parsed(response)["body"] == "hello"
        assert version == b"HTTP/1.1"
    else:
        assert response.status == 400
    assert "/echo/smuggled" not in [seen.path for seen in echo.seen]


BAD_CODINGS = {
    "another": b"gzip",
    "none": b"identity",
    "chunked, then another": b"chunked, gzip",
    "another, then chunked": b"gzip, chunked",
    "chunked twice": b"chunked, chunked",
    "chunked in two headers": b"chunked\r\nTransfer-Encoding: chunked",
    "something like chunked": b"xchunked",
    "chunked with a parameter": b"chunked;q=1",
    "chunked behind a vertical tab": b"\x0bchunked",
    "an empty one": b"",
}


@cases(BAD_CODINGS)
def test_a_coding_other_than_chunked_is_refused(echo: Echo, raw: Any, data: bytes) -> None:
    head = POST + b"Transfer-Encoding: " + data + b"\r\n\r\n"
    response = only_response(raw(echo), head + chunked(b"hello") + SMUGGLED)
    assert response.status in (400, 501)
    assert echo.seen == []


def test_a_coding_in_http_1_0_is_refused(echo: Echo, raw: Any) -> None:
    head = b"POST / HTTP/1.0\r\n" + HOST + b"Connection: keep-alive\r\n" + CHUNKED + b"\r\n"
    refused(echo, raw, head + chunked(b"hello") + SMUGGLED)


@pytest.mark.parametrize("end", [b"", b" HTTP/1.1\r\nHost: test\r\n\r\n"])
def test_a_target_that_is_too_long_is_414(echo: Echo, raw: Any, end: bytes) -> None:
    response = refused(echo, raw, b"GET /" + b"x" * 70_000 + end, 414)
    assert_problem(response, 414, "URI Too Long")


def test_a_refused_head_is_answered_behind_the_request_before(echo: Echo, raw: Any) -> None:
    connection = raw(echo)
    connection.send(request("GET", "/missing") + b"G@T / HTTP/1.1\r\n\r\n")
    assert_problem(connection.response(), 404, "Not Found")
    assert_problem(connection.response(), 400, "Bad Request")
    assert connection.rest() == b""


def test_a_target_that_is_too_long_is_414_behind_another_request(echo: Echo, raw: Any) -> None:
    connection = raw(echo)
    connection.send(request("GET", "/echo/1") + b"GET /" + b"x" * 70_000)
    assert [connection.response().status for _ in range(2)] == [200, 414]
    assert connection.is_closed()


def test_a_header_that_is_too_large_is_431(echo: Echo, raw: Any) -> None:
    response = refused(echo, raw, request("GET", "/", "X: " + "x" * 70_000), 431)
    assert_problem(response, 431, "Request Header Fields Too Large")


def test_a_head_without_an_end_is_431(echo: Echo, raw: Any) -> None:
    refused(echo, raw, GET + b"X: " + b"x" * 70_000, 431)


def test_too_many_headers_are_431(echo: Echo, raw: Any) -> None:
    refused(echo, raw, request("GET", "/", *(f"X-{n}: y" for n in range(101))), 431)


@pytest.mark.parametrize("target", [b"*", b"a:80", b"echo", b"http://", b"?x"])
def test_a_target_that_names_no_resource_is_400(echo: Echo, raw: Any, target: bytes) -> None:
    refused(echo, raw, b"GET %b HTTP/1.1\r\n" % target + HOST + b"\r\n")


def test_a_tunnel_is_refused(echo: Echo, raw: Any) -> None:
    refused(echo, raw, b"CONNECT a:80 HTTP/1.1\r\n" + HOST + b"\r\n" + SMUGGLED, 501)


def test_the_absolute_form_is_served_by_its_path(echo: Echo, raw: Any) -> None:
    connection = raw(echo)
    connection.send(b"GET http://elsewhere/echo/x HTTP/1.1\r\n" + HOST + b"\r\n")
    assert parsed(connection.response())["path"] == "/echo/x"


def test_http_2_is_told_what_is_spoken_here(echo: Echo, raw: Any) -> None:
    refused(echo, raw, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505)


@pytest.mark.parametrize("version", [b"0.9", b"1.2", b"1.9", b"2.0", b"2.1", b"3.0", b"9.9"])
def test_a_version_that_is_not_spoken_here_is_505(echo: Echo, raw: Any, version: bytes) -> None:
    message = b"\r\nGET / HTTP/%b\r\n" % version + HOST + b"\r\n"
    response = refused(echo, raw, message, 505)
    assert_problem(response, 505, "HTTP Version Not Supported")
    assert response.header("connection") == "close"
    assert response.header("date") is not None


def test_a_version_that_is_not_spoken_here_is_505_behind_another_request(
    echo: Echo, raw: Any
) -> None:
    connection = raw(echo)
    connection.send(request("GET", "/echo/1") + b"GET / HTTP/1.2\r\n\r\n")
    assert [connection.response().status for _ in range(2)] == [200, 505]
    assert connection.is_closed()


@pytest.mark.parametrize("split", [3, 6, 11, 12, 13, 14, 15])
def test_a_version_that_is_not_spoken_here_is_505_however_it_arrives(
    echo: Echo, raw: Any, split: int
) -> None:
    connection = raw(echo)
    head = b"GET / HTTP/2.0\r\n" + HOST + b"\r\n"
    connection.send(head[:split])
    # An answer on another connection of the same lane: the first part has been read by then.
    assert_serves(raw(echo))
    assert only_response(connection, head[split:]).status == 505


def test_what_was_well_formed_is_answered_before_the_refusal(echo: Echo, raw: Any) -> None:
    connection = raw(echo)
    connection.send(
        request("GET", "/echo/1") + request("GET", "/echo/2") + b"G@T / HTTP/1.1\r\n\r\n"
    )
    statuses = [connection.response().status for _ in range(3)]
    assert statuses == [200, 200, 400]
    assert connection.is_closed()


def test_a_refused_client_that_is_still_sending_gets_to_read_why(echo: Echo, raw: Any) -> None:
    connection = raw(echo)
    response = only_response(connection, b"G@T / HTTP/1.1\r\n\r\n" + b"x" * (4 << 20))
    assert response.status == 400


@pytest.mark.parametrize("data", BARE_LF.values(), ids=BARE_LF.keys())
def test_a_bare_lf_ends_a_line_of_the_head_and_nothing_else(
    echo: Echo, raw: Any, data: bytes
) -> None:
    connection = raw(echo)
    connection.send(data)
    received = connection.rest()
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.count(b"HTTP/1.1 ") == 1
    assert len(echo.seen) == 1
