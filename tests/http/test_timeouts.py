"""Slow clients and slow handlers: what takes too long ends, and nobody else waits for it."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

import pytest
from support.hold import Hold
from support.messages import assert_problem, assert_serves, only_response, request
from support.raw import Raw

from treadle import App, Request, StreamingResponse

SHORT = 0.1
"""Seconds of the timeout under test; the clock that watches over it ticks eight times in it."""
BIG = 12 * 1024 * 1024
"""Bytes of an answer: more than the buffers of two sockets hold."""


def app(hold: Hold | None = None) -> App:
    made = App()

    @made.get("/")
    def root() -> str:
        return "hello"

    if hold is None:
        return made

    @made.get("/held")
    async def held() -> str:
        await hold()
        return "held"

    @made.post("/reads")
    async def reads(request: Request) -> int:
        with hold.watched():
            return len(await request.body())

    @made.post("/typed")
    async def typed(body: dict[str, int]) -> int:
        return len(body)

    @made.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> Any:
            yield "a"
            await hold()
            yield "b"

        return StreamingResponse(chunks())

    return made


def outlast_idle(live: Any, raw: Any) -> None:
    """Lets the time of an idle connection pass, twice."""
    for _ in range(2):
        idle = raw(live)
        assert_serves(idle)
        assert idle.is_closed()


def trickle(connection: Raw, data: bytes) -> None:
    """Sends a byte every few milliseconds, until all is sent or there is something to read."""
    before = connection.socket.gettimeout()
    connection.socket.settimeout(SHORT / 20)
    with contextlib.suppress(ConnectionError):
        for byte in data:
            connection.send(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                connection.socket.recv(1, socket.MSG_PEEK)
                break
    connection.socket.settimeout(before)


# -- heads -----------------------------------------------------------------------------------------

PARTS = {
    "a word": b"GET",
    "a request line": b"GET / HTTP/1.1\r\n",
    "a head without its end": b"GET / HTTP/1.1\r\nHost: a\r\n",
    "an empty line": b"\r\n",
}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_head_that_does_not_end_is_408(serve: Any, raw: Any, part: bytes) -> None:
    connection = raw(serve(app(), timeout_header=SHORT))
    started = time.monotonic()
    response = only_response(connection, part)
    assert_problem(response, 408, "Request Timeout")
    assert response.header("connection") == "close"
    assert time.monotonic() - started >= SHORT


@pytest.mark.timing
def test_a_head_that_trickles_in_gains_no_time(serve: Any, raw: Any) -> None:
    connection = raw(serve(app(), timeout_header=SHORT))
    started = time.monotonic()
    trickle(connection, request("GET", "/", "X: " + "x" * 1000))
    assert connection.response().status == 408
    assert time.monotonic() - started < 10 * SHORT


def test_a_slow_head_behind_a_request_is_408(serve: Any, raw: Any) -> None:
    connection = raw(serve(app(), timeout_header=SHORT))
    connection.send(request("GET") + b"GET / HT")
    assert connection.response().status == 200
    assert connection.response().status == 408
    assert connection.is_closed()


def test_a_connection_that_never_speaks_is_closed(serve: Any, raw: Any) -> None:
    connection = raw(serve(app(), timeout_header=SHORT))
    assert connection.rest().startswith(b"HTTP/1.1 408 ")


# -- keep-alive ------------------------------------------------------------------------------------


def test_an_idle_connection_is_closed_without_a_word(serve: Any, raw: Any) -> None:
    connection = raw(serve(app(), timeout_keep_alive=SHORT))
    assert_serves(connection)
    started = time.monotonic()
    assert connection.is_closed()
    assert time.monotonic() - started >= SHORT / 2


@pytest.mark.parametrize("parts", [[b"late!"], [b"la", b"te!"]])
def test_the_late_body_that_nobody_reads_begins_no_head(
    serve: Any, raw: Any, parts: list[bytes]
) -> None:
    connection = raw(serve(app(), timeout_header=SHORT, timeout_keep_alive=5 * SHORT))
    connection.send(request("GET", "/", "Content-Length: 5"))
    assert connection.response().status == 200
    for part in parts:
        connection.send(part)
    assert connection.rest() == b""


def test_a_busy_connection_is_not_idle(serve: Any, raw: Any, hold: Hold) -> None:
    live = serve(app(hold), timeout_keep_alive=SHORT)
    busy = raw(live)
    busy.send(request("GET", "/held"))
    hold.wait_arrival()
    outlast_idle(live, raw)
    hold.release()
    assert busy.response().body == b"held"
    assert_serves(busy)


# -- whole requests --------------------------------------------------------------------------------


def test_a_handler_that_takes_too_long_is_504_and_cancelled(
    serve: Any, raw: Any, hold: Hold
) -> None:
    connection = raw(serve(app(hold), timeout_request=SHORT))
    started = time.monotonic()
    connection.send(request("GET", "/held"))
    assert_problem(connection.response(), 504, "Gateway Timeout")
    assert time.monotonic() - started >= SHORT
    assert hold.outcome() == "CancelledError"


@pytest.mark.parametrize("path", ["/reads", "/typed"])
def test_a_body_that_does_not_come_is_408(serve: Any, raw: Any, hold: Hold, path: str) -> None:
    connection = raw(serve(app(hold), timeout_request=SHORT))
    head = request("POST", path, "Content-Length: 1000")
    response = only_response(connection, head + b"x")
    assert_problem(response, 408, "Request Timeout")
    if path == "/reads":
        assert hold.outcome() == "CancelledError"


@pytest.mark.timing
def test_a_body_that_trickles_in_gains_no_time(serve: Any, raw: Any, hold: Hold) -> None:
    connection = raw(serve(app(hold), timeout_request=SHORT))
    started = time.monotonic()
    connection.send(request("POST", "/reads", "Content-Length: 1000"))
    trickle(connection, b"x" * 999)
    assert connection.response().status == 408
    assert time.monotonic() - started < 10 * SHORT
    assert hold.outcome() == "CancelledError"


def test_an_answer_that_has_begun_may_take_its_time(serve: Any, raw: Any, hold: Hold) -> None:
    live = serve(app(hold), timeout_request=SHORT, timeout_keep_alive=SHORT, timeout_header=SHORT)
    streaming = raw(live)
    streaming.send(request("GET", "/stream"))
    hold.wait_arrival()
    outlast_idle(live, raw)
    hold.release()
    assert streaming.response().body == b"ab"


def streaming(hold: Hold) -> App:
    """Answers that have begun, with a body that has not ended."""
    made = app(hold)

    @made.post("/echo")
    async def echo(request: Request) -> StreamingResponse:
        async def chunks() -> Any:
            with hold.watched():
                async for chunk in request.stream():
                    yield chunk

        return StreamingResponse(chunks())

    @made.post("/first")
    async def first(request: Request) -> StreamingResponse:
        async def chunks() -> Any:
            async for chunk in request.stream():
                yield chunk
                break
            await hold()
            yield "end"

        return StreamingResponse(chunks())

    return made


@pytest.mark.parametrize("sent", [b"", b"x"])
def test_a_body_that_does_not_come_while_the_answer_is_sent_is_the_end(
    serve: Any, raw: Any, hold: Hold, sent: bytes
) -> None:
    live = serve(streaming(hold), timeout_request=SHORT, limit_concurrency=1)
    connection = raw(live)
    started = time.monotonic()
    connection.send(request("POST", "/echo", "Content-Length: 1000") + sent)
    answer = connection.rest()
    assert time.monotonic() - started >= SHORT
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert not answer.endswith(b"0\r\n\r\n")
    assert hold.outcome() in ("CancelledError", "ClientDisconnect")
    assert_serves(raw(live))


def test_an_answer_that_is_cut_is_a_reset_for_http_1_0(serve: Any, raw: Any, hold: Hold) -> None:
    """Nothing else would tell it from the end."""
    connection = raw(serve(streaming(hold), timeout_request=SHORT))
    connection.send(request("POST", "/echo", "Content-Length: 9", version="HTTP/1.0") + b"part")
    connection.until(b"part")
    with pytest.raises(ConnectionResetError):
        connection.socket.recv(1)


@pytest.mark.timing
def test_each_byte_of_a_body_that_is_read_while_the_answer_is_sent_gains_time(
    serve: Any, raw: Any, hold: Hold
) -> None:
    limit = 4 * SHORT
    connection = raw(serve(streaming(hold), timeout_request=limit))
    connection.send(request("POST", "/echo", "Content-Length: 50"))
    connection.until(b"\r\n\r\n")
    started = time.monotonic()
    for _ in range(50):
        connection.send(b"x")
        assert connection.until(b"x\r\n") == b"1\r\nx\r\n"
        time.sleep(limit / 20)  # slow is what it is
    assert connection.until(b"\r\n\r\n") == b"0\r\n\r\n"
    assert time.monotonic() - started > 2 * limit
    assert hold.outcome() == "finished"


def test_an_answer_that_reads_no_more_may_take_its_time(serve: Any, raw: Any, hold: Hold) -> None:
    live = serve(streaming(hold), timeout_request=SHORT, timeout_keep_alive=2 * SHORT)
    connection = raw(live)
    connection.send(request("POST", "/first", "Content-Length: 1000") + b"x")
    hold.wait_arrival()
    outlast_idle(live, raw)
    hold.release()
    assert connection.response().body == b"xend"


def test_a_body_may_not_come_for_ever_where_there_is_no_limit(
    serve: Any, raw: Any, hold: Hold
) -> None:
    live = serve(streaming(hold), timeout_request=0, timeout_keep_alive=SHORT)
    connection = raw(live)
    connection.send(request("POST", "/echo", "Content-Length: 1"))
    connection.until(b"\r\n\r\n")
    outlast_idle(live, raw)
    connection.send(b"x")
    assert connection.until(b"\r\n0\r\n\r\n") == b"1\r\nx\r\n0\r\n\r\n"


# -- routes with a time of their own ----------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("whose", ["route", "server"])
def test_time_that_is_up_cancels_a_handler_that_goes_on_without_its_client(
    serve: Any, raw: Any, hold: Hold, whose: str, method: str
) -> None:
    made = app()
    options: Any = {"timeout": SHORT} if whose == "route" else {}

    @made.get("/kept", cancel_on_disconnect=False, **options)
    async def kept() -> None:
        await hold()

    @made.post("/kept", cancel_on_disconnect=False, **options)
    async def kept_with_body(body: list[int]) -> None:
        await hold()

    connection = raw(serve(made, timeout_request=SHORT if whose == "server" else 60))
    connection.send(request(method, "/kept", body=b"[1]" if method == "POST" else b""))
    assert_problem(connection.response(), 504, "Gateway Timeout")
    assert hold.outcome() == "CancelledError"


@pytest.mark.parametrize("path", ["/typed", "/reads"])
def test_a_body_that_does_not_come_in_the_time_of_its_route_is_504_and_the_end(
    serve: Any, raw: Any, hold: Hold, path: str
) -> None:
    made = app()

    @made.post("/typed", timeout=SHORT)
    async def typed(body: dict[str, int]) -> None: ...

    @made.post("/reads", timeout=SHORT)
    async def reads(request: Request) -> None:
        with hold.watched():
            await request.body()

    head = request("POST", path, "Content-Length: 10")
    response = only_response(raw(serve(made)), head + b"x")
    assert_problem(response, 504, "Gateway Timeout")
    assert response.header("connection") == "close"
    if path == "/reads":
        assert hold.outcome() == "CancelledError"


def test_a_connection_whose_request_was_whole_goes_on_after_the_time_of_its_route(
    serve: Any, raw: Any, hold: Hold
) -> None:
    made = app()

    @made.post("/", timeout=SHORT)
    async def late(body: list[int]) -> None:
        await hold()

    connection = raw(serve(made))
    connection.send(request("POST", "/", body=b"[1]"))
    response = connection.response()
    assert_problem(response, 504, "Gateway Timeout")
    assert response.header("connection") is None
    assert_serves(connection)


# -- answers ---------------------------------------------------------------------------------------


def big() -> App:
    made = app()

    @made.get("/big")
    def root() -> bytes:
        return bytes(BIG)

    return made


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_a_client_that_takes_nothing_of_its_answer_is_cut_off(
    serve: Any, raw: Any, version: str
) -> None:
    made = big()
    live = serve(made, timeout_write=SHORT)
    connection, other = raw(live), raw(live)
    connection.send(request("GET", "/big", version=version))

    def is_over() -> bool:
        stats = made.stats()
        begun = any(route.template == "/big" and route.requests for route in stats.routes)
        return begun and stats.lanes[0].open == 1

    while not is_over():
        assert_serves(other)
    with pytest.raises((ConnectionResetError, EOFError)):
        connection.exactly(BIG)


@pytest.mark.timing
def test_a_client_that_takes_its_answer_slowly_gets_all_of_it(serve: Any, raw: Any) -> None:
    """The kernel's buffers do not hide for longer than the limit that it takes some."""
    limit = 6 * SHORT
    connection = raw(serve(big(), timeout_write=limit))
    connection.send(request("GET", "/big"))
    connection.until(b"\r\n\r\n")
    until = time.monotonic() + 3 * limit
    taken = 0
    while time.monotonic() < until:
        taken += len(connection.exactly(8192))
        time.sleep(SHORT / 10)  # slow is what it is
    assert len(connection.exactly(BIG - taken)) == BIG - taken


def test_0_is_no_limit(serve: Any, raw: Any, hold: Hold) -> None:
    live = serve(app(hold), timeout_request=0, timeout_header=0, timeout_keep_alive=SHORT)
    busy, half = raw(live), raw(live)
    busy.send(request("GET", "/held"))
    half.send(b"GET / HTTP/1.1\r\n")
    hold.wait_arrival()
    outlast_idle(live, raw)
    hold.release()
    assert busy.response().body == b"held"
    half.send(b"Host: a\r\n\r\n")
    assert half.response().status == 200


def test_all_of_it_is_on_unless_turned_off(serve: Any) -> None:
    options = serve(app()).options
    assert (options.timeout_header, options.timeout_keep_alive, options.timeout_request) == (
        10.0,
        75.0,
        60.0,
    )


# -- many slow ones --------------------------------------------------------------------------------


@pytest.mark.timing
def test_half_open_heads_keep_nobody_waiting_and_are_reaped(serve: Any, raw: Any) -> None:
    live = serve(app(), timeout_header=1.0)
    half_open = [raw(live) for _ in range(1000)]
    started = time.monotonic()
    for connection in half_open:
        connection.send(b"GET / HTTP/1.1\r\nX: ")
    waits = []
    for _ in range(20):
        before = time.monotonic()
        assert_serves(raw(live))
        waits.append(time.monotonic() - before)
    assert sorted(waits)[10] < 0.1
    for connection in half_open:
        assert connection.rest().startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - started < 5.0
    assert_serves(raw(live))
