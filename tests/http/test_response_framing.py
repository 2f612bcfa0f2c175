"""Where responses end, byte for byte: HEAD, statuses without a body, what handlers say of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.messages import request
from support.raw import RawResponse

from treadle import (
    App,
    HTMLResponse,
    HTTPException,
    JSONResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from treadle.testing import LiveServer

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


def own_heads() -> App:
    """Handlers for HEAD itself, which give back no body."""
    app = App()

    @app.get("/known")
    def known() -> bytes:
        return b"x" * 1234

    @app.head("/known")
    async def head_of_known() -> Response:
        return Response(headers={"Content-Length": "1234", "Content-Type": "x/y"})

    @app.head("/twice")
    def twice() -> Response:
        return Response(headers=[("Content-Length", "5"), ("Content-Length", "5")])

    @app.head("/none")
    def none() -> Response:
        return Response()

    @app.head("/plain")
    def plain() -> str:
        return ""

    @app.head("/nonsense")
    def nonsense() -> Response:
        return Response(headers={"Content-Length": "some"})

    @app.head("/parameter/{name}")
    def parameter(name: str) -> Response:
        return Response(headers={"Content-Length": name})

    @app.head("/body")
    def body() -> Response:
        return Response(b"12345", headers={"Content-Length": "99"})

    @app.head("/status/{status:int}")
    def status(status: int) -> Response:
        return Response(status=status, headers={"Content-Length": "5"})

    # HEAD has none of its own here: it is told what GET says, and that is the truth.
    @app.get("/of-get")
    def of_get() -> Response:
        return Response(headers={"Content-Length": "99"})

    @app.get("/of-get/{name}")
    def of_get_with_parameter(name: str) -> Response:
        return Response(headers={"Content-Length": "99"})

    return app


@pytest.mark.parametrize(
    ("path", "length"),
    [
        ("/known", "1234"),
        ("/twice", "5"),
        ("/none", None),
        ("/plain", None),
        ("/nonsense", None),
        ("/parameter/77", "77"),
        ("/body", "5"),
        ("/status/404", "5"),
        ("/status/204", None),
        ("/status/304", None),
        ("/status/205", "0"),
        ("/of-get", "0"),
        ("/of-get/x", "0"),
    ],
)
def test_a_handler_for_head_says_the_length_that_get_would_have_or_none_is_said(
    serve: Any, raw: Any, path: str, length: str | None
) -> None:
    connection = raw(serve(own_heads()))
    for _ in range(2):
        connection.send(request("HEAD", path))
        assert connection.response("HEAD").header("content-length") == length
        # Of all else the end must be known: what HEAD said is forgotten.
        assert connection.get("/of-get").header("content-length") == "0"


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


@pytest.mark.parametrize(
    ("connection", "sent"),
    [("upgrade", None), ("keep-alive", None), ("close", "close"), ("Upgrade, Close", "close")],
)
@pytest.mark.parametrize("kind", [Response, StreamingResponse])
def test_of_a_handlers_connection_header_only_the_end_is_sent(
    serve: Any, raw: Any, kind: Any, connection: str, sent: str | None
) -> None:
    app = App()

    @app.get("/")
    def root() -> Any:
        content = b"hello" if kind is Response else iter([b"hello"])
        headers = {"Connection": connection, "Upgrade": "x", "Transfer-Encoding": "gzip"}
        return kind(content, headers=headers)

    client = raw(serve(app))
    response = client.get("/")
    assert (response.body, response.header("connection")) == (b"hello", sent)
    assert response.header("transfer-encoding") == ("chunked" if kind is not Response else None)
    if sent is not None:
        assert client.is_closed()


def test_a_stream_may_say_its_length_twice(serve: Any, raw: Any) -> None:
    app = App()

    @app.get("/{status:int}")
    def root(status: int) -> StreamingResponse:
        headers = [("Content-Length", "5")] * 2
        return StreamingResponse(iter([b"hello"]), status, headers)

    connection = raw(serve(app))
    response = connection.get("/200")
    assert (response.header("content-length"), response.body) == ("5", b"hello")
    # There is none to say where there is no content (RFC 9110, 8.6).
    assert connection.get("/204").header("content-length") is None


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
