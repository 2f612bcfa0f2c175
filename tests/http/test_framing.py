"""Where messages begin and end: one request, one response, in order, byte for byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.echo import Echo, Seen
from support.hold import Hold
from support.messages import assert_serves, chunked, only_response, parsed, request
from support.raw import RawResponse

from treadle import (
    App,
    HTMLResponse,
    HTTPException,
    JSONResponse,
    RedirectResponse,
    Request,
    Response,
    StreamingResponse,
)
from treadle.testing import LiveServer

# -- one after the other ---------------------------------------------------------------------------


def test_a_connection_serves_one_request_after_the_other(echo: Echo, raw: Any) -> None:
    connection = raw(echo)
    for number in range(5):
        response = connection.get(f"/echo/{number}")
        assert parsed(response)["path"] == f"/echo/{number}"
        assert response.header("connection") is None
        assert response.header("date") is not None


def test_connection_close_is_obeyed(echo: Echo, raw: Any) -> None:
    response = only_response(raw(echo), request("GET", "/", "Connection: close") * 2)
    assert response.header("connection") == "close"
    assert len(echo.seen) == 1


def test_pipelined_requests_are_answered_in_order(echo: Echo, raw: Any) -> None:
    connection = raw(echo)
    connection.send(b"".join(request("GET", f"/echo/{number}") for number in range(200)))
    paths = [parsed(connection.response())["path"] for _ in range(200)]
    assert paths == [f"/echo/{number}" for number in range(200)]


def test_an_answer_does_not_wait_for_the_next_request(serve: Any, raw: Any, hold: Hold) -> None:
    app = App()

    @app.get("/plain")
    def plain() -> str:
        return "plain"

    @app.get("/soon")
    async def soon() -> str:
        await asyncio.sleep(0)
        return "soon"

    @app.get("/held")
    async def held() -> str:
        await hold()
        return "held"

    connection = raw(serve(app))
    for first in ("plain", "soon"):
        paths = [f"/{first}", f"/{first}", "/held", "/soon"]
        connection.send(b"".join(request("GET", path) for path in paths))
        assert connection.response().body == first.encode()
        assert connection.response().body == first.encode()
        hold.wait_arrival()
        hold.release()
        assert connection.response().body == b"held"
        assert connection.response().body == b"soon"


def test_pipelined_bodies_stay_with_their_requests(echo: Echo, raw: Any) -> None:
    connection = raw(echo)
    bodies = [b"x" * (number * 37) for number in range(50)]
    parts = []
    for number, body in enumerate(bodies):
        if number % 2:
            head = request("POST", "/", "Transfer-Encoding: chunked")
            half = len(body) // 2
            parts.append(head + chunked(body[:half], body[half:]))
        else:
            parts.append(request("POST", "/", body=body))
    connection.send(b"".join(parts))
    answers = [parsed(connection.response())["body"].encode() for _ in bodies]
    assert answers == bodies


def test_requests_that_arrive_byte_by_byte_are_read(echo: Echo, raw: Any) -> None:
    connection = raw(echo)
    head = request("POST", "/echo/2", "Transfer-Encoding: chunked")
    everything = request("POST", "/echo/1", body=b"one") + head + chunked(b"t", b"wo")
    for byte in everything:
        connection.send(bytes([byte]))
    assert [parsed(connection.response())["body"] for _ in range(2)] == ["one", "two"]


@pytest.fixture
def mixed(serve: Any, hold: Hold) -> LiveServer:
    """Handlers of every mode, each with the number it was called with."""
    app = App()

    @app.get("/inline/{number:int}")
    def inline(number: int) -> int:
        return number

    @app.get("/offload/{number:int}", offload=True)
    def offload(number: int) -> int:
        return number

    @app.get("/task/{number:int}")
    async def task(number: int) -> int:
        return number

    @app.get("/suspends/{number:int}")
    async def suspends(number: int) -> int:
        await asyncio.sleep(0)
        return number

    @app.get("/stream/{number:int}")
    async def stream(number: int) -> StreamingResponse:
        async def digits() -> AsyncIterator[str]:
            for digit in str(number):
                await asyncio.sleep(0)
                yield digit

        return StreamingResponse(digits(), media_type="application/json")

    @app.get("/held/{number:int}")
    async def held(number: int) -> int:
        await hold()
        return number

    return serve(app)


def test_handlers_of_every_mode_answer_in_order(mixed: LiveServer, raw: Any) -> None:
    modes = ["inline", "offload", "task", "suspends", "stream"] * 20
    connection = raw(mixed)
    connection.send(
        b"".join(request("GET", f"/{mode}/{number}") for number, mode in enumerate(modes))
    )
    answers = [parsed(connection.response()) for _ in modes]
    assert answers == list(range(len(modes)))


def test_a_finished_answer_is_sent_before_a_slower_one_behind_it(
    mixed: LiveServer, raw: Any, hold: Hold
) -> None:
    connection = raw(mixed)
    for mode in ("inline", "suspends", "stream"):
        connection.send(request("GET", f"/{mode}/1") + request("GET", "/held/2"))
        assert parsed(connection.response()) == 1
        hold.wait_arrival()
        hold.release()
        assert parsed(connection.response()) == 2


def test_a_fast_request_behind_a_slow_one_waits_its_turn(
    mixed: LiveServer, raw: Any, hold: Hold
) -> None:
    connection = raw(mixed)
    connection.send(request("GET", "/held/1") + request("GET", "/inline/2"))
    hold.wait_arrival()
    # Another client does not wait.
    assert parsed(raw(mixed).get("/inline/3")) == 3
    hold.release()
    assert [parsed(connection.response()) for _ in range(2)] == [1, 2]


# -- bodies of requests ----------------------------------------------------------------------------

CHUNKED_BODIES = {
    "one chunk": b"5\r\nhello\r\n0\r\n\r\n",
    "a chunk a byte": chunked(*(b"%c" % byte for byte in b"hello")),
    "sizes with leading zeros": b"0005\r\nhello\r\n000\r\n\r\n",
    "an extension": b'5;name=value;other="quoted"\r\nhello\r\n0;last\r\n\r\n',
}


@pytest.mark.parametrize("body", CHUNKED_BODIES.values(), ids=CHUNKED_BODIES)
def test_a_chunked_body_is_read_whole(echo: Echo, raw: Any, body: bytes) -> None:
    connection = raw(echo)
    connection.send(request("POST", "/", "Transfer-Encoding: chunked") + body)
    assert parsed(connection.response())["body"] == "hello"
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


# -- bodies that nobody reads ----------------------------------------------------------------------


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


# -- HTTP/1.0 --------------------------------------------------------------------------------------


def test_http_1_0_closes(echo: Echo, raw: Any) -> None:
    response = only_response(raw(echo), request("GET", "/echo/old", version="HTTP/1.0") * 2)
    assert parsed(response)["path"] == "/echo/old"
    assert len(echo.seen) == 1


def test_http_1_0_may_ask_to_be_kept(echo: Echo, raw: Any) -> None:
    connection = raw(echo)
    for _ in range(3):
        connection.send(request("GET", "/", "Connection: keep-alive", version="HTTP/1.0"))
        response = connection.response()
        assert (response.status, response.header("connection")) == (200, "keep-alive")


def test_a_stream_to_http_1_0_ends_with_the_connection(mixed: LiveServer, raw: Any) -> None:
    ask = request("GET", "/stream/12345", "Connection: keep-alive", version="HTTP/1.0")
    response = only_response(raw(mixed), ask)
    assert response.header("transfer-encoding") is None
    assert response.header("connection") != "keep-alive"
    assert response.body == b"12345"


# -- HEAD, and what has no body --------------------------------------------------------------------


def every_response() -> App:
    """A route for each class of response."""
    app = App()
    results: dict[str, Any] = {
        "text": "hello",
        "empty-text": "",
        "bytes": b"hello",
        "json": {"a": [1, 2, 3]},
        "none": None,
    }
    for name, result in results.items():
        _give(app, name, result)

    @app.get("/response")
    def response() -> Response:
        return Response(b"12345", 201, {"X-Own": "1", "Content-Type": "text/x-own"})

    @app.get("/async")
    async def async_() -> dict[str, int]:
        await asyncio.sleep(0)
        return {"n": 1}

    @app.get("/html")
    def html() -> HTMLResponse:
        return HTMLResponse("<p>hello")

    @app.get("/made-json")
    def made_json() -> JSONResponse:
        return JSONResponse({"n": 1}, 202)

    @app.get("/redirect")
    def redirect() -> RedirectResponse:
        return RedirectResponse("/elsewhere")

    @app.get("/cookies")
    def cookies() -> Response:
        made = Response("x")
        made.set_cookie("a", "1")
        made.set_cookie("b", "2")
        return made

    @app.get("/not-modified")
    def not_modified() -> Response:
        return Response("not to be seen", 304, {"ETag": '"1"'})

    @app.get("/no-content")
    def no_content() -> Response:
        return Response("not to be seen", 204)

    @app.get("/reset-content")
    def reset_content() -> Response:
        return Response("not to be seen", 205)

    @app.get("/plain-reset-content", status=205)
    def plain_reset_content() -> str:
        return "not to be seen"

    @app.get("/streamed-reset-content")
    def streamed_reset_content() -> StreamingResponse:
        return StreamingResponse(iter([b"not to be seen"]), 205)

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"ab"
            yield b"cd"

        return StreamingResponse(chunks(), headers={"X-Own": "1"})

    @app.get("/sync-stream")
    def sync_stream() -> StreamingResponse:
        return StreamingResponse(iter([b"ab", b"cd"]))

    @app.get("/sized-stream")
    def sized_stream() -> StreamingResponse:
        return StreamingResponse(iter([b"ab", b"cd"]), headers={"Content-Length": "4"})

    @app.get("/streamed-nothing")
    def streamed_nothing() -> StreamingResponse:
        return StreamingResponse(iter([b"not to be seen"]), 204)

    @app.get("/exception")
    def exception() -> None:
        raise HTTPException(418, headers={"X-Own": "1"})

    @app.get("/failure")
    def failure() -> None:
        raise ValueError("secret")

    @app.get("/typed/{number:int}")
    def typed(number: int, required: int) -> int:
        return number

    @app.post("/posted")
    def posted() -> None: ...

    return app


def _give(app: App, name: str, result: Any) -> None:
    @app.get(f"/{name}")
    def give() -> Any:
        return result


@pytest.fixture(scope="module")
def responses() -> Iterator[LiveServer]:
    with LiveServer(every_response()) as live:
        yield live


CLASSES = {
    "/text": 200,
    "/empty-text": 200,
    "/bytes": 200,
    "/json": 200,
    "/none": 204,
    "/response": 201,
    "/async": 200,
    "/html": 200,
    "/made-json": 202,
    "/redirect": 307,
    "/cookies": 200,
    "/not-modified": 304,
    "/no-content": 204,
    "/reset-content": 205,
    "/plain-reset-content": 205,
    "/streamed-reset-content": 205,
    "/stream": 200,
    "/sync-stream": 200,
    "/sized-stream": 200,
    "/streamed-nothing": 204,
    "/exception": 418,
    "/failure": 500,
    "/typed/1?required=2": 200,
    "/typed/x": 422,
    "/typed/1": 422,
    "/posted": 405,
    "/absent": 404,
}


def comparable(response: RawResponse) -> list[tuple[str, str]]:
    """Headers but the date, and but the coding: it need not be known for bytes that never come
    (RFC 9110, 9.3.2)."""
    return sorted(
        (name, value)
        for name, value in response.headers
        if name not in ("date", "transfer-encoding")
    )


@pytest.mark.parametrize("path", CLASSES)
def test_head_gets_the_headers_of_get_and_no_byte_more(
    responses: LiveServer, raw: Any, path: str
) -> None:
    connection = raw(responses)
    get = connection.get(path)
    assert get.status == CLASSES[path]
    # What follows a body that should not be there would not parse as a response.
    connection.send(request("HEAD", path) + request("HEAD", path) + request("GET", "/text"))
    for _ in range(2):
        head = connection.response("HEAD")
        assert head.status == get.status
        assert comparable(head) == comparable(get)
    assert connection.response().body == b"hello"


BODILESS = [path for path, status in CLASSES.items() if status in (204, 205, 304)]


@pytest.mark.parametrize("path", BODILESS)
def test_a_status_without_a_body_has_none(responses: LiveServer, raw: Any, path: str) -> None:
    connection = raw(responses)
    connection.send(request("GET", path) + request("GET", "/text"))
    response = connection.response()
    assert response.header("transfer-encoding") is None
    if response.status == 204:
        assert response.header("content-length") is None
    if response.status == 205:
        # It ends where its headers end, and only its length says so (RFC 9110, 15.3.6).
        assert response.header("content-length") == "0"
    assert connection.response().body == b"hello"


def test_options_is_answered_without_a_body(responses: LiveServer, raw: Any) -> None:
    connection = raw(responses)
    connection.send(request("OPTIONS", "/text") + request("GET", "/text"))
    response = connection.response()
    assert response.status == 204
    assert set((response.header("allow") or "").split(", ")) == {"GET", "HEAD", "OPTIONS"}
    assert connection.response().body == b"hello"


# -- what a handler says about framing -------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "2"},
        {"Content-Length": "100"},
        {"Transfer-Encoding": "chunked"},
        {"Transfer-Encoding": "gzip", "Content-Length": "1"},
        {"Connection": "upgrade", "Upgrade": "x"},
    ],
)
def test_a_handlers_own_framing_does_not_reach_the_wire(
    serve: Any, raw: Any, headers: dict[str, str]
) -> None:
    app = App()

    @app.get("/")
    def root() -> Response:
        return Response(b"hello", headers=headers)

    connection = raw(serve(app))
    connection.send(request("GET") * 2)
    for _ in range(2):
        response = connection.response()
        assert (response.status, response.body) == (200, b"hello")
        assert response.header("content-length") == "5"


@pytest.mark.parametrize("declared", [2, 8])
def test_a_stream_of_another_length_than_it_declares_is_no_one_elses(
    serve: Any, raw: Any, declared: int
) -> None:
    """Too much is not taken for the next response, too little is seen to be."""
    app = App()

    @app.get("/")
    def root() -> StreamingResponse:
        return StreamingResponse(iter([b"he", b"llo"]), headers={"Content-Length": str(declared)})

    connection = raw(serve(app))
    connection.send(request("GET"))
    if declared == 8:
        with pytest.raises(EOFError):
            connection.response()
    else:
        # Seen before the head went out; what was too much is nowhere.
        response = connection.response()
        assert (response.status, response.header("connection")) == (500, "close")
        assert connection.rest() == b""


@pytest.mark.parametrize("value", ["close", "Close"])
def test_a_handler_may_close_the_connection(serve: Any, raw: Any, value: str) -> None:
    app = App()

    @app.get("/")
    def root() -> Response:
        return Response("bye", headers={"Connection": value})

    response = only_response(raw(serve(app)), request("GET") * 2)
    assert (response.body, (response.header("connection") or "").lower()) == (b"bye", "close")


def test_a_request_keeps_nothing_of_the_one_before_it(serve: Any, raw: Any) -> None:
    app = App()

    @app.post("/")
    async def root(request: Request) -> dict[str, Any]:
        before = getattr(request.state, "mark", None)
        request.state.mark = "seen"
        return {"before": before, "headers": request.headers.keys(), "body": await request.text()}

    connection = raw(serve(app))
    connection.send(request("POST", "/", "X-First: 1", body=b"first") + request("POST", "/"))
    first, second = (json.loads(connection.response().body) for _ in range(2))
    assert (first["before"], first["body"]) == (None, "first")
    assert (second["before"], second["body"]) == (None, "")
    assert "x-first" not in second["headers"]
