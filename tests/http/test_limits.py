"""Limits: of bodies, of connections, of requests in flight, of a route's time."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import time
from collections.abc import Iterator
from queue import Queue
from typing import Any

import msgspec
import pytest
from support.hold import DEADLINE, Hold, take
from support.messages import assert_problem, assert_serves, chunked, only_response, parsed, request

from treadle import FREE_THREADED, App, HTTPException, Request, StreamingResponse
from treadle.telemetry import RefusedStats
from treadle.testing import LiveServer

LANES = [1, 2] if FREE_THREADED else [1]
UNAVAILABLE = (503, "Service Unavailable")


# -- bodies ----------------------------------------------------------------------------------------


class Counting:
    """An app that takes bodies in every way, and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.caught: list[int] = []
        self.app = App()
        self.app.post("/whole")(self.whole)
        self.app.post("/typed")(self.typed)
        self.app.post("/streamed")(self.streamed)
        self.app.post("/small", limit_body=5)(self.whole)
        self.app.post("/large", limit_body=1000)(self.whole)
        self.app.get("/")(self.root)

    def root(self) -> None: ...

    async def whole(self, request: Request) -> int:
        self.calls += 1
        return len(await request.body())

    async def typed(self, body: dict[str, str]) -> int:
        self.calls += 1
        return len(msgspec.json.encode(body))

    async def streamed(self, request: Request) -> int:
        self.calls += 1
        total = 0
        try:
            async for chunk in request.stream():
                total += len(chunk)
        except HTTPException as error:
            self.caught.append(error.status)
            raise
        return total


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest.fixture
def limited(serve: Any, counting: Counting) -> LiveServer:
    return serve(counting.app, limit_body=100)


@pytest.mark.parametrize("path", ["/whole", "/typed", "/streamed"])
def test_a_body_that_says_it_is_too_large_is_refused_before_any_of_it_came(
    limited: LiveServer, raw: Any, counting: Counting, path: str
) -> None:
    response = only_response(raw(limited), request("POST", path, "Content-Length: 101"))
    assert response.status == 413
    assert counting.calls == 0


@pytest.mark.parametrize("path", ["/whole", "/streamed"])
def test_a_body_that_grows_too_large_is_cut_off(
    limited: LiveServer, raw: Any, counting: Counting, path: str
) -> None:
    head = request("POST", path, "Transfer-Encoding: chunked")
    # No last chunk: the answer comes before the body's end.
    response = only_response(raw(limited), head + chunked(b"x" * 60, b"x" * 60, last=b""))
    assert response.status == 413
    assert response.header("connection") == "close"
    assert counting.caught == ([413] if path == "/streamed" else [])


def test_a_typed_body_that_grows_too_large_never_reaches_its_handler(
    limited: LiveServer, raw: Any, counting: Counting
) -> None:
    head = request("POST", "/typed", "Transfer-Encoding: chunked")
    body = chunked(b'{"a":"', b"x" * 120, b'"}')
    assert only_response(raw(limited), head + body).status == 413
    assert counting.calls == 0


@pytest.mark.parametrize("path", ["/whole", "/streamed"])
@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_a_body_of_exactly_the_limit_is_taken(
    limited: LiveServer, raw: Any, path: str, coding: str
) -> None:
    connection = raw(limited)
    body = b"x" * 100
    if coding == "length":
        connection.send(request("POST", path, body=body))
    else:
        connection.send(request("POST", path, "Transfer-Encoding: chunked") + chunked(body))
    assert parsed(connection.response()) == 100
    assert_serves(connection)


def test_a_route_may_take_less_or_more(limited: LiveServer, raw: Any) -> None:
    assert only_response(raw(limited), request("POST", "/small", "Content-Length: 6")).status == 413
    connection = raw(limited)
    connection.send(request("POST", "/small", body=b"x" * 5))
    assert parsed(connection.response()) == 5
    connection.send(request("POST", "/large", body=b"x" * 1000))
    assert parsed(connection.response()) == 1000
    response = only_response(raw(limited), request("POST", "/large", "Content-Length: 1001"))
    assert response.status == 413


def test_0_is_no_limit(serve: Any, raw: Any, counting: Counting) -> None:
    connection = raw(serve(counting.app, limit_body=0))
    connection.send(request("POST", "/whole", body=b"x" * (17 << 20)))
    assert parsed(connection.response()) == 17 << 20


def test_the_limit_is_16_mib_unless_said_otherwise(
    serve: Any, raw: Any, counting: Counting
) -> None:
    live = serve(counting.app)
    too_much = request("POST", "/whole", f"Content-Length: {(16 << 20) + 1}")
    assert only_response(raw(live), too_much).status == 413
    assert counting.calls == 0


def test_a_refused_client_that_sends_on_gets_to_read_why(limited: LiveServer, raw: Any) -> None:
    response = only_response(raw(limited), request("POST", "/whole", body=b"x" * (4 << 20)))
    assert response.status == 413


# -- connections -----------------------------------------------------------------------------------


def hello() -> App:
    app = App()

    @app.get("/")
    def root() -> str:
        return "hello"

    return app


def until_served(live: LiveServer, raw: Any) -> None:
    """Connects anew until the server takes the connection."""
    deadline = time.monotonic() + DEADLINE
    while raw(live).get("/").status != 200:
        assert time.monotonic() < deadline, "no place became free"


@pytest.mark.parametrize("lanes", LANES)
def test_a_connection_too_many_is_told_to_come_back(serve: Any, raw: Any, lanes: int) -> None:
    live = serve(hello(), limit_connections=2, lanes=lanes)
    held = [raw(live) for _ in range(2)]
    for connection in held:
        assert_serves(connection)
    # Refused without a word from the client.
    response = only_response(raw(live), b"")
    assert_problem(response, *UNAVAILABLE)
    assert int(response.header("retry-after") or "") >= 1
    assert response.header("connection") == "close"
    assert_serves(held[0])
    held[1].close()
    until_served(live, raw)
    assert_serves(held[0])


# -- requests in flight ----------------------------------------------------------------------------


def holding(hold: Hold) -> App:
    app = hello()

    @app.get("/held")
    async def held() -> str:
        await hold()
        return "held"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> Any:
            yield "a"
            await hold()
            yield "b"

        return StreamingResponse(chunks())

    return app


def test_a_request_too_many_is_told_to_come_back_and_its_connection_stays(
    serve: Any, raw: Any, hold: Hold
) -> None:
    live = serve(holding(hold), limit_concurrency=2)
    busy = [raw(live) for _ in range(2)]
    for connection in busy:
        connection.send(request("GET", "/held"))
    hold.wait_arrival(2)
    other = raw(live)
    for _ in range(2):
        response = other.get("/")
        assert_problem(response, *UNAVAILABLE)
        assert int(response.header("retry-after") or "") >= 1
        assert response.header("connection") is None
    hold.release()
    assert [connection.response().body for connection in busy] == [b"held"] * 2
    assert_serves(other)


def test_idle_connections_do_not_count_as_requests(serve: Any, raw: Any, hold: Hold) -> None:
    live = serve(holding(hold), limit_concurrency=1)
    idle = [raw(live) for _ in range(20)]
    for connection in idle[:10]:
        assert_serves(connection)
    assert_serves(raw(live))
    for connection in idle:
        assert_serves(connection)


def test_a_request_counts_until_its_last_byte(serve: Any, raw: Any, hold: Hold) -> None:
    live = serve(holding(hold), limit_concurrency=1)
    streaming = raw(live)
    streaming.send(request("GET", "/stream"))
    hold.wait_arrival()
    assert raw(live).get("/").status == 503
    hold.release()
    assert streaming.response().body == b"ab"
    until_served(live, raw)


@pytest.mark.parametrize("path", ["/held", "/stream"])
def test_a_client_that_leaves_gives_its_place_back(
    serve: Any, raw: Any, hold: Hold, path: str
) -> None:
    live = serve(holding(hold), limit_concurrency=1)
    leaver = raw(live)
    leaver.send(request("GET", path))
    hold.wait_arrival()
    assert raw(live).get("/").status == 503
    leaver.close()
    assert hold.outcome() == "CancelledError"
    until_served(live, raw)


def test_a_failed_request_gives_its_place_back(serve: Any, raw: Any) -> None:
    app = hello()

    @app.get("/fails")
    async def fails() -> None:
        raise ValueError

    connection = raw(serve(app, limit_concurrency=1))
    for _ in range(3):
        assert connection.get("/fails").status == 500
        assert_serves(connection)


# -- a route's time --------------------------------------------------------------------------------


def timed(hold: Hold, **options: Any) -> App:
    app = hello()

    @app.get("/slow", timeout=0.05, **options)
    async def slow() -> str:
        await hold()
        return "slow"

    @app.get("/blocks", timeout=0.05, offload=True)
    def blocks() -> str:
        hold.block()
        return "blocked"

    @app.get("/quick", timeout=5)
    async def quick() -> str:
        await asyncio.sleep(0)
        return "quick"

    @app.post("/reads", timeout=0.05)
    async def reads(request: Request) -> int:
        with hold.watched():
            return len(await request.body())

    @app.post("/typed", timeout=0.05)
    async def typed(body: dict[str, int]) -> int:
        return len(body)

    @app.get("/general")
    async def general() -> str:
        await hold()
        return "general"

    @app.get("/patient", timeout=10)
    async def patient() -> str:
        await hold()
        return "patient"

    return app


def test_a_route_that_takes_too_long_is_504_and_its_task_cancelled(
    serve: Any, raw: Any, hold: Hold, caplog: pytest.LogCaptureFixture
) -> None:
    connection = raw(serve(timed(hold)))
    started = time.monotonic()
    connection.send(request("GET", "/slow") + request("GET", "/quick"))
    assert_problem(connection.response(), 504, "Gateway Timeout")
    assert time.monotonic() - started >= 0.05
    assert hold.outcome() == "CancelledError"
    # The connection is as good as before.
    assert connection.response().body == b"quick"
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_blocking_route_that_takes_too_long_is_504(serve: Any, raw: Any, hold: Hold) -> None:
    connection = raw(serve(timed(hold)))
    assert_problem(connection.get("/blocks"), 504, "Gateway Timeout")
    hold.release()
    assert hold.outcome() == "finished"


@pytest.mark.parametrize("path", ["/reads", "/typed"])
def test_a_routes_time_includes_its_body(serve: Any, raw: Any, hold: Hold, path: str) -> None:
    connection = raw(serve(timed(hold)))
    response = only_response(connection, request("POST", path, "Content-Length: 5") + b"{")
    assert response.status in (408, 504)
    if path == "/reads":
        assert hold.outcome() == "CancelledError"


def test_a_route_may_take_longer_than_others(serve: Any, raw: Any, hold: Hold) -> None:
    live = serve(timed(hold), timeout_request=0.1)
    patient = raw(live)
    patient.send(request("GET", "/patient"))
    hold.wait_arrival()
    # Requests that the general time cuts short, one after the other: that long the other lasts.
    for _ in range(3):
        app_wide = raw(live)
        app_wide.send(request("GET", "/general"))
        hold.wait_arrival()
        assert app_wide.response().status == 504
        assert hold.outcome() == "CancelledError"
    hold.release()
    assert patient.response().body == b"patient"


# -- what the log says of it -----------------------------------------------------------------------


@pytest.fixture
def warnings() -> Iterator[Queue[str]]:
    """What `treadle` warns of, as it comes."""
    lines: Queue[str] = Queue()

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.put(record.getMessage())

    handler = Lines(logging.WARNING)
    logging.getLogger("treadle").addHandler(handler)
    yield lines
    logging.getLogger("treadle").removeHandler(handler)


@pytest.mark.parametrize("kind", ["request", "connection"])
def test_refusals_are_logged_the_first_at_once_and_more_of_them_once_a_second(
    serve: Any, raw: Any, hold: Hold, warnings: Queue[str], kind: str
) -> None:
    limits = {"limit_concurrency": 1} if kind == "request" else {"limit_connections": 1}
    app = holding(hold)
    live = serve(app, **limits)
    busy = raw(live)
    busy.send(request("GET", "/held"))
    hold.wait_arrival()
    started = time.monotonic()
    for _ in range(30):
        with raw(live) as refused:
            response = refused.get() if kind == "request" else refused.response()
            assert response.status == 503
    reason = f"refused: --{next(iter(limits)).replace('_', '-')} 1 is reached"
    assert take(warnings) == f"1 {kind} {reason}"
    told, lines = 1, 1
    while told < 30:
        count, rest = take(warnings).split(" ", 1)
        assert rest in (f"{kind} {reason}", f"{kind}s {reason}")
        told += int(count)
        lines += 1
    assert told == 30
    assert app.stats().refused == RefusedStats(**{f"{kind}s": 30})
    assert lines <= 2 + (time.monotonic() - started)


def test_a_lack_of_descriptors_is_logged_once_in_a_while_and_not_at_each_try(
    serve: Any, raw: Any, warnings: Queue[str]
) -> None:
    live = serve(App())
    (meter,) = live.server.meters()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with raw(live) as known, socket.socket() as client, open("/dev/null") as lowest:
        assert known.get().status == 404
        # All numbers below the limit are taken.
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest.fileno() + 1, limits[1]))
        try:
            client.connect(live.address)
            assert take(warnings) == (
                "accepting fails and is tried again: Too many open files (os error 24)"
            )
            # The lane wakes for each try, and for nothing else.
            first = meter.pulse()[0]
            deadline = time.monotonic() + DEADLINE
            while meter.pulse()[0] < first + 20:
                assert time.monotonic() < deadline
                os.sched_yield()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        client.sendall(request("GET", "/"))
        assert client.recv(12) == b"HTTP/1.1 404"
    assert warnings.empty()
