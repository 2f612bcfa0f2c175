"""How a server stops: in order, within the grace period, with no request answered half."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.hold import Hold
from support.messages import assert_serves, request
from support.raw import Raw

from treadle import FREE_THREADED, App, Lane, Request, State, StreamingResponse
from treadle.testing import LiveServer

LANES = [1, 2] if FREE_THREADED else [1]


class Journal:
    """An app that writes down what happens to it, in order."""

    def __init__(self, hold: Hold) -> None:
        self.lines: list[str] = []
        self.hold = hold
        self.app = App(lifespan=self._lifespan, lane_lifespan=self._lane_lifespan)

        @self.app.get("/")
        def root() -> str:
            return "hello"

        @self.app.get("/held")
        async def held(request: Request) -> str:
            try:
                await hold()
                self.lines.append(f"handler finished on {request.lane.index}")
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                self.lines.append("handler cancelled")
                raise
            return "held"

        @self.app.get("/kept", cancel_on_disconnect=False)
        async def kept() -> None:
            await hold()
            self.lines.append("handler finished")

        @self.app.get("/stream")
        async def stream() -> StreamingResponse:
            async def chunks() -> AsyncIterator[str]:
                yield "first"
                await hold()
                yield "second"
                self.lines.append("handler finished")

            return StreamingResponse(chunks())

    async def _lifespan(self, app: App) -> AsyncIterator[None]:
        yield
        self.lines.append("app down")

    async def _lane_lifespan(self, lane: Lane) -> AsyncIterator[None]:
        yield
        self.lines.append(f"lane {lane.index} down")


@pytest.fixture
def journal(hold: Hold) -> Journal:
    return Journal(hold)


def stopping(live: LiveServer) -> Callable[[], None]:
    """Begins to stop `live`; what is returned waits for the end."""
    address = live.address
    thread = threading.Thread(target=live.stop)
    thread.start()
    # A stop begins with the end of listening.
    while True:
        try:
            Raw(address).close()
        except OSError:
            return thread.join


# -- what is done is sent --------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", LANES)
def test_a_stop_has_an_order(
    serve: Any, raw: Any, journal: Journal, hold: Hold, lanes: int
) -> None:
    live = serve(journal.app, lanes=lanes, grace=10)
    idle = [raw(live) for _ in range(4)]
    for connection in idle:
        assert_serves(connection)
    fresh = raw(live)
    busy = [raw(live) for _ in range(2)]
    for connection in busy:
        connection.send(request("GET", "/held"))
    hold.wait_arrival(2)
    wait = stopping(live)
    # What is idle is closed while what is busy goes on.
    for connection in [*idle, fresh]:
        assert connection.is_closed()
    assert journal.lines == []
    hold.release()
    for connection in busy:
        response = connection.response()
        assert (response.body, response.header("connection")) == (b"held", "close")
        assert connection.is_closed()
    started = time.monotonic()
    wait()
    # The grace is no fixed time: what is over is over.
    assert time.monotonic() - started < 5.0
    # Each lane goes its own pace; the process's lifespan ends when all have ended.
    assert journal.lines[-1] == "app down"
    for lane in range(lanes):
        own = [line for line in journal.lines if str(lane) in line]
        served = [f"handler finished on {lane}"] * (2 // lanes)
        assert own == [*served, f"lane {lane} down"]


def test_a_stream_that_has_begun_is_sent_to_its_end(
    serve: Any, raw: Any, journal: Journal, hold: Hold
) -> None:
    live = serve(journal.app, grace=10)
    connection = raw(live)
    connection.send(request("GET", "/stream"))
    hold.wait_arrival()
    wait = stopping(live)
    hold.release()
    assert connection.response().body == b"firstsecond"
    assert connection.is_closed()
    wait()
    assert journal.lines == ["handler finished", "lane 0 down", "app down"]


def test_a_handler_that_goes_on_without_its_client_has_the_grace_too(
    serve: Any, raw: Any, journal: Journal, hold: Hold
) -> None:
    live = serve(journal.app, grace=10)
    connection, other = raw(live), raw(live)
    connection.send(request("GET", "/kept"))
    other.send(request("GET", "/held"))
    hold.wait_arrival(2)
    connection.reset()
    other.reset()
    # Both have been seen to leave when the second has.
    assert hold.outcome() == "CancelledError"
    wait = stopping(live)
    hold.release()
    started = time.monotonic()
    wait()
    assert time.monotonic() - started < 5.0
    assert journal.lines == [
        "handler cancelled",
        "handler finished",
        "lane 0 down",
        "app down",
    ]


# -- what is not -----------------------------------------------------------------------------------


@pytest.mark.timing
@pytest.mark.parametrize("path", ["/held", "/stream"])
def test_the_end_of_the_grace_cancels_what_still_runs(
    serve: Any, raw: Any, journal: Journal, hold: Hold, path: str
) -> None:
    live = serve(journal.app, grace=0.1)
    connection = raw(live)
    connection.send(request("GET", path))
    hold.wait_arrival()
    started = time.monotonic()
    live.stop()
    assert 0.1 <= time.monotonic() - started < 1.0
    assert hold.outcome() == "CancelledError"
    # Nothing that could be taken for a whole answer.
    assert not connection.rest().endswith(b"0\r\n\r\n")
    expected = ["handler cancelled"] if path == "/held" else []
    assert journal.lines == [*expected, "lane 0 down", "app down"]


def test_a_stream_that_the_end_of_the_grace_cuts_is_a_reset_for_http_1_0(
    serve: Any, raw: Any, journal: Journal, hold: Hold
) -> None:
    """Nothing else would tell it from the end."""
    live = serve(journal.app, grace=0.1)
    connection = raw(live)
    connection.send(request("GET", "/stream", version="HTTP/1.0"))
    hold.wait_arrival()
    connection.until(b"first")
    live.stop()
    with pytest.raises(ConnectionResetError):
        connection.socket.recv(1)


@pytest.mark.timing
@pytest.mark.parametrize("whose", ["process", "lane"])
def test_the_tasks_of_a_lifespan_are_there_for_its_end(
    serve: Any, raw: Any, hold: Hold, whose: str
) -> None:
    lines: list[str] = []

    class Worker:
        """Works off a queue, each piece in a Task of its own."""

        def __init__(self) -> None:
            self.queue: asyncio.Queue[str] = asyncio.Queue()
            self.pieces: set[asyncio.Task[None]] = set()
            self.held = asyncio.Event()

        async def run(self) -> None:
            while True:
                piece = asyncio.create_task(self.work(await self.queue.get()))
                self.pieces.add(piece)
                piece.add_done_callback(self.pieces.discard)

        async def work(self, name: str) -> None:
            if name == "begun while serving":
                await self.held.wait()
            lines.append(name)
            self.queue.task_done()

    async def life(state: State) -> AsyncIterator[None]:
        worker = state.worker = Worker()
        task = asyncio.create_task(worker.run())
        yield
        worker.held.set()
        worker.queue.put_nowait("begun by the end")
        # Without a limit: a worker that was cancelled would hold up the stop.
        await worker.queue.join()
        lines.append("flushed")
        task.cancel()

    app = App()

    @app.lifespan
    async def process(app: App) -> AsyncIterator[None]:
        async with asynccontextmanager(life)(app.state):
            yield

    @app.lane_lifespan
    async def each(lane: Lane) -> AsyncIterator[None]:
        async with asynccontextmanager(life)(lane.state):
            yield

    @app.get("/")
    async def root(app: App, lane: Lane) -> None:
        (app if whose == "process" else lane).state.worker.queue.put_nowait("begun while serving")
        await asyncio.wait([asyncio.create_task(hold())])

    live = serve(app, grace=0)
    connection = raw(live)
    connection.send(request("GET"))
    hold.wait_arrival()
    started = time.monotonic()
    live.stop()
    # What is not cancelled is not waited for either.
    assert time.monotonic() - started < 1.0
    # What the handler began is the handler's.
    assert hold.outcome() == "CancelledError"
    kept = ["begun while serving", "begun by the end", "flushed"]
    other = ["begun by the end", "flushed"]
    assert lines == ([*other, *kept] if whose == "process" else [*kept, *other])


def test_a_handler_that_will_not_be_cancelled_is_left(serve: Any, raw: Any, hold: Hold) -> None:
    app = App()

    @app.get("/")
    async def root() -> None:
        while True:
            try:
                await hold()
            except asyncio.CancelledError:
                if hold.is_untouched:
                    continue
                raise

    live = serve(app, grace=0.1)
    connection = raw(live)
    connection.send(request("GET"))
    hold.wait_arrival()
    started = time.monotonic()
    live.stop()
    assert time.monotonic() - started < 4.0
    assert hold.outcome() == "CancelledError"


@pytest.mark.timing
@pytest.mark.parametrize("part", [b"GET / HT", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Le"])
def test_half_a_head_does_not_use_up_the_grace(serve: Any, raw: Any, part: bytes) -> None:
    app = App()
    app.get("/")(lambda: "hello")
    live = serve(app, grace=10)
    connection = raw(live)
    connection.send(part)
    assert_serves(raw(live))
    started = time.monotonic()
    live.stop()
    assert time.monotonic() - started < 2.0
    assert connection.rest() == b""


@pytest.mark.timing
def test_half_a_body_has_no_more_than_the_grace(serve: Any, raw: Any) -> None:
    app = App()
    reading = threading.Event()

    @app.post("/")
    async def root(request: Request) -> bytes:
        reading.set()
        return await request.body()

    live = serve(app, grace=0.2)
    connection = raw(live)
    connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel")
    assert reading.wait(10)
    started = time.monotonic()
    live.stop()
    assert 0.2 <= time.monotonic() - started < 2.0
    assert connection.rest() == b""


@pytest.mark.timing
def test_a_client_that_reads_nothing_does_not_hold_up_a_stop(serve: Any, raw: Any) -> None:
    app = App()

    @app.get("/")
    def root() -> bytes:
        return bytes(32 << 20)

    @app.get("/other")
    def other() -> None: ...

    live = serve(app, grace=0.2)
    connection = raw(live)
    connection.send(request("GET"))
    connection.until(b"\r\n\r\n")
    assert_serves(raw(live), "/other")
    started = time.monotonic()
    live.stop()
    assert time.monotonic() - started < 2.0
