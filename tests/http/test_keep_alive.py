"""One connection, many requests: answered in order, each for itself, until one side has enough."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.echo import Echo
from support.hold import Hold
from support.messages import chunked, only_response, parsed, request

from treadle import (
    App,
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


# -- handlers of every mode ------------------------------------------------------------------------


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


# -- the last one ----------------------------------------------------------------------------------


def test_connection_close_is_obeyed(echo: Echo, raw: Any) -> None:
    response = only_response(raw(echo), request("GET", "/", "Connection: close") * 2)
    assert response.header("connection") == "close"
    assert len(echo.seen) == 1


@pytest.mark.parametrize("value", ["close", "Close"])
def test_a_handler_may_close_the_connection(serve: Any, raw: Any, value: str) -> None:
    app = App()

    @app.get("/")
    def root() -> Response:
        return Response("bye", headers={"Connection": value})

    response = only_response(raw(serve(app)), request("GET") * 2)
    assert (response.body, (response.header("connection") or "").lower()) == (b"bye", "close")


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
    assert response.header("connection") == "close"
    assert response.body == b"12345"


@pytest.mark.parametrize("ask", ["keep-alive", "close", None])
def test_an_answer_that_closes_says_nothing_else_to_http_1_0(
    serve: Any, raw: Any, ask: str | None
) -> None:
    app = App()

    @app.get("/closing")
    def closing() -> Response:
        return Response("bye", headers={"Connection": "close"})

    @app.post("/unread")
    def unread() -> dict[str, int]:
        return {"a": 1}

    live = serve(app)
    asked = [] if ask is None else [f"Connection: {ask}"]
    large = "Content-Length: 1000000"
    for data in (
        request("GET", "/closing", *asked, version="HTTP/1.0"),
        request("POST", "/unread", *asked, large, version="HTTP/1.0"),
    ):
        response = only_response(raw(live), data)
        assert (response.version, response.header("connection")) == ("HTTP/1.0", "close")
